"""A store that is copied, moved, mounted read-only, shared; a server behind TLS or a proxy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ends
import lab
from lab import Options, Outcome

sys.path.append(str(lab.ROOT / "tests"))
from misbehaving import Misbehaving, self_signed

ADA, BEN, GROUP, OTHER = 61001, 61002, 61100, 61200
NAMES = ("elsewhere", "a b%20c", "ünï/deep", "q?x=1#y", "[red]file:x")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
IN_VAIN = "http://127.0.0.1:9"  # nobody listens there


def moved(o: Options) -> Outcome:
    """Copy a store, or move it while a run of it is dead; use it there."""
    outcome = Outcome(
        "the store was copied, or moved with a run that was killed",
        "folders with odd names; the copy is pruned, and the original is as it was; the moved one "
        "is recovered, read, exported and written to, and nothing comes where it was",
    )
    for name in NAMES[: 1 if o.quick else None]:
        for act in (_copied, _moved):
            folder = o.folder("moved")
            store = lab.new_store(o, folder)
            problems = lab.said_wrong(*lab.do(lambda store=store: lab.study(str(store)), folder))
            target = folder / name / "mlruns"
            target.parent.mkdir(parents=True)
            outcome.problems.append(problems + act(o, folder, store, target))
            shutil.rmtree(folder)
    return outcome


def _copied(o: Options, folder: Path, store: Path, target: Path) -> list[str]:
    shutil.copytree(store, target)
    before = _files(store)
    words = ["prune", "--keep", "0", "--yes", "--store", str(target)]
    problems = lab.said_wrong(*lab.do(lab.command(*words), folder))
    problems += ["the original was changed"] * (_files(store) != before)
    problems += ["the copy was not pruned"] * bool(list(target.rglob("*.parquet")))
    return problems + lab.found_by(lambda: _readable(store, 2), folder)


def _moved(o: Options, folder: Path, store: Path, target: Path) -> list[str]:
    before = set(store.glob("streams/*"))
    pid = lab.start(lambda: lab.study(str(store), 1), folder)
    _wait(lambda: bool([p for p in store.glob("streams/*/steps.arrow") if p.parent not in before]))
    lab.kill(pid)
    store.rename(target)
    problems = lab.said_wrong(*lab.do(lab.command("recover", "--store", str(target)), folder))
    words = ["export", lab.STUDY, "--folder", str(folder / "out"), "--store", str(target)]
    problems += lab.said_wrong(*lab.do(lab.command(*words), folder))
    problems += lab.said_wrong(*lab.do(lambda: lab.study(str(target)), folder))
    problems += ["something came where it was"] * store.exists()
    problems += lab.found_by(lambda: lab.general(target), folder)
    return problems + lab.found_by(lambda: _readable(target, 2), folder)


def mounted(o: Options) -> Outcome:
    """Read a store where nothing can be written."""
    outcome = Outcome(
        "the store is on a read-only mount",
        "bind mount; `load_steps`, `export`, `pack`, `report --out`; `run` says so in one line; "
        "the folder is as it was",
    )
    folder = o.folder("mounted")
    if os.getuid() != 0:
        outcome.skipped = "only root can mount"
        return outcome
    script = ends.run_script(o, folder, lab.new_store(o, folder))
    done = lab.do(script, folder, FAULT="", EPOCHS="4")
    store, place = folder / "store", folder / "place"
    place.mkdir()
    tried = subprocess.run(["mount", "--bind", "-o", "ro", store, place], capture_output=True)
    if tried.returncode:
        outcome.skipped = "a bind mount is not allowed"
        return outcome
    try:
        before = _files(place)
        there = ["--store", str(place)]
        problems = lab.said_wrong(*done)
        for words in (
            ["export", "cut_off", "--folder", str(folder / "out"), *there],
            ["pack", "cut_off", str(folder / "runs.zip"), *there],
            ["report", "--out", str(folder / "report.html"), *there],
        ):
            problems += lab.said_wrong(*lab.do(lab.command(*words), folder))
        problems += lab.found_by(lambda: _rows(place, "cut_off", 4 * 200 * 2), folder)
        refused = ends.run_script(o, folder, place)
        code, said = lab.do(refused, folder, FAULT="", EPOCHS="4")
        problems += lab.said_wrong(code, said, (2,))
        problems += ["it does not say why"] * ("read-only" not in said)
        problems += ["the folder was changed"] * (_files(place) != before)
        outcome.problems.append(problems)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
    return outcome


def shared(o: Options) -> Outcome:
    """Let two users of a group write a store in turn and at once; a third one only reads."""
    outcome = Outcome(
        "two users write to one store, a third reads",
        "a folder of a group (setgid), processes with other uids, umask 002, 022, 077; one after "
        "the other, then at once; the reader leaves nothing; then `sgdstudy recover` of one",
    )
    if os.getuid() != 0:
        outcome.skipped = "only root becomes another user"
        return outcome
    for umask in (0o002,) if o.quick else (0o002, 0o022, 0o077) * 2:
        folder = o.folder("shared")
        _open_way(folder)
        place = folder / "ours"
        place.mkdir()
        os.chown(place, ADA, GROUP)
        place.chmod(0o2775)
        store = place / "mlruns"
        problems = []
        for user in (ADA, BEN):
            problems += _as(user, umask, lambda store=store: lab.study(str(store), 1), folder)
        before, reader = _files(place), GROUP if umask & 0o004 else OTHER
        problems += _as(OTHER, umask, lambda store=store: _read(store, 2), folder, reader)
        problems += ["the reader left something"] * (_files(place) != before)
        both = [
            lab.start(_user(user, umask, lambda store=store: lab.study(str(store), 1)), made)
            for user in (ADA, BEN)
            if (made := _own(folder / str(user), user))
        ]
        for pid, user in zip(both, (ADA, BEN), strict=True):
            said = lab.end(pid), (folder / str(user) / "log.txt").read_text()
            problems += lab.said_wrong(*said)
        words = lab.command("recover", "--store", str(store))
        problems += _as(BEN, umask, words, folder)
        outcome.problems.append(problems + lab.found_by(lambda s=store: _readable(s, 4), folder))
        shutil.rmtree(folder)
    return outcome


def _open_way(folder: Path) -> None:
    for path in (folder, *folder.parents):
        if path == Path(path.anchor):
            break
        path.chmod(path.stat().st_mode | 0o055)


def _own(folder: Path, user: int) -> Path:
    folder.mkdir(exist_ok=True)
    os.chown(folder, user, GROUP)
    return folder


def _user(
    user: int, umask: int, action: Callable[[], object], group: int = GROUP
) -> Callable[[], None]:
    """Return an action done as another user."""

    def acts() -> None:
        os.setgroups([group])
        os.setgid(group)
        os.setuid(user)
        os.umask(umask)
        os.environ["HOME"] = "/nowhere"
        action()

    return acts


def _as(
    user: int, umask: int, action: Callable[[], object], folder: Path, group: int = GROUP
) -> list[str]:
    made = _own(folder / str(user), user)
    return lab.said_wrong(*lab.do(_user(user, umask, action, group), made))


def network(o: Options) -> Outcome:
    """Track to a server on loopback behind TLS, and past a proxy that is dead."""
    outcome = Outcome(
        "a proxy that is dead in every variable; a server with a certificate of its own",
        "MLflow on loopback: `recover` and a study with the variables set; with TLS and "
        "each of the three settings that MLflow honours, and without (one line)",
    )
    folder = o.folder("network")
    pem = self_signed(folder / "server.pem")
    if pem is None:
        outcome.skipped = "cryptography is not installed"
        return outcome
    dead = {name: IN_VAIN for name in (*PROXIES, *map(str.upper, PROXIES))}
    settings = {
        "MLFLOW_TRACKING_INSECURE_TLS": "true",
        "MLFLOW_TRACKING_SERVER_CERT_PATH": str(pem),
        "REQUESTS_CA_BUNDLE": str(pem),
    }
    ways = [(None, dead), *((pem, {name: value}) for name, value in settings.items())]
    for number, (certificate, environment) in enumerate([*ways, (pem, {})]):
        place = folder / str(number)
        (place / "server").mkdir(parents=True)
        lab.new_store(o, place / "server").rename(place / "server" / "s")
        shutil.move(place / "server" / "s" / "mlflow.db", place / "server" / "mlflow.db")
        pid = lab.start(lambda p=place, c=certificate: _serve(p, c), place)
        _wait(lambda p=place: (p / "address").exists())
        given = environment | {"XDG_STATE_HOME": str(place / "state")}
        given["MLFLOW_TRACKING_URI"] = (place / "address").read_text()
        mine = place / "mine"
        mine.mkdir()
        code, said = lab.do(lambda: lab.command("recover")() or lab.study(None, 1), mine, **given)
        lab.kill(pid)
        if environment:
            outcome.problems.append(lab.said_wrong(code, said))
        else:
            problems = lab.said_wrong(code, said, (2,))
            outcome.problems.append(problems + ["not one line"] * (said.count("error: ") != 1))
    return outcome


def _serve(folder: Path, certificate: Path | None) -> None:
    with Misbehaving(folder / "server", certificate) as server:
        (folder / "address.new").write_text(server.uri)
        (folder / "address.new").rename(folder / "address")
        time.sleep(600)


# ---- what is there -------------------------------------------------------------------------------


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come within 60 s"
        time.sleep(0.005)


def _readable(store: Path, invocations: int) -> list[str]:
    """Return what is wrong with a store of so many finished arms."""
    runs = [run for run in lab.stored(store) if run.status == "FINISHED"]
    problems = [f"{len(runs)} finished runs, not {invocations}"] * (len(runs) < invocations)
    steps = lab.ss.load_steps(lab.STUDY, store=str(store), invocation="all", columns=["loss"])
    whole = steps.groupby("run_id").size()
    short = [run.name for run in runs if whole.get(run.id) != lab.ROWS]
    return problems + [f"{name} has not all of its rows" for name in short]


def _rows(store: Path, study: str, rows: int) -> list[str]:
    found = len(lab.ss.load_steps(study, store=str(store)))
    return [f"{found} rows"] * (found != rows)


def _read(store: Path, invocations: int) -> None:
    """Read as the package does; `sqlite3` alone would leave files beside the database."""
    given = {"store": str(store), "invocation": "all"}
    runs = lab.ss.load_runs(lab.STUDY, **given)
    steps = lab.ss.load_steps(lab.STUDY, columns=["loss"], **given)
    assert list(runs.status) == ["FINISHED"] * invocations
    assert len(steps) == invocations * lab.ROWS
