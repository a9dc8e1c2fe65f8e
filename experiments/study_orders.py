"""How fast does the error fall with the number of epochs K, for each order of the samples?

Hypothesis: with a step size proportional to 1/K, the squared distance to the minimiser falls as
K⁻¹ where samples are drawn with replacement, as K⁻² where every epoch has the same order (the
one sorted by residual far above a random one), and as K⁻³ where every epoch is shuffled anew, as
long as residuals do not go with the features (study_shuffling_bias). Running every second epoch
backwards (flip-flop) leaves little but a bias. GraB, which balances the gradients, promises K⁻²
with a small constant. Expected slopes are those of the expected error at the same K.

Source: the exponents of Mishchenko, Khaled, Richtarik (2020), Safran, Shamir (2020), Rajput, Lee,
Papailiopoulos (2022), Lu, Guo, De Sa (2022). Command: python experiments/study_orders.py
"""

from functools import partial

import numpy as np

import sgdstudy as ss
from answers import epochs
from answers.study_orders import answer, errors, short

TIME = 6  # lr d K: with Hessian 2 the start is forgotten to exp(-12)
LEAST = 32  # the least K at which a law of large K is claimed: its next order is of 1 / K
EXACT = ss.to_say("theory: second moments of independent draws; four standard errors")
MAPS = ss.to_say("theory: epoch maps of 2000 other orders; four standard errors, theirs included")
LAW = ss.to_say("theory: noise and bias of the sum over pairs, large K; four standard errors")
LINES = {  # line -> order, source
    "with replacement": ("with_replacement", EXACT),
    "shuffle": ("shuffle", LAW),
    "shuffle once": ("shuffle_once", MAPS),
    "incremental": ("sequential", ""),  # sorted by residual
    "flip-flop": ("flip_flop", ss.to_say("cited, no claim: K⁻⁵ and K⁻² (Rajput et al. 2022)")),
    "GraB": ("grab", ss.to_say("cited, no claim: at most K⁻², logarithms aside (Lu et al. 2022)")),
}


class Options(ss.Options):
    seeds: int = 200
    longest: int = 256
    """the largest K"""
    quick: bool = False
    """half of the work: K = 32 to 128, or to longest if that is less"""


def arms(o):
    first, longest = (32, min(o.longest, 128)) if o.quick else (8, o.longest)
    if longest < 2 * first:
        raise ss.InputError(f"longest must be at least {2 * first}, got {o.longest}: two K a slope")
    ks = [first * 2**i for i in range((longest // first).bit_length())]
    normal = ss.problems.legendre("normal")
    worst = np.argsort(normal.least_squares.residual)
    ordered = {"x": normal.x[worst], "y": normal.y[worst], "name": "legendre, sorted by residual"}
    same = {"batch_size": 1, "diagnostics": "off", "metrics": ["full_loss"], "record_rows": 20_000}
    arm = ss.Arm(normal, seeds=o.seed_range(), **same)
    for line, (order, *_) in LINES.items():
        same = {"problem": normal.replace(**ordered), "seeds": [0]} if line == "incremental" else {}
        for k in ks:
            same |= {"lr": TIME / (normal.d * k), "epochs": k, "charted": k == ks[-1]}
            yield f"{line} K={k}", arm.but(epochs(k), order=order, **same)


def law(runs, line):
    return ss.expect(next(iter(runs.select(f"{line} K=*").values()))).rate_law


def expected(runs, line, ks):
    """Return E|z|² at some K, `(k,)` or of orders drawn `(k, N)`; None: not known there."""
    if line in ("with replacement", "shuffle once"):
        return np.squeeze([ss.expect(runs[f"{line} K={k}"]).error_at_end() for k in ks])
    known = line == "shuffle" and ks.min() >= LEAST
    return ss.theory.law_at(law(runs, line), ks) if known else None


def claims(o, runs):
    for line, (*_, source) in LINES.items():
        k, samples = errors(runs, line, last=4)
        slope, known = ss.Estimate.slope(k, samples), expected(runs, line, k)
        if known is None:
            yield ss.Claim("slope", line, slope.value, source=source)
        else:
            fit = ss.Estimate.slope if known.ndim > 1 else ss.theory.log_slope
            yield ss.Claim.estimated("slope", line, *slope.beside(fit(k, known)), source)
            height = ss.Estimate.height(samples, known).beside(1)
            yield ss.Claim.estimated("error_over_theory", line, *height, source)
        if line != "incremental":  # it has no seeds
            yield ss.Claim("slope_95", line, ss.theory.slope_interval(k, samples))
    ends = {line: errors(runs, line)[1][-1].mean() for line in LINES}
    for line in ("flip-flop", "GraB"):
        yield ss.Claim("error_over_shuffle", line, ends[line] / ends["shuffle"])
    kept = runs.select("shuffle once *", "incremental *").values()
    most = max((run.off("own_error") for run in kept), key=float)
    yield ss.Claim.off("error_over_own_order_less_1", "shuffle once, incremental", most)


def table(o, runs):
    """Return mean, 95 % interval and theory of every line and K."""
    every = [(line, *point) for line in LINES for point in zip(*errors(runs, line), strict=True)]
    rows = ss.figures.points([(line, k, ss.Estimate.mean(each)) for line, k, each in every])
    known = [
        law(runs, line) and float(ss.theory.law_at(law(runs, line), k)) for line, k, _ in every
    ]
    return rows.assign(theory=known)


def picture(o, runs, value):
    laws = {line: partial(ss.theory.law_at, law(runs, line)) for line in LINES if law(runs, line)}
    colors = [ss.figures.palette.ORDERS[order] for order, *_ in LINES.values()]
    x = ss.say("epochs K, with a step size of {time} / (d K)", time=TIME)
    axes = {"x": x, "y": ss.say("mean of |w - w*|²")}
    panel = ss.figures.lines.with_laws(table(o, runs), laws, [*LINES], colors=colors, **axes)
    title = ss.say(
        """The error falls with the power {fresh:.2f} of the epochs K, shuffled anew in each;
        {once:.2f} shuffled once, {drawn:.2f} drawn with replacement""",
        fresh=value["slope", "shuffle"],
        once=value["slope", "shuffle once"],
        drawn=value["slope", "with replacement"],
    )
    note = ss.say("At the end of K epochs; bars: 95 % of the mean.")
    return ss.figures.Chart(title, [panel], note)


tables = {"rates.csv": table}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
