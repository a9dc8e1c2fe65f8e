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
LABELS = ("arm", "seed")  # of the rows that are returned, beside count and metric
EXACT = 2**53  # below it every whole number is a float64
ELAPSED = "elapsed_seconds"
BETWEEN = " - "  # run and metric, in such an export
OTHERS = ("_runtime", "relative time (process)", "relative time (wall)", "seed", "value", "lr")


def load_losses(path: Any, column: str | None = None, over: str = "step") -> pd.DataFrame:
    """Return losses logged elsewhere as rows that `time_to_target` and `figures.by_epoch` take.

    CSV as TensorBoard and wandb export it (a chart's "download as CSV"), as Lightning's CSVLogger
    writes it, or any with a column that counts and one of the loss. Lines without a value, or
    without a count, are left out; what is neither empty nor a number is refused.

    Args:
        path: a file.
        column: the metric; None: the only one there, or `loss`. TensorBoard's `Value` is called so,
            or `loss`.
        over: what the file counts, `step` or `epoch`; a column `Step` is taken for either.

    Returns:
        `arm` (the run's name, or the file's), `seed`, `<over>`, `<column>`, and `elapsed_seconds`
        since the run's first line where the file has the time of day; ordered by arm, seed and
        count, which is whole but for parts of epochs.

    Raises:
        InputError: no such file, no CSV, no column that counts, several metrics and none named, or
            texts where numbers belong.
    """
    checks.choice("axis", over, OVER)
    file = checks.path("the file of losses", path)
    table = _read(file)
    lower = {str(name).lower(): name for name in table.columns}
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
    if metric in (*LABELS, over):
        raise InputError(f"{file.name}: {quoted(metric)} is no metric, but tells the rows apart")
    rows = pd.concat(
        [_rows(table, lower, axis, line, over, file) for line in lines], ignore_index=True
    )
    rows = rows.dropna(subset=[over, metric]).sort_values(["arm", "seed", over], kind="stable")
    if rows.empty:
        raise InputError(f"{file.name} has no line with a number of {metric}")
    kinds = {over: "int64"} if (rows[over] % 1 == 0).all() else {}
    return rows.astype({"seed": "int64", **kinds}).reset_index(drop=True)


def _read(file: Path) -> pd.DataFrame:
    """Return the lines of a file as texts, NaN where there is none."""
    try:
        # without a header, since that lets lines have more fields, and renames what is there twice
        table = pd.read_csv(file, skipinitialspace=True, header=None, dtype=str)
    except FileNotFoundError:
        raise InputError(f"there is no file {file}") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:  # pandas' own are ValueErrors
        raise InputError(f"{file} is not a CSV file ({reason(error)})") from None
    names = table.iloc[0].fillna("").str.strip()
    lower = names[names != ""].str.lower()
    if lower.duplicated().any():
        twice = names[lower.index[lower.duplicated()][0]]
        raise InputError(f"{file.name} has two columns {quoted(twice)}")
    for place in range(1, len(names)):  # the first may number the lines
        held = table.iloc[1:, place].dropna()
        if names[place] == "" and len(held):
            raise InputError(
                f"column {place + 1} of {file.name} has no name, and holds {quoted(held.iloc[0])}; "
                f"give it one, and write decimals with a point"
            )
    lines = table.iloc[1:].set_axis(names, axis=1).loc[:, list(names != "")]
    if lines.empty:
        raise InputError(f"{file} has no lines")
    return lines


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
        if len(lower) == 1 and any(mark in next(iter(lower)) for mark in ";\t"):
            also = "; its lines are to be separated by commas"
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


def _number(text: Any) -> float | None:
    """Return the number that a text is, NaN where there is none, None for another text."""
    try:
        return None if "_" in str(text) else float(text)
    except ValueError:
        return None


def _is_numeric(texts: pd.Series) -> bool:
    """Whether a column holds a number; that the others of it are some is seen when it is read."""
    return any(number is not None and number == number for number in map(_number, texts))


def _numbers(table: pd.DataFrame, name: Any, file: Path) -> pd.Series:
    """Return a column as numbers."""
    found = [_number(text) for text in table[name]]
    for text, number in zip(table[name], found, strict=True):
        if number is None:
            raise InputError(f"{file.name}: {name} has {quoted(text)}, which is not a number")
    return pd.Series(found, index=table.index, dtype="float64")


def _counts(table: pd.DataFrame, name: Any, file: Path, parts: bool = False) -> pd.Series:
    """Return a column that counts, as whole numbers where all are whole."""
    found = _numbers(table, name, file)
    whole = (found % 1 == 0) | parts
    bad = found[found.notna() & ~(whole & (found.abs() < EXACT))]
    if len(bad):
        allowed = "number" if parts else "whole number"
        raise InputError(
            f"{file.name}: {name} must be a {allowed} below 2^53, not {bad.iloc[0]:.17g}"
        )
    return found


def _rows(
    table: pd.DataFrame,
    lower: dict[str, Any],
    axis: Any,
    line: tuple[str, str, Any],
    over: str,
    file: Path,
) -> pd.DataFrame:
    """Return the rows of one line."""
    run, metric, name = line
    named = next((lower[r] for r in RUNS if r in lower), None)
    seeds = _counts(table, lower["seed"], file) if "seed" in lower else 0
    rows = pd.DataFrame({"arm": table[named].fillna(file.stem) if not run and named else run,
                         "seed": seeds,
                         over: _counts(table, axis, file, parts=over == "epoch"),
                         metric: _numbers(table, name, file)}, index=table.index)  # fmt: skip
    if rows["seed"].isna().any():
        raise InputError(f"{file.name} has a line without a seed")
    clock = next((lower[c] for c in CLOCKS if c in lower and _is_numeric(table[lower[c]])), None)
    if clock is not None and metric != ELAPSED:
        rows[ELAPSED] = _numbers(table, clock, file)
        rows[ELAPSED] -= rows.groupby(["arm", "seed"])[ELAPSED].transform("min")
    return rows
