"""When does each stopping rule stop: too early, too late, at what cost?

Hypothesis: the loss of all the data is the truth and costs a pass over the data an epoch; the
running loss costs nothing and lags behind by what an epoch gains; the gradient norm never stops
too early at sqrt(2 lambda_min (epsilon - L*)), by the Polyak-Lojasiewicz inequality; the loss of
the last batch stops when that batch is lucky, as often as a random batch of that size would be.
Where batches are drawn independently of each other, exact moments say by how much.

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
DRAWS = 200  # random batches that tell how lucky a last batch is
MORE = 4  # random batches for every batch
EXACT = "theory: second moments of independent batches; four standard errors"
BOUND = "|g|^2 >= 2 lambda_min (L - L*) (Polyak 1963); rounding"
LUCK = "random batches at the same parameters; four standard errors of both counts"


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 64
    epochs: int = 60
    """length of every run; no rule ends it"""
    quick: bool = False
    """half of the seeds"""


def arms(o):
    seeds = list(o.seed_range())[: -(-o.seeds // 2) if o.quick else None]
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


def below(run, z, size, draws, level):
    """Return how many of some random batches have a loss below level, for z `(..., p)`."""
    ls, generator, chance = run.problem.least_squares, np.random.default_rng(0), []
    for row in z:
        batch = generator.integers(run.problem.d, size=(*row.shape[:-1], draws, size))
        error = (ls.features[batch] @ row[..., None, :, None])[..., 0] + ls.residual[batch]
        chance.append(((error**2).mean(-1) < level).mean(-1))
    return np.array(chance)


def steps(run, last):
    """Return z before the steps `(E, steps, R, p)`, their losses and the full ones; or the last."""
    m, names = len(run.config.batch_sizes(run.problem.d)), [f"w{i}" for i in range(run.problem.p)]
    rows = run.load("steps", columns=["seed", "step", "batch", "loss", "full_loss", *names])
    rows = rows[rows["batch"] == m - 1] if last else rows
    rows = rows.sort_values(["step", "seed"])
    shape = (run.config.epochs, -1, len(run.config.seeds))
    z = (
        rows[names].to_numpy(float).reshape(*shape, run.problem.p)
        - run.problem.least_squares.w_star
    )
    return z, *(rows[name].to_numpy(float).reshape(shape) for name in ("loss", "full_loss"))


def luck(arm, run):
    """Return the share of the seeds that random batches would stop too early in the last's place.

    At the parameters before each epoch's last step, how many of random batches are below epsilon?
    """
    chance = below(run, steps(run, True)[0], run.config.batch_size, DRAWS, epsilon(arm, run))[:, 0]
    going = np.vstack([np.ones(chance.shape[1]), np.cumprod(1 - chance, 0)[:-1]])
    false = run.array("epochs", "full_loss") >= epsilon(arm, run)
    return (going * chance * false).sum(0).mean()


def late_claims(arm, run):
    """Return the claims on the second half of the epochs, by exact moments."""
    c, ls, half = run.config, run.problem.least_squares, run.config.epochs // 2
    start, d = run.problem.initial([0])[0].double().numpy(), run.problem.d
    given = (ls, start, d, c.batch_size, c.lr)
    true = [x[half:] for x in ss.theory.expected_losses(*given, c.epochs, True)]
    m = len(c.batch_sizes(d))
    path = ss.theory.expected_path(*given, c.epochs * m, replacement=True)
    true.append(path.terms[1][m::m][half:])  # E|g|^2 at the ends of epochs
    columns = ("running_loss", "full_loss", "full_grad_norm")
    running, full, slope = (run.array("epochs", name)[half:] for name in columns)
    bound = 2 * np.linalg.eigvalsh(ls.hessian)[0]

    def ratio(name, a, b, true_a, true_b):
        """Compare the ratio of two means, itself a mean over the epochs."""
        true = (true_a / true_b)[:, None]
        errors = ((a - true * b) / b.mean(1, keepdims=True)).mean(0)
        measured = (a.mean(1) / b.mean(1)).mean()
        known = (true.mean(), ss.standard_error(errors), len(errors), EXACT)
        return ss.Claim.estimated(name, arm, measured, *known)

    of_theory = (full / true[1][:, None]).mean(0)
    known = (1, ss.standard_error(of_theory), len(of_theory), EXACT)
    return [
        ss.Claim.estimated("full_loss_over_theory", arm, of_theory.mean(), *known),
        ratio("running_over_full_loss", running, full, *true[:2]),
        ratio("square_of_gradient_over_bound", slope**2, bound * full, true[2], bound * true[1]),
    ]


def lucky_claim(arm, run):
    """Compare batches below epsilon before the truth with random ones at the same parameters."""
    z, loss, full = steps(run, False)
    level = epsilon(arm, run)
    going = full >= level
    chance = below(run, z, run.config.batch_size, MORE, level)[going]
    mean, n = (loss[going] < level).mean(), going.sum()
    # given the parameters a batch is lucky with probability p: variances p (1 - p) add up
    variance = (chance * (1 - chance)).mean() * MORE / (MORE - 1) * (1 + 1 / MORE)
    name, error = "share_of_lucky_batches", 4 * np.sqrt(variance / n)
    known = (chance.mean(), error, LUCK) if len(run.w) >= ss.Claim.FEW else ()
    return ss.Claim(name, arm, mean, *known, always=True)


def claims(o, runs):
    found = late_claims("independent", runs["independent"])
    found.append(lucky_claim("independent", runs["independent"]))
    found.append(bound_claim(runs))
    for arm, run in runs.items():
        for rule in ("running", "last_batch"):
            share = outcome(arm, run, rule)[1].mean()
            found.append(ss.Claim(f"false_stops_{rule}", arm, share))
        if arm != "sequential":  # its last batch is always the same
            found.append(ss.Claim("false_stops_random_batches", arm, luck(arm, run)))
        stop, _, truth = outcome(arm, run, "running")
        if np.isfinite(np.median(truth)):
            late = np.median(stop) - np.median(truth)
            found.append(ss.Claim("epochs_late_running", arm, late))
    return found


def bound_claim(runs):
    """Return by how much |g|^2 is below its bound at worst, at the end of any epoch of any run."""
    short = []
    for run in runs.values():
        ls = run.problem.least_squares
        names = [f"w{i}" for i in range(run.problem.p)]
        z = run.load("epochs", columns=names)[names].to_numpy(float) - ls.w_star
        # L - L* from z: as a difference of losses it is rounding where it is small
        bound = np.linalg.eigvalsh(ls.hessian)[0] * ((z @ ls.hessian) * z).sum(1)
        square = run.load("epochs", columns=["full_grad_norm"])["full_grad_norm"] ** 2
        short.append((1 - square / bound).max())
    name = "square_of_gradient_below_bound"
    return ss.Claim(name, "all arms", max(0.0, *short), 0, 1e-6, BOUND, identity=True)


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    by_name, seeds = {c.name: c for c in claims}, len(runs["shuffle"].w)
    last = ", ".join(
        f"{arm} {value['false_stops_last_batch', arm]:.0%} (random batches "
        f"{value['false_stops_random_batches', arm]:.0%})"
        for arm in runs
        if arm != "sequential"
    )
    stops = {
        arm: int(np.isfinite(outcome(arm, run, "grad_norm")[0]).sum()) for arm, run in runs.items()
    }
    early = max(outcome(arm, run, "running")[1].sum() for arm, run in runs.items())
    stop, _, truth = (np.median(x) for x in outcome("shuffle", runs["shuffle"], "running"))
    along = runs["sequential"]
    ends = {rule: outcome("sequential", along, rule)[0][0] for rule in RULES}
    ends = ", ".join(f"{rule} at epoch {end:.0f}" for rule, end in ends.items() if end < np.inf)
    bound = value["square_of_gradient_over_bound", "independent"]
    show, lucky = ss.text.show, by_name["share_of_lucky_batches"]
    random = "" if lucky.expected is None else f", of random ones {lucky.expected:.2%}"
    return f"""The running loss is free: on the notebook's run it stops at epoch {show(stop)}, the
    truth is at epoch {show(truth)} (medians of {seeds} seeds), and in no arm does it stop too early
    for more than {early} seeds. Along the curve these rules stop within {o.epochs} epochs:
    {ends or "none"}, where the loss of all the data is
    {along.array("epochs", "full_loss")[0, 0]:.2g} after the first epoch. Its last batch is the end
    of the curve, which the epoch has just been fitted to.

    The gradient norm never stops too early, but may not stop at all: within {o.epochs} epochs it
    stops for {stops["shuffle"]} of {seeds} seeds, with noisy labels for {stops["noisy labels"]}.
    Of independent draws its square is {bound:.3g} times the bound that it rests on, a mean over the
    second half of the epochs.

    The last batch stops too early for these shares of the seeds: {last}. It is luck: of independent
    draws, {lucky.measured:.2%} of all the batches before the truth are below epsilon{random}."""


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
