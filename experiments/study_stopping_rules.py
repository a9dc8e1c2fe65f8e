"""When does each stopping rule stop: too early, too late, at what cost?

Hypothesis: the loss of all the data is the truth and costs a pass over the data an epoch; the
running loss costs nothing and lags behind by what an epoch gains; the gradient norm never stops
too early at sqrt(2 lambda_min (epsilon - L*)), by the Polyak-Lojasiewicz inequality; the loss of
the last batch stops when that batch is lucky, as often as a random batch of that size would be.

Source: sections 4 and 5 of the notebook stop on the running loss and on the last batch; Polyak
(1963). Command: python experiments/study_stopping_rules.py
"""

from dataclasses import dataclass

import numpy as np

import sgdstudy as ss

RULES = {  # rule -> column of the epochs, and passes over the data that it costs each epoch
    "running": ("running_loss", 0),
    "full": ("full_loss", 1),
    "grad_norm": ("full_grad_norm", 1),
    "last_batch": ("last_loss", 0),
}
DRAWS = 1000  # random batches that tell how lucky a last batch is
POLYAK = "theory: |g|^2 >= 2 lambda_min (L - L*)"
LUCK = "theory: random batches at the same parameters; four standard errors"
LAG = "theory: expected loss of independent batches, epochs apart"


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 64
    epochs: int = 60
    """length of every run; no rule ends it"""
    quick: bool = False
    """8 seeds"""


def arms(o):
    seeds = list(o.seed_range())[: 8 if o.quick else None]
    clean, noisy = ss.problems.curve(), ss.problems.curve(noise=0.3)
    same = {"batch_size": 10, "epochs": o.epochs, "seeds": seeds, "lr": 2e-4}
    replaced = {"order": "with_replacement", **same}
    rms = {"optimizer": "RMSprop", **same, "lr": 0.01}
    return {
        "shuffle": ss.Arm(clean, "the notebook's run", **same),
        "independent": ss.Arm(clean, "draws with replacement", **replaced),
        "sequential": ss.Arm(clean, "along the curve", order="sequential", **same | {"seeds": [0]}),
        "noisy labels": ss.Arm(noisy, "label noise 0.3", **same),
        "RMSprop": ss.Arm(clean, "stops at 1e-7 in the notebook", **rms),
    }


def epsilon(arm, run):
    """Return the loss that counts as done: the notebook's, above what noise leaves."""
    return 1e-7 if arm == "RMSprop" else 0.1 + run.problem.least_squares.least_loss


def threshold(rule, arm, run):
    """Return what the rule's quantity is compared with."""
    if rule != "grad_norm":
        return epsilon(arm, run)
    ls = run.problem.least_squares
    return np.sqrt(2 * np.linalg.eigvalsh(ls.hessian)[0] * (epsilon(arm, run) - ls.least_loss))


def first(below):
    """Return, per seed, the first epoch (from 1) that is marked; infinite where none is."""
    return np.where(below.any(0), below.argmax(0) + 1.0, np.inf)


def outcome(arm, run, rule):
    """Return, per seed: where the rule stops, whether that is false, where the truth is."""
    done = run.array("epochs", "full_loss") < epsilon(arm, run)
    stop = first(run.array("epochs", RULES[rule][0]) < threshold(rule, arm, run))
    place = np.where(np.isfinite(stop), stop, 1).astype(int) - 1
    false = np.isfinite(stop) & ~done[place, np.arange(len(stop))]
    return stop, false, first(done)


def table(o, runs):
    """Return one row per arm and rule."""
    import pandas as pd  # --help must not wait for it

    rows = []
    for arm, run in runs.items():
        for rule, (_, passes) in RULES.items():
            stop, false, truth = outcome(arm, run, rule)
            both = np.isfinite(stop) & np.isfinite(truth) & ~false
            late = stop[both] - truth[both]
            rows.append(
                {
                    "arm": arm,
                    "rule": rule,
                    "stops": float(np.isfinite(stop).mean()),
                    "false_stops": float(false.mean()),
                    "epochs_late": float(np.median(late)) if len(late) else np.nan,
                    "passes_per_epoch": passes,
                }
            )
    return pd.DataFrame(rows)


def luck(arm, run):
    """Return the false stops by last batch that random batches would make: mean, its error.

    At the parameters before each epoch's last step, how many of random batches are below epsilon?
    """
    problem, config = run.problem, run.config
    last = len(config.batch_sizes(problem.d)) - 1
    names = [f"w{i}" for i in range(problem.p)]
    rows = run.load("steps", columns=["seed", "epoch", "batch", *names])
    rows = rows[rows["batch"] == last].sort_values(["epoch", "seed"])
    w = rows[names].to_numpy(float).reshape(config.epochs, len(config.seeds), problem.p)
    ls, generator = problem.least_squares, np.random.default_rng(0)
    error = (w - ls.w_star) @ ls.features.T + ls.residual  # (epochs, R, d)
    chance = np.empty(w.shape[:2])
    for place in np.ndindex(*chance.shape):
        batch = generator.integers(problem.d, size=(DRAWS, config.batch_size))
        chance[place] = ((error[place][batch] ** 2).mean(1) < epsilon(arm, run)).mean()
    going = np.vstack([np.ones(chance.shape[1]), np.cumprod(1 - chance, 0)[:-1]])
    false = run.array("epochs", "full_loss") >= epsilon(arm, run)
    share = (going * chance * false).sum(0)  # per seed: the chance of a false stop
    return share.mean(), np.sqrt((share * (1 - share)).sum()) / len(share)


def claims(o, runs):
    found = []
    for arm, run in runs.items():
        share = {rule: outcome(arm, run, rule)[1].mean() for rule in RULES}
        found.append(ss.Claim("false_stops_grad_norm", arm, share["grad_norm"], 0, 0, POLYAK))
        known = ()
        if arm != "sequential":  # its last batch is always the same
            mean, error = luck(arm, run)
            known = (mean, 4 * error + 1 / len(run.w), LUCK)
        found.append(ss.Claim("false_stops_last_batch", arm, share["last_batch"], *known))
        found.append(ss.Claim("false_stops_running", arm, share["running"]))
        stop, _, truth = outcome(arm, run, "running")
        if np.isfinite(np.median(truth)):
            known = (expected_lag(arm, run), 1, LAG) if arm in ("shuffle", "independent") else ()
            lag = np.median(stop) - np.median(truth)
            found.append(ss.Claim("epochs_late_running", arm, lag, *known))
    return found


def expected_lag(arm, run):
    c, ls = run.config, run.problem.least_squares
    start = run.problem.initial([0])[0].double().numpy()
    twice = c.order == "with_replacement"
    d = run.problem.d
    both = ss.theory.expected_losses(ls, start, d, c.batch_size, c.lr, c.epochs, twice)
    running, full = (ss.theory.first_below(losses, epsilon(arm, run)) for losses in both)
    return running - full


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    last = ", ".join(f"{arm} {value['false_stops_last_batch', arm]:.0%}" for arm in runs)
    share = {
        arm: np.isfinite(outcome(arm, run, "grad_norm")[0]).mean() for arm, run in runs.items()
    }
    early = max(value["false_stops_running", arm] for arm in runs)
    late = value.get(("epochs_late_running", "shuffle"), np.nan)  # a run that is cut short
    return f"""The running loss is free; on the notebook's run it stops {late:.0f} epoch after the
    truth, and too early for at most {early:.0%} of the seeds of any arm. Along the curve nothing
    falls below epsilon but the last batch, at once: it is the end of the curve that the epoch has
    just been fitted to.

    The gradient norm never stops too early, but may not stop at all: within {o.epochs} epochs it
    does so for {share["shuffle"]:.0%} of the seeds, with noisy labels for
    {share["noisy labels"]:.0%}.

    The last batch stops too early for these shares of the seeds: {last}. Random batches at the same
    parameters say as much: it is luck."""


def strips(runs):
    rows = []
    for arm, run in runs.items():
        for rule in RULES:
            stop, false, _ = outcome(arm, run, rule)
            rows += [(arm, rule, x, flag) for x, flag in zip(stop, false, strict=True)]
    return ss.figures.strips(rows, "epoch at which the rule stops", "too early")


STUDY = ss.Study(
    __file__,
    __doc__,
    Options,
    arms,
    claims,
    answer,
    figures={"stops.png": strips},
    tables={"rules.csv": table},
)

if __name__ == "__main__":
    STUDY.main()
