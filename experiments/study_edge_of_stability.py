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

import numpy as np

import sgdstudy as ss

D = 20  # samples; two hidden layers of 32, 1153 parameters
TINY, RATE, BETA, BATCH, GAP = 0.015, 0.1, 0.5, 4, 4  # GAP: time between two eigenvalues
RULES = {  # arm -> lr, options of SGD
    **{f"lr {lr}": (lr, {}) for lr in (0.05, RATE, 0.2)},
    "heavy ball": (RATE, {"momentum": BETA}),
    "Nesterov": (RATE, {"momentum": BETA, "nesterov": True}),
}
THREE = (f"lr {RATE}", "heavy ball", "Nesterov")
FLOW, SMALL = f"lr {TINY}", f"batches of {BATCH}"
DESCENT = ss.Known(0, 0, "theory: the loss falls where lr times the sharpness is below 2")


class Options(ss.Options):
    seeds: int = 4
    """networks, each from weights of its own"""
    time: float = 400.0
    """length of a run, lr times steps"""
    quick: bool = False
    """one network, half as long, without the two smallest steps"""


def arms(o):
    time = o.time / 2 if o.quick else o.time
    seen = {"diagnostics": ["full_hess_max_eig"], "metrics": ["full_loss", "full_hess_max_eig"]}
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


def edges(runs):
    """Return the sharpness beyond which each rule grows on a quadratic."""
    return {a: ss.expect(run).edge / run.config.lr for a, run in runs.select(*RULES).items()}


def plain(runs):
    """Return the arms of descent on the networks, without momentum or batches."""
    return [arm for arm in (FLOW, *RULES) if arm in runs and not runs[arm].config.options]


def claims(o, runs):
    # where the sharpness hovers no theory says to a standard error: it is described
    for arm, run in runs.select(*RULES, SMALL).items():
        yield ss.Claim("late_lr_sharpness", arm, run.config.lr * run.edge().late)
    # momentum may let the loss rise anywhere
    descent = {arm: runs[arm].edge() for arm in plain(runs)}
    for arm, seen in descent.items():
        if arm == FLOW:
            yield ss.Claim("largest_sharpness", FLOW, seen.largest)
        else:
            yield ss.Claim("share_of_rises_at_edge", arm, seen.rises_beyond)
            yield ss.Claim("late_loss_over_that_at_edge", arm, seen.late_loss / seen.loss_there)
    yield ss.Claim("lr_over_mean_square_limit", SMALL, runs[SMALL].lr_over_mean_square_limit())
    early = sum(int(seen.rises_before.sum()) for seen in descent.values())
    yield ss.Claim("rises_before_edge", "all descent on networks", early, DESCENT)


def answer(o, runs, value):
    late = {arm: value["late_lr_sharpness", arm] for arm in runs.select(*RULES, SMALL)}
    ends = {arm: f"{np.median(each):.2f}" for arm, each in late.items()}
    descent = ", ".join(f"{ends[arm]} ({arm})" for arm in plain(runs) if arm != FLOW)
    networks = len(runs[SMALL].w)
    over = "of one network" if networks == 1 else f"of {networks} networks"
    _, heavy, nesterov = (ss.expect(runs[arm]).edge for arm in THREE)
    return f"""lr times the sharpness ends at {descent}; the edge is 2 (medians over the last
    quarter of the run, {over}). {flow(runs, value)} {at_edge(value)}

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
    passed = sum(least > edge for edge in edges(runs).values())
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
    shown = {"descent": [arm for arm in plain(runs) if arm != FLOW]}
    shown |= {"momentum": THREE[1:], "batches": [SMALL]}
    colors = dict(zip((*RULES, SMALL), ss.figures.palette.CYCLE, strict=True))
    panels = [
        ss.figures.lines.lr_sharpness(runs.select(*arms), RULES, colors, title=title)
        for title, arms in shown.items()
    ]
    _, heavy, nesterov = (ss.expect(runs[rule]).edge for rule in THREE)
    a, b, c = (np.median(value["late_lr_sharpness", rule]) for rule in THREE)
    title = f"""lr times the sharpness ends at {a:.2f} where the edge is 2, with heavy ball at
    {b:.2f} ({heavy:g}), with Nesterov's at {c:.2f} ({nesterov:g})"""
    return ss.figures.Chart(title, panels, "Dashed: the edge of each rule.")


def figures(runs):
    alike, four = runs.select(*plain(runs)), runs.select(*THREE, SMALL)
    columns = {f"descent with {len(alike)} steps": alike, f"four ways, lr {RATE}": four}
    yield "edge_of_stability.png", ss.figures.sharpness(columns, edges(runs))


charts = {"sharpness, the largest eigenvalue of the Hessian": "batch/full_hess_max_eig"}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
