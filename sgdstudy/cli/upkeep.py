"""What `sgdstudy export | pack | unpack | prune | recover` do with a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from sgdstudy import checks
from sgdstudy.cli.terminal import confirmed, say
from sgdstudy.errors import InputError, StoreError
from sgdstudy.language import parted, to_say
from sgdstudy.language import say as in_words

Store = Annotated[str | None, tyro.conf.arg(help=to_say("folder of the store, or tracking URI"))]


@dataclass(frozen=True)
class ExportCommand:
    """Write runs, steps, epochs and claims of a study as CSV or Parquet files."""

    study: Annotated[str, tyro.conf.Positional]
    """the study's name"""
    to: Literal["csv", "parquet"] = "csv"
    """the kind of file"""
    folder: str | None = None
    """where the files go; default: the study's name"""
    store: Store = None
    force: bool = False
    """write over files that are there"""

    def run(self) -> int:
        """Run the command; return the exit code."""
        from sgdstudy.tracking.export import export

        folder = self.folder or self.study
        for path in export(self.study, folder, self.to, store=self.store, force=self.force):
            say(in_words("wrote {path}", path=path))
        return 0


@dataclass(frozen=True)
class PackCommand:
    """Write runs to one file, to be unpacked into another store."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional]
    """studies and run ids, then the file"""
    invocation: str = "latest"
    """of the studies: latest, all, or an id"""
    store: Store = None

    def run(self) -> int:
        """Run the command; return the exit code."""
        from sgdstudy.tracking.pack import pack
        from sgdstudy.tracking.store import read_store

        if len(self.names) < 2:
            text = to_say("name studies or run ids, then the file: pack ex6_shuffle runs.zip")
            raise InputError(in_words(text))
        path = checks.path("the file", self.names[-1])
        packed = pack(read_store(self.store), self.names[:-1], path, self.invocation)
        say(
            in_words(
                "packed {n} run, {size:.1f} MB: {path}",
                "packed {n} runs, {size:.1f} MB: {path}",
                n=len(packed),
                size=path.stat().st_size / 1e6,
                path=path,
            )
        )
        return 0


@dataclass(frozen=True)
class UnpackCommand:
    """Add the runs of a file that `pack` wrote to a store."""

    file: Annotated[str, tyro.conf.Positional]
    """the file, written by pack"""
    store: Store = None

    def run(self) -> int:
        """Run the command; return the exit code."""
        from sgdstudy.tracking import recovery
        from sgdstudy.tracking.pack import unpack

        path = checks.path("the file", self.file)
        done = unpack(recovery.start(self.store, say), path)
        new = in_words("added {n} run", "added {n} runs", n=len(done.added))
        old = in_words("{n} was there already", "{n} were there already", n=len(done.there))
        kept = in_words(
            "{n} is not in the store, sgdstudy recover says why",
            "{n} are not in the store, sgdstudy recover says why",
            n=len(done.kept),
        )
        if done.kept:
            raise StoreError(parted([new, old, kept]))
        say(parted([new, old]))
        return 0


@dataclass(frozen=True)
class PruneCommand:
    """Drop all but the latest invocations of every study and user, with their files."""

    keep: int
    """how many invocations to keep, of each study and user"""
    store: Store = None
    yes: bool = False
    """do not ask"""

    def run(self) -> int:
        """Run the command; return the exit code."""
        from sgdstudy.tracking.prune import described, plan, remove, shrink, still

        store = _with_room(self.store)
        doomed = plan(store, self.keep)
        runs = [run for group in doomed.values() for run in group]
        if not runs:
            say(in_words("nothing to drop"))
            return _shrunk(shrink(store))
        say(in_words("of {store}", store=store.shown))
        for line in described(doomed):
            say(f"  {line}")
        question = in_words(
            "drop this run and its files?", "drop these {n} runs and their files?", n=len(runs)
        )
        if not self.yes and not confirmed(question, "--yes"):
            say(in_words("kept everything"))
            return 0
        n, freed = remove(store, still(store, runs))
        what = {"n": n, "size": freed / 1e6}
        say(in_words("dropped {n} run, {size:.0f} MB", "dropped {n} runs, {size:.0f} MB", **what))
        return _shrunk(shrink(store))


@dataclass(frozen=True)
class RecoverCommand:
    """Finish runs whose process is gone, and send what a tracking server missed."""

    store: Store = None
    discard: tuple[str, ...] = ()
    """drop these, which the store refuses, with all they recorded"""

    def run(self) -> int:
        """Run the command; return the exit code."""
        return _recover(self.store, self.discard)


def _with_room(given: str | None) -> Any:
    """Open the store to drop runs; where the disk is full, nothing else is done before."""
    from sgdstudy.tracking import recovery
    from sgdstudy.tracking.store import read_store

    try:
        return recovery.start(given, say, make=False)
    except StoreError as error:
        say(str(error))
        return read_store(given)


def _shrunk(freed: int) -> int:
    if freed:
        say(in_words("the database is {size:.0f} MB smaller", size=freed / 1e6))
    return 0


def _recover(given: str | None, unwanted: tuple[str, ...]) -> int:
    from sgdstudy.tracking import aside
    from sgdstudy.tracking.recovery import recover
    from sgdstudy.tracking.store import open_store

    store = open_store(given, make=False)
    for key in unwanted:
        say(in_words("discarded {run}", run=str(aside.discard(store, key))))
    aside.put_back(store)
    found, refused = recover(store), aside.listed(store)
    for name in [*found.closed, *found.sent]:
        say(f"  {name}")
    for one in refused:
        what = {"run": str(one), "key": one.folder.name}
        say("  " + in_words("refused: {run}; --discard {key} drops it", **what))
    say(str(found) or in_words("nothing to do: no run is left behind"))
    for address, count in aside.elsewhere(store).items():
        say(
            in_words(
                "{n} of this machine's runs waits for {address}",
                "{n} of this machine's runs wait for {address}",
                n=count,
                address=address,
            )
        )
    return 1 if found.waiting or found.left or refused else 0
