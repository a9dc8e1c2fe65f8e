"""Texts in the language of who reads them: `say` finds a sentence's translation, and fills it in.

English stands in the code. Any other language is one file, `locale/<language>.po`, in the format
of gettext (docs/languages.md). Numbers are written as prose has them, with the language's decimal
sign; tables keep the numbers that tools read.
"""

from __future__ import annotations

import ast
import difflib
import functools
import gettext
import math
import os
import re
import string
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from sgdstudy.errors import FIXED, InputError, one_line, quoted, shortened
from sgdstudy.text import as_python, raised

ENGLISH = "en"
LOCALE = Path(__file__).with_name("locale")
# looked for once: later there may be no handle for it, and that has to be said
NAMES = (ENGLISH, *sorted(path.stem for path in LOCALE.glob("*.po")))
VARIABLE = "SGDSTUDY_LANG"
LOCALES = ("LC_ALL", "LC_MESSAGES", "LANG")
MINUS = "−"
GROUPED = 10_000  # from here on digits stand in groups of three
PLAIN = (1e-4, 1e6)  # numbers between these are written without a power of ten
LEAST_PART = 3  # letters of a name's part, by which it is found
NO_NAMES: Mapping[str, str] = {}
LONGEST_LIST = 400  # characters of the names that are allowed
DIGITS = 3  # that count, where a text does not say how many
LINE = re.compile(r'(?:(msgctxt|msgid|msgid_plural|msgstr|msgstr\[\d+\])\s+)?(".*")')
SPEC = re.compile(r"(\+?)(?:\.(\d+))?([f%]?)")
_given: ContextVar[str | None] = ContextVar("language", default=None)


@dataclass(frozen=True)
class Catalogue:
    """A language: its sentences and how it writes.

    Attributes:
        texts: the English text -> its forms, for one and for several where numbers change it.
        plural: number -> which of the forms.
        decimal: the sign before a number's decimals.
        spaced: signs that no line may begin with, though a space stands before them.
    """

    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    plural: Callable[[int], int] = lambda n: int(n != 1)
    decimal: str = "."
    spaced: str = ""


def say(text: str, many: str | None = None, /, **values: Any) -> str:
    """Return a text in the present language, its white space made plain, its values filled in.

    A number in it is written by `{name}` with three digits that count, by `{name:.2}` with two, by
    `{name:.2f}` with two decimals, by `{name:.1%}` in percent; `{name:+.2}` shows its sign.

    Args:
        text: in English, a literal: that is how translators find it.
        many: the text for several of what `n` counts.
        values: what is filled in: numbers, texts, lists of these.

    Example:
        >>> say("{n} order ends at {loss}", "{n} orders end at {loss}", n=64, loss=1.47e10)
        '64 orders end at 1.47·10¹⁰'
        >>> with speaking("en"):
        ...     say("{share:.1%} of it, {gone}", share=0.9989, gone=float("nan"))
        '99.9\xa0% of it, undefined'
    """
    known, key = catalogue(language()), plain(text)
    forms = known.texts.get(key) or (key, *([plain(many)] if many else []))
    form = forms[min(known.plural(int(values["n"])), len(forms) - 1)] if many else forms[0]
    return _Filled(known).vformat(_fixed(form, known.spaced), (), values)


def translated(text: str) -> str:
    """Return a text that was written down, as an arm's purpose, in the present language.

    As it is where it is not known; nothing is filled in.

    >>> with speaking("fr"):
    ...     print(translated("printed in the notebook"), translated("of {mine}"))
    affiché dans le notebook of {mine}
    """
    known = catalogue(language())
    return _fixed(known.texts.get(plain(text), (text,))[0], known.spaced)


def to_say(text: str) -> str:
    """Mark a text that is said later: of a table at the head of a module."""
    return text


def listed(items: Iterable[str]) -> str:
    """Return texts as a list within a sentence.

    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    *first, last = items
    return say("{first} and {last}", first=", ".join(first), last=last) if first else last


def parted(items: Iterable[str]) -> str:
    """Return texts one after the other, parted by semicolons.

    >>> with speaking("fr"):
    ...     print(parted(["a", "b"]).encode("ascii", "replace"))
    b'a?; b'
    """
    return functools.reduce(lambda one, other: say("{one}; {other}", one=one, other=other), items)


def prose(parts: str | Iterable[str | None]) -> str:
    """Return the text that sentences make one after the other; None begins a paragraph.

    >>> prose(["It stops.", "  It is\\n near.", None, None, "And so on."])
    'It stops. It is near.\\n\\nAnd so on.'
    """
    if isinstance(parts, str):
        return "\n\n".join(plain(part) for part in parts.strip().split("\n\n"))
    paragraphs: list[list[str]] = [[]]
    for part in parts:
        if part is None:
            paragraphs.append([])
        elif not isinstance(part, str):
            raise InputError(f"sentences are yielded, None between paragraphs, not {quoted(part)}")
        elif part.strip():
            paragraphs[-1].append(plain(part))
    return "\n\n".join(" ".join(sentences) for sentences in paragraphs if sentences)


def everywhere(text: str) -> list[str]:
    """Return a text in every language that we have, as it may stand in what was written before."""
    texts = []
    for name in languages():
        with speaking(name):
            texts.append(say(text))
    return texts


def plain(text: str) -> str:
    """Return text with single spaces; those that no line breaks at stay."""
    return " ".join(part for part in re.split(r"[ \t\r\n\f\v]+", text) if part)


# ---- which language ----------------------------------------------------------------------------


def languages() -> list[str]:
    """Return the languages there are."""
    return list(NAMES)


def language() -> str:
    """Return the language that is spoken: as chosen, by `SGDSTUDY_LANG`, or that of the locale.

    Raises:
        InputError: `SGDSTUDY_LANG` names one that we do not have.
    """
    chosen = _given.get()
    if chosen is not None:
        return chosen
    if os.environ.get(VARIABLE):
        return checked(os.environ[VARIABLE], VARIABLE)
    locale = next(filter(None, map(os.environ.get, LOCALES)), "") or _of_windows()
    word = re.split("[_.@-]", locale)[0].lower()
    return word if word in languages() else ENGLISH


def checked(word: Any, what: str = "--lang") -> str:
    """Return the name of a language that we have, as `fr` of `fr_FR.UTF-8`.

    Raises:
        InputError: we do not have it.
    """
    if not isinstance(word, str):
        raise InputError(f"{what} is a language, as fr, not {quoted(word)}")
    name = re.split("[_.@-]", word)[0].lower()
    if name not in languages():
        with speaking(ENGLISH):  # ours may be the one that we do not have
            raise unknown(f"language of {what}", word, languages())
    return name


def speak(word: str | None) -> None:
    """Speak a language from now on; None: that of the environment.

    Raises:
        InputError: we do not have it.
    """
    _given.set(None if word is None else checked(word))


@contextmanager
def speaking(word: str | None) -> Iterator[None]:
    """Speak a language within a block; None changes nothing.

    Raises:
        InputError: we do not have it.
    """
    before = _given.set(_given.get() if word is None else checked(word))
    try:
        yield
    finally:
        _given.reset(before)


def _of_windows() -> str:
    if sys.platform == "win32":
        import ctypes
        import locale

        return locale.windows_locale.get(ctypes.windll.kernel32.GetUserDefaultUILanguage(), "")
    return ""


def unknown(
    kind: str, given: object, allowed: Iterable[str], elsewhere: Mapping[str, str] = NO_NAMES
) -> InputError:
    """Build the error for a name that is not in an open list, suggesting the nearest one.

    Of a path its last part counts; a part of a name is near it, as is another spelling, and what
    the same is called `elsewhere`.

    >>> with speaking("en"):
    ...     print(unknown("order", "shufle", ["sequential", "shuffle"]))
    unknown order 'shufle'; did you mean 'shuffle'? Valid: sequential, shuffle
    >>> with speaking("en"):
    ...     str(unknown("n", "b", [f"number_{i}" for i in range(100)]))[-25:]
    'number_36, … (100 in all)'
    """
    names = list(allowed)
    word = PurePath(given).stem.lower() if isinstance(given, str) else ""
    lower = {name.lower(): name for name in names} | dict(elsewhere)
    near = [lower[each] for each in difflib.get_close_matches(word, lower, n=1)]
    if not near and len(word) >= LEAST_PART:
        near = [name for each, name in lower.items() if word in each]
    told = {"kind": translated(kind), "given": quoted(given), "names": first_of(names)}
    if not near:
        return InputError(say("unknown {kind} {given}. Valid: {names}", **told))
    told["near"] = repr(near[0])
    return InputError(say("unknown {kind} {given}; did you mean {near}? Valid: {names}", **told))


def first_of(names: Sequence[str]) -> str:
    """Return names as a message lists them: all in one line, the first few where they are many.

    >>> first_of(["a\\nb", "c\\x1b[31m"]), first_of(["c" * 100])[75:]
    ('a b, c\\\\x1b[31m', 'ccccc …')
    """
    shown = ", ".join(shortened(one_line(name)) for name in names)
    if len(shown) <= LONGEST_LIST:
        return shown
    first = shown[:LONGEST_LIST].rpartition(", ")[0]
    return say("{names}, … ({n} in all)", names=first, n=len(names))


# ---- catalogues --------------------------------------------------------------------------------


@functools.cache
def catalogue(name: str) -> Catalogue:
    """Return the catalogue of a language that we have; English where no handle is left to read."""
    if name == ENGLISH:
        return Catalogue()
    try:
        found = list(entries((LOCALE / f"{name}.po").read_text(encoding="utf-8")))
    except OSError:
        return Catalogue()
    head = dict(re.findall(r"^([\w-]+): *(.*)$", found[0]["msgstr"], re.MULTILINE))
    rule = re.search(r"plural *= *([^;]+)", head.get("Plural-Forms", ""))
    return Catalogue(
        {entry["msgid"]: forms for entry in found[1:] if all(forms := forms_of(entry))},
        gettext.c2py(rule[1]) if rule else lambda n: int(n != 1),
        head.get("X-Decimal-Sign", "."),
        head.get("X-Fixed-Space-Before", ""),
    )


def entries(text: str) -> Iterator[dict[str, str]]:
    """Yield the entries of a .po file, the head first: `msgid`, `msgstr`, `msgstr[0]` and so on."""
    entry, field = dict[str, str](), ""
    for line in text.splitlines():
        found = LINE.fullmatch(line.strip())
        if found is None:
            continue
        if found[1] == "msgid" and entry:
            yield entry
            entry = {}
        field = found[1] or field
        entry[field] = entry.get(field, "") + ast.literal_eval(found[2])
    if entry:
        yield entry


def forms_of(entry: Mapping[str, str]) -> tuple[str, ...]:
    """Return the translations of an entry, one or one for each plural form."""
    return tuple(text for name, text in sorted(entry.items()) if name.startswith("msgstr"))


def _fixed(text: str, signs: str) -> str:
    """Fix the spaces before such signs and after an opening quotation mark, outside of code."""
    if not signs:
        return text
    parts = text.split("`")
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(f" (?=[{re.escape(signs)}])|(?<=«) ", FIXED, parts[i])
    return "`".join(parts)


# ---- numbers -----------------------------------------------------------------------------------


class _Filled(string.Formatter):
    """Fills values into a text, numbers as the language writes them."""

    def __init__(self, known: Catalogue) -> None:
        self.known = known

    def format_field(self, value: Any, format_spec: str) -> str:
        """Return a value as it stands in a sentence."""
        value = as_python(value)
        if isinstance(value, (list, tuple)):
            return listed([self.format_field(item, format_spec) for item in value])
        if value is None or isinstance(value, (str, bool, Path)):
            return str(value)
        return number(value, format_spec, self.known.decimal)


def number(value: Any, spec: str = "", decimal: str = ".") -> str:
    """Write a number for a sentence.

    Args:
        value: an integer, a float, or what `float` takes.
        spec: `.3` digits that count, `.2f` decimals, `.1%` percent; with `+` its sign is shown.
        decimal: the sign before the decimals; groups of three are parted by "," if it is a point.

    >>> number(40000), number(40000, decimal=","), number(9340.0), number(-47.05)
    ('40,000', '40\\xa0000', '9340', '−47')
    >>> number(0.47432, decimal=","), number(1.286e-7), number(44.5), number(1e6, ".1")
    ('0,474', '1.29·10⁻⁷', '44.5', '10⁶')
    >>> number(float("inf")), number(0.5, ".0%"), number(0.02304, "+.2"), number(1.3e43, ".4f")
    ('infinite', '50\\xa0%', '+0.023', '1.3·10⁴³')
    """
    found = SPEC.fullmatch(spec)
    if found is None:
        raise InputError(f"a number is written by .3, .2f or .1%, not {quoted(spec)}")
    if not isinstance(value, int):
        value = float(value)
    if math.isnan(value):
        return say("undefined")
    if math.isinf(value):
        return say("infinite") if value > 0 else say("minus infinite")
    text = _digits(value, int(found[2]) if found[2] else None, found[3])
    whole, point, decimals = text.partition(".")
    if whole.isdecimal() and len(whole) >= len(str(GROUPED)):
        whole = f"{int(whole):,}".replace(",", "," if decimal == "." else FIXED)
    sign = MINUS if value < 0 else found[1]
    return sign + whole + point.replace(".", decimal) + decimals.replace(".", decimal)


def on_axis(text: str) -> str:
    """Return a number that Python wrote, as `20,000.5`, with the signs of the language.

    >>> with speaking("fr"):
    ...     print(on_axis("0.5"), on_axis("5"))
    0,5 5
    """
    decimal = catalogue(language()).decimal
    return text if decimal == "." else text.translate({ord(","): FIXED, ord("."): decimal})


def _digits(value: float, digits: int | None, kind: str) -> str:
    """Return the digits of a finite number, without its sign."""
    size = abs(value)
    if kind == "%":
        return f"{_digits(100.0 * size, digits, 'f')}{FIXED}%"
    if kind == "f" and size < PLAIN[1]:  # of larger ones no decimals are of use
        return f"{size:.{digits or 0}f}"
    if kind == "f":
        digits = None
    if isinstance(value, int) or (value.is_integer() and size < PLAIN[1]):
        return f"{size:.0f}"
    shown = f"{size:.{digits or DIGITS}g}"
    if size and not PLAIN[0] <= float(shown) < PLAIN[1]:
        mantissa, exponent = f"{size:.{(digits or DIGITS) - 1}e}".split("e")
        return raised(mantissa, int(exponent))
    return f"{size:.0f}" if "e" in shown else shown  # no digit before the decimals is lost
