"""The tour of own work runs from top to bottom, and what it shows is what its text says.

`python tests/test_own_work.py` writes the notebook from the script, with its outputs.
"""

import json
import re
import subprocess
import sys
import tempfile

import pytest
from test_tour import DOCS, cells, notebook

SCRIPT, NOTEBOOK = DOCS / "own_work.py", DOCS / "own_work.ipynb"
RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.stdin, 4)
client = nbclient.NotebookClient(notebook, timeout=300, coalesce_streams=True)
done = client.execute()
for cell in done.cells:
    cell.pop("id", None)
    cell.metadata.pop("execution", None)
nbformat.write(done, sys.stdout)
"""


def executed():
    """Return the notebook of the script with the outputs of a kernel that starts elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        return json.loads(
            subprocess.run(
                [sys.executable, "-c", RUN],
                input=json.dumps(notebook(SCRIPT.read_text(encoding="utf-8"))),
                cwd=folder, check=True, stdout=subprocess.PIPE, text=True, timeout=400,
            ).stdout
        )  # fmt: skip


def shown(found):
    """Return the code cells: source, and the text of the output."""
    rows = []
    for cell in found["cells"]:
        if cell["cell_type"] == "code":
            parts = [part.get("text") or part.get("data", {}).get("text/plain", "")
                     for part in cell["outputs"]]  # fmt: skip
            rows.append(("".join(cell["source"]), "".join("".join(part) for part in parts)))
    return rows


def check(rows):
    """What the text says is to be seen, is."""

    def after(line):
        (found,) = (text for source, text in rows if line in source)
        return found

    assert "d=1280, p=2250" in after("problem = ss.Problem(\n    x[:1280]")
    assert "takes a closure: its replicas step one by one" in after("one = ss.train")
    assert "below 1e-5" in after("largest difference")
    stopped = after("history = ss.train")
    assert len(set(re.findall(r"\d: (\d+)", stopped))) > 1
    score = float(stopped.split()[-1])  # of seed 3
    assert float(after("module = ").strip("tensor()\n")) == pytest.approx(score, abs=5e-5)
    assert after("ss.load_history") == "(True, True)"
    assert after("result = ss.run").count("FINISHED") == 2
    assert after("first = ss.sweep").count("FINISHED") == 2
    found = after('by="test_right_score", **quiet)\nprint').splitlines()
    assert "True" in found
    ranked = [line.split()[1:] for line in found[-3:]]
    assert len({loss for _, loss, _ in ranked}) == 3
    assert sorted(ranked, key=lambda row: -float(row[2])) == ranked
    swept = [line.split() for line in after("table = ss.sweep").splitlines()[-4:]]
    assert len({tuple(row[1:]) for row in swept}) == 4
    assert "sam_study, SAM: identical" in after('"rerun"').splitlines()
    assert "Traceback" not in "".join(text for _, text in rows)


def test_the_notebook_has_the_scripts_cells_and_shows_what_it_says():
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in found["cells"]]
    assert sources == cells(SCRIPT.read_text(encoding="utf-8")), "run python tests/test_own_work.py"
    check(shown(found))


def test_the_outputs_name_no_place_of_a_machine():
    outputs = [cell.get("outputs") for cell in json.loads(NOTEBOOK.read_text())["cells"]]
    texts = json.dumps([[{k: v for k, v in part.get("data", part).items() if k != "image/png"}
                         for part in parts or ()] for parts in outputs])  # fmt: skip
    assert not re.search(r"/(tmp|home|root|Users|var|work)\b", texts)


@pytest.mark.slow
def test_a_kernel_shows_what_the_text_says():
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    check(shown(executed()))


if __name__ == "__main__":
    found = json.dumps(executed(), indent=1, ensure_ascii=False) + "\n"
    NOTEBOOK.write_text(found, encoding="utf-8")
