"""Nothing is executed that a user or a file names; nothing is written outside the store."""

import ast
import dataclasses
import tempfile
from pathlib import Path

import pytest
from conftest import one_line, small_curve

import sgdstudy as ss
from sgdstudy.studies.scripts import load_study
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.store import open_store

PACKAGE = Path(ss.__file__).parent
OTHERS = [
    p for part in ("benchmarks", "experiments") for p in PACKAGE.parent.glob(f"{part}/**/*.py")
]
CALLS = ("eval", "exec", "compile", "__import__")
MODULES = ("pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve")
METHODS = {"yaml": "load", "torch": "load", "joblib": "load", "np": "load"}
PICKLES = ("to_pickle", "read_pickle")  # of pandas
PICKLED = (".pkl", ".pickle", ".joblib", ".pt", ".npy", ".npz")
OUTSIDE = ["../x.png", "/x.png", "a/b.png", "..", ".", "", "..\\x.png", "/tmp/x.png"]
SCRIPT = '''"""Is anything pickled?"""
import sgdstudy as ss
def arms(o):
    curve = ss.problems.curve()
    settings = {"lr": 1e-4, "batch_size": 10, "epochs": 2, "optimizer": "notebook"}
    return {name: ss.Arm(curve, "", seeds=range(3), **settings) for name in ("one", "two")}
STUDY = ss.Study(__file__, __doc__, ss.Options, arms, lambda o, r: [], lambda o, r, c: "done")
'''


def wrong_nodes(tree, calls=CALLS, methods=METHODS):
    """The places of a program that execute text, or read or write what may execute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (node for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in calls:
                yield node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if methods.get(owner) == node.func.attr or node.func.attr in PICKLES:
                yield node


@pytest.mark.parametrize(
    "text",
    [
        *("eval('1')", "import pickle", "from pickle import loads"),
        *("yaml.load(f)", "torch.load(f)", "df.to_pickle(f)"),
    ],
)
def test_the_search_finds_what_it_looks_for(text):
    assert list(wrong_nodes(ast.parse(text)))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_no_text_is_executed_and_nothing_is_unpickled(path):
    found = list(wrong_nodes(ast.parse(path.read_text(encoding="utf-8"))))
    assert [f"{path.name}:{node.lineno}" for node in found] == []


@pytest.mark.parametrize("path", sorted(OTHERS), ids=lambda path: path.stem)
def test_what_is_beside_the_package_pickles_nothing(path):
    found = list(wrong_nodes(ast.parse(path.read_text(encoding="utf-8")), calls=(), methods={}))
    assert [f"{path.name}:{node.lineno}" for node in found] == []


def is_pickle(path):
    start = path.read_bytes()[:2]
    return path.suffix in PICKLED or (len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5)


@pytest.mark.slow
def test_no_pickle_is_written_anywhere_by_a_study_in_two_processes(store, tmp_path, monkeypatch):
    (tmp_path / "pickled.py").write_text(SCRIPT)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    study = load_study(str(tmp_path / "pickled.py"))
    result = study.run(study.options(store=store, jobs=2))
    assert set(result.runs) == {"one", "two"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".parquet" for path in files)
    assert [path for path in files if is_pickle(path)] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTSIDE)
def test_an_artifact_cannot_leave_the_store(store, tmp_path, name):
    before = {path for path in tmp_path.rglob("*") if "mlruns" not in path.parts}
    with (
        pytest.raises(ss.InputError, match="plain file name") as error,
        Invocation.start(open_store(store), "names").run("run", "", {}) as journal,
    ):
        journal.add(name, lambda path: path.write_text("outside"))
    assert one_line(error)
    assert {path for path in tmp_path.rglob("*") if "mlruns" not in path.parts} == before
    assert ss.load_runs("names", store=store).status.tolist() == ["FAILED"]
    assert not [p for p in Path(store).rglob("*") if p.is_file() and p.read_bytes() == b"outside"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../figure.png", "/figure.png"])
def test_a_figure_of_a_script_cannot_leave_the_store(store, tmp_path, name):
    (tmp_path / "drawn.py").write_text(SCRIPT)
    study = load_study(str(tmp_path / "drawn.py"))
    study = dataclasses.replace(study, figures={name: ss.figures.loss_by_epoch})
    with pytest.raises(ss.InputError, match="plain file name"):
        study.run(study.options(store=store))
    assert not list(Path(store).rglob("figure.png"))


@pytest.mark.parametrize("prefix", ["../", "../../outside/", "/outside/"])
def test_an_experiment_cannot_leave_the_store(store, tmp_path, monkeypatch, prefix):
    opened, arm = open_store(store), ss.Arm(small_curve(), lr=0.1, batch_size=10, epochs=1)
    before = Invocation.start(opened, "study")
    monkeypatch.setenv("SGDSTUDY_PREFIX", prefix)
    begins = (
        lambda: Invocation.start(opened, "study"),
        lambda: train_arm(before, "arm", arm, False),
        lambda: opened.experiment("study"),
    )
    for begin in begins:
        with pytest.raises(ss.InputError, match="SGDSTUDY_PREFIX") as error:
            begin()
        assert one_line(error)
    assert [path.name for path in tmp_path.iterdir()] == ["mlruns"]
    assert not list(Path(store, "artifacts").glob("*"))


@pytest.mark.parametrize("name", ["../../arm", "<script>alert(1)</script>", "a/b\\c", "été ☃"])
def test_an_arm_may_have_any_name(store, tmp_path, name):
    invocation = Invocation.start(open_store(store), "study")
    train_arm(invocation, name, ss.Arm(small_curve(), lr=0.1, batch_size=10, epochs=1), False)
    assert [path.name for path in tmp_path.iterdir()] == ["mlruns"]
    steps = ss.load_steps("study", store=store)
    assert set(steps.arm) == {name}
    assert len(steps) == 6
