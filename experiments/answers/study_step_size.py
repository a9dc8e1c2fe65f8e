"""The answer of study_step_size, and the names of its lines."""

import sgdstudy as ss
from answers import epochs

DECAYS = ("1/t", "1/sqrt(t)", "cosine", "linear", "steps")
GUESSES = {"1/t": 1, "1/t, mu x 4": 4, "1/t, mu / 4": 1 / 4}
MEANS = {"mean of all": (1, 0.0), "tail mean": (1, 0.5), "tail mean, lr / 2": (1 / 2, 0.5)}
NAMES = {
    "constant": ss.to_say("constant"),
    "warm-up": ss.to_say("warm-up"),
    "1/t": "1/t",
    "1/sqrt(t)": "1/√t",
    "cosine": ss.to_say("cosine"),
    "linear": ss.to_say("linear"),
    "steps": ss.to_say("stepwise"),
    "1/t, mu x 4": "1/t, μ × 4",
    "1/t, mu / 4": "1/t, μ / 4",
    "mean of all": ss.to_say("mean of all"),
    "tail mean": ss.to_say("tail mean"),
    "tail mean, lr / 2": ss.to_say("tail mean, lr / 2"),
}
NEAR = 0.1  # of the level it settles at: a loss there is said to stall


def short(o, runs, value):
    yield from noisy(runs, value)
    yield from noiseless(value)
    yield from tail(value)


def answer(o, runs, value):
    run = runs["noisy: constant"]
    yield ss.say(
        """A decay starts from the step of the constant one and makes it smaller and smaller. Excess
        loss is the loss above the least one, of one seed, after {epochs}.""",
        """A decay starts from the step of the constant one and makes it smaller and smaller. Excess
        loss is the loss above the least one, a mean over {n} seeds, after {epochs}.""",
        n=len(run.w),
        epochs=epochs(run.config.epochs),
    )
    yield None
    yield from noisy(runs, value)
    yield from settled(runs, value)
    yield from each_decay(value)
    yield None
    yield from noiseless(value)
    yield from warm_up(value)
    yield None
    yield from guesses(value)
    yield None
    yield from tail(value)
    yield from mean_of_all(value)


def over_constant(value):
    """Return by line the excess over that of the constant step, with noisy labels."""
    found = (claim for claim in value if claim.name == "over_constant")
    return {claim.arm.removeprefix("noisy: "): claim.measured for claim in found}


def calm(value):
    """Return by line the excess at the end without noise."""
    found = (claim for claim in value if claim.name == "excess")
    return {claim.arm.removeprefix("noiseless: "): claim.measured for claim in found}


def noisy(runs, value):
    times = over_constant(value)
    given = {"settled": value["settled_excess"], "cosine": times["cosine"]}
    floor = ss.expect(runs["noisy: constant"]).stationary_excess
    stalls = abs(given["settled"] / float(floor) - 1) < NEAR
    if stalls and max(times[line] for line in DECAYS) < 1:
        yield ss.say(
            """With noisy labels a step that stays constant stalls, at an excess loss of
            {settled:.2}; each of the decays ends lower, a decay by cosine at {cosine:.2} times
            that.""",
            **given,
        )
    else:
        yield ss.say(
            """With noisy labels a step that stays constant is at an excess loss of {settled:.2} in
            the second half of the run; a decay by cosine ends at {cosine:.2} times that.""",
            **given,
        )


def settled(runs, value):
    yield ss.say(
        """In the long run theory has {floor:.3} for the constant step; measured is {settled:.3}, a
        mean over the second half of the epochs.""",
        floor=ss.expect(runs["noisy: constant"]).stationary_excess,
        settled=value["settled_excess"],
    )


def each_decay(value):
    times = over_constant(value)
    ends = [ss.say("{line} at {times:.2}", line=ss.say(NAMES[x]), times=times[x]) for x in DECAYS]
    yield ss.say("Relative to it the decays end so: {ends}.", ends=ends)


def noiseless(value):
    ends, others = calm(value), over_constant(value)
    constant = ends["constant"]
    least = min(ends[line] for line in others) / constant
    given = {"constant": constant, "least": ss.text.at_most(least, 3)}
    given["cosine"] = ends["cosine"] / constant
    if least > 1:
        yield ss.say(
            """Without noise decay only loses time: the constant step gets down to {constant:.2},
            each decay and each mean ends at least {least} times as high.""",
            **given,
        )
    else:
        yield ss.say(
            """Without noise the constant step gets down to {constant:.2}, a decay by cosine to
            {cosine:.2} times that.""",
            **given,
        )


def warm_up(value):
    ratio = calm(value)["warm-up"] / calm(value)["constant"]
    given = {"noisy": value["over_constant_at_the_end"], "ratio": ratio}
    if abs(given["noisy"] - 1) < 0.005:
        yield ss.say(
            """A warm-up (the step grows at first, and is constant then) ends as high as the
            constant step with noisy labels, and {ratio:.2} times as high without noise.""",
            **given,
        )
    else:
        yield ss.say(
            """A warm-up (the step grows at first, and is constant then) ends {noisy:.3} times as
            high as the constant step with noisy labels, and {ratio:.2} times without noise.""",
            **given,
        )
    if ratio > 1:
        yield ss.say("There the time of the small steps is lost.")


def guesses(value):
    times = over_constant(value)
    high, low = (times[line] / times["1/t"] for line in ("1/t, mu x 4", "1/t, mu / 4"))
    powers = [value["exponent", f"noiseless: {line}"] for line in ("1/t", "1/t, mu x 4")]
    yield ss.say("""A decay as 1/t has to know one number, μ, the curvature in the flattest
        direction: in the end its step is 1/(μ t).""")
    given = {"high": high, "low": low}
    if high > 1:
        yield ss.say(
            """If μ is guessed four times too large, the step decays too fast, and the run ends at
            {high:.2} times the excess of the right guess, with noisy labels (four times too small:
            {low:.2} times).""",
            **given,
        )
    else:
        yield ss.say(
            """If μ is guessed four times too large, the run ends at {high:.2} times the excess of
            the right guess, with noisy labels (four times too small: {low:.2} times).""",
            **given,
        )
    yield ss.say(
        """Without noise the loss falls as 1 + lr μ t to the power {right:.2f} for the right guess,
        and as 1 + 4 lr μ t to the power {wrong:.2f} for the guess too large.""",
        right=powers[0],
        wrong=powers[1],
    )
    yield ss.say("""Cosine, linear and stepwise decay need no μ; what they have to know is when the
        run ends.""")


def tail(value):
    times = over_constant(value)
    given = {"tail": times["tail mean"], "half": times["tail mean, lr / 2"]}
    if given["tail"] < 1:
        yield ss.say(
            """The step may also stay constant, and the parameters of the second half be averaged:
            their mean ends at {tail:.2} times the excess of the constant step with noisy labels,
            without any decay.""",
            **given,
        )
    else:
        yield ss.say(
            """The mean of the parameters of the second half of the constant step ends at {tail:.2}
            times its excess with noisy labels.""",
            **given,
        )


def mean_of_all(value):
    end = over_constant(value)["mean of all"] * value["settled_excess"]
    start = calm(value)["mean of all"]
    given = {"end": end, "start": start, "half": over_constant(value)["tail mean, lr / 2"]}
    yield ss.say("With half the step it is {half:.2} times.", **given)
    if 2 * start > end:
        yield ss.say(
            """The mean of all parameters still holds the start: it ends at an excess of {end:.2},
            and without any noise at {start:.2}.""",
            **given,
        )
    else:
        yield ss.say(
            """The mean of all parameters ends at an excess of {end:.2}, and without noise at
            {start:.2}.""",
            **given,
        )
