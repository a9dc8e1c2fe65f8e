"""What a study's run gave: the histories of its arms, and what was found in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from sgdstudy import checks
from sgdstudy.errors import InputError
from sgdstudy.studies.claims import Claim, Claims, claims_markdown

if TYPE_CHECKING:
    import pandas as pd

    from sgdstudy.history.history import History
    from sgdstudy.history.identities import Off


class Runs(dict[str, "History"]):
    """Histories by arm, in the order of the script."""

    def select(self, *patterns: str, without: str | tuple[str, ...] = ()) -> Runs:
        """Return the runs of arms like one of the patterns (`*` is anything), in their order.

        Args:
            patterns: names of arms, or patterns as of a shell.
            without: patterns of arms to leave out.

        Raises:
            InputError: no arm is like any of them.

        Example:
            >>> runs = Runs(dict.fromkeys(["SGD shuffle", "SGD sequential", "Adam"]))
            >>> list(runs.select("SGD *", without="*shuffle"))
            ['SGD sequential']
        """
        drop = (without,) if isinstance(without, str) else without
        found = {
            name: self[name]
            for pattern in patterns
            for name in self
            if fnmatchcase(name, pattern) and not any(fnmatchcase(name, w) for w in drop)
        }
        if not found:
            raise InputError(
                f"no arm is like {' or '.join(map(repr, patterns))}; there are {', '.join(self)}"
            )
        return Runs(found)

    def named(self, names: Mapping[str, str]) -> Runs:
        """Return some runs by other names, as a picture calls its lines or panels.

        Args:
            names: the new name -> that of the arm.

        Raises:
            InputError: no arm has such a name.

        Example:
            >>> runs = Runs(dict.fromkeys(["SGD shuffle", "SGD sequential", "Adam"]))
            >>> list(runs.named({"along the curve": "SGD sequential"}))
            ['along the curve']
        """
        return Runs(
            {name: self[checks.choice("arm", arm, list(self))] for name, arm in names.items()}
        )

    def off(self, identity: str, *patterns: str) -> Off:
        """Return how far that run is off an identity which is furthest off: `History.off`.

        Furthest beside what rounding may make of it there; runs without an epoch are left out.

        Args:
            identity: its name.
            patterns: names or patterns of the arms looked at; none: all.

        Raises:
            InputError: no arm is like any of them; another identity.
        """
        runs = self.select(*patterns) if patterns else self
        every = [run.off(identity) for run in runs.values()]
        looked_at = [off for off in every if not math.isnan(off.value)]
        if not looked_at:
            return every[0]
        return max(looked_at, key=lambda off: off.value / off.due.within)


@dataclass(frozen=True)
class Result:
    """What a study found.

    Attributes:
        study: its name.
        runs: arm -> history.
        run_ids: arm -> MLflow run id, `answer` included.
        claims: all claims.
        answer: the written answer, what it has in short first.
        url: address of the charts in the MLflow UI.
        seconds: wall time.
        missing: figures and tables that could not be made.
        refused: the runs that the store does not take, and why; they are set aside.
    """

    study: str
    runs: Runs
    run_ids: dict[str, str]
    claims: Claims
    answer: str
    url: str
    seconds: float
    shown: str = field(default="", repr=False)
    missing: tuple[str, ...] = ()
    refused: list[str] = field(default_factory=list, repr=False)

    @property
    def failed(self) -> list[Claim]:
        """The claims that do not hold."""
        return [claim for claim in self.claims if claim.holds is False]

    @property
    def claims_table(self) -> pd.DataFrame:
        """The claims as pandas."""
        import pandas as pd

        return pd.DataFrame([claim.as_json() for claim in self.claims])

    def _repr_markdown_(self) -> str:
        return f"## {self.study}\n\n{self.answer}\n\n{claims_markdown(self.claims)}"
