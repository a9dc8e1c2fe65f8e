"""The answer of study_noise_scale, and what its arms and picture share with it."""

from functools import cache

import sgdstudy as ss

POINTS = "curve, 256 points"
CURVE, LOOSE, TIGHT = "curve", "noisy stairs to 0.03", "noisy stairs to 0.001"
LINES = {  # excess loss to reach, share of the largest usable step, batch sizes of theory
    CURVE: (0.1, 0.25, (1, 2, 4, 8, 32)),
    LOOSE: (0.03, 0.05, (1, 4, 16, 64, 256, 1024)),
    TIGHT: (0.001, 0.05, (4, 16, 64, 256, 1024)),
}
NEAR = 1.25  # times the critical batch size, or its inverse: the noise scale tells it


@cache
def planned(line, size):
    """Return the arm of a line at a batch size, None for all the data, before it has a length."""
    stairs = line != CURVE and ss.problems.staircase(8**-0.5, 1024)
    given = {"batch_size": size, "order": "with_replacement", "diagnostics": "off"}
    given |= {"metrics": ["full_loss"], "record_rows": 10**9}  # every step counts
    (target, share, _), problem = LINES[line], stairs or ss.problems.even_parabola(name=POINTS)
    arm = ss.Arm(problem, **given)
    return arm.but(lr=ss.rounded(share * ss.expect(arm).lr_limit_to_reach(target)))


@cache
def path(line, size):
    """Return what second moments expect, until the expected loss is at the target."""
    return ss.expect(planned(line, size)).path(LINES[line][0])


def critical(line):
    """Return the critical batch size that the expected steps have."""
    sizes = LINES[line][2]
    return ss.theory.critical_batch_size(sizes, [path(line, size).steps for size in sizes])[1]


def at_target(line):
    """Return the noise scale of a line, along the path of all the data, at its target."""
    return float(path(line, None).noise_scale_at(LINES[line][0]))


def tells(line):
    return 1 / NEAR < at_target(line) / critical(line) < NEAR


def short(o, runs, value):
    yield ss.say("""The gradient noise scale is the batch size at which the noise in a batch's
        gradient is as large as the gradient itself.""")
    yield from stairs()
    yield from parabola()


def answer(o, runs, value):
    yield ss.say("""The gradient noise scale tr(Σ) / ‖g‖² compares how much the gradients of single
        samples scatter (Σ is their covariance) with their mean g: it is the batch size at which
        the noise in a batch's gradient is as large as the gradient. The critical batch size is the
        one beyond which larger batches save at most half of the steps.""")
    yield None
    yield from stairs()
    start, there = float(path(TIGHT, None).noise_scale[0]), at_target(TIGHT)
    if start < there:
        yield ss.say(
            """At the start it is {start:.0f}: measured earlier than at the target, it is too
            small.""",
            start=start,
        )
    yield None
    yield from parabola()
    yield from single_step()
    yield from late(runs, value)


def stairs():
    given = {"loose": at_target(LOOSE), "tight": at_target(TIGHT)}
    given |= {"b_loose": critical(LOOSE), "b_tight": critical(TIGHT)}
    if tells(LOOSE) and tells(TIGHT):
        yield ss.say(
            """Where curvature is the same in all directions, on a staircase with noisy labels, the
            noise scale at the target tells the critical batch size: {loose:.0f} and {b_loose:.0f}
            for a loss within 0.03 of the least one, {tight:.0f} and {b_tight:.0f} for one within
            0.001.""",
            **given,
        )
    else:
        yield ss.say(
            """Where curvature is the same in all directions, on a staircase with noisy labels, the
            noise scale at the target and the critical batch size are {loose:.0f} and {b_loose:.0f}
            for a loss within 0.03 of the least one, {tight:.0f} and {b_tight:.0f} for one within
            0.001.""",
            **given,
        )


def parabola():
    scale = path(CURVE, None).noise_scale
    given = {"first": scale[0], "last": scale[-1], "size": critical(CURVE)}
    if tells(CURVE):
        yield ss.say(
            """On the notebook's parabola, with all the data, it goes from {first:.1f} to
            {last:.0f}, and the critical batch size is {size:.1f}.""",
            **given,
        )
    else:
        yield ss.say(
            """On the notebook's parabola the noise scale does not tell it: with all the data it
            goes from {first:.1f} to {last:.0f}, and the critical batch size is {size:.1f}.""",
            **given,
        )


def single_step():
    clean, limit = path(CURVE, None), float(ss.expect(planned(CURVE, None)).lr_limit)
    best = clean.terms[1, -1] / clean.terms[3, -1]
    yield ss.say(
        """Weighted by the curvature, tr(HΣ) / gᵀHg, which is exact for a single step, it even
        gets to {scale:.2}.""",
        scale=clean.curvature_noise_scale[-1],
    )
    if best > limit:
        yield ss.say(
            """Both count on the step that is best along the gradient: at the end it is {ratio:.0f}
            times the largest stable one.""",
            ratio=best / limit,
        )


def late(runs, value):
    every = {
        run.config.batch_size: value["noise_scale_late", arm]
        for arm, run in runs.select(f"{CURVE},*").items()
    }
    found = [
        ss.say("{scale:.0f} with batches of {size}", scale=scale, size=size)
        for size, scale in every.items()
    ]
    if max(every.values()) > 2 * min(every.values()):
        yield ss.say(
            "Late in a run the noise scale depends on the batch that the run takes: {found}.",
            found=found,
        )
    else:
        yield ss.say("Late in a run the noise scale is {found}.", found=found)
