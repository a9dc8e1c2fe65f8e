"""The texts that are to be translated, and the file of a language brought up to date.

`python -m sgdstudy.cli.catalogue fr` adds to `locale/fr.po` what the code says and the file does
not have yet, with an empty translation, and drops what is said no more; see docs/languages.md.
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sgdstudy import language
from sgdstudy.language import ENGLISH, LOCALE, catalogue, checked, entries, forms_of, plain
from sgdstudy.studies.scripts import find_scripts

PACKAGE = Path(__file__).parents[1]
SAID = ("say", "to_say")
IN_TEMPLATE = re.compile(r'\bsay\("((?:[^"\\]|\\.)*)"(?:, "((?:[^"\\]|\\.)*)")?')
PLACES = {
    "Arm": 1,
    "but": 0,
    "Claim": 5,
    "Column": 2,
    "Known": 2,
}  # of such a text among the arguments
WIDE = 88  # columns of a line in a .po file


@dataclass
class Text:
    """A text of the code: its form for several, if numbers change it, and the files that say it."""

    many: str = ""
    files: list[str] = field(default_factory=list)


def texts() -> dict[str, Text]:
    """Return what the package and the nearest `experiments/` say, in English, in their order."""
    found: dict[str, Text] = {}
    scripts = list(find_scripts().values())
    pages = [path for script in scripts[:1] for path in sorted(script.parent.rglob("*.py"))]
    for path in [*pages, *sorted(PACKAGE.rglob("*.py"))]:
        for one, many in _of_code(path, path in scripts):
            _note(found, path, one, many)
    for path in sorted(PACKAGE.rglob("*.html")):
        for one, many in IN_TEMPLATE.findall(path.read_text(encoding="utf-8")):
            _note(found, path, one, many)
    return found


def _note(found: dict[str, Text], path: Path, one: str, many: str) -> None:
    text = found.setdefault(plain(one), Text())
    text.many = text.many or plain(many)
    text.files += [path.name] * (path.name not in text.files)


def _of_code(path: Path, is_script: bool) -> Iterator[tuple[str, str]]:
    """Yield the texts of a file: what it says, its options, of a script also its questions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if is_script:
        yield from ((text, "") for text in _of_script(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Options", "Command")):
            yield from ((text, "") for text in _of_options(node))
    yield from ((text, "") for text in _of_calls(tree))
    said = _imported(tree) | ({"say"} if path == Path(language.__file__) else set())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in said and node.args:
            one, many = (*map(_literal, node.args[:2]), "")[:2]
            if one:
                yield one, many


def _of_script(tree: ast.Module) -> Iterator[str]:
    """Yield the paragraphs of a script's docstring, its figures and charts, and what it asks."""
    yield from (ast.get_docstring(tree) or "").split("\n\n")
    for node in ast.walk(tree):
        if (name := _literal(node)).endswith(".png"):  # a figure: the report shows it by its name
            yield name.removesuffix(".png").replace("_", " ")
    for node in tree.body:
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)):
            continue
        if ast.unparse(node.targets[0]) == "ask":
            yield from map(_literal, node.value.values)
        elif ast.unparse(node.targets[0]) == "charts":
            yield from (_literal(title) for title in node.value.keys if title is not None)


def _of_calls(tree: ast.Module) -> Iterator[str]:
    """Yield what arms are there for, where expected values come from, what columns are called."""
    constants = {
        ast.unparse(node.targets[0]): _literal(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        place = PLACES.get(name)
        given = [word.value for word in node.keywords if word.arg == "source"]
        if place is not None:
            given += node.args[place : place + 1]
        for value in given:
            found = constants.get(value.id, "") if isinstance(value, ast.Name) else _literal(value)
            yield from [found] * any(letter.isalpha() for letter in found)


def _imported(tree: ast.Module) -> set[str]:
    """Return the names under which a file has `say` and `to_say`."""
    return {f"ss.{name}" for name in SAID} | {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "sgdstudy.language"
        for alias in node.names
        if alias.name in SAID
    }


def _literal(node: ast.AST) -> str:
    value = node.value if isinstance(node, ast.Constant) else ""
    return value if isinstance(value, str) else ""


def _of_options(node: ast.ClassDef) -> Iterator[str]:
    """Yield what `--help` says of a command and its options."""
    if node.name.endswith("Command"):
        yield ast.get_docstring(node) or ""
    for before, after in itertools.pairwise(node.body):
        if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr):
            yield _literal(after.value)


# ---- the file of a language --------------------------------------------------------------------


def renewed(name: str, known: Mapping[str, Text]) -> str:
    """Return the file of a language with these texts: old translations stay, new ones are empty."""
    path = LOCALE / f"{name}.po"
    head, *old = list(entries(path.read_text(encoding="utf-8")))
    there = {entry["msgid"]: forms_of(entry) for entry in old}
    parts = [_entry({"msgid": "", "msgstr": head["msgstr"]})]
    for one, text in known.items():
        if not one:
            continue
        forms = there.get(one, ())
        entry = {"msgid": one}
        if text.many:
            count = int((re.findall(r"nplurals=(\d+)", head["msgstr"]) or ["2"])[0])
            entry["msgid_plural"] = text.many
            entry |= {f"msgstr[{i}]": (*forms, *[""] * count)[i] for i in range(count)}
        else:
            entry["msgstr"] = forms[0] if forms else ""
        parts.append(f"#: {' '.join(sorted(text.files))}\n{_entry(entry)}")
    return "\n\n".join(parts) + "\n"


def _entry(entry: Mapping[str, str]) -> str:
    return "\n".join(f"{name} {_quoted(text)}" for name, text in entry.items())


def _quoted(text: str) -> str:
    """Return a text as a .po file has it: in one line, or in several under an empty one."""
    if "\n" in text:
        lines = text.splitlines(keepends=True)
    else:
        lines = textwrap.wrap(text, WIDE, drop_whitespace=False, break_long_words=False) or [""]
    shown = [
        '"' + line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        for line in lines
    ]
    return shown[0] if len(shown) == 1 else "\n".join(['""', *shown])


def main() -> None:
    """Bring the file of a language up to date, and say what it lacks."""
    name = checked(sys.argv[1] if len(sys.argv) == 2 else "", "sgdstudy.cli.catalogue")
    if name == ENGLISH:
        print("English stands in the code")
        return
    known = texts()
    (LOCALE / f"{name}.po").write_text(renewed(name, known), encoding="utf-8")
    catalogue.cache_clear()
    lacking = [one for one in known if one and one not in catalogue(name).texts]
    print(f'{len(known)} texts; {len(lacking)} have no translation yet: msgstr ""')


if __name__ == "__main__":
    main()
