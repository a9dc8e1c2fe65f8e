"""The answer of study_edge_of_stability, and what its arms, claims and pictures share with it."""

import numpy as np

import sgdstudy as ss

TINY, RATE, BETA, BATCH = 0.015, 0.1, 0.5, 4
RULES = {  # arm -> lr, options of SGD
    **{f"lr {lr}": (lr, {}) for lr in (0.05, RATE, 0.2)},
    "heavy ball": (RATE, {"momentum": BETA}),
    "Nesterov": (RATE, {"momentum": BETA, "nesterov": True}),
}
FLOW, SMALL = f"lr {TINY}", f"batches of {BATCH}"
THREE = (f"lr {RATE}", "heavy ball", "Nesterov")
NEAR = 0.1  # of its edge: within it the sharpness is said to stay there


def short(o, runs, value):
    yield from settles(runs, value)
    yield from rules(runs, value)
    yield from at_edge(value)


def answer(o, runs, value):
    yield ss.say("""Sharpness is the curvature of the loss in its steepest direction, the largest
        eigenvalue of the Hessian. On a quadratic, descent with the step lr grows where the
        sharpness is above 2/lr, which is the edge of stability: lr times the sharpness is 2 there.
        In a network the sharpness changes on the way.""")
    yield None
    yield from settles(runs, value)
    yield ss.say(
        "These are medians over the last quarter of the run, of one network.",
        """These are medians over the last quarter of the run, then over {n} networks.""",
        n=len(runs[SMALL].w),
    )
    yield from flow(runs, value)
    yield None
    yield from before(value)
    yield from at_edge(value)
    yield None
    yield from rules(runs, value)
    yield from batches(runs, value)


def edges(runs):
    """Return the sharpness beyond which each rule grows on a quadratic."""
    return {a: ss.expect(run).edge / run.config.lr for a, run in runs.select(*RULES).items()}


def plain(runs):
    """Return the arms of descent on the networks, without momentum or batches."""
    return [arm for arm in (FLOW, *RULES) if arm in runs and not runs[arm].config.options]


def late(value, arm):
    """Return where lr times the sharpness ends, a median over the networks."""
    return float(np.median(value["late_lr_sharpness", arm]))


def stays(runs, value, arms):
    """Whether each network passes the edge of its rule, and its sharpness stays near it."""
    for arm in arms:
        edge, ends = ss.expect(runs[arm]).edge, value["late_lr_sharpness", arm]
        if not (np.isfinite(runs[arm].edge().loss_there).all() and near(ends, edge)):
            return False
    return True


def near(ends, edge):
    return bool((np.abs(np.array(ends) / edge - 1) < NEAR).all())


def settles(runs, value):
    arms = [arm for arm in plain(runs) if arm != FLOW]
    ends = [ss.say("{ends:.2f} with {arm}", ends=late(value, arm), arm=arm) for arm in arms]
    if stays(runs, value, arms):
        yield ss.say(
            """Yes: full-batch descent makes the network sharper until lr times the sharpness is 2,
            and then stays at that edge, whatever lr: it ends at {ends}.""",
            ends=ends,
        )
    else:
        yield ss.say(
            """In full-batch descent lr times the sharpness ends at {ends}; the edge is 2.""",
            ends=ends,
        )


def rules(runs, value):
    heavy, nesterov = THREE[1:]
    given = {"heavy": late(value, heavy), "nesterov": late(value, nesterov), "beta": BETA}
    given |= {"a": ss.expect(runs[heavy]).edge, "b": ss.expect(runs[nesterov]).edge}
    if stays(runs, value, THREE[1:]):
        yield ss.say(
            """Another rule has another edge, and stays at that: with momentum {beta} heavy ball at
            {heavy:.2f} (theory: {a}), Nesterov's at {nesterov:.2f} (theory: {b}).""",
            **given,
        )
    else:
        yield ss.say(
            """Another rule has another edge: with momentum {beta} it is {a} for heavy ball, which
            ends at {heavy:.2f}, and {b} for Nesterov's, which ends at {nesterov:.2f}.""",
            **given,
        )


def flow(runs, value):
    """Say where the sharpness goes with a small step, whose edge is far above the others."""
    if FLOW not in runs:
        return
    least, others = min(value["largest_sharpness", FLOW]), edges(runs).values()
    given = {"lr": TINY, "edge": 2 / TINY, "least": ss.text.at_most(least), "most": max(others)}
    given["n"] = len(runs[FLOW].w)
    if least > max(others):
        yield ss.say(
            """With the small step {lr}, whose edge is at a sharpness of {edge:.0f}, the sharpness
            gets to {least:.0f}. The edges of the others are at {most:.0f} or less: so these are
            what stops them.""",
            """With the small step {lr}, whose edge is at a sharpness of {edge:.0f}, the sharpness
            gets to {least:.0f} or more in every network. The edges of the others are at {most:.0f}
            or less: so these are what stops them.""",
            **given,
        )
    else:
        yield ss.say(
            """With the small step {lr}, whose edge is at a sharpness of {edge:.0f}, the sharpness
            gets to {least:.2}; the edges of the others are at {most:.0f} or less.""",
            """With the small step {lr}, whose edge is at a sharpness of {edge:.0f}, the sharpness
            gets to {least:.2} or more in every network; the edges of the others are at {most:.0f}
            or less.""",
            **given,
        )


def before(value):
    early = value["rises_before_edge"]
    if early:
        yield ss.say(
            "Before the edge the loss of descent rises at {n} step.",
            "Before the edge the loss of descent rises at {n} steps.",
            n=early,
        )
    else:
        yield ss.say("Before the edge the loss of descent rises at no step, as theory says.")


def at_edge(value):
    """Say when the loss rises, and where it ends."""
    names = ("share_of_rises_at_edge", "late_loss_over_that_at_edge")
    share, falls = (np.array(value[name, f"lr {RATE}"]) for name in names)
    given = {"lr": RATE, "share": share.mean(), "ratio": np.median(falls)}
    if not np.isfinite(share).all():
        yield ss.say(
            "With the step {lr} the network does not get to the edge in this time.",
            "With the step {lr} not every network gets to the edge in this time.",
            n=len(share),
            lr=RATE,
        )
    elif share.min() > 0 and falls.max() < 1:
        yield ss.say(
            """At the edge the loss rises in {share:.0%} of the steps (with the step {lr}) and falls
            all the same in the long run: it ends at {ratio:.2} times what it was there first.""",
            **given,
        )
    else:
        yield ss.say(
            """At the edge the loss rises in {share:.0%} of the steps (with the step {lr}), and ends
            at {ratio:.2} times what it was there first.""",
            **given,
        )


def batches(runs, value):
    given = {"size": BATCH, "end": late(value, SMALL)}
    whole = f"lr {RATE}"
    lower = max(value["late_lr_sharpness", SMALL]) < min(value["late_lr_sharpness", whole])
    if lower and stays(runs, value, [whole]):
        yield ss.say(
            """Small batches keep lr times the sharpness lower: it ends at {end:.2f} with batches of
            {size}.""",
            **given,
        )
    else:
        yield ss.say("With batches of {size} lr times the sharpness ends at {end:.2f}.", **given)
    yield ss.say(
        """Under batches drawn at random the mean of the squared error grows from a step on that is
        smaller than 2 over the sharpness; lr ends at {share:.2} times that step.""",
        share=np.median(value["lr_over_mean_square_limit", SMALL]),
    )
