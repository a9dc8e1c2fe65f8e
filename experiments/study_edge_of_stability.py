"""Does the sharpness settle at 2 / lr, whatever lr, and at another value for another rule?

Hypothesis: full-batch descent on a network sharpens (the top eigenvalue of the Hessian grows) until
it reaches 2 / lr, the limit beyond which a quadratic would diverge. The network does not: it stays
at that edge, its loss now rising, now falling, and falling in the long run. The edge is that of the
rule: (2 + 2 beta) / lr with heavy-ball momentum, (2 + 2 beta) / ((1 + 2 beta) lr) with Nesterov's.
With small batches it is where second moments start to grow, below 2 / lr. (A quadratic has one
Hessian and cannot move: study_quadratic_edge.)

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
    **{f"lr {lr}": (lr, {}) for lr in (0.05, RATE, 0.2)},
    "heavy ball": (RATE, {"momentum": BETA}),
    "Nesterov": (RATE, {"momentum": BETA, "nesterov": True}),
}
FLOW, SMALL = f"lr {TINY}", f"batches of {BATCH}"
DESCENT = ss.Known(0, 0, "theory: the loss falls where lr times the sharpness is below 2")


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
    network = ss.Arm(ss.problems.chebyshev(d=D), seeds=seeds, **seen)

    def long(about, lr, time, m=1, **settings):
        epochs, every = max(1, round(time / lr / m)), round(GAP / lr)
        return network.but(about, lr=lr, epochs=epochs, diagnostics_every=every, **settings)

    for name, (lr, options) in RULES.items():
        if not (o.quick and lr < RATE):
            yield name, long("an edge of its own", lr, time, options=options)
    if not o.quick:
        yield FLOW, long("no edge in reach", TINY, time / 2)
    batches = {"batch_size": BATCH, "order": "with_replacement"}
    yield SMALL, long("noise, which slows it down", RATE, 2.5 * time, D // BATCH, **batches)


def edge(run):
    """Return the lr times sharpness beyond which the rule grows on a quadratic."""
    return ss.theory.sharpness_limit(1.0, **run.config.options)


def plain(runs):
    """Return the arms of descent on the networks, without momentum or batches."""
    return [arm for arm in (FLOW, *RULES) if arm in runs and not runs[arm].config.options]


def claims(o, runs):
    # where the sharpness hovers no theory says to a standard error: it is described
    for arm in (*RULES, SMALL):
        if arm in runs:
            late = runs[arm].config.lr * runs[arm].edge().late
            yield ss.Claim("late_lr_sharpness", arm, late)
    # momentum may let the loss rise anywhere
    edges = {arm: runs[arm].edge() for arm in plain(runs)}
    for arm, seen in edges.items():
        if arm == FLOW:
            yield ss.Claim("largest_sharpness", FLOW, seen.largest)
        else:
            yield ss.Claim("share_of_rises_at_edge", arm, seen.rises_beyond)
            yield ss.Claim("late_loss_over_that_at_edge", arm, seen.late_loss / seen.loss_there)
    small = runs[SMALL]
    near = [ss.theory.linearised(small.problem, w) for w in small.w]  # where each network ended
    limits = np.array([ss.theory.mean_square_lr_limit(ls, D, BATCH, True) for ls in near])
    yield ss.Claim("lr_over_mean_square_limit", SMALL, small.config.lr / limits)
    early = sum(int(seen.rises_before.sum()) for seen in edges.values())
    yield ss.Claim("rises_before_edge", "all descent on networks", early, DESCENT)


def answer(o, runs, value):
    rules = [arm for arm in (*RULES, SMALL) if arm in runs]
    ends = {arm: f"{np.median(value['late_lr_sharpness', arm]):.2f}" for arm in rules}
    descent = ", ".join(f"{ends[arm]} ({arm})" for arm in plain(runs) if arm != FLOW)
    networks = len(runs[SMALL].w)
    over = "of one network" if networks == 1 else f"of {networks} networks"
    heavy, nesterov = (edge(runs[arm]) for arm in ("heavy ball", "Nesterov"))
    return f"""lr times the sharpness ends at {descent}; the edge is 2 (medians over the last
    quarter of the run, {over}). {flow(runs, value)}
    {at_edge(value)}

    Each rule has an edge of its own. With momentum {BETA:g} theory says {heavy:g} (heavy ball) and
    {nesterov:g} (Nesterov); measured: {ends["heavy ball"]} and {ends["Nesterov"]}. Batches of
    {BATCH} end at {ends[SMALL]}: their lr is there
    {np.median(value["lr_over_mean_square_limit", SMALL]):.2f} of the one at which second moments
    would grow."""


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
    names = ("share_of_rises_at_edge", "late_loss_over_that_at_edge")
    share, falls = (value[name, "lr 0.1"] for name in names)
    early = value["rises_before_edge"]
    before = f"Before the edge the loss rises at {early or 'none'} of the steps of descent"
    if not np.isfinite(share).all():
        return f"{before}. With lr 0.1 not every network gets to the edge in this time."
    return f"""{before}. At the edge it does at {share.mean():.0%} of them (lr 0.1), and ends at
    {np.median(falls):.2g} times what it was on reaching the edge."""


def picture(o, runs, value):
    alike, panels = [arm for arm in plain(runs) if arm != FLOW], []
    momentum = [arm for arm in RULES if arm in runs and arm not in alike]
    colors = dict(zip((*RULES, SMALL), ss.figures.palette.CYCLE, strict=True))
    for title, shown in {"descent": alike, "momentum": momentum, "batches": [SMALL]}.items():
        lines = []
        for arm in shown:
            lr, y = runs[arm].config.lr, runs[arm].array("steps", SHARPNESS)[:, 0]
            seen = np.flatnonzero(np.isfinite(y))
            known = (lr * seen[[0, -1]], np.full(2, edge(runs[arm]))) if arm != SMALL else None
            lines.append(ss.figures.Line(arm, lr * seen, lr * y[seen], colors[arm], theory=known))
        panels.append(ss.figures.Panel(lines, "lr times steps", "lr times the sharpness", title))
    rules = ("lr 0.1", "heavy ball", "Nesterov")
    a, b, c = (np.median(value["late_lr_sharpness", rule]) for rule in rules)
    title = f"""lr times the sharpness ends at {a:.2f} where the edge is 2, with heavy ball at
    {b:.2f} ({edge(runs[rules[1]]):g}), with Nesterov's at {c:.2f} ({edge(runs[rules[2]]):g})"""
    return ss.figures.Chart(title, panels, "Dashed: the edge of each rule.")


def figures(runs):
    alike = plain(runs)
    others = [arm for arm in ("lr 0.1", "heavy ball", "Nesterov", SMALL) if arm in runs]
    titles = {f"descent with {len(alike)} steps": alike, f"four ways, lr {RATE}": others}
    columns = {title: runs.select(*arms) for title, arms in titles.items()}
    edges = {arm: edge(runs[arm]) / runs[arm].config.lr for arm in RULES if arm in runs}
    yield "edge_of_stability.png", ss.figures.sharpness(columns, edges)


STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
