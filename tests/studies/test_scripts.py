"""Scripts as files: helpers beside them, names of theirs, files that are no study."""

import importlib
import os
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings

import pytest
from conftest import call, one_line

import sgdstudy as ss
from sgdstudy.studies import helpers
from sgdstudy.studies.scripts import load_studies, load_study
from sgdstudy.sweeps import grid, sweep
from sgdstudy.tracking.store import open_store
from sgdstudy.training.interrupts import STOP_SIGNALS

LIGHT = '''"""{question}"""
import sgdstudy as ss
{imports}


def arms(o):
    {lazy}
    yield "arm", ss.Arm("curve", lr={lr}, batch_size=200, epochs=1)


def claims(o, runs):
    {lazy}
    return []


def answer(o, runs, claims):
    {lazy}
    return "{question}"


STUDY = ss.study(__name__)
{end}
'''


def write(path, question="Is it?", imports="", lazy="pass", lr="1e-4", end=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    given = {"question": question, "imports": imports, "lazy": lazy, "lr": lr, "end": end}
    path.write_text(LIGHT.format(**given), encoding="utf-8")
    return path


def edit(path, old, new):
    """Put another text for one that a script has."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def refusal(store):
    """What the script `page` is refused with, when it runs."""
    with pytest.raises(ss.InputError) as error:
        ss.run("page", store=store)
    assert one_line(error)
    return str(error.value)


@pytest.fixture
def experiments(tmp_path, monkeypatch):
    """The folder of scripts of the current folder; no import of a test outlives it."""
    before = dict(sys.modules)
    monkeypatch.setattr(helpers, "_folders", [])
    monkeypatch.setattr(helpers, "_kept", {})
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "experiments"
    folder.mkdir()
    yield folder
    for name in set(sys.modules) - set(before):
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


# ---- helpers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["imports", "lazy"])
@pytest.mark.parametrize(
    ("statement", "files"),
    [
        ("from _common import LR", {"_common.py": "LR = 1e-4"}),
        ("import shared_values; LR = shared_values.LR", {"shared_values.py": "LR = 1e-4"}),
        ("from parts.values import LR", {"parts/__init__.py": "", "parts/values.py": "LR = 1e-4"}),
        ("from parts.values import LR", {"parts/values.py": "LR = 1e-4"}),
        ("from _one import LR", {"_one.py": "from _two import LR", "_two.py": "LR = 1e-4"}),
        ("from other_script import LR", {"other_script.py": "LR = 1e-4\nSTUDY = None"}),
        ("import importlib; LR = importlib.import_module('named').LR", {"named.py": "LR = 1e-4"}),
        ("LR = __import__('named_too').LR", {"named_too.py": "LR = 1e-4"}),
        (
            "from chain_0 import LR",
            {f"chain_{i}.py": f"from chain_{i + 1} import LR" for i in range(70)}
            | {"chain_70.py": "LR = 1e-4"},
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_helpers_beside_a_script_are_found(experiments, capsys, how, statement, files):
    for name, text in files.items():
        (experiments / name).parent.mkdir(exist_ok=True)
        (experiments / name).write_text(text)
    lr = "LR" if how == "imports" else "1e-4"
    path = write(experiments / "page.py", lr=lr, **{how: statement})
    before = list(sys.path)
    study = load_study("page")
    with helpers.beside(path):
        assert list(study.placed_arms(study.options())) == ["arm"]
    assert sys.path == before
    assert set(helpers.files_of(path)) == {"page.py", *files}
    assert call("list") == 0
    assert "page                     Is it?" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_study_with_helpers_runs_sweeps_and_runs_again(experiments, store, jobs):
    (experiments / "_common.py").write_text("LR = 1e-4")
    lazy = "from _common import LR"
    path = write(experiments / "page.py", imports=lazy, lazy=lazy, lr="LR")
    edit(
        path,
        '    yield "arm"',
        '    yield "two", ss.Arm("curve", lr=LR, epochs=1)\n    yield "arm"',
    )
    result = ss.run("page", store=store, jobs=jobs)
    assert result.answer == "Is it?"
    study = load_study("page")
    plan = sweep.Plan.of(
        study, study.options(store=store), "arm", grid.parse(["lr=1e-4,2e-4"]), "epochs"
    )
    assert sweep.run(plan, jobs=jobs).table.status.tolist() == ["FINISHED"] * 2
    assert call("rerun", result.run_ids["arm"], "--store", store) == 0


def test_each_folder_has_its_own_helpers(experiments, tmp_path):
    pages = [folder / "page.py" for folder in (experiments, tmp_path / "other")]
    for number, page in enumerate(pages):
        lazy = f"from _common import LR; assert LR == {number}, LR"
        write(page, imports="from _common import LR", lazy=lazy)
        (page.parent / "_common.py").write_text(f"LR = {number}")
    studies = [load_study(str(page)) for page in pages]
    both = list(zip(pages, studies, strict=True))
    for page, study in [*both, *both]:
        with helpers.beside(page):
            study.placed_arms(study.options())
    mine = importlib.util.module_from_spec(importlib.machinery.ModuleSpec("_common", None))
    sys.modules["_common"] = mine  # of who calls us
    for page, study in both:
        with helpers.beside(page):
            study.placed_arms(study.options())
        assert sys.modules["_common"] is mine
    del sys.modules["_common"]


def test_a_helper_that_was_edited_is_read_anew(experiments):
    helper, page = experiments / "_common.py", experiments / "page.py"
    helper.write_text("LR = 1e-4")
    write(page, imports="from _common import LR", lr="LR")
    for text in ("1e-4", "0.00025"):
        helper.write_text(f"LR = {text}")
        study = load_study("page")
        assert study.placed_arms(study.options())["arm"].config.lr == float(text)


@pytest.mark.parametrize("name", ["random", "json", "numpy", "pandas", "dataclasses"])
def test_a_script_takes_the_place_of_no_module(experiments, name):
    before = sys.modules.get(name)
    write(experiments / f"{name}.py", question=f"Is it {name}?")
    write(experiments / "page.py", imports=f"import {name}\nassert not hasattr({name}, 'STUDY')")
    studies, broken = load_studies(print)
    assert broken == 0
    assert list(studies) == sorted([name, "page"])
    assert sys.modules.get(name) is before
    assert load_study(name).name == name


@pytest.mark.parametrize("how", ["imports", "lazy"])
@pytest.mark.parametrize("file", ["{}.py", "{}/values.py"])
@pytest.mark.parametrize("name", ["random", "json"])
@pytest.mark.parametrize(
    "statement", ["from {} import LR", "import {0}; {0}.LR", "import {}.values"]
)
def test_a_helper_named_like_a_module_of_python_is_named(experiments, how, file, name, statement):
    """As it was seen: "cannot import name 'LR' from 'random'", and the file says `LR = 0.1`."""
    file = file.format(name)
    (experiments / file).parent.mkdir(exist_ok=True)
    (experiments / file).write_text("LR = 0.1")
    write(experiments / "page.py", **{how: statement.format(name)})
    with pytest.raises(ss.InputError) as error:
        load_study("page").placed_arms(ss.Options())
    told = f"; {file.partition('/')[0]} beside it is not imported, as Python has a module {name}: "
    assert f"{told}rename it" in str(error.value)
    assert one_line(error)


def test_no_package_finds_a_file_of_a_script_folder(experiments):
    """Packages ask for others that may be there: a script of that name is not meant."""
    (experiments / "cupy.py").write_text("raise SystemExit('executed')")
    write(experiments / "page.py")
    load_study("page")
    with helpers.beside(experiments / "page.py"), pytest.raises(ImportError):
        importlib.import_module("cupy")  # by this file, which lies elsewhere


# ---- files that are not a study ------------------------------


def test_what_is_no_study_is_named_and_left_out(experiments, capsys):
    write(experiments / "page.py")
    edit(write(experiments / "no_doc.py"), '"""Is it?"""\n', "")
    (experiments / "helper.py").write_text("raise SystemExit('executed')")
    (experiments / "binary.py").write_bytes(b"\xff\x00STUDY")
    (experiments / "syntax.py").write_text("STUDY = (")
    (experiments / "ends.py").write_text("import sys\nSTUDY = 1\nsys.exit(3)")
    (experiments / "empty.py").write_text("")
    os.mkfifo(experiments / "pipe.py")
    assert call("list") == 0
    out = capsys.readouterr().out
    assert "page                     Is it?" in out
    for name in ("no_doc", "helper", "binary", "syntax", "ends", "empty", "pipe"):
        assert out.count(f"{name}.py is left out: ") == 1
    assert "has no docstring, whose first line is the question" in out
    assert "SystemExit: 3 (ends.py, line 3)" in out
    assert len(out.splitlines()) == 8


# what would end a program, and is no `Exception`
ENDS = [
    "raise KeyboardInterrupt",
    "raise KeyboardInterrupt('mine')",
    "raise SystemExit",
    "raise SystemExit(0)",
    "raise GeneratorExit",
    "raise BaseException('mine')",
    "import asyncio; raise asyncio.CancelledError",
    "import sys; sys.exit('no')",
    "raise type('Own', (BaseException,), {})('mine')",
    "raise ss.errors.SgdstudyError('ours')",
]
# no error of these can say what it is
UNSAID = [
    "raise type('E', (Exception,), {'__str__': lambda self: 1 / 0})",
    "raise type('E', (Exception,), {'__str__': lambda self: 7})",
    "raise type('E', (ss.InputError,), {'__str__': lambda self: 1 / 0})('')",
]


@pytest.mark.parametrize("how", ENDS + UNSAID[:2])
def test_a_script_that_would_end_the_program_when_it_is_loaded_is_left_out(
    experiments, capsys, how
):
    """As it was seen: KeyboardInterrupt in one script ended `sgdstudy list`."""
    write(experiments / "ends.py", imports=f"import sgdstudy.errors\n{how}")
    write(experiments / "page.py")
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    assert call("list") == 0
    out = capsys.readouterr().out
    assert "page                     Is it?" in out
    assert out.count("ends.py is left out: ") == 1
    assert "(ends.py, line 4)" in out
    assert call("run", "ends") == 2
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


@pytest.mark.parametrize("how", ENDS[::3] + UNSAID[:1])
@pytest.mark.parametrize("where", ["arms", "claims", "answer", "figures", "options"])
def test_a_function_that_would_end_the_program_is_one_line(experiments, store, capsys, how, where):
    path = write(experiments / "page.py", imports="import sgdstudy.errors")
    if where == "figures":
        drawn = "yield 'a.png', ss.figures.loss_by_epoch(runs)"
        end = f"def figures(runs):\n    {drawn}\n    {how}\n\n\nSTUDY ="
        edit(path, "STUDY =", end)
    elif where == "options":
        own = (
            f"class Options(ss.Options):\n    def __post_init__(self):\n        {how}\n\n\nSTUDY ="
        )
        edit(path, "STUDY =", own)
    else:
        head = next(line for line in path.read_text().splitlines() if f"def {where}(" in line)
        edit(path, head, f"{head}\n    {how}")
    code = call("run", "page", "--store", store)
    said = capsys.readouterr()
    if where == "figures":
        assert code == 0
        assert "a figure after a.png is left out: " in said.out
    else:
        assert code == 2
        assert said.err.startswith(
            f"error: {'the options' if where == 'options' else where} of page"
        )
        assert said.err.count("\n") == 1
    assert "page.py, line" in said.out + said.err


def test_an_error_of_ours_that_cannot_say_what_it_is_is_one_line(experiments, capsys):
    path = write(experiments / "page.py")
    head = next(line for line in path.read_text().splitlines() if "def arms(" in line)
    edit(path, head, f"{head}\n    {UNSAID[2]}")
    assert call("run", "page") == 2
    assert capsys.readouterr().err == "error: no message\n"


@pytest.mark.parametrize("where", ["load", "arms", "answer"])
def test_ctrl_c_of_the_user_ends_it_at_once(experiments, store, where):
    """It comes as the same error, in the middle of the script's code."""
    press = "import os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(60)"
    path = write(experiments / "a_page.py", imports=press if where == "load" else "")
    write(experiments / "b_page.py", imports="raise SystemError('not reached')")
    if where != "load":
        head = next(line for line in path.read_text().splitlines() if f"def {where}(" in line)
        edit(path, head, f"{head}\n    {press}")
    began = time.monotonic()
    assert call(*(["list"] if where == "load" else ["run", "a_page", "--store", store])) == 130
    assert time.monotonic() - began < 50


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "how"), [("arms", ENDS[0]), ("claims", "1 / 0"), ("answer", ENDS[4])]
)
def test_a_study_that_fails_keeps_no_other_from_running(experiments, store, capsys, where, how):
    path = write(experiments / "a_page.py")
    write(experiments / "b_page.py")
    head = next(line for line in path.read_text().splitlines() if f"def {where}(" in line)
    edit(path, head, f"{head}\n    {how}")
    assert call("study", "--store", store, "--jobs", "1") == 1
    out = capsys.readouterr().out
    assert out.count(f"a_page is left out: {where} of a_page failed: ") == 1
    assert "1 study" in out
    assert ss.load_runs("b_page", store=store).status.tolist() == ["FINISHED"]


@pytest.mark.slow
@pytest.mark.parametrize(("strict", "code"), [([], 1), (["--no-strict"], 0)])
def test_study_runs_the_others_and_ends_red(experiments, store, capsys, strict, code):
    write(experiments / "page.py")
    (experiments / "syntax.py").write_text("STUDY = (")
    assert call("study", "--store", store, "--jobs", "1", *strict) == code
    out = capsys.readouterr().out
    assert "syntax.py is left out" in out
    assert "1 study" in out


def test_a_script_that_runs_itself_is_only_loaded(experiments, capsys):
    """Without `if __name__ == "__main__"`."""
    write(experiments / "page.py", end="STUDY.main()")
    assert load_study("page").question == "Is it?"


# ---- what can be known before anything runs ------------------------------


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("def claims(o, runs)", "def claims(o)", "claims of page is called with options, runs"),
        ("def claims(o, runs)", "async def claims(o, runs)", "write def, not async def"),
        ("def answer(o,", "async def answer(o,", "write def, not async def"),
        ("def arms(o)", "async def arms(o)", "write def, not async def"),
        ("def claims(o, runs)", "def claims(runs, *, o)", "claims of page is called with"),
        ("def answer(o, runs, claims)", "def answer(o, runs)", "answer of page is called with"),
        ("STUDY =", "def show(o, runs):\n    yield 'a'\nSTUDY =", "show of page returns a text"),
        ("STUDY =", "short = 'yes'\nSTUDY =", "short of page is a function of options, runs, cl"),
        ("return []", 'return [ss.Claim("a", "arm", 1, expcted=1)]', "did you mean 'expected'"),
        ("STUDY =", "figures = lambda: []\nSTUDY =", "figures of page is called with runs"),
        ("STUDY =", "show = 3\nSTUDY =", "show of page is a function of options, runs, not 3"),
        ("STUDY =", "figures = {'../a.png': len}\nSTUDY =", "a plain file name"),
        ("STUDY =", "tables = {'a.csv': lambda o: 1}\nSTUDY =", "a.csv of page is called with"),
        ("STUDY =", "charts = [1]\nSTUDY =", "charts are a dict, as {"),
        ("STUDY =", "charts = {'a\\n': 'batch/loss'}\nSTUDY =", "the title of a chart"),
        (
            "STUDY =",
            "charts = {'a': ['batch/loss']}\nSTUDY =",
            "the chart 'a' shows one metric, not",
        ),
        ("STUDY =", "charts = {'a': []}\nSTUDY =", "the chart 'a' shows one metric, not"),
        (
            "STUDY =",
            "charts = {'a': 'loss'}\nSTUDY =",
            "unknown metric of the chart 'a': 'loss'; did you mean 'batch/loss'? Valid: batch/loss",
        ),
        (
            "STUDY =",
            "charts = {'a': 'epoch/mean_los_p90'}\nSTUDY =",
            "did you mean 'epoch/mean_loss'",
        ),
        ("STUDY =", "charts = {'a': 3}\nSTUDY =", "unknown metric of the chart 'a': 3."),
        ("STUDY =", "charts = {'a': 'batch/w7'}\nSTUDY =", "there is no parameter w7"),
        (
            "1e-4",
            "1e-4 / 0",
            "arms of page failed: ZeroDivisionError: float division by zero (page.py",
        ),
        ("def arms(o)", "def arms()", "arms of page is called with options"),
        pytest.param(
            *('yield "arm"', 'for i in range(10**9):\n        yield f"{i}"'),
            "more than 10,000 arms",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_mistake_in_a_script_shows_before_the_training(experiments, store, old, new, says):
    path = write(experiments / "page.py")
    edit(path, old, new)
    if "10**9" in new:
        edit(path, '"curve"', "CURVE")
        edit(path, "def arms", 'CURVE = ss.problems.get("curve")\n\n\ndef arms')
    assert says in refusal(store)
    assert open_store(store).client.get_experiment_by_name("page") is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "return []",
            "return [runs['none']]",
            "claims of page failed: KeyError: 'none' (page.py, line",
        ),
        ("return []", "return [1]", "the claims of page are ss.Claim, not 1"),
        ("return []", "return None", "claims of page yields ss.Claim, or returns a list of them"),
        ('return "Is it?"', "return 3", "the answer of page is a text, not 3"),
        ('return "Is it?"', "return claims['x'][0]", "0 claims are called 'x'"),
    ],
)
def test_what_only_shows_after_it_is_one_line_with_its_place(experiments, store, old, new, says):
    path = write(experiments / "page.py")
    edit(path, old, new)
    assert says in refusal(store)
    assert ss.load_runs("page", store=store).status.tolist() == ["FINISHED"]


def test_a_file_that_is_far_too_long_for_a_script_is_not_read(tmp_path):
    path = tmp_path / "long.py"
    with open(path, "wb") as file:
        file.truncate(300_000_000)
    script = tmp_path / "script.py"
    script.write_text("import long\nSTUDY = 1\n")
    tracemalloc.start()
    try:
        assert not helpers.declares_study(path)
        assert helpers.declares_study(script)
        assert list(helpers.files_of(script)) == ["script.py", "long.py"]
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


PARTS = {
    "tables a function": ("def tables(o, runs): yield {}", "tables of page are a dict"),
    "tables a list": ("tables = [('t.csv', print)]", "tables of page are a dict"),
    "tables None": ("tables = None", "tables of page are a dict"),
    "figures a list": ("figures = [print]", "figures of page are a dict"),
    "figures None": ("figures = None", "figures of page are a dict"),
    "ask a list": ("ask = ['a']", "ask of page are a dict"),
    "plain options": ("class Options:\n    lr: float = 0.1", r"class Options\(ss.Options\)"),
    "options a function": ("def Options(): pass", r"class Options\(ss.Options\)"),
    "an option of numpy": ("import numpy\nV = numpy.float32(0.5)", "option value is a number"),
    "a path": ("import pathlib\nV = pathlib.Path('x')", "option value is a number"),
    "a tensor": ("import torch\nV = torch.tensor(0.5)", "option value is a number"),
}


@pytest.mark.parametrize(("text", "says"), PARTS.values(), ids=PARTS)
def test_a_part_of_the_wrong_kind_is_one_line_when_the_script_is_read(tmp_path, text, says):
    if "V =" in text:
        text += "\nclass Options(ss.Options):\n    value: float = V\n"
    path = write(tmp_path / "page.py", imports=text)
    with pytest.raises(ss.InputError, match=says) as error:
        load_study(str(path))
    assert one_line(error)


def test_a_value_of_an_option_that_no_run_could_keep_is_one_line_before_anything_runs(
    tmp_path, store
):
    text = "class Options(ss.Options):\n    value: float = 0.5\n"
    study = load_study(str(write(tmp_path / "page.py", imports=text)))
    with pytest.raises(ss.InputError, match="option value is a number") as error:
        study.run(study.chosen(value=1j, store=store))
    assert one_line(error)


# ---- filters of warnings -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("first", ["import warnings", "import torch, warnings"])
def test_warnings_that_a_script_makes_errors_end_no_run(experiments, store, first):
    """As it was seen: a traceback while MLflow is imported, and the other study is lost too."""
    end = "if __name__ == '__main__':\n    STUDY.main()"
    errors = f'{first}\nwarnings.simplefilter("error")'
    path = write(experiments / "page.py", imports=errors, end=end)
    write(experiments / "one.py")
    before = list(warnings.filters)
    load_study("page")
    added = [each for each in warnings.filters if each not in before]
    assert not [each for each in added if each[0] == "error"]
    text = path.read_text().replace("import sgdstudy as ss\n", "", 1)
    path.write_text(text.replace(errors, f"{errors}\nimport sgdstudy as ss"))
    for words in (["-m", "sgdstudy", "run", "page", "one"], [str(path)]):
        made = subprocess.run(
            [sys.executable, *words, "--store", store], capture_output=True, text=True
        )
        assert (made.returncode, made.stderr) == (0, "")
