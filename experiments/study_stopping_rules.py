"""When does each stopping rule stop: too early, too late, at what cost?

Hypothesis: the loss of all the data is the truth and costs a pass over the data an epoch; the
running loss costs nothing and lags behind by what an epoch gains; the gradient norm never stops
too early at sqrt(2 lambda_min (epsilon - L*)), by the Polyak-Lojasiewicz inequality; the loss of
the last batch stops when that batch is lucky, as often as a random batch of that size would be.
Where batches are drawn independently of each other, exact moments say by how much.

Source: sections 4 and 5 of the notebook stop on the running loss and on the last batch; Polyak
(1963). Command: python experiments/study_stopping_rules.py
"""

import numpy as np

import sgdstudy as ss

PASSES = {"running": 0, "full": 1, "grad_norm": 1, "last_batch": 0}  # over the data, each epoch
SHOWN = {"shuffle": "the notebook's run", "noisy labels": "noisy labels", "RMSprop": "RMSprop"}
RULES = {"full": "loss of all the data", "running": "running loss"}
RULES |= {"grad_norm": "gradient norm", "last_batch": "loss of the last batch"}
EXACT = "theory: second moments of independent batches; four standard errors"
BOUND = ss.Known(0, 1e-6, "|g|^2 >= 2 lambda_min (L - L*) (Polyak 1963); rounding")


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


def epsilon(run):
    """Return the loss that counts as done: the notebook's, above what noise leaves."""
    return 1e-7 if run.config.optimizer == "RMSprop" else 0.1 + ss.expect(run).ls.least_loss


def outcomes(runs):
    """Return, by arm and rule: where it stops, whether that is false, where the truth is."""
    return {(a, rule): run.stops(rule, epsilon(run)) for a, run in runs.items() for rule in PASSES}


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
    # by how much |g|^2 is below its bound at worst, at the end of any epoch of any run
    short = max(0.0, *(1 - (run.gradient_over_bound() ** 2).min() for run in runs.values()))
    yield ss.Claim("square_of_gradient_below_bound", "all arms", short, BOUND, identity=True)
    for arm, run in runs.items():
        for rule in ("running", "last_batch"):
            yield ss.Claim(f"false_stops_{rule}", arm, found[arm, rule].false.mean())
        if arm != "sequential":  # its last batch is always the same
            yield ss.Claim("false_stops_random_batches", arm, run.lucky_stops(epsilon(run)).mean())
        stop, _, truth = (np.median(part) for part in found[arm, "running"])
        if np.isfinite(truth):
            yield ss.Claim("epochs_late_running", arm, stop - truth)


def answer(o, runs, value):
    seeds, found = len(runs["shuffle"].w), outcomes(runs)
    written, first = ss.text.written, runs["sequential"].at("full_loss", 1)
    last = ", ".join(
        f"{arm} {value['false_stops_last_batch', arm]:.0%} (random batches "
        f"{value['false_stops_random_batches', arm]:.0%})"
        for arm in runs.select("*", without="sequential")
    )
    normed, noisy = (found[a, "grad_norm"].stopped.sum() for a in ("shuffle", "noisy labels"))
    early = max(found[arm, "running"].false.sum() for arm in runs)
    stop, _, truth = (np.median(part) for part in found["shuffle", "running"])
    ends = {rule: found["sequential", rule].epoch[0] for rule in PASSES}
    ends = ", ".join(f"{rule} at epoch {end:.0f}" for rule, end in ends.items() if end < np.inf)
    (lucky,) = (c for c in value if c.name == "share_of_lucky_batches")
    random = "" if lucky.expected is None else f", of random ones {lucky.expected:.2%}"
    return f"""The running loss is free: on the notebook's run it stops at epoch {written(stop)},
    the truth is at epoch {written(truth)} (medians of {seeds} seeds), and in no arm does it stop
    too early for more than {early} seeds. Along the curve these rules stop within {o.epochs}
    epochs: {ends or "none"}, where the loss of all the data is {first:.2g} after the first epoch.
    Its last batch is the end of the curve, which the epoch has just been fitted to.

    The gradient norm never stops too early, but may not stop at all: within {o.epochs} epochs it
    stops for {normed} of {seeds} seeds, with noisy labels for {noisy}. Of independent draws its
    square is {value["square_of_gradient_over_bound", "independent"]:.3g} times the bound that it
    rests on, a mean over the second half of the epochs.

    The last batch stops too early for these shares of the seeds: {last}. It is luck: of independent
    draws, {lucky.measured:.2%} of all the batches before the truth are below epsilon{random}."""


def picture(o, runs, value):
    found, panels = outcomes(runs), []
    colors = ss.figures.palette.named("black", "blue", "green", "red")  # the truth is black
    for arm, title in SHOWN.items():
        stops = {name: found[arm, rule].epoch for rule, name in RULES.items()}
        panels.append(ss.figures.lines.stopped(stops, o.epochs, colors, title=title))
    early = [value["false_stops_last_batch", arm] for arm in SHOWN]
    title = f"""The loss of the last batch stops {early[0]:.0%} of the seeds too early, with noisy
    labels {early[1]:.0%}, the running loss {value["false_stops_running", "shuffle"]:.0%}"""
    return ss.figures.Chart(title, panels, "The loss of all the data is the truth.")


def figures(runs):
    every = outcomes(runs).items()
    rows = [(*case, *seed) for case, found in every for seed in zip(*found[:2], strict=True)]
    yield "stops.png", ss.figures.strips(rows, "epoch at which the rule stops", "too early")


tables = {"rules.csv": table}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
