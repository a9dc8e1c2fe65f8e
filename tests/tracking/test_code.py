"""Which code ran: the script's repository, copies and hashes of script and helpers, the diff."""

import os
import subprocess
import sys
import zipfile
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

import sgdstudy as ss
from sgdstudy.studies import helpers
from sgdstudy.studies.rerun import rerun
from sgdstudy.studies.scripts import load_study
from sgdstudy.sweeps import grid, sweep
from sgdstudy.tracking import code
from sgdstudy.tracking.code import CODE, COMMIT, DIFF, LONGEST_DIFF, PACKAGE, Code
from sgdstudy.tracking.runs import artifact, find_run
from sgdstudy.tracking.store import open_store

SCRIPT = '''"""Whose commit is it?"""
import sgdstudy as ss
from _common import EPOCHS


def arms(o):
    yield "arm", ss.Arm("curve", lr=1e-4, batch_size=200, epochs=EPOCHS)


def claims(o, runs):
    return []


def answer(o, runs, claims):
    return "The script's."


STUDY = ss.study(__name__)
'''


def git(folder, *words):
    name = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    made = subprocess.run(
        ["git", *name, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return made.stdout.strip()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with a script and a helper, all committed; it is the current folder."""
    for variable in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(variable)
    folder = tmp_path / "project"
    (folder / "experiments").mkdir(parents=True)
    (folder / "experiments" / "page.py").write_text(SCRIPT)
    (folder / "experiments" / "_common.py").write_text("EPOCHS = 1\n")
    (folder / "notes.txt").write_text("a\n")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    monkeypatch.chdir(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__spec__", "")):
            del sys.modules[name]


def script_of(project):
    return project / "experiments" / "page.py"


def test_git_is_asked_where_the_script_lies_whatever_the_environment_says(project, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(Path(ss.__file__).parents[1] / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(Path(ss.__file__).parents[1]))
    monkeypatch.chdir("/")
    tags = helpers.code_of(script_of(project)).tags
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_WORK_TREE")
    assert tags[COMMIT] == git(project, "rev-parse", "HEAD")
    assert tags["sgdstudy.git_changed"] == "false"
    assert tags["sgdstudy.version"] == ss.__version__
    assert len(tags[CODE]) == len(tags[PACKAGE]) == 16


def test_a_script_outside_any_repository_has_no_commit(tmp_path):
    (tmp_path / "page.py").write_text(SCRIPT)
    found = Code.of(tmp_path / "page.py")
    assert COMMIT not in found.tags
    assert CODE in found.tags
    gone = Code.of(tmp_path / "none" / "page.py")
    assert CODE not in gone.tags
    assert COMMIT not in gone.tags


@pytest.mark.parametrize(
    ("file", "text", "same", "changed"),
    [
        ("experiments/page.py", SCRIPT + "\n", False, "true"),
        ("experiments/_common.py", "EPOCHS = 2\n", False, "true"),
        ("experiments/other.py", "", True, "false"),
        ("notes.txt", "b\n", True, "true"),
    ],
)
def test_the_same_code_is_that_of_script_and_helpers(project, file, text, same, changed):
    before = helpers.code_of(script_of(project))
    (project / file).write_text(text)
    after = helpers.code_of(script_of(project))
    assert (before.same == after.same) is same
    assert after.tags["sgdstudy.git_changed"] == changed
    assert ("+" in after.diff) is (changed == "true" and file.endswith(".py"))
    git(project, "add", ".")
    git(project, "commit", "--allow-empty", "-m", "second")
    assert helpers.code_of(script_of(project)).same == after.same
    assert helpers.code_of(script_of(project)).tags[COMMIT] != before.tags[COMMIT]


@pytest.mark.parametrize("split", [[], ["--split-index"]])
@pytest.mark.parametrize(
    "marks",
    [["--assume-unchanged"], ["--skip-worktree"], ["--skip-worktree", "--assume-unchanged"]],
)
@pytest.mark.parametrize("file", ["experiments/page.py", "experiments/_common.py", "é.py"])
def test_what_git_was_told_to_overlook_is_told(project, file, marks, split):
    """As it was seen: "unchanged" of a script with another step size."""
    (project / "é.py").write_text("x = 1\n")
    git(project, "add", ".")
    git(project, "commit", "-m", "second")
    for mark in (*split, *marks):
        git(project, "update-index", mark, *([file] if mark in marks else []))
    index = (project / ".git" / "index").read_bytes()
    shared = sorted((project / ".git").iterdir())
    assert helpers.code_of(script_of(project)).tags["sgdstudy.git_changed"] == "false"
    (project / file).write_text((project / file).read_text() + "# changed\n")
    found = helpers.code_of(script_of(project))
    assert found.tags["sgdstudy.git_changed"] == "true"
    assert "+# changed" in found.diff
    assert (project / ".git" / "index").read_bytes() == index
    assert sorted((project / ".git").iterdir()) == shared


@pytest.mark.parametrize(
    ("mark", "told"), [("--assume-unchanged", "true"), ("--skip-worktree", "false")]
)
def test_of_files_to_overlook_that_are_gone_those_of_a_sparse_checkout_are_none(
    project, mark, told
):
    git(project, "update-index", mark, "notes.txt")
    (project / "notes.txt").unlink()
    assert helpers.code_of(script_of(project)).tags["sgdstudy.git_changed"] == told


class Editable:
    """Finds a package as `pip install -e` lets it be found: by a finder of its own."""

    def __init__(self, folder):
        self.folder = folder

    def find_spec(self, name, path=None, target=None):
        return PathFinder.find_spec(name, [str(self.folder)]) if path is None else None


OWN = ("further", "helper", "outside", "large", "parts", "spaced")  # modules that tests make


@pytest.fixture(autouse=True)
def none_of_another_test():
    """Let modules of these names be found where the test puts them."""

    def forget():
        for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
            del sys.modules[name]

    forget()
    yield
    forget()


LAZY = '    import sys; sys.path.insert(0, {!r})\n    import {}\n    yield "arm"'
IMPORTS = {"helper": "helper", "package": "parts.values", "namespace": "spaced.values"}
PLACED = [
    "sys.path of the script",
    "sys.path when its arms are built",
    "PYTHONPATH",
    "pip install -e",
]


@pytest.mark.parametrize("placed", PLACED)
@pytest.mark.parametrize("kind", IMPORTS)
def test_the_code_is_that_of_own_modules_in_other_folders_too(project, monkeypatch, placed, kind):
    """As it was seen: `sys.path.insert(0, "../src"); import helper`, and no edit of it was told."""
    name, folder = IMPORTS[kind], project / "src"
    changed = folder / "further.py"
    for file in ("helper.py", "parts/__init__.py", "parts/values.py", "spaced/values.py"):
        (folder / file).parent.mkdir(exist_ok=True, parents=True)
        (folder / file).write_text("import numpy, further\n" if file != "parts/__init__.py" else "")
    changed.write_text("A = 1\n")
    (folder / "unused.py").write_text("")
    script, text = script_of(project), SCRIPT
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    if placed == PLACED[1]:
        text = SCRIPT.replace('    yield "arm"', LAZY.format(str(folder), name))
    elif placed == PLACED[0]:
        text = SCRIPT.replace(
            "import sgd",
            f"import sys\nsys.path.insert(0, {str(folder)!r})\nimport {name}\nimport sgd",
        )
    else:
        text = SCRIPT.replace("import sgd", f"import {name}\nimport sgd")
        if placed == PLACED[2]:
            sys.path.append(str(folder))
        else:
            sys.meta_path.append(Editable(folder))
    script.write_text(text)
    study = load_study(str(script))
    with helpers.beside(script):
        study.placed_arms(study.options())
    before = helpers.code_of(script)
    assert set(before.copies) == {"page.py", "_common.py"}
    found = set(helpers.files_of(script)) - set(before.copies) - {"parts/__init__.py"}
    assert found == {f"{name.replace('.', '/')}.py", "further.py"}
    changed.write_text("A = 2\n")
    assert helpers.code_of(script).tags[CODE] != before.tags[CODE]


WAYS = {  # of importing `parts/val.py`: what the script says, and what `parts/__init__.py` does
    "all": ("from parts import *", "__all__ = ['val']\n__all__ += ['other']"),
    "relative": ("import importlib\nimportlib.import_module('.val', 'parts')", ""),
    "keyword": ("from importlib import import_module\nimport_module(name='parts.val')", ""),
    "own package": ("import parts", "import importlib\nimportlib.import_module('.val', __name__)"),
    "namespace of two folders": ("import parts.val", None),
    "zip": ("import parts.val", ""),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_code_is_that_of_a_module_however_it_is_imported(project, tmp_path, monkeypatch, way):
    says, inside = WAYS[way]
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, file in zip(folders, ("first.py", "val.py"), strict=True):
        (folder / "parts").mkdir(parents=True)
        (folder / "parts" / file).write_text("A = 1\n")
    changed = folders[1] / "parts" / "val.py"
    if inside is not None:
        (folders[1] / "parts" / "__init__.py").write_text(inside)
        folders = folders[1:]

    def write(text):
        changed.write_text(text)
        with zipfile.ZipFile(tmp_path / "own.zip", "w") as file:
            for path in sorted((tmp_path / "two").rglob("*.py")):
                file.write(path, path.relative_to(tmp_path / "two"))

    write("A = 1\n")
    places = [tmp_path / "own.zip"] if way == "zip" else folders
    monkeypatch.setattr(sys, "path", [*map(str, places), *sys.path])
    script = script_of(project)
    script.write_text(SCRIPT.replace("import sgd", f"{says}\nimport sgd"))
    before = helpers.code_of(script)
    assert set(before.copies) == {"page.py", "_common.py"}
    write("A = 2\n")
    assert helpers.code_of(script).tags[CODE] != before.tags[CODE]


def test_what_pip_put_into_a_folder_of_ours_is_not_the_users_own(project, tmp_path, monkeypatch):
    """Not even looked through: that took 12 s with a large package."""
    (tmp_path / "target" / "large-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "target" / "large.py").write_text("A = 1\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "target"), *sys.path])
    script = script_of(project)
    script.write_text(SCRIPT.replace("import sgd", "import large\nimport sgd"))
    assert set(helpers.files_of(script)) == {"page.py", "_common.py"}


@pytest.mark.parametrize("known", [True, False])
def test_a_helper_outside_the_repository_hides_no_change(project, tmp_path, monkeypatch, known):
    """As it was seen: git refuses paths of other places, and nothing was known of any."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "outside.py").write_text("A = 1\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "elsewhere"), *sys.path])
    script = script_of(project)
    script.write_text(SCRIPT.replace("import sgd", "import outside\nimport sgd"))
    git(project, "commit", "-a", "-m", "second")
    if not known:
        script = script.with_name("new.py")
        script.write_text(SCRIPT.replace("import sgd", "import outside\nimport sgd"))
    changed = helpers.code_of(script).tags["sgdstudy.git_changed"]
    assert changed == ("false" if known else "true")


@pytest.mark.slow
def test_the_code_is_the_same_however_a_script_is_called(project, store):
    (project / "src").mkdir()
    (project / "src" / "helper.py").write_text("A = 1\n")
    script, way = script_of(project), f"import sys\nsys.path.insert(0, {str(project / 'src')!r})\n"
    main = '\nif __name__ == "__main__":\n    STUDY.main()\n'
    script.write_text(SCRIPT.replace("import sgd", f"{way}import helper\nimport sgd") + main)
    environment = {**os.environ, "PYTHONPATH": str(Path(ss.__file__).parents[1])}
    for words in ([script], ["-m", "sgdstudy", "run", "page"]):
        given = [sys.executable, *words, "--store", store]
        subprocess.run(given, env=environment, capture_output=True, check=True)
    given = "import sgdstudy as ss; ss.run('page', store=sys.argv[1], jobs=2)"
    given = [sys.executable, "-c", f"import sys\n{given}", store]
    subprocess.run(given, env=environment, capture_output=True, check=True)
    opened = open_store(store)
    ids = ss.load_runs("page", invocation="all", store=store).run_id
    assert len(ids) == 3
    assert len({find_run(opened, run_id).tags[CODE] for run_id in ids}) == 1


def test_a_script_that_git_does_not_know_counts_as_changed(project):
    (project / "experiments" / "new.py").write_text(SCRIPT)
    tags = helpers.code_of(project / "experiments" / "new.py").tags
    assert tags["sgdstudy.git_changed"] == "true"
    (project / ".gitignore").write_text("*.py\n")
    assert helpers.code_of(project / "experiments" / "new.py").tags == tags


def test_the_diff_is_bounded_and_holds_no_password(project):
    (project / "experiments" / "_common.py").write_text(
        "EPOCHS = 1\nURL = 'https://ada:s3cret@host/x'\nDB_PASSWORD = \"s3cret\"\n"
        'CFG: dict = {"api_key": "s3cret", "key": "loss"}\n' + "# line\n" * 100_000
    )
    found = helpers.code_of(script_of(project))
    assert "+URL = 'https://host/x'\n+DB_PASSWORD = ...\n" in found.diff
    assert '+CFG: dict = {"api_key": ..., "key": ...}\n' in found.diff
    assert "s3cret" not in found.diff
    assert len(found.diff) < LONGEST_DIFF + 100
    assert "... cut: " in found.diff[-50:]


@pytest.mark.parametrize(
    "setting",
    ["diff.relative=true", "diff.orderFile=none", "diff.external=false", "core.attributesFile=as"],
)
def test_no_setting_of_git_keeps_a_change_from_the_diff(project, setting):
    """As it was seen: the diff lacked what is not in the script's folder, or there was none."""
    (project / "package.py").write_text("a = 1\n")
    (project / "as").write_text("*.py -diff\n")
    git(project, "add", "package.py")
    git(project, "commit", "-m", "second")
    (project / "package.py").write_text("a = 2\n")
    (project / "experiments" / "_common.py").write_text("EPOCHS = 2\n")
    name, value = setting.split("=")
    git(project, "config", name, str(project / "as") if value == "as" else value)
    found = helpers.code_of(script_of(project))
    assert found.tags["sgdstudy.git_changed"] == "true"
    assert "+a = 2" in found.diff
    assert "+EPOCHS = 2" in found.diff


@pytest.mark.parametrize("setting", ["", "diff.ignoreSubmodules", "submodule.a b.ignore"])
def test_the_diff_is_that_of_submodules_too(project, tmp_path, setting):
    """As it was seen: what was not committed in one was told by nothing."""
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    for folder in (inner, outer):
        folder.mkdir()
        git(folder, "init")
        for file in ("m.py", "text.txt"):
            (folder / file).write_text("A = 1\n")
    for folder, within, place in ((inner, outer, "deep"), (outer, project, "a b")):
        git(folder, "add", ".")
        git(folder, "commit", "-m", "first")
        allowed = ("-c", "protocol.file.allow=always")
        git(within, *allowed, "submodule", "add", str(folder), place)
    git(project, "commit", "-m", "second")
    git(project, *allowed, "submodule", "update", "--init", "--recursive")
    assert helpers.code_of(script_of(project)).tags["sgdstudy.git_changed"] == "false"
    if setting:
        git(project, "config", setting, "all")
    for folder in (project / "a b", project / "a b" / "deep"):
        for file in ("m.py", "text.txt"):
            (folder / file).write_text(f"{folder.name} = 2\n")
    found = helpers.code_of(script_of(project))
    assert found.tags["sgdstudy.git_changed"] == "true"
    assert [line for line in found.diff.splitlines() if line.startswith("+")] == [
        *("+++ b/a b\t", f"+Subproject commit {git(project / 'a b', 'rev-parse', 'HEAD')}-dirty"),
        *("+++ b/a b/deep\t", f"+Subproject commit {git(inner, 'rev-parse', 'HEAD')}-dirty"),
        *("+++ b/a b/m.py\t", "+a b = 2", "+++ b/a b/deep/m.py\t", "+deep = 2"),
    ]
    git(project, "mv", "a b", "moved")
    assert "\n+a b = 2" in helpers.code_of(script_of(project)).diff
    git(project, "mv", "moved", "a b")
    git(project / "a b" / "deep", "checkout", ".")
    git(project / "a b", "commit", "-a", "-m", "third")
    diff = helpers.code_of(script_of(project)).diff
    assert f"+Subproject commit {git(project / 'a b', 'rev-parse', 'HEAD')}\n" in diff


TOLD_OF_ANOTHER = [
    "fatal: detected dubious ownership in repository at '{}'\nTo add an exception\n\n\tgit config",
    "fatal: unsafe repository ('{}' is owned by someone else)\nTo add an exception",
]


@pytest.mark.parametrize("told", TOLD_OF_ANOTHER)
def test_a_repository_of_another_user_is_said_once(project, tmp_path, monkeypatch, caplog, told):
    """As it was seen: no commit, without a word."""
    text = told.format(tmp_path / "it's").encode()

    def refuses(words, **named):
        raise subprocess.CalledProcessError(128, words, stderr=text)

    monkeypatch.setattr(code.subprocess, "run", refuses)
    code._say_of_another.cache_clear()
    for _ in range(2):
        assert COMMIT not in helpers.code_of(script_of(project)).tags
    (line,) = caplog.messages
    assert line.startswith(f"git tells no commit of {tmp_path}/it's, which belongs to another")
    assert "git config --global --add safe.directory" in line


@pytest.mark.parametrize("failing", ["status", "ls-files", "diff"])
def test_what_git_does_not_tell_keeps_back_nothing_else(project, monkeypatch, failing):
    """As it was seen: one call that failed, and the commit was not recorded either."""
    real = subprocess.run

    def run(words, **named):
        if failing in words:
            raise subprocess.TimeoutExpired("git", 10)
        return real(words, **named)

    monkeypatch.setattr(code.subprocess, "run", run)
    same = helpers.code_of(script_of(project))
    assert same.tags[COMMIT]
    assert same.tags["sgdstudy.git_changed"] == ("false" if failing == "diff" else "unknown")
    (project / "experiments" / "_common.py").write_text("EPOCHS = 2\n")
    found = helpers.code_of(script_of(project))
    assert found.tags["sgdstudy.git_changed"] == ("unknown" if failing == "status" else "true")
    assert {"status": not found.diff, "ls-files": "+EPOCHS = 2" in found.diff}.get(
        failing, "git does not tell" in found.diff
    )


def test_a_broken_index_keeps_the_commit(project):
    (project / ".git" / "index").write_bytes(b"none")
    tags = helpers.code_of(script_of(project)).tags
    assert len(tags[COMMIT]) == 40
    assert tags["sgdstudy.git_changed"] == "unknown"


def test_a_git_that_hangs_or_is_not_there_is_done_without(project, monkeypatch):
    for error in (subprocess.TimeoutExpired("git", 1), FileNotFoundError("git")):

        def fails(*given, error=error, **named):
            raise error

        monkeypatch.setattr(code.subprocess, "run", fails)
        found = helpers.code_of(script_of(project))
        assert COMMIT not in found.tags
        assert CODE in found.tags


@pytest.mark.slow
def test_every_run_of_a_study_keeps_its_code(project, store):
    (project / "experiments" / "_common.py").write_text("EPOCHS = 2\n")
    result = ss.run("page", store=store)
    opened = open_store(store)
    texts = {"page.py": SCRIPT, "_common.py": "EPOCHS = 2\n"}
    for run_id in result.run_ids.values():
        run = find_run(opened, run_id)
        assert run.tags[COMMIT] == git(project, "rev-parse", "HEAD")
        for name, text in texts.items():
            assert artifact(opened, run, name).read_text() == text
        assert "+EPOCHS = 2" in artifact(opened, run, DIFF).read_text()
    git(project, "add", ".")
    git(project, "commit", "-m", "second")
    said = []
    assert rerun(result.run_ids["arm"], store=store, say=said.append).changed == []
    (project / "experiments" / "_common.py").write_text("EPOCHS = 2  # epochs\n")
    found = rerun(result.run_ids["arm"], store=store, say=said.append)
    assert found.difference is None
    assert [line.partition(":")[0] for line in found.changed] == [CODE, "files"]
    assert found.changed[1] == "files: _common.py"


@pytest.mark.slow
def test_a_sweep_goes_on_with_what_the_same_code_did(project, store):
    def swept():
        study = load_study("page")
        axes = grid.parse(["lr=1e-4,2e-4"])
        plan = sweep.Plan.of(study, study.options(store=store), None, axes, "epochs")
        return sweep.run(plan, resume=True).skipped

    assert swept() == 0
    opened = open_store(store)
    runs = ss.load_runs("page_sweep", store=store)
    kept = [artifact(opened, find_run(opened, run_id), "page.py") for run_id in runs.run_id]
    assert [path is None for path in kept] == [False, True]
    (project / "notes.txt").write_text("b\n")
    git(project, "commit", "-a", "-m", "notes")
    assert swept() == 2
    (project / "experiments" / "_common.py").write_text("EPOCHS = 1  # epoch\n")
    assert swept() == 0
