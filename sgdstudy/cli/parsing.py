"""Options of a command line, by tyro; what is wrong with them in one line, not in a box."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
from typing import Any

import tyro

from sgdstudy.errors import InputError

RULE = re.compile(r"[\W_]+")  # a line that divides a box
PLAIN = {  # Python's words, and ours
    r"invalid literal for int\(\) with base 10: (.*)": r"\1 is not a whole number",
    r"could not convert string to float: (.*)": r"\1 is not a number",
    r"Error parsing (--\S+):": r"\1:",
    r" Got errors: .*": "",
    r"^Argument helptext: ": "expected ",
}


def parse(kind: Any, words: list[str], prog: str, description: str | None = None) -> Any:
    """Return the dataclass that the words of a command line describe.

    Raises:
        InputError: an unknown option, one that is missing, or a value of another kind.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=words, prog=prog, description=description)
    except SystemExit as end:
        if end.code != 2:  # --help
            raise
    raise InputError(sentence(said.getvalue()))


def about(kind: type) -> str:
    """Return what a command does: its docstring, read from its file where `-OO` has left it out."""
    tree = ast.parse(inspect.getsource(kind))
    return ast.get_docstring(tree.body[0]) or ""  # type: ignore[arg-type]


def sentence(box: str) -> str:
    """Return what a box of tyro's says, without its title.

    >>> print(sentence('''
    ...  Value error
    ...  -----------
    ...  Error parsing --lr: could not convert string to float: 'abc'
    ...  -----------
    ...  For full helptext, run ex6_shuffle --help
    ... '''))
    --lr: 'abc' is not a number; for full helptext, run ex6_shuffle --help
    """
    parts: list[list[str]] = [[]]
    for line in box.strip().splitlines():
        text = line.strip(" │|")
        if text and RULE.fullmatch(text):
            parts.append([])
        elif text:
            parts[-1].append(text)
    said = [" ".join(part) for part in parts[1:] or parts if part]
    for pattern, words in PLAIN.items():
        said = [re.sub(pattern, words, part) for part in said]
    first, *rest = (part.rstrip(".") for part in said)
    return "; ".join([first, *(part[:1].lower() + part[1:] for part in rest)])
