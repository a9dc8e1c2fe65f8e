"""The pages name what is there: modules, names in them, files, tests, links, commands."""

import ast
import functools
import re
import runpy
from importlib import import_module
from pathlib import Path

import pytest

import sgdstudy as ss
from sgdstudy.cli.commands import COMMANDS
from sgdstudy.tracking.provenance import process_tags

PACKAGE = Path(ss.__file__).parent
ROOT = PACKAGE.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = [
    path
    for folder in ("tests", "benchmarks", "docs", "experiments")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
FOLDERS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
DOTTED = re.compile(r"(?<![\w./-])sgdstudy(?:\.[A-Za-z_]\w*)+")
FILE = re.compile(r"(?<![\w./-])((?:\w+/)*\w+\.py)\b(?:::(\w+))?")
IMPORT = re.compile(
    r"^\s*(?:from (sgdstudy[.\w]*) import \(?([\w, ]+)|import (sgdstudy[.\w]*))", re.M
)


def found(name):
    """Whether a dotted name is a module of ours, or something in one."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        path = PACKAGE.joinpath(*parts[1:n])
        if path.with_suffix(".py").exists() or (path / "__init__.py").exists():
            value = import_module(".".join(parts[:n]))
            for part in parts[n:]:
                if not hasattr(value, part):
                    return False
                value = getattr(value, part)
            return True
    return False


@functools.cache
def tags():
    """The tags that the package writes, which look like modules: `sgdstudy.key`."""
    texts = {
        node.value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    plain = {text for text in texts if re.fullmatch(r"sgdstudy\.\w+", text)}
    return plain | set(process_tags())


def read(page):
    return page.read_text(encoding="utf-8")


def by_name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("name", ["sgdstudy.trainer", "sgdstudy.store.open", "sgdstudy.text.shwo"])
def test_what_is_not_there_is_not_found(name):
    assert not found(name)
    assert found("sgdstudy.text.written")


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_modules_are_there(page):
    named = set(DOTTED.findall(read(page))) - tags()
    assert [name for name in sorted(named) if not found(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_files_and_tests_are_there(page):
    """A path begins at the root, or at a folder of the package."""
    missing = []
    for path, test in FILE.findall(read(page)):
        first = path.split("/")[0]
        if first not in FOLDERS | {"sgdstudy", "tests", "benchmarks", "experiments", "docs"}:
            continue
        file = (PACKAGE if first in FOLDERS else ROOT) / path
        if not file.exists() or (test and f"def {test}(" not in read(file)):
            missing.append((path, test))
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", read(page))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_every_picture_is_shown_and_made_by_a_command():
    """By docs/pictures.py, but for those that come with their page's own command."""
    made = runpy.run_path(str(ROOT / "docs/pictures.py"))
    own = {
        "benchmark.png": ("benchmark.md", "make bench"),
        "sweep.png": ("sweeps.md", "sgdstudy sweep"),
    }
    names = {*made["PAGES"], *(f"{study}.png" for study in made["FIGURES"]), *own}
    assert {path.name for path in (ROOT / "docs").glob("*.png")} == names
    for name, (beside, command) in own.items():
        assert f"({name})" in read(ROOT / "docs" / beside)
        assert command in read(ROOT / "docs" / beside)
    shown = {}
    for page in PAGES:
        for said, place in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", read(page)):
            shown[(page.parent / place).resolve()] = said
    assert {path.name for path in shown} == names
    assert all(len(said) > 15 for said in shown.values())
    assert "docs/pictures.py" in read(ROOT / "CONTRIBUTING.md")


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_commands_are_there(page):
    targets = re.findall(r"^(\w+):", read(ROOT / "Makefile"), re.M)
    made = re.findall(r"(?:^|`)make (\w+)", read(page), re.M)
    assert set(made) <= set(targets)
    run = re.findall(r"(?:^\S*/|^|`)sgdstudy ([a-z]+)\b", read(page), re.M)
    assert [word for word in run if word not in COMMANDS] == []


def test_without_make_the_same_commands_are_typed():
    """Each line of the Makefile's targets for users stands in the README, as on Windows."""
    typed = read(ROOT / "README.md").replace("\\", "/").replace(".venv/Scripts/", "$(BIN)/")
    typed = typed.replace("python -m ", "")
    makefile = read(ROOT / "Makefile").replace("--quiet --disable-pip-version-check ", "")
    own = ("study", "test", "types", "types-of-tests", "quick", "ui", "notebook")
    for target in (*own, r"\$\(VENV\)/\.notebook"):
        (lines,) = re.findall(rf"^{target}: .*\n((?:\t.*\n)+)", makefile, re.M)
        for line in lines.split("\n"):
            if "open(" not in line and "$(MAKE)" not in line:
                assert line.strip().replace("python -m ", "") in typed, (target, line)


def test_the_way_of_a_problem_is_by_real_functions():
    """Each step of architecture.md names a file and what to read in it: `file.py`: `Name`."""
    steps = re.findall(r"`sgdstudy/([\w/]+)\.py`: `([\w.]+)`", read(ROOT / "docs/architecture.md"))
    assert len(steps) > 20
    for file, name in steps:
        module = f"sgdstudy.{file.replace('/', '.').removesuffix('.__init__')}"
        assert found(f"{module}.{name}"), (file, name)


def test_the_spine_drawn_is_the_spine_held():
    """The boxes of architecture.md, from top to bottom, are the layers of lint-imports."""
    text = read(ROOT / "docs/architecture.md")
    boxes = re.findall(r'^ {4}\w+\["(.*)"\]$', text, re.M)
    drawn = [name for box in boxes for name in re.findall(r"<b>(\w+)</b>", box)]
    config = read(ROOT / "pyproject.toml")
    layers = re.search(r"^layers = \[(.*?)^\]", config, re.S | re.M)[1]
    assert drawn == re.findall(r"\w+", layers)
    assert set(drawn) >= FOLDERS - {"compiled"}


@pytest.mark.parametrize("path", CODE, ids=by_name)
def test_what_code_imports_is_there_also_in_code_within_a_text(path):
    missing = []
    for module, names, alone in IMPORT.findall(read(path)):
        if alone:
            missing += [alone] * (not found(alone))
        for name in re.findall(r"\w+", names.split(" as ")[0]):
            full = f"{module}.{name}"
            missing += [full] * (not found(full))
    assert missing == []


def test_every_script_is_listed():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    studies = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    for path in (ROOT / "experiments").glob("*.py"):
        assert f"| `{path.stem}` |" in readme, path.stem
        assert path.stem.startswith("ex") or f"| `{path.stem}` |" in studies, path.stem
