"""Where does SGD settle when the labels are noisy, and what does shuffling take off?

Hypothesis: with samples drawn independently and a constant step, the loss ends above its minimum
by the stationary excess tr(H C) / 2, C the solution of a Lyapunov equation; lr tr(S) / (4 B) is
only its limit for small steps. It grows without bound where second moments do, yet beyond that step
almost every path still converges, noise aside: a mean that no run shows. Shuffling leaves about the
share 1 - tanh(x/2) / (x/2) of the noise in a mode of eigenvalue lambda, x = lr lambda d / B; where
every sample has the same curvature, the share is known exactly.

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
EXACT = "theory: recursion of the second moments; four standard errors"
PERMUTED = "theory: variance of a permuted epoch, exact; four standard errors"
PATHS = "theory: Lyapunov exponent of independent batches; four standard errors of both"
PRODUCTS = 60  # epochs of the products that give it, the first left out; 64 of them
NOISELESS, MEANS = "beyond the limit, no noise", "means, shuffled"
MEANS_D, MEANS_B = 200, 2
LR_LAMBDA = np.array([0.005, 0.03, 0.2])  # of the means: x = 0.5, 3 and 20
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


def means():
    """Return three numbers to be found from noisy ones: every sample has the same curvature.

    With lr = 1 its modes have the `LR_LAMBDA`. Started at the best fit.
    """
    scales = np.sqrt(LR_LAMBDA * 3 / 2)  # H = 2 / 3 scales^2
    x, y = np.tile(scales, (MEANS_D, 1)), np.random.default_rng(0).normal(size=(MEANS_D, 3))
    given = {"w_init": y.mean(0) / scales, "name": "means of three noisy numbers"}
    return ss.Problem(x, y, lambda w, x: w * x, **given)


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
    # the limit is that of independent batches: reshuffled ones stay bounded further
    beyond = {"lr": BEYOND * limit(clean, 1), "batch_size": 1, "order": ORDERS["independent"]}
    found[NOISELESS] = ss.Arm(clean, "its mean square grows", epochs=3, **beyond, **same)
    epochs = max(FEWEST, int(np.ceil(3 * o.times / LR_LAMBDA[0] * MEANS_B / MEANS_D)))
    one = {"lr": 1.0, "batch_size": MEANS_B, "epochs": epochs, "order": ORDERS["shuffled"]}
    found[MEANS] = ss.Arm(means(), "one curvature for all samples", **one, **same)
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


def expected(run):
    """Return the expected mean of `excess`: the same epochs, from the same start."""
    c, ls = run.config, run.problem.least_squares
    given = (ls.w_star, D, c.batch_size, c.lr, c.epochs, True)
    full = ss.theory.expected_losses(ls, *given)[1]
    return full[c.epochs // 10 :].mean() - ls.least_loss


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
    """Return x `(p,)`, and the share of the noise that shuffling leaves."""
    run, other = runs[arm], runs[arm.replace("independent", "shuffled")]
    eigenvalues = np.linalg.eigvalsh(run.problem.least_squares.hessian)
    return run.config.lr * eigenvalues * D / run.config.batch_size, modes(other) / modes(run)


def permuted(run):
    """Return the share of the noise that shuffling leaves of the means, exactly, `(3,)`.

    In the epochs of `late`: after K epochs it is 1 - a^(2 m K) of what it ends at.

    An epoch z -> a^m z - lr sum_b a^(m - 1 - b) g_b, a = 1 - lr lambda. The g_b of independent
    batches have the variance s / B; those of a permutation s (d - B) / (B (d - 1)), and as they
    add up to nothing, any two the covariance of -1 / (m - 1) of that.
    """
    m, a = MEANS_D // MEANS_B, 1 - LR_LAMBDA
    powers = a[:, None] ** np.arange(m)
    squares = (powers**2).sum(1)
    pairs = (powers.sum(1) ** 2 - squares) / (m - 1)
    finite = (MEANS_D - MEANS_B) / (MEANS_D - 1)
    k = np.arange(run.config.epochs // 10 + 1, run.config.epochs + 1)
    settled = (1 - a[:, None] ** (2 * m * k)).mean(1)
    return settled * finite * (squares - pairs) / (1 - a ** (2 * m)) * (1 - a**2)


def means_claims(run):
    """Check the noise that shuffling leaves of the means over that of independent batches."""
    independent = run.problem.y.numpy().var(0) / MEANS_B * (2 / 3) ** 2 * LR_LAMBDA * 3 / 2
    independent /= 1 - (1 - LR_LAMBDA) ** 2
    z = late(run).set_index("seed")[["w0", "w1", "w2"]] - run.problem.least_squares.w_star
    shares = (z**2).groupby("seed").mean().to_numpy() / independent  # (R, 3)
    found = []
    for share, lr_lambda, known in zip(shares.T, LR_LAMBDA, permuted(run), strict=True):
        name = f"noise_left_by_shuffling_x_{lr_lambda * MEANS_D / MEANS_B:g}"
        given = (share.mean(), known, ss.standard_error(share), len(share), PERMUTED)
        found.append(ss.Claim.estimated(name, MEANS, *given))
    return found


def claims(o, runs):
    found = []
    for arm, run in independent(runs).items():
        mean, error = excess(run)
        given = (mean, expected(run), error, len(run.w), EXACT)
        found.append(ss.Claim.estimated("excess", arm, *given))
        found.append(ss.Claim("small_step_formula_over_exact", arm, small_step(run) / exact(run)))
        share = left_by_shuffling(runs, arm)[1]
        found.append(ss.Claim("noise_left_by_shuffling", arm, share))  # from flat to steep
    return found + means_claims(runs[MEANS]) + beyond_claims(runs[NOISELESS])


def beyond_claims(run):
    """Check the rate at which typical paths converge where the mean square grows."""
    lr, ls, d = run.config.lr, run.problem.least_squares, run.problem.d
    rate = ss.theory.lyapunov(run.problem, 1, lr, epochs=PRODUCTS, replacement=True)
    ends = run.load("epochs").set_index(["seed", "epoch"])["distance"].unstack()
    first, last = ends.columns[0], ends.columns[-1]  # after one epoch the start is forgotten
    each = (np.log(ends[last] / ends[first]) / (d * (last - first))).to_numpy()
    own = (last - first) * len(each) / ((PRODUCTS - 1) * 64)  # theory's error: the same scatter
    error = ss.standard_error(each) * np.sqrt(1 + own)
    square = ss.theory.mean_square_radius(ls, d, 1, lr, True)
    return [
        ss.Claim("mean_square_factor_per_step", NOISELESS, square),
        ss.Claim("share_of_seeds_that_converge", NOISELESS, (ends[last] < ends[first]).mean()),
        ss.Claim.estimated(
            "log_rate_per_step", NOISELESS, each.mean(), rate, error, len(each), PATHS
        ),
    ]


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    arms = independent(runs)
    first, *_, last = [
        arm for arm in arms if line_of(arms[arm]) == line_of(next(iter(arms.values())))
    ]
    off = [value["small_step_formula_over_exact", arm] for arm in (first, last)]
    sizes = sorted({run.config.batch_size for run in arms.values()})
    worst = max(abs(value["excess", arm] / exact(run) - 1) for arm, run in arms.items())
    flat, _, steep = value["noise_left_by_shuffling", first]
    left = [c for c in claims if c.arm == MEANS]
    one = ", ".join(f"{c.measured:.1%} at x = {c.name.split('_')[-1]}" for c in left)
    known = ", ".join(f"{share:.1%}" for share in permuted(runs[MEANS]))
    rate, closer = (
        value[name, NOISELESS] for name in ("log_rate_per_step", "share_of_seeds_that_converge")
    )
    return f"""The loss settles where the Lyapunov equation says, within {worst:.0%} at each of
    {len(SHARES)} step sizes with batches of {" and of ".join(map(str, sizes))}. The formula for
    small steps has {off[0]:.0%} of it at {share_of(first):g} of the limit, and {off[1]:.0%} at
    {share_of(last):g} (batches of {sizes[0]}).

    At {BEYOND:g} times the limit, without noise, second moments grow by
    {value["mean_square_factor_per_step", NOISELESS]:.2f} a step. Yet the logarithm of the distance
    changes by {rate:.3f} a step, and {closer * len(runs[NOISELESS].w):.0f} of
    {len(runs[NOISELESS].w)} seeds come nearer: what grows is carried by paths too rare to be met.

    Shuffling leaves {flat:.0%} of the noise in the flattest direction and {steep:.0%} in the
    steepest (batches of {sizes[0]}, the smallest step): it averages out what changes slowly.
    Where all samples have the same curvature it leaves {one}; theory, exactly: {known}."""


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
        for x, share in zip(*left_by_shuffling(runs, arm), strict=True):
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
