"""A tracking server that goes away during a study and comes back; one that answers badly."""

from __future__ import annotations

import collections
import random
import sys
import time
from pathlib import Path

import lab
import proxy
from lab import Options, Outcome

sys.path.append(str(lab.ROOT / "tests"))
from servers import MlflowServer, free_port

ARMS = 4
INTERIM_SECONDS = 0.2  # points are sent this often, that outages hit those too
UNREPEATABLE = ("result/train_seconds", "result/seconds_per_step")


def outages(o: Options) -> Outcome:
    """Stop a real server at random moments of a study; start it again later, or too late."""
    outcome = Outcome(
        f"a real MLflow server goes away during a study of {ARMS} arms",
        "SIGTERM or SIGKILL at a random moment; started again after a random time, or (every "
        "third) only when the study has ended; then `sgdstudy recover`",
    )
    rng = random.Random(lab.SEED + 2)
    folder = o.folder("outages")
    server = MlflowServer(lab.new_store(o, folder))
    expected = _undisturbed(o)
    how: collections.Counter[str] = collections.Counter()
    try:
        server.start()
        life = _life(server, folder)
        for trial in range(1 if o.quick else 20):
            late = trial % 3 == 1
            said, problems = _outage(server, folder, f"outage {trial}", rng, life, late)
            how[said] += 1
            outcome.problems.append(problems + _check(o, server, folder, expected, trial))
    finally:
        server.stop()
    outcome.note = ", ".join(f"{n} {name}" for name, n in how.items())
    return outcome


def _environment(folder: Path, uri: str) -> dict[str, str]:
    return {
        "MLFLOW_TRACKING_URI": uri,
        "XDG_STATE_HOME": str(folder / "state"),
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
    }


def _study(name: str) -> None:
    lab.study(None, ARMS, INTERIM_SECONDS, name)


def _life(server: MlflowServer, folder: Path) -> float:
    begun = time.monotonic()
    code, said = lab.do(lambda: _study("calm"), folder, **_environment(folder, server.uri))
    assert code == 0, said
    return time.monotonic() - begun


def _outage(
    server: MlflowServer, folder: Path, study: str, rng: random.Random, life: float, late: bool
) -> tuple[str, list[str]]:
    """Run a study with one outage, then recover; return how it went, and what was wrong."""
    environment = _environment(folder, server.uri)
    log = folder / "log.txt"
    before = log.stat().st_size
    pid = lab.start(lambda: _study(study), folder, **environment)
    _wait_until_open(log, before)
    time.sleep(rng.uniform(0, 0.8 * life))
    name, stop = rng.choice([("SIGTERM", server.stop), ("SIGKILL", server.kill)])
    stop()
    pause = rng.uniform(0, life)
    if late:
        code = lab.end(pid)
        server.start()
    else:
        time.sleep(pause)
        server.start()
        code = lab.end(pid)
    problems = lab.said_wrong(code, log.read_bytes()[before:].decode())
    waited = list((folder / "state").glob("sgdstudy/streams/*/opening.json"))
    problems += lab.said_wrong(*lab.do(lab.command("recover"), folder, **environment))
    sent = "needed recover" if waited else "sent by the study itself"
    return f"{name}, {sent}", problems


def _wait_until_open(log: Path, before: int) -> None:
    deadline = time.monotonic() + 60
    while b"opened" not in log.read_bytes()[before:]:
        assert time.monotonic() < deadline, "the study did not begin"
        time.sleep(0.01)


def _undisturbed(o: Options) -> list[list[object]]:
    """Return the points of an arm that was tracked without an outage."""
    folder = o.folder("undisturbed")
    store = lab.new_store(o, folder)
    code, said = lab.do(lambda: lab.study(str(store), 1), folder)
    assert code == 0, said
    ((run),) = lab.stored(store)
    return [list(point) for point in run.points(store) if point[0] not in UNREPEATABLE]


def _check(
    o: Options, server: MlflowServer, folder: Path, expected: list[list[object]], trial: int
) -> list[str]:
    full = lab.reference(o)
    streams = folder / "state" / "sgdstudy" / "streams"
    return lab.found_by(
        lambda: look(server.folder, streams, full, f"outage {trial}", expected), folder
    )


def look(
    store: Path, streams: Path, reference: Path, name: str, expected: list[list[object]]
) -> list[str]:
    """Compare a study's runs with those of one that nothing disturbed."""
    problems = lab.general(store, streams)
    full = lab.read_reference(reference)
    runs = [run for run in lab.stored(store) if run.tags["sgdstudy.study"] == name]
    if sorted(run.name for run in runs) != [f"arm {i}" for i in range(ARMS)]:
        problems.append(f"runs: {sorted(run.name for run in runs)}")
    for run in runs:
        problems += lab.truthful(store, run, full)
        if run.status != "FINISHED":
            problems.append(f"{run.name} is {run.status}")
        missing = {tuple(point) for point in expected} - set(run.points(store))
        problems += [f"{run.name}: {len(missing)} points are missing"] * bool(missing)
        epochs = run.rows("epochs")
        if epochs is None or epochs.num_rows != lab.SEEDS * lab.EPOCHS:
            problems.append(f"{run.name}: epochs.parquet is not complete")
        picture = run.folder / "data.png"
        if not picture.exists() or not picture.read_bytes().endswith(b"IEND\xaeB`\x82"):
            problems.append(f"{run.name}: data.png is not complete")
    return problems


def bad_answers(o: Options) -> Outcome:
    """Put a proxy before the server that fails in four ways; then recover without it."""
    outcome = Outcome(
        "a server that answers 500, drops connections, or is silent",
        "a proxy before a real server: 5% of the requests get a 500, 5% are dropped before and 7% "
        "after the server handled them, 3% get no answer in time; then `sgdstudy recover` without",
    )
    folder = o.folder("answers")
    server = MlflowServer(lab.new_store(o, folder))
    calm, counts, port = folder / "calm", folder / "counts", free_port()
    expected = _undisturbed(o)
    guard = lab.start(lambda: proxy.run(port, server.port, calm, counts, lab.SEED), folder)
    environment = _environment(folder, f"http://127.0.0.1:{port}")
    try:
        server.start()
        for trial in range(1 if o.quick else 10):
            calm.unlink(missing_ok=True)
            name = f"outage {trial}"
            done = lab.do(lambda name=name: _study(name), folder, **environment)
            calm.touch()
            recovered = lab.do(lab.command("recover"), folder, **environment)
            problems = [*lab.said_wrong(*done), *lab.said_wrong(*recovered)]
            outcome.problems.append(problems + _check(o, server, folder, expected, trial))
    finally:
        lab.kill(guard)
        server.stop()
    hits = collections.Counter(counts.read_text().splitlines() if counts.exists() else [])
    outcome.note = "faults: " + ", ".join(f"{n} {name}" for name, n in sorted(hits.items()))
    return outcome
