"""sgdstudy: a tracked, predicted and verified study of stochastic gradient descent.

Names are imported when first used, so that `--help` answers at once.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Arm": "sgdstudy.study",
    "Claim": "sgdstudy.study",
    "Options": "sgdstudy.study",
    "Result": "sgdstudy.study",
    "Study": "sgdstudy.study",
    "run": "sgdstudy.scripts",
    "predicted_claims": "sgdstudy.predict",
    "Problem": "sgdstudy.problem",
    "TrainConfig": "sgdstudy.config",
    "History": "sgdstudy.history",
    "Trajectory": "sgdstudy.trajectory",
    "train": "sgdstudy.trainer",
    "check": "sgdstudy.homework",
    "sgd": "sgdstudy.notebook",
    "compare": "sgdstudy.comparison",
    "time_to_target": "sgdstudy.comparison",
    "summary": "sgdstudy.comparison",
    "standard_error": "sgdstudy.medians",
    "export": "sgdstudy.exporting",
    "load_claims": "sgdstudy.load",
    "load_epochs": "sgdstudy.load",
    "load_runs": "sgdstudy.load",
    "load_steps": "sgdstudy.load",
    "InputError": "sgdstudy.errors",
}
_MODULES = (
    "figures",
    "least_squares",
    "losses",
    "orders",
    "problems",
    "quantities",
    "rules",
    "theory",
    "tuning",
)
__all__ = [*sorted(_PUBLIC), *_MODULES]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    if name in _MODULES:
        return import_module(f"sgdstudy.{name}")
    raise AttributeError(f"module 'sgdstudy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
