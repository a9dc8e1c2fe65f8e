"""Many writers at once, and a store of ten thousand runs."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.request
import uuid
from contextlib import closing
from pathlib import Path

import lab
import played
from lab import Options, Outcome

sys.path.append(str(lab.ROOT / "tests"))
from servers import MlflowServer


def writers(o: Options) -> Outcome:
    """Let sixteen processes track runs into one local store for a minute."""
    seconds, many = (3, 5) if o.quick else (60, 16)
    outcome = Outcome(
        f"{many} writers on one local store for {seconds} s",
        "forked processes, each tracking one run after the other; then `sgdstudy recover`",
    )
    folder = o.folder("writers")
    store = lab.new_store(o, folder)
    begin = time.monotonic() + 1.0

    def write(i: int) -> None:
        opened = lab.recovery.start(str(store), print)
        invocation = lab.Invocation.start(opened, lab.STUDY)
        time.sleep(max(0.0, begin - time.monotonic()))
        done = 0
        while time.monotonic() < begin + seconds or not done:
            lab.train_arm(invocation, f"writer {i}", lab.arm(epochs=1), False)
            done += 1
        (folder / f"{i}.done").write_text(str(done))

    logs = [folder / str(i) for i in range(many)]
    for log in logs:
        log.mkdir()
    pids = [lab.start(lambda i=i: write(i), log) for i, log in enumerate(logs)]
    for pid, log in zip(pids, logs, strict=True):
        code = lab.end(pid, 300)
        outcome.problems.append(lab.said_wrong(code, (log / "log.txt").read_text()))
    late = len(list(store.glob("streams/*/opening.json")))
    recovered = lab.do(lab.command("recover", "--store", str(store)), folder)
    expected = {f"writer {i}": int((folder / f"{i}.done").read_text()) for i in range(many)}
    found = lab.found_by(lambda: _all_there(store, expected), folder)
    outcome.problems[0] += lab.said_wrong(*recovered) + found
    outcome.note = f"{sum(expected.values())} runs, {late} of them sent by recover"
    shutil.rmtree(folder)
    return outcome


def _all_there(store: Path, expected: dict[str, int]) -> list[str]:
    problems = lab.general(store)
    runs = lab.stored(store)
    counts = {name: sum(run.name == name for run in runs) for name in expected}
    problems += [
        f"{name}: {n} runs of {expected[name]}" for name, n in counts.items() if n != expected[name]
    ]
    points = {len(run.points(store)) for run in runs}
    if len(points) != 1:
        problems.append(f"runs have {sorted(points)} points")
    for run in runs:
        rows = run.rows()
        n = 0 if rows is None else rows.num_rows
        problems += [f"a run has {n} rows"] * (n != lab.SEEDS * lab.PER_EPOCH)
        problems += [f"a run is {run.status}"] * (run.status != "FINISHED")
    return problems


def ten_thousand(o: Options) -> Outcome:
    """Read a store of 10,000 runs: list, load, the UI's question."""
    many = 300 if o.quick else 10_000
    outcome = Outcome(
        f"{many:,} runs in one store",
        "one real run, its rows in the database copied by SQL under new ids, without the points of "
        "its charts (nothing below reads them, and they are 13 million); a real server answers "
        "what the UI asks (the first 100 runs, and with a filter)",
    )
    folder = o.folder("many")
    store = lab.new_store(o, folder)
    code, said = lab.do(lambda: lab.study(str(store), 1), folder)
    assert code == 0, said
    _multiply(store, many)
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    begun = time.perf_counter()
    listing = [sys.executable, "-m", "sgdstudy", "list"]
    subprocess.run(listing, cwd=lab.ROOT, env=environment, capture_output=True, check=True)
    figures = {"list": time.perf_counter() - begun}
    outcome.problems.append(lab.found_by(lambda: _load(store, many, folder / "load.json"), folder))
    figures |= json.loads((folder / "load.json").read_text())
    server = MlflowServer(store)
    server.start()
    try:
        figures |= _ask(server.uri)
    finally:
        server.stop()
    outcome.note = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in figures.items())
    outcome.note += f" (load average of the machine {os.getloadavg()[0]:.0f})"
    shutil.rmtree(folder)
    return outcome


def _multiply(store: Path, many: int) -> None:
    """Copy the one run until there are as many."""
    (run,) = lab.stored(store)
    with closing(sqlite3.connect(store / lab.DATABASE)) as connection, connection:
        for _ in range(many - 1):
            new = uuid.uuid4().hex
            for table in ("runs", "params", "tags", "metrics", "latest_metrics"):
                info = connection.execute(f"PRAGMA table_info({table})")
                names = [row[1] for row in info.fetchall()]
                chosen = ", ".join("?" if name == "run_uuid" else name for name in names)
                text = f"INSERT INTO {table} ({', '.join(names)}) SELECT {chosen} FROM {table}"
                only = " AND key LIKE 'result/%'" if table == "metrics" else ""
                connection.execute(f"{text} WHERE run_uuid = ?{only}", (new, run.id))
            connection.execute(
                "UPDATE tags SET value = ? WHERE run_uuid = ? AND key = 'sgdstudy.key'",
                (f"{int(time.time() * 1000):013d}-{new[:12]}", new),
            )


def _load(store: Path, many: int, times: Path) -> list[str]:
    begun = time.perf_counter()
    runs = lab.ss.load_runs(lab.STUDY, store=str(store))
    loaded = time.perf_counter()
    found = lab.recovery.recover(lab.open_store(str(store)))
    recovered = time.perf_counter()
    times.write_text(json.dumps({"load_runs": loaded - begun, "recover": recovered - loaded}))
    problems = [f"load_runs gives {len(runs)} runs"] * (len(runs) != many)
    return problems + [str(found)] * bool(str(found))


def _ask(uri: str) -> dict[str, float]:
    """Return the seconds of what the UI asks for; each twice, the second counts."""
    asked = {"UI's runs": "", "UI's runs, filtered": "metrics.`result/steps` > 1"}
    figures = {}
    for name, only in asked.items():
        for _ in range(2):
            body = {"experiment_ids": ["1"], "max_results": 100, "filter": only}
            body["order_by"] = ["attributes.start_time DESC"]
            begun = time.perf_counter()
            request = urllib.request.Request(
                f"{uri}/ajax-api/2.0/mlflow/runs/search",
                json.dumps(body).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=120) as answer:
                assert len(json.loads(answer.read())["runs"]) == 100
            figures[name] = time.perf_counter() - begun
    return figures


def two_resumes(o: Options) -> Outcome:
    """Let two commands go on with the same sweep at once."""
    outcome = Outcome(
        "two commands write to one invocation",
        "a sweep of 2 of 8 combinations; then two `sweep --resume` of all at once, released "
        "together: the second waits or says so in one line, every combination is there once",
    )
    for _ in range(1 if o.quick else 10):
        folder = o.folder("two")
        store = lab.new_store(o, folder)
        (folder / "kept.py").write_text(played.SCRIPT)
        words = ["sweep", str(folder / "kept.py"), "--seeds", "2", "--jobs", "1"]
        words += ["--store", str(store), "--grid"]
        problems = lab.said_wrong(*lab.do(lab.command(*words, "lr=1e-4,2e-4"), folder))
        every = ",".join(f"{i}e-4" for i in range(1, 9))
        begin = time.monotonic() + 0.3

        def resume(words: list[str] = words, begin: float = begin, every: str = every) -> None:
            time.sleep(max(0.0, begin - time.monotonic()))
            lab.main.main([*words, f"lr={every}", "--resume"])

        both = []
        for name in ("one", "other"):
            (folder / name).mkdir()
            both.append((lab.start(resume, folder / name), folder / name / "log.txt"))
        codes = []
        for pid, log in both:
            codes.append(lab.end(pid))
            problems += lab.said_wrong(codes[-1], log.read_text(), (0, 2))
        problems += [f"exit codes {codes}"] * (0 not in codes)
        outcome.problems.append(problems + lab.found_by(lambda s=store: _once(s), folder))
        shutil.rmtree(folder)
    return outcome


def _once(store: Path) -> list[str]:
    runs = [run for run in lab.stored(store) if run.name != "answer"]
    names, found = sorted(run.name for run in runs), {run.status for run in runs}
    problems = lab.general(store) + [f"runs: {names}"] * (
        len(names) != len(set(names)) or len(names) != 8
    )
    invocations = {run.tags["sgdstudy.invocation"] for run in runs}
    problems += [f"{len(invocations)} invocations"] * (len(invocations) != 1)
    return problems + [f"statuses: {found}"] * (found != {"FINISHED"})
