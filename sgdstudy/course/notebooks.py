"""The notebooks of the course: one with holes for the students, one with solutions.

Both are made from the same cells; texts are said in the present language, code is the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sgdstudy.course.cells import CELLS, HEAD, Code
from sgdstudy.errors import InputError, unwritable
from sgdstudy.language import ENGLISH, VARIABLE, language, say

STUDENT, SOLUTION = "sgd_student.ipynb", "sgd_solution.ipynb"


def notebook(solution: bool) -> dict[str, Any]:
    """Return the notebook of the students, or that with the solutions, in nbformat 4."""
    cells = []
    for cell in CELLS:
        if isinstance(cell, Code):
            source = cell.solution if solution else cell.student
            if source == HEAD and language() != ENGLISH:  # what `ss.check` says, too
                source = f"%env {VARIABLE}={language()}\n{source}"
            if source is not None:
                cells.append(_cell("code", source, execution_count=None, outputs=[]))
        elif solution or not cell.solution:
            said = (part if part.startswith("$") else say(part) for part in cell.parts)
            cells.append(_cell("markdown", "\n\n".join(said)))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }


def _cell(kind: str, source: str, **more: Any) -> dict[str, Any]:
    return {"cell_type": kind, "metadata": {}, "source": source.splitlines(True), **more}


def write(folder: Path) -> list[Path]:
    """Write both notebooks into a folder, in the present language; return their files.

    Raises:
        InputError: one of them is there already, or cannot be written.
    """
    files = [folder / STUDENT, folder / SOLUTION]
    for path in files:
        if path.exists():
            raise InputError(
                say(
                    "{path} is there already, perhaps with work in it: name a new folder",
                    path=str(path),
                )
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in files:
            made = json.dumps(notebook(path.name == SOLUTION), indent=1, ensure_ascii=False)
            path.write_text(made + "\n", encoding="utf-8")
    except OSError as error:
        raise unwritable(folder, error) from error
    return files
