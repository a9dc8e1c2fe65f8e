"""Secrets in lines of a program: what is left out of a diff, and what stays in it."""

import time

import pytest

from sgdstudy import secrecy
from sgdstudy.tracking.code_lines import of_code

SECRET = "Zq7hunterXk9"
KEPT = [  # lines that hold one, whatever the name has to do with it
    *('user, password = "u", "%s"', 'password, user = "%s", "u"', 'password = f("PW") or "%s"'),
    *('password = None or "%s"', 'password = SecretStr("%s")', 'password = "!" + a + "%s"'),
    *('token = Token("%s")', 'password = ["%s"]', 'passwords = ["%s", "b"]', 'mdp = a("%s")'),
    *('tokens = {"ada": "%s"}', 'PASSWORDS = dict(ada="%s")', 'setattr(o, "password", "%s")'),
    *(' "PASSWORD": env("P", default="%s"),', 'passwordForDb = "%s"', 'DBPASS = "%s"'),
    *('password: Annotated[str, "x"] = "%s"', 'password = base64.b64decode("%s")'),
    *('assert token == "%s"', 'ftp.login("u", "%s")', 'HTTPBasicAuth("u", "%s")', 'dbPass = "%s"'),
    *('credentials = ("u", "%s")', 'session_cookie = "%s"', 'uri = "ada:%s@host:5000"'),
    *(
        'run(["mysql", "-u", "root", "-p%s"])',
        'run(["sshpass", "-p", "%s"])',
        'contraseña = f("%s")',
    ),
    *(
        'password = SecretStr(\n+    "%s"\n+)',
        'tokens_and_secrets = {\n+    "a": (\n+\n+  "%s",\n+)}',
    ),
    *("password = x['ab'] or '%s'", 'password = f("cut %s', 'password = f("""%s""")'),
]
CODE = [  # what stays
    *(
        'password = os.environ["DB_PASSWORD"]',
        'setattr(o, "password", x)',
        "password = cfg['store']",
    ),
    *('raise E("give a password of 12 characters")', "print('password: ', x)", "pass  # 'loss'"),
    *("the user's password isn't Ada's", 'compass = "north"', 'tokenizer = f("gpt2-medium")'),
    *('author = "Ada Lovelace 1815"', 'login = "ada"', 'token = vocabulary["a1-b2-c3-d4"]'),
    *('def f(password):\n+    return "loss"', 'key="batch/loss1"'),
]


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch):
    monkeypatch.setattr(secrecy, "_secrets", set())


@pytest.mark.parametrize("form", KEPT)
def test_no_text_in_quotes_beside_the_name_of_a_secret_is_kept(form):
    left = of_code(f"+x = 1\n+{form % SECRET}\n+y = 'loss'\n")
    assert SECRET not in left
    assert left.startswith("+x = 1\n")
    assert left.endswith("\n+y = 'loss'\n")


@pytest.mark.parametrize("line", CODE)
def test_other_texts_stay(line):
    assert of_code(f"+{line}\n-{line}\n") == f"+{line}\n-{line}\n"


@pytest.mark.parametrize(
    "piece", ["'", "'\\", "'" * 3, "f'a", "x['", "password(\n", "password '", "token 'a1b2"]
)
def test_the_time_goes_with_the_length(piece):
    text = "password " + piece * (50_000 // len(piece))
    started = time.process_time()
    of_code(text)
    assert time.process_time() - started < 5
