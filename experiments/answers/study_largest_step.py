"""The answer of study_largest_step."""

import numpy as np

import sgdstudy as ss
from common.study_largest_step import BETWEEN, BEYOND, LINES, NOISELESS, WRONG, planned


def short(o, runs, value):
    yield from limit()
    yield from beyond(runs, value)
    yield from carried(runs, value)


def answer(o, runs, value):
    yield ss.say("""Beyond the largest step the mean of the squared distance to the minimiser, over
        all that may be drawn, grows without bound. With all the data at once that step is
        2 / λmax, λmax being the largest curvature of the loss; with batches it is smaller.""")
    yield from limit()
    yield ss.say("""So it grows as B does while B is well below c, and hardly any more well above
        it.""")
    yield None
    yield from beyond(runs, value)
    yield from rate(value)
    yield from carried(runs, value)
    if BETWEEN in runs:
        yield None
        yield from both_limits(runs, value)
        yield None
        yield from too_large_for_the_noise(runs, value)


def limit():
    c = [ss.expect(planned(line, 1)).critical_size_of_lr for line in ("curve", "stairs")]
    yield ss.say(
        """The largest step for batches of B is about that of all the data, 2 / λmax, divided by
        1 + c / B; of single samples, by theory, c is {curve:.1f} on the notebook's parabola at 256
        points and {stairs:.1f} on a staircase of 8 steps.""",
        curve=c[0],
        stairs=c[1],
    )


def closer(runs, value):
    """Return how many seeds come nearer without noise, and of how many."""
    n = len(runs[NOISELESS].w)
    return round(value["share_of_seeds_that_converge"] * n), n


def nearer(near, n):
    """Return, as a clause, how many seeds come nearer."""
    if n > 1:
        return ss.say("{near} of {n} seeds came nearer", near=near, n=n)
    return (
        ss.say("the only seed came nearer") if near else ss.say("the only seed did not come nearer")
    )


def beyond(runs, value):
    (near, n), growth = closer(runs, value), value["mean_square_factor_per_step"]
    given = {"growth": growth, "seeds": nearer(near, n)}
    if growth > 1 and 2 * near > n:
        yield ss.say(
            """At 1.3 times the largest step of single samples, without noise, the mean square of
            the distance grows {growth:.2f}-fold with every step, and yet {seeds}.""",
            **given,
        )
    else:
        yield ss.say(
            """At 1.3 times the largest step of single samples, without noise, every step
            multiplies the mean square of the distance by {growth:.2f}; {seeds}.""",
            **given,
        )


def carried(runs, value):
    """Say who carries the mean, where that of the seeds grows by far less, in logarithms."""
    run, growth = runs[NOISELESS], value["mean_square_factor_per_step"]
    square = (run.from_minimiser() ** 2).sum(-1).mean(1)
    if np.log(growth) > 0 and np.log(square[-1] / square[0]) < run.n_steps[0] * np.log(growth) / 2:
        yield ss.say("What grows is carried by paths too rare to be met.")


def rate(value):
    yield ss.say(
        """The logarithm of the distance changes by {rate:.3f} a step, as a mean over the seeds.""",
        rate=value["log_rate_per_step", NOISELESS],
    )


def there(reached, n):
    """Return, as a clause, how many seeds got to the target."""
    if n > 1:
        return ss.say("{reached} of {n} seeds got to the target", reached=reached, n=n)
    if reached:
        return ss.say("the only seed got to the target")
    return ss.say("the only seed did not get to the target")


def both_limits(runs, value):
    counts = [
        round(value["share_of_seeds_that_reach", arm] * len(runs[arm].w))
        for arm in (BETWEEN, BEYOND)
    ]
    between, above = (value["log_rate_per_step", arm] for arm in (BETWEEN, BEYOND))
    yield ss.say(
        """There is a second limit, from which on almost no path converges. On the notebook's
        parabola, between both, {first}; beyond both, {last}.""",
        first=there(counts[0], len(runs[BETWEEN].w)),
        last=there(counts[1], len(runs[BEYOND].w)),
    )
    yield ss.say(
        """Between them the logarithm of the distance changes by {between:.2} a step, beyond both by
        {above:.2}.""",
        between=between,
        above=above,
    )


def dipped(dips, n):
    """Return, as a clause, how many seeds were below the target."""
    if n > 1:
        return ss.say("{dips} of {n} seeds were below it at some step", dips=dips, n=n)
    if dips:
        return ss.say("the only seed was below it at some step")
    return ss.say("the only seed was below it at no step")


def too_large_for_the_noise(runs, value):
    target, run = LINES["noisy stairs to 0.001"][1], runs[WRONG]
    dips = int(np.isfinite(run.first_step_below(target)).sum())
    given = {"seeds": dipped(dips, len(run.w)), "ratio": value["excess_late"] / target}
    if value["excess_late"] > target:
        yield ss.say(
            """With noisy labels a step must also be small enough for the noise at the target. With
            one that is right for the noise scale of the start the mean loss of the second half of
            the run stays {ratio:.1f} times the target above the least one; {seeds}.""",
            **given,
        )
    else:
        yield ss.say(
            """With noisy labels and a step that is right for the noise scale of the start the mean
            loss of the second half of the run is {ratio:.1f} times the target above the least one;
            {seeds}.""",
            **given,
        )
