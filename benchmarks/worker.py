"""Run functions for another process: calls come in as lines of JSON, answers go out as such.

Command: python benchmarks/worker.py [CORE]. See `measure.Worker`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
import warnings


def main() -> None:
    """Answer calls until there are no more."""
    if len(sys.argv) > 1:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the peers print goes to the log
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        name, arguments = json.loads(line)
        module, _, function = name.partition(":")
        try:
            answer = ["done", getattr(importlib.import_module(module), function)(**arguments)]
        except ImportError as error:
            traceback.print_exc()
            answer = ["failed", f"not installed ({str(error).splitlines()[0]})"]
        except Exception as error:
            traceback.print_exc()
            first = (str(error).strip().splitlines() or [""])[0]
            answer = ["failed", f"{type(error).__name__}: {first}"]
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
