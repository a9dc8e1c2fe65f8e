"""The table of a study's arms: what differs between them, what does not, how they ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sgdstudy.language import say, to_say, translated
from sgdstudy.report.markup import cut
from sgdstudy.text import number, printable, written
from sgdstudy.tracking import describe
from sgdstudy.tracking.tracked_run import TrackedRun

LONGEST_CELL = 300
MOST_SETTINGS = 60
HEADS = (to_say("arm"), to_say("what for"), to_say("settings"), to_say("ended as"))
RESULTS = {
    to_say("stop epoch"): ("stop_epoch", to_say("never")),
    to_say("final loss"): ("full_loss", to_say("not finite")),
}


@dataclass(frozen=True)
class Arms:
    """The arms of a study as a table: what differs between them, and what does not."""

    heads: list[str]
    rows: list[list[str]]
    same: dict[str, str]


def arms_of(runs: Sequence[TrackedRun], told: bool = True) -> Arms:
    """Return the table of arms: what differs stands in one column, as names and values.

    Args:
        runs: the arms.
        told: whether it says how they ended; not of a study whose answer is hidden.
    """
    params = [dict(run.params) for run in runs]
    for run, values in zip(runs, params, strict=True):
        engine, _, _why = run.tags.get("sgdstudy.engine", "").partition(":")
        values["engine"] = engine
    names = list(dict.fromkeys(name for values in params for name in values))
    table = {name: [_setting(values.get(name)) for values in params] for name in names}
    differs = [name for name in names if len(set(table[name])) > 1][:MOST_SETTINGS]
    cells = [
        {
            **dict(zip(HEADS, _about(run, table, differs, i), strict=True)),
            **{head: _result(run, *which) for head, which in RESULTS.items()},
        }
        for i, run in enumerate(runs)
    ]
    first = cells[0] if cells else {}
    shown = first if told else HEADS[:-1]
    heads = [head for head in shown if {row[head] for row in cells} - {"", "–"}]
    rows = [[cut(printable(row[head]), LONGEST_CELL) for head in heads] for row in cells]
    alike = [name for name in names if len(set(table[name])) == 1 and table[name][0] != "–"]
    return Arms(heads, rows, {name: table[name][0] for name in alike[:MOST_SETTINGS]})


def _about(
    run: TrackedRun, table: Mapping[str, list[str]], differs: Sequence[str], i: int
) -> tuple[str, str, str, str]:
    """Return what stands under HEADS of the i-th run."""
    settings = [f"{n}\u00a0{table[n][i]}" for n in differs if table[n][i] != "–"]
    what_for = translated(run.tags.get("mlflow.note.content", "").partition("\n\n")[0])
    ended = describe.ended(run.tags.get("stop_reason", run.status.lower()))
    return run.name, what_for, ", ".join(settings), ended


def _setting(text: str | None) -> str:
    """Write a param for a table.

    >>> [_setting(t) for t in ("0.00022501299999", "20000", "shuffle", "None")]
    ['0.000225', '20000', 'shuffle', '–']
    """
    value = number(text or "")
    if not isinstance(value, str):
        return written(value)
    return cut(printable(text)) if text not in (None, "", "None") else "–"


def _result(run: TrackedRun, name: str, missing: str) -> str:
    """Write a result's median, and the range from p10 to p90 where the seeds differ."""
    metrics = run.metrics
    if name == "stop_epoch" and run.params.get("stop") == "none":
        return "–"
    middle, low, high = (
        written(metrics[f"result/{name}{suffix}"])
        if f"result/{name}{suffix}" in metrics
        else say(missing)
        for suffix in ("", "_p10", "_p90")
    )
    several = f"result/{name}_p10" in metrics and low != high
    return f"{middle} ({say('{low} to {high}', low=low, high=high)})" if several else middle
