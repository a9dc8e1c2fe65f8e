"""Does the sharpness settle at 2 / lr, whatever lr, and at another value for another rule?

Hypothesis: full-batch descent on a network sharpens (the top eigenvalue of the Hessian grows) until
it reaches 2 / lr, the limit beyond which a quadratic would diverge. The network does not: it stays
at that edge, its loss now rising, now falling, and falling in the long run. The edge is that of the
rule: (2 + 2 beta) / lr with heavy-ball momentum, (2 + 2 beta) / ((1 + 2 beta) lr) with Nesterov's.
With small batches it is where second moments start to grow, below 2 / lr. A quadratic has one
Hessian: it cannot move.

Source: Cohen, Kaur, Li, Kolter, Talwalkar (2021), networks fitted to Chebyshev polynomials; Wu, Ma,
E (2018) and Ma, Ying (2021) for batches. Command: python experiments/study_edge_of_stability.py
"""

from dataclasses import dataclass

import numpy as np

import sgdstudy as ss

D = 20  # samples; two hidden layers of 32, 1153 parameters
TINY, RATE, BETA, BATCH = 0.015, 0.1, 0.5, 4
GAP = 4  # time between two eigenvalues
SHARPNESS = "full_hess_max_eig"
RULES = {  # arm -> lr, options of SGD
    "lr 0.05": (0.05, {}),
    "lr 0.1": (RATE, {}),
    "lr 0.2": (0.2, {}),
    "heavy ball": (RATE, {"momentum": BETA}),
    "Nesterov": (RATE, {"momentum": BETA, "nesterov": True}),
}
FLOW, SMALL = f"lr {TINY}", f"batches of {BATCH}"
STABLE, BEYOND = "quadratic, 0.9 of the limit", "quadratic, 1.05 of the limit"
LIMIT = "theory: roots of the step on a quadratic; 10 %: Cohen et al. 2021 see hovering"
DESCENT = "theory: the loss falls where lr times the sharpness is below 2"
COHEN = "Cohen et al. 2021"
BATCHES = "theory: no stay where second moments grow (Ma, Ying 2021); 10 %, as above"
CONSTANT = "theory: a quadratic has one Hessian; rounding"


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 4
    """networks, each from weights of its own"""
    time: float = 400.0
    """length of a run, lr times steps"""
    quick: bool = False
    """one network, half as long, without the two smallest steps"""


def arms(o):
    time = o.time / 2 if o.quick else o.time
    seen = {"diagnostics": [SHARPNESS], "metrics": ["full_loss", SHARPNESS]}
    seeds = list(o.seed_range())[: 1 if o.quick else None]
    problem, found = ss.problems.chebyshev(d=D), {}

    def arm(about, lr, time, steps_per_epoch=1, **settings):
        settings |= {"epochs": max(1, round(time / lr / steps_per_epoch)), "seeds": seeds}
        return ss.Arm(problem, about, lr=lr, diagnostics_every=round(GAP / lr), **settings, **seen)

    for name, (lr, options) in RULES.items():
        if not (o.quick and lr < RATE):
            found[name] = arm("an edge of its own", lr, time, options=options)
    if not o.quick:
        found[FLOW] = arm("no edge in reach", TINY, time / 2)
    batches = {"batch_size": BATCH, "order": "with_replacement"}
    found[SMALL] = arm("noise, which slows it down", RATE, 2.5 * time, D // BATCH, **batches)
    # with a loss of one's own the Hessian is measured, not known from the moments
    curve = ss.problems.curve(loss=squared)
    limit = ss.theory.lr_limit(ss.problems.curve().least_squares)
    same = {"epochs": 200, "dtype": "float64", "diagnostics_every": 1, **seen}
    for name, share in ((STABLE, 0.9), (BEYOND, 1.05)):
        found[name] = ss.Arm(curve, "one Hessian", lr=share * limit, **same)
    return found


def squared(prediction, y):
    return (prediction - y) ** 2


def by_seed(run):
    """Yield, seed by seed: steps at which the sharpness is known, the sharpness, all losses."""
    rows = run.load("steps", columns=["seed", "step", "full_loss", SHARPNESS])
    for _, one in rows.groupby("seed"):
        known = one[one[SHARPNESS].notna()]
        yield known["step"].to_numpy(), known[SHARPNESS].to_numpy(), one["full_loss"].to_numpy()


def last_quarter(values):
    return values[3 * len(values) // 4 :]


def late(run):
    """Return lr times sharpness, the median over the last quarter of the run, of every seed."""
    medians = [np.median(last_quarter(sharpness)) for _, sharpness, _ in by_seed(run)]
    return run.config.lr * np.array(medians)


def edge(run):
    """Return the lr times sharpness beyond which the rule grows on a quadratic."""
    return ss.theory.sharpness_limit(1.0, **run.config.options)


def around_edge(run):
    """Return per seed: rises of the loss before the edge, their share after, loss there and late.

    Before is up to the last eigenvalue below the edge, after from the first one above it.
    """
    found = []
    for step, sharpness, loss in by_seed(run):
        above = np.flatnonzero(run.config.lr * sharpness >= edge(run))
        rises, end = np.diff(loss) > 0, np.median(last_quarter(loss))
        if len(above):
            last, first = step[max(above[0] - 1, 0)], step[above[0]]
            found.append((rises[:last].sum(), rises[first:].mean(), loss[first], end))
        else:
            found.append((rises.sum(), np.nan, np.nan, end))
    return np.array(found).T


def claims(o, runs):
    found = []
    for arm in [name for name in RULES if name in runs]:
        run, limit = runs[arm], edge(runs[arm])
        known = [limit] * len(run.w), 0.1 * limit, LIMIT
        found.append(ss.Claim("late_lr_sharpness", arm, late(run), *known))
        if not run.config.options:  # momentum may let the loss rise anywhere
            before, share, there, end = around_edge(run)
            rises, falls = bool((share > 0).all()), bool((end < there).all())
            found.append(ss.Claim("rises_before_edge", arm, before.sum(), 0, 0, DESCENT))
            found.append(ss.Claim("rises_at_edge", arm, rises, True, 0, COHEN))
            found.append(ss.Claim("share_of_rises_at_edge", arm, share.mean()))
            found.append(ss.Claim("falls_in_the_end", arm, falls, True, 0, COHEN))
    if FLOW in runs:
        most = [sharpness.max() for _, sharpness, _ in by_seed(runs[FLOW])]
        passes = min(most) > max(edge(runs[arm]) / runs[arm].config.lr for arm in RULES)
        rises = around_edge(runs[FLOW])[0].sum()
        found.append(ss.Claim("largest_sharpness", FLOW, most))
        found.append(ss.Claim("passes_all_edges", FLOW, bool(passes), True, 0, COHEN))
        found.append(ss.Claim("rises_before_edge", FLOW, rises, 0, 0, DESCENT))
    return found + batch_claims(runs[SMALL]) + quadratic_claims(runs)


def batch_claims(run):
    """Check the sharpness under small batches against two limits: the mean's, the mean square's."""
    near = [ss.theory.linearised(run.problem, w) for w in run.w]
    limits = [ss.theory.mean_square_lr_limit(ls, D, BATCH, replacement=True) for ls in near]
    ratio, sharp = run.config.lr / np.array(limits), late(run)
    below, within = bool((sharp < edge(run)).all()), bool((ratio <= 1.1).all())
    return [
        ss.Claim("late_lr_sharpness", SMALL, sharp),
        ss.Claim("below_full_batch_edge", SMALL, below, True, 0, COHEN),
        ss.Claim("lr_over_mean_square_limit", SMALL, ratio),
        ss.Claim("within_mean_square_limit", SMALL, within, True, 0, BATCHES),
    ]


def quadratic_claims(runs):
    (_, still, stable), (_, sharpness, loss) = (next(by_seed(runs[a])) for a in (STABLE, BEYOND))
    rises = (np.diff(stable) > 0).sum()
    growth = np.median(loss[101:] / loss[100:-1])  # other modes have died out
    law = ss.theory.growth_per_epoch(ss.problems.curve().least_squares, runs[BEYOND].config.lr)
    change = {STABLE: np.ptp(still) / still[0], BEYOND: np.ptp(sharpness) / sharpness[0]}
    return [
        *(ss.Claim("change_of_sharpness", a, c, 0, 1e-12, CONSTANT) for a, c in change.items()),
        ss.Claim("rises_of_the_loss", STABLE, rises, 0, 0, DESCENT),
        ss.Claim("growth_per_step", BEYOND, growth, law, 1e-6 * law, "theory: (1 - lr lambda)^2"),
    ]


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    names = [arm for arm in (*RULES, SMALL) if arm in runs]
    ends = {arm: f"{np.median(value['late_lr_sharpness', arm]):.2f}" for arm in names}
    plain = ", ".join(f"{end} ({arm})" for arm, end in ends.items() if arm.startswith("lr"))
    most = np.min(value.get(("largest_sharpness", FLOW), np.nan))
    flow = f"With lr {TINY} the sharpness grows on, to {most:.0f} and more: the step holds it."
    flow = flow if FLOW in runs else ""
    heavy, nesterov = (edge(runs[arm]) for arm in ("heavy ball", "Nesterov"))
    return f"""lr times the sharpness ends at {plain}; the edge is 2. {flow}
    Before the edge the loss never rises; at the edge it does, at
    {value["share_of_rises_at_edge", "lr 0.1"]:.0%} of the steps (lr 0.1), and yet it falls in
    the long run.

    Each rule has an edge of its own. With momentum {BETA:g} theory says {heavy:g} (heavy ball) and
    {nesterov:g} (Nesterov); measured: {ends["heavy ball"]} and {ends["Nesterov"]}. Batches of
    {BATCH} end below 2, at {ends[SMALL]}: their lr is there
    {np.median(value["lr_over_mean_square_limit", SMALL]):.2f} of the one at which second moments
    would grow.

    On the notebook's curve nothing can give way: the Hessian is the same everywhere, and 5 % beyond
    2 / lr the loss grows by the factor {value["growth_per_step", BEYOND]:.4f} a step, for ever."""


def hovering(runs):
    """Draw sharpness and loss of the first network over time, with the edge of each rule."""
    alike = [arm for arm in (FLOW, *RULES) if arm in runs and not runs[arm].config.options]
    others = [arm for arm in ("lr 0.1", "heavy ball", "Nesterov", SMALL) if arm in runs]
    columns, levels = {}, {}
    for title, arms in {"descent with four steps": alike, f"four ways, lr {RATE}": others}.items():
        columns[title] = {"sharpness": {}, "loss": {}}
        for arm in arms:
            lr, (step, sharpness, loss) = runs[arm].config.lr, next(by_seed(runs[arm]))
            known = np.flatnonzero(np.isfinite(loss))
            columns[title]["sharpness"][arm] = lr * step, sharpness
            columns[title]["loss"][arm] = lr * known, loss[known]
            if arm in RULES:
                levels[arm] = edge(runs[arm]) / lr
    return ss.figures.over_steps(columns, levels, "time = lr times steps")


STUDY = ss.Study(
    __file__, __doc__, Options, arms, claims, answer, figures={"edge_of_stability.png": hovering}
)

if __name__ == "__main__":
    STUDY.main()
