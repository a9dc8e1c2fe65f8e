"""Options of a command line, by tyro; what is wrong with them in one line, not in a box."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import itertools
import re
import textwrap
from dataclasses import field, fields, make_dataclass
from typing import Annotated, Any, get_type_hints

import tyro

from sgdstudy.errors import InputError
from sgdstudy.language import ENGLISH, language, translated

RULE = re.compile(r"[\W_]+|[╭╰┌└+].*")  # a line that divides a box, or its edge, with its title
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
    said, spoken = io.StringIO(), kind if language() == ENGLISH else in_language(kind)
    try:
        with contextlib.redirect_stderr(said):
            found = tyro.cli(spoken, args=words, prog=prog, description=description)
            return kind(**{field.name: getattr(found, field.name) for field in fields(kind)})
    except SystemExit as end:
        if end.code != 2:  # --help
            raise
    raise InputError(sentence(said.getvalue()))


def about(kind: type) -> str:
    """Return what a command does: its docstring, read from its file where `-OO` has left it out."""
    tree = ast.parse(inspect.getsource(kind))
    return ast.get_docstring(tree.body[0]) or ""  # type: ignore[arg-type]


def in_language(kind: Any) -> Any:
    """Return the dataclass with the help of its options in the present language."""
    hints, docs, made = get_type_hints(kind, include_extras=True), helps(kind), []
    for part in fields(kind):
        hint = hints[part.name]
        given = [getattr(config, "help", None) for config in getattr(hint, "__metadata__", ())]
        text = next(filter(None, given), None) or docs.get(part.name)
        if text:
            hint = Annotated[hint, tyro.conf.arg(help=translated(text))]
        made.append((part.name, hint, field(default=part.default)))
    return make_dataclass(kind.__name__, made, bases=(kind,), frozen=True)


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


def sentence(box: str) -> str:
    """Return what a box of tyro's says, without its title.

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
    for pattern, words in PLAIN.items():
        said = [re.sub(pattern, words, part) for part in said]
    first, *rest = (part.rstrip(".") for part in said)
    return "; ".join([first, *(part[:1].lower() + part[1:] for part in rest)])
