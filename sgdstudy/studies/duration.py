"""How long a whole study takes where no C++ compiler takes the steps: said before it begins."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any

from sgdstudy.errors import Ended, InputError
from sgdstudy.language import say, to_say, translated
from sgdstudy.studies import helpers
from sgdstudy.studies.arm import Arm
from sgdstudy.studies.study import Study
from sgdstudy.training import engines
from sgdstudy.training.train import train

OTHER_STEPS = 65_000  # steps that take as long as the rest of a study: theory, figures, the store
SLOWER = 2  # factor between the estimate and the most that is announced: other work on the machine
MENDS = {
    "linux": to_say("install g++ (`sudo apt install g++`, or `sudo dnf install gcc-c++`)"),
    "darwin": to_say("install Apple's compiler (`xcode-select --install`)"),
    "win32": to_say("install g++ (of MSYS2 or WinLibs), and put its folder into PATH"),
}
ANY = to_say("install g++ or clang++")


def for_want_of_a_compiler(
    studies: Collection[Study], chosen: Callable[[Study], Any], jobs: int
) -> str:
    """Return a line on how long studies take, and how to mend it; "" where no compiler is wanting.

    Args:
        studies: that are to run, one after the other.
        chosen: study -> its options.
        jobs: processes that train the arms of each.
    """
    why = engines.compiler_fault()
    if not why:
        return ""
    steps = 0.0
    for study in studies:
        with suppress(InputError, Ended), helpers.beside(study.file):  # the run will say so
            steps += steps_of(study.placed_arms(chosen(study)).values(), jobs)
    if not steps:
        return ""
    seconds = _seconds_per_step() * (steps + OTHER_STEPS * len(studies))
    least = max(1, round(seconds / 60))
    return say(
        "{why}: torch takes the steps one by one, and all of it takes about {least} to {most} "
        "minutes. Quicker with a compiler: {mend}.",
        why=translated(why),
        least=least,
        most=max(least + 1, round(SLOWER * seconds / 60)),
        mend=translated(MENDS.get(sys.platform, ANY)),
    )


def steps_of(arms: Iterable[Arm], jobs: int) -> float:
    """Return how many eager steps one of the processes takes at most, of what would be compiled."""
    steps = [arm.n_steps for arm in arms if engines.is_worth_compiling(arm.config, arm.n_steps)]
    return max([sum(steps) / jobs, *steps])


def _seconds_per_step() -> float:
    """Return how long an eager step takes on this machine."""
    settings: dict[str, Any] = {"lr": 1e-4, "batch_size": 10, "epochs": 4, "seeds": range(16)}
    return train("curve", engine="eager", progress=False, **settings).seconds_per_step
