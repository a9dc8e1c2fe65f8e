"""What does one iteration cost, on a mini-batch and on all the data?

Hypothesis: an iteration on a mini-batch costs a time that does not depend on the number d of
samples, one on all the data a time proportional to d; and for ten times the price it gets no
further, as more points of the same curve have the same gradient. Which batch is the quickest to a
target is another question: study_quickest_batch.

Source: section 1 of the notebook. Command: python experiments/study_iteration_cost.py
"""

import numpy as np

import sgdstudy as ss
from answers.study_iteration_cost import answer, short

LEAST = 2000  # the notebook's number of samples
SIZES = (10, 1000)  # batches timed at every d
STEPS = 2560  # timed, a fifth of them where it is to be quick
READ = 50_000_000  # samples read by a run of full batches, about
DESCENT = "theory: two steps of descent on 2000 points of the curve; float32 sums, 1 / d²"


class Options(ss.Options):
    largest: int = 20_000_000
    """samples of the largest data set; of the least 2000, ten times as many from one to the next"""
    quick: bool = False
    """at most 200000 samples"""


def numbers(o):
    """Return the numbers of samples d."""
    if o.largest < 10 * LEAST:
        raise ss.InputError(f"largest must be at least {10 * LEAST}, got {o.largest}")
    largest = min(o.largest, 200_000) if o.quick else o.largest
    return [LEAST * 10**k for k in range(int(np.log10(largest / LEAST) + 1e-9) + 1)]


def arms(o):
    timed = STEPS // 5 if o.quick else STEPS
    for d in numbers(o):
        data, steps = ss.problems.mapped_parabola(d, exact=False), max(3, min(timed, READ // d))
        whole = ss.Arm(
            data,
            ss.say("{steps} steps on all samples", steps=steps),
            charted=d in (numbers(o)[0], numbers(o)[-1]),
            lr=1e-3,
            epochs=steps,
            engine="eager",
            diagnostics="off",
            metrics=["loss"],
        )
        yield f"B=d, d={d:g}", whole
        for size in SIZES:
            order = np.random.default_rng(o.first_seed).integers(d, size=(1, timed, size))
            some = {"batch_size": size, "order": order, "epochs": 1}
            about = ss.say(
                "{steps} steps on {n} sample", "{steps} steps on {n} samples", steps=timed, n=size
            )
            yield f"B={size}, d={d:g}", whole.but(about, **some)


def by_d(runs):
    """Return seconds per step over d, one row a point."""
    rows = [(a.split(",")[0], r.problem.d, r.seconds_per_step, 0) for a, r in runs.items()]
    return ss.figures.points(rows)


def claims(o, runs):
    # times depend on the machine, and on what else it does: they are described
    for line, rows in by_d(runs).groupby("line", sort=False):
        seconds = rows["y"].to_numpy()
        yield ss.Claim("microseconds_per_step", line, 1e6 * seconds)
        yield ss.Claim("times_as_long_for_ten_times_d", line, seconds[1:] / seconds[:-1])
    ls = ss.problems.mapped_parabola(LEAST).least_squares
    for arm, run in runs.select("B=d, *").items():
        due = float(ss.theory.descent_loss(ls, np.zeros(3), run.config.lr, 2))
        # log2(d) sums and some twenty operations are rounded; the quadratures differ by a few / d²
        near = due * ((np.log2(run.problem.d) + 20) * 2.0**-23 + 8 / LEAST**2)
        seen = run.array("steps", "loss", steps=slice(2, 3))[0, 0]
        yield ss.Claim("loss_after_two_steps", arm, seen, due, near, DESCENT, always=True)


def picture(o, runs, value):
    rows = by_d(runs).eval("y = 1e6 * y")
    names = {"B=d": ss.say("on all d samples")}
    names |= {f"B={size}": ss.say("on {n}", n=size) for size in SIZES[::-1]}
    axes = {"x": ss.say("samples d in the data set"), "y": ss.say("time of a step, microseconds")}
    panel = ss.figures.lines.with_laws(rows, {}, names, **axes)
    (d, *_, most), ten = numbers(o), value["microseconds_per_step", "B=10"]
    whole = value["microseconds_per_step", "B=d"]
    title = ss.say(
        """From {d} to {most} samples a step on all of them gets {whole:.2} times as long, one on 10
        of them {ten:.2} times""",
        d=d,
        most=most,
        whole=whole[-1] / whole[0],
        ten=ten[-1] / ten[0],
    )
    note = ss.say("""Timed on one machine, step by step as PyTorch takes them; compiled, as runs are
        by default, a small step takes far less.""")
    return ss.figures.Chart(title, [panel], note)


charts = {"time of a step, in seconds": "result/seconds_per_step"}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
