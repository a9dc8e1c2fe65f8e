"""How values are written for people."""

from __future__ import annotations

import decimal
import itertools
import math
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode's categories of what acts, or has no shape
DIGITS, RAISED = "-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"
OFF_LINE = {"<super>": "^", "<sub>": "_"}  # Unicode's marks of what stands above and below a line
PLAIN = {  # where an encoding lacks it
    **{"–": "-", "—": "-", "−": "-", "…": "...", "±": "+-", "×": "x", "·": "*", "→": "->"},
    **{"“": '"', "”": '"', "‘": "'", "’": "'", "«": '"', "»": '"', "←": "<-", "⁄": "/"},
    **{"≤": "<=", "≥": ">=", "‖": "||", "⌈": "ceil(", "⌉": ")", "œ": "oe", "Œ": "OE", "µ": "u"},
    **dict.fromkeys("─━═╌╴╶", "-"),
    **dict.fromkeys("│┃║╎╵╷", "|"),
}
WORDS = {"∞": "inf", "∇": "grad", "√": "sqrt"}  # these keep a space to the letters beside them
GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER (?:FINAL )?(\w+)")
LINES = range(0x2500, 0x2580)  # what boxes and tables are drawn with
SHOWN = "\n\t\u200d"  # of these: lines, columns, and what joins emoji
EXPONENT = re.compile(r"(?<![\w.])(\d(?:\.\d+)?)e[+-]\d\d+(?!\w)")  # as of f"{x:g}", not as in 1e-4


def as_python(value: Any) -> Any:
    """Return numpy scalars, arrays and tensors as Python values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [as_python(item) for item in value]
    return value


def number(text: str) -> int | float | str:
    """Return the number that a text is, or the text.

    >>> number("10"), number("2e-4"), number("shuffle")
    (10, 0.0002, 'shuffle')
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def written(value: Any) -> str:
    """Write a value for a table.

    >>> written([0.30791, -1.7]), written(9340), written(True), written(None), written(float("inf"))
    ('0.3079, -1.7', '9340', 'yes', '–', '∞')
    >>> written(float("nan"))
    'undefined'
    """
    value = as_python(value)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else "-∞"  # a stop epoch: never
    if isinstance(value, float) and math.isnan(value):
        return "undefined"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 or abs(value) >= 1e6 else f"{value:.0f}"
    if isinstance(value, list):
        return ", ".join(written(item) for item in value)
    return str(value)


def counted(n: int, noun: str) -> str:
    """Write how many there are of something, where a text is not translated.

    >>> counted(1, "run"), counted(2000, "run"), counted(0, "row")
    ('1 run', '2,000 runs', '0 rows')
    """
    return f"{n:,} {noun}{'s' * (n != 1)}"


def power(value: float, digits: int = 1) -> str:
    """Write a number of many digits as a power of ten, others plainly.

    >>> power(5.3e11), power(4.61e7, 2), power(48.3, 2), power(1e6), power(float("inf"))
    ('5·10¹¹', '4.6·10⁷', '48', '10⁶', '∞')
    """
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return written(float(text)) if math.isinf(value) else text
    mantissa, exponent = text.split("e")
    return raised(mantissa, int(exponent))


def at_least(value: float, digits: int = 2) -> float:
    """Return the least number of so many digits that is not below a value: of a bound, in words.

    But for a hundredth of its last digit, which may be rounding of float32.

    >>> at_least(0.0311), at_least(50.83), at_least(0.090002), at_least(float("inf"))
    (0.032, 51.0, 0.09, inf)
    """
    return _cut(value, digits, decimal.ROUND_CEILING, -1)


def at_most(value: float, digits: int = 2) -> float:
    """Return the largest number of so many digits that is not above a value; see `at_least`.

    >>> at_most(0.0319), at_most(-50.83), at_most(0.08999985)
    (0.031, -51.0, 0.09)
    """
    return _cut(value, digits, decimal.ROUND_FLOOR, 1)


def _cut(value: float, digits: int, rounding: str, slack: int) -> float:
    value = float(value)  # not numpy's
    if not math.isfinite(value):
        return value
    near = value + slack * abs(value) * 10 ** -(digits + 2)
    return float(decimal.Context(prec=digits, rounding=rounding).create_decimal(repr(near)))


def raised(mantissa: str, exponent: int) -> str:
    """Write a number by its power of ten, without zeros at the end.

    >>> raised("1.50", 10), raised("1.00", -3)
    ('1.5·10¹⁰', '10⁻³')
    """
    power = str(exponent).translate(str.maketrans(DIGITS, RAISED))
    short = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"10{power}" if short == "1" else f"{short}·10{power}"


def powers(text: str) -> str:
    """Write numbers that Python writes with an exponent, within a text, as powers of ten.

    >>> powers("from 1.5e+10 to 5e-05; lr 1e-4 is a name")
    'from 1.5·10¹⁰ to 5·10⁻⁵; lr 1e-4 is a name'
    """
    return EXPONENT.sub(lambda found: power(float(found[0]), len(found[1].replace(".", ""))), text)


def legible(text: str) -> str:
    """Return text as standard output can show it; see `plainly`."""
    return plainly(text, getattr(sys.stdout, "encoding", None) or "utf-8")


def plainly(text: str, encoding: str) -> str:
    """Return text whose characters an encoding has; what it lacks is spelled in plain ones.

    >>> print(plainly("−5.1·10¹¹, ‖∇L‖² ≤ Σᵢ 2λᵢ, wᵢ₊₁: « à » ∞", "ascii"))
    -5.1*10^11, ||grad L||^2 <= sum_i 2 lambda_i, w_(i+1): "a" inf
    >>> print(plainly("x², 10⁻¹² – à", "cp1252"))
    x^2, 10^-12 – à
    """
    if text.isascii() or _holds(encoding, RAISED + text):
        return text
    if not _holds(encoding, "«»"):
        text = re.sub(r"(?<=«)\s|\s(?=»)", "", text)
    return _joined(_spelled(text, encoding))


def _spelled(text: str, encoding: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a text in characters that an encoding has, and whether each is a word."""
    off_line = _holds(encoding, RAISED)
    for level, group in itertools.groupby(text, _level):
        part = "".join(group)
        if level in OFF_LINE and not (off_line and _holds(encoding, part)):
            plain = "".join(one for one, _ in map(_instead, part))
            single = re.fullmatch(r"-?\d+|\w", plain)
            yield OFF_LINE[level] + (plain if single else f"({plain})"), False
            continue
        for character in part:
            yield (character, False) if _holds(encoding, character) else _instead(character)


def _joined(parts: Iterable[tuple[str, bool]]) -> str:
    """Return parts one after the other, with a space where a word would grow into its neighbour."""
    text, apart = "", False
    for part, is_word in parts:
        level = part[:1] in OFF_LINE.values() and len(part) > 1
        if level and part[0] == "_" and text.endswith("Sigma"):  # of terms: a sum
            text = text.removesuffix("Sigma") + "sum"
        grows = text[-1:].isalnum() and part[:1].isalnum()
        text += " " * (grows and (apart or is_word)) + part
        apart = is_word or level
    return text


def _instead(character: str) -> tuple[str, bool]:
    """Return what stands for a character that an encoding lacks, and whether it is a word."""
    if character in WORDS:
        return WORDS[character], True
    if character in PLAIN or character.isascii():
        return PLAIN.get(character, character), False
    if ord(character) in LINES:
        return "+", False
    if letter := GREEK.fullmatch(unicodedata.name(character, "")):
        name = letter[2].replace("LAMDA", "LAMBDA")
        return name.lower() if letter[1] == "SMALL" else name.capitalize(), True
    parts = unicodedata.normalize("NFKD", character)
    if parts == character:
        mark = unicodedata.combining(character)
        return "" if mark else character.encode("ascii", "backslashreplace").decode(), False
    return "".join(one for one, _ in map(_instead, parts)), unicodedata.category(character) == "No"


def _level(character: str) -> str:
    return unicodedata.decomposition(character).partition(" ")[0]


def _holds(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    except LookupError:  # an encoding that nobody knows
        return True
    return True


def printable(text: str) -> str:
    """Return text in which nothing acts on a terminal or a page: controls are written out.

    >>> printable("red\\x1b[31m, left\\u202e, caf\\xe9"), printable("two\\nlines")
    ('red\\\\x1b[31m, left\\\\u202e, café', 'two\\nlines')
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if acts(c) else c for c in text)


def acts(character: str) -> bool:
    """Whether a character acts instead of being seen: a control, an invisible mark, a half."""
    return unicodedata.category(character) in ACTING and character not in SHOWN
