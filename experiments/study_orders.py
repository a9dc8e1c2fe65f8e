"""How fast does the error fall with the number of epochs K, for each order of the samples?

Hypothesis: with a step size proportional to 1/K, the squared distance to the minimiser falls as
K^-1 where samples are drawn with replacement, as K^-2 where every epoch has the same order (the
one sorted by residual far above a random one), and as K^-3 where every epoch is shuffled anew, as
long as residuals do not go with the features: else a bias of K^-2 is left in the end. Running every
second epoch backwards (flip-flop) leaves little but that bias. GraB, which balances the gradients,
promises K^-2 with a small constant.

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
EXPONENTS = {"with replacement": -1, "shuffle": -3, "shuffle once": -2, "incremental": -2}
RATES = "Mishchenko et al. 2020, Safran and Shamir 2020"
CITED = {
    "flip-flop": "cited, no claim: K^-5 and K^-2 (Rajput et al. 2022)",
    "GraB": "cited, no claim: at most K^-2, logarithms aside (Lu et al. 2022)",
}
LAW = "theory: noise and bias of the sum over pairs"


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 200
    longest: int = 256
    """the largest K; four times as much where the target is cubic"""
    quick: bool = False
    """a tenth of the work: 40 seeds at most, K = 16 to 64"""


def epochs(o, target):
    """Return the numbers of epochs K."""
    if o.longest < 2 * FIRST:
        raise ss.InputError(f"longest must be at least {2 * FIRST}, got {o.longest}: two K a slope")
    first, last = (16, 64) if o.quick else (FIRST, o.longest)
    last *= 4 if target == "cubic" else 1
    return [first * 2**i for i in range((last // first).bit_length())]


def arms(o):
    normal, cubic = ss.problems.legendre("normal"), ss.problems.legendre("cubic")
    worst = np.argsort(normal.least_squares.residual)
    ordered = {"x": normal.x[worst], "y": normal.y[worst], "name": "legendre, sorted by residual"}
    problems = {"normal": normal, "cubic": cubic, "sorted": normal.replace(**ordered)}
    seeds, found = list(o.seed_range())[: 40 if o.quick else None], {}
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


def read(runs, line, part):
    """Return slope, its 95 % interval, the law's slope, and measured over theory, of some K."""
    k, found = errors(runs, line)
    seeds, known = min(map(len, found[part])), law(runs, line)
    k, samples = k[part], np.array([error[:seeds] for error in found[part]])
    slope, interval = (f(k, samples) for f in (mean_slope, ss.theory.slope_interval))
    if known is None:
        return slope, interval, None, None
    expected = ss.theory.law_at(known, k)
    ratio = np.exp(np.mean(np.log(samples.mean(1) / expected)))
    return slope, interval, ss.theory.log_slope(k, expected), ratio


def mean_slope(k, samples):
    return ss.theory.log_slope(k, samples.mean(1))


def claims(o, runs):
    # 0.15 and 20 % are four standard errors of 200 seeds and four K
    seeds, n = len(of_line(runs, "shuffle")[0].w), min(4, len(of_line(runs, "shuffle")))
    fewer = (200 / seeds) ** 0.5
    wider = max(1.0, fewer * (4**3 - 4) ** 0.5 / max(n**3 - n, 6) ** 0.5)  # sum over K, squared
    half, found = len(of_line(runs, "shuffle, cubic")) // 2, []
    parts = [("slope", line, slice(-4, None)) for line in LINES if line != "shuffle, cubic"]
    parts.append(("slope_small_K", "shuffle, cubic", slice(0, half)))
    parts.append(("slope_large_K", "shuffle, cubic", slice(half, None)))
    for name, line, part in parts:
        slope, interval, of_law, ratio = read(runs, line, part)
        expected = None if line in CITED else EXPONENTS.get(line, of_law)
        source = CITED.get(line, RATES if line in EXPONENTS else LAW)
        tolerance = 0.15 if line == "incremental" else 0.15 * wider  # that one has no seeds
        found.append(ss.Claim(name, line, slope, expected, tolerance, source))
        if line != "incremental":  # it has no seeds
            found.append(ss.Claim(f"{name}_95", line, interval))
        if ratio is not None and name != "slope_small_K":
            found.append(
                ss.Claim("constant_over_theory", line, ratio, 1, 0.2 * max(1.0, fewer), LAW)
            )
    for line in ("flip-flop", "GraB"):
        found.append(ss.Claim("error_over_shuffle", line, over_shuffle(runs, line)))
    return found


def over_shuffle(runs, line):
    """Return the error over that of shuffling, at the largest K."""
    ends = [errors(runs, name)[1][-1].mean() for name in (line, "shuffle")]
    return ends[0] / ends[1]


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    slopes = ", ".join(f"{line} {value['slope', line]:.2f}" for line in EXPONENTS)
    worst = errors(runs, "incremental")[1][-1].mean() / errors(runs, "shuffle once")[1][-1].mean()
    small, large = (value[f"slope_{part}_K", "shuffle, cubic"] for part in ("small", "large"))
    below = [value["error_over_shuffle", line] for line in ("flip-flop", "GraB")]
    return f"""Exponents of K measured: {slopes}. Sorted by residual, the same order in every epoch
    ends {worst:.0f} times as far (squared) as a random order kept for ever. Where the model misses
    the target systematically, shuffling starts with {small:.2f} and ends with {large:.2f}: a bias
    of K^-2 that no shuffling averages out.

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
