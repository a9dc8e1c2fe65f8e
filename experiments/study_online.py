"""Can SGD follow parameters that move, on samples that are seen once and never stored?

Hypothesis: with a constant step SGD settles at a constant distance behind parameters that drift: a
small step lags, v^T H^-1 v / (2 lr^2), a large one is noisy, lr tr(S) / (4 B), and the exact
moments give the step in between that is best. If nothing moves, a smaller step ends nearer. A step
that decays as 1/t is good for a world that stands still, and loses one that moves. As every sample
is new to the parameters that meet it, its loss before the step is an honest test.

Source: the notebook's remark that SGD can take samples on the fly, as an online learning task;
linear algebra of the moments (theory.drift). Command: python experiments/study_online.py
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np

import sgdstudy as ss

LRS = (0.006, 0.012, 0.02, 0.035, 0.06, 0.09, 0.14, 0.2)
GRID = {"drift": LRS, "still": LRS[1:4]}  # larger ones: all noise, which drift gives anyway
VELOCITY = {"drift": np.array([1e-3, 1e-3, 0.0]), "still": np.zeros(3)}  # a step
NOISE = 0.3  # of the labels
D = 100  # samples of the yardstick; as many steps are called an epoch
DECAYED = "1/t"
EXACT = "theory: exact moments of mean and square, same steps; four standard errors"
HONEST = ss.Known(NOISE**2, 0, "theory: label noise + excess, each sample; four standard errors")
FIT = "theory: the same parabola through exact values; four standard errors (jackknife)"


class Options(ss.Options):
    seeds: int = 64
    times: float = 60
    """length of a run, in times 1 / (lr lambda) of its slowest mode"""
    quick: bool = False
    """an eighth of the work: 16 seeds (where the step decays, all), half the steps"""


def law():
    return ss.theory.uniform_law(ss.problems.parabola, 3, NOISE)


def arms(o):
    slowest, times = np.linalg.eigvalsh(law().hessian)[0], o.times / 2 if o.quick else o.times

    def epochs(lr):
        return max(1, int(np.ceil(times / (lr * slowest) / D)))

    same = {"batch_size": 1, "order": "stream", "diagnostics": "off", "record_rows": 60_000}
    same |= {"metrics": ["loss", "w1"], "seeds": list(o.seed_range())[: 16 if o.quick else None]}
    decay = {"schedule": "inverse_time", "schedule_options": {"decay": LRS[3] * slowest}}
    decay |= {"epochs": epochs(LRS[3]), "seeds": o.seed_range()}
    for words, velocity in VELOCITY.items():
        moves = ss.problems.drifting_parabola(velocity, NOISE, D)
        constant = ss.Arm(moves, f"constant step, {words}", lr=LRS[3], **same)
        for lr in GRID[words]:
            yield f"{words}, lr={lr}", constant.but(lr=lr, epochs=epochs(lr))
        yield f"{words}, {DECAYED}", constant.but(f"a step that decays, {words}", **decay)


@lru_cache(64)
def late(run):
    """Return how far behind the seeds are once their start is forgotten (decaying steps: never)."""
    return run.behind(law(), run.config.n_steps(D) // (10 if run.config.schedule else 6))


def best(runs):
    """Check the best step, by the three of the grid next to the one that theory has lowest."""
    due = [ss.theory.stationary_tracking(law(), 1, lr, VELOCITY["drift"]).excess for lr in LRS]
    lrs = LRS[np.argmin(due) - 1 : np.argmin(due) + 2]
    seen = [late(runs[f"drift, lr={lr}"]) for lr in lrs]
    each = np.array([arm.excess.mean(0) for arm in seen])  # (3, R)
    (lr, error), n = ss.theory.minimum_of_means(lrs, each), each.shape[1]
    known = ss.theory.log_minimum(lrs, [arm.expected.mean() for arm in seen])
    # a run cut short by an option settles at no excess
    return replace(ss.Claim.estimated("best_lr", "drift", lr, known, error, n, FIT), always=False)


def decayed(arm, run):
    """Check a decaying step: excess over the expected one, mean over the logarithm of the time."""
    seen = ss.Estimate.mean(late(run).over_expected).beside(1)
    yield ss.Claim.estimated("excess_over_expected", arm, *seen, source=EXACT)
    last = late(run).excess[len(late(run).step) * 8 // 9 :]  # of nine tenths that are looked at
    first, second = np.split(last, [len(last) // 2])
    yield ss.Claim("excess_in_the_last_tenth", arm, last.mean())
    yield ss.Claim("its_second_half_over_the_first", arm, second.mean() / first.mean())


def claims(o, runs):
    for arm, run in runs.items():
        if run.config.schedule:
            yield from decayed(arm, run)
        else:
            seen = late(run).mean_excess.beside(late(run).expected.mean())
            yield ss.Claim.estimated("excess", arm, *seen, source=EXACT)
    yield best(runs)
    drift = [late(run) for run in runs.select("drift, lr=*").values()]
    each = np.mean([(seen.loss - seen.excess).mean(0) for seen in drift], 0)
    name, honest = "loss_before_the_step_less_excess", ss.Estimate.mean(each).beside(HONEST)
    yield ss.Claim.estimated(name, "constant steps, drift", *honest)
    yield ss.Claim("samples_seen_once", "all", sum(int(r.n_steps.sum()) for r in runs.values()))


def answer(o, runs, value):
    excess = {arm: value["excess", arm] for arm in runs.select("*lr=*")}
    drift, still = (min(runs.select(f"{w}, lr=*"), key=excess.get) for w in ("drift", "still"))
    small, large = (excess[f"drift, lr={lr}"] / excess[drift] for lr in (LRS[0], LRS[-1]))
    last = {w: value["excess_in_the_last_tenth", f"{w}, {DECAYED}"] for w in ("drift", "still")}
    lost, gained = last["drift"] / excess[drift], last["still"] / excess[f"still, lr={LRS[3]}"]
    rise = value["its_second_half_over_the_first", f"drift, {DECAYED}"]
    theory = ss.theory.best_tracking_lr(law(), 1, VELOCITY["drift"])
    fresh = value["loss_before_the_step_less_excess"]
    return f"""Yes. {value["samples_seen_once"]:,} samples came, each was used once, and no data set
    of them was kept; the {D} points that are stored are a yardstick nobody trains on. What SGD
    keeps is its three parameters. The loss of a sample before it is learned from is noise plus
    excess: less the excess it is {fresh:.4f} on average; the noise of the labels: {NOISE**2:.4f}.

    If the truth drifts, the step with the least excess is {value["best_lr"]:.3g} by a parabola
    through three of the grid (theory: {theory:.3g}). The smallest step of the grid lags behind,
    with {small:.1f} times the excess of its best; the largest is noisy, {large:.1f} times. If
    nothing moves, of {len(GRID["still"])} steps lr = {runs[still].config.lr:g} ends nearest.

    A step that decays as 1/t leaves, in the last tenth of its run, {gained:.2g} times the excess of
    the constant step it starts from in a world that stands still. In one that moves it is
    {lost:.0f} times that of the best constant step, and {rise:.2f} times as much in the second half
    of that tenth as in the first."""


def picture(o, runs, value):
    constant = runs.select("*lr=*").items()
    rows = [(arm.split(",")[0], run.config.lr, late(run).mean_excess) for arm, run in constant]
    excess = {lr: value["excess", f"drift, lr={lr}"] for lr in LRS}
    title = f"""Of parameters that drift a step of {value["best_lr"]:.2g} is the best; lr {LRS[0]:g}
    lags, with {excess[LRS[0]] / excess[LRS[3]]:.2g} times the excess of lr {LRS[3]:g}"""
    note = "Larger steps are noisy. Where nothing moves a smaller step ends nearer."
    return ss.figures.Chart(title, [ss.figures.tracking(rows, law(), VELOCITY)], note)


def figures(runs):
    chosen = {LRS[0]: "too small", LRS[3]: "about the best", LRS[-1]: "too large"}
    titled = {f"lr = {lr:g}: {words}": runs[f"drift, lr={lr}"] for lr, words in chosen.items()}
    titled["1/t: loses track"] = runs[f"drift, {DECAYED}"]
    yield "following.png", ss.figures.followed(titled, law(), 1, 1500, "w1, the slope at x = 0")


STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
