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
STABLE, SHARE = "quadratic, 0.9 of the limit", 1.05
GROWING = {  # arm -> options of SGD, at 1.05 of the rule's limit
    f"quadratic, {SHARE} of the limit": {},
    f"quadratic, {SHARE} of heavy ball's": {"momentum": BETA},
    f"quadratic, {SHARE} of Nesterov's": {"momentum": BETA, "nesterov": True},
}
LAST = 50  # steps over which a quadratic's growth is measured: its other modes have died out
DESCENT = "theory: the loss falls where lr times the sharpness is below 2"
ROOTS = "theory: largest root of the step on a quadratic, squared; rounding"
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
    same = {"epochs": 300, "dtype": "float64", "diagnostics_every": 1, **seen}
    found[STABLE] = ss.Arm(curve, "one Hessian", lr=0.9 * limit, **same)
    for name, options in GROWING.items():
        lr = SHARE * limit * ss.theory.sharpness_limit(1.0, **options) / 2
        found[name] = ss.Arm(curve, "one Hessian", lr=lr, options=options, **same)
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


def plain(runs):
    """Return the arms of descent on the networks, without momentum or batches."""
    return [arm for arm in (FLOW, *RULES) if arm in runs and not runs[arm].config.options]


def claims(o, runs):
    # where the sharpness hovers no theory says to a standard error: it is described
    found = [ss.Claim("late_lr_sharpness", a, late(runs[a])) for a in (*RULES, SMALL) if a in runs]
    early = 0
    for arm in plain(runs):  # momentum may let the loss rise anywhere
        before, share, there, end = around_edge(runs[arm])
        early += int(before.sum())
        if arm != FLOW:
            found.append(ss.Claim("share_of_rises_at_edge", arm, share))
            found.append(ss.Claim("late_loss_over_that_at_edge", arm, end / there))
    if FLOW in runs:
        most = [sharpness.max() for _, sharpness, _ in by_seed(runs[FLOW])]
        found.append(ss.Claim("largest_sharpness", FLOW, most))
    limits = mean_square_limits(runs[SMALL])
    found.append(ss.Claim("lr_over_mean_square_limit", SMALL, runs[SMALL].config.lr / limits))
    rises = ("rises_before_edge", "all descent on networks", early, 0, 0, DESCENT)
    return [*found, ss.Claim(*rises, always=True), *quadratic_claims(runs)]


def mean_square_limits(run):
    """Return for every seed the step at which second moments grow, near where it ended."""
    near = [ss.theory.linearised(run.problem, w) for w in run.w]
    return np.array([ss.theory.mean_square_lr_limit(ls, D, BATCH, True) for ls in near])


def quadratic_claims(runs):
    """Check one Hessian, a loss that falls below the limit, and its growth beyond each rule's."""
    seen = {arm: next(by_seed(runs[arm])) for arm in (STABLE, *GROWING)}
    worst = max(np.ptp(sharpness) / sharpness[0] for _, sharpness, _ in seen.values())
    constant = ("change_of_sharpness", "all quadratics", worst, 0, 1e-12, CONSTANT)
    rises = int((np.diff(seen[STABLE][2]) > 0).sum())
    found = [
        ss.Claim(*constant, identity=True),
        ss.Claim("rises_of_the_loss", STABLE, rises, 0, 0, DESCENT, always=True),
    ]
    for arm, options in GROWING.items():
        loss, law = seen[arm][2], growth(SHARE * ss.theory.sharpness_limit(1.0, **options), options)
        measured = (loss[-1] / loss[-1 - LAST]) ** (1 / LAST)
        # sums over d samples are rounded: two losses, the gradient, the eigenvalue in lr
        known = (law, 4 * runs[arm].problem.d * np.finfo(float).eps * law, ROOTS)
        found.append(ss.Claim("growth_per_step", arm, measured, *known, always=True))
    return found


def growth(sharpness, options):
    """Return the factor by which a loss (lambda / 2) z^2 grows in a step, at lr lambda."""
    beta, left = options.get("momentum", 0.0), 1 - sharpness
    both = (1 + beta) * left, beta * left  # Nesterov's
    if "nesterov" not in options:
        both = beta + left, beta
    return float(np.abs(np.roots([1, -both[0], both[1]])).max() ** 2)


def answer(o, runs, claims):
    value = {(c.name, c.arm): np.asarray(c.measured) for c in claims}
    ends = {
        a: f"{np.median(value['late_lr_sharpness', a]):.2f}" for a in (*RULES, SMALL) if a in runs
    }
    descent = ", ".join(f"{ends[arm]} ({arm})" for arm in plain(runs) if arm != FLOW)
    networks = len(runs[SMALL].w)
    over = "of one network" if networks == 1 else f"of {networks} networks"
    heavy, nesterov = (edge(runs[arm]) for arm in ("heavy ball", "Nesterov"))
    factors = [f"{value['growth_per_step', arm]:.4f}" for arm in GROWING]
    return f"""lr times the sharpness ends at {descent}; the edge is 2 (medians over the last
    quarter of the run, {over}). {flow(runs, value)}
    {at_edge(value)}

    Each rule has an edge of its own. With momentum {BETA:g} theory says {heavy:g} (heavy ball) and
    {nesterov:g} (Nesterov); measured: {ends["heavy ball"]} and {ends["Nesterov"]}. Batches of
    {BATCH} end at {ends[SMALL]}: their lr is there
    {np.median(value["lr_over_mean_square_limit", SMALL]):.2f} of the one at which second moments
    would grow.

    On the notebook's curve nothing can give way: the Hessian is the same everywhere, and 5 % beyond
    its rule's edge the loss grows step by step, by the factor {factors[0]} (descent), {factors[1]}
    (heavy ball) or {factors[2]} (Nesterov), as the roots of each step say."""


def flow(runs, value):
    """Say where the sharpness goes when no edge is in reach."""
    if FLOW not in runs:
        return ""
    least = value["largest_sharpness", FLOW].min()
    passed = sum(least > edge(runs[arm]) / runs[arm].config.lr for arm in RULES)
    return f"""With lr {TINY}, whose edge is {2 / TINY:.0f}, it gets to {least:.0f} or more in every
    network: beyond {passed} of the {len(RULES)} edges of the other rules and steps."""


def at_edge(value):
    """Say when the loss rises, and where it ends."""
    share, falls = (
        value[name, "lr 0.1"] for name in ("share_of_rises_at_edge", "late_loss_over_that_at_edge")
    )
    early = int(value["rises_before_edge", "all descent on networks"])
    before = f"Before the edge the loss rises at {early or 'none'} of the steps of descent"
    if not np.isfinite(share).all():
        return f"{before}. With lr 0.1 not every network gets to the edge in this time."
    return f"""{before}. At the edge it does at {share.mean():.0%} of them (lr 0.1), and ends at
    {np.median(falls):.2g} times what it was on reaching the edge."""


def hovering(runs):
    """Draw sharpness and loss of the first network over time, with the edge of each rule."""
    alike = plain(runs)
    others = [arm for arm in ("lr 0.1", "heavy ball", "Nesterov", SMALL) if arm in runs]
    columns, levels = {}, {}
    for title, arms in {
        f"descent with {len(alike)} steps": alike,
        f"four ways, lr {RATE}": others,
    }.items():
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
