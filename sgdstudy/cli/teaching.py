"""What `sgdstudy course | grade | guesses` do, for whoever teaches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from sgdstudy import checks
from sgdstudy.cli.running import processes
from sgdstudy.cli.spreadsheet import require_table, write_table
from sgdstudy.cli.terminal import bold, say, show
from sgdstudy.language import say as in_words


@dataclass(frozen=True)
class GradeCommand:
    """Check the submissions of a class, a .py file each, and write a table of their verdicts.

    Each runs in a process of its own, with your rights on this machine.
    """

    folder: Annotated[str, tyro.conf.Positional]
    """the folder of the submissions"""
    exercise: str
    """ex1, ex2, ex4 or ex5: the file defines sgd; ex3: it defines enumerate_batches"""
    seconds: float = 10.0
    """the time limit of each"""
    jobs: int = 0
    """submissions that run side by side; 0: one per core"""
    out: str | None = None
    """the table, CSV; default: grades_EXERCISE.csv in the folder"""

    def run(self) -> int:
        """Run the command; return the exit code."""
        from sgdstudy.course import grade

        folder = checks.path("FOLDER", self.folder)
        files = grade.submissions(folder, self.exercise)
        seconds = checks.number("--seconds", self.seconds)
        beside = folder / f"grades_{self.exercise}.csv"
        out = beside if self.out is None else checks.path("--out", self.out)
        require_table(out, grade.COLUMNS)
        write_table(out, grade.COLUMNS, [])
        say(in_words(grade.WARNING))
        found: list[grade.Grade] = []
        for one in grade.grade(files, self.exercise, seconds, processes(self.jobs)):
            found.append(one)
            # rewritten after each submission, so that nothing is lost when one of them kills us
            write_table(out, grade.COLUMNS, (done.row() for done in found))
            show(bold(one.file), f"  {in_words(grade.VERDICTS[one.verdict])}")
            for line in one.lines:
                say(f"  {line}")
        right = sum(one.verdict == "correct" for one in found)
        say(
            in_words(
                "{right} of {n} submission is correct; the table: {out}",
                "{right} of {n} submissions are correct; the table: {out}",
                right=right,
                n=len(found),
                out=str(out),
            )
        )
        return 0


@dataclass(frozen=True)
class CourseCommand:
    """Write the notebooks of the course: one with holes for students, one with solutions."""

    folder: Annotated[str, tyro.conf.Positional]
    """the folder they go to"""

    def run(self) -> int:
        """Run the command; return the exit code."""
        from sgdstudy.course import notebooks

        for path in notebooks.write(checks.path("FOLDER", self.folder)):
            say(str(path))
        return 0


@dataclass(frozen=True)
class GuessesCommand:
    """Collect what a class guessed with --predict, a row each, with what was expected and measured.

    From stores, claims.json files, or a folder with any number of them, as students hand them in.
    """

    places: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """stores, files or folders; default: the store"""
    out: str = "guesses.csv"
    """the table, CSV"""

    def run(self) -> int:
        """Run the command; return the exit code."""
        from sgdstudy.tracking.guesses import COLUMNS, guesses

        out = checks.path("--out", self.out)
        require_table(out, COLUMNS)
        rows = [row for place in self.places or (None,) for row in guesses(place)]
        write_table(out, COLUMNS, (row.values() for row in rows))
        say(in_words("{n} guess: {out}", "{n} guesses: {out}", n=len(rows), out=str(out)))
        return 0
