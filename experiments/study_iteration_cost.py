"""What does one iteration cost, and which batch size is the quickest to reach a target?

Hypothesis: an iteration on a mini-batch costs a time that does not depend on the number d of
samples, one on all the data a time proportional to d. Without noise in the labels the number of
steps to a target falls with the batch size B only until the step size is that of all the data
(Ma, Bassily, Belkin); the time of a step grows only once the arithmetic of B samples takes longer
than calling it. The quickest batch lies between the two.

Source: section 1 of the notebook; Ma, Bassily, Belkin (2018).
Command: python experiments/study_iteration_cost.py
"""

import tempfile
from dataclasses import dataclass

import numpy as np

import sgdstudy as ss

W_TRUE = (0.3, -1.7, 2.5)  # the notebook's
LEAST = 2000  # its number of samples
SIZES = (10, 1000)  # batches timed at every d
BLOCK = 1_000_000  # samples written at once
STEPS = 2560  # timed, a fifth of them where it is to be quick
READ = 50_000_000  # samples read by a run of full batches, about
SHARE = 0.25  # of the largest stable step; at half of it few seeds do not show their own scatter
EPSILON = 1e-4
MOMENTS = "theory: second moments of a step; four standard errors"
DESCENT = "theory: second moments of a step; rounding"


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 32
    largest: int = 20_000_000
    """samples of the largest data set; of the least 2000, ten times as many from one to the next"""
    quick: bool = False
    """at most 200000 samples, 20000 where batch sizes are compared"""


def numbers(o):
    """Return the numbers of samples d."""
    if o.largest < 10 * LEAST:
        raise ss.InputError(f"largest must be at least {10 * LEAST}, got {o.largest}")
    largest = min(o.largest, 200_000) if o.quick else o.largest
    return [LEAST * 10**k for k in range(int(np.log10(largest / LEAST) + 1e-9) + 1)]


def compared(o):
    """Return the number of samples where batch sizes are compared, and the sizes."""
    d = min(numbers(o)[-1], 20_000 if o.quick else 200_000)
    return d, [10**k for k in range(5) if 10**k < d]


def mapped(d):
    """Return x and y, `(d,)` each, in files that are mapped into memory: nothing reads them whole.

    The files have no name: they vanish with the last array that is looked at through them.
    """
    with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
        x, y = (np.memmap(file, np.float32, "w+", shape=(d,)) for file in (first, second))
    for start in range(0, d, BLOCK):
        part = slice(start, min(start + BLOCK, d))
        x[part] = 4 * (np.arange(part.start, part.stop) + 0.5) / d - 2
        y[part] = ss.problems.parabola(W_TRUE, x[part])
    return x, y


def squares(prediction, y):
    """Squared error, not by name: nobody computes the moments of all the data."""
    return (prediction - y) ** 2


def problem(d, loss="mse"):
    about = {"w_init": np.zeros(3), "w_true": W_TRUE, "name": f"parabola on {d} points of [-2, 2]"}
    return ss.Problem(*mapped(d), ss.problems.parabola, loss, **about)


def cost(size, d):
    return f"B={size or 'd'}, d={d:g}"


def target(size):
    return f"to the target, B={size or 'd'}"


def arms(o):
    found, (middle, sizes), timed = {}, compared(o), STEPS // 5 if o.quick else STEPS
    same = {"lr": 1e-3, "engine": "eager", "charted": False, "metrics": ["loss"]}
    same |= {"diagnostics": "off"}
    for d in numbers(o):
        data = problem(d, squares)
        steps = max(3, min(timed, READ // d))
        found[cost(None, d)] = ss.Arm(data, f"{steps} steps on all samples", epochs=steps, **same)
        for size in sorted({*SIZES, *(sizes if d == middle else ())}):
            order = np.random.default_rng(o.first_seed).integers(d, size=(1, timed, size))
            about, some = f"{timed} steps on {size} samples", {"batch_size": size, "order": order}
            found[cost(size, d)] = ss.Arm(data, about, epochs=1, **some, **same)
    data = problem(middle)
    for size in [*sizes, None]:
        lr = step_size(data, size)
        epochs = int(np.ceil(1.5 * len(expected(data, size, lr)) * (size or middle) / middle))
        found[target(size)] = ss.Arm(
            data,
            f"down to {EPSILON}",
            lr=lr,
            batch_size=size,
            order="with_replacement",
            epochs=epochs,
            seeds=o.seed_range() if size else [0],
            dtype="float64",  # all the data at once: steps are exact but for rounding
            diagnostics="off",
            metrics=["full_loss"],
            record_rows=10**9,  # steps are counted: none may be left out
        )
    return found


def step_size(data, size):
    ls = data.least_squares
    if size is None:
        return SHARE * ss.theory.lr_limit(ls)
    return SHARE * ss.theory.mean_square_lr_limit(ls, data.d, size, replacement=True)


def expected(data, size, lr):
    """Return the expected loss step by step, down to the target."""
    given = np.zeros(3), data.d, size or data.d, lr, 10_000, EPSILON, size is not None
    return ss.theory.expected_path(data.least_squares, *given).excess


def by_d(runs):
    """Return seconds per step over d, one row a point."""
    arms = [arm for arm in runs if not arm.startswith("to")]
    rows = [(arm.split(",")[0], runs[arm].problem.d, runs[arm].seconds_per_step) for arm in arms]
    frame = ss.figures.points([(*row, 0) for row in rows])
    return frame[frame["line"].isin(["B=d", *(f"B={size}" for size in SIZES)])]


def steps_to_target(run):
    """Return steps until the seeds' mean loss is at the target, their standard error, theory's.

    With all the data at once the error is that of rounding.
    """
    known = expected(run.problem, run.config.batch_size, run.config.lr)
    loss, last = run.array("steps", "full_loss", steps=slice(0, 3 * len(known))), len(known) - 1
    loss = loss - run.problem.least_squares.least_loss
    steps = [ss.theory.time_above(curve, EPSILON) for curve in (loss.mean(1), known)]
    there = loss[min(last, len(loss) - 1)]
    error = ss.standard_error(there) / there.mean()  # of the logarithm, with which the time goes
    if run.config.batch_size is None:  # in every step, of residuals among values of up to 16
        error = steps[1] * 2 * 16 * np.finfo(float).eps / EPSILON**0.5
    return steps[0], error / np.log(known[-2] / known[-1]), steps[1]


def by_size(runs):
    """Return one row per batch size: steps, seconds per step, seconds and samples."""
    import pandas as pd  # --help must not wait for it

    rows = []
    for run in (run for arm, run in runs.items() if arm.startswith("to")):
        size, d = run.config.batch_size, run.problem.d
        each = runs[cost(size, d)].seconds_per_step
        rows.append((target(size), size or d, *steps_to_target(run), each))
    names = ["arm", "batch_size", "steps", "standard_error", "expected", "seconds_per_step"]
    rows = pd.DataFrame(rows, columns=names)
    return rows.eval("seconds = steps * seconds_per_step\nsamples = steps * batch_size")


def claims(o, runs):
    # times depend on the machine, and on what else it does: they are described
    found = []
    for line, rows in by_d(runs).groupby("line", sort=False):
        seconds = rows["y"].to_numpy()
        found.append(ss.Claim("microseconds_per_step", line, 1e6 * seconds))
        found.append(ss.Claim("times_as_long_for_ten_times_d", line, seconds[1:] / seconds[:-1]))
    for row in by_size(runs).itertuples():
        run = runs[row.arm]
        if run.config.batch_size is None:
            known = (row.expected, row.standard_error, DESCENT)
            found.append(ss.Claim("steps_to_target", row.arm, row.steps, *known, always=True))
        else:
            known = (row.steps, row.expected, row.standard_error, len(run.w), MOMENTS)
            found.append(ss.Claim.estimated("steps_to_target", row.arm, *known))
        found.append(ss.Claim("seconds_to_target", row.arm, row.seconds))
    return found


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    d, rows = numbers(o), by_size(runs)
    ten, whole = (value["microseconds_per_step", line] for line in ("B=10", "B=d"))
    times = [value["times_as_long_for_ten_times_d", line][-1] for line in ("B=10", "B=d")]
    one, best, last = rows.iloc[0], rows.loc[rows["seconds"].idxmin()], rows.iloc[-1]
    saved, cost = one["steps"] / best["steps"], best["seconds_per_step"] / one["seconds_per_step"]
    return f"""As timed here, on one machine: a step on 10 samples takes {ten[0]:.0f} microseconds
    among {d[0]:,} samples and {ten[-1]:.0f} among {d[-1]:,}; a step on all of them {whole[0]:.0f}
    and {whole[-1]:.0f}, which is {whole[-1] / ten[-1]:.0f} times a step on 10. The last tenfold
    of the data makes the one {times[0]:.2f} times as long, the other {times[1]:.2f} times.

    To the target it takes the mean loss of {o.seeds} seeds {one["steps"]:.0f} steps one sample at a
    time; with all {compared(o)[0]:,} at once it takes {last["steps"]:.0f}. By steps times the time
    of a step, batches of {best["batch_size"]:,.0f} were the quickest of {len(rows)} sizes:
    {1e3 * best["seconds"]:.1f} ms, against {1e3 * one["seconds"]:.1f} ms one by one and
    {1e3 * last["seconds"]:.1f} ms all at once. They need {1 / saved:.2f} times the steps of single
    samples, each at {cost:.2f} times the cost."""


def costs(runs):
    """Draw the time of a step over d."""
    rows, laws = by_d(runs), {}
    for line, some in rows.groupby("line", sort=False):
        d, seconds = some["x"].to_numpy(), some["y"].to_numpy()
        middle = np.median(seconds)
        laws[line] = lambda x, y=middle: np.full(len(x), y)
        if line == "B=d":  # theory has no constant: that of the largest d
            each = (seconds[-1] - seconds[0]) / (d[-1] - d[0])
            laws[line] = lambda x, y=seconds[0], each=each, d=d[0]: y + each * (x - d)
    panels = {"constant, or in proportion to d": list(laws)}
    return ss.figures.power_laws(rows, panels, laws, "samples d", "seconds per step", base=10)


def targets(runs):
    """Draw what the target takes over the batch size, each relative to its least."""
    rows, drawn, laws = by_size(runs), [], {}
    for column in ("steps", "samples", "seconds_per_step", "seconds"):
        values = rows[column] / rows[column].min()
        pairs = zip(rows["batch_size"], values, strict=True)
        drawn += [(column.replace("_", " "), *pair, 0) for pair in pairs]
    for name, power in (("steps", 0), ("samples", 1)):
        logs = np.log(rows["expected"] * rows["batch_size"] ** power / rows[name].min())
        laws[name] = lambda x, logs=logs: np.exp(
            np.interp(np.log(x), np.log(rows.batch_size), logs)
        )
    panels = {"all of it": ["steps", "samples", "seconds per step", "seconds"]}
    xlabel, ylabel = "batch size (the last: all the data)", "to the target, over the least"
    points = ss.figures.points(drawn)
    return ss.figures.power_laws(points, panels, laws, xlabel, ylabel, base=10)


STUDY = ss.Study(
    __file__,
    __doc__,
    Options,
    arms,
    claims,
    answer,
    figures={"cost_of_a_step.png": costs, "time_to_target.png": targets},
    tables={"batch_sizes.csv": lambda o, runs: by_size(runs)},
)

if __name__ == "__main__":
    STUDY.main()
