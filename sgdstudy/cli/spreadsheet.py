"""A table for a teacher's spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from sgdstudy.errors import unwritable
from sgdstudy.tracking.outputs import replacing, require_free

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is run by a spreadsheet
ENCODING = "utf-8-sig"  # spreadsheets know it by its first three bytes


def require_table(path: Path, columns: Sequence[str]) -> None:
    """Refuse to write over what is not a table of these columns.

    Raises:
        InputError: another file lies there, or the name is not a table's.
    """
    head = columns[0].encode(ENCODING)
    what = f"a table of {columns[0]}, …"
    require_free(path, what, (".csv",), lambda first: first.startswith(head))


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file, which spreadsheets know as UTF-8, and in which no text is a formula.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        with (
            replacing(path) as draft,
            open(draft, "w", newline="", encoding=ENCODING, errors="backslashreplace") as file,
        ):
            table = csv.writer(file)
            table.writerow(columns)
            table.writerows(map(_cell, row) for row in rows)
    except OSError as error:
        raise unwritable(path, error) from error


def _cell(value: object) -> object:
    """Return what a cell holds: a number, or text.

    >>> [_cell(value) for value in (-1.5, [1, 2.5], None, "=cmd.py", "ex4")]
    [-1.5, '1, 2.5', None, "'=cmd.py", 'ex4']
    """
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
