"""The answer of study_online, and what its arms, claims and pictures share with it."""

import numpy as np

import sgdstudy as ss

LRS = (0.006, 0.012, 0.02, 0.035, 0.06, 0.09, 0.14, 0.2)
GRID = {"drift": LRS, "still": LRS[1:4]}  # larger ones: all noise, which drift gives anyway
VELOCITY = {"drift": np.array([1e-3, 1e-3, 0.0]), "still": np.zeros(3)}  # a step
NOISE = 0.3  # of the labels
D = 100  # samples of the yardstick; as many steps are called an epoch
DECAYED = "1/t"


def law():
    return ss.theory.uniform_law(ss.problems.parabola, 3, NOISE)


def short(o, runs, value):
    yield from follows(runs, value)
    yield from best_step(runs, value)
    yield from decay(runs, value)


def answer(o, runs, value):
    yield ss.say(
        """{n} samples came, each was used for one step and not kept; the {d} points that are
        stored are a yardstick, on which nobody trains. What SGD keeps are its three
        parameters.""",
        n=value["samples_seen_once"],
        d=D,
    )
    yield from honest(value)
    yield None
    yield from follows(runs, value)
    yield ss.say("""A small step is late: the truth has moved on before SGD gets there. A large one
        is noisy: it follows the noise of each label. In between is the best.""")
    yield from best_step(runs, value)
    yield from ends_of_the_grid(runs, value)
    yield from still(runs, value)
    yield None
    yield from decay(runs, value)
    yield from rise(value)


def excesses(runs, value, words):
    """Return the excess loss by step size, in a world that drifts or stands still."""
    arms = runs.select(f"{words}, lr=*")
    return {run.config.lr: value["excess", arm] for arm, run in arms.items()}


def follows(runs, value):
    found = [claim for claim in value if claim.name == "excess" and claim.arm.startswith("drift")]
    seen = excesses(runs, value, "drift")
    lr = min(seen, key=seen.get)
    given = {"lr": lr, "excess": seen[lr], "noise": NOISE**2}
    if all(claim.holds for claim in found):
        yield ss.say(
            """Yes: with a constant step SGD stays as close behind parameters that drift as theory
            says, at a loss of {excess:.2} above theirs with the step {lr} (the noise of the labels
            alone makes {noise}).""",
            **given,
        )
    else:
        yield ss.say(
            """Behind parameters that drift SGD ends, with the constant step {lr}, at a loss of
            {excess:.2} above theirs, on average (the noise of the labels alone makes {noise}).""",
            **given,
        )


def best_step(runs, value):
    (claim,) = (claim for claim in value if claim.name == "best_lr")
    given = {"seen": claim.measured, "low": LRS[0], "high": LRS[-1]}
    given["due"] = ss.theory.best_tracking_lr(law(), 1, VELOCITY["drift"])
    if not LRS[0] <= claim.measured <= LRS[-1]:  # cut short: no least excess in between
        yield ss.say("Theory has its least excess at a step of {due:.2}.", **given)
    else:
        yield ss.say(
            """Of the steps from {low} to {high} the best is about {seen:.2}, by a parabola through
            three of them; theory has {due:.2}.""",
            **given,
        )


def ends_of_the_grid(runs, value):
    seen = excesses(runs, value, "drift")
    least = min(seen.values())
    small, large = seen[LRS[0]] / least, seen[LRS[-1]] / least
    yield ss.say(
        """The smallest has {small:.2} times the excess of the best of the grid, the largest
        {large:.2} times.""",
        small=small,
        large=large,
    )


def still(runs, value):
    seen = excesses(runs, value, "still")
    best = min(seen, key=seen.get)
    given = {"n": len(seen), "best": best, "excess": seen[best]}
    if best == min(seen):
        yield ss.say(
            """Where nothing moves there is no lag, and a smaller step ends nearer: of {n} the
            smallest, {best}, has the least excess, {excess:.2}.""",
            **given,
        )
    else:
        yield ss.say(
            "Where nothing moves, of {n} steps {best} has the least excess, {excess:.2}.", **given
        )


def decay(runs, value):
    last = {words: value["excess_in_the_last_tenth", f"{words}, {DECAYED}"] for words in VELOCITY}
    best = min(excesses(runs, value, "drift").values())
    lost, gained = last["drift"] / best, last["still"] / excesses(runs, value, "still")[LRS[3]]
    given = {"lost": lost, "gained": gained, "lr": LRS[3]}
    if gained < 1 < lost:
        yield ss.say(
            """A step that decays as 1/t is good where the truth stands still (it ends with
            {gained:.2} times the excess of the constant step {lr} that it starts from), and loses a
            truth that moves: {lost:.2} times the excess of the best constant step.""",
            **given,
        )
    else:
        yield ss.say(
            """A step that decays as 1/t ends with {gained:.2} times the excess of the constant step
            {lr} that it starts from where the truth stands still, and with {lost:.2} times that of
            the best constant step where it moves.""",
            **given,
        )


def rise(value):
    name = f"drift, {DECAYED}"
    known = [claim for claim in value if claim.name == "excess_over_expected" and claim.arm == name]
    ratio = value["its_second_half_over_the_first", name]
    if all(claim.holds for claim in known) and ratio > 1:
        yield ss.say(
            """It falls further and further behind: in the last twentieth of its run the excess is
            {ratio:.3} times that of the twentieth before.""",
            ratio=ratio,
        )


def honest(value):
    (claim,) = (c for c in value if c.name == "loss_before_the_step_less_excess")
    given = {"seen": claim.measured, "noise": NOISE**2}
    if claim.holds:
        yield ss.say(
            """As each sample is new, its loss before the step is an honest test: less the excess of
            the parameters, it is the noise of the labels, {seen:.3} measured where {noise} is
            due.""",
            **given,
        )
    else:
        yield ss.say(
            """As each sample is new, its loss before the step is a test: less the excess of the
            parameters it is {seen:.3}, the noise of the labels {noise}.""",
            **given,
        )
