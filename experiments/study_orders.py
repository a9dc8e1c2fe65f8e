"""How fast does the error fall with the number of epochs K, for each order of the samples?

Hypothesis: with a step size proportional to 1/K, the squared distance to the minimiser falls as
K^-1 where samples are drawn with replacement, as K^-2 where every epoch has the same order (the
one sorted by residual far above a random one), and as K^-3 where every epoch is shuffled anew, as
long as residuals do not go with the features: else a bias of K^-2 is left in the end. Running every
second epoch backwards (flip-flop) leaves little but that bias. GraB, which balances the gradients,
promises K^-2 with a small constant. Expected slopes are those of the expected error at the same K.

Source: the exponents of Mishchenko, Khaled, Richtarik (2020), Safran, Shamir (2020), Rajput, Lee,
Papailiopoulos (2022), Lu, Guo, De Sa (2022). Command: python experiments/study_orders.py
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

import sgdstudy as ss

TIME = 6  # lr d K: with Hessian 2 the start is forgotten to exp(-12)
FIRST = 8  # the least K
LINES = {  # line -> problem, order
    "with replacement": ("normal", "with_replacement"),
    "shuffle": ("normal", "shuffle"),
    "shuffle once": ("normal", "shuffle_once"),
    "incremental": ("sorted", "sequential"),
    "flip-flop": ("normal", "flip_flop"),
    "GraB": ("normal", "grab"),
    "shuffle, cubic": ("cubic", "shuffle"),
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
    """the largest K; four times as much where the target is cubic"""
    quick: bool = False
    """half of the work: K = 32 to 128"""


def epochs(o, target):
    """Return the numbers of epochs K."""
    if o.longest < 2 * FIRST:
        raise ss.InputError(f"longest must be at least {2 * FIRST}, got {o.longest}: two K a slope")
    first, last = (32, 128) if o.quick else (FIRST, o.longest)
    last *= 4 if target == "cubic" else 1
    return [first * 2**i for i in range((last // first).bit_length())]


def arms(o):
    normal, cubic = ss.problems.legendre("normal"), ss.problems.legendre("cubic")
    worst = np.argsort(normal.least_squares.residual)
    ordered = {"x": normal.x[worst], "y": normal.y[worst], "name": "legendre, sorted by residual"}
    problems = {"normal": normal, "cubic": cubic, "sorted": normal.replace(**ordered)}
    seeds, found = list(o.seed_range()), {}
    for line, (target, order) in LINES.items():
        ks = epochs(o, target)
        for k in ks:
            # the bias, the same for all seeds, is most of a long run's error: few will do
            few = target == "cubic" and k in ks[len(ks) // 2 :]
            chosen = seeds[: -(-len(seeds) // 4)] if few else seeds
            found[f"{line} K={k}"] = ss.Arm(
                problems[target],
                f"{line}, {k} epochs",
                charted=k == ks[-1],
                lr=TIME / (normal.d * k),
                batch_size=1,
                order=order,
                epochs=k,
                seeds=[0] if target == "sorted" else chosen,
                diagnostics="off",
                metrics=["full_loss"],
                record_rows=20_000,  # the end is what counts; epochs are all kept
            )
    return found


def of_line(runs, line):
    return [run for arm, run in runs.items() if arm.rpartition(" K=")[0] == line]


def errors(runs, line):
    """Return K `(k,)` and the squared distances at the end, one array of seeds each."""
    found = of_line(runs, line)
    return np.array([run.config.epochs for run in found]), [run.distance**2 for run in found]


def law(runs, line):
    """Return what theory expects of a line; None where it has nothing."""
    problem, (target, order) = of_line(runs, line)[0].problem, LINES[line]
    if target == "sorted":
        return ss.theory.fixed_order_law(problem.least_squares, np.arange(problem.d), TIME)
    return ss.theory.rate_laws(problem.least_squares, problem.d, TIME).get(order)


def table(o, runs):
    """Return mean, 95 % interval and theory of every line and K."""
    import pandas as pd  # --help must not wait for it

    found = []
    for line in LINES:
        known = law(runs, line)
        for k, error in zip(*errors(runs, line), strict=True):
            half = 1.96 * error.std() / len(error) ** 0.5
            theory = np.nan if known is None else float(ss.theory.law_at(known, k))
            found.append((line, k, error.mean(), error.mean() - half, error.mean() + half, theory))
    return pd.DataFrame(found, columns=["line", "x", "y", "low", "high", "theory"])


def moments_at(problem, k):
    """Return E|z|^2 after k epochs of independent draws; exact."""
    n, state = problem.d * k, np.eye(10)  # vec E[zz^T] and 1; z = 0 at first, and on average
    step = ss.theory.step_moments(problem.least_squares, problem.d, 1, TIME / n, True)
    state[:9, :9], state[:9, 9] = step.second, step.noise
    return np.trace(np.linalg.matrix_power(state, n)[:9, 9].reshape(3, 3))


def kept(problem, orders, k):
    """Return |z|^2 after k epochs that all have the same order, for orders `(N, d)`; exact."""
    ls, rate = problem.least_squares, 2 * TIME / (problem.d * k)
    matrix, offset = np.tile(np.eye(3), (len(orders), 1, 1)), np.zeros((len(orders), 3))
    for sample in orders.T:
        phi = ls.features[sample]
        matrix -= rate * phi[:, :, None] * np.einsum("np,npq->nq", phi, matrix)[:, None]
        offset -= rate * phi * ((phi * offset).sum(1) + ls.residual[sample])[:, None]
    z = np.zeros_like(offset)
    for _ in range(k):
        z = np.einsum("npq,nq->np", matrix, z) + offset
    return (z**2).sum(1)


def expected(runs, line, part):
    """Return E|z|^2 at some K, `(k,)` or of orders drawn `(k, N)`, and its source, if known."""
    k, _ = errors(runs, line)
    problem, order = of_line(runs, line)[0].problem, LINES[line][1]
    if order == "with_replacement":
        return np.array([moments_at(problem, at) for at in k[part]]), EXACT
    if order == "shuffle_once":
        rows = np.tile(np.arange(problem.d), (DRAWN, 1))
        drawn = np.random.default_rng(0).permuted(rows, axis=1)
        return np.array([kept(problem, drawn, at) for at in k[part]]), MAPS
    if order == "shuffle" and k[part].min() >= LEAST:
        return ss.theory.law_at(law(runs, line), k[part]), LAW
    return None, CITED.get(line, "")


def slope_claims(runs, line, part, name="slope"):
    """Return slope and height of the error over some K, and the 95 % interval of the slope."""
    k, found = errors(runs, line)
    seeds, (theory, source) = min(map(len, found[part])), expected(runs, line, part)
    k, samples = k[part], np.array([error[:seeds] for error in found[part]])
    slope = ss.theory.log_slope(k, samples.mean(1))
    if line == "incremental":  # it has no seeds
        return [ss.Claim(name, line, slope)]
    interval = ss.Claim(f"{name}_95", line, ss.theory.slope_interval(k, samples))
    if theory is None or seeds < ss.Claim.FEW:
        return [ss.Claim(name, line, slope, source=source), interval]
    both, true = [samples], theory
    if theory.ndim > 1:  # of orders that were drawn: their mean has an error too
        both, true = [samples, theory], theory.mean(1)
    slopes = [ss.theory.slope_samples(k, values) for values in both]
    heights = [(values / values.mean(1, keepdims=True)).mean(0) for values in both]
    far, wide = (np.hypot.reduce([ss.standard_error(v) for v in x]) for x in (slopes, heights))
    ratio = np.exp(np.mean(np.log(samples.mean(1) / true)))
    of_theory = ss.theory.log_slope(k, true)
    return [
        ss.Claim.estimated(name, line, slope, of_theory, far, seeds, source),
        interval,
        ss.Claim.estimated("error_over_theory", line, ratio, 1, wide * ratio, seeds, source),
    ]


def claims(o, runs):
    half, found = len(of_line(runs, "shuffle, cubic")) // 2, []
    for line in LINES:
        if line != "shuffle, cubic":
            found += slope_claims(runs, line, slice(-4, None))
    small = slope_claims(runs, "shuffle, cubic", slice(0, half), "slope_small_K")
    large = slope_claims(runs, "shuffle, cubic", slice(half, None), "slope_large_K")
    found += [claim.described() for claim in small if claim.name != "error_over_theory"] + large
    found += [bias_claim(of_line(runs, "shuffle, cubic")[-1]), kept_claim(runs)]
    for line in ("flip-flop", "GraB"):
        found.append(ss.Claim("error_over_shuffle", line, over_shuffle(runs, line)))
    return found


def bias_claim(run):
    """Compare the mean of z over the seeds with the bias -lr / (2 d) H^-1 sum H_i g_i."""
    ls, k = run.problem.least_squares, run.config.epochs
    pairs = 4 * ((ls.features**2).sum(1) * ls.residual) @ ls.features  # sum of H_i g_i
    bias = -run.config.lr / (2 * run.problem.d) * np.linalg.solve(ls.hessian, pairs)
    along = (run.w - ls.w_star) @ bias / (bias @ bias)
    known = (1, ss.standard_error(along), len(along), LAW)
    claim = ss.Claim.estimated("mean_over_bias", "shuffle, cubic", along.mean(), *known)
    return claim if k >= LEAST else claim.described()


def kept_claim(runs):
    """Compare every run of an order that is kept with the K-th power of its own map."""
    worst, rounding = [], []
    for run in of_line(runs, "shuffle once") + of_line(runs, "incremental"):
        d, c, ls = run.problem.d, run.config, run.problem.least_squares
        orders = ss.orders.Sampler(c.order, list(c.seeds), d, 1).take(d).numpy()
        square = kept(run.problem, orders, c.epochs)
        worst.append(np.abs(run.distance**2 / square - 1).max())
        # the d K / (2 TIME) last steps count, and each rounds w: |z|^2 moves by twice their sum
        steps, ulp = d * c.epochs / (2 * TIME), np.finfo(float).eps * np.linalg.norm(ls.w_star)
        rounding.append(2 * steps * ulp / np.sqrt(square.min()))
    name, arm = "error_over_own_order_less_1", "shuffle once, incremental"
    return ss.Claim(name, arm, max(worst), 0, max(rounding), OWN, identity=True)


def over_shuffle(runs, line):
    """Return the error over that of shuffling, at the largest K."""
    ends = [errors(runs, name)[1][-1].mean() for name in (line, "shuffle")]
    return ends[0] / ends[1]


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    slopes = ", ".join(f"{line} {value['slope', line]:.2f} ({n})" for line, n in POWERS.items())
    ends = {line: errors(runs, line)[1][-1].mean() for line in LINES}
    ks = {line: errors(runs, line)[0] for line in ("shuffle", "shuffle, cubic")}
    small, large = (f"slope_{part}_K" for part in ("small", "large"))
    cubic, mean = ks["shuffle, cubic"], value["mean_over_bias", "shuffle, cubic"]
    half, (low, high) = len(cubic) // 2, value[f"{large}_95", "shuffle, cubic"]
    far = "within" if low <= -3 <= high else "not within"
    known = law(runs, "shuffle, cubic")
    share = known[-2] * cubic[-1] ** -2.0 / ss.theory.law_at(known, cubic[-1])
    below = [value["error_over_shuffle", line] for line in ("flip-flop", "GraB")]
    return f"""Exponents of K measured at K = {ks["shuffle"][-4:][0]} to {ks["shuffle"][-1]}, with
    that of theory for large K: {slopes}. Sorted by residual, the same order in every epoch ends
    {ends["incremental"] / ends["shuffle once"]:.2g} times as far (squared) as random orders kept
    for ever do on average.

    Where the model misses the target systematically, shuffling has the exponent
    {value[small, "shuffle, cubic"]:.2f} up to K = {cubic[half - 1]}, and
    {value[large, "shuffle, cubic"]:.2f} (95 %: {low:.2f} to {high:.2f}; -3 is {far} it) from
    K = {cubic[half]}. What does not average out is a bias, by theory {share:.0%} of the squared
    error at K = {cubic[-1]}; the mean over the seeds lies {mean:.2f} times as far along it as
    theory says.

    Flip-flop falls with {value["slope", "flip-flop"]:.2f} (cited: K^-5, then K^-2) and ends with
    {below[0]:.2g} times the error of shuffling; GraB with {value["slope", "GraB"]:.2f} (cited: at
    most K^-2), and ends with {below[1]:.2g} times."""


def rates(runs):
    cubic = law(runs, "shuffle, cubic")
    parts = {"its noise, K^-3": {-3: cubic[-3]}, "its bias, K^-2": {-2: cubic[-2]}}
    panels = {
        "normal targets: residuals without structure": [
            line for line in LINES if line != "shuffle, cubic"
        ],
        "a cubic fitted by a parabola": ["shuffle, cubic", *parts],
    }
    known = {line: law(runs, line) for line in LINES} | parts
    laws = {line: partial(ss.theory.law_at, terms) for line, terms in known.items() if terms}
    xlabel, ylabel = f"epochs K, at step size {TIME} / (d K)", "mean of |w - w*|^2 at the end"
    return ss.figures.power_laws(table(None, runs), panels, laws, xlabel, ylabel)


STUDY = ss.Study(
    __file__,
    __doc__,
    Options,
    arms,
    claims,
    answer,
    figures={"rates.png": rates},
    tables={"rates.csv": table},
)

if __name__ == "__main__":
    STUDY.main()
