"""Exercise 7a: how does the loss of all the data compare with the losses of its batches?

Hypothesis: at fixed parameters the size-weighted mean of the batch losses is the full loss, for
losses that add up (mse, abs); the sum is m times the plain mean. While the parameters move, they
are worse on the way (drift), and a batch is not the whole (sampling).

Source: Exercise 7, first part (its hint: study_norms). Command: python experiments/ex7a_loss.py
"""

from itertools import product

import numpy as np

import sgdstudy as ss
from answers.ex7a_loss import answer, headline, short

STEPS = {"mse": 2e-4, "abs": 1e-3}  # each descends
RULES = {"running_loss": "running", "full_loss": "full", "last_loss": "last_batch"}
SHOWN = {ss.to_say("running loss"): "running_loss", ss.to_say("full loss"): "full_loss"}
SHOWN |= {ss.to_say("sum of the batches"): "sum_loss"}
EPSILON = 0.1  # the notebook's


class Options(ss.Options):
    seeds: int = 64
    divides: int = 10
    """a batch size that divides the 2000 samples"""
    ragged: int = 300
    """a batch size that does not"""
    epochs: int = 50
    """epochs of the arms that move"""


def arms(o):
    moves = {"optimizer": "notebook", "epochs": o.epochs, "dtype": "float64"}
    still = {"optimizer": "none", "epochs": 1, "charted": False}
    for (loss, lr), size in product(STEPS.items(), sorted({o.divides, o.ragged})):
        seeds = o.seed_range()[: None if (loss, size) == ("mse", o.divides) else 4]
        arm = ss.Arm(ss.problems.curve(loss=loss), lr=lr, batch_size=size, seeds=seeds)
        yield f"{loss}, B={size}, fixed", arm.but("w = 0", **still)
        yield f"{loss}, B={size}, moving", arm.but("w moves", charted=size == o.divides, **moves)
    along = ss.Arm("curve", "along the curve", order="sequential")
    for size in (7, 64, 300, 1999):  # none divides the 2000 samples: the last batch is short
        yield f"mse, B={size}, sorted, fixed", along.but(batch_size=size, **still)
    yield "mse, sorted, moving", along.but(lr=2e-4, batch_size=o.divides, charted=False, **moves)


def claims(o, runs):
    arm = f"mse, B={o.divides}, moving"
    first = {loss: ss.time_to_target(runs[arm], EPSILON, loss) for loss in RULES}
    for loss, rule in RULES.items():
        due, seen = ss.expect(runs[arm]).stop_under(rule, EPSILON), ss.summary(first[loss]).median
        yield ss.Claim(f"first_{loss}_below_0.1", arm, seen, due)
    late = (first["running_loss"] - first["full_loss"]).fillna(np.inf)  # neither is ever below
    yield ss.Claim("running_epochs_late", arm, [late.min(), late.max()])
    yield ss.Claim("last_loss_early", arm, sum(first["last_loss"] < first["full_loss"]))
    for arm, run in runs.select("mse*moving").items():
        seen = run.gaps()
        for epoch, kind in product(sorted({1, len(seen)}), ("drift", "sampling")):
            due = ss.expect(run).gap(epoch)[kind]
            yield ss.Claim(f"{kind}_epoch_{epoch}", arm, getattr(seen[epoch - 1], kind), due)
    for arm, run in runs.select("*moving").items():
        yield ss.Claim("running_over_full", arm, run.over_full("running_loss")[[0, -1]])
    for arm, run in runs.select("*sorted, fixed").items():
        yield ss.Claim("unweighted_minus_full", arm, run.at("mean_loss") - run.at("full_loss"))
    yield ss.Claim.off("sum_is_m_times_mean", "all arms", runs.off("sum"))
    yield ss.Claim.off("weighted_mean_is_full", "mse and abs, fixed", runs.off("mean", "*fixed"))
    yield ss.Claim.off("unweighted_mean_off", "sorted", runs.off("weighting", "*sorted, fixed"))
    yield ss.Claim.off("drift_and_sampling", "mse, moving", runs.off("split", "mse*moving"))


def picture(o, runs, value):
    arms = {ss.say("shuffled"): f"mse, B={o.divides}, moving"}
    arms |= {ss.say("along the curve"): "mse, sorted, moving"}
    lines = {ss.say(name): column for name, column in SHOWN.items()}
    panels = ss.figures.lines.of_each(runs.named(arms), lines)
    run = runs["mse, sorted, moving"]
    m = len(run.config.batch_sizes(run.problem.d))
    note = ss.say("The sum is {m} times the running loss: another scale.", m=m) if m > 1 else ""
    return ss.figures.Chart(headline(o, runs, value), panels, note)


def figures(runs):
    yield "fixed.png", ss.figures.batch_losses(runs.select("*fixed"))
    yield "drift_and_sampling.png", ss.figures.drift_and_sampling(runs.select("mse*moving"))


charts = {t: f"epoch/{n}" for t, n in (SHOWN | {"loss of the last batch": "last_loss"}).items()}


def ask(o):
    two = ss.say("""At w = 0, along the curve, B = 1999: mean of the two batch losses, less the full
        loss?""")
    last = ss.say("When is the last batch's loss below 0.1?")
    return {
        ("unweighted_minus_full", "mse, B=1999, sorted, fixed"): two,
        ("first_last_loss_below_0.1", f"mse, B={o.divides}, moving"): last,
    }


STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
