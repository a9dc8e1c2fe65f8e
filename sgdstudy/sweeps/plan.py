"""What a sweep runs: an arm of a study, and the combinations that a grid makes of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted
from sgdstudy.language import say, to_say, translated, unknown
from sgdstudy.recipe.identity import Identity
from sgdstudy.secrecy import recordable, stripped
from sgdstudy.studies import helpers
from sgdstudy.studies.arm import (
    OPTIONS,
    SETTINGS,
    SHARED,
    Arm,
    Options,
    at_settings,
    own_options,
    split_point,
    told_apart,
)
from sgdstudy.studies.study import Study
from sgdstudy.sweeps import grid as grids
from sgdstudy.sweeps.own import Own
from sgdstudy.tracking import describe
from sgdstudy.tracking.code import CODE, Code
from sgdstudy.tracking.tracked_run import FINGERPRINT, SWEPT

RECORDS = ("epochs", "steps")
COLUMNS = ("run_id", "status", "converged")  # of a sweep's table, beside what ranks


@dataclass(frozen=True)
class Plan:
    """What a sweep runs.

    Attributes:
        study: the script.
        options: its options, seeds included.
        arm: the arm whose settings are changed.
        grid: values by name of a setting, or of an option of the script.
        record: `epochs`, or `steps` too.
        by: the result that ranks the combinations; None: see `results.measure`.
    """

    study: Study
    options: Options
    arm: str
    grid: grids.Grid
    record: str = "epochs"
    by: str | None = None

    @classmethod
    def of(
        cls,
        study: Study,
        options: Options,
        arm: str | None,
        grid: grids.Grid,
        record: str,
        by: str | None = None,
    ) -> Plan:
        """Check the parts and return the plan; `arm` None is the script's first.

        Raises:
            InputError: an empty grid, an unknown name in it or that of a result, an unknown arm,
                one whose steps were taken elsewhere, or a result that the arm does not have.
        """
        if not grid:
            raise InputError("the grid is empty; give values of a setting, as lr=1e-4,2e-4")
        if record not in RECORDS:
            raise unknown("record", record, RECORDS)
        own = [f.name for f in fields(study.options) if f.name not in SHARED]
        for name in grid:
            if name not in (*SETTINGS, *own) and not name.startswith(tuple(OPTIONS)):
                theirs = [f"{prefix}<name>" for prefix in OPTIONS]
                known = dict.fromkeys([*SETTINGS, *theirs, *own])
                raise unknown("setting of a grid", name, known)
            told = isinstance(study, Own)  # by a program, which knows what its function takes
            if not told and name in own and isinstance(getattr(options, name), (int, float)):
                for value in grid[name]:
                    if not isinstance(value, (int, float)):
                        raise InputError(f"the grid's {name} is a number, not {quoted(value)}")
        arms = study.placed_arms(options)
        name = next(iter(arms)) if arm is None else arm
        if name not in arms:
            raise unknown(to_say("arm"), name, arms)
        if arms[name].trajectory is not None:
            raise InputError(f"the steps of {name} were taken elsewhere: no setting changes them")
        ranking = describe.result_names(arms[name].problem, arms[name].config)
        for axis in grid:
            if axis in (*ranking, *COLUMNS):
                raise InputError(f"the grid's {axis!r} is also a column of results; rename it")
        if by is not None:
            checks.choice("result to rank by", by, ranking)
        return cls(study, options, name, grid, record, by)

    @property
    def name(self) -> str:
        """The experiment's name."""
        return f"{self.study.name}_sweep"

    @property
    def own(self) -> Own | None:
        """The study, where no script declares it."""
        return self.study if isinstance(self.study, Own) else None

    @cached_property
    def code(self) -> Code:
        """What runs."""
        return Code.of() if self.own else helpers.code_of(self.study.file)

    @property
    def same(self) -> dict[str, str]:
        """The tags of runs that are shared and gone on with, where the fingerprint is the same.

        Of an arm that no script declares the fingerprint shows all the code there is: the program
        that calls us may have got another grid.
        """
        mine = {name: self.tags[name] for name in ("sgdstudy.arm", "sgdstudy.record")}
        return mine | {k: v for k, v in self.code.same.items() if not (self.own and k == CODE)}

    @cached_property
    def combinations(self) -> list[Combination]:
        """All of them; a setting that is not allowed is an `InputError`."""
        return [self.combination(point) for point in grids.points(self.grid)]

    def combination(self, point: dict[str, Any]) -> Combination:
        """Return one combination.

        Raises:
            InputError: a setting that is not allowed, or does not fit the problem.
        """
        settings, own = self._split(point)
        try:
            arms = self._arms(own)
            if self.arm not in arms:  # an option may name it
                raise unknown(to_say("arm"), self.arm, arms)
            base = arms[self.arm]
            arm = at_settings(base, settings, self.record)
        except InputError as error:
            raise InputError(f"{self.name_of(point)} cannot be run: {error}") from None
        about = translated(base.about)
        arm = arm.but(say("{arm}: {about}", arm=self.arm, about=about) if about else self.arm)
        # now: the next arms that are built may change what functions read
        options = own_options(self.study.tags(self.options)) | own
        known = Identity.of(arm.problem, arm.config, options)
        hash_ = known.hash or f"none-{uuid.uuid4().hex}"
        return Combination(self.name_of(point), point, arm, hash_, known.unseen)

    def name_of(self, point: Mapping[str, Any]) -> str:
        """Return the name of a combination, with the digits that tell it from the others."""
        return grids.name_of(point, self._digits)

    @cached_property
    def _digits(self) -> dict[str, int]:
        return {name: grids.digits(values) for name, values in self.grid.items()}

    def anew(self, combination: Combination) -> Combination:
        """Return a combination whose arm is built now, where it has options of its own.

        What functions read may have been changed since, by building the arms of others.
        """
        settings, own = self._split(combination.point)
        if not own:
            return combination
        arm = at_settings(self._arms(own)[self.arm], settings, self.record)
        return replace(combination, arm=arm.but(combination.arm.about))

    def _split(self, point: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the settings of an arm that a point names, and the options.

        A function's parameter is one whatever it is called: nothing but it may follow the value.
        """
        takes = self.own.takes if self.own else ()
        settings, _ = split_point({k: v for k, v in point.items() if k not in takes})
        return settings, {k: v for k, v in point.items() if k not in settings}

    def _arms(self, own: Mapping[str, Any]) -> dict[str, Arm]:
        key = told_apart(own)
        if key not in self._built:
            self._built.clear()  # to build others may have changed what these read
            self._built[key] = self.study.placed_arms(replace(self.options, **own))
        return self._built[key]

    @cached_property
    def _built(self) -> dict[str, dict[str, Arm]]:
        return {}

    @property
    def tags(self) -> dict[str, str]:
        """What it takes to run a combination again."""
        return {
            **self.study.tags(self.options),
            "sgdstudy.arm": recordable(self.arm),
            "sgdstudy.record": self.record,
            "sgdstudy.grid": json.dumps(stripped(self.grid)),
        }


@dataclass(frozen=True)
class Combination:
    """A point of the grid, and the arm it makes.

    Attributes:
        hash: fingerprint of all that the trainer sees; of its own where nothing shows that.
        unseen: what nothing shows; "" where all is seen.
    """

    name: str
    point: dict[str, Any]
    arm: Arm
    hash: str
    unseen: str = ""

    @property
    def tags(self) -> dict[str, str]:
        """What tells this run from the others of the sweep."""
        return {SWEPT: json.dumps(stripped(self.point)), FINGERPRINT: self.hash}
