"""What a script's text says before anything of it runs: its docstring, how it can be called."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted
from sgdstudy.language import unknown
from sgdstudy.recipe import columns
from sgdstudy.studies.arm import Options
from sgdstudy.studies.claims import Claim

OPEN = r"(batch|epoch)/w[0-9]+|result/\w+"  # metrics that are in no table


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
        InputError: it is no function, an async one, or takes others.
    """
    if not callable(function):
        raise InputError(f"{what} is a function of {', '.join(takes)}, not {quoted(function)}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise InputError(f"{what} is a plain function; write def, not async def")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of some built-in functions it is not known
        return
    try:
        signature.bind(*takes)
    except TypeError as error:
        raise InputError(f"{what} is called with {', '.join(takes)}: {error}") from None


def check_parts(name: str, figures: Any, tables: Any, ask: Any) -> None:
    """Refuse parts of a script that are neither a dict nor, where they may be, a function.

    Raises:
        InputError: one is.
    """
    for part, given, example, or_function in (
        ("figures", figures, "{'loss.png': draw}", ", or a function"),
        ("tables", tables, "{'losses.csv': make}", ""),
        ("ask", ask, "{('rate', 'one'): 'How fast?'}", ", or a function"),
    ):
        if not isinstance(given, Mapping) and not (or_function and callable(given)):
            raise InputError(
                f"{part} of {name} are a dict, as {example}{or_function}, not {quoted(given)}"
            )


def check_options(name: str, options: Any) -> None:
    """Refuse what are no options of a script, and defaults that no run could keep.

    Raises:
        InputError: no class derived from `ss.Options`; a default that is no JSON.
    """
    if not (isinstance(options, type) and issubclass(options, Options)):
        raise InputError(f"Options of {name} is a class Options(ss.Options), not {quoted(options)}")
    for field in fields(options):
        if field.default is not MISSING:
            check_option(field.name, field.default)


def check_option(name: str, value: Any) -> None:
    """Refuse the value of an option that no run could keep.

    Raises:
        InputError: it is no JSON.
    """
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        raise InputError(
            f"the option {name} is a number, a truth value, a text or None, or a list of these, "
            f"not {quoted(value)}"
        ) from None


def check_charts(charts: Any) -> None:
    """Refuse charts of a script that MLflow could not draw.

    Raises:
        InputError: no dict of titles and metrics; an unknown metric.
    """
    if not isinstance(charts, Mapping):
        example = "{'running loss': 'epoch/running_loss'}"
        raise InputError(f"charts are a dict, as {example}, not {quoted(charts)}")
    tables = columns.TABLES.items()
    known = [f"{columns.PREFIX[kind]}/{name}" for kind, table in tables for name in table]
    for title, metric in charts.items():
        checks.name("the title of a chart", title)
        if isinstance(metric, list | tuple):
            raise InputError(
                f"the chart {title!r} shows one metric, not {quoted(metric)}: MLflow gives all "
                f"metrics of a run one colour; make a chart of each"
            )
        if not (isinstance(metric, str) and re.fullmatch(OPEN, metric)):
            checks.choice(f"metric of the chart {title!r}:", _of_all_seeds(metric), known)


def _of_all_seeds(metric: Any) -> Any:
    """Return a metric without the band or the seed that its name may end with."""
    head, _, which = metric.rpartition("_") if isinstance(metric, str) else ("", "", "")
    return head if columns.WHICH.fullmatch(which) else metric


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
