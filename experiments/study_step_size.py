"""Should the step size decay: which schedule, how fast, and does it always help?

Hypothesis: with noisy labels a constant step stalls at its stationary excess, and every decay that
is not too fast, and every mean of the parameters, ends below it; where some parameters fit all
samples a constant step converges linearly, and decay and means only lose time. 1/t needs 1 / mu, mu
the least curvature: guess mu four times too large, and the start is forgotten as t^(-1/2). The mean
of the parameters ends at tr(H^-1 S) / (2 n), whatever the step. Polyak's step needs no lr; of
single samples it is a projection (Kaczmarz), fast without noise and useless with it.

Source: the notebook's "in practice the step size decreases, to converge better"; Robbins, Monro
(1951); Polyak (1969); Polyak, Juditsky (1992); Nemirovski et al. (2009); Bach, Moulines (2011);
Loizou et al. (2021).
Command: python experiments/study_step_size.py
"""

import itertools
from dataclasses import dataclass

import numpy as np

import sgdstudy as ss

D, BATCH = 100, 10
SHARE = 0.15  # of the step at which second moments diverge: few enough paths carry the mean
START = (0.9, 0.05, 0.05)  # excess loss of the start, from the flattest direction to the steepest
FEW = 16  # seeds whose standard error says nothing
CALM = 1e-9  # above it, L - L* is known to 1e-6
BOTTOM = {"noiseless": 1e-20, "noisy": 1e-4}  # of the figure
WORLDS = {"noiseless": 0.0, "noisy": 1.0}  # standard deviation of the label noise
DECAYS = ("1/t", "1/sqrt(t)", "cosine", "linear", "steps")
GUESSES = {"1/t": 1, "1/t, mu x 4": 4, "1/t, mu / 4": 1 / 4}
TAILS = {"tail mean": 1, "tail mean, lr / 2": 1 / 2}
PANELS = {
    "schedules": ("constant", "warm-up", *DECAYS),
    "1/t with mu, and with a wrong guess": ("constant", *GUESSES),
    "means of the parameters": ("constant", "mean of all", *TAILS),
    "Polyak's step": ("constant", "Polyak, one sample", "Polyak, full batch"),
}
EXACT = "theory: second moments, step by step; four standard errors"
REST = "; four standard errors, and what exact moments add to the leading order"
RATE = "Bach, Moulines (2011): t^(-2 theta mu) for lr = theta / t" + REST
MEAN = "Polyak, Juditsky (1992): tr(H^-1 S) / (2 n)" + REST
POLYAK = "theory: |z|^2 falls by 3 (L - L*)^2 / |g|^2 on a quadratic (at least 1: Polyak 1969)"
ORDER = "theory: expected losses"
PATHS = "theory: Lyapunov exponent of the projections; four standard errors"


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 256
    epochs: int = 100
    quick: bool = False
    """a tenth of the seeds, half of the epochs"""


def fit(noise):
    """Return a parabola on [-1, 1], started 1 above the least loss, most of it in a flat valley."""
    x = np.linspace(-1, 1, D)
    y = ss.problems.parabola([0.3, -1.7, 2.5], x) + noise * np.random.default_rng(0).normal(size=D)
    name = f"parabola on [-1, 1], label noise {noise:g}"
    problem = ss.Problem(x, y, ss.problems.parabola, w_init=np.zeros(3), name=name)
    ls = problem.least_squares
    values, vectors = np.linalg.eigh(ls.hessian)
    start = ls.w_star + vectors @ np.sqrt(2 * np.array(START) / values)
    return problem.replace(w_init=start, w_true=ls.w_star)


def mu(problem):
    return np.linalg.eigvalsh(problem.least_squares.hessian)[0]


def epochs(o):
    if o.epochs < 2:
        raise ss.InputError(f"epochs must be at least 2, got {o.epochs}: two make an exponent")
    return max(2, o.epochs // 2) if o.quick else o.epochs


def lines(o, problem):
    """Return what is special of every line."""
    ls, n = problem.least_squares, epochs(o) * D // BATCH
    lr = SHARE * ss.theory.mean_square_lr_limit(ls, D, BATCH, replacement=True)
    slow = lr * mu(problem)  # lr / (1 + slow t) is 1 / (mu t) in the end

    def by(name, **options):
        return {"lr": lr, "schedule": name, "schedule_options": options}

    def polyak(size, **options):
        most = 1e3  # no step is as large
        return {"optimizer": "polyak", "lr": most, "batch_size": size, "options": options}

    return {
        "constant": {"lr": lr},
        "warm-up": by("LinearLR", start_factor=0.1, total_iters=max(1, n // 5)),
        "1/sqrt(t)": by("inverse_sqrt", decay=slow),
        "cosine": by("CosineAnnealingLR"),
        "linear": by("LinearLR", start_factor=1.0, end_factor=0.0),
        "steps": by("StepLR", step_size=max(1, n // 4), gamma=0.3),
        **{line: by("inverse_time", decay=slow * guess) for line, guess in GUESSES.items()},
        "mean of all": {"lr": lr, "average": 0.0},
        **{line: {"lr": share * lr, "average": 0.5} for line, share in TAILS.items()},
        "Polyak, one sample": polyak(1, c=0.5),
        "Polyak, full batch": polyak(None, least_loss=ls.least_loss) | {"seeds": [0]},
    }


def arms(o):
    seeds = list(o.seed_range())[: max(1, o.seeds // 10) if o.quick else None]
    same = {"optimizer": "SGD", "batch_size": BATCH, "order": "with_replacement", "seeds": seeds}
    same |= {"epochs": epochs(o), "diagnostics": "off"}
    same |= {"metrics": [], "record_rows": 20_000}  # the epochs are all kept
    found = {}
    for world, problem in ((world, fit(noise)) for world, noise in WORLDS.items()):
        for line, own in lines(o, problem).items():
            charted = line in PANELS["schedules"]
            found[f"{world}: {line}"] = ss.Arm(problem, line, charted=charted, **same | own)
    return found


def excess(run):
    """Return the excess loss at the ends of epochs, `(epochs, R)`; of the mean, if there is one."""
    column = "full_loss" if run.config.average is None else "average_loss"
    return run.array("epochs", column) - run.problem.least_squares.least_loss


def exact(run):
    """Return the expected excess at the ends of epochs, from 0 `(epochs + 1,)`.

    Of full batches that is the run itself: nothing is expected.
    """
    c, ls, start = run.config, run.problem.least_squares, run.problem.initial([0])[0].numpy()
    if c.batch_size is None:
        return np.full(c.epochs + 1, np.nan)
    m = D // c.batch_size
    given = (ls, start, D, c.batch_size, c.rates(D)(np.arange(c.epochs * m)), True)
    if c.optimizer == "polyak":
        losses = ss.theory.polyak_losses(ls, start, D, c.epochs * m)
    elif c.average is None:
        losses = ss.theory.scheduled_losses(*given)
    else:
        losses = ss.theory.averaged_losses(*given, int(c.average * c.epochs) * m)
    return (losses - ls.least_loss)[::m]


def statistical(name, arm, samples, measured, expected, tolerance, source):
    """Return a claim about samples of seeds, in the last axis; of few it only describes."""
    known = (expected, tolerance, source) if samples.shape[-1] >= FEW else ()
    return ss.Claim(name, arm, measured, *known)


def claims(o, runs):
    found, last = [], {arm: excess(run)[-1] for arm, run in runs.items()}
    for arm, run in runs.items():
        if run.config.optimizer == "SGD" or arm == "noisy: Polyak, one sample":
            known = (exact(run)[-1], 4 * ss.standard_error(last[arm]), EXACT)
            found.append(statistical("excess", arm, last[arm], last[arm].mean(), *known))
    for world, helps in (("noiseless", False), ("noisy", True)):
        constant = last[f"{world}: constant"].mean()
        for line in (*DECAYS, "mean of all", "tail mean"):
            arm = f"{world}: {line}"
            better = bool(last[arm].mean() < constant)
            known = (better, helps, 0, ORDER)
            found.append(statistical("better_than_constant", arm, last[arm], *known))
    found += [forgetting(runs, f"noiseless: {line}") for line in list(GUESSES)[:2]]
    found += [tail(runs, f"noisy: {line}") for line in TAILS]
    found.append(projections(runs, "noiseless: Polyak, one sample"))
    return found + [descent(runs, f"{world}: Polyak, full batch") for world in WORLDS]


def forgetting(runs, arm):
    """Return the claim on the power of 1 + decay t with which the start is forgotten."""
    run, c = runs[arm], runs[arm].config
    decay, ends = c.schedule_options["decay"], np.array([max(1, c.epochs // 5), c.epochs])
    x, samples = 1 + decay * ends * D / BATCH, excess(run)[ends - 1]
    slope, true = (ss.theory.log_slope(x, y) for y in (samples.mean(1), exact(run)[ends]))
    low, high = ss.theory.slope_interval(x, samples)  # 95 %: 3.92 errors wide
    law = -2 * c.lr / decay * mu(run.problem)
    tolerance = 4 * (high - low) / 3.92 + abs(true - law)
    return statistical("exponent", arm, samples, slope, law, tolerance, RATE)


def tail(runs, arm):
    """Return the claim that the mean of the second half ends where its law says."""
    run, half = runs[arm], runs[arm].config.epochs // 2
    ls, n = run.problem.least_squares, (run.config.epochs - half) * D
    law = ss.theory.averaged_excess_law(ls, D, n)
    last, true = excess(run)[-1] / law, exact(run)[-1] / law
    return statistical(
        "over_law", arm, last, last.mean(), 1, 4 * ss.standard_error(last) + abs(true - 1), MEAN
    )


def projections(runs, arm):
    """Return the claim on the rate of Polyak's step on single samples, in the second epoch."""
    run, rows = runs[arm], ss.theory.projected(runs[arm].problem.least_squares)
    y = rows.features @ rows.w_star
    known = ss.Problem(rows.features, y, ss.problems.linear, w_init=np.zeros(3))
    rate = ss.theory.lyapunov(known, 1, 0.5, epochs=60, replacement=True)
    ends = run.load("epochs", epochs=slice(1, 3)).set_index(["epoch", "seed"])["distance"]
    each = np.diff(np.log(ends.unstack().to_numpy()), axis=0)[0] / D
    return statistical(
        "log_rate_per_step", arm, each, each.mean(), rate, 4 * ss.standard_error(each), PATHS
    )


def descent(runs, arm):
    """Return the claim on how fast Polyak's step on all samples comes closer, step by step."""
    run, ls = runs[arm], runs[arm].problem.least_squares
    ends = run.load("epochs")[["w0", "w1", "w2"]].to_numpy()
    z = np.vstack([run.problem.initial([0]).numpy(), ends]) - ls.w_star
    g, square = z[:-1] @ ls.hessian, (z**2).sum(1)
    above = (z[:-1] * g).sum(1) / 2
    calm = above > CALM  # beyond, L - L* is rounding
    share = -np.diff(square) * (g**2).sum(1) / above**2
    ends = [share[calm].min(), share[calm].max()]
    return ss.Claim("fall_over_guarantee", arm, ends, [3.0, 3.0], 1e-6, POLYAK)


def answer(o, runs, claims):
    last = {arm: excess(run)[-1].mean() for arm, run in runs.items()}
    times = {arm: value / last[f"{arm.split(': ')[0]}: constant"] for arm, value in last.items()}
    value = {(c.name, c.arm): c.measured for c in claims}
    noisy = ", ".join(f"{line} 1/{1 / times[f'noisy: {line}']:.0f}" for line in DECAYS)
    clean = [times[f"noiseless: {line}"] for line in (*DECAYS, "tail mean", "mean of all")]
    guess = [last[f"noisy: {line}"] / last["noisy: 1/t"] for line in list(GUESSES)[1:]]
    powers = [value["exponent", f"noiseless: {line}"] for line in list(GUESSES)[:2]]
    means = [times[f"noisy: {line}"] for line in ("mean of all", *TAILS)]
    one = times["noisy: Polyak, one sample"]
    return f"""Decay is a remedy for noise, not a law. With noisy labels a constant step stalls, and
    from the same first step the decays end at these parts of its excess loss: {noisy}. Without
    noise it is the other way round: the constant step never stalls, and every decay and every mean
    ends at least {min(clean):.0e} times higher. A warm-up changes nothing in the end with noise
    ({times["noisy: warm-up"]:.2f} times the constant step), and without it only costs its time.

    1/t needs a constant, 1 / mu. Guess mu 4 times too large, and the step decays too fast: the
    noisy run ends {guess[0]:.0f} times higher (4 times too small: {guess[1]:.1f} times), as the
    start is forgotten with the power {powers[1]:.2f} of the time instead of {powers[0]:.2f}.
    Cosine, linear and stepwise decay need no mu; they must know when the run ends.

    A constant step and a mean of the parameters do as well as decay: the mean of the second half
    ends at 1/{1 / means[1]:.0f} of the constant step's excess, with half the step at
    1/{1 / means[2]:.0f}; the mean of all still holds the start (1/{1 / means[0]:.0f}).

    Polyak's step on one sample at a time is by far the fastest without noise and the worst with it
    ({one:.0f} times the constant step's excess): it fits every sample, noise included. On all
    samples every step comes closer, by exactly three times what Polyak guarantees."""


def by_epoch(runs):
    """Draw the mean excess over the epochs, one row of panels for each kind of line."""
    import pandas as pd  # --help must not wait for it

    known, parts = {arm: exact(run) for arm, run in runs.items()}, []
    for panel, names in PANELS.items():
        for world, line in itertools.product(WORLDS, names):
            run = runs[f"{world}: {line}"]
            same = {"panel": panel, "column": world, "line": line}
            y = {"y": [1.0, *excess(run).mean(1)], "theory": known[f"{world}: {line}"]}
            parts.append(pd.DataFrame({**same, "x": np.arange(run.config.epochs + 1), **y}))
    return ss.figures.curves(pd.concat(parts), "epoch", "excess loss, mean", BOTTOM)


STUDY = ss.Study(
    __file__, __doc__, Options, arms, claims, answer, figures={"step_sizes.png": by_epoch}
)

if __name__ == "__main__":
    STUDY.main()
