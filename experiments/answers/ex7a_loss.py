"""The answer of Exercise 7, first part."""

import math

import sgdstudy as ss

RULES = ("running_loss", "full_loss", "last_loss")
EPSILON = 0.1
PARTS = ("drift", "sampling")
SORTED = "mse, sorted, moving"


def short(o, runs, value):
    first, last = value["running_over_full", arm(o)]
    if mean_is_full(value):
        yield ss.say("""As long as the parameters stand still there is no difference: the mean of
            the batch losses, each weighted by the size of its batch, is the loss of all points.""")
    n = int(runs[arm(o)].stop_epoch.max())
    if math.isfinite(first) and math.isfinite(last) and n > 1:
        yield ss.say(
            """While it trains, the parameters move, and the cost that is added up is that of the
            way: {first:.3} times the loss at the end of the first epoch, {last:.3} times at the end
            of epoch {n}.""",
            first=first,
            last=last,
            n=n,
        )
    elif math.isfinite(first) and n == 1:
        yield ss.say(
            """While it trains, the parameters move, and the cost that is added up is that of the
            way: {first:.3} times the loss at the end of the epoch.""",
            first=first,
        )
    yield from serious(o, runs, value)


def answer(o, runs, value):
    yield from still(o, value)
    yield None
    yield from triangle()
    yield None
    yield from moving(o, runs, value)
    yield None
    yield from serious(o, runs, value)
    yield from luck(o, runs, value)
    yield None
    yield from along(runs, value)


def still(o, value):
    yield ss.say("""At fixed parameters w, with batches of n₁, …, n_m points of the d: L(w) =
        Σᵢ (nᵢ/d) Lᵢ(w), where Lᵢ is the mean over batch i.""")
    if mean_is_full(value):
        yield ss.say(
            """Measured, the two differ by {off:.1} of their size, which is rounding; and just as
            well for the text's loss without the square.""",
            off=value["weighted_mean_is_full"],
        )
    yield ss.say("""The sum Σᵢ Lᵢ(w) that the exercise writes is m times the plain mean of the batch
        losses: another scale, not another loss. Compared with an epsilon it needs another
        epsilon.""")
    short = "mse, B=1999, sorted, fixed"
    yield ss.say(
        """A plain mean goes wrong where the last batch is short. Cut into 1999 points and one,
        the last point of the curve counts as much as the 1999 others, and the plain mean is off by
        {off:+.3} (at w = 0).""",
        off=value["unweighted_minus_full", short],
    )


def triangle():
    yield ss.say("""What the triangle inequality says. Let r be the vector of all residuals y −
        f(x), and rᵢ its part in batch i. For the norm, without a square: ‖r‖ ≤ Σᵢ ‖rᵢ‖ ≤ √m ‖r‖. So
        the sum of the batches' norms is never below the norm of the whole.""")
    yield ss.say("""What it does not say. The loss here is a mean of squares, and squares add up
        exactly, ‖r‖² = Σᵢ ‖rᵢ‖²: no inequality is left, and no difference either, as long as w
        stands still. And if w moves, the rᵢ belong to different w, and it says nothing (study_norms
        measures all of this).""")


def moving(o, runs, value):
    yield ss.say("""While it trains, batch i meets the parameters wᵢ, and the epoch ends with w.
        Then running loss − L(w) = Σᵢ (nᵢ/d) [L(wᵢ) − L(w)] + Σᵢ (nᵢ/d) [Lᵢ(wᵢ) − L(wᵢ)]. The first
        sum is the drift: the parameters were worse on the way than at the end. The second is
        sampling: a batch is not the whole.""")
    n = len(runs[arm(o)].gaps())
    for epoch in sorted({1, n} - {0}):
        drift, sampling = (part(value, f"{kind}_epoch_{epoch}", o) for kind in PARTS)
        if math.isfinite(drift) and math.isfinite(sampling):
            yield ss.say(
                """In epoch {epoch}, of the first order, drift is {drift:+.3} and sampling
                {sampling:+.3}.""",
                epoch=epoch,
                drift=drift,
                sampling=sampling,
            )
            if abs(drift) > 2 * abs(sampling):
                yield ss.say("The difference is drift above all.")
    first, last = value["running_over_full", arm(o)]
    if last < first and abs(last - 1) < 0.1:
        yield ss.say(
            """As the steps get shorter the two losses approach each other: at the end the running
            loss is {last:.4} times the loss of all points.""",
            last=last,
        )


def serious(o, runs, value):
    stop = {loss: value[f"first_{loss}_below_0.1", arm(o)] for loss in RULES}
    apart = max(map(abs, value["running_epochs_late", arm(o)]))
    given = {
        "running": stop["running_loss"],
        "full": stop["full_loss"],
        "apart": apart,
        "epsilon": EPSILON,
        "n": len(runs[arm(o)].w),
    }
    if not math.isfinite(apart):
        yield ss.say(
            """“Is it serious, doctor?” (the notebook asks.) That cannot be said here: the two
            losses do not both get below {epsilon}.""",
            """“Is it serious, doctor?” (the notebook asks.) That cannot be said here: not each
            order gets below {epsilon}.""",
            **given,
        )
    elif not apart:
        yield ss.say(
            """“Is it serious, doctor?” (the notebook asks.) No: the running loss is below {epsilon}
            at the same epoch as the loss of all points, {running}.""",
            """“Is it serious, doctor?” (the notebook asks.) No: in each order the running loss is
            below {epsilon} at the same epoch as the loss of all points, {running} in half of
            them.""",
            **given,
        )
    elif apart <= 2:
        yield ss.say(
            """“Is it serious, doctor?” (the notebook asks.) No: the running loss is below {epsilon}
            at epoch {running}, the loss of all points at epoch {full}.""",
            """“Is it serious, doctor?” (the notebook asks.) No: the running loss is below {epsilon}
            at epoch {running}, the loss of all points at epoch {full}, and in no order are they
            more than {apart} apart.""",
            **given,
        )
    else:
        yield ss.say(
            """The running loss is below {epsilon} at epoch {running}, the loss of all points at
            epoch {full}.""",
            """The running loss is below {epsilon} at epoch {running}, the loss of all points at
            epoch {full}; in some order they are {apart} apart.""",
            **given,
        )


def luck(o, runs, value):
    last, early = value["first_last_loss_below_0.1", arm(o)], value["last_loss_early", arm(o)]
    if math.isfinite(last) and early:
        yield ss.say(
            """The loss of the last batch alone is below it at epoch {last}, before the loss of all
            points is, by luck.""",
            """The loss of the last batch alone is below it at epoch {last}: in {early} of {n}
            orders before the loss of all points is, by luck.""",
            last=last,
            early=early,
            n=len(runs[arm(o)].w),
        )


def along(runs, value):
    ratio = value["running_over_full", SORTED][1]
    if not foretold(value, SORTED):
        yield ss.say("""With shuffle=False the losses are what rounding makes of them, and say
            nothing.""")
    elif ratio > 100:
        yield ss.say(
            """It can be serious: with shuffle=False the running loss is {ratio:.2} times the loss
            of all points at the end (Exercise 6).""",
            ratio=ratio,
        )
    elif math.isfinite(ratio):
        yield ss.say(
            """With shuffle=False the running loss is {ratio:.3} times the loss of all points at
            the end.""",
            ratio=ratio,
        )


def part(value, name, o):
    """Return a measured part of a difference; 0 where all of it is rounding."""
    (claim,) = (claim for claim in value if (claim.name, claim.arm) == (name, arm(o)))
    return 0.0 if abs(claim.measured) <= claim.tolerance else claim.measured


def arm(o):
    return f"mse, B={o.divides}, moving"


def headline(o, runs, value):
    """The title of the picture; where rounding makes the losses, it says nothing of them."""
    n, ratio = len(runs[arm(o)].gaps()), value["running_over_full", SORTED][-1]
    title = ss.say(
        "The running loss is {first:.4} times the full loss in epoch {n} if shuffled",
        first=value["running_over_full", arm(o)][-1],
        n=n,
    )
    if not foretold(value, SORTED):
        return title
    return ss.say("{title}, {last:.4} times along the curve", title=title, last=ratio)


def foretold(value, arm):
    """Whether theory, in float64, has the drift of a run, and not rounding alone."""
    return all(c.expected is not None for c in value if c.arm == arm and "drift" in c.name)


def mean_is_full(value):
    """Whether the weighted mean is the full loss, to within rounding."""
    return all(claim.holds for claim in value if claim.name == "weighted_mean_is_full")
