"""What the command line prints: lines and tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sgdstudy.studies.claims import PLURAL, Claim
from sgdstudy.text import written

WIDE = 110  # columns that hold a table of claims

if TYPE_CHECKING:
    import pandas as pd

    from sgdstudy.studies.study import Result


def print_claims(results: Sequence[Result]) -> None:
    """Print the claims of one study, or of several, a table for each kind."""
    for kind, plural in PLURAL.items():
        chosen = [(r.study, [c for c in r.claims if c.kind == kind]) for r in results]
        if any(claims for _, claims in chosen):
            console().print(f"[bold]{plural.capitalize()}[/bold]")
            console().print(_table_of(chosen, expects=kind != "description"))


def _table_of(studies: Sequence[tuple[str, list[Claim]]], expects: bool) -> Any:
    """Return a table of the claims of each study, all of one kind."""
    from rich.table import Table

    table = Table(show_edge=False)
    guessed = any(claim.guess is not None for _, claims in studies for claim in claims)
    table.add_column("claim", overflow="fold", no_wrap=console().width >= WIDE)
    heads = ["expected", "measured", "tolerance"] if expects else ["measured"]
    for head in ("arm", *["your guess"] * guessed, *heads):
        table.add_column(head, overflow="fold")
    if expects:
        table.add_column("verdict", no_wrap=True)
    words = {True: "[green]holds[/green]", False: "[bold red]FAILS[/bold red]"}
    for study, claims in studies:
        if len(studies) > 1 and claims:
            table.add_section()
            table.add_row(f"[bold]{study}[/bold]")
        for c in claims:
            cells = [c.name, c.arm, *[written(c.guess)] * guessed]
            if c.holds is None:
                table.add_row(*map(_escape, [*cells, written(c.measured)]))
                continue
            numbers = map(written, (c.expected, c.measured, c.tolerance))
            table.add_row(*map(_escape, [*cells, *numbers]), words[c.holds])
    return table


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


def print_plain(text: str) -> None:
    """Print a line as it is."""
    print(text, flush=True)


def print_rows(rows: pd.DataFrame) -> None:
    """Print a DataFrame as a table; nothing of an empty one."""
    from rich.table import Table

    table = Table(show_edge=False)
    for name in rows.columns:
        table.add_column(name, overflow="fold")
    for values in rows.itertuples(index=False):
        table.add_row(*(_escape("–" if v != v else written(v)) for v in values))
    if len(rows):
        console().print(table)
