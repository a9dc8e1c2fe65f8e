"""What a script's text says before anything of it runs: its docstring, how it can be called."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

from sgdstudy.errors import InputError, quoted, unknown
from sgdstudy.studies.claims import Claim


def docstring(file: str) -> str:
    """Return the docstring of a file, as it stands there."""
    tree = _parsed(file)
    return (ast.get_docstring(tree) or "") if tree is not None else ""


def _parsed(file: str) -> ast.Module | None:
    try:
        return ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


def check_call(what: str, function: Any, takes: tuple[str, ...]) -> None:
    """Refuse what cannot be called with these arguments.

    Raises:
        InputError: it is no function, or takes others.
    """
    if not callable(function):
        raise InputError(f"{what} is a function of {', '.join(takes)}, not {quoted(function)}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of some built-in functions it is not known
        return
    try:
        signature.bind(*takes)
    except TypeError as error:
        raise InputError(f"{what} is called with {', '.join(takes)}: {error}") from None


def check_claims(file: str) -> None:
    """Refuse keywords of `ss.Claim(...)` in a script that it does not have.

    Raises:
        InputError: there is one.
    """
    tree = _parsed(file)
    known = inspect.signature(Claim).parameters
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            given = [keyword.arg for keyword in node.keywords] if name == "Claim" else []
            for word in given:
                if word is not None and word not in known:
                    where = f"argument of ss.Claim (line {node.lineno} of {Path(file).name})"
                    raise unknown(where, word, known)
