"""Options of a command line, by tyro; what is wrong with them in one line, not in a box."""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import io
import itertools
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, field, fields, make_dataclass
from types import NoneType
from typing import Annotated, Any, Literal, TextIO, get_args, get_origin, get_type_hints

import tyro

from sgdstudy.errors import InputError, shortened
from sgdstudy.language import parted, say, to_say, translated
from sgdstudy.secrecy import of_words

WIDEST = 9999  # columns of a box: a narrow one breaks words in two
LEAST = 56  # of a page of help: below, words are broken, and with one tyro goes on for minutes
TRUE = ("true", "yes", "on", "1")
RULE = re.compile(r"[\W_]+|[╭╰┌└+].*")  # a line that divides a box, or its edge, with its title
BOXED = (to_say("show this help message and exit"), to_say("(required)"))  # by tyro, in --help
TITLES = (to_say("positional arguments"), to_say("options"))  # of its boxes
EMPTY = re.compile(r"^(?:\x1b\[[\d;]*m)*[│|](?:\x1b\[[\d;]*m|[│| ])*\n", re.M)  # a line of a box
UNKNOWN = re.compile("Unrecognized options:")
BLANK = re.compile("(?<=[:,]) *(?=,|$)")  # in a list of words, one without a letter
OPTIONAL = {  # what tyro says of an option that may be left out, as it says it of others
    r" Got errors: .*": "",
    r"\{None\}\||(?<=\()'None', ": "",
    r"no type matching INT could be instantiated from \[(.*)\]\.?": (
        r"invalid literal for int() with base 10: \1"
    ),
}
PLAIN = {  # what tyro and Python say, and how we do
    r"invalid literal for int\(\) with base 10: '(?P<round>\d+(\.0*)?([eE]\+?\d)?)'": to_say(
        "'{round}' is not a whole number; write {digits}"
    ),
    r"invalid literal for int\(\) with base 10: (?P<given>.*)": to_say(
        "{given} is not a whole number"
    ),
    r"could not convert string to float: '(?P<whole>\d*),(?P<part>\d+)'": to_say(
        "'{whole},{part}' is not a number; write {whole}.{part}"
    ),
    r"could not convert string to float: (?P<given>.*)": to_say("{given} is not a number"),
    r"^Error parsing (?P<option>--\S+):": to_say("{option}:"),
    r"^Argument helptext: (?P<option>.*)": to_say("expected {option}"),
    r"^Unrecognized options:": to_say("Unrecognized options:"),
    r"^Perhaps you meant:": to_say("perhaps you meant:"),
    r"^Missing value for argument '(?P<option>.*?)'.*": to_say(
        "Missing value for argument '{option}'"
    ),
    r"^Missing from (?P<command>.*?):": to_say("Missing from {command}:"),
    r"^invalid choice (?P<given>.*) for argument '(?P<option>.*)'. Expected one of (?P<names>.*)":
        to_say("invalid choice {given} for argument '{option}'. Expected one of {names}"),
    r"\(required\)": to_say("(required)"),
    r"^For full helptext, (run:?|see)": to_say("for full helptext, run"),
}  # fmt: skip


class _Page(io.StringIO):
    """Keeps what is printed, in the signs and colours of where it will be shown."""

    encoding = property(lambda self: self.shown.encoding)

    def __init__(self, shown: TextIO) -> None:
        super().__init__()
        self.shown = shown

    def isatty(self) -> bool:
        return self.shown.isatty()


def parse(
    kind: Any, words: list[str], prog: str, description: str | None = None, settings: str = ""
) -> Any:
    """Return the dataclass that the words of a command line describe, in any order.

    Args:
        settings: the option that takes settings of a run, as `name=value`; "": none does.

    Raises:
        InputError: an unknown option, one that is missing or given twice, or a value of another
            kind.
    """
    taking = _taking(kind)
    _require_once(words, taking)
    words = _in_order(kind, words, taking)
    page = _Page(sys.stdout)
    read = functools.partial(tyro.cli, shown_as(kind), prog=prog, description=description)
    try:
        with (
            _columns(max(LEAST, shutil.get_terminal_size().columns)),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(page),
        ):
            found = read(args=words)
            return kind(**{part.name: getattr(found, part.name) for part in _given(kind)})
    except SystemExit as end:
        if end.code != 2:  # --help
            print(_helped(page.getvalue()), end="")
            raise
    shown = [shortened(word) for word in of_words(words)]  # as a message may have them
    meant = shortened(_meant(kind, words, settings))
    raise InputError(sentence(_box(read, shown) or _box(read, words), meant))


def _given(kind: Any) -> list[Field[Any]]:
    """Return the parts of a dataclass that a command line gives."""
    return [part for part in fields(kind) if part.init]


def _taking(kind: Any) -> dict[str, float]:
    """Return how many words follow each option: none a flag, any number one of several values."""
    taking, hints = dict[str, float](), get_type_hints(kind)
    for part in _given(kind):
        name, hint = f"--{part.name.replace('_', '-')}", hints[part.name]
        taking[name] = 0 if hint is bool else math.inf if get_origin(hint) is tuple else 1
        if hint is bool:
            taking[name.replace("--", "--no-", 1)] = 0
    return taking


def _name(word: str) -> str:
    """Return the option that a word begins with, as it is listed."""
    return word.partition("=")[0].replace("_", "-")


def _require_once(words: list[str], taking: Mapping[str, float]) -> None:
    """Refuse an option with a value that is given twice: the first would go unheard."""
    names = [name for word in words if word.startswith("--") and taking.get(name := _name(word), 1)]
    again = (name for i, name in enumerate(names) if name in names[:i] and name != "--help")
    twice = next(again, None)
    if twice:
        raise given_twice(twice)


def _in_order(kind: Any, words: list[str], taking: Mapping[str, float]) -> list[str]:
    """Return words with those that belong to no option first: the parser reads on from there.

    Words with an option that there is not stay as they are: the parser says so.
    """
    hints = get_type_hints(kind, include_extras=True)
    if "--" in words or not any(_is_positional(hints[part.name]) for part in _given(kind)):
        return words
    free, rest, follow = list[str](), list[str](), 0.0
    for word in words:
        if word.startswith("-") and word != "-" and follow != 1:
            if _name(word) not in taking and word not in ("-h", "--help"):
                return words
            follow = 0 if "=" in word else taking.get(_name(word), 0)
            rest.append(word)
        elif follow:
            follow -= 1
            rest.append(word)
        else:
            free.append(word)
    return free + rest


def _is_positional(hint: Any) -> bool:
    return tyro.conf.Positional in getattr(hint, "__metadata__", ())


def given_twice(option: str) -> InputError:
    """Build the error for an option that is given twice."""
    text = to_say("{option} is given twice; give it once, with all its values")
    return InputError(say(text, option=option))


def _meant(kind: Any, words: list[str], settings: str) -> str:
    """Return the option that a word stands for that is none as it is written; "": there is none.

    Of `-seeds`, `--Seeds`, `-s` and `seeds=2` it is `--seeds`; of `--strict=false` `--no-strict`.
    """
    defaults = {part.name.replace("_", "-"): part.default for part in fields(kind)}
    from sgdstudy.recipe.config import TrainConfig  # late: torch

    names, in_settings = {part.name for part in fields(TrainConfig)}, False
    for i, word in enumerate(words):
        given, sign, value = word.partition("=")
        name = given.lstrip("-").lower().replace("_", "-")
        in_settings = word == settings if word.startswith("-") else in_settings
        if not name or not (sign or given.startswith("-")) or in_settings:
            continue
        if isinstance(defaults.get(name), bool) and sign:
            return f"--{name}" if value.lower() in TRUE else f"--no-{name}"
        begins = [each for each in defaults if each.startswith(name)]
        if name in defaults or (len(begins) == 1 and not given.startswith("--")):
            if given != f"--{name}":
                return f"--{name if name in defaults else begins[0]}"
        elif settings and (setting := name.replace("-", "_")) in names:
            values = value or "".join(words[i + 1 : i + 2])
            if sign or values[:1].isdigit():
                return f"{settings} {setting}={values}"
    return ""


def _box(read: Callable[..., Any], words: list[str]) -> str:
    """Return what tyro says of words that it refuses, as to no terminal; "" where it takes them."""
    said = io.StringIO()
    try:
        with (
            _columns(WIDEST),
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            read(args=words)
    except SystemExit:
        pass
    return said.getvalue()


@contextlib.contextmanager
def _columns(n: int) -> Iterator[None]:
    """Let the terminal have so many columns."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(n)
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _helped(page: str) -> str:
    page = EMPTY.sub("", page)  # from a help that fills its line, and no default to tell
    for words in BOXED:
        page = page.replace(words, say(words).ljust(len(words)))
    for words in TITLES:  # the edge of a box begins with its title
        page = re.sub(rf"(\W) {words} ((\W)\3*)", functools.partial(_titled, words), page)
    return page.replace("usage:", say("usage:"), 1)


def _titled(words: str, found: re.Match[str]) -> str:
    """Return the edge of a box, as long as it was."""
    edge = found[3] * (len(words) + len(found[2]) - len(title := say(words)))
    return f"{found[1]} {title} {edge}"


def about(kind: type) -> str:
    """Return what a command does: its docstring, read from its file where `-OO` has left it out."""
    tree = ast.parse(inspect.getsource(kind))
    return ast.get_docstring(tree.body[0]) or ""  # type: ignore[arg-type]


def shown_as(kind: Any) -> Any:
    """Return the dataclass as its help shows it: in the present language, and in plain words."""
    hints, docs, made = get_type_hints(kind, include_extras=True), helps(kind), []
    for part in _given(kind):
        hint = hints[part.name]
        given = [getattr(config, "help", None) for config in getattr(hint, "__metadata__", ())]
        text = next(filter(None, given), None) or docs.get(part.name)
        config = tyro.conf.arg(
            help=None if text is None else translated(text),
            help_behavior_hint=_default,
            metavar=_metavar(hint, part.default),
        )
        same: Any = {name: getattr(part, name) for name in ("default", "default_factory")}
        made.append((part.name, Annotated[hint, config], field(kw_only=part.kw_only, **same)))
    return make_dataclass(kind.__name__, made, bases=(kind,), frozen=True)


def _metavar(hint: Any, default: Any) -> str | None:
    """Return what stands for the value of an option; None: what tyro writes, a plain word."""
    if get_origin(hint) is Annotated:
        shown = _metavar(get_args(hint)[0], default)
        return f"[{shown}]" if shown and default is None and _is_positional(hint) else shown
    parts = get_args(hint)
    if get_origin(hint) is tuple and parts[1:] == (...,):
        return f"{_word(parts[0])} ..."
    if default is None and len(parts) == 2 and NoneType in parts:  # nobody types None
        return _word(parts[parts[0] is NoneType])
    return None


def _word(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"{{{','.join(map(str, get_args(kind)))}}}"
    return getattr(kind, "__name__", str(kind)).upper()


def _default(value: str) -> str:
    return say("(default: {value})", value=value) if value not in ("None", "") else ""


def helps(kind: type) -> dict[str, str]:
    """Return what the options of a dataclass do, by name: the texts below them in its source."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = node.body if isinstance(node, ast.ClassDef) else []
        for before, after in itertools.pairwise(body):
            if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr):
                found[ast.unparse(before.target)] = ast.literal_eval(after.value)
    return found


def sentence(box: str, meant: str = "") -> str:
    """Return what a box of tyro's says, without its title.

    Args:
        meant: what was meant, for a box that does not say it.

    >>> print(sentence('''
    ...  Value error
    ...  -----------
    ...  Error parsing --lr: could not convert string to float: 'abc'
    ...  -----------
    ...  For full helptext, run python ex6_shuffle.py --help
    ... '''))
    --lr: 'abc' is not a number; for full helptext, run python ex6_shuffle.py --help
    >>> print(sentence('''
    ... ╭─ Unrecognized options ─────────────────╮
    ... │ Unrecognized options: --nope           │
    ... │ ────────────────────────────────────── │
    ... │ For full helptext, run list --help     │
    ... ╰────────────────────────────────────────╯
    ... '''))
    Unrecognized options: --nope; for full helptext, run list --help
    """
    parts: list[list[str]] = [[]]
    for line in box.strip().splitlines():
        text = line.strip(" │|")
        if text and RULE.fullmatch(text):
            parts.append([])
        elif text:
            parts[-1].append(text)
    said = [" ".join(part) for part in parts[1:] or parts if part]
    said = [re.sub(BLANK, " ''", part) if UNKNOWN.match(part) else part for part in said]
    if meant and not any(part.startswith("Perhaps you meant") for part in said):
        said.insert(1, say("did you mean {option}?", option=meant))
    for pattern, form in OPTIONAL.items():
        said = [re.sub(pattern, form, part) for part in said]
    for pattern, words in PLAIN.items():
        put = functools.partial(_in_words, words)
        said = [re.sub(pattern, put, part) for part in said]
    first, *rest = (re.sub(r"(?<!\.)\.$", "", part) for part in said)
    return parted([first, *(part[:1].lower() + part[1:] for part in rest)])


def _in_words(text: str, found: re.Match[str]) -> str:
    values = found.groupdict()
    if "round" in values:
        values["digits"] = f"{float(values['round']):.0f}"
    return say(text, **values)
