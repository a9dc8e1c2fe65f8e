"""Words of a command line: in any order, flags any number of times, shown as plain words."""

import contextlib
import io
import itertools
from dataclasses import MISSING, dataclass, field, fields
from typing import Annotated, Literal

import pytest
import tyro
from conftest import call

from sgdstudy.cli.commands import COMMANDS
from sgdstudy.cli.parsing import about, parse
from sgdstudy.errors import InputError
from sgdstudy.studies.arm import Options

KINDS = {**COMMANDS, "a script": Options}
GIVEN = {  # by command: words that belong to no option, and options with their values
    "pack": (["a", "b.zip"], [["--invocation", "all"], ["--store=x"]]),
    "unpack": (["a.zip"], [["--store", "x"]]),
    "export": (["a"], [["--to", "parquet"], ["--force"], ["--folder", "x"]]),
    "sweep": (["a"], [["--grid", "lr=1", "epochs=2"], ["--seeds", "2"], ["--dry-run"]]),
    "rerun": (["a", "b"], [["--store", "x"], ["--script", "y.py"]]),
    "grade": (["a"], [["--exercise", "ex4"], ["--jobs", "2"]]),
    "course": (["a"], []),
    "guesses": (["a", "b", "c"], [["--out", "x.csv"]]),
}


def ways(free, options):
    """Yield the words in every order that keeps that of those without an option."""
    parts = [*([word] for word in free), *options]
    for order in itertools.permutations(range(len(parts))):
        if sorted(i for i in order if i < len(free)) == [i for i in order if i < len(free)]:
            yield [word for i in order for word in parts[i]]


@pytest.mark.parametrize("name", GIVEN)
def test_options_stand_before_between_and_behind_the_other_words(name):
    """As it was seen: `pack STUDY --invocation all FILE` was refused."""
    kind, (free, options) = COMMANDS[name], GIVEN[name]
    expected = parse(kind, [*free, *itertools.chain(*options)], name)
    behind_grid = [way for way in ways(free, options) if way[way.index(free[0]) - 1] != "epochs=2"]
    assert {parse(kind, way, name) for way in behind_grid} == {expected}


def test_every_command_with_words_of_its_own_is_tried():
    positional = {name for name, kind in COMMANDS.items() if "positional" in shown(kind)}
    assert positional - {"run"} == {*GIVEN}  # what follows the names is the study's


def test_a_study_behind_the_grid_is_the_study(capsys):
    assert call("sweep", "--grid", "lr=1", "nothing") == 2
    assert "unknown study 'nothing'" in capsys.readouterr().err


def test_a_value_that_begins_with_a_sign_stays_with_its_option():
    with pytest.raises(InputError, match="Missing value for argument '--folder'"):
        parse(COMMANDS["export"], ["--folder", "--force", "a"], "export")
    assert parse(Options, ["--first-seed", "-1", "--seeds", "2"], "x").first_seed == -1


@pytest.mark.parametrize(("name", "kind"), KINDS.items(), ids=KINDS)
def test_a_flag_twice_is_a_flag_and_a_value_twice_is_refused(name, kind):
    """As it was seen: `--quick --quick` was refused."""
    needed = {"prune": ["--keep", "1"], "grade": ["x", "--exercise", "ex4"]}.get(name, ["x"])
    needed = needed if {MISSING} & {part.default for part in fields(kind)} else []
    for part in fields(kind):
        option = "--" + part.name.replace("_", "-")
        if isinstance(part.default, bool):
            for flag, value in ((option, True), (option.replace("--", "--no-"), False)):
                assert getattr(parse(kind, [*needed, flag, flag], "x"), part.name) is value
        elif option in shown(kind):
            with pytest.raises(InputError, match=f"{option} is given twice"):
                parse(kind, [*needed, f"{option}=1", option, "1"], "x")


def shown(kind):
    """Return the help of a command."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page), pytest.raises(SystemExit):
        parse(kind, ["--help"], "x", about(kind))
    return page.getvalue()


@dataclass(frozen=True)
class Own(Options):
    """Options of a script."""

    clip: float | None = None
    """largest norm"""
    rule: Literal["a", "b"] | None = None
    """which rule"""
    widths: tuple[int, ...] = (1, 2)
    """of the layers"""
    powers: tuple[float, ...] = field(default_factory=lambda: (0.5,))
    """made anew"""
    place: Annotated[str | None, tyro.conf.arg(help="where")] = None


@pytest.mark.parametrize("kind", [*KINDS.values(), Own], ids=[*KINDS, "Own"])
def test_help_has_no_sign_that_a_person_does_not_know(kind):
    """As it was seen: `--store {None}|STR (default: None)`, `[[STR [STR ...]]]`."""
    page = shown(kind)
    assert "None" not in page
    assert "[[" not in page


def test_own_options_are_read_as_they_are_shown():
    page = shown(Own)
    for words in ("--clip FLOAT", "--rule {a,b}", "--widths INT ...", "--powers FLOAT ..."):
        assert words in page
    assert "(default: 1 2)" in page
    given = parse(Own, ["--clip", "2", "--rule", "b", "--widths", "3", "4"], "x")
    assert (given.clip, given.rule, given.widths, given.powers) == (2.0, "b", (3, 4), (0.5,))
    assert parse(Own, [], "x") == Own()
