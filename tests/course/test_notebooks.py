"""The notebooks of the course run, show the notebook's figures, and are in both languages."""

import json
import subprocess
import sys

import pytest
from conftest import call

import sgdstudy as ss
from sgdstudy.course.cells import CELLS
from sgdstudy.course.notebooks import SOLUTION, STUDENT, notebook
from sgdstudy.language import speaking

RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], 4)
done = nbclient.NotebookClient(notebook, timeout=300, coalesce_streams=True).execute()
for cell in done.cells:
    cell.pop("id", None)
nbformat.write(done, sys.stdout)
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course") / "new"
    assert call("course", folder, "--lang", "fr") == 0
    return folder


def shown(path):
    """The code cells of an executed notebook: source, and the texts of its output."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, path.name],
        cwd=path.parent, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = []
    for cell in json.loads(done.stdout)["cells"]:
        if cell["cell_type"] == "code":
            outputs = [part.get("text") or part["data"]["text/plain"] for part in cell["outputs"]]
            found.append(("".join(cell["source"]), "".join("".join(text) for text in outputs)))
    return found


@pytest.mark.slow
def test_the_solution_shows_the_figures_of_the_notebook(written):
    rows = shown(written / SOLUTION)
    descents = [text for source, text in rows if "sgd(f, w0" in source]
    assert len(descents) == 4
    for text in descents[:2]:
        assert "epoch 9340\n" in text
        assert "distance 0.4743" in text
    (epoch,) = [line for line in descents[2].splitlines() if line.startswith("epoch")]
    assert abs(int(epoch.split()[1]) - 48) <= 1
    distance = float(descents[2].split("distance")[1])
    assert distance == pytest.approx(0.4525, abs=0.005)  # another order of the samples
    verdicts = [text.strip() for source, text in rows if "ss.check" in source]
    assert verdicts == ["correct"] * 5
    (law,) = [text for source, text in rows if "last_batch" in source]
    share = int(law.split("23:")[1].split("%")[0])
    assert 10 < share < 90  # the printed 23 is well inside
    (fixed,) = [text for source, text in rows if "weighted" in source]
    whole, weighted = (
        fixed.split(name)[1].split()[0].strip(",") for name in ("all ", "weighted mean ")
    )
    assert whole == weighted


@pytest.mark.slow
def test_the_students_notebook_runs_with_its_holes_empty(written):
    rows = shown(written / STUDENT)
    verdicts = [text for source, text in rows if "ss.check" in source]
    assert len(verdicts) == 5
    for text in verdicts:
        assert text.count("\n") <= 1
        assert "correct" not in text
    assert "Traceback" not in "".join(text for _, text in rows)


def test_both_are_in_both_languages_and_the_code_is_the_same():
    for solution in (False, True):
        made = {}
        for name in ("en", "fr"):
            with speaking(name):
                made[name] = notebook(solution)["cells"]
        for english, french in zip(made["en"], made["fr"], strict=True):
            spoken = [line for line in french["source"] if line != "%env SGDSTUDY_LANG=fr\n"]
            same = english["source"] == spoken
            assert same == (english["cell_type"] == "code"), english
        assert made["fr"][1]["source"][0] == "%env SGDSTUDY_LANG=fr\n"  # for what ss.check says


def test_each_hole_is_smaller_than_its_solution_and_no_solution_is_in_the_students():
    student = json.dumps(notebook(solution=False))
    assert "9340" not in student
    assert "loss.backward()" not in student
    assert len(CELLS) > len(notebook(solution=False)["cells"]) > 20


def test_work_is_not_overwritten(written, capsys):
    before = (written / STUDENT).read_text(encoding="utf-8")
    assert call("course", written) == 2
    assert "is there already" in capsys.readouterr().err
    assert (written / STUDENT).read_text(encoding="utf-8") == before


@pytest.mark.slow
def test_what_the_solution_says_of_exercise_6_is_so():
    settings = {"optimizer": "notebook", "lr": 2e-4, "batch_size": 10, "epochs": 50}
    first = ss.train("curve", order="sequential", **{**settings, "epochs": 1}).epochs.iloc[0]
    assert first.running_loss > 1e6 * first.full_loss
    stops = [
        ss.train("curve", order=order, stop=("running", 0.1), **settings).stop_epoch[0]
        for order in ("shuffle", "strided")
    ]
    assert abs(stops[0] - stops[1]) <= 1
