"""A password in an address is in nothing that a run leaves, and in no line."""

import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import programs
from matplotlib.figure import Figure

import sgdstudy as ss
from sgdstudy import checks, figures
from sgdstudy.errors import InputError, StoreError, failed
from sgdstudy.secrecy import note_secrets, of_words, recordable, stripped, without_secrets
from sgdstudy.studies.rerun import rerun
from sgdstudy.studies.scripts import load_study
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.retry import reason_of
from sgdstudy.tracking.store import locate, open_store

SECRET = "s3cr3t-w0rd"
SCRIPT = '''"""Is a password kept?"""
import sgdstudy as ss


def arms(o):
    settings = {"lr": 1e-4, "batch_size": 1000, "epochs": 1, "seeds": [0]}
    return {"arm": ss.Arm(ss.problems.curve(), f"from {o.store}", **settings)}


def answer(o, runs, claims):
    return f"of {o.store}"


STUDY = ss.Study(__file__, __doc__, ss.Options, arms, lambda o, r: [], answer)
'''
ADDRESSES = [
    "https://ada:%s@host",
    "https://ada:%s@host:5000/path",
    "http://:%s@host",
    "https://%s@host",
    "https://ada:a@%s@host",
    "https://ada:x/%s@host",
    "https://ada:x y'%s@host",
    "postgresql+psycopg://ada:%s@host/db",
    "postgresql://ada:x/%s@host/db",
    "postgresql://ada:x?%s@host/db",
    "mysql://ada:%s@host/db",
    "postgresql://host/db?user=ada&password=%s",
    "postgresql://host/db?sslpassword=%s",
    "https://host/?access_token=%s",
    "ssh://git:%s@github.com/ada/x.git",
    "mssql+pyodbc:///?odbc_connect=SERVER%%3Dhost%%3BUID%%3Dada%%3BPWD%%3D%s%%3BEncrypt%%3Dno",
    "mssql+pyodbc:///?odbc_connect=SERVER%%3Dhost%%3BPWD%%3D%%7Ba%%3Bb%s%%7D%%3BEncrypt%%3Dno",
    "mssql+pyodbc:///?odbc_connect=SERVER=host;PWD={a;b%s}",
    "postgresql://ada:a'%s@host/db",
    'https://ada:a"%s@host',
    "https://ada:a<%s>@host",
    "postgresql://ada:a b %s@host/db",
    "https://ada:a\t%s@host",
    "https://ada:12'%s@host",
    "file://ada:%s@host/x",
    "sqlite://ada:%s@host/x",
    "postgresql:///ada:%s@host/x",
    "http:///ada:%s@host",
    "http:////ada:%s@host",
    "http:\\\\ada:%s@host",
    "http://ada:[%s]@host",
    "https://ada\uff1a%s@host",
    "https\uff1a//ada:%s@host",
    "https://host/x?sig=%s",
    "https://host/x?key=%s&a=b",
    "https://host/x?auth=%s",
    "https://host/#access_token=%s",
    "mysql://host/db?passphrase=%s",
    "postgresql://host/db?sslkey=%s",
    "https://host/?password=a'%s",
]
WORDS = ["https://ada:12/%s@host/x", "https://ada:5000/%s@host", "https://ada:12#%s@host"]
NO_ADDRESSES = [
    *("ada:%s@host", "//ada:%s@host/x", "http:/ada:%s@host", "https:ada:%s@host:5000/x"),
    *("http:\\\\ada:%s@host", "https\uff1a//ada:%s@host", "host:5000?token=%s"),
    *("user=ada password=%s host=h", "host=h dbname=x passwd='a %s'"),
    *("http//ada:%s@host", "https/ada:%s@host/x", "http;//ada:%s@host", "http//%s@host"),
    *("htp//ada:a b/%s@host", "x/y/ada:%s@host", "http\\\\ada:%s@[::1]", "ada:a/%s@host"),
    *("jdbc:oracle:thin:u/%s@host:1521/x", "mysql+pymysql//ada:%s@host", "~ada:%s@host"),
]


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch):
    """What a test gave as a password is not left out of the texts of the next one."""
    monkeypatch.setattr("sgdstudy.secrecy._secrets", set())


@pytest.mark.parametrize("form", ADDRESSES)
def test_no_address_shows_its_password(form, no_server):
    address = form % SECRET
    for text in (f"no answer of {address} at all", f'{{"store": "{address}"}}', f"'{address}'"):
        assert SECRET not in recordable(text)
        assert SECRET not in str(InputError(text))
        assert SECRET not in reason_of(StoreError(text))
        assert SECRET not in str(failed("it", ValueError("x" * 170 + text)))
    assert SECRET not in without_secrets(address, whole=True)
    assert "host" in without_secrets(address, whole=True) or "github" in address
    assert SECRET not in without_secrets(f"--store={address}", whole=True)
    shown = ""
    try:
        shown = locate(address).shown
    except InputError as error:
        shown = str(error)
    assert SECRET not in shown


@pytest.mark.parametrize("form", WORDS)
def test_what_may_be_a_port_and_a_path_is_a_password_where_it_is_a_word(form, no_server):
    """In a text it may be a page of a server; given as an address it is told from then on."""
    address = form % SECRET
    with suppress(InputError):
        locate(address)
    for text in (without_secrets(address, whole=True), recordable(f"no answer of {address}")):
        assert SECRET not in text
    with pytest.raises(InputError, match="write %40") as error:
        locate("http://host:5000/a@b")
    assert "a@" not in str(error.value)


def test_a_password_that_was_given_is_shown_nowhere(monkeypatch):
    """In whatever form it comes back; nor is one of the environment. A plain word stays."""
    note_secrets(["--store=https://ada:pass%20w0rd'@host", {"password": "an0ther-one", "n": [1]}])
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-of-mine")
    text = "pass w0rd', pass%20w0rd' or an0ther-one, t0ken-of-mine"
    assert recordable(text) == "..., ... or ..., ..."
    assert "w0rd" not in str(InputError(repr(text)) if "'" in text else "")
    note_secrets(["https://mlflow:postgres@host", "https://ada:12345678@host"])
    assert recordable("postgres 0.12345678 mlflow") == "postgres 0.12345678 mlflow"


@pytest.mark.parametrize("form", NO_ADDRESSES)
def test_what_is_nearly_an_address_is_no_folder_and_shows_nothing(form, monkeypatch):
    """Nor does the line say it where no other word is known to be a secret."""
    for secret in (SECRET, "short"):
        for given in (None, form % secret):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", form % secret)
            with pytest.raises(InputError, match="neither an address nor a path") as error:
                locate(given)
            assert secret not in str(error.value)


def test_the_kind_of_a_store_is_shown_without_who_signs_in():
    with pytest.raises(InputError, match="unknown kind of store 'host'"):
        locate("ada:short@host://x")


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:5000/#/experiments/3",
        "https://host/path/@user",
        "http://host:5000/a@b",
        "sqlite:////home/ada@work/mlflow.db",
        "file:///home/a@b",
        "mail ada@example.org",
        "a ratio 1:2 @ 3",
        "postgresql://host:5432/db?sslmode=require",
        "a:b @ c",
        "see https://host:5000 and write to ada@example.org",
        "https://host: refused, ask ada@example.org",
        "'https://host:80' and mail ada@example.org",
        '{"store": "https://host:80", "mail": "ada@example.org"}',
        '{"store": "https://host", "mail": "ada@example.org"}',
        'url = f"http://{host}:{port}"  # see @property',
        "@decorator\ndef f(password=None): pass",
        "http://host:x\n@decorator",
        "tokens=1, n_tokens=8, --max-token=5, key=3, keyword=x, secretary=3",
        "see https://docs/x?page=2#key-3",
        "git@github.com:ada/x.git",
        "PWD=/home/ada",
        "mailto:ada@example.org",
        "x @ w.T, y@z",
    ],
)
def test_what_is_not_a_secret_stays(text):
    assert without_secrets(text) == text


KEPT = [  # as a program, JSON, an environment or a header holds a secret
    *("DB_PASSWORD = '%s'", '+API_KEY: str = "%s"', 'HF_TOKEN="%s"', "-PASSWORD\t=\t%s"),
    *('CFG = {"password": "%s"}', "{'user': 'ada', 'password': '%s'}", "{'token': b'%s'}"),
    *("environ({'PGPASSWORD': '%s', 'HOME': '/root'})", "('password', '%s')", '["token", "%s"]'),
    *('os.environ["HF_TOKEN"] = "%s"', 'getenv("DB_PASSWORD", "%s")', "auth=('ada', '%s')"),
    *(
        '{\\"password\\": \\"%s\\"}',
        "password = 'it\\'s %s'",
        "password: '%s",
        "password2 = ('%s')",
    ),
    *('if password == "%s":', "password: %s", "aws_secret_access_key = %s", "pwd: a!%s"),
    *("Authorization: Bearer %s", "{'Authorization': 'Basic %s'}", "authorization=Token %s"),
    *('Authorization: Digest username="ada", response="%s"', "no such bearer %s", "X-Api-Key: %s"),
    *("Cookie: session=%s", "Set-Cookie: a=b; c=%s", "X-Auth-Token: %s", "GITHUB_TOKEN=%s"),
    *("export HF_TOKEN=%s", "AccountKey=%s;", "SECRET_KEY=%s", "private_key=%s", "token=%s"),
    *("SMTP_PASS=%s", "credentials=%s", "wandb_key='%s'", "invalid token: %s", "api_key: '%s'"),
]
KEPT += [  # in other forms, and on the lines that follow
    *("DB_PASSWORD='''%s'''", 'DB_PASSWORD = """%s"""', "PASSWORD='' '%s'", "password = 'a' '%s'"),
    *('PASSWORD = "" "a" "%s"', "password=f'''a %s'''", '"password": "a" "%s"'),
    *(
        'DB_PASSWORD = (\n+    "%s"\n+)',
        'HF_TOKEN = (  # mine\n+    "%s"\n+)',
        "password=\n+  '%s'",
    ),
    *('password=(\n+    "a"  # a\n+    "%s"\n+)', '"password": (\n+    "a"\n+    "%s"\n+)'),
    *('set_password("%s")', "a.setPassword('%s')", 'set_password("a", "ada", "%s")'),
    *(
        "<password>%s</password>",
        "password => '%s'",
        "PASSWORD ?= %s",
        "the password '%s' was refused",
    ),
    *("passwort = %s", "mot_de_passe = '%s'", "mot de passe : %s", "IDENTIFIED BY PASSWORD '%s'"),
    *("add_argument('--password', default='%s')", 'f("--api-key", help="?", default="%s")'),
    *("password: |\n+  %s", "  password: >-\n+    a\n+    %s", "machine h login ada password %s"),
    *("login ada\n+  password %s", "curl -u ada:%s host", "curl --user 'ada:%s' h", "-u ada:%s"),
]
KEPT += [  # of commands, and in other languages
    *("sshpass -p %s ssh h", "os.system('mysql -u root -p%s')", "wandb login %s", "hf login %s"),
    *(
        "my password is %s",
        "contraseña: %s",
        "パスワード：%s",
        "mot de passe\u202f: %s",
        "Kennwort='%s'",
    ),
]
KNOWN = [  # what needs no name
    *("ghp_0123456789abcdefghijABCDEFGHIJ012345", "sk-proj-0123456789abcdefghijABCDEFGHIJ"),
    *("hf_abcdefghijklmnopqrstuvwxyzABCDEFGH", "xoxb-123456789012-abcdefghijkl"),
    *("AIzaSyA0123456789abcdefghijABCDEFGHIJ01", "npg_abcdefghij0123456789"),
    *("AKIAIOSFODNN7EXAMPLE", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.Sfl_KxwRJSM"),
]
CODE = [  # what holds none
    *("key=lambda row: row[1]", "tokens=512, n_tokens = 8, max_token: int = 5", "n_key = 3"),
    *(
        "tokenizer='bert-base-uncased'",
        'tokenizer = "gpt2"',
        "token = tokens_2[i]",
        "key=EX4_STEPS",
    ),
    *("pad_token='[PAD]'", 'EOS_TOKEN = "<|endoftext|>"', 'sort_key="full_loss"', 'key: "step"'),
    *('password = os.environ["DB_PASSWORD"]', "password = getpass.getpass()", "key = 'bias'"),
    *("def f(user: str, password: str, token: str | None):", '{"password": password, "token": t}'),
    *("print('password: ', x)", 'input("password: ")', 'f"password: {password}"', "'token: %s'"),
    *('headers = {"Authorization": f"Bearer {token}"}', 'h = {"Authorization": "Bearer " + token}'),
    *('choices=("user", "password", "host")', '("key", "value")', "the bearer of 3 tokens"),
    *(
        "give --password: it is missing",
        "secret = compute(x1)",
        "password: of the server",
        "auth=None",
    ),
    *("api_key = config.section1.key", 'getenv("HF_TOKEN")', 'monkeypatch.delenv("PGPASSWORD")'),
    *(
        "author = 'ada 1815'",
        "keyword = 'a1b2c3d4'",
        "compass = 'n0rthwest1'",
        "secretary: 'a1b2c3d4'",
    ),
    *("a cookie: x", "passes: 12, password", "import secrets, token, tokenize", "bypass=True"),
    *("pin_memory=True, pin = 3", "docker run -u 1000:1000 -v a1:b2 x", "python -u a.py", "-u a:b"),
    *(
        "hf_hub_download_with_progress_bars_2()",
        "sk-learn-pipelines-and-friends",
        "login(user, key)",
    ),
    *(
        "A = '-----BEGIN PRIVATE KEY-----'\nB = '-----END PRIVATE KEY-----'",
        "f\"the secret '{key}'\"",
    ),
    *(
        "<password>{password}</password>",
        "get_password('a', 'ada')",
        "f('--password', default=None)",
    ),
    *("f('--key', default='step')", "f('--tokens', default=128)", "pinned = 'a1b2c3d4'"),
    *(
        'PASSWORD = (\n    os.environ["X"]\n)',
        "login or password is wrong",
        "--user https://host/x",
    ),
    *(
        "key='batch/loss1'",
        'mdp = "gridworld"',
        "mysql --port 3306",
        "login page",
        "mdp: the process",
    ),
    *('"password": "{password}"', "'api_key': '...'", '"password" in names', "state['key']"),
]


@pytest.mark.parametrize("form", KEPT)
def test_a_secret_is_found_as_programs_and_headers_write_it(form):
    """As it was seen in uncommitted.diff, in a run's error and in a printed line."""
    for secret in (SECRET, "hunter2SECRETx9", "ghp_0f12ab34CD"):
        text = f"+x = 1\n+{form % secret}\n+y = 2\n"
        for left in (without_secrets(text), without_secrets(text, whole=True)):
            assert secret not in left
            assert left.startswith("+x = 1\n")
            assert left.endswith("\n+y = 2\n")


@pytest.mark.parametrize("token", KNOWN)
def test_a_token_is_known_by_its_shape(token):
    """As it was seen: alone in a line of a diff, and as a value whose name tells nothing."""
    for text in (f"no answer to {token}, at all", f"x = '{token}'\n", f"+{token}\n"):
        for left in (without_secrets(text), without_secrets(text, whole=True)):
            assert left == text.replace(token, "...")


@pytest.mark.parametrize("sign", ["", "+", "-"])
def test_a_private_key_is_left_out_to_its_end(sign):
    lines = ["a", 'KEY = """-----BEGIN RSA PRIVATE KEY-----', *["MIIEowIBAAKCAQEA7" * 3] * 60]
    lines += [f"-----END RSA PRIVATE KEY-----{chr(34) * 3}", "b = 1"]
    text = "\n".join(sign + line for line in lines)
    for given in (text, text.replace("KEY = ", "SECRET = "), "\n".join(text.splitlines()[:-2])):
        for left in (without_secrets(given), without_secrets(given, whole=True)):
            assert "MIIE" not in left
            assert left.startswith(f"{sign}a\n{sign}")
            assert left.endswith("b = 1") == given.endswith("b = 1")


SIGNED_IN = [  # who signs in where no address begins, and what is left
    ("ada:%s@host:5000", "ada:...@host:5000"),
    ("//ada:%s@host/share", "//ada:...@host/share"),
    ("jdbc:oracle:thin:u/%s@h:1521/x", "jdbc:oracle:thin:u/...@h:1521/x"),
    ("http//ada:%s@h", "http//ada:...@h"),
    ("x/y;z:%s@[::1]:80", "x/y;z:...@[::1]:80"),
    ("ada:%s@127.0.0.1", "ada:...@127.0.0.1"),
]
NOBODY = ["loss:mean@5", "org/model@main", "git@github.com:ada/x.git", "C:\\a\\b@c", "at:12 @ home"]


@pytest.mark.parametrize(("form", "shown"), SIGNED_IN)
def test_who_signs_in_without_an_address_is_not_recorded(form, shown):
    """As the value of an option, and from then on anywhere; in a text where it looks so."""
    assert without_secrets(f"x = '{form % SECRET}' or") == f"x = '{shown}' or"
    given = {"conn": form % "short", "all": (form % SECRET,)}
    assert stripped(given) == {"conn": shown, "all": (shown,)}
    assert of_words(["--conn", form % SECRET]) == ["--conn", shown]
    assert of_words([f"--conn={form % SECRET}"]) == [f"--conn={shown}"]
    assert SECRET not in recordable(f"refused: {SECRET}")


@pytest.mark.parametrize("word", NOBODY)
def test_what_nobody_signs_in_with_is_recorded(word):
    assert stripped({"conn": word}) == {"conn": word}
    assert without_secrets(f"x = '{word}'") == f"x = '{word}'"


def test_a_hook_and_a_key_that_is_handed_on_are_left_out():
    key = "0123456789abcdef" * 2 + "01234567"
    assert without_secrets(f'wandb.login("{key}")') == "wandb.login(...)"
    address = f"https://hooks.slack.com/services/T0/B0/{key}"
    assert without_secrets(f"c('{address}')") == "c('https://hooks.slack.com/services/...')"
    for page in ("discord.com/api/webhooks/12/", "api.telegram.org/bot12:"):
        assert without_secrets(f"https://{page}{key}") == f"https://{page}..."
    assert without_secrets(f"commit {key}") == f"commit {key}"


@pytest.mark.parametrize("text", CODE)
def test_what_a_program_computes_or_names_is_no_secret(text):
    assert without_secrets(text) == text
    assert without_secrets(f"+{text}\n-{text}\n", whole=True) == f"+{text}\n-{text}\n"


def test_whatever_stands_below_the_name_of_a_secret_is_not_recorded():
    given = {"passwd": {"a": "x", "b": ["y"]}, "db": [("password", SECRET), ("key", "step")]}
    left = {"passwd": {"a": "...", "b": ["..."]}, "db": [("password", "..."), ("key", "step")]}
    assert stripped(given) == left
    assert stripped({"TOKEN": [SECRET], "key": SECRET, "password": 1234}) == {
        **{"TOKEN": ["..."], "key": "...", "password": "..."}
    }
    plain = {"tokens": 512, "max_token": 5, "key": "full_loss", "password": None, "secret": True}
    assert stripped(plain) == plain
    assert SECRET not in of_words(["--cfg", f'{{"password":"{SECRET}"}}'])[1]


def everything(folder):
    """All bytes below a folder: databases, artifacts, journals, names of files."""
    return b"".join(
        path.name.encode() + (path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    )


@pytest.mark.slow
def test_a_study_leaves_no_password_anywhere(store, tmp_path, monkeypatch):
    """As it was seen: in the tags of options and of the command; here in whatever is recorded.

    The command line and the option name a server with a password; what is written is a local store.
    """
    address = f"https://ada:{SECRET}@host"
    (tmp_path / "kept.py").write_text(SCRIPT)
    monkeypatch.setattr(sys, "argv", ["sgdstudy", "run", "kept", "--store", address])
    real = locate
    monkeypatch.setattr(
        "sgdstudy.tracking.store.locate", lambda given=None: real(store if given else given)
    )
    study = load_study(str(tmp_path / "kept.py"))
    said = []
    result = study.run(study.options(store=address), say=said.append)
    from mlflow import MlflowClient

    tags = MlflowClient(f"sqlite:///{store}/mlflow.db").get_run(result.run_ids["arm"]).data.tags
    assert json.loads(tags["sgdstudy.options"])["store"] == "https://host"
    assert tags["sgdstudy.command"] == "sgdstudy run kept --store https://host"
    assert SECRET not in "\n".join(said)
    assert SECRET.encode() not in everything(tmp_path / "mlruns")


def test_whatever_tag_note_param_or_error_holds_an_address_loses_its_password(store):
    """Another form: a remote of git, an environment, a driver's text, at the one place of all."""
    address = f"https://ada:{SECRET}@host/x.git"
    opened = open_store(store)
    begun = Invocation.start(opened, "study", {"git.remote": address})
    given = {"params": {"from": address}}
    with (
        suppress(ValueError),
        begun.run("arm", f"at {address}", {"env": address}, **given) as journal,
    ):
        assert SECRET.encode() not in everything(journal.folder)
        raise ValueError(f"no answer of {address}")
    run = opened.client.get_run(journal.run_id)
    assert run.data.tags["git.remote"] == "https://host/x.git"
    assert run.data.params["from"] == "https://host/x.git"
    assert SECRET.encode() not in everything(Path(store))


TYPED = [  # words that hold a secret, and what is recorded of them
    (["--token", SECRET], ["--token", "..."]),
    (["--token", "-x"], ["--token", "..."]),
    ([f"--token={SECRET}", "--lr", "1"], ["--token=...", "--lr", "1"]),
    (["--hf_token", "abc", "--lr", "1"], ["--hf_token", "...", "--lr", "1"]),
    (["--password", "p", "w", "--lr", "1"], ["--password", "...", "...", "--lr", "1"]),
    (["--private-key", SECRET], ["--private-key", "..."]),
    (["--credentials", SECRET], ["--credentials", "..."]),
    (["--cookie", SECRET], ["--cookie", "..."]),
    (["--mot-de-passe", SECRET], ["--mot-de-passe", "..."]),
    (["--wandb-key", SECRET + "-" * 9], ["--wandb-key", "..."]),
    (["--grid", f"token={SECRET},b"], ["--grid", "token=..."]),
    (["--store", f"databricks://{SECRET}:me"], ["--store", "databricks://..."]),
    ([f"databricks-uc://me:{SECRET}"], ["databricks-uc://..."]),
    ([f"scheme://ada:{SECRET}@"], ["scheme://"]),
]
PLAIN = [
    "--max-token",
    "5",
    "--max-tokens",
    "1000",
    "--tokens",
    "32",
    "--sort-key",
    "loss",
    "--author",
    "ada",
]


@pytest.mark.parametrize(("words", "shown"), TYPED, ids=[" ".join(w) for _, w in TYPED])
def test_what_follows_the_name_of_a_secret_is_not_recorded(monkeypatch, words, shown):
    assert of_words(words) == shown
    name, value = words[0].lstrip("-"), words[-1]
    if len(words) == 2 and words[0] not in ("--grid", "--store"):
        assert stripped({name: value, "several": [value]})[name] == "..."
        assert stripped({name: (value, value)}) == {name: ("...", "...")}
    monkeypatch.setattr("sgdstudy.secrecy._secrets", set())
    if name not in ("wandb-key", "grid"):  # nothing tells in a text
        assert SECRET not in without_secrets(f"it failed: {' '.join(words)}, they say")


@pytest.mark.parametrize("name", ["-u", "--user", "--login"])
def test_of_a_user_what_follows_the_colon_is_not_recorded(name):
    assert of_words([name, f"ada:{SECRET}", "--lr", "1"]) == [name, "ada:...", "--lr", "1"]
    assert SECRET not in recordable(f"refused: {SECRET}")
    assert of_words([f"{name}=ada:{SECRET}"]) == [f"{name}=ada:..."]
    for plain in ("ada", "1000:1000", "https://host", "a@b:c"):
        assert of_words([name, plain]) == [name, plain]


def test_a_code_is_not_recorded_though_it_is_a_number():
    for name in ("--pin", "--otp", "--card-pin"):
        assert of_words([name, "123456"]) == [name, "..."]
    assert of_words(["-p", SECRET]) == ["-p", "..."]
    plain = ["--pin-memory", "1", "--spin", "2", "-p", "8080", "--pinned", "3"]
    assert of_words(plain) == plain


def test_what_follows_another_name_is_recorded():
    assert of_words(PLAIN) == PLAIN
    text = "unknown --token; give --password or --api-key instead: --token needs a value"
    assert without_secrets(text) == text


def test_a_token_before_a_profile_is_refused_and_not_shown(no_server):
    with pytest.raises(InputError, match="names more than a profile") as error:
        locate(f"databricks://{SECRET}:profile")
    assert SECRET not in str(error.value)


NAMES = '''"""Is a password kept?"""
import torch

import sgdstudy as ss

OWN = "https://eva:" + "-".join(["s3cr3t", "w0rd"]) + "@home"


class Options(ss.Options):
    url: str = OWN
    urls: tuple[str, ...] = ("a",)
    password: str = ""


def arms(o):
    x, zeros = torch.tensor([-1.0, 0.0, 1.0]), torch.zeros(3)
    problem = ss.Problem(x, zeros, lambda w, x: w[0] * x, w_init=[0.1], name=f"p {OWN}")
    yield f"arm {OWN}", ss.Arm(problem, f"of {o.urls}", lr=0.1, batch_size=1, epochs=1)


def claims(o, runs):
    arm = next(iter(runs))
    yield ss.Claim(f"claim {o.url}", arm, list(o.urls), [o.url], source=f"see {o.url}", always=True)


def answer(o, runs, claims):
    return f"of {o.url}, {o.urls}"


STUDY = ss.study(__name__)
'''


@pytest.fixture(scope="module")
def left(tmp_path_factory, empty_store):
    """A folder in which commands were given passwords, and what they printed."""
    folder = tmp_path_factory.mktemp("named")
    (folder / "experiments").mkdir()
    (folder / "experiments" / "named.py").write_text(NAMES)
    shutil.copytree(empty_store, folder / "mlruns")
    one, other = f"https://ada:{SECRET}@host/a", f"postgresql://ada:a'{SECRET}@host/db"
    grid = ["sweep", "named", "--grid", f"url={one},{other}", "lr=0.1,0.2"]
    commands = (
        ["run", "named", "--urls", other, one, "--password", "pw-of-mine"],
        grid,
        [*grid, "--resume"],
        ["export", "named"],
        ["report", "--out", "report.html"],
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "SGDSTUDY_PREFIX"):
            patch.delenv(name, raising=False)
        yield folder, programs(*commands, cwd=folder)


def arms_of(folder, study):
    return set(ss.load_runs(study, store=str(folder / "mlruns"), invocation="all").arm)


@pytest.mark.slow
def test_names_of_runs_data_and_claims_hold_no_password(left, no_server):
    """As it was seen: the name of a sweep's run, of data, an arm, a claim; tuples of words."""
    folder, said = left
    assert [code for code, _, _ in said] == [0] * 5, said
    assert SECRET not in "".join(out + error for _, out, error in said)
    assert SECRET.encode() not in everything(folder)
    assert b"pw-of-mine" not in everything(folder)
    assert "4 of 4 are finished already" in said[2][1]
    assert arms_of(folder, "named") == {"arm https://home"}
    names = {
        f"url={url}, lr={lr}"
        for url in ("https://host/a", "postgresql://host/db")
        for lr in ("0.1", "0.2")
    }
    assert arms_of(folder, "named_sweep") == names


@pytest.mark.slow
def test_a_run_whose_name_lost_a_password_runs_again(left, no_server, monkeypatch):
    folder, _ = left
    monkeypatch.chdir(folder)
    first = ss.load_runs("named", store="mlruns").run_id.iloc[0]
    assert rerun(first, store="mlruns").difference is None


def test_words_that_are_not_utf_8_are_recorded_as_they_can_be(store, monkeypatch):
    """As it was seen: kept for ever, as if the store had been away."""
    monkeypatch.setattr(sys, "argv", ["caf\udce9", "--name", "\udcff"])
    opened = open_store(store)
    with Invocation.start(opened, "study").run("arm", "n\udcff", {"a": "\udcff"}) as journal:
        pass
    run = opened.client.get_run(journal.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["sgdstudy.command"] == "'caf\\udce9' --name '\\udcff'"
    assert list(opened.streams.glob("*")) == []


@pytest.mark.slow
def test_no_line_of_a_command_shows_it(tmp_path):
    """Nobody listens there; the driver's or the server's error may quote the address."""
    kinds = ("http", "postgresql+psycopg")
    each = (["report"], ["prune", "--keep", "1"], ["recover"])
    places = [f"{kind}://ada:{SECRET}@127.0.0.1:9/x" for kind in kinds]
    commands = [[*words, "--store", place] for place in places for words in each]
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    for code, out, error in programs(*commands, cwd=tmp_path, env=environment):
        assert code == 2
        assert SECRET not in out + error
        assert error.count("\n") == 1, error
    shutil.rmtree(tmp_path / "sgdstudy", ignore_errors=True)


@pytest.mark.parametrize("form", ["https://ada:%s@h/x", "postgresql://ada:a'%s@h/x/y", "s3:/%s/x"])
def test_a_file_of_the_name_of_an_address_is_neither_made_nor_shown(form):
    for given in (form % SECRET, Path(form % SECRET)):
        with pytest.raises(InputError, match="as an address does; give a path") as error:
            checks.path("--out", given)
        assert SECRET not in str(error.value)
    drives = ["C:/a.zip"] * (sys.platform == "win32")  # no address, but refused elsewhere
    for name in (*drives, "a:b.zip", "x/a:b.zip"):
        assert checks.path("--out", name) == Path(name)


def test_no_chart_shows_it():
    address = f"https://ada:a'{SECRET}@host"
    line = figures.Line(f"arm {address}", np.arange(3), np.arange(3), "#112233")
    chart = figures.Chart(f"of {address}", [figures.Panel([line], "x", "y")], f"see {address}")
    assert SECRET not in chart.describe() + chart.interactive().to_json()
    figure = Figure()
    figure.subplots().set_title(f"of {address}")
    assert SECRET.encode() not in figures.png(figure)
    assert figure.axes[0].get_title() == "of https://host"
