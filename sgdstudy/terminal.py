"""What the command line prints: lines and tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sgdstudy.claims import show

WIDE = 110  # columns that hold a table of claims

if TYPE_CHECKING:
    import pandas as pd

    from sgdstudy.study import Result


def print_claims(results: Sequence[Result]) -> None:
    """Print the claims of one study, or of several, with their verdicts."""
    from rich.table import Table

    table = Table(show_edge=False)
    guessed = any(claim.guess is not None for result in results for claim in result.claims)
    guess = ["your guess"] if guessed else []
    table.add_column("claim", overflow="fold", no_wrap=console().width >= WIDE)
    for head in ("arm", *guess, "expected", "measured", "tolerance"):
        table.add_column(head, overflow="fold")
    table.add_column("verdict", no_wrap=True)
    words = {True: "[green]holds[/green]", False: "[bold red]FAILS[/bold red]", None: "–"}
    for result in results:
        if len(results) > 1:
            table.add_section()
            table.add_row(f"[bold]{result.study}[/bold]")
        for c in result.claims:
            tolerance = "" if c.holds is None else show(c.tolerance)
            guess = [show(c.guess)] if guessed else []
            cells = [c.name, c.arm, *guess, show(c.expected), show(c.measured), tolerance]
            table.add_row(*map(_escape, cells), words[c.holds])
    console().print(table)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def console() -> Any:
    """Return where things are printed."""
    from rich.console import Console

    # not a terminal (a log, a pipe): wide enough that no figure is cut
    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)


def say(text: str) -> None:
    """Print a line with rich's marks."""
    console().print(text, soft_wrap=True)


def plain(text: str) -> None:
    """Print a line as it is."""
    print(text, flush=True)


def print_rows(rows: pd.DataFrame) -> None:
    """Print a DataFrame as a table; nothing of an empty one."""
    from rich.table import Table

    table = Table(show_edge=False)
    for name in rows.columns:
        table.add_column(name, overflow="fold")
    for values in rows.itertuples(index=False):
        table.add_row(*(_escape("–" if v != v else show(v)) for v in values))
    if len(rows):
        console().print(table)
