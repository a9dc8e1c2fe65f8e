"""What a person means by `--store`: a folder, a database, a server; or one line that says how."""

import os
from pathlib import Path

import pytest
import sqlalchemy
from conftest import one_line
from hypothesis import given
from hypothesis import strategies as st

import sgdstudy as ss
from sgdstudy.tracking import address
from sgdstudy.tracking.store import Store, locate, open_store

# any name that a folder can have and a line can show; the characters that URLs and shells mean
NAMES = st.one_of(
    st.text(st.sampled_from("ab %?#&=:+@~.;,!$'\"()[]{}\\2Fé☃"), min_size=1, max_size=20),
    st.text(
        st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/"),
        min_size=1,
        max_size=40,
    ),
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)
AS_SEEN = ["feature%2Fx", "a%20b", "q?x=1", "a b", "50%", "#1", "a+b", "x&y", "☃", "100%25"]


def opened_by_sqlalchemy(uri):
    """The file that SQLAlchemy, hence MLflow, opens for a URI."""
    engine = sqlalchemy.create_engine(uri)
    with engine.connect() as connection:
        found = connection.execute(sqlalchemy.text("PRAGMA database_list")).all()[0][2]
    engine.dispose()
    return Path(found)


@given(name=NAMES)
def test_any_folder_is_the_store_that_its_name_says(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp() / "names" / name
    root = Path(os.path.abspath(root)) if root.suffix not in address.SUFFIXES else root / "in"
    root.mkdir(parents=True, exist_ok=True)
    forms = [str(root), root, root.as_uri(), f"file:{root.as_uri()[7:]}"]
    stores = {locate(form) for form in forms}
    assert stores == {Store(address.sqlite_uri(root / "mlflow.db"), root.resolve())}
    (store,) = stores
    assert store.database == root / "mlflow.db"
    assert locate(store.uri) == store
    assert locate(str(root / "mlflow.db")).root == root
    assert opened_by_sqlalchemy(store.uri) == root / "mlflow.db"


@pytest.mark.slow
@pytest.mark.parametrize("name", AS_SEEN)
def test_a_folder_of_any_name_holds_runs_and_no_other_folder_comes(tmp_path, no_server, name):
    """As it was seen: minutes of retries, a traceback, and a second folder beside it."""
    store = open_store(str(tmp_path / name))
    experiment = store.experiment("study")
    run = store.client.create_run(experiment, run_name="arm")
    assert store.client.get_run(run.info.run_id).info.run_name == "arm"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "mlflow.db").is_file()
    assert open_store(store.uri).client.get_run(run.info.run_id)


@pytest.mark.slow
def test_home_the_database_itself_and_file_urls_are_what_they_say(tmp_path, no_server, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for form in ("~/x", "x", "./x", "file:x", "file:///" + f"{tmp_path}/x"[1:], "x/mlflow.db"):
        assert locate(form).root == tmp_path / "x", form
    for form in ("file://localhost" + f"{tmp_path}/x", "file:~/x", "file://~/x", "sqlite:///~/x/a"):
        assert locate(form).root == tmp_path / "x", form
    assert locate("sqlite:///x/my.db").database == tmp_path / "x" / "my.db"
    assert locate("x/my.sqlite").database == tmp_path / "x" / "my.sqlite"
    (tmp_path / "y.db").mkdir()  # a folder is a folder
    assert locate("y.db").root == tmp_path / "y.db"
    open_store("x")
    (tmp_path / "x" / "mlflow.db").rename(tmp_path / "x" / "plain")  # a database of any name
    assert locate("x/plain").database == tmp_path / "x" / "plain"


def test_a_server_is_found_by_what_a_browser_shows(no_server):
    for form in (
        "http://localhost:5000",
        "HTTP://LocalHost:5000/",
        "http://localhost:5000/#/experiments/3/runs?compareRunsMode=CHART",
    ):
        assert locate(form) == Store("http://localhost:5000", None)
    assert locate("https://Ada:Pw@Host/Path/").uri == "https://Ada:Pw@host/Path"
    assert locate("https://Ada:Pw@Host/Path/").shown == "https://host/Path"
    assert locate("databricks").uri == "databricks"
    assert locate("databricks://me").uri == "databricks://me"
    assert locate("postgresql+psycopg://u:p@h/db").shown == "postgresql+psycopg://h/db"


REFUSED = [
    ("localhost:5000", "write http://localhost:5000"),
    ("127.0.0.1:5000", "write http://127.0.0.1:5000"),
    ("mlflow.example.org:443/path", "write http://mlflow.example.org:443/path"),
    ("http:/localhost:5000", "write http://localhost:5000"),
    ("http:localhost", "write http://localhost"),
    ("http//localhost:5000", "write http://localhost:5000"),
    ("https;//host/x", "write https://host/x"),
    ("sqlite//x.db", "write sqlite:///x.db"),
    ("sqlite:x/y.db", "write sqlite:///x/y.db"),
    ("sqlite:/x/y.db", "write sqlite:////x/y.db"),
    ("[::1]:5000", "write http://[::1]:5000"),
    ("localhost", "write http://localhost:5000"),
    ("$HOME/runs", "no shell has replaced"),
    ("${SCRATCH}/runs", "no shell has replaced"),
    ("%USERPROFILE%\\runs", "no shell has replaced"),
    ("'my runs'", "in quotes"),
    ('"runs"', "in quotes"),
    (" ", "is no path"),
    ("postgres://host/db", "did you mean 'postgresql'"),
    ("s3://bucket/runs", "unknown kind of store 's3'"),
    ("s3:/bucket/runs", "unknown kind of store 's3'"),
    ("gs://bucket", "unknown kind of store 'gs'"),
    ("databricks-uc", None),
    ("sqlite://x.db", "three slashes"),
    ("sqlite:///", "in memory"),
    ("sqlite:///:memory:", "in memory"),
    ("sqlite:////", "is a folder"),
    ("sqlite:///.", "is a folder"),
    ("sqlite:///x.db?mode=ro", "write %3F"),
    ("sqlite:///file:x.db?uri=true", "the path alone"),
    ("file://otherhost/x", "names the machine 'otherhost'"),
    ("file:///x?y=1", "write %3F"),
    ("file:///x#y", "%23"),
    ("C:\\store", "path of Windows"),
    ("C:/store", "path of Windows"),
    ("\\\\server\\share", "path of Windows"),
    (".\\mlruns", "path of Windows"),
    ("mlruns\\mlflow.db", "path of Windows"),
    ("C:", "path of Windows"),
    ("file:///C:/store", "path of Windows"),
    ("sqlite:///mlruns\\mlflow.db", "path of Windows"),
    ("sqlite:///C:/store/mlflow.db", "path of Windows"),
    ("http://", "names no machine"),
    ("http://host:port", "is not an address"),
    ("http://host:99999", "is not an address"),
    ("http://ho st", "names no machine"),
    ("http://host/?token=abc", "question mark"),
    ("http://host\n.example.org", "control character"),
    ("a\x1b[31mred", "control character"),
    ("a\udcff", "is not UTF-8"),
    ("~nobody-of-this-name/x", "cannot be found"),
    ("", "is no path"),
    ("a\0b", "is no path"),
    (7, "not 7"),
]


@pytest.mark.parametrize(("form", "says"), REFUSED, ids=[repr(form) for form, _ in REFUSED])
def test_what_is_no_store_is_one_line_and_makes_nothing(
    tmp_path, no_server, monkeypatch, form, says
):
    monkeypatch.chdir(tmp_path)
    if says is None:  # a folder may have this name
        assert locate(form).root == tmp_path / form
        return
    if os.name == "nt" and "Windows" in says:
        pytest.skip("a path of this machine")
    with pytest.raises(ss.InputError) as error:
        locate(form)
    assert says in str(error.value)
    assert one_line(error)
    assert "abc" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_password_is_not_shown_where_the_address_is_wrong(no_server):
    for form in ("ada:s3cr3t@host:5000", "ftp://ada:s3cr3t@host", "http://ada:s3cr3t@host:port"):
        with pytest.raises(ss.InputError) as error:
            locate(form)
        assert "s3cr3t" not in str(error.value)


@pytest.mark.parametrize("form", ["./a:x@h", "./http//a:x@h", "~/a:x@h", "x/b@c", "a@b", "http/x"])
def test_a_folder_that_begins_as_a_path_does_may_have_an_at(form, tmp_path, no_server, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    root = tmp_path / form.removeprefix("~/").removeprefix("./")
    assert locate(form).root == locate(str(root)).root == root


def test_a_deleted_working_folder_is_one_line(tmp_path, no_server, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ss.InputError, match="deleted") as error:
        locate()
    assert one_line(error)


def test_what_is_given_goes_before_the_environment_and_that_before_the_nearest(
    tmp_path, no_server, monkeypatch
):
    import mlflow

    (tmp_path / "mlruns").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate().root == tmp_path / "mlruns"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/A/mlflow.db")
    assert locate().root == tmp_path / "A"
    assert locate("B").root == tmp_path / "B"
    assert locate(tmp_path / "B").root == tmp_path / "B"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert locate().root == tmp_path / "mlruns"
    with monkeypatch.context() as patch:  # MLflow writes it into the environment
        patch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/C/mlflow.db")
        assert os.environ["MLFLOW_TRACKING_URI"].endswith("C/mlflow.db")
        assert locate().root == tmp_path / "mlruns"
        assert locate("B").root == tmp_path / "B"
        mlflow.set_tracking_uri(None)


SAME = [
    ("http://localhost:5000", "http://127.0.0.1:5000/"),
    ("http://localhost", "HTTP://[::1]:80"),
    ("https://host", "https://ada:pw@HOST:443/"),
    ("postgresql://u:p@h/db", "postgresql+psycopg://h:5432/db"),
]
OTHER = [
    ("http://localhost:5000", "http://localhost:5001"),
    ("http://host:5000", "https://host:5000"),
    ("http://host/a", "http://host/b"),
    ("postgresql://h/a", "postgresql://h/b"),
    ("sqlite:////x/a.db", "sqlite:////x/b.db"),
]


@pytest.mark.parametrize(("one", "two"), SAME)
def test_another_spelling_is_the_same_store(one, two):
    assert address.identity(one) == address.identity(two)


@pytest.mark.parametrize(("one", "two"), OTHER)
def test_two_stores_are_two(one, two):
    assert address.identity(one) != address.identity(two)
