"""The table of a study's arms: what differs between them, what does not, how they ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sgdstudy.report.markup import cut
from sgdstudy.text import printable, written
from sgdstudy.tracking.runs import TrackedRun

LONGEST_CELL = 300
MOST_COLUMNS = 60
RESULTS = {"stop epoch": ("stop_epoch", "never"), "final loss": ("full_loss", "not finite")}


@dataclass(frozen=True)
class Arms:
    """The arms of a study as a table: what differs between them, and what does not."""

    heads: list[str]
    rows: list[list[str]]
    same: dict[str, str]


def arms_of(runs: Sequence[TrackedRun]) -> Arms:
    """Return the table of arms: a setting is a column where it differs."""
    params = [dict(run.params) for run in runs]
    for run, values in zip(runs, params, strict=True):
        values["engine"] = run.tags.get("sgdstudy.engine", "")
    names = list(dict.fromkeys(name for values in params for name in values))
    table = {name: [_setting(values.get(name)) for values in params] for name in names}
    differs = [name for name in names if len(set(table[name])) > 1][:MOST_COLUMNS]
    rows = [
        [
            run.name,
            run.tags.get("mlflow.note.content", ""),
            run.tags.get("stop_reason", run.status.lower()).replace("_", " "),
            *(_result(run, *which) for which in RESULTS.values()),
            *(table[name][i] for name in differs),
        ]
        for i, run in enumerate(runs)
    ]
    heads = ["arm", "what it is there for", "ended as", *RESULTS, *differs]
    alike = [name for name in names if len(set(table[name])) == 1 and table[name][0] != "–"]
    same = {name: table[name][0] for name in alike[:MOST_COLUMNS]}
    cells = [[cut(printable(cell), LONGEST_CELL) for cell in row] for row in rows]
    return Arms(heads, cells, same)


def _setting(text: str | None) -> str:
    """Write a param for a table.

    >>> [_setting(t) for t in ("0.00022501299999", "20000", "shuffle", "None")]
    ['0.000225', '20000', 'shuffle', '–']
    """
    for kind in (int, float):
        try:
            return written(kind(text or ""))
        except ValueError:
            continue
    return cut(printable(text)) if text not in (None, "", "None") else "–"


def _result(run: TrackedRun, name: str, missing: str) -> str:
    """Write a result's median, and the range from p10 to p90 where the seeds differ."""
    metrics = run.metrics
    if name == "stop_epoch" and run.params.get("stop") == "none":
        return "–"
    middle, low, high = (
        written(metrics[f"result/{name}{suffix}"])
        if f"result/{name}{suffix}" in metrics
        else missing
        for suffix in ("", "_p10", "_p90")
    )
    several = f"result/{name}_p10" in metrics and low != high
    return f"{middle} ({low} to {high})" if several else middle
