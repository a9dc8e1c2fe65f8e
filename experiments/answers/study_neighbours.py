"""The answer of study_neighbours."""

import numpy as np

import sgdstudy as ss
from answers import epochs

KEPT = ("shuffle_once", "strided", "sequential")


def short(o, runs, value):
    yield from rule(runs)
    yield from sorted_order(o, runs, value)
    yield from rmsprop(runs, value)


def answer(o, runs, value):
    yield from rule(runs)
    yield None
    known = [c for c in value if c.name == "log10_late_excess" and c.expected is not None]
    law = {c.arm: 10**c.expected for c in known}
    if len(law) == 2:
        yield ss.say(
            """With label noise 1 the loss in the later half of {epochs} is {blocks:.2} above the
            least one for neighbours in random order, {mixed:.2} for mixed batches (geometric means
            of 250 orders, by theory).""",
            epochs=epochs(o.epochs),
            blocks=law["SGD block_shuffle, noise 1"],
            mixed=law["SGD shuffle, noise 1"],
        )
    excess = {order: value["excess_at_end", f"SGD {order}, noise 1"] for order in KEPT}
    if np.isfinite([excess["strided"], excess["shuffle_once"]]).all():
        yield ss.say(
            """With label noise 1 the fixed order of mixed batches (strided) ends {strided:.2}
            above the least loss, one drawn once (shuffle_once) {once:.2}.""",
            """With label noise 1 the fixed order of mixed batches (strided) ends {strided:.2}
            above the least loss, one drawn once (shuffle_once) {once:.2} (median of {n}).""",
            strided=excess["strided"],
            once=excess["shuffle_once"],
            n=o.seeds,
        )
    yield None
    yield from sorted_order(o, runs, value)
    yield None
    yield ss.say("RMSprop divides each gradient by its usual size: its steps do not grow with it.")
    yield from rmsprop(runs, value)


def rule(runs):
    mixed, blocks = (runs[f"{order}, running rule"] for order in ("shuffle", "block_shuffle"))
    given = {"blocks": blocks.when(), "mixed": mixed.when(), "n": len(mixed.w)}
    if mixed.median_stop < blocks.median_stop:
        yield ss.say(
            """Neighbours cost more than mixed batches, also in random order: by the notebook's
            rule, on the running loss, they stop {blocks}, mixed batches {mixed}.""",
            """Neighbours cost more than mixed batches, also in random order: by the notebook's
            rule, on the running loss, they stop {blocks}, mixed batches {mixed} (medians).""",
            **given,
        )
    else:
        yield ss.say(
            """By the notebook's rule, on the running loss, neighbours in random order stop
            {blocks}, mixed batches {mixed}.""",
            """By the notebook's rule, on the running loss, neighbours in random order stop
            {blocks}, mixed batches {mixed} (medians).""",
            **given,
        )


def sorted_order(o, runs, value):
    run, excess = runs["SGD sequential, noise 1"], value["excess_at_end", "SGD sequential, noise 1"]
    if not np.isfinite(excess):
        yield ss.say("With label noise 1 the descent in sorted order diverges.")
    elif len(ss.expect(run).beyond_limit) and excess > o.epsilon:
        yield ss.say(
            """With label noise 1 the sorted order ends {excess:.2} above the least loss: the growth
            within the epoch (Exercise 6) multiplies the noise, and to get below {epsilon} it needs
            noiseless labels.""",
            excess=excess,
            epsilon=o.epsilon,
        )
    else:
        yield ss.say(
            "With label noise 1 the sorted order ends {excess:.2} above the least loss.",
            excess=excess,
        )


def rmsprop(runs, value):
    run, drawn = (runs[f"RMSprop {order}"] for order in ("sequential", "shuffle"))
    yield ss.say(
        """In sorted order the running loss of RMSprop is {most:.2} at most; by the rule of Exercise
        5 it stops {stop}, at a loss of all the data of {end:.2}, and shuffled {shuffled}.""",
        """In sorted order the running loss of RMSprop is {most:.2} at most; by the rule of Exercise
        5 it stops {stop}, at a loss of all the data of {end:.2}, and shuffled in {there} of {n}
        seeds.""",
        most=ss.text.at_least(value["largest_running_loss", "RMSprop sequential"]),
        stop=run.when(),
        end=run.at("full_loss"),
        shuffled=drawn.when(),
        there=int(np.isfinite(drawn.converged_epoch).sum()),
        n=len(drawn.w),
    )
