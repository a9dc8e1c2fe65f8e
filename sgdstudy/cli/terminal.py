"""What the command line prints: lines and tables.

Texts of people (names, questions, paths) are never markup, and nothing in them acts on a terminal:
every line and every cell goes through `say`, `bold` or `_cell`.
"""

from __future__ import annotations

import logging
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sgdstudy.errors import InputError
from sgdstudy.language import everywhere, to_say
from sgdstudy.language import say as in_words
from sgdstudy.secrecy import without_secrets
from sgdstudy.studies import output
from sgdstudy.studies.claims import Claim, Kind
from sgdstudy.text import legible, printable, written

MOST_SHOWN = 20_000  # characters of an answer; answer.md has all of it
MOST_IN_CELL = 1000
WIDE = 110  # columns that hold a table of claims
LEAST_COLUMN = 12  # columns of a terminal for each of a table: with fewer its words break
KINDS: dict[Kind, str] = {
    "prediction": to_say("Predictions"),
    "identity": to_say("Identities"),
    "description": to_say("Descriptions"),
}

if TYPE_CHECKING:
    import pandas as pd
    from rich.text import Text

    from sgdstudy.studies.outcome import Result


def say(text: str) -> None:
    """Print a line, or several, as plain text."""
    output.reopen()
    print(printable(without_secrets(text)), flush=True)


def show(*parts: str | Text) -> None:
    """Print a line of plain parts and of `bold` ones."""
    from rich.text import Text

    plain = [_shown(part) if isinstance(part, str) else part for part in parts]
    console().print(Text.assemble(*plain), soft_wrap=True)


def bold(text: str) -> Text:
    """Return text in bold, where there is such a thing."""
    from rich.text import Text

    return Text(_shown(text), style="bold")


def show_paragraphs(text: str) -> None:
    """Print text in lines as wide as the terminal, none of which begins after a fixed space."""
    width = console().width
    if len(text) > MOST_SHOWN:
        text = f"{text[:MOST_SHOWN]}\n{in_words('…see answer.md')}"
    lines = (
        textwrap.fill(line, width, break_on_hyphens=False) for line in _shown(text).split("\n")
    )
    console().print("\n".join(["", *lines, ""]), soft_wrap=True)


def confirmed(question: str, instead: str) -> bool:
    """Ask; whether the reply is yes, in any language of ours.

    Args:
        question: what is asked.
        instead: the option that says yes, where there is nobody to ask.

    Raises:
        InputError: there is nobody to ask.
    """
    try:
        reply = input(
            in_words("{question} [y/N]", question=printable(without_secrets(question))) + " "
        )
    except (EOFError, RuntimeError, OSError, UnicodeError) as error:
        text = to_say("there is no terminal to ask in: {question} Add {option}")
        raise InputError(in_words(text, question=question, option=instead)) from error
    return reply.strip().lower() in (*everywhere(to_say("y")), *everywhere(to_say("yes")))


def print_claims(results: Sequence[Result]) -> None:
    """Print the claims of one study, or of several, a table for each kind."""
    for kind in KINDS:
        chosen = [(r.study, [c for c in r.claims if c.kind == kind]) for r in results]
        if any(claims for _, claims in chosen):
            show(bold(in_words(KINDS[kind])))
            _print_table(*_table_of(chosen, expects=kind != "description"))


def _table_of(
    studies: Sequence[tuple[str, list[Claim]]], expects: bool
) -> tuple[list[str], list[tuple[str, list[list[Text]]]]]:
    """Return the heads of a table of claims, all of one kind, and the rows of each study."""
    from rich.text import Text

    guessed = any(claim.guess is not None for _, claims in studies for claim in claims)
    three = [in_words("expected"), in_words("measured"), in_words("tolerance")]
    heads = [in_words("claim"), in_words("arm"), *[in_words("your guess")] * guessed]
    heads += [*three, in_words("verdict")] if expects else three[1:2]
    words = {True: Text(in_words("holds"), "green"), False: Text(in_words("FAILS"), "bold red")}
    sections = []
    for study, claims in studies:
        rows: list[list[Text]] = []
        for c in claims:
            cells = [c.name, c.arm, *[written(c.guess)] * guessed]
            if c.holds is None:
                rows.append([*map(_cell, [*cells, written(c.measured)])])
                continue
            numbers = map(written, (c.expected, c.measured, c.tolerance))
            rows.append([*map(_cell, [*cells, *numbers]), words[c.holds]])
        if rows:
            sections.append((study if len(studies) > 1 else "", rows))
    return heads, sections


def print_rows(rows: pd.DataFrame) -> None:
    """Print a DataFrame as a table; nothing of an empty one."""
    values = rows.itertuples(index=False)
    cells = [[_cell("–" if v != v else written(v)) for v in row] for row in values]
    if cells:
        _print_table([*map(str, rows.columns)], [("", cells)])


def _print_table(heads: Sequence[str], sections: Sequence[tuple[str, list[list[Text]]]]) -> None:
    """Print a table; where the terminal is too narrow for its columns, a line for each cell."""
    from rich.table import Table

    screen = console()
    if screen.width < LEAST_COLUMN * len(heads):
        named = [_cell(in_words("{title}: {what}", title=head, what="")) for head in heads]
        for title, rows in sections:
            if title:
                screen.print(bold(title), overflow="fold")
            for row in rows:
                for name, cell in zip(named, row, strict=True):
                    screen.print(name + cell, overflow="fold")
                screen.print()
        return
    table = Table(show_edge=False)
    for i, head in enumerate(heads):
        fixed = i == 0 and screen.width >= WIDE and len(heads) > 1
        table.add_column(_cell(head), overflow="fold", no_wrap=fixed)
    for title, rows in sections:
        if title:
            table.add_section()
            table.add_row(bold(title))
        for row in rows:
            table.add_row(*row)
    screen.print(table)


def _shown(text: str) -> str:
    """Return text that acts on nothing, as wide as the output will show it."""
    return printable(legible(without_secrets(text)))


def _cell(text: str) -> Text:
    from rich.text import Text

    return Text(_shown(text if len(text) <= MOST_IN_CELL else f"{text[:MOST_IN_CELL]} …"))


def console() -> Any:
    """Return where things are printed; brackets and colons in a text mean nothing."""
    from rich.console import Console

    output.reopen()
    # not a terminal (a log, a pipe): wide enough that no figure is cut
    width = None if sys.stdout.isatty() else WIDE
    return Console(width=width, highlight=False, markup=False, emoji=False)


class PlainWarnings(logging.Handler):
    """Prints what the package warns of, in one plain line each."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        output.reopen()
        print(printable(without_secrets(record.getMessage())), file=sys.stderr, flush=True)
