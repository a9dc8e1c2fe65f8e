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

TUNING = 1_000_000  # the first of the seeds that choose
PROBLEMS = {  # batch size, epochs, targets: shares of the loss there is to lose
    "curve": (50, 250, (0.1, 0.01, 0.001)),
    "ill-conditioned": (20, 50, (0.1, 0.01, 0.001)),
    "diabetes": (59, 350, (0.1, 0.03, 0.01)),
    "digits": (64, 10, (0.3, 0.1, 0.03)),
}
RULES = {"SGD": {}, "momentum": {"momentum": 0.9}, "RMSprop": {}, "Adam": {}}
BY = ["problem", "optimizer"]
GROWTH = 100.0  # log of the error's growth in a run, by theory: no seed is so lucky as to end below
MOMENTS = "theory: second moments of independent batches; four standard errors"
PATHS = f"theory: by the Lyapunov exponent almost every path grows by exp({GROWTH:g}) or more"


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
            # of the network, the limit of its last layer: its Hessian is at most |units|^2 / 2
            middle = ss.expect(arm).first_lr(4 / 33 if problem.least_squares is None else None)
            for k in (-2, 0, 2) if o.quick else range(-3, 4):
                lr, about = middle * 10 ** (k / 2), f"step size {k:+d} of the grid"
                yield f"{name}, {rule}, lr {lr:.2g}", arm.but(about, lr=lr, charted=k == 0)


def tuning(runs, expected=False):
    """Return what the tuning seeds choose and how the others fare, or theory's mean would."""
    parts = {}
    for arm, run in runs.items():
        name, rule, _ = arm.split(", ")
        # a blind guess among ten classes has the loss log(10)
        parts[name, rule, arm] = run, ss.expect(run).levels(PROBLEMS[name][2], np.log(10))
    return ss.tuning.Tuning.of(parts, BY, TUNING, expected)


def table(o, runs):
    theory = tuning(runs, True).rows.rename(columns={"time": "theory"})
    return tuning(runs).medians.merge(theory[[*BY, "lr", "target", "theory"]], "left")


def tuned(o, runs):
    return tuning(runs).best({"optimizer": "SGD"}).merge(table(o, runs), "left")


def claims(o, runs):
    below = {}  # of SGD and momentum, at every step, theory knows something
    for arm, run in runs.select("*", without=("*, Adam,*", "*, RMSprop,*", "digits*")).items():
        known, lr = ss.expect(run), run.config.lr
        # nearer to the limit the mean is carried by paths too rare to be met
        if known.has_mean and lr / (1 - known.momentum) < known.mean_square_lr_limit.value / 5:
            each = run.over_expected(run.config.epochs // 2)[np.array(run.config.seeds) < TUNING]
            seen = ss.Estimate.mean(each).beside(1)
            yield ss.Claim.estimated("mean_loss_over_theory", arm, *seen, MOMENTS)
        if lr > known.mean_square_lr_limit.value and known.log_growth() > GROWTH:
            ends = run.array("epochs", "full_loss")[-1:]
            fine = (ends < known.ls.loss(known.start)).sum() / len(run.w)
            below.setdefault(arm.split(", ")[0], []).append(fine)
    for name, fine in below.items():
        yield ss.Claim("seeds_that_end_below_their_start", name, np.mean(fine), 0, 0, PATHS, True)
    # of the winners theory has nothing: a seed may dip below its target where the mean never does
    for row in tuning(runs, True).chosen.merge(tuning(runs).chosen, on=BY).itertuples():
        arm = f"{row.problem}, {row.optimizer}"
        yield ss.Claim("chosen_lr", arm, row.lr_y)
        yield ss.Claim("lr_fastest_in_the_mean", arm, row.lr_x)
    for row in tuned(o, runs).itertuples():
        yield ss.Claim("epochs_to_hardest_target", f"{row.problem}, {row.optimizer}", row.median)


def answer(o, runs, value):
    rows, written = tuned(o, runs).sort_values("median", kind="stable"), ss.text.written
    each = "{0.optimizer} {1} ({0.reached}/{0.seeds} seeds)".format
    rows = rows.assign(said=[each(row, written(row.median)) for row in rows.itertuples()])
    groups = rows.groupby("problem", sort=False)
    said = [f"{name} to {g['target'].iloc[0]:g}: {', '.join(g['said'])}." for name, g in groups]
    edges = [f"{r.problem}, {r.optimizer} ({r.edge})" for r in rows.itertuples() if r.edge]
    edges, good = "; ".join(edges), rows.groupby("optimizer")["lrs_within_twice"].mean()
    wide = ", ".join(f"{name} {share:.1f}" for name, share in good.items())
    digits = rows[rows["problem"] == "digits"]
    scores = [f"{r.optimizer} {r.accuracy:.1%}, {r.test_accuracy:.1%}" for r in digits.itertuples()]
    scores = f"Accuracy on digits, trained on and held out: {'; '.join(scores)}." if scores else ""
    mean = value["lr_fastest_in_the_mean", "diabetes, SGD"]
    luck = rows[(rows["problem"] == "diabetes") & (rows["optimizer"] == "SGD")].iloc[0]
    return f"""Median epochs to the hardest target, at the lr that other seeds chose, and how many
    seeds got there. {" ".join(said)}

    Chosen at the edge of the grid, so that a better lr may lie beyond it: {edges or "none"}. Step
    sizes of the grid within twice the least time, mean over the problems: {wide}. {scores}

    With noisy data being below a target once is not staying there: of diabetes, SGD at its chosen
    lr, {luck["lr"]:.2g}, got below for {luck["reached"]} of {luck["seeds"]} seeds, and
    {luck["above_again"]} of these end above. The expected loss gets there first at {mean:.2g}: a
    first passage rewards steps that get there by luck."""


def picture(o, runs, value):
    hard, best = table(o, runs).query("hardest"), tuned(o, runs)
    best = best.loc[best.groupby("problem", sort=False)["median"].idxmin()]
    won = [f"{r.optimizer} on {r.problem} ({ss.text.written(r.median)})" for r in best.itertuples()]
    title = f"Fewest epochs to the hardest target: {', '.join(won)}"
    note = "A point is a step size; where there is none, most seeds miss the target."
    return ss.figures.Chart(title, ss.figures.tuning.over_lr(hard)[:3], note)


def figures(runs):
    rows = table(None, runs)
    yield "times.png", ss.figures.times_to_targets(rows[rows["chosen"]])
    yield "lr_sensitivity.png", ss.figures.lr_sensitivity(rows[rows["hardest"]])


tables = {"times.csv": table, "tuned.csv": tuned}  # every arm and target; the steps chosen
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
