"""Should the step size decay: which schedule, how fast, and does it always help?

Hypothesis: with noisy labels a constant step stalls at its stationary excess, and every decay that
is not too fast, and every mean of the parameters, ends below it; where some parameters fit all
samples a constant step converges linearly, and decay and means only lose time. 1/t needs 1 / μ, μ
the least curvature: guess μ four times too large, and the start is forgotten as 1 / √t. The mean
of the parameters ends at tr(H⁻¹ S) / (2 n), whatever the step.

Source: the notebook's "in practice the step size decreases, to converge better"; Robbins, Monro
(1951); Polyak, Juditsky (1992); Nemirovski et al. (2009); Bach, Moulines (2011).
Command: python experiments/study_step_size.py
"""

import sgdstudy as ss
from answers.study_step_size import DECAYS, GUESSES, MEANS, NAMES, answer, short

SHARE = 0.15  # of the step at which second moments diverge: few enough paths carry the mean
START = (0.9, 0.05, 0.05)  # excess loss of the start, from the flattest direction to the steepest
WORLDS = {"noiseless": 0.0, "noisy": 1.0}  # standard deviation of the label noise
BOTTOM = {"noiseless": 1e-20, "noisy": 1e-4}  # of the figure
SHOWN = {"constant": "blue", "cosine": "red", "1/t": "green", "1/t, mu x 4": "orange"}
SHOWN |= {"tail mean": "purple"}
SCHEDULES = ("constant", "warm-up", *DECAYS)
PANELS = {
    ss.to_say("schedules"): SCHEDULES,
    ss.to_say("1/t with μ, and with a wrong guess"): ("constant", *GUESSES),
    ss.to_say("means of the parameters"): ("constant", *MEANS),
}
TITLES = {"noiseless": ss.to_say("noiseless labels"), "noisy": ss.to_say("noisy labels")}
EXACT = "theory: second moments, step by step; four standard errors"
RATE = "theory: slope of the expected losses; in the end -2 μ / (guess μ): Bach, Moulines 2011"


class Options(ss.Options):
    seeds: int = 256
    epochs: int = 100
    """passes over the data"""
    quick: bool = False
    """half of the epochs"""


def lines(lr, mu, n):
    """Return what is special of every line: a constant step lr, least curvature mu, n steps."""
    schedules = {  # lr / (1 + lr mu t) is 1 / (mu t) in the end
        "warm-up": ("LinearLR", {"start_factor": 0.1, "total_iters": max(1, n // 5)}),
        "1/sqrt(t)": ("inverse_sqrt", {"decay": ss.rounded(lr * mu)}),
        "cosine": ("CosineAnnealingLR", {}),
        "linear": ("LinearLR", {"start_factor": 1.0, "end_factor": 0.0}),
        "steps": ("StepLR", {"step_size": max(1, n // 4), "gamma": 0.3}),
        **{
            line: ("inverse_time", {"decay": ss.rounded(lr * mu * guess)})
            for line, guess in GUESSES.items()
        },
    }
    yield "constant", {"lr": lr}
    for line, (name, options) in schedules.items():
        yield line, {"lr": lr, "schedule": name, "schedule_options": options}
    for line, (share, average) in MEANS.items():
        yield line, {"lr": share * lr, "average": average}


def arms(o):
    if o.epochs < 2:
        raise ss.InputError(f"epochs must be at least 2, got {o.epochs}: two make an exponent")
    same = {"order": "with_replacement", "seeds": o.seed_range(), "diagnostics": "off"}
    same |= {"epochs": max(2, o.epochs // 2) if o.quick else o.epochs, "metrics": []}
    for world, noise in WORLDS.items():
        problem = ss.problems.even_parabola(1, 100, noise, START)
        arm = ss.Arm(problem, batch_size=10, record_rows=20_000, **same)  # epochs are all kept
        known = ss.expect(arm)
        lr = ss.rounded(SHARE * float(known.mean_square_lr_limit))
        for line, own in lines(lr, known.eigenvalues[0], arm.n_steps):
            # the gradient of a mean of the parameters is not recorded
            charted = noise > 0 and line in SHOWN and line not in MEANS
            arm = arm.but(NAMES[line], charted=charted, color=SHOWN.get(line), **same)
            yield f"{world}: {line}", arm.but(**own)


def claims(o, runs):
    mean, ratio = ss.Estimate.mean, ss.Estimate.ratio
    ends = {arm: (run.excess()[-1], ss.expect(run).excess[-1]) for arm, run in runs.items()}
    constant, half = "noisy: constant", runs["noisy: constant"].config.epochs // 2
    # it stalls in the second half: a mean over many epochs is known better than the end
    calm = runs[constant].excess()[half:].mean(0)
    level = ss.expect(runs[constant]).excess[half + 1 :].mean()
    yield ss.Claim.estimated("settled_excess", constant, *mean(calm).beside(level), source=EXACT)
    for arm, (last, true) in ends.items():
        if arm.startswith("noiseless: "):
            yield ss.Claim.estimated("excess", arm, *mean(last).beside(true), source=EXACT)
        elif arm != constant:
            warm = arm == "noisy: warm-up"
            name = "over_constant_at_the_end" if warm else "over_constant"
            other, due = ends[constant] if warm else (calm, level)
            seen = ratio(last, other, true / due).beside(true / due)
            yield ss.Claim.estimated(name, arm, *seen, source=EXACT)
    for arm in (f"noiseless: {line}" for line in list(GUESSES)[:2]):
        seen = runs[arm].decay_power().beside(ss.expect(runs[arm]).decay_power)
        yield ss.Claim.estimated("exponent", arm, *seen, source=RATE)
    for arm, run in runs.select("noisy: tail*").items():  # the law is of many small steps
        yield ss.Claim("over_law", arm, ends[arm][0].mean() / ss.expect(run).averaged_excess_law)


def named(runs, world, lines):
    """Return runs of a world by the names of their lines."""
    return {ss.say(NAMES[line]): runs[f"{world}: {line}"] for line in lines}


def picture(o, runs, value):
    panels = []
    for world, limits in {"noiseless": None, "noisy": (3e-4, 2)}.items():
        axes = {"title": ss.say(TITLES[world]), "limits": limits}
        panels.append(ss.figures.lines.excess(named(runs, world, SHOWN), **axes))
    lost = value["excess", "noiseless: cosine"] / value["excess", "noiseless: constant"]
    title = ss.say(
        """With noisy labels a decay by cosine ends at {best:.2} times the excess of a constant
        step, without noise at {lost:.2} times""",
        best=value["over_constant", "noisy: cosine"],
        lost=lost,
    )
    note = ss.say("Where nothing is noisy, decay only loses time.") if lost > 1 else ""
    return ss.figures.Chart(title, panels, note)


def figures(runs):
    found = {}
    for panel, names in PANELS.items():
        for world in WORLDS:
            found[ss.say(panel), ss.say(TITLES[world])] = named(runs, world, names)
    bottom = {ss.say(TITLES[world]): least for world, least in BOTTOM.items()}
    yield "step_sizes.png", ss.figures.excess_grid(found, bottom)


charts = {"gradient norm of all the data; noisy labels": "epoch/full_grad_norm"}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
