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

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

import sgdstudy as ss

BETA, HIDDEN, TUNING = 0.9, 32, 1_000_000  # TUNING: the first of the seeds that choose
PROBLEMS = {  # batch size, epochs, targets: shares of the loss there is to lose
    "curve": (50, 250, (0.1, 0.01, 0.001)),
    "ill-conditioned": (20, 50, (0.1, 0.01, 0.001)),
    "diabetes": (59, 350, (0.1, 0.03, 0.01)),
    "digits": (64, 10, (0.3, 0.1, 0.03)),
}
RULES = {"SGD": {}, "momentum": {"momentum": BETA}, "RMSprop": {}, "Adam": {}}
BY = ["problem", "optimizer"]
END = ("full_loss", "test_loss", "accuracy", "test_accuracy")
GROWTH = 100.0  # log of the error's growth in a run, by theory: no seed is so lucky as to end below
MOMENTS = "theory: second moments of independent batches; four standard errors"
PATHS = f"theory: by the Lyapunov exponent almost every path grows by exp({GROWTH:g}) or more"


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 32
    tuning: int = 4
    """seeds that choose the step sizes, others than those reported"""
    budget: float = 1.0
    """length of the runs, over the declared one"""
    quick: bool = False
    """curve and diabetes, without RMSprop, 3 step sizes a decade apart"""


def make(name):
    known = {"ill-conditioned": ss.problems.ill_conditioned, "diabetes": ss.problems.diabetes}
    known |= {"curve": ss.problems.curve, "digits": lambda: ss.problems.digits(HIDDEN)}
    return known[name]()


def centre(problem, rule, size):
    """Return the middle of the grid, without having run anything.

    SGD: a third of the step at which second moments diverge; of the network, of the limit
    4 / (HIDDEN + 1) of its last layer, whose Hessian is at most |units|^2 / 2. Momentum: halfway,
    in logarithms, between the same lr / (1 - BETA) and the same share of its own limit, 1 + BETA
    times as large. RMSprop and Adam: 0.01, default of the first and ten times the second's.
    """
    if rule in ("RMSprop", "Adam"):
        return 0.01
    ls = problem.least_squares
    limit = 4 / (HIDDEN + 1)
    if ls is not None:
        limit = ss.theory.mean_square_lr_limit(ls, problem.d, size, replacement=True)
    return 10**-0.5 * limit * ((1 - BETA**2) ** 0.5 if rule == "momentum" else 1)


def arms(o):
    first = TUNING + o.first_seed
    seeds, found = [*o.seed_range(), *range(first, first + o.tuning)], {}
    for name in ("curve", "diabetes") if o.quick else PROBLEMS:
        problem, (size, epochs, _) = make(name), PROBLEMS[name]
        for rule, options in RULES.items():
            if o.quick and rule == "RMSprop":
                continue
            for k in (-2, 0, 2) if o.quick else range(-3, 4):
                lr = centre(problem, rule, size) * 10 ** (k / 2)
                found[f"{name}, {rule}, lr {lr:.2g}"] = ss.Arm(
                    problem,
                    f"step size {k:+d} of the grid",
                    charted=k == 0,
                    optimizer="SGD" if rule == "momentum" else rule,
                    options=options,
                    lr=lr,
                    batch_size=size,
                    # theory is exact for independent draws; the network has none
                    order="shuffle" if problem.least_squares is None else "with_replacement",
                    epochs=max(1, round(o.budget * epochs)),
                    seeds=seeds,
                    diagnostics="off",
                    metrics=[],  # the charts have epochs
                    record_rows=2000,  # epochs are all kept
                )
    return found


def start(problem):
    return problem.initial([0])[0].double().numpy()


def levels(problem, name):
    """Return the least loss, and the targets by their shares, from easy to hard."""
    ls, least, gain = problem.least_squares, 0.0, np.log(10)  # of ten classes: a blind guess
    if ls is not None:
        least, gain = ls.least_loss, float(ls.loss(start(problem))) - ls.least_loss
    return least, {share: least + share * gain for share in PROBLEMS[name][2]}


@lru_cache(1024)  # claims, answer, tables and figures all ask
def expected(run):
    """Return the expected loss by epoch; None where theory has none."""
    c, ls = run.config, run.problem.least_squares
    if c.optimizer != "SGD" or ls is None or run.problem.p > ss.theory.MOST_PARAMETERS // 2:
        return None
    given = (start(run.problem), run.problem.d, c.batch_size, c.lr, c.epochs, True)
    return ss.theory.expected_losses(ls, *given, momentum=beta(run))[1]


def beta(run):
    return run.config.options.get("momentum", 0.0)


@lru_cache(1024)
def of_arm(arm, run, theory=False):
    """Return one row for each target and seed; of theory's expected loss, for each target."""
    import pandas as pd  # --help must not wait for it

    (name, rule, _), losses = arm.split(", "), expected(run)
    targets, found = levels(run.problem, name)[1], []
    if theory and losses is None:
        return pd.DataFrame()
    for share, target in targets.items():
        if theory:
            times = pd.Series(ss.theory.first_below(losses, target), [TUNING])
            ends = pd.Series(np.nan_to_num(losses[-1], nan=np.inf), [TUNING])
        else:
            times, ends = ss.time_to_target(run, target), last(run)["full_loss"]
        rows = pd.DataFrame({"time": times, "final": ends}).reset_index(names="seed")
        rows["target"], rows["hardest"] = share, share == min(targets)
        found.append(rows.assign(problem=name, optimizer=rule, lr=run.config.lr))
    return pd.concat(found)


def last(run):
    """Return the last epoch of each seed; a seed that diverged has an infinite loss."""
    rows = run.load("epochs").groupby("seed").last().reindex(run.config.seeds)
    gone = rows["full_loss"].isna() | (run.stop_reason == "diverged")
    return rows.assign(full_loss=rows["full_loss"].mask(gone, np.inf))


def every(runs, theory=False):
    import pandas as pd

    return pd.concat([of_arm(*item, theory) for item in runs.items()], ignore_index=True)


def choose(rows):
    """Return the step sizes that the tuning seeds choose, for the hardest target."""
    return ss.tuning.choose(rows[rows["hardest"] & (rows["seed"] >= TUNING)], BY)


def table(o, runs):
    """Return the median time of every arm to every target, over the seeds that are reported."""
    rows, theory = every(runs), every(runs, theory=True)
    shown = ss.tuning.sensitivity(rows[rows["seed"] < TUNING], [*BY, "target", "hardest"])
    theory = theory.rename(columns={"time": "theory"})[[*BY, "lr", "target", "theory"]]
    shown = shown.merge(theory, "left").merge(choose(rows), "left")
    return shown.assign(chosen=shown["edge"].notna())


def tuned(o, runs):
    """Return one row for each problem and optimiser, at the step size chosen."""
    import pandas as pd

    shown, found = table(o, runs), []
    rows = every(runs)
    rows = rows[rows["hardest"] & (rows["seed"] < TUNING)].merge(choose(rows))
    times = {key: group.set_index("seed")["time"] for key, group in rows.groupby(BY)}
    for row in shown[shown["chosen"] & shown["hardest"]].to_dict("records"):
        key = (row["problem"], row["optimizer"])
        (run,) = (
            r
            for arm, r in runs.items()
            if arm.startswith(", ".join(key)) and r.config.lr == row["lr"]
        )
        ends = last(run).loc[lambda v: v.index < TUNING, lambda v: v.columns.isin(END)]
        grid = shown[
            shown["hardest"] & (shown["problem"] == key[0]) & (shown["optimizer"] == key[1])
        ]["median"]
        row["level"] = min(levels(run.problem, key[0])[1].values())
        row["above_again"] = int(
            ((ends["full_loss"] >= row["level"]) & (times[key] < np.inf)).sum()
        )
        row["lrs_within_twice"] = int((grid <= 2 * grid.min()).sum()) if grid.min() < np.inf else 0
        if len(times[key]) > 1:
            pairs = ss.compare(times[key], times[key[0], "SGD"], "epochs")
            row["over_sgd"], row["over_sgd_95"] = pairs.ratio, pairs.ratio_interval
        found.append(row | ends.median().to_dict())
    return pd.DataFrame(found)


def loss_claim(arm, run):
    """Compare the mean loss with its expectation, over the second half of the epochs."""
    half, least = run.config.epochs // 2, run.problem.least_squares.least_loss
    reported = np.array(run.config.seeds) < TUNING
    excess = run.array("epochs", "full_loss")[half:, reported] - least
    each = (excess / (expected(run)[half:, None] - least)).mean(0)
    known = (1, ss.standard_error(each), len(each), MOMENTS)
    return ss.Claim.estimated("mean_loss_over_theory", arm, each.mean(), *known)


def cannot_work(run):
    """Return whether almost every path grows, and by so much that no seed ends below its start."""
    c, d = run.config, run.problem.d
    limit = ss.theory.mean_square_lr_limit(run.problem.least_squares, d, c.batch_size, True)
    if c.lr <= limit:
        return False
    draws = {"epochs": 3, "replicas": 8, "replacement": True, "momentum": beta(run)}
    steps = c.epochs * len(c.batch_sizes(d))
    return ss.theory.lyapunov(run.problem, c.batch_size, c.lr, **draws) * steps > GROWTH


def unstable_claims(runs):
    """Check, problem by problem, that no seed ends below its start with steps that cannot work."""
    below = {}
    for arm, run in runs.items():
        if cannot_work(run):
            at = run.problem.least_squares.loss(start(run.problem))
            below.setdefault(arm.split(", ")[0], []).append(last(run)["full_loss"] < at)
    name = "seeds_that_end_below_their_start"
    return [
        ss.Claim(name, problem, np.mean(found), 0, 0, PATHS, always=True)
        for problem, found in below.items()
    ]


def claims(o, runs):
    known = {
        arm: run
        for arm, run in runs.items()
        if run.config.optimizer == "SGD" and run.problem.least_squares is not None
    }
    found = unstable_claims(known)
    for arm, run in known.items():
        c, problem = run.config, run.problem
        limit = ss.theory.mean_square_lr_limit(problem.least_squares, problem.d, c.batch_size, True)
        # nearer to the limit the mean is carried by paths too rare to be met
        if expected(run) is not None and c.lr / (1 - beta(run)) < limit / 5:
            found.append(loss_claim(arm, run))
    # of the winners theory has nothing: a seed may dip below its target where the mean never does
    best = choose(every(runs, theory=True)).merge(choose(every(runs)), on=BY)
    for row in best.itertuples():
        arm = f"{row.problem}, {row.optimizer}"
        found.append(ss.Claim("chosen_lr", arm, row.lr_y))
        found.append(ss.Claim("lr_fastest_in_the_mean", arm, row.lr_x))
    for row in tuned(o, runs).itertuples():
        arm = f"{row.problem}, {row.optimizer}"
        found.append(ss.Claim("epochs_to_hardest_target", arm, row.median))
    return found


def answer(o, runs, claims):
    rows, said = tuned(o, runs).sort_values("median", kind="stable"), []
    for name, group in rows.groupby("problem", sort=False):
        times = ", ".join(
            f"{row.optimizer} {ss.text.show(row.median)} ({row.reached}/{row.seeds} seeds)"
            for row in group.itertuples()
        )
        said.append(f"{name} to {group['target'].iloc[0]:g}: {times}.")
    edges = [
        f"{row.problem}, {row.optimizer} ({row.edge})"
        for row in rows[rows["edge"] != ""].itertuples()
    ]
    good = rows.groupby("optimizer")["lrs_within_twice"].mean()
    wide = ", ".join(f"{name} {value:.1f}" for name, value in good.items())
    digits = rows[rows["problem"] == "digits"]
    scores = [f"{r.optimizer} {r.accuracy:.1%}, {r.test_accuracy:.1%}" for r in digits.itertuples()]
    scores = f"Accuracy on digits, trained on and held out: {'; '.join(scores)}." if scores else ""
    luck = rows[(rows["problem"] == "diabetes") & (rows["optimizer"] == "SGD")].iloc[0]
    mean = {c.arm: c.measured for c in claims if c.name == "lr_fastest_in_the_mean"}
    return f"""Median epochs to the hardest target, at the lr that other seeds chose, and how many
    seeds got there. {" ".join(said)}

    Chosen at the edge of the grid, so that a better lr may lie beyond it:
    {"; ".join(edges) or "none"}.
    Step sizes of the grid within twice the least time, mean over the problems: {wide}. {scores}

    With noisy data being below a target once is not staying there: of diabetes, SGD at its chosen
    lr, {luck["lr"]:.2g}, got below for {luck["reached"]} of {luck["seeds"]} seeds, and
    {luck["above_again"]} of these end above. The expected loss gets there first at
    {mean["diabetes, SGD"]:.2g}: a first passage rewards steps that get there by luck."""


def curves(runs):
    rows = table(None, runs)
    hard = rows[rows["hardest"]]
    titles = {
        name: f"{name}: to {t:g} of the loss"
        for name, t in zip(hard["problem"], hard["target"], strict=True)
    }
    return ss.figures.lr_sensitivity(hard, "epochs to the hardest target, median", titles)


def times(runs):
    rows = table(None, runs)
    titles = {
        name: f"{name}: {', '.join(f'{t:g}' for t in group['target'].unique())}"
        for name, group in rows.groupby("problem", sort=False)
    }
    return ss.figures.times_to_targets(rows[rows["chosen"]], "epochs, median", titles)


STUDY = ss.Study(
    __file__,
    __doc__,
    Options,
    arms,
    claims,
    answer,
    figures={"times.png": times, "lr_sensitivity.png": curves},
    tables={"times.csv": table, "tuned.csv": tuned},
)

if __name__ == "__main__":
    STUDY.main()
