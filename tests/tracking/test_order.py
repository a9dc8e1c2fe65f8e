"""Which invocation is the latest, and which are dropped: whatever clocks say, of each user."""

import datetime as dt
import time

import pytest
from conftest import call, one_line

import sgdstudy as ss
from sgdstudy.tracking import invocation as module
from sgdstudy.tracking import prune, runs, tracked_run
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.store import open_store


@pytest.fixture
def begin(store, monkeypatch):
    """Track an invocation of one run, at a time of some clock, of some user; return its id."""

    def at(day, user="ada", old=False):
        moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=day)

        class Clock(dt.datetime):
            @classmethod
            def now(cls, tz=None):
                return moment

        with monkeypatch.context() as patch:
            patch.setattr(module, "datetime", Clock)
            patch.setattr(time, "time", moment.timestamp)
            patch.setattr(time, "time_ns", lambda: int(moment.timestamp() * 1e9))
            patch.setattr(module.provenance, "user", lambda: user)
            if old:  # as a former version did: no number
                patch.setattr(module, "next_number", lambda store, study: "")
            begun = Invocation.start(open_store(store), "study")
            with begun.run("arm", "", {}):
                pass
        return begun.id

    return at


def latest(store, user, monkeypatch):
    monkeypatch.setattr(runs, "user", lambda: user)
    (found,) = ss.load_runs("study", store=store).invocation.unique()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("wrong", [4000, -4000])
def test_one_misdated_run_does_not_hide_those_that_follow(store, begin, monkeypatch, wrong, old):
    """As it was seen: a clock that was years ahead, then right again; and one years behind."""
    ids = [begin(1, old=old), begin(wrong)]
    assert latest(store, "ada", monkeypatch) == ids[1]
    ids += [begin(2), begin(3)]
    assert latest(store, "ada", monkeypatch) == ids[3]
    (dropped,) = prune.plan(open_store(store), 1).values()
    assert [run.invocation for run in dropped] == ids[:3]
    everything = ss.load_runs("study", store=store, invocation="all")
    assert everything.invocation.tolist() == ids


def test_a_store_of_a_former_version_is_ordered_by_its_ids(store, begin, monkeypatch):
    ids = [begin(day, old=True) for day in (1, 2, 3)]
    assert latest(store, "ada", monkeypatch) == ids[2]
    ids.append(begin(2.5))  # of today's version, on a clock that is behind
    assert latest(store, "ada", monkeypatch) == ids[3]
    (dropped,) = prune.plan(open_store(store), 2).values()
    assert [run.invocation for run in dropped] == ids[:2]


def test_reruns_and_runs_of_no_invocation_are_never_the_latest(store, begin, monkeypatch):
    first = begin(1)
    with Invocation.start(open_store(store), "study").outside().run("arm", "", {}) as journal:
        pass
    assert "sgdstudy.number" not in journal.opening.tags
    assert latest(store, "ada", monkeypatch) == first


@pytest.mark.slow
def test_prune_keeps_the_latest_of_each_user_and_names_what_it_drops(
    store, begin, monkeypatch, capsys
):
    """As it was seen: three users, one store, --keep 1, and two users' runs were gone."""
    ids = [begin(day, user) for day, user in enumerate(("ada", "bo", "cy", "ada", "cy", "cy"))]
    asked = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "y")
    # the environment names another store, where nothing may happen
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/mlflow.db")
    assert call("prune", "--keep", "1", "--store", store) == 0
    said = capsys.readouterr().out
    assert open_store(store).shown in said
    assert "study, of ada: 1 run of 1 invocation\n" in said
    assert "study, of cy: 2 runs of 2 invocations" in said
    assert "of bo" not in said
    assert asked == ["drop these 3 runs and their files? [y/N] "]
    left = ss.load_runs("study", store=store, invocation="all")
    assert left.invocation.tolist() == [ids[1], ids[3], ids[5]]


def test_prune_without_anybody_to_ask_is_one_line(store, begin, monkeypatch, capsys):
    begin(1)

    def nobody(question):
        raise EOFError

    monkeypatch.setattr("builtins.input", nobody)
    assert call("prune", "--keep", "0", "--store", store) == 2
    assert capsys.readouterr().err == (
        "error: there is no terminal to ask in: drop this run and its files? Add --yes\n"
    )
    assert len(ss.load_runs("study", store=store)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    ["9" * 15, "1" + "0" * 14, "0" + "9" * 14, "007000000000000", "9" * 400, "x", "-1", "99999"],
)
def test_a_number_that_is_none_of_ours_is_not_the_last(store, begin, monkeypatch, number):
    """A tag that anybody wrote: every later invocation stood before it, and prune dropped those."""
    ids = [begin(1), begin(2)]
    opened = open_store(store)
    (run,) = [run for run in runs.runs_of(opened, "study", ids[0], None)]
    opened.client.set_tag(run.run_id, tracked_run.NUMBER, number)
    assert latest(store, "ada", monkeypatch) == ids[1]
    ids.append(begin(3))
    assert latest(store, "ada", monkeypatch) == ids[2]
    (dropped,) = prune.plan(open_store(store), 1).values()
    assert [run.invocation for run in dropped] == ids[:2]


@pytest.mark.parametrize("day", [110_000, 1_200_000])  # the year 5311 has a digit more
def test_a_clock_that_was_far_ahead_hides_none_of_what_follows(store, begin, monkeypatch, day):
    """As a number that anybody wrote; its id, and when it began, say the same."""
    ids = [begin(1), begin(day), begin(2), begin(3)]
    assert latest(store, "ada", monkeypatch) == ids[3]
    (dropped,) = prune.plan(open_store(store), 1).values()
    assert {run.invocation for run in dropped} == set(ids[:3])


def test_prune_on_a_clock_before_1970_keeps_the_latest(store, begin, monkeypatch):
    ids = [begin(day) for day in (1, 3, 2)]
    monkeypatch.setattr(time, "time_ns", lambda: -(10**9) * 86_400 * 365 * 60)
    (dropped,) = prune.plan(open_store(store), 1).values()
    assert {run.invocation for run in dropped} == set(ids[:2])


def test_before_1970_nothing_begins(store, begin):
    """As it was seen: every run was trained, then refused, under a key that begins with a minus."""
    with pytest.raises(ss.InputError, match="clock of this machine is before 1970") as error:
        begin(-30_000)
    assert one_line(error)
    assert not list(open_store(store).streams.glob("*"))
    begin(-20_000)  # a clock that lost its battery
