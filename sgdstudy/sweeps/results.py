"""What a sweep found: the best combinations, a summary in words, the run that holds the answer."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sgdstudy import figures, theory
from sgdstudy.errors import InputError, reason
from sgdstudy.figures import heat_map, palette
from sgdstudy.language import say
from sgdstudy.recipe.columns import more_is_better
from sgdstudy.secrecy import recordable, without_secrets
from sgdstudy.tracking import chart_views
from sgdstudy.tracking.entries import Closing
from sgdstudy.tracking.tracked_run import ANSWER, KIND, TrackedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sgdstudy.sweeps.plan import Plan
    from sgdstudy.tracking.invocation import Invocation
    from sgdstudy.tracking.store import Store


log = logging.getLogger("sgdstudy")


def measure(plan: Plan) -> str:
    """Return what the combinations are drawn by, and ranked where nothing else is asked for."""
    stops = plan.combinations[0].arm.config.stop is not None
    return "stop_epoch" if stops else "full_loss"


def best(plan: Plan, table: pd.DataFrame, n: int = 10) -> pd.DataFrame:
    """Return the n best combinations, the best first: settings, results, how many seeds diverge."""
    what = plan.by or measure(plan)
    wanted = [*plan.grid, what, f"{what}_p10", f"{what}_p90", "diverged"]
    good = ranked(plan, table[table.status == "FINISHED"])
    if what not in good:
        return good[list(plan.grid)].head(0)
    good = good.dropna(subset=what).head(n)
    return good[[name for name in wanted if name in good]]


def ranked(plan: Plan, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with the best combinations first; the last have no such result."""
    what = plan.by or measure(plan)
    if what not in table:
        return table
    good = table.status == "FINISHED"
    first = table[good].sort_values(what, ascending=not more_is_better(what), kind="stable")
    return table.loc[[*first.index, *table.index[~good]]]


def summary(plan: Plan, table: pd.DataFrame) -> str:
    """Say in words what a sweep found."""
    what, good = plan.by or measure(plan), table[table.status == "FINISHED"]
    seeds = len(plan.combinations[0].arm.config.seeds)
    of_arm = say(
        "{n} combination of {arm}", "{n} combinations of {arm}", n=len(table), arm=plan.arm
    )
    parts = [say("{what}, {n} seed each.", "{what}, {n} seeds each.", n=seeds, what=of_arm)]
    absent = int((table.status == "").sum())
    if absent:
        parts.append(
            say(
                """{n} are not in the store; sgdstudy recover sends them or says why, and the sweep
                with --resume answers again.""",
                n=absent,
            )
        )
    if len(good) + absent < len(table):
        parts.append(say("{n} failed; their runs say why.", n=len(table) - len(good) - absent))
    first = best(plan, table, 1).to_dict("records")
    if first:
        point = plan.name_of({name: first[0][name] for name in plan.grid})
        given = {"what": what, "value": first[0][what], "point": point}
        given["median"] = f" {say('(median over the seeds)')}" if seeds > 1 else ""
        if more_is_better(what):
            parts.append(say("Highest {what}: {value:.6}{median}, at {point}.", **given))
        else:
            parts.append(say("Lowest {what}: {value:.6}{median}, at {point}.", **given))
    else:
        parts.append(say("None has a {what}.", what=what))
    if "diverged" in good:
        lost = int((good.diverged > 0).sum())
        parts.append(say("At least one seed diverges in {n} of them.", n=lost))
    return " ".join(parts)


def draw(plan: Plan, table: pd.DataFrame, what: str) -> Figure | None:
    """Return a result over the axes of the grid; None for a grid of one combination."""
    seeds = len(plan.combinations[0].arm.config.seeds)
    sketch = heat_map.Sketch(plan.grid, table, what, seeds, functools.partial(lr_limit, plan))
    return heat_map.draw(sketch, ", ".join(dict.fromkeys([plan.study.name, plan.arm])))


def chart(store: Store, plan: Plan, table: pd.DataFrame, runs: Iterable[TrackedRun]) -> None:
    """Mark the best combinations: the lines of the prepared charts, each in a colour of its own.

    Args:
        store: where they are.
        plan: of the sweep.
        table: its combinations, with their `run_id`.
        runs: those of the sweep; what was marked before and is not among the best is unmarked.
    """
    first = table.loc[best(plan, table, len(palette.CYCLE)).index, "run_id"]
    shown = dict(zip(first, palette.CYCLE, strict=False))
    for run in runs:
        marked = run.tags.get(chart_views.CHARTED) == "yes" and not run.is_answer
        if marked and run.run_id not in shown:
            store.client.set_tag(run.run_id, chart_views.CHARTED, "no")
    for run_id, color in shown.items():
        store.client.set_tag(run_id, chart_views.CHARTED, "yes")
        store.client.set_tag(run_id, chart_views.COLOR, color)


def log_answer(invocation: Invocation, plan: Plan, table: pd.DataFrame, answer: str) -> None:
    """Log the sweep's own run: the table, the summary, the heat map."""
    picture = _picture(plan, table)
    text = _text(plan, answer)
    # it leads the list
    tags = {KIND: ANSWER, chart_views.CHARTED: "yes", chart_views.COLOR: palette.GREY}
    tags |= {"sgdstudy.figures": "heat_map.png"} if picture else {}
    with invocation.run(ANSWER, text, tags) as journal:
        journal.add("claims.json", lambda path: path.write_text("[]", encoding="utf-8"))
        journal.add("answer.md", lambda path: path.write_text(text, encoding="utf-8"))
        rows = without_secrets(table.to_csv(index=False))
        write = functools.partial(Path.write_text, data=rows, encoding="utf-8", newline="")
        journal.add("sweep.csv", write)
        if picture:
            journal.add("heat_map.png", lambda path: path.write_bytes(picture))
        views = invocation.id if chart_views.wanted(invocation.store) else None
        journal.close(Closing("FINISHED", note=text, views=views, charts=plan.study.charts))


def _picture(plan: Plan, table: pd.DataFrame) -> bytes | None:
    """Return the heat map as PNG; None, and a line, where it cannot be drawn."""
    try:
        figure = draw(plan, table, measure(plan))
        return figures.png(figure) if figure else None
    except Exception as error:
        why = {"name": "heat_map.png", "why": reason(error)}
        log.warning("%s", say("{name} is left out: {why}", **why))
        return None


def says(run: TrackedRun, plan: Plan, answer: str) -> bool:
    """Whether a run that holds an answer holds this one."""
    return run.tags.get("mlflow.note.content") == _text(plan, answer)


def _text(plan: Plan, answer: str) -> str:
    given = {"arm": plan.arm, "study": plan.study.name, "names": ", ".join(plan.grid)}
    if plan.arm == plan.study.name:
        question = say("How does {arm} depend on {names}?", **given)
    else:
        question = say("How does {arm} of {study} depend on {names}?", **given)
    return recordable(f"**{question}**\n\n{answer}")


def lr_limit(plan: Plan, point: dict[str, Any]) -> float:
    """Return the largest stable step at a point of the grid; NaN where theory has none."""
    arm = plan.combination(point).arm
    config, ls = arm.config, arm.problem.least_squares
    if ls is None or not config.plain:
        return np.nan
    if config.batch_schedule:
        return np.nan
    if config.batch_size is None or config.batch_size == arm.problem.d:
        return theory.lr_limit(ls)
    if config.order not in ("shuffle", "with_replacement") or config.drops(arm.problem.d):
        return np.nan
    try:
        return theory.mean_square_lr_limit(ls, arm.problem.d, config.batch_size)
    except InputError:  # a ragged batch and many parameters
        return np.nan
