"""What a study shows beside its answer: figures, tables, text; one that fails stops nothing."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sgdstudy.errors import InputError, message, place, reason
from sgdstudy.language import say as in_words
from sgdstudy.secrecy import without_secrets
from sgdstudy.studies.arm import Options
from sgdstudy.studies.claims import Claims
from sgdstudy.studies.outcome import Runs
from sgdstudy.studies.output import called
from sgdstudy.studies.study import Study
from sgdstudy.tracking.journal import Journal


@dataclass(frozen=True)
class Extras:
    """What a study shows, made on demand; what cannot be made is said, and left out.

    Attributes:
        study: the script.
        options: of this run.
        runs: its histories.
        say: takes lines of text.
        missing: names of what could not be made.
    """

    study: Study
    options: Options
    runs: Runs
    say: Callable[[str], None]
    missing: list[str] = field(default_factory=list)

    def picture(self, journal: Journal, claims: Claims) -> list[str]:
        """Draw the main figure: as a picture, as data, and as a page that MLflow shows."""
        if self.study.picture is None:
            return []
        try:
            from sgdstudy.figures import interactive  # here: what a figure needs stops no study

            chart = called(partial(self.study.picture, self.options, self.runs, claims))
            data, drawn = chart.png(), chart.interactive()
            json, page = drawn.to_json(), interactive.page(drawn, data)
        except Exception as error:
            self._leave_out("picture.png", error)
            return []
        self._add(journal, "picture.png", partial(Path.write_bytes, data=data))
        for name, text in (("picture.json", json), ("picture.html", page)):
            self._add(journal, name, partial(Path.write_text, data=text, encoding="utf-8"))
        return ["picture.png"]

    def figures(self, journal: Journal) -> list[str]:
        """Draw the figures one by one, each an artifact; return their names."""
        names: list[str] = []
        pictures, after = self.study.drawn(self.runs), ""
        while True:
            # named so where the generator itself fails; it ends then
            name = in_words("a figure after {name}", name=after) if after else in_words("a figure")
            try:
                name, draw = called(partial(next, pictures))
                data = _png(called(draw))
            except StopIteration:
                return names
            except Exception as error:
                self._leave_out(name, error)
                continue
            after = name
            if self._add(journal, name, partial(Path.write_bytes, data=data)):
                names.append(name)

    def tables(self, journal: Journal) -> None:
        """Write the tables, each an artifact."""
        for name, make in self.study.tables.items():
            buffer = io.StringIO()
            try:
                called(partial(self._write_table, make, buffer))
            except Exception as error:
                self._leave_out(name, error)
                continue
            text = without_secrets(buffer.getvalue())
            write = partial(Path.write_text, data=text, encoding="utf-8", newline="")
            self._add(journal, name, write)

    def _write_table(self, make: Callable[[Any, Runs], Any], to: io.StringIO) -> None:
        import pandas as pd  # --help must not wait for it

        rows = make(self.options, self.runs)
        table = pd.DataFrame(rows) if isinstance(rows, Iterator) else rows
        table.to_csv(to, index=False)

    def text(self) -> str:
        """Return what the script shows before its claims."""
        if self.study.show is None:
            return ""
        try:
            return str(called(partial(self.study.show, self.options, self.runs)))
        except Exception as error:
            self._leave_out(in_words("what show() returns"), error)
            return ""

    def _add(self, journal: Journal, name: str, write: Callable[[Path], Any]) -> bool:
        """Add an artifact; a name that it cannot have is left out like the rest."""
        try:
            journal.add(name, write)
        except InputError as error:
            self._leave_out(repr(name), error)
            return False
        return True

    def _leave_out(self, name: str, error: Exception) -> None:
        where = place(error, self.study.file)
        why = message(error) if isinstance(error, InputError) else reason(error)
        given = {"study": self.study.name, "name": name, "why": f"{why}{where}"}
        self.say(in_words("{study}: {name} is left out: {why}", **given))
        self.missing.append(name)


def _png(figure: Any) -> bytes:
    from sgdstudy.figures import Chart, png  # here: what a figure needs stops no study

    return figure.png() if isinstance(figure, Chart) else png(figure)
