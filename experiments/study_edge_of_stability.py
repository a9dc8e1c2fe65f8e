"""Does the sharpness settle at 2 / lr, whatever lr, and at another value for another rule?

Hypothesis: full-batch descent on a network sharpens (the top eigenvalue of the Hessian grows) until
it reaches 2 / lr, the limit beyond which a quadratic would diverge. The network does not: it stays
at that edge, its loss now rising, now falling, and falling in the long run. The edge is that of the
rule: (2 + 2 β) / lr with heavy-ball momentum, (2 + 2 β) / ((1 + 2 β) lr) with Nesterov's.
With small batches it is where second moments start to grow, below 2 / lr. (A quadratic has one
Hessian and cannot move: study_quadratic_edge.)

Source: Cohen, Kaur, Li, Kolter, Talwalkar (2021), networks fitted to Chebyshev polynomials; Wu, Ma,
E (2018) and Ma, Ying (2021) for batches. Command: python experiments/study_edge_of_stability.py
"""

import sgdstudy as ss
from answers.study_edge_of_stability import (
    BATCH,
    FLOW,
    RATE,
    RULES,
    SMALL,
    THREE,
    TINY,
    answer,
    edges,
    late,
    plain,
    short,
)

D = 20  # samples; two hidden layers of 32, 1153 parameters
GAP = 4  # time between two eigenvalues
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
            yield name, long(ss.to_say("an edge of its own"), lr, time, options=options)
    if not o.quick:
        yield FLOW, long(ss.to_say("an edge farther off"), TINY, time / 2, charted=False)
    batches = {"batch_size": BATCH, "order": "with_replacement"}
    yield (
        SMALL,
        long(ss.to_say("noise, which slows it down"), RATE, 2.5 * time, D // BATCH, **batches),
    )


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


def named(runs, *arms):
    """Return arms, those that were run, by what pictures call them: name -> arm."""
    words = {"heavy ball": ss.say("heavy ball"), SMALL: ss.say("batches of {n}", n=BATCH)}
    return {words.get(arm, arm): arm for arm in arms if arm in runs}


def by_name(runs, *arms):
    return {name: runs[arm] for name, arm in named(runs, *arms).items()}


def picture(o, runs, value):
    shown = {ss.say("descent"): [arm for arm in plain(runs) if arm != FLOW]}
    shown |= {ss.say("momentum"): THREE[1:], ss.say("batches"): [SMALL]}
    known = named(runs, *RULES)
    panels = [
        ss.figures.lines.lr_sharpness(by_name(runs, *arms), known, title=title)
        for title, arms in shown.items()
    ]
    descent, heavy, nesterov = (late(value, rule) for rule in THREE)
    title = ss.say(
        """lr times the sharpness ends at {descent:.2f} where the edge is 2, with heavy ball at
        {heavy:.2f} ({a}), with Nesterov's at {nesterov:.2f} ({b})""",
        descent=descent,
        heavy=heavy,
        a=ss.expect(runs["heavy ball"]).edge,
        nesterov=nesterov,
        b=ss.expect(runs["Nesterov"]).edge,
    )
    return ss.figures.Chart(title, panels, ss.say("Dashed: the edge of each rule."))


def figures(runs):
    alike = plain(runs)
    columns = {
        ss.say("descent with {n} steps", n=len(alike)): by_name(runs, *alike),
        ss.say("four ways, lr {lr}", lr=RATE): by_name(runs, *THREE, SMALL),
    }
    known = edges(runs)
    level = {name: known[arm] for name, arm in named(runs, *known).items()}
    yield "edge_of_stability.png", ss.figures.sharpness(columns, level)


charts = {"sharpness; 2 / lr is 20 at lr 0.1, 10 at lr 0.2": "batch/full_hess_max_eig"}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
