"""sgdstudy: a tracked, predicted and verified study of stochastic gradient descent.

Names are imported when first used, so that `--help` answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for mypy and editors: the names of `_PUBLIC` and `_MODULES`
    from sgdstudy import figures, problems, quantities, text, theory
    from sgdstudy.course.check import check
    from sgdstudy.course.sgd import sgd
    from sgdstudy.errors import InputError, Interrupted, SgdstudyError, StoreError
    from sgdstudy.history import tuning
    from sgdstudy.history.compare import summary
    from sgdstudy.history.elsewhere import load_losses
    from sgdstudy.history.history import History, load_history
    from sgdstudy.known import Known, rounded
    from sgdstudy.language import say, to_say
    from sgdstudy.problems.problem import Problem
    from sgdstudy.recipe import orders
    from sgdstudy.recipe.config import TrainConfig
    from sgdstudy.studies.arm import Arm, Options
    from sgdstudy.studies.claims import Claim
    from sgdstudy.studies.outcome import Result
    from sgdstudy.studies.predicted import predicted_claims
    from sgdstudy.studies.scripts import run
    from sgdstudy.studies.study import Study, study
    from sgdstudy.studies.tracked import track
    from sgdstudy.sweeps.calling import sweep
    from sgdstudy.theory.estimates import Estimate
    from sgdstudy.theory.expect import expect
    from sgdstudy.theory.medians import standard_error
    from sgdstudy.tracking.claims import load_claims
    from sgdstudy.tracking.compare import compare, time_to_target
    from sgdstudy.tracking.export import export
    from sgdstudy.tracking.load import load_epochs, load_runs, load_steps
    from sgdstudy.training.train import train
    from sgdstudy.training.train_grid import train_grid
    from sgdstudy.training.trajectory import Trajectory

_PUBLIC = {
    "Arm": "sgdstudy.studies.arm",
    "Claim": "sgdstudy.studies.claims",
    "Options": "sgdstudy.studies.arm",
    "Result": "sgdstudy.studies.outcome",
    "Study": "sgdstudy.studies.study",
    "study": "sgdstudy.studies.study",
    "run": "sgdstudy.studies.scripts",
    "track": "sgdstudy.studies.tracked",
    "sweep": "sgdstudy.sweeps.calling",
    "predicted_claims": "sgdstudy.studies.predicted",
    "Problem": "sgdstudy.problems.problem",
    "TrainConfig": "sgdstudy.recipe.config",
    "History": "sgdstudy.history.history",
    "Trajectory": "sgdstudy.training.trajectory",
    "train": "sgdstudy.training.train",
    "train_grid": "sgdstudy.training.train_grid",
    "expect": "sgdstudy.theory.expect",
    "Estimate": "sgdstudy.theory.estimates",
    "Known": "sgdstudy.known",
    "rounded": "sgdstudy.known",
    "say": "sgdstudy.language",
    "to_say": "sgdstudy.language",
    "check": "sgdstudy.course.check",
    "sgd": "sgdstudy.course.sgd",
    "compare": "sgdstudy.tracking.compare",
    "time_to_target": "sgdstudy.tracking.compare",
    "summary": "sgdstudy.history.compare",
    "standard_error": "sgdstudy.theory.medians",
    "export": "sgdstudy.tracking.export",
    "load_history": "sgdstudy.history.history",
    "load_losses": "sgdstudy.history.elsewhere",
    "load_claims": "sgdstudy.tracking.claims",
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


if not TYPE_CHECKING:  # to mypy every name would be there

    def __getattr__(name: str) -> Any:
        if name in _PUBLIC:
            return getattr(import_module(_PUBLIC[name]), name)
        if name in _MODULES:
            return import_module(_MODULES[name])
        raise AttributeError(f"module 'sgdstudy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
