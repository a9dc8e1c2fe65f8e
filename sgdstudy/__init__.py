"""sgdstudy: a tracked, predicted and verified study of stochastic gradient descent.

Names are imported when first used, so that `--help` answers at once.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Arm": "sgdstudy.studies.arm",
    "Claim": "sgdstudy.studies.claims",
    "Options": "sgdstudy.studies.arm",
    "Result": "sgdstudy.studies.study",
    "Study": "sgdstudy.studies.study",
    "study": "sgdstudy.studies.study",
    "run": "sgdstudy.studies.scripts",
    "predicted_claims": "sgdstudy.studies.predicted",
    "Problem": "sgdstudy.problems.problem",
    "TrainConfig": "sgdstudy.recipe.config",
    "History": "sgdstudy.history.history",
    "Trajectory": "sgdstudy.training.trajectory",
    "train": "sgdstudy.training.train",
    "expect": "sgdstudy.theory.expect",
    "Estimate": "sgdstudy.theory.estimates",
    "Known": "sgdstudy.known",
    "check": "sgdstudy.course.check",
    "sgd": "sgdstudy.course.sgd",
    "compare": "sgdstudy.tracking.compare",
    "time_to_target": "sgdstudy.tracking.compare",
    "summary": "sgdstudy.history.compare",
    "standard_error": "sgdstudy.theory.medians",
    "export": "sgdstudy.tracking.export",
    "load_losses": "sgdstudy.history.elsewhere",
    "load_claims": "sgdstudy.tracking.load",
    "load_epochs": "sgdstudy.tracking.load",
    "load_runs": "sgdstudy.tracking.load",
    "load_steps": "sgdstudy.tracking.load",
    "InputError": "sgdstudy.errors",
    "Interrupted": "sgdstudy.errors",
    "SgdstudyError": "sgdstudy.errors",
    "StoreError": "sgdstudy.errors",
}
_MODULES = {
    "figures": "sgdstudy.figures",
    "orders": "sgdstudy.recipe.orders",
    "problems": "sgdstudy.problems",
    "quantities": "sgdstudy.quantities",
    "text": "sgdstudy.text",
    "theory": "sgdstudy.theory",
    "tuning": "sgdstudy.history.tuning",
}
__all__ = [*sorted(_PUBLIC), *_MODULES]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    if name in _MODULES:
        return import_module(_MODULES[name])
    raise AttributeError(f"module 'sgdstudy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
