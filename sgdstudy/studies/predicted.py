"""Claims of what theory predicted of the arms before they ran."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sgdstudy.history.history import History
from sgdstudy.known import Known
from sgdstudy.language import to_say
from sgdstudy.studies.claims import Claim
from sgdstudy.theory.medians import median
from sgdstudy.theory.predictions import WITHIN

# name: how it is measured, where the expectation comes from, "" from the law of the arm
CHECKS: dict[str, tuple[Callable[[History], float], str]] = {
    "stop_epoch": (lambda run: run.median_stop, ""),
    "distance_at_stop": (lambda run: median(run.distance), ""),
    "growth_per_epoch": (History.growth_per_epoch, to_say("theory: (1 - lr λmax)²")),
}


LAWS = {
    True: to_say("theory: loss of descent in closed form"),
    False: to_say("theory: the seeds' own orders, in float64"),
}


def predicted_claims(runs: Mapping[str, History]) -> list[Claim]:
    """Return one claim per arm and prediction; a stop epoch that is not predicted is described.

    The tolerance is what rounding may change, by theory, known before the run.
    """
    found = []
    for arm, run in runs.items():
        law = LAWS[run.config.batch_size is None]
        for name, (measure, source) in CHECKS.items():
            if name in run.predicted:
                expected, within = run.predicted[name], run.predicted.get(f"{name}{WITHIN}", 0.0)
                known = Known(expected, within, source or law)
                found.append(Claim(name, arm, measure(run), known))
        if run.config.stop is not None and "stop_epoch" not in run.predicted:
            found.append(Claim("stop_epoch", arm, run.median_stop))
    return found
