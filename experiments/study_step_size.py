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
RATE = (
    "theory: slope of the expected losses; by Bach, Moulines (2011) -2 mu / (guess mu) in the end"
)
POLYAK = "theory: |z|^2 falls by 3 (L - L*)^2 / |g|^2 on a quadratic (at least 1: Polyak 1969)"
PATHS = "theory: Lyapunov exponent of the projections; four standard errors"
PRODUCTS = (64, 60)  # replicas and epochs that this exponent is estimated from


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 256
    epochs: int = 100
    quick: bool = False
    """half of the epochs"""


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
    same = {"optimizer": "SGD", "batch_size": BATCH, "order": "with_replacement"}
    same |= {"seeds": list(o.seed_range()), "epochs": epochs(o), "diagnostics": "off"}
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


def settled(runs):
    """Return the excess of the noisy constant step, a mean over the second half: run's, theory's.

    It stalls there, and a mean over many epochs is known better than the end.
    """
    run, half = runs["noisy: constant"], runs["noisy: constant"].config.epochs // 2
    return excess(run)[half:].mean(0), exact(run)[half + 1 :].mean()


def ratio(name, arm, a, b):
    """Return the claim on a mean over another's, both as (seeds, theory).

    Where theory holds a - expected b has mean zero, and its error over b's mean is the ratio's.
    """
    expected, mean = a[1] / b[1], b[0].mean()
    each = (a[0] - expected * b[0]) / mean
    return by_seed(name, arm, a[0].mean() / mean, expected, each, EXACT)


def by_seed(name, arm, measured, expected, each, source):
    """Return a prediction whose error is that of the mean over what every seed has."""
    error = ss.standard_error(each)
    return ss.Claim.estimated(name, arm, measured, expected, error, len(each), source)


def claims(o, runs):
    found, calm = [], settled(runs)
    found.append(
        by_seed("settled_excess", "noisy: constant", calm[0].mean(), calm[1], calm[0], EXACT)
    )
    ends = {arm: (excess(run)[-1], exact(run)[-1]) for arm, run in runs.items()}
    for arm, run in runs.items():
        (last, true), noisy = ends[arm], arm.startswith("noisy: ")
        # without noise few paths carry the mean of Polyak's step
        if run.config.batch_size is None or arm == "noiseless: Polyak, one sample":
            found.append(ss.Claim("excess", arm, last.mean()))
        elif arm == "noisy: warm-up":
            found.append(ratio("over_constant_at_the_end", arm, ends[arm], ends["noisy: constant"]))
        elif noisy and arm != "noisy: constant":
            found.append(ratio("over_constant", arm, ends[arm], calm))
        elif not noisy:
            found.append(by_seed("excess", arm, last.mean(), true, last, EXACT))
    found += [forgetting(runs, f"noiseless: {line}") for line in list(GUESSES)[:2]]
    found += [tail(runs, f"noisy: {line}") for line in TAILS]
    found.append(projections(runs, "noiseless: Polyak, one sample"))
    return [*found, descent([runs[f"{world}: Polyak, full batch"] for world in WORLDS])]


def forgetting(runs, arm):
    """Return the claim on the power of 1 + decay t with which the start is forgotten."""
    run, c = runs[arm], runs[arm].config
    decay, ends = c.schedule_options["decay"], np.array([max(1, c.epochs // 5), c.epochs])
    x, samples = 1 + decay * ends * D / BATCH, excess(run)[ends - 1]
    slope, true = (ss.theory.log_slope(x, y) for y in (samples.mean(1), exact(run)[ends]))
    return by_seed("exponent", arm, slope, true, ss.theory.slope_samples(x, samples), RATE)


def tail(runs, arm):
    """Describe the mean of the second half beside its law, for many steps of a small size."""
    run, half = runs[arm], runs[arm].config.epochs // 2
    law = ss.theory.averaged_excess_law(
        run.problem.least_squares, D, (run.config.epochs - half) * D
    )
    return ss.Claim("over_law", arm, excess(run)[-1].mean() / law)


def projections(runs, arm):
    """Return the claim on the rate of Polyak's step on single samples, in the second epoch."""
    run, rows = runs[arm], ss.theory.projected(runs[arm].problem.least_squares)
    y, (replicas, epochs_) = rows.features @ rows.w_star, PRODUCTS
    known = ss.Problem(rows.features, y, ss.problems.linear, w_init=np.zeros(3))
    given = {"epochs": epochs_, "replicas": replicas, "replacement": True}
    ends = run.load("epochs", epochs=slice(1, 3)).set_index(["epoch", "seed"])["distance"]
    each = np.diff(np.log(ends.unstack().to_numpy()), axis=0)[0] / D
    # the exponent too is a mean of so many epochs, the first left out
    both = (1 + len(each) / (replicas * (epochs_ - 1))) ** 0.5 * each
    rate = ss.theory.lyapunov(known, 1, 0.5, **given)
    return by_seed("log_rate_per_step", arm, each.mean(), rate, both, PATHS)


def descent(runs):
    """Return the identity on how fast Polyak's step on all samples comes closer, step by step."""
    worst = []
    for run in runs:
        ls, ends = run.problem.least_squares, run.load("epochs")[["w0", "w1", "w2"]].to_numpy()
        z = np.vstack([run.problem.initial([0]).numpy(), ends]) - ls.w_star
        g, square = z[:-1] @ ls.hessian, (z**2).sum(1)
        above = (z[:-1] * g).sum(1) / 2
        calm = above > CALM  # beyond, L - L* is rounding
        share = -np.diff(square) * (g**2).sum(1) / above**2
        worst.append(np.abs(share / 3 - 1)[calm].max())
    arm = "Polyak, full batch"
    return ss.Claim("fall_over_law_less_1", arm, max(worst), 0, 1e-6, POLYAK, identity=True)


def answer(o, runs, claims):
    last = {arm: excess(run)[-1].mean() for arm, run in runs.items()}
    half, settled_ = runs["noisy: constant"].config.epochs // 2, settled(runs)[0].mean()
    times = {arm.removeprefix("noisy: "): v / settled_ for arm, v in last.items() if "noisy" in arm}
    value = {(c.name, c.arm): c.measured for c in claims}
    noisy = ", ".join(f"{line} {times[line]:.2g}" for line in DECAYS)
    means = ("mean of all", *TAILS)
    slow = [last[f"noiseless: {line}"] for line in (*DECAYS, *list(GUESSES)[1:], *means)]
    least = np.floor(np.log10(min(slow) / last["noiseless: constant"]))
    guess = [last[f"noisy: {line}"] / last["noisy: 1/t"] for line in list(GUESSES)[1:]]
    powers = [value["exponent", f"noiseless: {line}"] for line in list(GUESSES)[:2]]
    warm = last["noiseless: warm-up"] / last["noiseless: constant"]
    whole = [last[f"{world}: mean of all"] for world in WORLDS]
    one = last["noiseless: Polyak, one sample"]
    constant, seeds = runs["noisy: constant"], len(runs["noisy: constant"].w)
    given = (constant.problem.least_squares, D, BATCH, constant.config.lr, True)
    floor = ss.theory.stationary_excess(*given)
    return f"""Means over {seeds} seeds, after {epochs(o)} epochs. With noisy labels a constant step
    settles, by theory at an excess loss of {floor:.3g}; in epochs {half + 1} to {epochs(o)} its
    mean is {settled_:.3g}. From the same first step the decays end at these parts of it: {noisy}.
    Without noise the constant step falls to {last["noiseless: constant"]:.1e}, and every decay and
    every mean ends more than 10^{least:.0f} times higher. After a warm-up the noisy run ends at
    {value["over_constant_at_the_end", "noisy: warm-up"]:.3f} times the constant step, the noiseless
    one, which has lost the time, at {warm:.2g} times.

    1/t needs a constant, 1 / mu. With mu guessed 4 times too large the step decays too fast: the
    noisy run ends at {guess[0]:.2g} times the excess of the right guess (4 times too small: at
    {guess[1]:.2g} times). Without noise the start is then forgotten with the power {powers[1]:.2f}
    of the time, instead of {powers[0]:.2f}. Cosine, linear and stepwise decay are not told mu; they
    are told when the run ends.

    A constant step with a mean of the parameters needs no decay: that of the second half ends at
    {times["tail mean"]:.2g} of the constant step's excess, with half the step at
    {times["tail mean, lr / 2"]:.2g}. The mean of all still holds the start: it ends at
    {whole[1]:.2g}, and without any noise at {whole[0]:.2g}.

    Polyak's step on one sample at a time ends at {one:.1e} without noise, the constant step of
    batches of {BATCH} at {last["noiseless: constant"]:.1e}; with noise it ends at
    {times["Polyak, one sample"]:.2g} times the constant step's excess: it fits every sample, noise
    included. On all samples every step comes closer, by three times what Polyak guarantees."""


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
