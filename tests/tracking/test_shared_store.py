"""A store of several users, of a place that is read only, and of a disk that is full.

Other users are forked processes that take another uid, so these tests need root; a mount too.
"""

import ast
import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import tempfile
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import call, one_line
from sqlalchemy.exc import OperationalError
from test_store import ROWS, doomed, files, tracked

import sgdstudy as ss
from sgdstudy.tracking import aside, database, prune, read_only, ui, writing
from sgdstudy.tracking.entries import Opening
from sgdstudy.tracking.group import grouped
from sgdstudy.tracking.journal import Journal
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.sink import RunSink, close_interrupted
from sgdstudy.tracking.store import open_store, read_store
from sgdstudy.training import checkpoint

ADA, BEN, GROUP, OTHER = 61001, 61002, 61100, 61200
is_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root becomes another user"
)


@pytest.fixture
def shared(empty_store):
    """A folder that a group shares, with a store of ada's in it; others may look."""
    ss.load_runs  # noqa: B018  imported before a process loses the right to read the packages
    base = Path(tempfile.mkdtemp(prefix="sgdstudy-shared-", dir="/tmp"))
    base.chmod(0o755)
    folder = base / "ours"
    folder.mkdir()
    os.chown(folder, ADA, GROUP)
    folder.chmod(0o2775)
    yield folder
    shutil.rmtree(base)


def as_user(uid, action, *, groups=(GROUP,), umask=0o022, group=None):
    """Do something as another user; return what it says, and fail where it fails."""
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(out)
            os.setgroups(groups)
            os.setgid(uid if group is None else group)
            os.setuid(uid)
            os.umask(umask)
            os.environ["HOME"] = "/nowhere"
            tempfile.tempdir = "/tmp"
            os.chdir("/tmp")
            os.write(into, repr(action()).encode())
            code = 0
        except BaseException:
            os.write(into, traceback.format_exc()[-1500:].encode())
        finally:
            os._exit(code)
    os.close(into)
    with os.fdopen(out, "rb") as file:
        said = file.read().decode()
    assert os.waitpid(pid, 0)[1] == 0, said
    return said


def warmed(store, study="shared"):
    """Import all that a run needs, as root, by tracking one elsewhere."""
    tracked(store, study, ["warm"])
    ss.load_steps(study, store=str(store))


@pytest.mark.slow
@is_root
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_two_users_of_a_shared_folder_write_read_and_prune(shared, store, umask):
    warmed(store)
    given = {"umask": umask}
    place = shared / "mlruns"
    as_user(ADA, lambda: tracked(place, "shared", ["ada"]), **given)
    as_user(BEN, lambda: tracked(place, "shared", ["ben"]), **given)
    count = lambda: len(ss.load_steps("shared", store=str(place), invocation="all"))  # noqa: E731
    for user in (ADA, BEN):
        assert as_user(user, count, **given) == str(2 * ROWS)
    opened = lambda: open_store(str(place))  # noqa: E731
    drop = lambda: prune.remove(opened(), doomed(opened()))[1] > 0  # noqa: E731
    assert as_user(BEN, drop, **given) == "True"
    as_user(ADA, lambda: tracked(place, "shared", ["again"]), **given)
    assert stat.S_IMODE((place / "mlflow.db").stat().st_mode) & 0o060 == 0o060


@pytest.mark.skipif(os.name == "nt", reason="rights of a group")
@pytest.mark.parametrize("how", ["goes on", "ends", "together", "set aside", "damaged"])
def test_all_that_is_made_in_a_shared_store_has_the_groups_rights(empty_store, tmp_path, how):
    """As it was seen: nobody else could read, or finish, a run that was killed under umask 077."""
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours").chmod(0o2770)
    before = os.umask(0o077)
    try:
        opened = open_store(str(tmp_path / "ours" / "mlruns"))
        make_one(opened, how)
    finally:
        os.umask(before)
    paths = sorted(opened.root.rglob("*"))
    assert len(paths) > 8
    rights = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    shut = {p: oct(m) for p, m in rights.items() if ~m & (0o070 if p.is_dir() else 0o060)}
    assert shut == {}


def make_one(opened, how):
    """Make a run in a store, as far as it goes, or three that are sent together."""
    begin = lambda **given: Journal.begin(  # noqa: E731
        opened, Opening("shared", "one", {}, metrics=("loss",)), {"a.txt": write_one}, **given
    )
    if how == "together":
        with grouped() as group:
            for _ in range(3):
                logged(begin(send=False, later=group)).end()
            assert (opened.streams).is_dir()
            return
    journal = begin()
    sink = logged(journal)
    journal.add("b.txt", write_one)
    checkpoint.write(journal.folder / checkpoint.NAME, {"w": np.ones(2)})
    journal.show([("loss", 0, 1.0)])
    journal.note_try(9)
    if how == "damaged":
        path = journal.folder / "steps.arrow"
        path.write_bytes(path.read_bytes()[:-20] + b"x" * 20)
        sink.stream.drop()
        close_interrupted(journal, "KILLED")
    elif how == "set aside":
        sink.stream.drop()
        journal.set_aside("no")
    elif how == "ends":
        sink.end()
    else:
        sink.stream.drop()
        journal.let_go()


def write_one(path):
    path.write_text("one", encoding="utf-8")


def logged(journal):
    sink = RunSink(journal)
    sink.log({"loss": 1.0})
    sink.flush()
    return sink


@pytest.mark.slow
@is_root
@pytest.mark.parametrize("whose", ["a killed run", "a finished run"])
def test_a_run_that_is_not_open_to_a_reader_is_named_and_the_others_are_read(
    shared, store, caplog, whose
):
    """As it was seen: a traceback, and no run of the study could be read."""
    warmed(store)
    place = shared / "mlruns"
    as_user(ADA, lambda: tracked(place, "shared", ["ada", "other"]), umask=0o077)

    def left():
        opened = open_store(str(place))
        journal = Journal.begin(opened, Opening("shared", "cut", {}, metrics=("loss",)), {})
        logged(journal).stream.drop()
        journal.let_go()
        return str(journal.folder)

    folder = Path(as_user(ADA, left, umask=0o077).strip("'"))
    if whose == "a finished run":
        (run,) = ss.load_runs("shared", arms="other", invocation="all", store=str(place)).run_id
        folder = place / "artifacts" / "shared" / run
    folder.chmod(0o700)  # as an earlier version made it, or its owner

    def read():
        return len(ss.load_steps("shared", store=str(place), invocation="all")), caplog.messages

    n, said = ast.literal_eval(as_user(BEN, read))
    (line,) = [line for line in said if "not open to you" in line]
    assert n == (2 * ROWS if whose == "a killed run" else ROWS + 1)
    assert f"{folder}" in line
    assert "\n" not in line
    folder.chmod(0o2770)
    n, said = ast.literal_eval(as_user(BEN, read))
    assert (n, said) == (2 * ROWS + 1, [])
    again = lambda: recover(open_store(str(place))).closed  # noqa: E731
    assert as_user(BEN, again) == "['shared: cut']"


@pytest.mark.slow
@is_root
def test_a_folder_of_an_earlier_version_that_another_cannot_write_is_named(shared, store, caplog):
    """As it was seen: ada's aside/ had mode 755, and ben's command ended in a traceback."""
    warmed(store)
    place = shared / "mlruns"
    as_user(ADA, lambda: tracked(place, "shared", ["ada"]))
    as_user(ADA, lambda: (place / "aside").mkdir(mode=0o755))
    (place / "aside").chmod(0o755)

    def refused():
        opened = open_store(str(place))
        left = [Journal.begin(opened, Opening("shared", name, {}), {}) for name in "abc"]
        opened.client.set_terminated(left[0].run_id, status="FINISHED", end_time=17)
        for journal in left:
            journal.let_go()
        found = recover(opened)
        assert found.closed == ["shared: b", "shared: c"]
        assert (len(found.left), found.waiting) == (1, [])
        return left[0].folder.name, caplog.messages

    key, said = ast.literal_eval(as_user(BEN, refused))
    (line,) = [line for line in said if "aside" in line]
    assert f"nor set aside: {place / 'aside'} is another user's (Permission denied)" in line
    assert f"chmod g+ws {place / 'aside'}" in line
    assert "\n" not in line
    assert (place / "streams" / key / "opening.json").exists()
    (place / "aside").chmod(0o2775)
    again = lambda: recover(open_store(str(place))).refused  # noqa: E731
    assert as_user(BEN, again) == "['shared: a']"


@pytest.mark.slow
@is_root
def test_what_users_of_a_shared_folder_set_aside_is_each_ones_own(shared, store, caplog):
    """As it was seen: ada's folder locked ben out, and what he could not drop was "discarded"."""
    warmed(store)
    place = shared / "mlruns"
    as_user(ADA, lambda: tracked(place, "shared", ["ada"]))

    def set_aside():
        opened = open_store(str(place))
        journal = Journal.begin(opened, Opening("shared", "one", {}), {})
        journal.set_aside("no")
        return journal.folder.name

    (hers, his) = (as_user(user, set_aside).strip("'") for user in (ADA, BEN))
    (place / "aside" / hers).chmod(0o755)  # as an earlier version made it

    def drop():
        opened = open_store(str(place))
        with pytest.raises(ss.InputError, match=r"cannot be deleted .*the run is kept") as error:
            aside.discard(opened, hers)
        assert one_line(error)
        aside.put_back(opened)
        return caplog.text

    assert f"{hers} is left alone" in as_user(BEN, drop)
    assert (place / "aside" / hers / "opening.json").exists()
    assert (place / "streams" / his / "opening.json").exists()


@pytest.mark.slow
@is_root
@pytest.mark.parametrize("state", ["idle", "written", "killed"])
@pytest.mark.parametrize("writable", [False, True], ids=["others", "group"])
def test_a_reader_leaves_nothing_and_the_owner_goes_on(shared, store, state, writable):
    warmed(store)
    place = shared / "mlruns"
    as_user(ADA, lambda: tracked(place, "shared", ["ada"]))
    as_user(ADA, lambda: leave(place / "mlflow.db"))
    if writable:  # a store that an earlier version made: only the folder is the group's
        place.chmod(0o2775)
        (place / "mlflow.db").chmod(0o644)
    held = sqlite3.connect(place / "mlflow.db") if state == "written" else None
    if held:
        held.execute("BEGIN IMMEDIATE")
        held.execute("UPDATE tags SET value = value")
        held.commit()
    if state == "killed":
        kill_in_the_middle(place / "mlflow.db")
    names = sorted(path.name for path in place.iterdir())
    assert ("mlflow.db-wal" in names) is (state != "idle")
    groups = (GROUP,) if writable else ()
    read = lambda: len(ss.load_steps("shared", store=str(place)))  # noqa: E731
    assert as_user(BEN, read, groups=groups, group=OTHER) == str(ROWS)
    assert sorted(path.name for path in place.iterdir()) == names
    if held:
        held.close()
    as_user(ADA, lambda: tracked(place, "shared", ["ada"]))
    assert as_user(BEN, read, groups=groups, group=OTHER) == str(ROWS)


def leave(path):
    """Close a database as the last one does that was at it: a fork's end is not an orderly one."""
    connection = sqlite3.connect(path)
    connection.execute("SELECT 1 FROM runs").fetchall()
    connection.close()


def kill_in_the_middle(path):
    """Leave a database as a writer does that was killed: with its log, and nobody at it."""
    pid = os.fork()
    if not pid:
        about = path.stat()
        os.setgid(about.st_gid)
        os.setuid(about.st_uid)
        connection = sqlite3.connect(path)
        connection.execute("UPDATE tags SET value = value")
        connection.commit()
        os._exit(0)  # without closing
    os.waitpid(pid, 0)


@pytest.mark.slow
@is_root
def test_a_store_that_cannot_be_written_is_refused_when_it_is_opened(shared, store):
    warmed(store)
    place = shared / "mlruns"
    as_user(ADA, lambda: tracked(place, "shared", ["ada"]))
    place.chmod(0o755)
    (place / "mlflow.db").chmod(0o644)

    def refused():
        with pytest.raises(ss.InputError) as error:
            tracked(place, "shared", ["ben"])
        assert one_line(error)
        return str(error.value)

    said = as_user(BEN, refused)
    assert "readonly database" in said
    assert f"chmod -R g+rwX {place}" in said
    assert not list((place / "streams").glob("*"))


@pytest.mark.slow
@is_root
@pytest.mark.parametrize("why", ["another user's", "immutable"])
def test_prune_keeps_a_run_whose_files_it_cannot_delete(shared, store, capsys, caplog, why):
    warmed(store)
    place = shared / "mlruns"
    drop = lambda: (  # noqa: E731
        call("prune", "--keep", "0", "--yes", "--store", place),
        capsys.readouterr().out,
        caplog.text,
    )
    as_user(ADA, lambda: tracked(place, "shared", ["ada"]), umask=0o002)
    as_user(BEN, lambda: tracked(place, "shared", ["ben"]), umask=0o002)
    (run,) = ss.load_runs("shared", arms="ada", invocation="all", store=str(place)).run_id
    folder = place / "artifacts" / "shared" / run
    if why == "immutable":
        parquet = folder / "artifacts" / "steps.parquet"
        if subprocess.run(["chattr", "+i", parquet], capture_output=True).returncode:
            pytest.skip("no file can be immutable here")
    else:
        for path in (folder, folder / "artifacts"):
            path.chmod(0o755)
    said = as_user(BEN, drop, umask=0o002)
    if why == "immutable":
        subprocess.run(["chattr", "-i", parquet], check=True)
    assert "dropped 1 run," in said
    assert f"{folder} cannot be deleted" in said
    assert "the run is kept" in said
    left = ss.load_steps("shared", invocation="all", store=str(place))
    assert set(left.arm) == {"ada"}
    assert len(left) == ROWS


@pytest.fixture
def mounted(store, tmp_path):
    """A store with a run on a mount that is read only, or one whose folders nobody may write."""
    tracked(store, "mounted")
    place = tmp_path / "readonly"
    place.mkdir()
    mount = subprocess.run(["mount", "--bind", "-o", "ro", store, place], capture_output=True)
    if mount.returncode:
        pytest.skip(f"no bind mount here: {mount.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.slow
@is_root
def test_a_read_only_mount_is_read_exported_and_reported(mounted, tmp_path, capsys):
    before = sorted(path.name for path in mounted.iterdir())
    assert len(ss.load_steps("mounted", store=str(mounted))) == 2 * ROWS
    assert len(ss.load_runs("mounted", store=str(mounted))) == 2
    assert ss.load_claims("mounted", store=str(mounted)).empty
    assert ss.export("mounted", tmp_path / "out", store=str(mounted))
    with pytest.raises(ss.InputError, match="read-only file system") as error:
        tracked(mounted)
    assert one_line(error)
    assert sorted(path.name for path in mounted.iterdir()) == before
    assert ss.load_runs("mounted", store=f"sqlite:///{mounted}/mlflow.db").shape[0] == 2


@pytest.mark.parametrize("form", ["{0}/mistyped", "sqlite:///{0}/mistyped/x.db", "{0}/empty"])
def test_a_mistyped_store_is_named_and_not_made(tmp_path, no_server, form, capsys):
    (tmp_path / "empty").mkdir()
    given = form.format(tmp_path)
    before = files(tmp_path)
    for read in (ss.load_runs, ss.load_steps, ss.load_epochs, ss.load_claims):
        with pytest.raises(ss.InputError, match="there is no store at") as error:
            read("study", store=given)
        assert one_line(error)
    words = (["export", "s"], ["report"], ["ui"], ["recover"], ["rerun", "0"])
    for command in (*words, ["prune", "--keep", "1"], ["pack", "s", str(tmp_path / "f.zip")]):
        assert call(*command, "--store", given) == 2
        assert "there is no store at" in capsys.readouterr().err
    assert files(tmp_path) == before


def test_a_reader_sees_what_others_write_meanwhile(store):
    tracked(store, "seen", ["a"])
    reader = read_store(store)
    find = lambda: reader.client.get_experiment_by_name("later")  # noqa: E731
    assert find() is None
    open_store(store).experiment("later")
    assert find() is not None
    idle = read_only.query(Path(store) / "mlflow.db")
    assert ("immutable" in idle) is not (Path(store) / "mlflow.db-wal").exists()


def test_a_database_that_changes_while_it_is_read_is_read_again(store, monkeypatch):
    path = Path(store) / "mlflow.db"
    reader = read_only.Reader(path)
    calls = []

    class Client:
        def search(self):
            calls.append(1)
            if len(calls) == 1:
                os.utime(path)
                return "torn"
            return "whole"

    monkeypatch.setattr(reader, "_client", lambda how: Client())
    monkeypatch.setattr(read_only, "query", lambda path: "mode=ro&immutable=1")
    assert reader.search() == "whole"
    assert len(calls) == 2


@pytest.mark.parametrize("look", [read_only.require_readable, read_only.Reader])
def test_a_log_that_is_gone_when_it_is_looked_for_is_no_damage(store, monkeypatch, look):
    """As it was seen: a study ended between the look at its log and the opening."""
    path = Path(store) / "mlflow.db"
    leave(path)
    look_first, calls = read_only.query, []

    def late(path):
        how = look_first(path)
        calls.append(how)
        if len(calls) > 1:
            return how
        assert "immutable" in how
        os.utime(path)  # its log came into it
        return "mode=ro&readonly_shm=1"

    monkeypatch.setattr(read_only, "query", late)
    look(path)
    assert len(calls) == 2


# ---- a full disk ----------------------------------------------------------------------------


@pytest.fixture
def small_disk(store, tmp_path):
    """A store with old runs on a disk of its own, with no room left on it."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "sgdstudy", place]).returncode:
        pytest.skip("no mount here")
    root = shutil.copytree(store, place / "mlruns")
    warmed(store)
    for _ in range(2):
        as_user(0, lambda: tracked(root, "full"))
    leave(root / "mlflow.db")
    for path in root.rglob("data.png"):
        path.write_bytes(os.urandom(300_000))
    yield root
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(root):
    """Leave no room for one more block of a file."""
    handle = os.open(root.parent / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with contextlib.suppress(OSError):
        while os.write(handle, bytes(4096)):
            pass
    os.close(handle)


@is_root
@pytest.mark.faults
def test_a_full_disk_is_called_full_is_read_and_pruned(small_disk, capsys, caplog):
    fill(small_disk)
    assert database.is_full(small_disk)
    assert len(ss.load_steps("full", store=str(small_disk), invocation="all")) == 4 * ROWS
    with pytest.raises(ss.StoreError, match="is full") as error:
        open_store(str(small_disk))
    assert "move it away" not in str(error.value)
    code = call("prune", "--keep", "1", "--yes", "--store", small_disk)
    assert code == 0, capsys.readouterr().err
    assert "dropped 2 runs, 1 MB" in capsys.readouterr().out
    assert len(ss.load_steps("full", store=str(small_disk), invocation="all")) == 2 * ROWS
    tracked(small_disk, "full", ["after"])


def test_errors_of_sqlite_are_told_apart(tmp_path, store):
    path = Path(store) / "mlflow.db"
    text = tmp_path / "mlflow.db"
    text.write_text("these are notes, not a database; " * 100)
    with pytest.raises(ss.InputError, match=r"is not an MLflow database.*move it away"):
        open_store(str(tmp_path))
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(300_000))
    with pytest.raises(ss.InputError, match="is damaged") as error:
        open_store(store)
    assert "move it away" not in str(error.value)


def spoilt(store, *statements):
    """Change a database as no command does."""
    with contextlib.closing(sqlite3.connect(Path(store) / "mlflow.db")) as connection:
        connection.executescript(";".join(statements))


def refused(capsys, *words):
    """The one line of a command that is refused."""
    assert call(*words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DROP TABLE inputs", "no such table: inputs"),
        ("ALTER TABLE runs RENAME COLUMN run_uuid TO other", "no such column"),
    ],
)
def test_what_sqlite_refuses_is_said_and_no_new_database_advised(store, capsys, statement, says):
    tracked(store, "refused", ["one"])
    opened = open_store(store)
    runs = doomed(opened)
    spoilt(store, statement)
    with pytest.raises(ss.InputError, match=f"cannot be read or written.*{says}") as error:
        prune.remove(opened, runs)
    assert one_line(error)
    assert "move it away" not in str(error.value)


ENDLESS = "WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c) SELECT"
VIEWS = {
    "experiments": "n AS experiment_id, 'x' || n AS name, NULL AS artifact_location, "
    "'active' AS lifecycle_stage, 0 AS creation_time, 0 AS last_update_time, "
    "'default' AS workspace",
    "tags": "'k' || n AS key, 'v' AS value, 'r' AS run_uuid",
}


@pytest.mark.parametrize("command", ["export", "recover"])
@pytest.mark.parametrize("what", [*VIEWS, "trigger"])
def test_a_database_that_would_never_answer_is_refused(store, tmp_path, capsys, what, command):
    if what == "trigger":
        select = f"SELECT count(*) FROM ({ENDLESS} n FROM c)"
        made = [f"CREATE TRIGGER t BEFORE INSERT ON runs BEGIN {select}; END"]
    else:
        made = [
            f"ALTER TABLE {what} RENAME TO old",
            f"CREATE VIEW {what} AS {ENDLESS} {VIEWS[what]} FROM c",
        ]
    spoilt(store, *made)
    words = ["export", "x", "--folder", tmp_path / "x"] if command == "export" else [command]
    kind = "trigger" if what == "trigger" else "view"
    assert f"mlflow.db has the {kind} " in refused(capsys, *words, "--store", store)


@pytest.mark.parametrize("command", ["export", "recover"])
@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("INSERT INTO alembic_version VALUES ('0a8213491aaa')", "has several rows, not one"),
        ("DELETE FROM alembic_version", "has no row, not one"),
        ("DROP TABLE alembic_version", "no such table: alembic_version"),
    ],
)
def test_a_database_without_one_version_is_not_called_newer(
    store, tmp_path, capsys, statement, says, command
):
    spoilt(store, statement)
    words = ["export", "x", "--folder", tmp_path / "x"] if command == "export" else [command]
    line = refused(capsys, *words, "--store", store)
    assert says in line
    assert "newer" not in line
    assert "move it away" not in line


@pytest.mark.parametrize("column", ["name", "artifact_location"])
def test_experiments_that_hold_no_text_keep_no_command_from_the_others(
    store, tmp_path, monkeypatch, capsys, column
):
    monkeypatch.chdir(tmp_path)
    tracked(store, "good", ["one"])
    tracked(store, "bad", ["one"])
    spoilt(store, f"UPDATE experiments SET {column} = x'ff00fe' WHERE name = 'bad'")
    where = ("--store", store)
    moved = Path(store).with_name("moved")
    assert call("recover", *where) == 0
    assert call("export", "good", "--folder", tmp_path / "x", *where) == 0
    capsys.readouterr()
    assert "no answer of a study" in refused(capsys, "report", "--out", tmp_path / "x.html", *where)
    assert call("guesses", store) == 0
    with pytest.raises(ss.InputError, match="good"):
        ss.load_runs("nothing", store=store)
    ui._show_addresses(open_store(store), "", print, browse=False)
    if column == "artifact_location":
        with pytest.raises(ss.InputError, match="where the files of bad are") as error:
            open_store(store).experiment("bad")
        assert one_line(error)
    os.rename(store, moved)
    tracked(moved, "good", ["two"])
    assert call("prune", "--keep", "0", "--yes", "--store", moved) == 0
    assert "Traceback" not in capsys.readouterr().err
    assert not list((moved / "artifacts" / "good").rglob("*.parquet"))


@pytest.mark.slow
@is_root
@pytest.mark.parametrize("state", ["free", "held"])
def test_a_lock_of_another_user_is_named_and_not_taken_for_a_writer(shared, store, caplog, state):
    warmed(store)
    place = shared / "mlruns"
    as_user(ADA, lambda: tracked(place, "shared", ["ada"]), umask=0o002)
    opened = open_store(str(place))
    (run,) = doomed(opened)
    lock = writing._lock_file(opened, run.invocation)
    lock.parent.mkdir(exist_ok=True)
    if state == "free":
        lock.touch()
        os.chown(lock, ADA, GROUP)
        lock.chmod(0o600)
    look = lambda: (writing.alive(opened, [run.invocation]), caplog.text)  # noqa: E731
    if state == "free":
        said = as_user(BEN, look, umask=0o002)
        assert f"{lock} is user {ADA}'s and not open to you" in said
        assert f"{run.invocation} is left alone" in said
    else:  # with a umask of 077 too the group may ask for it
        hold = lambda: _held(opened, run, lambda: as_user(BEN, look))  # noqa: E731
        assert as_user(0, hold, umask=0o077) == repr(repr(({run.invocation}, "")))


def _held(opened, run, action):
    with writing.writing(opened, "shared", run.invocation):
        return action()


@pytest.mark.parametrize("table", ['a"b', "[c]", "d e"])
def test_prune_forgets_the_rows_of_a_table_of_any_name(store, table):
    tracked(store, "named", ["one"])
    path, name = Path(store) / "mlflow.db", table.replace('"', '""')
    (run,) = ss.load_runs("named", store=store).run_id
    with sqlite3.connect(path) as connection:
        connection.execute(f'CREATE TABLE "{name}" ("r""un" REFERENCES runs(run_uuid))')
        connection.execute(f'INSERT INTO "{name}" VALUES (?)', (run,))
    connection.close()
    opened = open_store(store)
    assert prune.remove(opened, doomed(opened))[0] == 1
    with sqlite3.connect(path) as connection:
        assert not connection.execute(f'SELECT * FROM "{name}"').fetchall()
    connection.close()


@pytest.mark.slow
def test_prune_makes_the_database_smaller_and_forgets_what_was_dropped_before(store, capsys):
    ids = tracked(store, "large")
    keep = tracked(store, "large")
    path = Path(store) / "mlflow.db"
    connection = sqlite3.connect(path)
    connection.executemany(
        "INSERT INTO metrics VALUES (?, 1.0, ?, ?, ?, 0)",
        [(f"epoch/{i % 7}", i, run, i) for run in ids for i in range(40_000)],
    )
    connection.commit()
    connection.close()
    dropped = open_store(store)
    dropped.client.delete_run(ids[1])  # as earlier versions did
    shutil.rmtree(Path(store) / "artifacts" / "large" / ids[1])
    before = path.stat().st_size
    call("prune", "--keep", "1", "--yes", "--store", store)
    assert "the database is" in capsys.readouterr().out
    assert path.stat().st_size < before / 2
    rows = sqlite3.connect(path).execute("SELECT DISTINCT run_uuid FROM metrics").fetchall()
    assert sorted(rows) == sorted((run,) for run in keep)
    assert len(ss.load_steps("large", store=store)) == 2 * ROWS


def test_a_run_in_the_bin_is_not_forgotten(store):
    ids = tracked(store, "bin")
    opened = open_store(store)
    opened.client.delete_run(ids[0])
    prune.shrink(opened)
    opened.client.restore_run(ids[0])
    assert len(ss.load_steps("bin", store=store)) == 2 * ROWS


@pytest.mark.parametrize("text", ["disk I/O error", "database or disk is full"])
@pytest.mark.parametrize("reads", [False, True])
def test_a_disk_that_fails_while_mlflow_opens_a_database_is_one_line(
    store, monkeypatch, text, reads
):
    """As it was seen in `sweep --resume`: a traceback of SQLAlchemy's."""

    def fails(**given):
        raise OperationalError("SELECT 1", {}, sqlite3.OperationalError(text))

    opened = replace(open_store(store), reads=reads)
    monkeypatch.setattr("mlflow.MlflowClient", fails)
    with pytest.raises(ss.InputError, match="disk") as error:
        opened.client.search_experiments()
    assert one_line(error)
    assert "SELECT" not in str(error.value)


@is_root
def test_a_store_that_is_not_open_to_a_user_is_one_line(shared, store):
    place = Path(shutil.copytree(store, shared / "mlruns"))
    place.chmod(0o700)

    def refused():
        for reads in (open_store, read_store):
            with pytest.raises(ss.InputError, match=f"chmod -R g.rwX {place}") as error:
                reads(str(place))
            assert one_line(error)
        return "yes"

    assert "yes" in as_user(BEN, refused)
