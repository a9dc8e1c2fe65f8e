"""Where does SGD settle when the labels are noisy, and what does shuffling take off?

Hypothesis: with samples drawn independently and a constant step, the loss ends above its minimum
by the stationary excess tr(H C) / 2, C the solution of a Lyapunov equation; lr tr(S) / (4 B) is
only its limit for small steps. It grows without bound where second moments do, yet beyond that step
almost every path still converges, noise aside: a mean that no run shows. Shuffling leaves the share
1 - tanh(x/2) / (x/2) of the noise in a mode of eigenvalue lambda, x = lr lambda d / B.

Source: linear algebra of second moments (docs/notebook.md); Ma, Bassily, Belkin (2018).
Command: python experiments/study_noise_floor.py
"""

from dataclasses import dataclass

import numpy as np

import sgdstudy as ss

D = 1000
SHARES = (0.05, 0.1, 0.2, 0.4, 0.6)  # of the step at which second moments diverge
SIZES = (1, 10)
FEWEST = 40  # epochs
BEYOND = 1.3  # times that step
EXACT = "theory: Lyapunov equation of the second moments; four standard errors"
LEADING = "theory: 1 - tanh(x/2)/(x/2), leading order for many samples"
PATHS = "theory: Lyapunov exponent"
NOISELESS = "beyond the limit, no noise"
ORDERS = {"independent": "with_replacement", "shuffled": "shuffle"}


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 64
    times: int = 60
    """length of a run, in times 1 / (lr lambda) of its slowest mode"""
    quick: bool = False
    """batches of 10 only: a tenth of the work"""


def noisy(noise=1.0, d=D):
    """Return a parabola with noisy labels, started at its best fit; without noise, at zero."""
    x = np.linspace(-2, 2, d)
    y = ss.problems.parabola([0.3, -1.7, 2.5], x) + noise * np.random.default_rng(0).normal(size=d)
    fit = {"model": ss.problems.parabola, "name": f"parabola on [-2, 2], label noise {noise:g}"}
    zero = ss.Problem(x, y, w_init=np.zeros(3), **fit)
    best = zero.least_squares.w_star
    return zero.replace(w_init=best if noise else np.zeros(3), w_true=best)


def limit(problem, size):
    return ss.theory.mean_square_lr_limit(problem.least_squares, problem.d, size, replacement=True)


def arms(o):
    problem, found = noisy(), {}
    slowest = np.linalg.eigvalsh(problem.least_squares.hessian)[0]
    same = {"seeds": o.seed_range(), "diagnostics": "off", "metrics": ["full_loss"]}
    same |= {"record_rows": 20_000}  # the epochs are all kept
    for size in SIZES[-1:] if o.quick else SIZES:
        for share in SHARES:
            lr = share * limit(problem, size)
            epochs = max(FEWEST, int(np.ceil(o.times / (lr * slowest) * size / D)))
            for name, order in ORDERS.items():
                found[f"B={size}, {share} of the limit, {name}"] = ss.Arm(
                    problem,
                    f"{name} batches of {size}",
                    charted=share == SHARES[2],
                    lr=lr,
                    batch_size=size,
                    order=order,
                    epochs=epochs,
                    **same,
                )
    clean = noisy(0.0, 200)  # in longer epochs rounding would be all that is left
    beyond = {"lr": BEYOND * limit(clean, 1), "batch_size": 1, "epochs": 3}
    found[NOISELESS] = ss.Arm(clean, "its mean square grows", **beyond, **same)
    return found


def independent(runs):
    return {arm: run for arm, run in runs.items() if arm.endswith("independent")}


def late(run):
    """Return the rows of the epochs by which the start is forgotten."""
    return run.load("epochs", epochs=slice(run.config.epochs // 10 + 1, None))


def excess(run):
    """Return the mean excess loss of the run and its standard error over the seeds."""
    each = late(run).groupby("seed")["full_loss"].mean() - run.problem.least_squares.least_loss
    return each.mean(), ss.standard_error(each)


def exact(run):
    c = run.config
    return ss.theory.stationary_excess(run.problem.least_squares, D, c.batch_size, c.lr, True)


def small_step(run):
    ls, c = run.problem.least_squares, run.config
    return c.lr * ss.theory.trace_sigma(ls, ls.w_star, D) / (4 * c.batch_size)


def modes(run):
    """Return the variance in each mode of the Hessian, at the ends of epochs, `(p,)`.

    About their mean: a bias of second order, which shuffling brings, is not noise.
    """
    rows = late(run)[["w0", "w1", "w2"]].to_numpy()
    return (rows @ np.linalg.eigh(run.problem.least_squares.hessian)[1]).var(0)


def left_by_shuffling(runs, arm):
    """Return x `(p,)`, the share of the noise that shuffling leaves, and what theory expects."""
    run, other = runs[arm], runs[arm.replace("independent", "shuffled")]
    eigenvalues = np.linalg.eigvalsh(run.problem.least_squares.hessian)
    x = run.config.lr * eigenvalues * D / run.config.batch_size
    return x, modes(other) / modes(run), ss.theory.reshuffling_factor(x)


def claims(o, runs):
    found = []
    for arm, run in independent(runs).items():
        mean, error = excess(run)
        found.append(ss.Claim("excess", arm, mean, exact(run), 4 * error, EXACT))
        found.append(ss.Claim("small_step_formula_over_exact", arm, small_step(run) / exact(run)))
        _, share, expected = left_by_shuffling(runs, arm)
        small = run.config.lr == min(r.config.lr for r in independent(runs).values())
        for name, ratio in zip(("slow", "middle", "steep"), share / expected, strict=True):
            known = (1, 0.2, LEADING) if small else ()
            found.append(ss.Claim(f"noise_left_by_shuffling_{name}_mode", arm, ratio, *known))
    return found + beyond_claims(runs[NOISELESS])


def beyond_claims(run):
    """Check that almost every path converges where the mean square grows."""
    lr, ls, arm = run.config.lr, run.problem.least_squares, NOISELESS
    rate = ss.theory.lyapunov(run.problem, 1, lr, epochs=60)
    ends = run.load("epochs").set_index(["seed", "epoch"])["distance"].unstack()
    first, last = ends.columns[0], ends.columns[-1]
    each = np.log(ends[last] / ends[first]) / (run.problem.d * (last - first))
    closer = float((ends[last] < ends[first]).mean())
    return [
        ss.Claim(
            "mean_square_factor_per_step",
            arm,
            ss.theory.mean_square_radius(ls, run.problem.d, 1, lr, True),
        ),
        ss.Claim("seeds_that_converge", arm, closer, 1, 0.0, PATHS),
        ss.Claim("log_rate_per_step", arm, each.mean(), rate, 4 * each.sem(), PATHS),
    ]


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    arms = list(independent(runs))[: len(SHARES)]
    off = [value["small_step_formula_over_exact", arm] for arm in (arms[0], arms[-1])]
    left = [value["excess", arm] / exact(runs[arm]) for arm in independent(runs)]
    _, share, _ = left_by_shuffling(runs, arms[0])
    worst = max(abs(ratio - 1) for ratio in left)
    return f"""The loss settles where the Lyapunov equation says, within {worst:.0%} for every step
    and batch size. The formula for small steps has {off[0]:.0%} of it at {SHARES[0]} of the limit,
    and {off[1]:.0%} at {SHARES[-1]}.

    Beyond the limit second moments grow by {value["mean_square_factor_per_step", NOISELESS]:.2f} a
    step, and yet {value["seeds_that_converge", NOISELESS]:.0%} of the seeds converge: the mean is
    carried by paths too rare to be met.

    Shuffling leaves {share[0]:.0%} of the noise in the flattest direction and {share[-1]:.0%} in
    the steepest (at the smallest step): it averages out what changes slowly."""


def excess_rows(runs):
    """Return one row per arm: share of the limit, excess, its 95 % interval."""
    import pandas as pd  # --help must not wait for it

    found = []
    for arm, run in independent(runs).items():
        mean, error = excess(run)
        found.append((line_of(run), share_of(arm), mean, mean - 2 * error, mean + 2 * error))
    return pd.DataFrame(found, columns=["line", "x", "y", "low", "high"])


def line_of(run):
    return f"B={run.config.batch_size}"


def share_of(arm):
    return float(arm.split(", ")[1].split()[0])


def floors(runs):
    """Draw the excess over the step, with the exact law and the formula for small steps."""
    laws, panels = {}, {}
    for size in sorted({run.config.batch_size for run in independent(runs).values()}):
        some = {share_of(a): r for a, r in independent(runs).items() if line_of(r) == f"B={size}"}
        x, ends = np.array(list(some)), np.array([exact(run) for run in some.values()])
        slope = small_step(next(iter(some.values()))) / x[0]
        laws[f"B={size}"] = lambda s, x=x, y=ends: np.exp(
            np.interp(np.log(s), np.log(x), np.log(y))
        )
        laws[f"B={size}, for small steps"] = lambda s, slope=slope: slope * s
        panels |= {f"B={size}": None, f"B={size}, for small steps": None}
    lines = {"what the noise leaves": list(panels)}
    xlabel = "step over the one at which second moments diverge"
    return ss.figures.power_laws(
        excess_rows(runs), lines, laws, xlabel, "excess loss, mean over time"
    )


def shuffling(runs):
    """Draw what shuffling leaves of the noise, mode by mode."""
    import pandas as pd

    rows = []
    for arm, run in independent(runs).items():
        for x, share in zip(*left_by_shuffling(runs, arm)[:2], strict=True):
            rows.append((line_of(run), x, share, share, share))
    frame = pd.DataFrame(rows, columns=["line", "x", "y", "low", "high"])
    laws = dict.fromkeys(frame["line"], ss.theory.reshuffling_factor)
    xlabel = "x = lr, times the mode's eigenvalue, times the batches of an epoch"
    ylabel = "noise with shuffling over noise without"
    return ss.figures.power_laws(frame, {"mode by mode": list(laws)}, laws, xlabel, ylabel)


STUDY = ss.Study(
    __file__,
    __doc__,
    Options,
    arms,
    claims,
    answer,
    figures={"noise_floor.png": floors, "shuffling.png": shuffling},
)

if __name__ == "__main__":
    STUDY.main()
