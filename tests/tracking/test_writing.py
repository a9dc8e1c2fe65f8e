"""One writer an invocation: a lock on one machine, on a server a tag that its writer renews."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import one_line

import sgdstudy as ss
import sgdstudy.errors
from sgdstudy.cli import upkeep
from sgdstudy.tracking import prune, writing
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.runs import every_run
from sgdstudy.tracking.store import open_store

HOLDS = """
import sys, time
from sgdstudy.tracking.store import open_store
from sgdstudy.tracking.writing import writing
with writing(open_store(sys.argv[1]), "study", "one"):
    print("held", flush=True)
    time.sleep(600)
"""


@dataclass
class Server:
    """The experiments' tags of a server, and a store that is one, seen from a machine."""

    state: Path
    tags: dict = field(default_factory=dict)
    root: None = None
    shown: str = "http://127.0.0.1:5000"

    @property
    def streams(self):
        return self.state / "streams"

    @property
    def client(self):
        return SimpleNamespace(
            search_experiments=lambda: [self.client.get_experiment("1")],
            get_experiment=lambda _: SimpleNamespace(tags=dict(self.tags)),
            set_experiment_tag=lambda _, key, value: self.tags.__setitem__(key, value),
            delete_experiment_tag=lambda _, key: self.tags.pop(key, None),
        )

    def experiment(self, study):
        return "1"

    def from_elsewhere(self, folder):
        """The same server, seen from a machine that shares nothing else."""
        return Server(folder, self.tags)


@pytest.fixture
def quick(monkeypatch):
    for name, seconds in (("BEAT", 0.05), ("WATCH", 0.5)):
        monkeypatch.setattr(writing, f"{name}_SECONDS", seconds)


def refused(store, name="one"):
    with (
        pytest.raises(ss.InputError, match="another command writes to one now") as error,
        writing.writing(store, "study", name, fresh=False),
    ):
        pass
    return one_line(error)


def test_the_second_is_refused_in_one_line_until_the_first_ends(store):
    opened = open_store(store)
    with writing.writing(opened, "study", "one"):
        assert refused(opened)
        assert writing.alive(opened, {"one", "two"}) == {"one"}
        with writing.writing(opened, "study", "two"):
            pass
    with writing.writing(opened, "study", "one", fresh=False):
        pass
    assert writing.alive(opened, {"one", "two"}) == set()
    assert not list((Path(store) / "writing").iterdir())


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_another_process_holds_it_until_it_is_killed(store):
    opened = open_store(store)
    words = [sys.executable, "-c", HOLDS, store]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert refused(opened)
        process.send_signal(signal.SIGKILL)
    with writing.writing(opened, "study", "one", fresh=False):
        pass


def test_on_a_server_a_writer_of_another_machine_is_seen(tmp_path, quick):
    here = Server(tmp_path / "here")
    there = here.from_elsewhere(tmp_path / "there")
    with writing.writing(here, "study", "one"):
        assert refused(there)
        assert writing.alive(there, {"one"}) == {"one"}
        assert writing.alive(there, {"two"}) == set()
    assert here.tags == {}
    with writing.writing(there, "study", "one", fresh=False):
        assert refused(here)


@pytest.mark.slow
def test_on_a_server_a_writer_that_was_killed_is_not_waited_for_long(tmp_path, quick):
    """Its tag stays, and does not change any more; nobody's clock is asked."""
    here = Server(tmp_path, {f"{writing._key('one')}dead0000": "17"})
    started = time.monotonic()
    assert writing.alive(here, {"one"}) == set()
    assert time.monotonic() - started >= writing.WATCH_SECONDS
    with writing.writing(here, "study", "one", fresh=False):
        assert writing.alive(here.from_elsewhere(tmp_path / "b"), {"one"}) == {"one"}


NAMES = ["one", "tiny, one [a=1], epochs", "un café ☕", "x" * 500]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_an_invocation_can_be_a_tag(tmp_path, quick, name):
    """As it was seen: MLflow takes no comma there, and nothing was locked."""
    from mlflow.utils.validation import _validate_experiment_tag

    here = Server(tmp_path)
    with writing.writing(here, "study", name, fresh=False):
        (tag,) = here.tags.items()
    _validate_experiment_tag(*tag)


@dataclass
class Slow(Server):
    """One whose requests take their time, each another one."""

    chance: random.Random = field(default_factory=random.Random)

    @property
    def client(self):
        def late(act):
            def call(*given):
                time.sleep(self.chance.uniform(0, 0.15))
                found = act(*given)
                time.sleep(self.chance.uniform(0, 0.15))
                return found

            return call

        return SimpleNamespace(**{name: late(act) for name, act in vars(super().client).items()})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_of_two_that_begin_at_once_on_a_slow_server_one_goes_on(tmp_path, quick, monkeypatch, seed):
    monkeypatch.setattr(writing, "WATCH_SECONDS", 3.0)
    chance, tags, ended = random.Random(seed), {}, threading.Event()
    if seed % 3 == 2:  # and one was killed there before, while it looked, or later
        tags[f"{writing._key('a, b')}00000000"] = chance.choice(["looks 1", "7"])
    outcomes = []

    def begin(store):
        time.sleep(chance.uniform(0, 0.2))
        try:
            with writing.writing(store, "study", "a, b", fresh=False):
                outcomes.append("went on")
                ended.wait(10)
        except ss.InputError:
            outcomes.append("refused")

    stores = [Slow(tmp_path / str(n), tags, chance=random.Random(10 * seed + n)) for n in range(2)]
    threads = [threading.Thread(target=begin, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(outcomes) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    ended.set()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused", "went on"]
    assert tags == {}


def test_a_server_that_goes_away_while_we_look_stops_nothing(tmp_path, quick, monkeypatch):
    def away(*_):
        raise ss.errors.Away("no answer")

    here = Server(tmp_path)
    client = SimpleNamespace(**{**vars(here.client), "get_experiment": away})
    monkeypatch.setattr(Server, "client", client)
    with writing.writing(here, "study", "one", fresh=False):
        pass


def test_a_server_that_refuses_the_tag_stops_nothing(tmp_path, quick):
    here = Server(tmp_path)

    def refuses(*_):
        raise ss.InputError("you may not")

    here.__class__ = type("Refusing", (Server,), {})
    here.__class__.client = property(
        lambda self: SimpleNamespace(
            **{**vars(vars(Server)["client"].fget(self)), "set_experiment_tag": refuses}
        )
    )
    with writing.writing(here, "study", "one", fresh=False):
        pass


def test_prune_leaves_a_living_invocation_alone(store):
    opened = open_store(store)
    calls = [Invocation.start(opened, "study") for _ in range(3)]
    for call in calls:
        with call.run("arm", "", {}):
            pass
    doomed = {call.id for call in calls[:2]}
    assert {run.invocation for runs in prune.plan(opened, 1).values() for run in runs} == doomed
    with writing.writing(opened, "study", calls[0].id):
        (left,) = prune.plan(opened, 1).values()
        assert {run.invocation for run in left} == {calls[1].id}


@pytest.mark.parametrize("who", ["this process", "another one"])
def test_what_begins_to_write_while_prune_asks_is_left_alone(store, monkeypatch, capsys, who):
    opened = open_store(store)
    calls = [Invocation.start(opened, "study") for _ in range(3)]
    for call in calls:
        with call.run("arm", "", {}):
            pass
    with ExitStack() as stack:

        def resumed(*words):  # somebody goes on with the oldest before the answer is typed
            if who == "this process":
                stack.enter_context(writing.writing(opened, "study", calls[0].id, fresh=False))
                return True
            code = HOLDS.replace('"one"', repr(calls[0].id))
            process = subprocess.Popen(
                [sys.executable, "-c", code, store], stdout=subprocess.PIPE, text=True
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process.stdout.readline() == "held\n"

        monkeypatch.setattr(upkeep, "confirmed", resumed)
        assert upkeep.PruneCommand(1, store).run() == 0
        left = every_run(opened, opened.experiment("study"))
        assert {run.invocation for run in left} == {calls[0].id, calls[2].id}
    assert "dropped 1 run," in capsys.readouterr().out
