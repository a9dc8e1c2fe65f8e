"""A sweep from Python: what `sgdstudy sweep` does, of scripts and of arms that a program makes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted
from sgdstudy.language import say
from sgdstudy.problems.problem import Problem
from sgdstudy.studies.arm import Arm
from sgdstudy.studies.scripts import chosen, load_study
from sgdstudy.sweeps import grid as grids
from sgdstudy.sweeps import results
from sgdstudy.sweeps.own import Own
from sgdstudy.sweeps.plan import Plan
from sgdstudy.sweeps.sweep import MOST_POINTS, run

SEEDS = 16  # of a script's arm, where nobody says how many
log = logging.getLogger("sgdstudy")


def sweep(
    what: str | Arm | Callable[..., Arm],
    grid: Mapping[str, Any],
    *,
    arm: str | None = None,
    name: str | None = None,
    seeds: int | None = None,
    record: str = "epochs",
    by: str | None = None,
    jobs: int = 1,
    resume: bool = False,
    store: str | None = None,
    progress: bool | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Train an arm over a grid of settings, every combination as a tracked run.

    The runs are in the experiment `<name>_sweep`, for `ss.load_runs`, `ss.load_epochs` and the UI.

    Args:
        what: a study of `experiments/` by name, or a script by path; or an arm; or a function that
            returns one. Of a function, parameters that the grid names, and those whose default is
            a number, a text, a truth value or None, are options: each has a column.
        grid: values by name, one or several, or a text as `"logspace(1e-5, 5e-4, 50)"`. A name is a
            setting, as `lr`, `batch_size` or `optimizer.momentum` (docs/sweeps.md), or an option.
        arm: of a script, the arm whose settings change; None: its first.
        name: of what no script declares; None: that of the function, or of the arm's problem.
        seeds: number of seeds of every combination: 4 are the seeds 0 to 3 (of `ss.train`, the one
            seed 4); None: 16 of a script, else those of the arm.
        record: what goes to Parquet: `epochs`, or `steps` too.
        by: the result that ranks the combinations, as `test_accuracy`, the best first; None: they
            are in the order of the grid.
        jobs: processes side by side; what no script declares is pickled for them.
        resume: skip what is finished: the same in all that the trainer sees, by the same versions.
        store: folder of the store, or tracking URI; default: the nearest mlruns/.
        progress: show a bar; None: when there is someone to see it.
        options: further options of the script, or arguments of the function.

    Returns:
        One row per combination: its values, `status`, `run_id`, and its results by name: medians
        over the seeds, of two middle ones the lower.

    Raises:
        InputError: nothing to sweep, a name or a value that is not allowed; nothing has run then.
        Interrupted: Ctrl-C; what is finished is saved, `resume=True` goes on.

    Example:
        >>> import sgdstudy as ss
        >>> def descent(lr, noise=0.1):
        ...     return ss.Arm(ss.problems.curve(noise=noise), lr=lr, batch_size=10, epochs=20)
        >>> ss.sweep(descent, {"lr": [1e-4, 2e-4], "noise": [0, 1.0]})  # doctest: +SKIP
    """
    axes = grids.of(grid)
    if (n := grids.size(axes)) > MOST_POINTS:
        raise InputError(f"the grid has {n:,} points; give {MOST_POINTS:,} at the most")
    if seeds is not None:
        checks.count("seeds", seeds)
    if isinstance(what, str):
        if name is not None:
            raise InputError(f"name is of arms that no script declares; leave it out of {what}")
        study = load_study(what)
        given = {"seeds": SEEDS if seeds is None else seeds, "store": store, **options}
        plan = Plan.of(study, chosen(study, given), arm, axes, record, by)
    elif not callable(what) and not isinstance(what, Arm):
        about = "; of a problem, ss.Arm(problem, lr=...)" if isinstance(what, Problem) else ""
        raise InputError(
            f"a sweep is of a study's name or script, of a ss.Arm, or of a function that returns "
            f"one{about}; not of {quoted(what)}"
        )
    else:
        own = Own.of(what, name, axes, options, seeded=seeds is not None)
        given = {"store": store, **({} if seeds is None else {"seeds": seeds})}
        plan = Plan.of(own, own.chosen(**given), arm, axes, record, by)
    table = run(plan, jobs=jobs, resume=resume, progress=progress, say=log.info).table
    failed = table[table.status == "FAILED"]
    if len(failed):
        counts = {"n": len(failed), "all": len(table)}
        said = say(
            "{n} of {all} combinations failed; its run says why",
            "{n} of {all} combinations failed; their runs say why",
            **counts,
        )
        log.warning("%s", said)
    return table if by is None else results.ranked(plan, table).reset_index(drop=True)
