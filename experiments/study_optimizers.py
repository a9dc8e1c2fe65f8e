"""Which optimiser is fastest, once each has been given the same care with its step size?

Hypothesis: momentum buys larger steps, worth a factor of up to (1 + 0.9) / (1 - 0.9) = 19 where the
curvature limits the step, and nothing where noise does: at the same lr / (1 - 0.9) it is SGD.
What is best on one problem need not be on the next, and most of it is in the choice of lr.

Source: in the manner of DeepOBS (Schneider, Balles, Hennig 2019) and AlgoPerf (Dahl et al. 2023).
Declared beforehand: as many step sizes for every optimiser, half a decade apart; as many steps and
the same batches; one lr for each problem, chosen by tuning seeds (least median time to the hardest
target, then least median loss at the end), judged by other seeds; a seed that misses is censored.
Command: python experiments/study_optimizers.py
"""

import numpy as np

import sgdstudy as ss
from answers.study_optimizers import answer, short
from common.study_optimizers import BY, PROBLEMS, TUNING, table, tuned, tuning, won

RULES = {"SGD": {}, "momentum": {"momentum": 0.9}, "RMSprop": {}, "Adam": {}}
GROWTH = 100.0  # log of the error's growth in a run, by theory: no seed is so lucky as to end below
MOMENTS = "theory: second moments of independent batches; four standard errors"


class Options(ss.Options):
    seeds: int = 32
    tuning: int = 4
    """seeds that choose the step sizes, others than those reported"""
    budget: float = 1.0
    """length of the runs, over the declared one"""
    quick: bool = False
    """curve and diabetes, without RMSprop, 3 step sizes a decade apart"""


def arms(o):
    seeds = [*o.seed_range(), *(TUNING + o.first_seed + k for k in range(o.tuning))]
    same = {"seeds": seeds, "diagnostics": "off", "metrics": [], "record_rows": 2000}
    for name in ("curve", "diabetes") if o.quick else PROBLEMS:
        problem, (size, epochs, _) = ss.problems.get(name.replace("-", "_")), PROBLEMS[name]
        # theory is exact for independent draws; the network has none
        order = "shuffle" if problem.least_squares is None else "with_replacement"
        same |= {"order": order, "batch_size": size, "epochs": max(1, round(o.budget * epochs))}
        for rule in ("SGD", "momentum", "Adam") if o.quick else RULES:
            optimizer = "SGD" if rule == "momentum" else rule
            arm = ss.Arm(problem, optimizer=optimizer, options=RULES[rule], **same)
            # of the network, the limit of its last layer: its Hessian is at most |units|² / 2
            middle = ss.expect(arm).first_lr(4 / 33 if problem.least_squares is None else None)
            for k in (-2, 0, 2) if o.quick else range(-3, 4):
                lr = ss.rounded(middle * 10 ** (k / 2))
                about = ss.say("step size {k:+} of the grid", k=k)
                charted = name == "curve" and k == 0
                yield f"{name}, {rule}, lr {lr:.2g}", arm.but(about, lr=lr, charted=charted)


def claims(o, runs):
    below = {}  # of SGD and momentum, at every step, theory knows something
    for arm, run in runs.select("*", without=("*, Adam,*", "*, RMSprop,*", "digits*")).items():
        known, lr = ss.expect(run), run.config.lr
        limit = known.plain.mean_square_lr_limit.value
        # nearer to the limit the mean is carried by paths too rare to be met
        if known.has_mean and lr / (1 - known.momentum) < limit / 5:
            each = run.over_expected(run.config.epochs // 2)[np.array(run.config.seeds) < TUNING]
            seen = ss.Estimate.mean(each).beside(1)
            yield ss.Claim.estimated("mean_loss_over_theory", arm, *seen, MOMENTS)
        if lr > limit and known.log_growth() > GROWTH:
            ends = run.array("epochs", "full_loss")[-1:]
            fine = (ends < known.ls.loss(known.start)).sum() / len(run.w)
            below.setdefault(arm.split(", ")[0], []).append(fine)
    paths = ss.say(
        "theory: by the Lyapunov exponent almost every path grows by exp({growth}) or more",
        growth=GROWTH,
    )
    for name, fine in below.items():
        yield ss.Claim("seeds_that_end_below_their_start", name, np.mean(fine), 0, 0, paths, True)
    # of the winners theory has nothing: a seed may dip below its target where the mean never does
    for row in tuning(runs, True).chosen.merge(tuning(runs).chosen, on=BY).itertuples():
        arm = f"{row.problem}, {row.optimizer}"
        yield ss.Claim("chosen_lr", arm, row.lr_y)
        yield ss.Claim("lr_fastest_in_the_mean", arm, row.lr_x)
    for row in tuned(o, runs).itertuples():
        yield ss.Claim("epochs_to_hardest_target", f"{row.problem}, {row.optimizer}", row.median)


def picture(o, runs, value):
    hard = table(o, runs).query("hardest")
    title = ss.say("Fewest epochs to the hardest target: {won}", won=won(o, runs))
    note = ss.say("A point is a step size; where there is none, most seeds miss the target.")
    return ss.figures.Chart(title, ss.figures.tuning.over_lr(hard)[:3], note)


def figures(runs):
    rows = table(None, runs)
    yield "times.png", ss.figures.times_to_targets(rows[rows["chosen"]])
    yield "lr_sensitivity.png", ss.figures.lr_sensitivity(rows[rows["hardest"]])


tables = {"times.csv": table, "tuned.csv": tuned}  # every arm and target; the steps chosen
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
