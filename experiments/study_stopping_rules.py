"""When does each stopping rule stop: too early, too late, at what cost?

Hypothesis: the loss of all the data is the truth and costs a pass over the data an epoch; the
running loss costs nothing and lags behind by what an epoch gains; the gradient norm never stops
too early at √(2 λmin (epsilon - L*)), by the Polyak-Lojasiewicz inequality; the loss of
the last batch stops when that batch is lucky, as often as a random batch of that size would be.
Where batches are drawn independently of each other, exact moments say by how much.

Source: sections 4 and 5 of the notebook stop on the running loss and on the last batch; Polyak
(1963). Command: python experiments/study_stopping_rules.py
"""

import numpy as np

import sgdstudy as ss
from answers.study_stopping_rules import PASSES, RULES, answer, epsilon, outcomes, short

SHOWN = {"shuffle": ss.to_say("the notebook's run"), "noisy labels": ss.to_say("noisy labels")}
EXACT = "theory: second moments of independent batches; four standard errors"
BOUND = ss.Known(0, 1e-6, "|g|² >= 2 λmin (L - L*) (Polyak 1963); rounding")


class Options(ss.Options):
    seeds: int = 64
    epochs: int = 60
    """length of every run; no rule ends it"""
    quick: bool = False
    """half of the seeds"""


def arms(o):
    seeds = list(o.seed_range())[: -(-o.seeds // 2) if o.quick else None]
    settings = {"lr": 2e-4, "batch_size": 10, "epochs": o.epochs, "seeds": seeds}
    sgd = ss.Arm("curve", "the notebook's run", **settings)
    yield "shuffle", sgd
    yield "independent", sgd.but("draws with replacement", order="with_replacement")
    yield "sequential", sgd.but("along the curve", order="sequential", seeds=[0])
    yield "noisy labels", sgd.but("label noise 0.3", problem=ss.problems.curve(noise=0.3))
    yield "RMSprop", sgd.but("stops at 1e-7 in the notebook", optimizer="RMSprop", lr=0.01)


def table(o, runs):
    for (arm, rule), found in outcomes(runs).items():
        row = {"arm": arm, "rule": rule, "stops": found.stopped.mean()}
        row |= {"false_stops": found.false.mean(), "epochs_late": found.late}
        yield row | {"passes_per_epoch": PASSES[rule]}


def lucky_claim(arm, run):
    """Compare batches below epsilon before the truth with random ones at the same parameters."""
    going = run.array("steps", "full_loss") >= epsilon(run)
    share = (run.array("steps", "loss") < epsilon(run))[going].mean()
    known = ss.expect(run).lucky_batches(run.parameters(), epsilon(run), going)
    known = known if len(run.w) >= ss.Claim.FEW else None
    return ss.Claim("share_of_lucky_batches", arm, share, known)


def claims(o, runs):
    found, run = outcomes(runs), runs["independent"]
    for name, (seen, due) in run.late_ratios(run.config.epochs // 2).items():
        yield ss.Claim.estimated(name, "independent", *seen.beside(due), source=EXACT)
    yield lucky_claim("independent", run)
    # by how much |g|² is below its bound at worst, at the end of any epoch of any run
    under = max(0.0, *(1 - (run.gradient_over_bound() ** 2).min() for run in runs.values()))
    yield ss.Claim("square_of_gradient_below_bound", "all arms", under, BOUND, identity=True)
    for arm, run in runs.items():
        for rule in ("running", "last_batch"):
            yield ss.Claim(f"false_stops_{rule}", arm, found[arm, rule].false.mean())
        if arm != "sequential":  # its last batch is always the same
            yield ss.Claim("false_stops_random_batches", arm, run.lucky_stops(epsilon(run)).mean())
        stop, _, truth = (np.median(part) for part in found[arm, "running"])
        if np.isfinite(truth):
            yield ss.Claim("epochs_late_running", arm, stop - truth)


def picture(o, runs, value):
    found, panels = outcomes(runs), []
    colors = ss.figures.palette.named("black", "blue", "green", "red")  # the truth is black
    for arm in ("shuffle", "noisy labels", "RMSprop"):
        stops = {ss.say(name): found[arm, rule].epoch for rule, name in RULES.items()}
        title = ss.say(SHOWN[arm]) if arm in SHOWN else arm
        panels.append(ss.figures.lines.stopped(stops, o.epochs, colors, title=title))
    title = ss.say(
        """Too early, without and with noisy labels: the loss of the last batch stops {early:.0%}
        and {noisy:.0%} of the seeds, the running loss {running:.0%} and {both:.0%}""",
        early=value["false_stops_last_batch", "shuffle"],
        noisy=value["false_stops_last_batch", "noisy labels"],
        running=value["false_stops_running", "shuffle"],
        both=value["false_stops_running", "noisy labels"],
    )
    return ss.figures.Chart(title, panels, ss.say("The loss of all the data is the truth."))


def figures(runs):
    every = outcomes(runs).items()
    rows = [(*case, *seed) for case, found in every for seed in zip(*found[:2], strict=True)]
    words = ss.say("epoch at which the rule stops"), ss.say("too early")
    yield "stops.png", ss.figures.strips(rows, *words)


tables = {"rules.csv": table}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
