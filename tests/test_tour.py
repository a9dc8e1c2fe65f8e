"""The tour runs from top to bottom, and its notebook has the same cells as its script.

`python tests/test_tour.py` writes the notebook from the script.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
SCRIPT, NOTEBOOK = DOCS / "tour.py", DOCS / "tour.ipynb"
RUN = """
import json, runpy, sys
names = runpy.run_path(sys.argv[1])
print(json.dumps({
    "stops": [int(names[run].stop_epoch[0]) for run in ("full_batch", "mini_batch", "in_order")],
    "printed": str(names["printed"].stop_reason[0]),
    "seeds": sorted(set(names["history"].stop_epoch.tolist())),
    "expected": list(names["expected"].values()),
    "report": str(names["report"]),
    "failed": len(names["result"].failed),
    "arms": names["runs"].arm.tolist(),
    "rows": len(names["first_epoch"]),
    "never": int(names["never"].eq(float("inf")).sum()),
    "ratio": names["comparison"].ratio,
}))
"""

KERNEL = """
import json, sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], 4)
done = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
code = [cell for cell in done.cells if cell.cell_type == "code"]
shown = [[part.get("data", {}) for part in cell.outputs] for cell in code]
print(json.dumps([[cell.source, sum("image/png" in part for part in parts)]
                  for cell, parts in zip(code, shown)]))
"""
DRAWS = re.compile(r"ss\.figures\.|history\.plot\(|plt\.subplots")


def cells(text):
    """Return a percent script's cells: (kind, text); `# %% name.py` is one that writes the file."""
    parts = re.split(r"^# %%(.*)\n", text, flags=re.M)[1:]
    found = []
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        if title.strip() == "[markdown]":
            found.append(("markdown", re.sub(r"^# ?", "", body.strip(), flags=re.M)))
        else:
            magic = f"%%writefile {title.strip()}\n" if title.strip().endswith(".py") else ""
            found.append(("code", magic + body.strip()))
    return found


def notebook(text):
    """Return the notebook of a percent script, without outputs."""
    empty = {"code": {"execution_count": None, "outputs": []}, "markdown": {}}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": [
            {"cell_type": kind, "metadata": {}, "source": body.splitlines(True)} | empty[kind]
            for kind, body in cells(text)
        ],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }


def written(text):
    return json.dumps(notebook(text), indent=1, ensure_ascii=False) + "\n"


def test_the_notebook_has_the_scripts_cells():
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(cells(text)) > 20
    assert NOTEBOOK.read_text(encoding="utf-8") == written(text), "run python tests/test_tour.py"


@pytest.mark.slow
def test_the_tour_runs_and_shows_what_it_says(empty_store, store, tmp_path):
    environment = os.environ | {"MPLBACKEND": "Agg"}
    words = [sys.executable, "-c", RUN, str(SCRIPT)]
    done = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["stops"][:2] == [9340, 48]  # printed in the notebook
    assert 100 < found["stops"][2] < 120  # "a hundred-odd epochs"
    assert found["printed"] == "diverged"
    assert found["seeds"] == [48]
    limit, full, mini = found["expected"]
    assert 0.2 > limit > 2e-4
    assert (full, mini) == (9340, 48)
    assert "not zeroed" in found["report"]
    assert found["failed"] == 0
    assert found["arms"] == ["descent", "eta 0.2"]
    assert found["rows"] == 64 * 200
    assert found["never"] == 64
    assert 1.9 < found["ratio"] < 2.1
    assert "stops at epoch 9340" in done.stdout


@pytest.mark.slow
def test_a_kernel_shows_each_figure_of_the_tour_once(tmp_path):
    """Without a magic, and before pyplot is used: it would bring the notebook's backend."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    environment = {k: v for k, v in os.environ.items() if k not in ("MPLBACKEND", "IPYTHONDIR")}
    done = subprocess.run(
        [sys.executable, "-c", KERNEL, str(NOTEBOOK)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert [images for _, images in found] == [len(DRAWS.findall(source)) for source, _ in found]
    assert sum(images for _, images in found) == 4


if __name__ == "__main__":
    NOTEBOOK.write_text(written(SCRIPT.read_text(encoding="utf-8")), encoding="utf-8")
