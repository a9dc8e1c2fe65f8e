"""Which batch size is the quickest to reach a target?

Hypothesis: without noise in the labels the number of steps to a target falls with the batch size B
only until the step size is that of all the data (Ma, Bassily, Belkin); the time of a step grows
only once the arithmetic of B samples takes longer than calling it (study_iteration_cost). The
quickest batch lies between the two.

Source: section 1 of the notebook; Ma, Bassily, Belkin (2018).
Command: python experiments/study_quickest_batch.py
"""

import numpy as np

import sgdstudy as ss
from answers.study_quickest_batch import EPSILON, answer, by_size, quickest, short

STEPS = 2560  # timed, a fifth of them where it is to be quick
READ = 50_000_000  # samples read by the timed steps of full batches, about
SHARE = 0.25  # of the largest stable step; at half of it few seeds do not show their own scatter


class Options(ss.Options):
    seeds: int = 32
    samples: int = 200_000
    """number of samples d"""
    quick: bool = False
    """at most 20000 samples"""


def samples(o):
    return min(o.samples, 20_000) if o.quick else o.samples


def arms(o):
    d, timed = samples(o), STEPS // 5 if o.quick else STEPS
    sizes = [10**k for k in range(5) if 10**k < d]
    steps, data = max(3, min(timed, READ // d)), ss.problems.mapped_parabola(d, exact=False)
    same = {"lr": 1e-3, "engine": "eager", "diagnostics": "off", "metrics": ["loss"]}
    about = ss.say("{steps} steps on all samples", steps=steps)
    whole = ss.Arm(data, about, charted=False, epochs=steps, **same)
    yield f"B=d, d={d:g}", whole
    for size in sizes:
        order = np.random.default_rng(o.first_seed).integers(d, size=(1, timed, size))
        some = {"batch_size": size, "order": order, "epochs": 1}
        about = ss.say(
            "{steps} steps on {n} sample", "{steps} steps on {n} samples", steps=timed, n=size
        )
        yield f"B={size}, d={d:g}", whole.but(about, **some)
    # all the data at once: steps are exact but for rounding; none may be left out of the rows
    kept = {"dtype": "float64", "diagnostics": "off", "metrics": ["full_loss"]}
    kept |= {"order": "with_replacement", "record_rows": 10**9}
    data = ss.problems.mapped_parabola(d)
    for size in [*sizes, None]:
        seeds = o.seed_range() if size else [0]
        arm = ss.Arm(
            data,
            ss.say("down to an excess loss of {epsilon}", epsilon=EPSILON),
            batch_size=size,
            seeds=seeds,
            **kept,
        )
        known = ss.expect(arm)
        limit = known.mean_square_lr_limit if size else known.lr_limit
        arm = arm.but(lr=ss.rounded(SHARE * float(limit)))
        steps = 1.5 * len(ss.expect(arm).path(EPSILON).excess)
        yield (
            f"to the target, B={size or 'd'}",
            arm.but(epochs=int(np.ceil(steps * (size or d) / d))),
        )


def claims(o, runs):
    for row in by_size(o, runs).itertuples():
        run = runs[row.arm]
        known, name = ss.expect(run).steps_to_excess(EPSILON), "steps_to_target"
        if run.config.batch_size is None:
            yield ss.Claim(name, row.arm, row.steps, known)
        else:
            error = (row.standard_error, len(run.w))
            yield ss.Claim.estimated(name, row.arm, row.steps, known, *error)
        # it depends on the machine, and on what else it does: it is described
        yield ss.Claim("seconds_to_target", row.arm, row.seconds)


def picture(o, runs, value):
    rows, drawn, laws = by_size(o, runs), [], {}
    for column in ("steps", "samples", "seconds_per_step", "seconds"):
        values = rows[column] / rows[column].min()
        drawn += [(column, *pair, 0) for pair in zip(rows["batch_size"], values, strict=True)]
    for name, power in (("steps", 0), ("samples", 1)):
        logs = np.log(rows["expected"] * rows["batch_size"] ** power / rows[name].min())
        laws[name] = lambda x, logs=logs: np.exp(
            np.interp(np.log(x), np.log(rows.batch_size), logs)
        )
    names = {"samples": ss.say("samples read"), "steps": ss.say("steps")}
    names |= {"seconds_per_step": ss.say("time of a step"), "seconds": ss.say("time to the target")}
    palette = ss.figures.palette
    axes = {"colors": [palette.SKY, palette.GREEN, palette.ORANGE, palette.RED]}
    axes |= {"x": ss.say("batch size (the last: all the data)")}
    axes |= {"y": ss.say("over the least of its kind")}
    panel = ss.figures.lines.with_laws(ss.figures.points(drawn), laws, names, **axes)
    one, best, last = quickest(rows)
    title = ss.say(
        """Batches of {size} are the quickest here: {best:.0f} ms to the target, {one:.0f} ms one by
        one, {last:.0f} ms all at once""",
        size=int(best["batch_size"]),
        best=1e3 * best["seconds"],
        one=1e3 * one["seconds"],
        last=1e3 * last["seconds"],
    )
    return ss.figures.Chart(title, [panel], ss.say("Time is steps, times the time of a step."))


tables = {"batch_sizes.csv": by_size}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
