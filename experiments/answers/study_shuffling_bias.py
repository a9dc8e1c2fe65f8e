"""The answer of study_shuffling_bias, and what its claims and picture share with it."""

import numpy as np

import sgdstudy as ss


def halves(runs):
    """Return K and the squared distances at the end, `(k,)` and `(k, R)`, of small and large K."""
    every, half = list(runs.values()), len(runs) // 2
    return [
        (np.array([r.config.epochs for r in part]), np.array([r.distance**2 for r in part]))
        for part in (every[:half], every[half:])
    ]


def law(runs):
    return ss.expect(next(iter(runs.values()))).rate_law


def short(o, runs, value):
    yield from slopes(runs, value)
    yield from bias(runs, value)


def answer(o, runs, value):
    yield ss.say("""A parabola is fitted to the points of a cubic: what it misses goes with the
        features, and does not average out. The error is the squared distance to the minimiser
        after K epochs, with a step size proportional to 1/K; where what is missed is noise,
        shuffling makes it fall as K⁻³ (study_orders).""")
    yield None
    yield from slopes(runs, value)
    yield None
    yield ss.say("""For large K theory has two parts of the error: a noise, which falls as K⁻³, and
        the square of a bias, as what an epoch adds does not vanish in the mean over all orders. It
        falls only as K⁻², and is left in the end.""")
    yield from bias(runs, value)
    yield ss.say(
        "The only seed ends {ratio:.2f} times as far along the bias as theory says of the mean.",
        "The mean over {n} seeds is {ratio:.2f} times as far along the bias as theory says.",
        n=halves(runs)[1][1].shape[1],
        ratio=value["mean_over_bias"],
    )


def slopes(runs, value):
    (small, _), (large, _) = halves(runs)
    low, high = value["slope_large_K_95"]
    given = {"slope": value["slope_small_K"], "later": value["slope_large_K"]}
    given |= {"small": small[-1], "large": large[0], "low": low, "high": high}
    if not low < high:  # of a single seed
        yield ss.say(
            """Shuffled anew in each epoch the error falls with the power {slope:.2f} of K up to
            {small}, and with {later:.2f} from {large} on.""",
            **given,
        )
    elif low > -3:
        yield ss.say(
            """Shuffled anew in each epoch the error falls with the power {slope:.2f} of K up to
            {small}, and with {later:.2f} from {large} on (95 %: {low:.2f} to {high:.2f}): more
            slowly than K⁻³.""",
            **given,
        )
    elif high >= -3:
        yield ss.say(
            """Shuffled anew in each epoch the error falls with the power {slope:.2f} of K up to
            {small}, and with {later:.2f} from {large} on (95 %: {low:.2f} to {high:.2f}), which may
            be K⁻³.""",
            **given,
        )
    else:
        yield ss.say(
            """Shuffled anew in each epoch the error falls with the power {slope:.2f} of K up to
            {small}, and with {later:.2f} from {large} on (95 %: {low:.2f} to {high:.2f}).""",
            **given,
        )


def bias(runs, value):
    known, last = law(runs), halves(runs)[1][0][-1]
    yield ss.say(
        """What does not average out is a bias: by theory it is {share:.0%} of the error at
        K = {last}.""",
        share=known[-2] * last**-2.0 / ss.theory.law_at(known, last),
        last=last,
    )
