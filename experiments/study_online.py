"""Can SGD follow parameters that move, on samples that are seen once and never stored?

Hypothesis: with a constant step SGD settles at a constant distance behind parameters that drift: a
small step lags, v^T H^-1 v / (2 lr^2), a large one is noisy, lr tr(S) / (4 B), and the exact
moments give the step in between that is best. If nothing moves, a smaller step ends nearer. A step
that decays as 1/t is good for a world that stands still, and loses one that moves. As every sample
is new to the parameters that meet it, its loss before the step is an honest test.

Source: the notebook's remark that SGD can take samples on the fly, as an online learning task;
linear algebra of the moments (theory.tracking). Command: python experiments/study_online.py
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

import sgdstudy as ss

LRS = (0.006, 0.012, 0.02, 0.035, 0.06, 0.09, 0.14, 0.2)
STILL = (0.012, 0.02, 0.035)  # larger ones: all noise, which the same samples give anyway
START = np.array([0.3, -1.7, 2.5])
VELOCITY = np.array([1e-3, 1e-3, 0.0])  # a step
NOISE = 0.3  # of the labels
D = 100  # samples of the yardstick; as many steps are called an epoch
BLOCK = 5000  # samples that the stream makes at once
DECAYED = "1/t"
EXACT = "theory: exact moments of mean and square, same steps; four standard errors"
HONEST = "theory: noise of the labels + excess, sample by sample; four standard errors"
SAME_FIT = "theory: the same parabola through exact values; four standard errors (jackknife)"


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 64
    times: float = 60
    """length of a run, in times 1 / (lr lambda) of its slowest mode"""
    quick: bool = False
    """an eighth of the work: 16 seeds (where the step decays, all), half the steps"""


def features(x):
    return np.stack([x * x, x, np.ones_like(x)], 1)


@lru_cache(1)
def law():
    """Return the moments of x uniform in [-1, 1]: exact, the quadrature is for polynomials."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    return ss.theory.sample_law(features(nodes), weights / 2, NOISE)


def moving(velocity):
    return lambda steps: START + np.asarray(steps)[:, None] * velocity


def problem(velocity):
    """Return a parabola whose coefficients move, and the stream of its noisy points."""

    def stream(generator):
        import torch  # --help must not wait for it

        first, like = 0, {"generator": generator, "dtype": torch.float64}
        while True:  # one sample a step: the number of the sample is that of the step
            x = 2 * torch.rand(BLOCK, **like) - 1
            w = torch.as_tensor(moving(velocity)(np.arange(first, first + BLOCK)))
            yield x, ss.problems.parabola(w.T, x) + NOISE * torch.randn(BLOCK, **like)
            first += BLOCK

    x, words = np.linspace(-1, 1, D), "drifts" if velocity.any() else "stands still"
    given = {"w_init": START, "w_true": moving(velocity), "stream": stream}
    y = ss.problems.parabola(START, x)
    return ss.Problem(x, y, ss.problems.parabola, name=f"a parabola that {words}", **given)


def arms(o):
    seeds = list(o.seed_range())
    slowest, found = np.linalg.eigvalsh(law().hessian)[0], {}
    times = o.times / 2 if o.quick else o.times
    same = {"batch_size": 1, "order": "stream", "diagnostics": "off"}
    same |= {"metrics": ["loss", "w1"], "record_rows": 60_000}
    few, same["seeds"] = {"seeds": seeds[: 16 if o.quick else None]}, seeds
    for words, velocity, lrs in (("drift", VELOCITY, LRS), ("still", 0 * VELOCITY, STILL)):
        moves = problem(velocity)
        for lr in lrs:
            epochs = max(1, int(np.ceil(times / (lr * slowest) / D)))
            about = f"constant step, {words}"
            settings = same | few | {"lr": lr, "epochs": epochs}
            found[f"{words}, lr={lr}"] = ss.Arm(moves, about, **settings)
        lr = LRS[3]
        decay = {"schedule": "inverse_time", "schedule_options": {"decay": lr * slowest}}
        epochs = max(1, int(np.ceil(times / (lr * slowest) / D)))
        about = f"a step that decays, {words}"
        found[f"{words}, {DECAYED}"] = ss.Arm(moves, about, lr=lr, epochs=epochs, **decay, **same)
    return found


def velocity(arm):
    return VELOCITY * arm.startswith("drift")


def constant(runs, words="drift"):
    return {a: r for a, r in runs.items() if a.startswith(words) and not a.endswith(DECAYED)}


@lru_cache(64)
def late(run):
    """Return excess, loss and step of the rows by which the start is forgotten, `(rows, R)` each.

    That is after a sixth of the steps. A decaying step never forgets: there it is a tenth.
    """
    total = run.config.n_steps(D)
    first = total // (10 if run.config.schedule else 6)
    names = ["seed", "step", "loss", "w0", "w1", "w2"]
    rows = run.load(columns=names, steps=slice(first, total))
    z = rows[["w0", "w1", "w2"]].to_numpy() - run.problem.true_at(rows["step"].to_numpy())
    rows["excess"] = np.einsum("rp,pq,rq->r", z, law().hessian, z) / 2
    table = rows.pivot(index="step", columns="seed")
    return table["excess"].to_numpy(), table["loss"].to_numpy(), table.index.to_numpy()


def mean(values):
    """Return the mean over steps and seeds, and its standard error over the seeds."""
    each = values.mean(0)
    return each.mean(), ss.standard_error(each)


def exact(arm, lr):
    return ss.theory.stationary_tracking(law(), 1, lr, velocity(arm)).excess


@lru_cache(32)
def path(arm, run):
    """Return E[w] and the expected excess before every step, and after the last."""
    total = run.config.n_steps(D)
    true = run.problem.true_at(np.arange(total + 1))
    rates = run.config.rates(D)(np.arange(total))
    return ss.theory.tracking_path(law(), 1, rates, true, START)


def expected(arm, run):
    """Return the expected excess at the rows of `late`."""
    return path(arm, run)[1][late(run)[2]]


def lowest(curve):
    """Return the least point of a parabola, in logarithms, through three values of a curve.

    The three next to the step that theory has lowest.
    """
    at = int(np.argmin([exact("drift", lr) for lr in LRS]))
    near = slice(at - 1, at + 2)
    a, b, _ = np.polyfit(np.log(LRS[near]), np.log(curve[near]), 2)
    return float(np.exp(-b / (2 * a))) if a > 0 else np.nan


def best(runs):
    """Check the best step: all seeds, and the seeds but one for the error (they share samples)."""
    arms = constant(runs)
    each = np.array([late(run)[0].mean(0) for run in arms.values()])  # (lrs, R)
    known = lowest(np.array([expected(arm, run).mean() for arm, run in arms.items()]))
    n, error = each.shape[1], np.nan
    if n > 1:
        without = [lowest(np.delete(each, seed, axis=1).mean(1)) for seed in range(n)]
        error = np.std(without) * np.sqrt(n - 1)
    given = (lowest(each.mean(1)), known, error, n, SAME_FIT)
    # a run cut short by an option settles at no excess
    return replace(ss.Claim.estimated("best_lr", "drift", *given), always=False)


def decayed(arm, run):
    """Check a decaying step: excess over the expected one, mean over the logarithm of the time."""
    measured, _, steps = late(run)
    weights = 1 / (steps + 1)
    each = weights @ (measured / expected(arm, run)[:, None]) / weights.sum()
    known = (each.mean(), 1, ss.standard_error(each), len(each), EXACT)
    last = measured[len(measured) * 8 // 9 :]  # of the nine tenths that are looked at
    half = len(last) // 2
    return [
        ss.Claim.estimated("excess_over_expected", arm, *known),
        ss.Claim("excess_in_the_last_tenth", arm, last.mean()),
        ss.Claim("its_second_half_over_the_first", arm, last[half:].mean() / last[:half].mean()),
    ]


def honest(runs):
    """Check that a loss before the step is that of a stranger: noise of the labels plus excess."""
    each = np.mean([(loss - excess).mean(0) for excess, loss, _ in map(late, runs.values())], 0)
    known = (each.mean(), NOISE**2, ss.standard_error(each), len(each), HONEST)
    return ss.Claim.estimated("loss_before_the_step_less_excess", "constant steps, drift", *known)


def claims(o, runs):
    found = []
    for arm, run in runs.items():
        if run.config.schedule:
            found += decayed(arm, run)
            continue
        measured, error = mean(late(run)[0])
        known = (measured, expected(arm, run).mean(), error, len(run.w), EXACT)
        found.append(ss.Claim.estimated("excess", arm, *known))
    seen = sum(int(run.n_steps.sum()) for run in runs.values())
    found += [best(runs), honest(constant(runs))]
    return [*found, ss.Claim("samples_seen_once", "all", seen)]


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    excess = {
        arm: value["excess", arm] for words in ("drift", "still") for arm in constant(runs, words)
    }
    drift, still = (min(constant(runs, words), key=excess.get) for words in ("drift", "still"))
    small, large = (excess[f"drift, lr={lr}"] / excess[drift] for lr in (LRS[0], LRS[-1]))
    last, rise = (
        {words: value[name, f"{words}, {DECAYED}"] for words in ("drift", "still")}
        for name in ("excess_in_the_last_tenth", "its_second_half_over_the_first")
    )
    lost, gained = last["drift"] / excess[drift], last["still"] / excess[f"still, lr={LRS[3]}"]
    theory = ss.theory.best_tracking_lr(law(), 1, VELOCITY)
    fresh = value["loss_before_the_step_less_excess", "constant steps, drift"]
    return f"""Yes. {value["samples_seen_once", "all"]:,} samples came, each was used once, and no
    data set of them was kept; the {D} points that are stored are a yardstick nobody trains on. What
    SGD keeps is its three parameters. The loss of a sample before it is learned from is noise plus
    excess: less the excess it is {fresh:.4f} on average, and the noise of the labels is
    {NOISE**2:.4f}.

    If the truth drifts, the step with the least excess is {value["best_lr", "drift"]:.3g} by a
    parabola through three of the grid (theory: {theory:.3g}). The smallest step of the grid lags
    behind, with {small:.1f} times the excess of its best; the largest is noisy, {large:.1f} times.
    If nothing moves, of {len(STILL)} steps lr = {runs[still].config.lr:g} ends nearest.

    A step that decays as 1/t leaves, in the last tenth of its run, {gained:.2g} times the excess of
    the constant step it starts from in a world that stands still. In one that moves it is
    {lost:.0f} times that of the best constant step, and {rise["drift"]:.2f} times as much in the
    second half of that tenth as in the first."""


def tracking(runs):
    """Draw the excess over the step, theory, and its two halves for small steps."""
    rows = [
        (a.split(",")[0], r.config.lr, *mean(late(r)[0]))
        for a, r in runs.items()
        if not r.config.schedule
    ]
    laws = {
        words: lambda lrs, words=words: np.array([exact(words, lr) for lr in lrs])
        for words in ("drift", "still")
    }
    names = ("noise, small steps: lr tr(S) / (4 B)", "lag, small steps: v^T H^-1 v / (2 lr^2)")
    for i, name in enumerate(names):
        laws[name] = lambda lrs, i=i: np.array(
            [ss.theory.tracking_terms(law(), 1, lr, VELOCITY)[i] for lr in lrs]
        )
    marks = {"best step, theory": ss.theory.best_tracking_lr(law(), 1, VELOCITY)}
    panels = {"following parameters that drift, or stand still": list(laws)}
    labels = ("step size lr", "excess loss, mean over time and seeds")
    return ss.figures.power_laws(ss.figures.points(rows), panels, laws, *labels, marks=marks)


def following(runs):
    """Draw w1 of one seed over the steps, for a step too small, the best, and one too large."""
    panels = {}
    chosen = {LRS[0]: "too small", LRS[3]: "about the best", LRS[-1]: "too large"}
    titles = {f"drift, lr={lr}": f"lr = {lr:g}: {words}" for lr, words in chosen.items()}
    titles[f"drift, {DECAYED}"] = "1/t: loses track"
    for arm, title in titles.items():
        run = runs[arm]
        rows = run.load(
            columns=["seed", "step", "w1"], steps=slice(0, 1500), seeds=run.config.seeds[:1]
        )
        steps = rows["step"].to_numpy()
        true = run.problem.true_at(steps)[:, 1]
        panels[title] = steps, true, rows["w1"].to_numpy(), path(arm, run)[0][steps, 1]
    return ss.figures.followed(panels, "steps, one new sample each", "w1, the slope at x = 0")


STUDY = ss.Study(
    __file__,
    __doc__,
    Options,
    arms,
    claims,
    answer,
    figures={"tracking.png": tracking, "following.png": following},
)

if __name__ == "__main__":
    STUDY.main()
