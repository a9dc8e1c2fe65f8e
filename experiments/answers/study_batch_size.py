"""The answer of study_batch_size, and what its arms and pictures share with it."""

from functools import cache

import sgdstudy as ss

POINTS = "curve, 256 points"
CURVE, STAIRS = ss.to_say("curve"), ss.to_say("stairs")
LOOSE, TIGHT = ss.to_say("noisy stairs to 0.03"), ss.to_say("noisy stairs to 0.001")
LINES = {  # label noise, excess loss to reach, share of the limit taken, batch sizes, quick ones
    CURVE: (0.0, 0.1, 0.25, (1, 2, 4, 8, 32), (8, 32)),  # 0.1: the notebook's target
    STAIRS: (0.0, 0.001, 0.05, (1, 2, 4, 8, 16, 64, 256), (1, 64)),
    LOOSE: (8**-0.5, 0.03, 0.05, (1, 4, 16, 64, 256, 1024), (4, 256)),
    TIGHT: (8**-0.5, 0.001, 0.05, (4, 16, 64, 256, 1024), (64, 1024)),
}
TARGET = {line: plan[1] for line, plan in LINES.items()}


@cache
def planned(line, size):
    """Return the arm of a line at a batch size, None for all the data, before it has a length."""
    noise, target, share, sizes, _ = LINES[line]
    stairs = line != CURVE and ss.problems.staircase(noise, max(256, *sizes))
    given = {"batch_size": size, "order": "with_replacement", "diagnostics": "off"}
    given |= {"metrics": ["full_loss"], "record_rows": 10**9}  # steps are counted: all of them
    arm = ss.Arm(stairs or ss.problems.even_parabola(name=POINTS), **given)
    return arm.but(lr=ss.rounded(share * ss.expect(arm).lr_limit_to_reach(target)))


@cache
def path(line, size):
    """Return what second moments expect, until the expected loss is at the target."""
    return ss.expect(planned(line, size)).path(TARGET[line])


def of_step(line):
    """Return the critical batch size of the largest usable step."""
    arm = planned(line, LINES[line][3][0])
    return ss.expect(arm.but(lr=arm.config.lr / LINES[line][2])).critical_size_of_lr


def short(o, runs, value):
    size = {line: value["critical_batch_size", line] for line in LINES}
    yield ss.say("""Larger batches take fewer steps, up to a critical size: beyond it they save at
        most half of the steps.""")
    yield ss.say(
        """Without noise it is {curve:.1f} on a parabola of 256 points, and {stairs:.1f} on a
        staircase of 8 steps.""",
        curve=size[CURVE],
        stairs=size[STAIRS],
    )
    yield from noisy(size)


def answer(o, runs, value):
    size = {line: value["critical_batch_size", line] for line in LINES}
    given = {"curve": size[CURVE], "stairs": size[STAIRS]}
    of = {line: len(runs.select(f"{line}, B=*")) for line in LINES}
    yield ss.say("""If the steps to a target follow S_min (1 + B_c / B), batches of the critical
        size B_c take twice the fewest steps and twice the fewest samples; larger ones save at
        most half of the steps.""")
    yield None
    yield ss.say(
        """B_c is {curve:.1f} on a parabola of 256 points (from {m} batch sizes) and {stairs:.1f} on
        a staircase of 8 steps (from {n}).""",
        m=of[CURVE],
        n=of[STAIRS],
        **given,
    )
    known = ss.expect(planned(CURVE, None))
    bound = (known.ls.features**2).sum(1).max() * float(known.lr_limit) - 1
    yield ss.say(
        """There is no noise here: it is about where the largest stable step is half of what all the
        data allow, {curve:.1f} and {stairs:.1f}, which Ma, Bassily, Belkin bound by {bound:.1f} and
        7.""",
        curve=of_step(CURVE),
        stairs=of_step(STAIRS),
        bound=bound,
    )
    yield None
    yield from noisy(size)
    scale = {line: path(line, None).noise_scale_at(TARGET[line]) for line in (LOOSE, TIGHT)}
    yield ss.say(
        """(From {m} and {n} batch sizes.) The gradient noise scale, where curvature is the same in
        all directions, is {loose:.0f} and {tight:.0f} at these targets.""",
        m=of[LOOSE],
        n=of[TIGHT],
        loose=scale[LOOSE],
        tight=scale[TIGHT],
    )


def noisy(size):
    given = {"loose": size[LOOSE], "tight": size[TIGHT]}
    if size[TIGHT] > size[LOOSE]:
        yield ss.say(
            """With noisy labels it depends on the target: {loose:.0f} to get within 0.03 of the
            least loss, {tight:.0f} to get within 0.001.""",
            **given,
        )
    else:
        yield ss.say(
            """With noisy labels it is {loose:.0f} to get within 0.03 of the least loss, and
            {tight:.0f} to get within 0.001.""",
            **given,
        )
