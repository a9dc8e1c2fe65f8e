"""How fast does the error fall with the number of epochs K, for each order of the samples?

Hypothesis: with a step size proportional to 1/K, the squared distance to the minimiser falls as
K^-1 where samples are drawn with replacement, as K^-2 where every epoch has the same order (the
one sorted by residual far above a random one), and as K^-3 where every epoch is shuffled anew, as
long as residuals do not go with the features (study_shuffling_bias). Running every second epoch
backwards (flip-flop) leaves little but a bias. GraB, which balances the gradients, promises K^-2
with a small constant. Expected slopes are those of the expected error at the same K.

Source: the exponents of Mishchenko, Khaled, Richtarik (2020), Safran, Shamir (2020), Rajput, Lee,
Papailiopoulos (2022), Lu, Guo, De Sa (2022). Command: python experiments/study_orders.py
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

import sgdstudy as ss

TIME = 6  # lr d K: with Hessian 2 the start is forgotten to exp(-12)
FIRST = 8  # the least K
LINES = {  # line -> order; "incremental" is sorted by residual
    "with replacement": "with_replacement",
    "shuffle": "shuffle",
    "shuffle once": "shuffle_once",
    "incremental": "sequential",
    "flip-flop": "flip_flop",
    "GraB": "grab",
}
POWERS = {"with replacement": -1, "shuffle": -3, "shuffle once": -2, "incremental": -2}
LEAST = 32  # the least K at which a law of large K is claimed: its next order is of 1 / K
DRAWN = 2000  # orders that tell what one that is kept for ever does
EXACT = "theory: second moments of independent draws; four standard errors"
MAPS = f"theory: epoch maps of {DRAWN} other orders; four standard errors, theirs included"
LAW = "theory: noise and bias of the sum over pairs, large K; four standard errors"
OWN = "theory: M^K of the seed's own order; rounding of the steps that are remembered"
CITED = {
    "flip-flop": "cited, no claim: K^-5 and K^-2 (Rajput et al. 2022)",
    "GraB": "cited, no claim: at most K^-2, logarithms aside (Lu et al. 2022)",
}


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 200
    longest: int = 256
    """the largest K"""
    quick: bool = False
    """half of the work: K = 32 to 128"""


def arms(o):
    if o.longest < 2 * FIRST:
        raise ss.InputError(f"longest must be at least {2 * FIRST}, got {o.longest}: two K a slope")
    first, last = (32, 128) if o.quick else (FIRST, o.longest)
    ks = [first * 2**i for i in range((last // first).bit_length())]
    normal = ss.problems.legendre("normal")
    worst = np.argsort(normal.least_squares.residual)
    ordered = {"x": normal.x[worst], "y": normal.y[worst], "name": "legendre, sorted by residual"}
    arm = ss.Arm(normal, batch_size=1, seeds=o.seed_range(), diagnostics="off")
    # the end is what counts; epochs are all kept
    arm = arm.but(metrics=["full_loss"], record_rows=20_000)
    for line, order in LINES.items():
        here = arm.but(order=order)
        if line == "incremental":
            here = arm.but(order=order, problem=normal.replace(**ordered), seeds=[0])
        for k in ks:
            given = {"lr": TIME / (normal.d * k), "epochs": k, "charted": k == ks[-1]}
            yield f"{line} K={k}", here.but(f"{line}, {k} epochs", **given)


def errors(runs, line, last=None):
    """Return K `(k,)` and the squared distances at the end `(k, R)`, of the last so many K."""
    found = list(runs.select(f"{line} K=*").values())[-(last or 0) :]
    return np.array([run.config.epochs for run in found]), np.array(
        [run.distance**2 for run in found]
    )


def law(runs, line):
    """Return what theory expects of a line for large K; None where it has nothing."""
    problem = next(iter(runs.select(f"{line} K=*").values())).problem
    if line == "incremental":
        return ss.theory.fixed_order_law(problem.least_squares, np.arange(problem.d), TIME)
    return ss.theory.rate_laws(problem.least_squares, problem.d, TIME).get(LINES[line])


def expected(runs, line, ks):
    """Return E|z|^2 at some K, `(k,)` or of orders drawn `(k, N)`, and its source, if known."""
    problem = runs[f"{line} K={ks[0]}"].problem
    ls, d = problem.least_squares, problem.d
    if line == "with replacement":
        return np.array(
            [ss.theory.independent_error(ls, d, TIME / (d * k), d * k) for k in ks]
        ), EXACT
    if line == "shuffle once":
        drawn = np.random.default_rng(0).permuted(np.tile(np.arange(d), (DRAWN, 1)), axis=1)
        each = [ss.theory.kept_order_error(ls, drawn, TIME / (d * k), k) for k in ks]
        return np.array(each), MAPS
    if line == "shuffle" and ks.min() >= LEAST:
        return ss.theory.law_at(law(runs, line), ks), LAW
    return None, CITED.get(line, "")


def claims(o, runs):
    for line in LINES:
        k, samples = errors(runs, line, last=4)
        slope, (known, source) = ss.Estimate.slope(k, samples), expected(runs, line, k)
        if known is None:
            yield ss.Claim("slope", line, slope.value, source=source)
        else:
            of_theory = ss.Estimate.slope if known.ndim > 1 else ss.theory.log_slope
            yield ss.Claim.estimated("slope", line, *slope.beside(of_theory(k, known)), source)
            height = ss.Estimate.height(samples, known)
            yield ss.Claim.estimated("error_over_theory", line, *height.beside(1), source)
        if line != "incremental":  # it has no seeds
            yield ss.Claim("slope_95", line, ss.theory.slope_interval(k, samples))
    ends = {line: errors(runs, line)[1][-1].mean() for line in LINES}
    for line in CITED:
        yield ss.Claim("error_over_shuffle", line, ends[line] / ends["shuffle"])
    yield kept_claim([*runs.select("shuffle once *", "incremental *").values()])


def kept_claim(runs):
    """Compare every run of an order that is kept with the K-th power of its own map."""
    worst, rounding = [], []
    for run in runs:
        d, c, ls = run.problem.d, run.config, run.problem.least_squares
        orders = ss.orders.Sampler(c.order, list(c.seeds), d, 1).take(d).numpy()
        square = ss.theory.kept_order_error(ls, orders, c.lr, c.epochs)
        worst.append(np.abs(run.distance**2 / square - 1).max())
        # the d K / (2 TIME) last steps count, and each rounds w: |z|^2 moves by twice their sum
        steps, ulp = d * c.epochs / (2 * TIME), np.finfo(float).eps * np.linalg.norm(ls.w_star)
        rounding.append(2 * steps * ulp / np.sqrt(square.min()))
    name, arm = "error_over_own_order_less_1", "shuffle once, incremental"
    return ss.Claim(name, arm, max(worst), 0, max(rounding), OWN, identity=True)


def answer(o, runs, value):
    slopes = ", ".join(f"{line} {value['slope', line]:.2f} ({n})" for line, n in POWERS.items())
    ends = {line: errors(runs, line)[1][-1].mean() for line in LINES}
    ks = errors(runs, "shuffle", last=4)[0]
    below = [value["error_over_shuffle", line] for line in CITED]
    return f"""Exponents of K measured at K = {ks[0]} to {ks[-1]}, with that of theory for large K:
    {slopes}. Sorted by residual, the same order in every epoch ends
    {ends["incremental"] / ends["shuffle once"]:.2g} times as far (squared) as random orders kept
    for ever do on average.

    Flip-flop falls with {value["slope", "flip-flop"]:.2f} (cited: K^-5, then K^-2) and ends with
    {below[0]:.2g} times the error of shuffling; GraB with {value["slope", "GraB"]:.2f} (cited: at
    most K^-2), and ends with {below[1]:.2g} times."""


def table(o, runs):
    """Return mean, 95 % interval and theory of every line and K."""
    found = []
    for line in LINES:
        for k, samples in zip(*errors(runs, line), strict=True):
            found.append((line, k, ss.Estimate.mean(samples)))
    known = [
        law(runs, line) and float(ss.theory.law_at(law(runs, line), k)) for line, k, _ in found
    ]
    return ss.figures.points(found).assign(theory=known)


def figures(runs):
    laws = {line: partial(ss.theory.law_at, law(runs, line)) for line in LINES if law(runs, line)}
    panels = {"normal targets: residuals without structure": [*LINES]}
    xlabel, ylabel = f"epochs K, at step size {TIME} / (d K)", "mean of |w - w*|^2 at the end"
    yield "rates.png", ss.figures.power_laws(table(None, runs), panels, laws, xlabel, ylabel)


tables = {"rates.csv": table}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
