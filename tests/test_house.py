"""The house: which way imports point, which names are public, what `ss.train` leaves alone."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import sgdstudy as ss

PACKAGE = Path(ss.__file__).parent
SCRIPTS = sorted((PACKAGE.parent / "experiments").glob("*.py"))
# names of the contract that reach up when they are called: Study.run, STUDY.main, from_arrays
CALLED_LATE = {
    ("sgdstudy.studies.study", "sgdstudy.studies.runner"),
    ("sgdstudy.studies.study", "sgdstudy.cli.start"),
    ("sgdstudy.history.history", "sgdstudy.training.train"),
    ("sgdstudy.history.history", "sgdstudy.training.trajectory"),
}
PUBLIC = """
    Arm Claim Estimate History InputError Interrupted Known Options Problem Result SgdstudyError
    StoreError Study Trajectory TrainConfig check compare expect export figures load_claims
    load_epochs load_history load_losses load_runs load_steps orders predicted_claims problems
    quantities rounded run say sgd standard_error study summary sweep text theory time_to_target
    to_say track train train_grid tuning
"""
ALONE = """
import os, sys
import torch
import torch._inductor.config
before = dict(os.environ)
import sgdstudy as ss
ss.train("curve", lr=1e-4, batch_size=10, epochs=2, engine=ENGINE)
heavy = ("mlflow", "filelock", "tyro", "matplotlib", "scipy", "plotly")
print({name for name in sys.modules if name.partition(".")[0] in heavy})
print({name for name in sys.modules if name.startswith("sgdstudy.tracking")})
print({name for name, value in os.environ.items() if before.get(name) != value})
"""


def modules():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(("sgdstudy", *path.relative_to(PACKAGE).with_suffix("").parts))
        found[name.removesuffix(".__init__")] = path
    return found


def imports():
    """Every module's imports of ours, lazy and type-only ones too."""
    known, found = modules(), {}
    for name, path in known.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("sgdstudy"):
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                found[name] |= {one if one in known else node.module for one in full}
    return found


def text_files(path):
    """Lines of a source file that open, read or write a text file without saying its encoding."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        given = [ast.unparse(one) for one in (*node.args, *(word.value for word in node.keywords))]
        if name == "write_text" or (name == "read_text" and not node.args):
            yield f"{path.name}:{node.lineno}"
        if ast.unparse(node.func) in ("open", "io.open", "os.fdopen") and not any(
            re.fullmatch(r"['\"][rwax+]*b[rwax+]*['\"]", mode) for mode in given
        ):
            yield f"{path.name}:{node.lineno}"


def test_text_files_say_their_encoding():
    """UTF-8, whatever the locale: on Windows it is another one."""
    paths = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "experiments").rglob("*.py")]
    assert [line for path in paths for line in text_files(path)] == []


def test_the_layers_hold():
    made = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stdout


def no_circle(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_no_circle_of_files():
    graph = {
        name: {to for to in used if (name, to) not in CALLED_LATE}
        for name, used in imports().items()
    }
    no_circle(graph)


def test_no_circle_of_benchmarks():
    graph = {}
    for path in (PACKAGE.parent / "benchmarks").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
        of = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        graph[path.stem] = plain | of
    assert "rows_step" in graph["bench"]
    no_circle(graph)


def test_the_imports_called_late_are_there():
    found = imports()
    assert all(to in found[name] for name, to in CALLED_LATE)


def test_the_public_names_stay():
    assert sorted(ss.__all__) == sorted(PUBLIC.split())
    assert all(getattr(ss, name) is not None for name in ss.__all__)


def test_types_are_known_of_every_public_name():
    """Mypy and editors read imports that are never run: of each name from where it comes."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and node.body[1:]]
    written = {
        alias.name: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert written == {name: f"{at}.{name}" for name, at in ss._PUBLIC.items()} | ss._MODULES


def test_every_folder_says_what_it_is():
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent != PACKAGE:
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            for part in ("Promises:", "May import:", "Start reading:"):
                assert part in text, path
            assert len(text.splitlines()) >= 5, path
            for name in re.findall(r"`(\w+\.py|\w+/)`", text):
                assert (path.parent / name).exists(), (path, name)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_only_declares(script):
    """No training loop, no MLflow, no plotting code; nothing of ours that records or prints."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert used & {"backward", "zero_grad", "subplots", "savefig", "log_metric"} == set()
    names = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert {name.partition(".")[0] for name in names} & {"mlflow", "matplotlib"} == set()
    assert {name for name in names if re.match(r"sgdstudy\.(tracking|training|cli)", name)} == set()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_page_is_short(script):
    """An exercise is read at once, a study nearly so; no line of it is squeezed."""
    lines = script.read_text(encoding="utf-8").splitlines()
    assert len(lines) < (120 if script.stem.startswith("ex") else 150)
    assert max(map(len, lines)) <= 100


@pytest.mark.slow
def test_training_alone_needs_no_store():
    for engine in ("eager", "compiled"):
        code = ALONE.replace("ENGINE", repr(engine))
        made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert made.stdout.split() == ["set()"] * 3, made.stdout + made.stderr
