"""One submission in a process of its own: `python -m sgdstudy.course.submission`.

Arguments: the file, the exercise, the seconds of its time limit, and the file of the result, JSON
that is there, empty, from when the submission begins.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from sgdstudy.course.check import EXERCISES, Report, check
from sgdstudy.course.limits import TooLong, time_limit
from sgdstudy.course.notes import silence, too_long
from sgdstudy.errors import reason
from sgdstudy.language import say


def judged(file: Path, exercise: str, seconds: float) -> tuple[str, tuple[str, ...]]:
    """Return the verdict of a submission, "correct", "faults" or "not checked", and its lines."""
    name, found, error = EXERCISES[exercise].name, dict[str, Any](), ""
    spec = importlib.util.spec_from_file_location("submission", file)
    if spec and spec.loader:
        module = importlib.util.module_from_spec(spec)
        sys.modules["submission"] = module
        found = vars(module)
        try:
            with silence(), time_limit(seconds):
                spec.loader.exec_module(module)
        except TooLong as over:
            n = _line(file, over)
            error = too_long(say("line {n}", n=n) if n else "", seconds)
        except SyntaxError as raised:
            error = say(
                "line {n} is not Python: {what}", n=raised.lineno, what=f"SyntaxError: {raised.msg}"
            )
        except (Exception, SystemExit) as raised:
            error = _at(file, raised)
    if not callable(found.get(name)):
        return "not checked", (error or say("the file defines no function {name}", name=name),)
    report: Report = check(found[name], exercise, seconds)
    return "correct" if report else "faults", report.faults


def _at(file: Path, raised: BaseException) -> str:
    """Return what a file raised while it was read, and the last line of it that was run."""
    n = _line(file, raised)
    return say("line {n} raises {what}", n=n, what=reason(raised)) if n else reason(raised)


def _line(file: Path, raised: BaseException) -> int | None:
    """Return the last line of a file that was run."""
    lines = [one.lineno for one in traceback.extract_tb(raised.__traceback__)
             if one.filename == str(file)]  # fmt: skip
    return lines[-1] if lines else None


def main() -> None:
    """Judge the submission, write the result, and end, whatever still runs."""
    file, exercise, seconds, result = sys.argv[1:5]
    sys.argv = [file]
    Path(result).touch()
    verdict, lines = judged(Path(file), exercise, float(seconds))
    part = Path(f"{result}.part")
    part.write_text(json.dumps({"verdict": verdict, "lines": lines}), encoding="utf-8")
    part.replace(result)
    os._exit(0)


if __name__ == "__main__":
    main()
