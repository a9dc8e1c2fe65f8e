"""Texts in the language of who reads them: the catalogues are complete, numbers are of prose."""

import ast
import functools
import os
import re
import string
import subprocess
import sys
from dataclasses import dataclass, fields
from typing import get_type_hints

import numpy as np
import pytest
from conftest import programs

from sgdstudy import language
from sgdstudy.cli.catalogue import PLACES, renewed, texts
from sgdstudy.cli.commands import COMMANDS
from sgdstudy.cli.parsing import helps, parse
from sgdstudy.errors import InputError
from sgdstudy.language import (
    LOCALE,
    catalogue,
    entries,
    forms_of,
    number,
    prose,
    say,
    speaking,
    translated,
)
from sgdstudy.studies.scripts import find_scripts, load_study

OTHERS = [name for name in language.languages() if name != "en"]
SAME = {"verdict", "correct", "exact", "constant", "Descriptions", "Figures", "Jensen", "optimum"}
SAME |= {"options"}
CODE = {
    "torch.nn.MSELoss",
    "shuffle=True",
    "shuffle=False",
    "w = 0",
    "epsilon {epsilon}",
    "{n} point",
}


@pytest.fixture(scope="module")
def known():
    return {text: found for text, found in texts().items() if text}


def placeholders(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("name", OTHERS)
def test_every_text_is_translated_and_nothing_else_is(name, known):
    there = {
        entry["msgid"]: forms_of(entry)
        for entry in entries((LOCALE / f"{name}.po").read_text(encoding="utf-8"))
    }
    del there[""]
    assert [text for text in known if not all(there.get(text, ("",)))] == []
    assert [text for text in there if text not in known] == []
    assert [
        text for text, forms in there.items() if text in forms and text not in SAME | CODE
    ] == []


@pytest.mark.parametrize("name", OTHERS)
def test_translations_have_the_same_placeholders(name, known):
    for text, forms in catalogue(name).texts.items():
        asked = placeholders(text) | placeholders(known[text].many)
        assert len(forms) == (2 if known[text].many else 1), text
        for form in forms:
            assert placeholders(form) <= asked, text
        assert placeholders(forms[-1]) == placeholders(known[text].many or text), text


@pytest.mark.parametrize("name", OTHERS)
def test_formats_of_numbers_are_kept(name, known):
    for text, forms in catalogue(name).texts.items():
        english = set(re.findall(r"\{\w+(?::[^}]*)?\}", known[text].many or text))
        assert set(re.findall(r"\{\w+(?::[^}]*)?\}", forms[-1])) == english, text


def test_french_has_the_spaces_of_french():
    for text, forms in catalogue("fr").texts.items():
        for form in forms:
            bare = re.sub(r"`[^`]*`|<[^>]*>|\{[^}]*\}", "x", form)
            assert not re.search(r"[^\s(:][;!?»](?=\s|$)", bare), text
            assert not re.search(r"\w:(?=\s|$)", bare), text


def test_momentum_is_not_a_moment():
    """Beside moments of a distribution it would be taken for one."""
    for text, forms in catalogue("fr").texts.items():
        if "momentum" in text.lower():
            bare = [re.sub(r"moments d'ordre deux", "", form) for form in forms]
            assert not any(re.search(r"\bmoments?\b", form.lower()) for form in bare), text


@pytest.mark.parametrize("name", OTHERS)
def test_a_catalogue_stays_as_it_is_when_renewed(name, known):
    assert renewed(name, known) == (LOCALE / f"{name}.po").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["en", *OTHERS])
def test_mathematics_is_written_as_in_a_book(name, known):
    """K⁻³, λmax, |g|²: no K^-3, lambda_max, Q_i, which a page shows as they are."""
    told = {form for text in known for form in language.catalogue(name).texts.get(text, (text,))}
    raw = re.compile(r"\^|\b(lambda|mu|Sigma)(?![\w=])|lambda_|\b([QHgw]|phi|λ)_(i|max|min)\b")
    assert [text for text in told if raw.search(re.sub("`[^`]*`", "", text))] == []


def test_a_text_without_a_translation_is_shown_in_english():
    with speaking("fr"):
        assert say("not in the catalogue: {x}", x=0.5) == "not in the catalogue: 0,5"


def test_texts_of_people_are_not_filled_in():
    with speaking("fr"):
        assert translated("does {x} hold?") == "does {x} hold?"
        assert translated("holds") == "tient"


def test_numbers_and_plurals_are_those_of_the_language():
    with speaking("fr"):
        assert say("{n} study", "{n} studies", n=0) == "0 étude"
        assert say("{n} study", "{n} studies", n=2) == "2 études"
        assert say("{low} to {high}", low=0.1624, high=1.4734e10) == "0,162 à 1,47·10¹⁰"
    assert say("{n} study", "{n} studies", n=0) == "0 studies"


@pytest.mark.parametrize(
    "value", [0.0, 1e-7, 5.3e11, np.float32(0.1), np.int64(7), 99999.6, 1e6 - 0.4]
)
def test_no_number_is_written_for_machines(value):
    for spec in ("", ".1", ".2", ".3", "+.2", ".2f", ".0%"):
        assert re.fullmatch(
            r"[+−]?([\d.,\u00a0]*\d(·10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?|10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)(\u00a0%)?",
            number(value, spec),
        ), number(value, spec)


@pytest.mark.parametrize(
    ("value", "words"), [(np.inf, "infini"), (-np.inf, "moins l'infini"), (np.nan, "indéfini")]
)
def test_what_is_no_number_is_said_in_words(value, words):
    with speaking("fr"):
        assert say("{x}", x=value) == words


@pytest.mark.parametrize(
    ("environment", "spoken"),
    [
        ({}, "en"),
        ({"LANG": "fr_FR.UTF-8"}, "fr"),
        ({"LANG": "fr_FR.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "fr_FR.UTF-8", "LC_ALL": ""}, "fr"),
        ({"LC_MESSAGES": "fr", "LANG": "de_DE"}, "fr"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "fr_FR.UTF-8", "SGDSTUDY_LANG": "en"}, "en"),
        ({"SGDSTUDY_LANG": "FR"}, "fr"),
    ],
)
def test_the_environment_names_the_language(monkeypatch, environment, spoken):
    for name in (*language.LOCALES, language.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert language.language() == spoken


@pytest.mark.parametrize("word", ["de", "", "francais", 3])
def test_another_language_is_refused_in_one_line(word):
    with pytest.raises(InputError, match="language"), speaking(word):
        pass


def test_a_text_is_told_in_sentences_or_at_once():
    assert prose("one\n  line\n\ntwo") == "one line\n\ntwo"
    assert prose(iter(["one", "", None, None, "two", None])) == "one\n\ntwo"
    with pytest.raises(InputError, match="sentences"):
        prose(iter([3]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lang", "fr", "list"], "époque"),
        (["list", "--lang=fr"], "époque"),
        (["report", "--help", "--lang", "fr"], "fichier"),
    ],
)
def test_commands_take_the_language(words, said):
    code = "from sgdstudy.cli.main import main; main()"
    made = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert said in made.stdout, made.stderr
    assert made.returncode == 0


# ---- no text is left out ------------------------------------------------------------------------

PLAIN = {"sgdstudy ui", " (make ui)"}
# before it is known which language is spoken, or once nothing can be printed
PLAIN |= {"error: ", "error: what was to be printed is lost (", "); what ran is kept"}
SAYING = {"say", "to_say", "translated", "parted", "unknown"}
CODE_OF = language.LOCALE.parent
FILES = sorted(CODE_OF.rglob("*.py")) + sorted(CODE_OF.parent.glob("experiments/**/*.py"))


@functools.cache
def trees():
    """The files of the package and of experiments/, and how each calls what says a text."""
    found = []
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "sgdstudy.language"
            for alias in node.names
            if alias.name in SAYING
        }
        if path.name not in ("language.py", "catalogue.py", "shown.py"):  # of no reader, or `show`
            found.append((path, tree, names | {"ss.say", "ss.to_say"}))
    return found


def raw(node, saying):
    """The words of an expression that are said by nobody."""
    if isinstance(node, ast.Call):
        if ast.unparse(node.func) in saying:
            return []
        parts = [*node.args, *([node.func.value] if isinstance(node.func, ast.Attribute) else [])]
    elif isinstance(node, ast.Subscript):
        parts = [node.value]
    elif isinstance(node, ast.IfExp):
        parts = [node.body, node.orelse]
    elif isinstance(node, ast.FormattedValue):
        parts = [node.value]
    elif isinstance(node, ast.Constant):
        found = isinstance(node.value, str) and re.search("[A-Za-z]{2}", node.value)
        return [node.value] if found else []
    else:
        parts = list(ast.iter_child_nodes(node))
    return [words for part in parts for words in raw(part, saying)]


def test_what_is_printed_and_warned_of_is_said():
    """Lines of the commands, and of the log; `say` of a file without that name prints a line."""
    found = []
    for path, tree, saying in trees():
        printing = {"say", "show", "print", "self.say", "log.warning", "notes.append"} - saying
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in printing:
                words = [w for arg in node.args for w in raw(arg, saying) if w not in PLAIN]
                found += [(path.name, node.lineno, words)] * bool(words)
    assert found == []


def test_mistakes_on_the_command_line_are_said():
    for path, tree, saying in trees():
        if path.parent.name == "cli":
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "InputError":
                    assert raw(node.args[0], saying) == [], (path.name, node.lineno)


def test_why_a_step_is_not_compiled_is_said():
    for path, tree, saying in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Unsupported":
                assert raw(node.args[0], saying) == [], (path.name, node.lineno)


def test_a_purpose_or_source_with_a_number_in_it_is_said():
    """What an f-string makes has no translation: `ss.say("batches of {n}", n=n)`."""
    found = []
    for path, tree, saying in trees():
        assigned = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                target = node.targets[0]
                pairs = (
                    zip(target.elts, node.value.elts, strict=False)
                    if (isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple))
                    else [(target, node.value)]
                )
                for to, value in pairs:
                    assigned.setdefault(ast.unparse(to), []).append(value)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            if name not in (*PLACES, "estimated"):
                continue
            given = [word.value for word in node.keywords if word.arg in ("source", "about")]
            place = PLACES.get(name)
            if place is not None and not any(isinstance(a, ast.Starred) for a in node.args):
                given += node.args[place : place + 1]
            for value in given:
                named = assigned.get(value.id, []) if isinstance(value, ast.Name) else [value]
                made = [one for one in named if not isinstance(one, ast.Constant)]
                found += [(path.name, one.lineno) for one in made if raw(one, saying)]
    assert found == []


def test_every_option_of_every_command_and_script_has_a_help_that_is_translated():
    kinds = {**COMMANDS, **{name: load_study(name).options for name in find_scripts()}}
    silent = []
    for name, kind in kinds.items():
        docs, hints = helps(kind), get_type_hints(kind, include_extras=True)
        for option in (field.name for field in fields(kind)):
            given = [
                getattr(one, "help", None) for one in getattr(hints[option], "__metadata__", ())
            ]
            text = next(filter(None, given), None) or docs.get(option, "")
            silent += [(name, option)] * (language.plain(text) not in catalogue("fr").texts)
    assert silent == []


@pytest.mark.parametrize("lang", ["fr"])
def test_an_option_without_a_help_still_tells_its_default_in_the_language(lang, capsys):
    @dataclass(frozen=True)
    class Silent:
        epochs: int = 100

    with speaking(lang), pytest.raises(SystemExit):
        parse(Silent, ["--help"], "silent")
    shown = capsys.readouterr().out
    assert "(défaut : 100)" in shown.replace("\u00a0", " ")
    assert "default" not in shown


@pytest.mark.slow
def test_the_boxes_of_a_help_are_whole_and_have_titles_of_the_language():
    titles = {"en": "╭─ positional arguments ─", "fr": "╭─ arguments ──"}
    asked = [(name, lang) for name in ("export", "sweep", "pack", "course") for lang in titles]
    made = programs(*([name, "--help", "--lang", lang] for name, lang in asked))
    for (name, lang), (code, out, _) in zip(asked, made, strict=True):
        boxes = [line for line in out.splitlines() if line.startswith(("╭", "│", "╰"))]
        assert code == 0
        assert len({len(line) for line in boxes}) == 1, out
        assert [line.startswith(titles[lang]) for line in boxes].count(True) == 1, name
        assert [line.startswith("╭─ options ─") for line in boxes].count(True) == 1, name
