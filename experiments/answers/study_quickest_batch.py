"""The answer of study_quickest_batch, and the table that its claims and picture share with it."""

import numpy as np

import sgdstudy as ss

EPSILON = 1e-4


def by_size(o, runs):
    """Return one row per batch size: steps, seconds per step, seconds and samples."""
    import pandas as pd  # --help must not wait for it

    rows = []
    for arm, run in runs.select("to the target*").items():
        size, d = run.config.batch_size, run.problem.d
        each = runs[f"B={size or 'd'}, d={d:g}"].seconds_per_step
        known = ss.expect(run).steps_to_excess(EPSILON).value
        rows.append((arm, size or d, *run.steps_to_excess(EPSILON), known, each))
    names = ["arm", "batch_size", "steps", "standard_error", "expected", "seconds_per_step"]
    rows = pd.DataFrame(rows, columns=names)
    return rows.eval("seconds = steps * seconds_per_step\nsamples = steps * batch_size")


def quickest(rows):
    """Return the rows of single samples, of the quickest batches and of all the data."""
    return rows.iloc[0], rows.loc[rows["seconds"].idxmin()], rows.iloc[-1]


def short(o, runs, value):
    rows = by_size(o, runs)
    yield from steps(o, rows)
    yield from seconds(rows)
    yield from why(rows)


def answer(o, runs, value):
    rows = by_size(o, runs)
    yield ss.say(
        """The target is a loss within {epsilon} of the least one. The time to get there is the
        number of steps, times the time of a step, and a larger batch changes both.""",
        epsilon=EPSILON,
    )
    yield None
    yield ss.say("""A larger batch has less noise in its gradient and so allows a larger step, but
        only up to that of all the data: from there on the number of steps stays what it is.""")
    yield from steps(o, rows)
    yield from falls(rows)
    yield None
    yield ss.say("""The time of a step is at first that of calling it, whatever the batch holds, and
        grows only where the arithmetic takes longer than the call.""")
    each = 1e6 * rows["seconds_per_step"].to_numpy()
    yield ss.say(
        """As timed here, on one machine: {times} microseconds for batches of {sizes} samples.""",
        times=each.round().astype(int),
        sizes=rows["batch_size"].to_numpy(),
    )
    yield None
    yield from seconds(rows)
    yield from why(rows)


def steps(o, rows):
    one, _, last = quickest(rows)
    given = {"n": o.seeds, "last": last["steps"], "d": int(last["batch_size"])}
    if np.isfinite(one["steps"]):
        yield ss.say(
            """To the target the loss of {n} seed takes {one:.0f} steps one sample at a time; with
            all {d} samples at once it takes {last:.0f}.""",
            """To the target the mean loss of {n} seeds takes {one:.0f} steps one sample at a time;
            with all {d} samples at once it takes {last:.0f}.""",
            one=one["steps"],
            **given,
        )
    else:
        yield ss.say(
            """One sample at a time the loss of {n} seed is not at the target by the end of the run;
            with all {d} samples at once it takes {last:.0f} steps.""",
            """One sample at a time the mean loss of {n} seeds is not at the target by the end of
            the run; with all {d} samples at once it takes {last:.0f} steps.""",
            **given,
        )


def falls(rows):
    """Say how the steps fall from one size to the next, first and last."""
    left = (rows["steps"] / rows["steps"].shift()).to_numpy()
    if len(rows) > 2 and np.isfinite(rows["steps"]).all():
        sizes = rows["batch_size"].to_numpy()
        yield ss.say(
            """Batches of {ten} take {first:.0%} of the steps of batches of {one}; all the data take
            {last:.0%} of those of batches of {some}.""",
            one=sizes[0],
            ten=sizes[1],
            first=left[1],
            some=sizes[-2],
            last=left[-1],
        )


def seconds(rows):
    one, best, last = quickest(rows)
    if best.equals(one):
        name = ss.say("single samples")
    elif best.equals(last):
        name = ss.say("all the data at once")
    else:
        name = ss.say("batches of {n}", n=int(best["batch_size"]))
    others = []
    if not best.equals(one) and np.isfinite(one["seconds"]):
        others.append(ss.say("{time:.1f} ms one by one", time=1e3 * one["seconds"]))
    if not best.equals(last):
        others.append(ss.say("{time:.1f} ms all at once", time=1e3 * last["seconds"]))
    given = {"n": len(rows), "name": name, "time": 1e3 * best["seconds"]}
    if others:
        yield ss.say(
            """The quickest of {n} sizes, as timed here, are {name}: {time:.1f} ms to the target,
            against {others}.""",
            others=others,
            **given,
        )
    else:
        yield ss.say(
            "The quickest of {n} sizes, as timed here, are {name}: {time:.1f} ms to the target.",
            **given,
        )


def why(rows):
    one, best, _ = quickest(rows)
    if not best.equals(one) and np.isfinite(one["steps"]):
        yield ss.say(
            """They need {share:.1%} of the steps of single samples, and each of these takes
            {cost:.3} times as long.""",
            share=best["steps"] / one["steps"],
            cost=best["seconds_per_step"] / one["seconds_per_step"],
        )
