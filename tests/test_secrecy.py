"""The patterns of secrets: each form finds its example, and the time goes with the length."""

import re
import time

import pytest

from sgdstudy import secrecy

FORMS = [  # form, a text, what it finds at its beginning
    ("HTTP", "https:/ada:pw@host", "https:/"),
    ("HTTP", "https\uff1a\\\\host", "https\uff1a\\"),
    ("OTHER", "postgresql+psycopg://host", "postgresql+psycopg://"),
    ("HEAD", "sqlite:////home/ada", "sqlite:////"),
    ("NAME", "ada:pw@host", "ada"),
    ("PORT", "5000/path", "5000/"),
    ("PORT", "12'ab@host", None),
    ("NO_PASSWORD", "{port}", "{port}"),
    ("USER", "ada:a b'/@c@host:5000", "ada:a b'/@c@"),
    ("USER", "host:5000/a@b", None),
    ("REST", "host:5000/a?b=c' is away", "host:5000/a?b=c"),
    ("OF_ADDRESS", "?access_token=x", "?access_token"),
    ("OF_ADDRESS", "%3BPWD%3Dx", "%3BPWD"),
    ("OF_ADDRESS", "&sslkey=x", "&sslkey"),
    ("OF_ADDRESS", "?page=2", None),
    ("OF_TEXT", "db.password=x", "db.password"),
    ("OF_TEXT", "PWD=/home/ada", None),
    ("OF_TEXT", "keyword=x", None),
    ("OF_OPTION", "hf-token ", "hf-token"),
    ("OF_OPTION", "max", None),
    ("A_NUMBER", "5", "5"),
    ("PERHAPS", "wandb-key", "wandb-key"),
    ("PERHAPS", "monkey", None),
    ("NO_SECRET", "None):", "None"),
    ("IN_BRACES", "{a;b}}c};Encrypt=no", "{a;b}}c}"),
    ("IN_CODED_BRACES", "%7Ba%3Bb%7D%3BEncrypt", "%7Ba%3Bb%7D"),
    ("IN_CODED_BRACES", "%7Ba%7D%7Db%7D%3BEncrypt", "%7Ba%7D%7Db%7D"),
    ("IN_QUOTES", "'a b' host=h", "'a b'"),
    ("BARE", "a'b c", "a'b"),
    ("BARE", "a%3Bb", "a"),
    ("QUOTE", "\\'", "\\'"),
    ("AS", ": str | None = 'x'", ": str | None = "),
    ("AS", ": 'x'", ": "),
    ("AS", ' == "x"', None),
    ("IS", " == 'x'", " == "),
    ("PLACE", "%(password)s", "%(password)s"),
    ("FILLED_IN", "f'{password}'", "f'{password}'"),
    ("FILLED_IN", "'p{a}'", None),
    ("ESCAPED", '\\"a\\", \\"b\\"', '\\"a\\"'),
    ("UNESCAPED", r"'it\'s', 'b'", r"'it\'s'"),
    ("UNESCAPED", "'that is cut", "'that is cut"),
    ("LITERAL", "b'a' b", "b'a'"),
    ("LITERAL", "f'{password}'", None),
    ("OPENED", "'a'", ""),
    ("OPENED", "', x)", None),
    ("ENDS", "(x)", None),
    ("WRITTEN", "!", "!"),
    ("A_WORD", "hunter2 of", "hunter2"),
    ("A_WORD", "missing", None),
    ("A_WORD", "float32(x)", None),
    ("A_NAME", "EX4_STEPS", "EX4_STEPS"),
    ("A_NAME", "ghp_0f12ab34", None),
    ("JWT", "eyJhbGci.eyJzdWIi.Sfl x", "eyJhbGci.eyJzdWIi.Sfl"),
    ("A_TOKEN", "ghp_0f12ab34 x", "ghp_0f12ab34"),
    ("A_TOKEN", "bert-base-uncased", None),
    ("A_TOKEN", "model.layers1", None),
    ("TOKEN", "'ghp_0f12ab34'", "'ghp_0f12ab34'"),
    ("UNSPACED", "=x", "="),
    ("AUTHORIZED", "Authorization: Bearer x", "Authorization: Bearer "),
    ("AUTHORIZED", "Authorization: Bearer {token}", None),
    ("SEVERAL", "Cookie: a=b; c=d", "Cookie: "),
    ("SEVERAL", "Authorization: Digest a=b", "Authorization: Digest "),
    ("BEARER", "Bearer ghp_0f12ab34", "Bearer "),
    ("OF_HEADER", "YWRhOnB3' -o", "YWRhOnB3"),
    ("TO_ITS_END", "a=b; c=d\ne", "a=b; c=d"),
    ("OF_TWO", "auth=('ada', 'x')", "auth=('ada', "),
]
PIECES = [
    *("a://", "a://u:", "a://u:x@", "a://u:x@y ", "://", "@", "/", "u:", "https:/", "x@y:"),
    *("?passw", "?key", "%3Bpwd", "password=", "password={", "password={{", "password={}}"),
    *("password=%7B", "password=%7B ", "password=%7B&", "password='", "password=' ", "token=\"'"),
    *(
        "secret='\n",
        "=",
        "%3D",
        "a",
        "a.",
        "a ",
        "\n",
        "pwdpwd",
        "_key=",
        "{",
        "}}",
        "'",
        "12",
        "\uff1a",
    ),
    *("'password': '", "password='\\'", 'password = \\"', "password: a1", "password: x" * 9),
    *("token: ", "token=a1", "token=eyJaaaaaaaa.", "('password', '", "('key', 'a1", "'key': 'a_"),
    *("auth=('", "auth=('a', ", "Authorization: Bearer ", "Cookie: a=", "bearer a1", "bearer "),
    *("password: a, ", "password: [", "password:'{", "password: f'%(", "key='<", "a1_", "eyJ"),
    *(
        "password:a1",
        "token=a1b2c3d4",
        "password:\t",
        "password = (",
        "password" + "\\" * 3,
        "password''",
    ),
]


@pytest.mark.parametrize(("form", "text", "found"), FORMS)
def test_a_form_finds_its_example(form, text, found):
    match = re.match(getattr(secrecy, form), text, re.I)
    assert (match and match[0]) == found


@pytest.mark.parametrize("end", ["", "@h", "=x", "}", "(", " a://u:p@h"])
@pytest.mark.parametrize("piece", PIECES)
def test_the_time_goes_with_the_length(piece, end, monkeypatch):
    """In 50 000 characters, of which a search that starts again at each takes far more."""
    monkeypatch.setattr(secrecy, "_secrets", set())
    text = piece * (50_000 // len(piece)) + end
    started = time.process_time()
    secrecy.without_secrets(text)
    secrecy.without_secrets(text, whole=True)
    assert time.process_time() - started < 5
