"""Can SGD follow parameters that move, on samples that are seen once and never stored?

Hypothesis: with a constant step SGD settles at a constant distance behind parameters that drift: a
small step lags, v^T H^-1 v / (2 lr^2), a large one is noisy, lr tr(S) / (4 B), and the exact
moments give the step in between that is best. If nothing moves, a smaller step ends nearer. A step
that decays as 1/t is good for a world that stands still, and loses one that moves. As every sample
is new to the parameters that meet it, its loss before the step is an honest test.

Source: the notebook's remark that SGD can take samples on the fly, as an online learning task;
linear algebra of the moments (theory.tracking). Command: python experiments/study_online.py
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

import sgdstudy as ss

LRS = (0.006, 0.012, 0.02, 0.035, 0.06, 0.09, 0.14, 0.2)
STILL = (0.012, 0.035, 0.09, 0.2)
START = np.array([0.3, -1.7, 2.5])
VELOCITY = np.array([1e-3, 1e-3, 0.0])  # a step
NOISE = 0.3  # of the labels
D = 100  # samples of the yardstick; as many steps are called an epoch
BLOCK = 5000  # samples that the stream makes at once
DECAYED = "1/t"
EXACT = "theory: exact moments of mean and square; four standard errors"
HONEST = "theory: noise of the labels + exact excess; four standard errors"


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 64
    times: float = 60
    """length of a run, in times 1 / (lr lambda) of its slowest mode"""
    quick: bool = False
    """a tenth of the work: 16 seeds, half the steps"""


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
    seeds = list(o.seed_range())[: 16 if o.quick else None]
    slowest, found = np.linalg.eigvalsh(law().hessian)[0], {}
    times = o.times / 2 if o.quick else o.times
    same = {"batch_size": 1, "order": "stream", "seeds": seeds, "diagnostics": "off"}
    same |= {"metrics": ["loss", "w1"], "record_rows": 60_000}
    for words, velocity, lrs in (("drift", VELOCITY, LRS), ("still", 0 * VELOCITY, STILL)):
        moves = problem(velocity)
        for lr in lrs:
            epochs = max(1, int(np.ceil(times / (lr * slowest) / D)))
            about = f"constant step, {words}"
            found[f"{words}, lr={lr}"] = ss.Arm(moves, about, lr=lr, epochs=epochs, **same)
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

    That is after a sixth of the steps; a decaying step never forgets, and there it is the last
    tenth.
    """
    total = run.config.n_steps(D)
    first = total * 9 // 10 if run.config.schedule else total // 6
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


@lru_cache(8)
def path(arm, run):
    """Return E[w] and the expected excess before every step, and after the last."""
    total = run.config.n_steps(D)
    true = run.problem.true_at(np.arange(total + 1))
    rates = run.config.rates(D)(np.arange(total))
    return ss.theory.tracking_path(law(), 1, rates, true, START)


def lowest(lrs, curve):
    """Return the least point of the parabola, in logarithms, through the least of a curve."""
    at = int(np.clip(np.argmin(curve), 1, len(lrs) - 2))
    near = slice(at - 1, at + 2)
    a, b, _ = np.polyfit(np.log(lrs[near]), np.log(curve[near]), 2)
    return float(np.exp(-b / (2 * a))) if a > 0 else np.nan


def best(runs):
    """Return the best step measured, that of theory, and the tolerance.

    Four standard errors (the seeds drawn anew, the same ones for every step: they share their
    samples), and what the parabola is off by on theory's own values.
    """
    lrs = np.array(LRS)
    each = np.array([late(run)[0].mean(0) for run in constant(runs).values()])  # (lrs, R)
    expected = ss.theory.best_tracking_lr(law(), 1, VELOCITY)
    off = lowest(lrs, np.array([exact("drift", lr) for lr in lrs])) - expected
    draws = np.random.default_rng(0).integers(each.shape[1], size=(200, each.shape[1]))
    error = np.std([lowest(lrs, each[:, draw].mean(1)) for draw in draws])
    return lowest(lrs, each.mean(1)), expected, 4 * error + abs(off)


def claims(o, runs):
    found = []
    for arm, run in runs.items():
        excess, loss, steps = late(run)
        measured, error = mean(excess)
        if run.config.schedule:
            expected = path(arm, run)[1][steps].mean()
        else:
            expected = exact(arm, run.config.lr)
        found.append(ss.Claim("excess", arm, measured, expected, 4 * error, EXACT))
        if arm.startswith("drift"):
            fresh, error = mean(loss)
            honest = NOISE**2 + expected
            found.append(ss.Claim("loss_before_the_step", arm, fresh, honest, 4 * error, HONEST))
    seen = sum(int(run.n_steps.sum()) for run in runs.values())
    found.append(ss.Claim("samples_seen_once", "all", seen))
    value = {c.arm: c.measured for c in found if c.name == "excess"}
    least = min(constant(runs), key=value.get)
    of_theory = min(LRS, key=lambda lr: exact("drift", lr))
    source = "theory: least exact excess"
    found.append(
        ss.Claim("best_lr_of_the_grid", "drift", runs[least].config.lr, of_theory, 0, source)
    )
    measured, expected, tolerance = best(runs)
    source += "; four standard errors, and the parabola's own error"
    found.append(ss.Claim("best_lr", "drift", measured, expected, tolerance, source))
    floors = [value[arm] for arm in constant(runs, "still")]
    source = "theory: the noise left grows with the step"
    rises = floors == sorted(floors)
    return [*found, ss.Claim("smaller_step_ends_nearer", "still", rises, True, 0, source)]


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    excess = {arm: value["excess", arm] for arm in runs}
    drift, still = (min(constant(runs, words), key=excess.get) for words in ("drift", "still"))
    small, large = (excess[f"drift, lr={lr}"] / excess[drift] for lr in (LRS[0], LRS[-1]))
    lost = excess[f"drift, {DECAYED}"] / excess[drift]
    gained = excess[f"still, {DECAYED}"] / excess[f"still, lr={LRS[3]}"]
    theory = ss.theory.best_tracking_lr(law(), 1, VELOCITY)
    seen = value["samples_seen_once", "all"]
    return f"""Yes. {seen:,} samples came, each was used once, and no data set of them was kept; the
    {D} points that are stored are a yardstick nobody trains on. What SGD keeps is its three
    parameters. The loss of a sample before it is learned from is noise plus excess: an honest test,
    for free.

    If the truth drifts, the best step is {value["best_lr", "drift"]:.3g} (theory {theory:.3g}). The
    smallest step of the grid lags behind, with {small:.1f} times the excess of the best one; the
    largest is noisy, {large:.1f} times. If nothing moves, the smallest step ends nearest
    (here lr = {runs[still].config.lr:g}).

    A step that decays as 1/t leaves {gained:.2g} times the excess of the constant step it starts
    from in a world that stands still, and {lost:.0f} times that of the best constant step, and
    growing, in one that moves: who learns online keeps the step constant."""


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
        rows = run.load(columns=["seed", "step", "w1"], steps=slice(0, 1500), seeds=[0])
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
