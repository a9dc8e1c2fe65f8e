"""Can SGD follow parameters that move, on samples that are seen once and never stored?

Hypothesis: with a constant step SGD settles at a constant distance behind parameters that drift: a
small step lags, vᵀ H⁻¹ v / (2 lr²), a large one is noisy, lr tr(S) / (4 B), and the exact
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
from answers.study_online import (
    DECAYED,
    GRID,
    LRS,
    NOISE,
    VELOCITY,
    D,
    answer,
    excesses,
    law,
    short,
)

WORLDS = {"drift": ss.to_say("drift"), "still": ss.to_say("no drift")}
CHOSEN = {LRS[0]: ss.to_say("too small"), LRS[3]: ss.to_say("about the best")}
CHOSEN |= {LRS[-1]: ss.to_say("too large")}
EXACT = "theory: exact moments of mean and square, same steps; four standard errors"
HONEST = ss.Known(NOISE**2, 0, "theory: label noise + excess, each sample; four standard errors")
FIT = ss.to_say("theory: the same parabola through exact values; four standard errors (jackknife)")


class Options(ss.Options):
    seeds: int = 64
    times: float = 60
    """length of a run, in times 1 / (lr λ) of its slowest mode"""
    quick: bool = False
    """an eighth of the work: 16 seeds (where the step decays, all), half the steps"""


def arms(o):
    slowest, times = np.linalg.eigvalsh(law().hessian)[0], o.times / 2 if o.quick else o.times

    def epochs(lr):
        return max(1, int(np.ceil(times / (lr * slowest) / D)))

    same = {"batch_size": 1, "order": "stream", "diagnostics": "off", "record_rows": 60_000}
    same |= {"metrics": ["loss", "w1"], "seeds": list(o.seed_range())[: 16 if o.quick else None]}
    fall = ss.rounded(LRS[3] * slowest)
    decay = {"schedule": "inverse_time", "schedule_options": {"decay": fall}}
    decay |= {"epochs": epochs(LRS[3]), "seeds": o.seed_range()}
    for words, velocity in VELOCITY.items():
        moves, world = ss.problems.drifting_parabola(velocity, NOISE, D), ss.say(WORLDS[words])
        about = ss.say("constant step, {world}", world=world)
        constant = ss.Arm(moves, about, lr=LRS[3], **same)
        constant = constant.but(charted=False)
        for lr in GRID[words]:
            charted = words == "drift" and lr in CHOSEN
            yield f"{words}, lr={lr}", constant.but(lr=lr, epochs=epochs(lr), charted=charted)
        decay |= {"charted": words == "drift"}
        about = ss.say("a step that decays, {world}", world=world)
        yield f"{words}, {DECAYED}", constant.but(about, **decay)


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


def picture(o, runs, value):
    worlds = {words: ss.say(name) for words, name in WORLDS.items()}
    constant = runs.select("*lr=*").items()
    rows = [(worlds[arm.split(",")[0]], r.config.lr, late(r).mean_excess) for arm, r in constant]
    velocity = {name: VELOCITY[words] for words, name in worlds.items()}
    excess = excesses(runs, value, "drift")
    given = {"best": value["best_lr"], "low": LRS[0], "middle": LRS[3]}
    given["ratio"] = excess[LRS[0]] / excess[LRS[3]]
    if LRS[0] < given["best"] < LRS[-1] and given["ratio"] > 1:
        title = ss.say(
            """Of parameters that drift a step of {best:.2} is the best; lr {low} lags, with
            {ratio:.2} times the excess of lr {middle}""",
            **given,
        )
    else:
        title = ss.say("lr {low} ends with {ratio:.2} times the excess of lr {middle}", **given)
    note = ss.say("Larger steps are noisy. Where nothing moves a smaller step ends nearer.")
    return ss.figures.Chart(title, [ss.figures.tracking(rows, law(), velocity)], note)


def figures(runs):
    titled = {
        ss.say("lr = {lr}: {words}", lr=lr, words=ss.say(words)): runs[f"drift, lr={lr}"]
        for lr, words in CHOSEN.items()
    }
    titled[ss.say("a step that decays as 1/t")] = runs[f"drift, {DECAYED}"]
    slope = ss.say("w1, the slope at x = 0")
    yield "following.png", ss.figures.followed(titled, law(), 1, 1500, slope)


charts = {"running loss: of each sample before it is learnt from": "epoch/running_loss"}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
