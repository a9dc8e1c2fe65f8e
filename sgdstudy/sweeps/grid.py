"""Grids of settings as people write them: `lr=logspace(1e-5,5e-4,50) batch_size=1,10,100`."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgdstudy.errors import InputError, quoted
from sgdstudy.language import unknown
from sgdstudy.secrecy import without_secrets
from sgdstudy.text import number

Grid = dict[str, list[Any]]
MOST_VALUES = 100_000  # on one axis
WORDS = {"none": None, "true": True, "false": False}
WHAT = {str: "a word", int: "a whole number", dict: "a mapping, as lr: [1e-4, 2e-4]"}
FORMS = "a,b,c or logspace(first,last,n) or linspace(first,last,n) or range(first,end,step)"


def parse(words: Sequence[str]) -> Grid:
    """Return a grid from the words of a command line, each `name=values`.

    Raises:
        InputError: a word of another form, a name given twice, or no value.

    >>> parse(["lr=logspace(0.001,0.1,3)", "batch_size=1,10,none"])
    {'lr': [0.001, 0.01, 0.1], 'batch_size': [1, 10, None]}
    """
    grid: Grid = {}
    for word in words:
        name, sign, text = word.partition("=")
        name = name.strip()
        if not (name and sign):
            raise InputError(f"a grid is written name=values, as lr=1e-4,2e-4; got {word!r}")
        if name in grid:
            raise InputError(f"the grid names {name} twice; give all its values at once")
        grid[name] = axis(name, text)
    return grid


def of(given: Any) -> Grid:
    """Return a grid from a dict of Python's: of each name a value or several, or a text as above.

    Raises:
        InputError: no dict, a name that is no word, or what `axis` refuses.

    >>> of({"lr": np.geomspace(0.001, 0.1, 3), "epochs": range(1, 3), "batch_size": None})
    {'lr': [0.001, 0.01, 0.1], 'epochs': [1, 2], 'batch_size': [None]}
    """
    if not isinstance(given, Mapping):
        raise InputError(f"a grid is a dict, as {{'lr': [1e-4, 2e-4]}}, not {quoted(given)}")
    for name in given:
        if not isinstance(name, str):
            raise InputError(f"the names of a grid are words, as 'lr'; got {quoted(name)}")
    return {name: axis(name, _plain(values)) for name, values in given.items()}


def axis(name: str, text: Any) -> list[Any]:
    """Return the values of one axis, from text, or from a list or a value of a YAML file."""
    if not isinstance(text, str):
        values = list(text) if isinstance(text, (list, tuple)) else [text]
    else:
        if text.count("(") != text.count(")"):
            side = ")" if text.count("(") > text.count(")") else "("
            raise InputError(f"the grid's {name} lacks a bracket {side!r}: {text!r}; give {FORMS}")
        call = re.fullmatch(r"\s*(\w+)\((.*)\)\s*", text)
        values = _spaced(name, *call.groups()) if call else [value(t) for t in text.split(",")]
    for v in values:
        if not isinstance(v, (int, float, str, type(None))):
            raise InputError(
                f"the grid's {name} has {quoted(v)}: values are numbers, words or none; let a word "
                f"stand for anything else, as an option of your own"
            )
    if not values or any(v == "" for v in values):
        raise InputError(f"the grid's {name} has an empty value: {text!r}; give {FORMS}")
    if len({repr(v) for v in values}) < len(values):
        raise InputError(f"the grid's {name} has a value twice: {text!r}")
    return values


def value(text: str) -> Any:
    """Return a number, truth value, None or word.

    >>> [value(t) for t in ("10", "2e-4", "true", "none", "shuffle")]
    [10, 0.0002, True, None, 'shuffle']
    """
    text = text.strip()
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    return number(text)


def scalar(value: Any) -> Any:
    """Return a number of numpy's or torch's as Python's, and anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def points(grid: Mapping[str, Sequence[Any]]) -> Iterable[dict[str, Any]]:
    """Yield every combination, the last axis fastest."""
    for chosen in itertools.product(*grid.values()):
        yield dict(zip(grid, chosen, strict=True))


def size(grid: Mapping[str, Sequence[Any]]) -> int:
    """Return the number of combinations."""
    return math.prod(len(values) for values in grid.values())


def digits(values: Sequence[Any]) -> int:
    """Return with how many digits, four or more, the values of an axis are told apart.

    >>> digits([0.000406958881, 0.0031622776601683795]), digits([0.10001, 0.10002])
    (4, 5)
    """
    numbers = {v for v in values if isinstance(v, float)}
    return next(
        (n for n in range(4, 17) if len({f"{v:.{n}g}" for v in numbers}) == len(numbers)), 17
    )


def name_of(point: Mapping[str, Any], shown: Mapping[str, int]) -> str:
    """Return the name of a combination.

    Args:
        point: its values.
        shown: how many digits those of a name have; 10 where it does not say.

    >>> name_of({"lr": 0.00010000000000000002, "batch_size": 10}, {"lr": 4})
    'lr=0.0001, batch_size=10'
    """
    return ", ".join(f"{name}={_short(v, shown.get(name, 10))}" for name, v in point.items())


def read_yaml(path: str) -> dict[str, Any]:
    """Return what a sweep's file says: `study`, `arm`, `grid`, `seeds`, `record`, `by`.

    Raises:
        InputError: no such file, no YAML, or a key that a sweep does not have.
    """
    import yaml

    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = without_secrets(" ".join(str(error).split()))[:150]
        raise InputError(f"the sweep's file {path!r} cannot be read: {first}") from None
    kinds = {"study": str, "arm": str, "grid": dict, "seeds": int, "record": str, "by": str}
    if not isinstance(found, dict):
        raise InputError(f"the sweep's file {path!r} is no mapping of {', '.join(kinds)}")
    for key, given in found.items():
        if key not in kinds:
            raise unknown(f"key of {path}", key, kinds)
        if not isinstance(given, kinds[key]) or isinstance(given, bool):
            raise InputError(f"{key} in {path!r} is {WHAT[kinds[key]]}; got {given!r}")
    grid = found.get("grid", {})
    if not all(isinstance(name, str) for name in grid):
        raise InputError(f"the names of grid in {path!r} are words, as lr; got {list(grid)}")
    # YAML reads 1e-4 as text: it wants 1.0e-4
    lists = {
        k: [value(v) if isinstance(v, str) else v for v in vs] if isinstance(vs, list) else vs
        for k, vs in grid.items()
    }
    return found | {"grid": {name: axis(name, values) for name, values in lists.items()}}


def _plain(values: Any) -> Any:
    """Return an array, a range or a series as a list."""
    if hasattr(values, "tolist"):
        return values.tolist()
    if isinstance(values, str) or not isinstance(values, Iterable):
        return values
    return [scalar(v) for v in values]


def _spaced(name: str, form: str, inside: str) -> list[Any]:
    numbers = [value(part) for part in inside.split(",")]
    kinds: dict[str, Callable[..., Any]] = {
        "logspace": np.geomspace,
        "linspace": np.linspace,
        "range": np.arange,
    }
    if form not in kinds:
        raise unknown("form of a grid", form, kinds)
    real = [n for n in numbers if isinstance(n, (int, float)) and not isinstance(n, bool)]
    good = len(real) == len(numbers) and all(math.isfinite(n) for n in real)
    if form == "range":
        good = good and len(real) in (2, 3) and (len(real) == 2 or real[2] != 0)
        n = (real[1] - real[0]) / (real[2] if len(real) == 3 else 1) if good else 0
    else:
        good = good and len(real) == 3 and isinstance(real[2], int)
        n = real[2] if good else 0
    if good and form == "logspace":
        good = real[0] > 0 and real[1] > 0
    spaced = []
    if good and 1 <= n <= MOST_VALUES:
        with np.errstate(all="ignore"):
            spaced = kinds[form](*real).tolist()
    if not spaced or not all(map(math.isfinite, spaced)):
        raise InputError(
            f"{name}={form}({inside}) cannot be spaced out; give {FORMS}, "
            f"with 1 to {MOST_VALUES:,} values, above 0 for logspace"
        )
    # 15 digits: the ends are what was written, and 0.01 is 0.01
    return [v if isinstance(v, int) else float(f"{v:.15g}") for v in spaced]


def _short(v: Any, n: int) -> str:
    return f"{v:.{n}g}" if isinstance(v, float) else without_secrets(str(v), whole=True)
