"""Losses that were logged elsewhere, read from CSV to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted, reason

OVER = ("step", "epoch")
# what counts, by what loggers call it; lower case
COUNTS = {
    "step": ("step", "_step", "global_step", "trainer/global_step", "train/global_step"),
    "epoch": ("epoch", "epochs", "train/epoch"),
}
ITERATIONS = ("iteration", "iter", "batch", "steps")
CLOCKS = ("wall time", "_timestamp", "timestamp")
RUNS = ("arm", "run", "run_name", "name")
BOUNDS = ("__MIN", "__MAX", "__STEP")  # beside each line of a chart that wandb exports
BETWEEN = " - "  # run and metric, in such an export
OTHERS = ("_runtime", "relative time (process)", "relative time (wall)", "seed", "value", "lr")


def load_losses(path: Any, column: str | None = None, over: str = "step") -> pd.DataFrame:
    """Return losses logged elsewhere as rows that `time_to_target` and `figures.by_epoch` take.

    CSV as TensorBoard and wandb export it (a chart's "download as CSV"), as Lightning's CSVLogger
    writes it, or any with a column that counts and one of the loss. Lines without a value are left
    out.

    Args:
        path: a file.
        column: the metric; None: the only one there, or `loss`. TensorBoard's `Value` is called so,
            or `loss`.
        over: what the file counts, `step` or `epoch`; a column `Step` is taken for either.

    Returns:
        `arm` (the run's name, or the file's), `seed`, `<over>`, `<column>`, and `elapsed_seconds`
        since the first line where the file has the time of day; ordered by arm, seed and count.

    Raises:
        InputError: no such file, no CSV, no column that counts, or several metrics and none named.
    """
    checks.choice("axis", over, OVER)
    file = checks.path("the file of losses", path)
    table = _read(file)
    lower = {str(name).strip().lower(): name for name in table.columns}
    axis = _axis(lower, over, file)
    lines = _lines(table, lower, axis, file.stem, column)
    if column is None and len({metric for _, metric, _ in lines}) > 1:
        lines = [line for line in lines if line[1] == "loss"]
    elif column is not None:
        lines = [line for line in lines if line[1] == column]
    if not lines:
        known = sorted({m for _, m, _ in _lines(table, lower, axis, file.stem, None)})
        raise InputError(
            f"{file.name} has "
            + (f"no metric {quoted(column)}; " if column else "several metrics; give column=, ")
            + f"one of {', '.join(known) or 'none: no column holds numbers'}"
        )
    metric = lines[0][1]
    rows = pd.concat([_rows(table, lower, axis, line, over) for line in lines], ignore_index=True)
    rows = rows.dropna(subset=[over, metric]).sort_values(["arm", "seed", over], kind="stable")
    if rows.empty:
        raise InputError(f"{file.name} has no line with a number of {metric}")
    rows[[over, "seed"]] = rows[[over, "seed"]].astype("int64")
    return rows.reset_index(drop=True)


def _read(file: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(file, skipinitialspace=True)
    except FileNotFoundError:
        raise InputError(f"there is no file {file}") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:  # pandas' own are ValueErrors
        raise InputError(f"{file} is not a CSV file ({reason(error)})") from None
    if table.empty:
        raise InputError(f"{file} has no lines")
    return table


def _axis(lower: dict[str, Any], over: str, file: Path) -> Any:
    """Return the column that counts: of the name, or any where there is only one kind."""
    other = OVER[OVER.index(over) - 1]
    found = [lower[name] for name in COUNTS[over] if name in lower]
    if not found and over == "step":
        found = [lower[name] for name in ITERATIONS if name in lower]
    if not found and over == "epoch":
        found = [lower[name] for name in COUNTS["step"] if name in lower]
    if not found:
        also = f"; it counts by {other}: give over={other!r}" if other in lower else ""
        raise InputError(f"{file.name} has no column {over}{also}")
    return found[0]


def _lines(
    table: pd.DataFrame, lower: dict[str, Any], axis: Any, stem: str, column: str | None
) -> list[tuple[str, str, Any]]:
    """Return the lines of a file: run ("" where a column says it), metric, the metric's column."""
    counts = {name for names in COUNTS.values() for name in names}
    known = {*counts, *ITERATIONS, *CLOCKS, *RUNS, *OTHERS}
    if {"wall time", "value"} <= set(lower):  # TensorBoard
        return [(stem, column or "loss", lower["value"])]
    lines = []
    for name in table.columns:
        text = str(name).strip()
        if name == axis or text.endswith(BOUNDS) or not _is_numeric(table[name]):
            continue
        run, between, metric = text.rpartition(BETWEEN)
        if between and metric != "_step":
            lines.append((run, metric, name))
        elif not between and (text.lower() not in known or text == column):
            lines.append(("" if any(r in lower for r in RUNS) else stem, text, name))
    return lines


def _is_numeric(values: pd.Series) -> bool:
    return bool(values.dtype.kind in "fiu")


def _rows(
    table: pd.DataFrame, lower: dict[str, Any], axis: Any, line: tuple[str, str, Any], over: str
) -> pd.DataFrame:
    """Return the rows of one line."""
    run, metric, name = line
    named = next((lower[r] for r in RUNS if r in lower), None)
    rows = pd.DataFrame({"arm": table[named].astype(str) if not run and named else run,
                         "seed": table[lower["seed"]] if "seed" in lower else 0,
                         over: pd.to_numeric(table[axis], errors="coerce"),
                         metric: table[name]}, index=table.index)  # fmt: skip
    clock = next((lower[c] for c in CLOCKS if c in lower and _is_numeric(table[lower[c]])), None)
    if clock is not None:
        rows["elapsed_seconds"] = table[clock] - table[clock].min()
    return rows
