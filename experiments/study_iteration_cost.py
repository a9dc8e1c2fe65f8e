"""What does one iteration cost, and which batch size is the quickest to reach a target?

Hypothesis: an iteration on a mini-batch costs a time that does not depend on the number d of
samples, one on all the data a time proportional to d. Without noise in the labels the number of
steps to a target falls with the batch size B only until the step size is that of all the data
(Ma, Bassily, Belkin); the time of a step grows only once the arithmetic of B samples takes longer
than calling it. The quickest batch lies between the two.

Source: section 2 of the notebook; Ma, Bassily, Belkin (2018).
Command: python experiments/study_iteration_cost.py
"""

import tempfile
import time
from dataclasses import dataclass

import numpy as np

import sgdstudy as ss

W_TRUE = (0.3, -1.7, 2.5)  # the notebook's
LEAST = 2000  # its number of samples
SIZES = (10, 1000)  # batches timed at every d
BLOCK = 1_000_000  # samples written at once
CHUNK = 256  # steps between two looks at the clock
TOUCHED = 40_000_000  # samples of the longer run of full batches
SHARE = 0.5  # of the largest stable step
EPSILON = 1e-4
CACHE = 17  # Drepper (2007), 3.3: 14 cycles to the second-level cache, 240 to memory
SPEED = "the notebook, section 2; tolerance: memory 17 times slower than cache (Drepper 2007)"
MOMENTS = "theory: second moments of a step; four standard errors and a step"


@dataclass(frozen=True)
class Options(ss.Options):
    largest: int = 20_000_000
    """samples of the largest data set; of the least 2000, ten times as many from one to the next"""
    quick: bool = False
    """at most 200000 samples, half the steps"""


def numbers(o):
    """Return the numbers of samples d; all but the last differ by a factor of ten."""
    if o.largest < 10 * LEAST:
        raise ss.InputError(f"largest must be at least {10 * LEAST}, got {o.largest}")
    largest = min(o.largest, 200_000) if o.quick else o.largest
    return [LEAST * 10**k for k in range(int(np.log10(largest / LEAST) + 1e-9) + 1)]


def middle(o):
    """Return the number of samples at which batch sizes are compared."""
    return min(numbers(o)[-1], 20_000 if o.quick else 200_000)


def batch_sizes(o):
    return [10**k for k in range(5) if 10**k < middle(o)]


def mapped(d):
    """Return x and y, `(d,)` each, in files that are mapped into memory: no one reads them whole.

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


def clock_seconds(chunk):
    """Note, with every step, when its chunk was recorded."""
    return np.full(chunk.loss.shape, time.perf_counter())


def mini(d, size):
    return f"B={size}, d={d:g}"


def full(d, steps, run):
    return f"full batch, d={d:g}, {steps} steps, run {run}"


def target(size):
    return f"to the target, B={size or 'd'}"


def longer(d):
    return 1 + min(1000, max(3, TOUCHED // d))


def arms(o):
    found, same = {}, {"lr": 1e-3, "engine": "eager", "charted": False, "metrics": ["loss"]}
    for d in numbers(o):
        data = problem(d, squares)
        for size in batch_sizes(o) if d == middle(o) else SIZES:
            steps = CHUNK * (5 if o.quick or size > 1000 else 10)
            order = np.random.default_rng(0).integers(d, size=(1, steps, size))
            found[mini(d, size)] = ss.Arm(
                data,
                f"{steps} steps on {size} random samples",
                batch_size=size,
                order=order,
                epochs=1,
                diagnostics=[clock_seconds],
                **same,
            )
        for steps in (1, longer(d)):
            for run in (1, 2):
                about = f"{steps} steps on all samples"
                more = {"epochs": steps, "diagnostics": "off", **same}
                found[full(d, steps, run)] = ss.Arm(data, about, **more)
    data = problem(middle(o))
    for size in [*batch_sizes(o), None]:
        lr = step_size(data, size)
        epochs = int(np.ceil(1.5 * expected_steps(data, size, lr) * (size or data.d) / data.d))
        found[target(size)] = ss.Arm(
            data,
            f"down to {EPSILON}",
            lr=lr,
            batch_size=size,
            order="with_replacement",
            epochs=epochs,
            seeds=o.seed_range() if size else [0],
            diagnostics="off",
            metrics=["full_loss"],
            record_rows=200_000,
        )
    return found


def step_size(data, size):
    ls = data.least_squares
    if size is None:
        return SHARE * ss.theory.lr_limit(ls)
    return SHARE * ss.theory.mean_square_lr_limit(ls, data.d, size, replacement=True)


def expected_steps(data, size, lr):
    start, twice = np.zeros(3), size is not None
    ls, d = data.least_squares, data.d
    return ss.theory.steps_to_target(ls, start, d, size or d, lr, EPSILON, twice)


def mini_seconds(run):
    """Return the least time of a step, over the chunks without a look at all the data."""
    clock = run.load(columns=["step", "clock_seconds"])["clock_seconds"]
    at, counts = np.unique(clock, return_counts=True)
    each = np.diff(at)[:-1] / counts[1:-1]  # the last chunk ends with a pass over the data
    return each.min() if len(each) else np.nan


def full_seconds(runs, d):
    """Return the time of a full-batch step: what happens once a run is in the difference gone."""
    short, long = (min(runs[full(d, n, r)].train_seconds for r in (1, 2)) for n in (1, longer(d)))
    return (long - short) / (longer(d) - 1)


def by_d(runs, o):
    """Return d `(k,)`, and seconds per step `(k,)` by line."""
    ds = numbers(o)
    lines = {f"B={size}": [mini_seconds(runs[mini(d, size)]) for d in ds] for size in SIZES}
    lines["full batch"] = [full_seconds(runs, d) for d in ds]
    return np.array(ds), {name: np.array(times) for name, times in lines.items()}


def slope(d, seconds):
    return ss.theory.log_slope(d, seconds) if (seconds > 0).all() else np.nan


def reached(run, size):
    """Return steps until the seeds' mean loss is below the target, and four standard errors."""
    loss = run.load(columns=["step", "full_loss"]).groupby("step")["full_loss"]
    mean = loss.mean()
    below = np.flatnonzero(mean < EPSILON)
    if not len(below) or below[0] == 0:
        return np.inf, np.nan
    k, before = mean.index[below[0]], mean.index[below[0] - 1]
    rate = np.log(mean[before] / mean[k]) / (k - before)
    steps = before + np.log(mean[before] / EPSILON) / rate
    error = loss.std()[k] / mean[k] / len(run.w) ** 0.5 if len(run.w) > 1 else 0.0
    return steps, 4 * error / abs(rate)


def by_size(runs, o):
    """Return one row per batch size: steps, seconds per step, seconds and samples."""
    import pandas as pd  # --help must not wait for it

    rows, d = [], middle(o)
    for size in [*batch_sizes(o), None]:
        run = runs[target(size)]
        steps, _ = reached(run, size)
        each = mini_seconds(runs[mini(d, size)]) if size else full_seconds(runs, d)
        expected = expected_steps(run.problem, size, run.config.lr)
        rows.append((size or d, steps, expected, each, steps * each, steps * (size or d)))
    names = ["batch_size", "steps", "expected", "seconds_per_step", "seconds", "samples"]
    return pd.DataFrame(rows, columns=names)


def claims(o, runs):
    d, lines = by_d(runs, o)
    found = []
    for name, seconds in lines.items():
        whole = name == "full batch"  # what grows: without the cost of calling a step
        x, y = (d[1:], seconds[1:] - seconds[0]) if whole and len(d) > 2 else (d, seconds)
        wide = np.log10(CACHE) / np.log10(x[-1] / x[0])
        found.append(ss.Claim("exponent_of_d", name, slope(x, y), int(whole), wide, SPEED))
        found.append(ss.Claim("microseconds_per_step", name, 1e6 * seconds))
    nano = 1e9 * lines["full batch"] / d
    found.append(ss.Claim("nanoseconds_per_sample", "full batch", nano))
    for row in by_size(runs, o).itertuples():
        size = row.batch_size if row.batch_size < middle(o) else None
        wide = 1 + np.nan_to_num(reached(runs[target(size)], size)[1])
        known = (row.expected, wide, MOMENTS)
        found.append(ss.Claim("steps_to_target", target(size), row.steps, *known))
        found.append(ss.Claim("seconds_to_target", target(size), row.seconds))
        found.append(ss.Claim("samples_to_target", target(size), row.samples))
    return found


def answer(o, runs, claims):
    d, lines = by_d(runs, o)
    value = {(c.name, c.arm): c.measured for c in claims}
    rows = by_size(runs, o)
    best, whole = rows.loc[rows["seconds"].idxmin()], rows.iloc[-1]
    one = rows.iloc[0]
    small, large = (1e6 * lines["B=10"][k] for k in (0, -1))
    nano = value["nanoseconds_per_sample", "full batch"]
    return f"""A step on 10 samples takes {small:.0f} microseconds among {d[0]:g} samples and
    {large:.0f} among {d[-1]:g}: exponent of d {value["exponent_of_d", "B=10"]:.2f}. A step on all
    of them grows with the exponent {value["exponent_of_d", "full batch"]:.2f}; more than 1 where
    the data leave the cache: a sample costs {nano[-1]:.0f} ns at the largest d, {nano.min():.1f}
    at best. There a full-batch step costs {lines["full batch"][-1] / lines["B=10"][-1]:.0f} steps
    on 10 samples.

    One sample at a time the target takes {one["steps"]:.0f} steps, all at once
    {whole["steps"]:.0f}. Of {middle(o):g} samples, batches of {best["batch_size"]:.0f} are the
    quickest: {best["seconds"]:.2g} s, against {one["seconds"]:.2g} s one by one and
    {whole["seconds"]:.2g} s all at once. Up to there larger batches save steps or cost no time,
    because calling a step takes longer than its arithmetic; beyond, they save no step and cost."""


def options_of(runs):
    """Return options that have these arms; figures are given the runs only."""
    ds = [int(run.problem.d) for run in runs.values()]
    steps = max(run.n_steps.max() for a, run in runs.items() if a.startswith("B=10,"))
    return Options(largest=max(ds), quick=bool(steps < 10 * CHUNK))


def costs(runs):
    """Draw the time of a step over d."""
    import pandas as pd

    d, lines = by_d(runs, options_of(runs))
    rows = [(name, x, y, y, y) for name, ys in lines.items() for x, y in zip(d, ys, strict=True)]
    frame = pd.DataFrame(rows, columns=["line", "x", "y", "low", "high"])
    laws = {n: lambda x, y=y: np.full(len(x), y[0]) for n, y in lines.items() if n != "full batch"}
    whole = lines["full batch"]
    each = np.median((whole[1:] - whole[0]) / (d[1:] - d[0]))  # theory has no constant: a fit
    laws["full batch"] = lambda x: whole[0] + each * (x - d[0])
    panels = {"constant, or in proportion to d": list(lines)}
    return ss.figures.power_laws(frame, panels, laws, "samples d", "seconds per step", base=10)


def targets(runs):
    """Draw what the target takes over the batch size, relative to the least."""
    import pandas as pd

    rows = by_size(runs, options_of(runs))
    sizes, steps = np.log(rows["batch_size"]), rows["expected"]
    drawn, laws = [], {}
    for column in ("steps", "samples", "seconds_per_step", "seconds"):
        values = rows[column] / rows[column].min()
        name = column.replace("_", " ")
        drawn += [(name, x, y, y, y) for x, y in zip(rows["batch_size"], values, strict=True)]
    for name, ys in (("steps", steps), ("samples", steps * rows["batch_size"])):
        logs = np.log(ys / ys.min())
        laws[name] = lambda x, logs=logs: np.exp(np.interp(np.log(x), sizes, logs))
    frame = pd.DataFrame(drawn, columns=["line", "x", "y", "low", "high"])
    panels = {"work": ["steps", "samples"], "time": ["seconds per step", "seconds"]}
    xlabel, ylabel = "batch size (the last: all the data)", "to the target, over the least"
    return ss.figures.power_laws(frame, panels, laws, xlabel, ylabel, base=10)


STUDY = ss.Study(
    __file__,
    __doc__,
    Options,
    arms,
    claims,
    answer,
    figures={"cost_of_a_step.png": costs, "time_to_target.png": targets},
    tables={"batch_sizes.csv": lambda o, runs: by_size(runs, o)},
)

if __name__ == "__main__":
    STUDY.main()
