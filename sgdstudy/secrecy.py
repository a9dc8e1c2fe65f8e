"""Passwords, tokens and keys in texts: found, left out, and shown nowhere from then on.

Three things are looked for: an address with a user before its @; a setting whose name says that
its value is a secret, as a command line, an environment, a program, JSON or a header writes it; and
what a key or a token is known by, whatever stands before it. Where the name alone does not tell,
the value has to look like a secret; what a program computes is none. The patterns are put together
from forms, each of which stands beside an example of what it finds. What a form repeats either
stops where it may begin again or is bounded: so the time goes with the length of a text, whatever
stands in it.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

# ---- the beginning of an address -----------------------------------------------------------------

COLON = "[:\uff1a]"  # ":", and the wide one that some keyboards write
HTTP = rf"https?{COLON}[/\\]"  # "https:/": one slash is enough, of either kind
OTHER = rf"[a-z][\w+.-]{{0,40}}{COLON}(?://|\\\\)"  # "postgresql+psycopg://"
HEAD = rf"((?:{HTTP}|{OTHER})[/\\]*)"  # "sqlite:///"

# ---- its user, and what follows ------------------------------------------------------------------

NAME = r"[^\s'\"<>/@:?#]*"  # "ada" of "ada:pw@host"; it may be empty
PORT = r"\d{1,5}(?:[/?#\s,;:.)\]}|]|['\"<>](?!\w)|$)"  # "5000/" of "host:5000/path"
NO_PASSWORD = rf"\s|\{{\w*\}}|{PORT}"  # "{port}" of "http://{host}:{port}"
PASSWORD = r"(?:(?!://)[^\n]){0,200}?(?<!\s)"  # "a b'/@c": quotes, spaces and slashes too
HOST = r"[\w.\[\]:-]++(?!@)"  # "[::1]:5000": the @ before it ends a password
USER = rf"{NAME}:(?!{NO_PASSWORD}){PASSWORD}@(?={HOST})"  # "ada:pw@" before "host"
REST = r"[^\s'\"<>]*"  # "host:5000/a?b=c"

# ---- a user without the beginning of an address --------------------------------------------------

SIGNS = (  # "//ada:" of "//ada:pw@host"; "jdbc:oracle:thin:ada/"
    r"(?<![^\s,;=|(\[{'\"])(?:jdbc:[\w:]{1,40}:[^\s/@:]{0,40}/"
    r"|(?:[^\s:@'\"=,;|(\[{]{0,100}[/\\])?[^\s'\"<>/@:?#=,;|(\[{]{0,80}:)"
)
SIGNED_BY = rf"(?![/\\]|{NO_PASSWORD})[^\s'\"]{{1,200}}"  # "pw" before "@host"
AT_HOST = r"(?=@(?://)?(?:\[|[a-z]|\d{1,3}\.))"  # before "@host", "@127.0.0.1", not "@5"

# ---- a setting that is called a secret -----------------------------------------------------------

PART = r"[\w.-]{0,40}"  # "ssl" of "sslpassword"
OF_OTHERS = (  # "senha", in other languages
    "contrase(?:ñ|n\u0303?)a|kennwort|wachtwoord|lösenord|senha|hasło|parola(?!t)|пароль"
    "|パスワード|密码|密碼|비밀번호"
)
ANY_SECRET = "passw|passphrase|pwd|secret|token|credential|api[_.-]?key|signature"  # "token"
A_KEY = "sig|auth|(?:ssl|access|account)?[_.-]?key"  # "sslkey"
SURE_SECRET = (  # "pwd" of "PWD=...", but not of "PWD=/home/ada"
    f"passwo?r?[dt]|mot.?de.?passe|{OF_OTHERS}|passphrase|pwd(?!=/)|secret"
    "|(?:access|auth|api)[_.-]?(?:token|key)"
    "|(?:account|secret)[_.-]?key"
)
OPENS = "[?&;#]|%3B|%26"  # "&" of "?a=b&token=c", written out where it is in another address
OF_ADDRESS = rf"(?:{OPENS})(?:{PART}(?:{ANY_SECRET}){PART}|{A_KEY})"  # "?access_token"
OF_TEXT = rf"(?<![\w.-]){PART}(?:{SURE_SECRET})"  # "db.password", which is nothing else
A_CODE = r"(?<![^\W_])(?:pin|otp|passcode|cookies?)"  # "pin", which may be a number
OF_OPTION = (  # "--hf-token", and no "--max-tokens", "--author"
    rf"[\w.-]{{0,40}}?(?:{SURE_SECRET}|{A_CODE}|(?<![^\W_])(?:token|auth|authorization|bearer"
    r"|credentials?"
    r"|(?:account|license|private|secret|signing|ssh|ssl)[_.-]?key))"
)
A_NUMBER = r"[\d.,]+"  # "5" of "--max-token 5"
PERHAPS = (  # "wandb_key", but "sort_key" too: the value tells
    r"[\w.-]{0,40}?(?<![^\W_])(?:key|token|sig|signature|pass|pw|mdp|auth|authorization|bearer"
    r"|credentials?)"
)
EQUALS = "=|%3D"  # "="
NO_SECRET = r"(?:None|True|False)\b"  # "None" of "f(password=None)"

# ---- and its value -------------------------------------------------------------------------------

IN_BRACES = r"\{(?:[^{}]|\}\})*\}"  # "{a;b}}c}", as drivers of ODBC write a password
IN_CODED_BRACES = r"%7B(?:(?!%7D).|%7D%7D){0,500}%7D"  # "%7Ba%3Bb%7D": the same in an address
TRIPLE = r"'''[\s\S]{1,2000}?'''|\"\"\"[\s\S]{1,2000}?\"\"\""  # "'''a'''"
IN_QUOTES = rf"{TRIPLE}|'[^'\n]*'|\"[^\"\n]*\""  # "'a b'"
ADJOINING = (  # "'a' 'b'", which a program takes for one text
    rf"[bruf]{{0,2}}(?:{TRIPLE}|'[^'\n]*'(?:[ \t]{{0,4}}'[^'\n]*'){{0,20}}"
    rf"|\"[^\"\n]*\"(?:[ \t]{{0,4}}\"[^\"\n]*\"){{0,20}})"
)
BREAK = r"[ \t]{0,4}\\?(?:#[^\n]{0,80})?\r?\n[+-]?[ \t]{0,40}"  # the end of a line, in a diff too
WRAPPED = rf"\(?{BREAK}{ADJOINING}(?:{BREAK}{ADJOINING}){{0,20}}"  # "'a'" on the next line
BARE = r"(?:(?!%3B|%26)(?:[^\s&;#'\"]|['\"](?=\w)))*"  # "a'b"
VALUE = "|".join((IN_BRACES, IN_CODED_BRACES, IN_QUOTES, BARE))
VALUES = "|".join((IN_BRACES, IN_CODED_BRACES, ADJOINING, WRAPPED, BARE))

# ---- the same in a program, in JSON, in a header -------------------------------------------------

QUOTE = r"\\{0,3}['\"]"  # "\\"" of a text in a text
AS = (  # ": str = ", " => ", " ?= "
    r"[ \t\xa0\u202f]{0,4}(?:(?::[ \t]{0,4}[\w.\[\]| ,]{1,40}?)?[:?]?=(?!=)>?|[:\uff1a])"
    r"[ \t\xa0]{0,4}\(?"
)
IS = r"[ \t]{0,4}[!=]=[ \t]{0,4}"  # " == "
PAIR = rf"(?<=[(\[]['\"])%s{QUOTE}[ \t]?,[ \t]{{0,4}}"  # "password', " of "('password', 'x')"
PLACE = r"\$?\{[^{}'\"\n]{0,80}\}|%\(?\w{0,40}\)?s|<[\w -]{1,40}>|\.{3}"  # "{password}", "%s"
FILLED_IN = rf"[bruf]{{0,2}}{QUOTE}(?:{PLACE}){QUOTE}"  # "f'{password}'"
ESCAPED = r"\\{1,3}(?:'[^'\\\n]{1,500}(?:\\{1,3}')?|\"[^\"\\\n]{1,500}(?:\\{1,3}\")?)"  # "\\"a\\""
UNESCAPED = r"'(?:[^'\\\n]|\\.){1,500}'?|\"(?:[^\"\\\n]|\\.){1,500}\"?"  # "'it\\'s'"
LITERAL = (  # "b'a'"
    rf"(?!{FILLED_IN})[bruf]{{0,2}}(?:{TRIPLE}|(?:''|\"\")?(?:{ESCAPED}|{UNESCAPED}))"
)
OPENED = (  # "'a" of "print('password: ', x)"
    r"(?=(?:(?:''|\"\")[ \t]{1,4}){0,4}[bruf]{0,2}\\{0,3}['\"]{1,3}[^\s'\"\\,).;:\]}+%])"
)
ANOTHER = (  # " 'b'" of "'a' 'b'"
    rf"(?:(?<=')[ \t]{{0,4}}(?=[bruf]{{0,2}}')|(?<=\")[ \t]{{0,4}}(?=[bruf]{{0,2}}\")){LITERAL}"
)
STRINGS = rf"(?:(?:''|\"\")[ \t]{{1,4}}){{0,4}}{LITERAL}(?:{ANOTHER}){{0,20}}"  # "'' 'a' 'b'"
NEXT_LINE = rf"(?P<wrapped>(?<=[=(]){BREAK})?"  # the end of "password = ("
LINES = rf"(?(wrapped)(?:{BREAK}{LITERAL}){{0,20}})"  # what follows "'a'" there
ENDS = r"(?![(\[]|\.\w)"  # what goes on so is called, or looked up
WRITTEN = r"[^\s'\"(){}\[\],;<>.\\]"  # "!" of "password: a!1"
BOTH = r"(?=%s{0,80}?\d)(?=%s{0,80}?[a-z])"  # a digit, and a letter
A_WORD = (
    rf"{BOTH % (WRITTEN, WRITTEN)}{WRITTEN}{{6,500}}+{ENDS}{WRITTEN}*"  # "hunter2", no "float(x)"
)
IN_TOKEN = r"[\w+/=~:-]"  # "f" of "ghp_0f"
A_NAME = (  # "tokens_2", "EX4_STEPS", "batch/loss1": so a program calls what it knows
    r"_{0,2}(?:[a-z]{1,40}\d{0,2}[_/]){0,8}[a-z]{0,40}\d{0,2}(?![\w+/=~:-])"
)
JWT = r"eyJ[\w-]{5,}+\.[\w.-]+"  # "eyJhbGci.eyJzdWIi.Sfl"
A_TOKEN = (  # "ghp_0f12ab34"
    rf"(?!{A_NAME})(?:{JWT}|{BOTH % (IN_TOKEN, IN_TOKEN)}{IN_TOKEN}{{8,500}}+{ENDS}{IN_TOKEN}*)"
)
TOKEN = rf"[bruf]{{0,2}}{QUOTE}{A_TOKEN}{QUOTE}"  # "'ghp_0f12ab34'"
UNSPACED = rf"{EQUALS}|:[ \t]{{0,4}}"  # "=" of an environment
SCHEME = "bearer|basic|token|negotiate|apikey"  # "Bearer"
AUTHORIZED = (  # "Authorization: Bearer ", and no f"Bearer {token}"
    rf"authorization{QUOTE}?{AS}{QUOTE}?(?:{SCHEME})[ \t]{{1,4}}(?![{{%<])"
)
SEVERAL = (  # "Cookie: " before "a=b; c=d"
    rf"(?:cookie{QUOTE}?{AS}|authorization{QUOTE}?{AS}{QUOTE}?digest[ \t]){QUOTE}?"
    r"(?=[\w.-]{1,40}=[^{\s])"
)
BEARER = r"(?<!\w)bearer[ \t]{1,4}"  # "Bearer "
OF_HEADER = r"[^\s'\"]+"  # "YWRhOnB3"
TO_ITS_END = r"[^\n]+"  # "a=b; c=d"
SET = rf"(?<!\w)set\w{{0,40}}?(?:{SURE_SECRET})\d{{0,2}}\([ \t]{{0,4}}"  # "set_password("
SET_TO = rf"{STRINGS}(?:,[ \t]{{0,4}}{STRINGS}){{0,3}}"  # "'service', 'ada', 'a'"
TAG = rf"<{PART}(?:{SURE_SECRET})[^<>\n]{{0,80}}>"  # "<password>"
IN_TAG = rf"(?!(?:{PLACE})<)[^<>\n]{{1,500}}(?=</)"  # "a" of "a</password>"
DEFAULT = (  # "--password', default=" before "'a'"
    rf"--(?:{PART}(?:{SURE_SECRET})|{PERHAPS}){QUOTE},[^()]{{0,120}}?default[ \t]?=[ \t]?"
)
BLOCK = (
    rf"{OF_TEXT}\d{{0,2}}{QUOTE}?:[ \t]{{0,4}}[|>][+-]?\d?(?=[ \t]{{0,4}}\r?\n)"  # "password: |"
)
IN_BLOCK = (  # "\n  a\n  b", as YAML writes lines
    r"[ \t]{0,4}\r?\n[+-]?(?P<indent>[ \t]{1,40})[^\n]{1,500}"
    r"(?:\n[+-]?(?P=indent)[^\n]{1,500}){0,40}"
)
LOGIN = r"(?<!\w)login\s{1,4}\S{1,80}\s{1,4}[+-]?\s{0,8}password[ \t]{1,4}"  # "login ada password "
MACHINE = rf"(?<!\w)machine\s{{1,4}}\S{{1,80}}\s{{1,4}}[+-]?\s{{0,8}}{LOGIN}"  # in .netrc
SIGNED = (  # "--user ada:" and "curl -u ada:", and neither "1000:1000" nor "https://"
    r"(?<![\w.-])(?:--(?:proxy-)?user|--login|(?<=curl )-u)(?:[ \t]{1,4}|=)['\"]?[^\s:'\"@/]{0,80}:"
)
SIGNED_SHORT = r"(?<![\w.-])-u[ \t]{1,4}['\"]?[^\s:'\"@/]{0,80}:"  # "-u ada:"
OF_USER = r"(?!//|\d{1,10}(?![^\s'\"]))[^\s'\"]+"  # "a" of "ada:a"
THE = rf"{OF_TEXT}(?:[ \t](?:is|was))?[ \t]"  # "the password " before "'a'"
IS_WORD = rf"{OF_TEXT}[ \t](?:is|was|est)[ \t]{{1,4}}"  # "the password is " before "hunter2"
LOGS_IN = r"(?<!\w)login[ \t]{1,4}"  # "wandb login " before a token
SSHPASS = r"(?<![\w-])sshpass[ \t]{1,4}-p[ \t]{0,4}"  # "sshpass -p "
MYSQL = r"(?<![\w-])(?:mysql|mariadb)[\w-]{0,20}[ \t](?:[^\n|;&]{0,80}[ \t])?-p(?!-)"  # "mysql -p"
QUOTED = rf"(?!{FILLED_IN}){OPENED}(?:'[^'\n]{{1,200}}'|\"[^\"\n]{{1,200}}\")(?!\w)"  # "'a'"
OF_TWO = rf"(?<!\w)auth{QUOTE}?{AS}{LITERAL},[ \t]{{0,4}}"  # "auth=('ada', " before a password

# ---- what keys and tokens are known by -----------------------------------------------------------

PEM = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----"  # "-----BEGIN RSA PRIVATE KEY-----"
OF_PEM = (  # "MIIE\n-----END PRIVATE KEY-----", or what is left of it
    r"(?=[\s\\nrbf'\"+-]{0,60}(?:[A-Z0-9+/=]{16}|Proc-Type))"
    r"(?:(?!-----BEGIN|-----END)[\s\S]){1,10000}-----END [A-Z0-9 ]{0,40}-----"
    r"|(?:(?:\s|\\[nr]|[+-]){0,40}[A-Z0-9+/=]{16,}){1,500}"
)
SHAPE = (  # "AKIAIOSFODNN7EXAMPLE"
    r"(?<![\w.-])(?:gh[pousr]_[A-Z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|hf_[A-Z0-9]{30,}"
    r"|sk-(?=[\w-]{0,80}?\d)[\w-]{20,}|xox[abeprs]-(?=[\w-]{0,80}?\d)[\w-]{10,}"
    r"|AIza[\w-]{30,}|npg_\w{20,}|dapi[0-9a-f]{32}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}(?!\w)|eyJ[\w-]{5,}+\.[\w-]{5,}+\.[\w-]{5,})"
)
HOOK = (  # "hooks.slack.com/services/"
    r"hooks\.slack\.com/(?:services|workflows)/|discord(?:app)?\.com/api/webhooks/\d{1,30}/"
    r"|api\.telegram\.org/(?:file/)?bot\d{1,20}:"
)
OF_CALL = r"(?<!\w)login\([ \t]{0,4}"  # "login(" before "'0f12...'"
LONG = rf"{QUOTE}[\w-]{{20,200}}{QUOTE}"  # "'0123456789abcdef0123'"

# ---- what is looked for --------------------------------------------------------------------------

NEXT = re.compile(rf"(?<=[\s,;=|(\[{{'\"])(?={HEAD})", re.I)  # one more address in a word
WHOLE = re.compile(rf"{HEAD}(.*)$", re.I | re.DOTALL)  # a word that is an address
ADDRESS = re.compile(rf"{HEAD}((?:{USER})?{REST})", re.I)  # one in a text
# "databricks://token:profile": MLflow takes no name before the colon, people have put a token there
SIGNED_WORD = re.compile(rf"({SIGNS})({SIGNED_BY}){AT_HOST}", re.I)  # one without, in a word
SIGNED_TEXT = re.compile(
    rf"({SIGNS})(?=[^\s@]{{8}})({BOTH % ('[^@]', '[^@]')}{SIGNED_BY}){AT_HOST}", re.I
)
DATABRICKS = re.compile(r"(databricks[\w-]{0,10}://)([^\s'\"<>:]*:[^\s'\"<>]*)", re.I)
TYPED = re.compile(rf"((?<![\w.-])--({OF_OPTION})(?:=|[ \t]{{1,4}}))(?!-)({VALUE})", re.I)
KEYED = re.compile(rf"((?:{OF_ADDRESS}|{OF_TEXT})(?:{EQUALS}))(?!{NO_SECRET})({VALUES})", re.I)
KNOWN = [
    re.compile(rf"({before})({value})", re.I)
    for before, value in ((PEM, OF_PEM), ("", SHAPE), (HOOK, REST), (OF_CALL, LONG))
]
SAID = [
    re.compile(rf"({before})({value})", re.I)
    for before, value in (
        (rf"{OF_TEXT}\d{{0,2}}{QUOTE}\]?(?:{AS}|{IS})", rf"{NEXT_LINE}{STRINGS}{LINES}|{A_WORD}"),
        (rf"{OF_TEXT}\d{{0,2}}(?:{AS}|{IS})", rf"{NEXT_LINE}{OPENED}{STRINGS}{LINES}|{A_WORD}"),
        (rf"(?<![\w.-])(?:{PERHAPS})(?:{QUOTE}\]?)?{AS}", rf"{NEXT_LINE}{TOKEN}"),
        (rf"(?<![\w.-])(?:{PERHAPS})(?:{UNSPACED})", A_TOKEN),
        (PAIR % f"(?:{PART}(?:{SURE_SECRET})|{PERHAPS})", TOKEN),
        (OF_TWO, LITERAL),
        (SET, SET_TO),
        (TAG, IN_TAG),
        (DEFAULT, TOKEN),
        (rf"(?=--{PART}(?:{SURE_SECRET})){DEFAULT}", rf"{OPENED}{STRINGS}"),
        (BLOCK, IN_BLOCK),
        (MACHINE, OF_HEADER),
        (LOGIN, A_WORD),
        (SIGNED, OF_USER),
        (SIGNED_SHORT, A_WORD),
        (THE, QUOTED),
        (IS_WORD, A_WORD),
        (LOGS_IN, A_TOKEN),
        (SSHPASS, OF_HEADER),
        (MYSQL, OF_HEADER),
        (AUTHORIZED, OF_HEADER),
        (SEVERAL, TO_ITS_END),
        (BEARER, A_TOKEN),
    )
]
NAMED = re.compile(
    f"pass|{OF_OTHERS}|mdp|pwd|pw|secret|token|key|sig|auth|bearer|credential|cookie|-u|login"
    "|mysql|mariadb",
    re.I,
)
A_USER = re.compile("-u|(?:--?)?(?:user|proxy-user|login)")  # the option before "ada:a"
PATHS = ("sqlite", "file")  # after their three slashes comes a path
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN", "PGPASSWORD")
LEAST_SECRET = 8  # characters that nothing else is likely to have
LEAST_TOKEN = 20  # and of a user's name
_secrets: set[str] = set()  # of the words that this process was given


def without_secrets(text: str, whole: bool = False) -> str:
    """Return text without names and passwords before the @ of addresses, and without `?password=`.

    Args:
        text: may hold addresses.
        whole: it is one word, which may be an address with spaces or quotes in its password; what
            is left out of it is left out of every text from then on, wherever it stands.

    >>> print(without_secrets("no answer of https://ada:x@y@host:5000/a@b; psql://a:/b@c/d?token=e&f=g"))
    no answer of https://host:5000/a@b; psql://c/d?token=...&f=g
    """
    for form in KNOWN:
        text = form.sub(_noted_key if whole else _without_key, text)
    if whole:
        ends = [0, *(found.start() for found in NEXT.finditer(text)), len(text)]
        words = (text[i:j] for i, j in itertools.pairwise(ends))
        parts = (_signed_word(DATABRICKS.sub(_noted_key, word)) for word in words)
        return "".join(_said(_noted_key, KEYED.sub(_noted_key, part)) for part in parts)
    if {"@", "="} & set(text) or "%3" in text:
        text = SIGNED_TEXT.sub(_without_key, ADDRESS.sub(_without_user, text))
        text = KEYED.sub(_without_key, text)
    if "--" in text or "://" in text:
        text = TYPED.sub(_without_typed, DATABRICKS.sub(r"\1...", text))
    text = _said(_without_key, text)
    for secret in sorted(_secrets.union(*map(_forms, map(os.environ.get, SECRETS))), key=len)[::-1]:
        text = text.replace(secret, "...")
    return text


def stripped(value: Any, whole: bool = True) -> Any:
    """Return what was given, as the values of options, without the secrets in it.

    Args:
        value: whatever it is made of.
        whole: a text in it is a word, see `without_secrets`.

    >>> stripped({"url": "https://ada:pw@host", "n": (1, "b"), "password": "pw"})
    {'url': 'https://host', 'n': (1, 'b'), 'password': '...'}
    """
    if isinstance(value, str):
        return without_secrets(value, whole)
    if isinstance(value, Mapping):
        return {name: of_option(name, part, whole) for name, part in value.items()}
    return of_option("", value, whole) if isinstance(value, (list, tuple)) else value


def note_secrets(words: Any) -> None:
    """Note the passwords in what was given: no text shows them from then on; see `stripped`."""
    stripped(words)


def of_option(name: Any, value: Any, whole: bool = True) -> Any:
    """Return the value of an option as `stripped` does; nothing of one that is called password.

    >>> print(of_option("--url", "https://ada:pw@host"), of_option("--password", "pw"))
    https://host ...
    """
    if isinstance(value, (str, int, float)) and _is_secret(name, value):
        _secrets.update(_forms(f"{value}"))
        return "..."
    if isinstance(value, Mapping) and re.fullmatch(OF_OPTION, f"{name}", re.I):
        return {key: of_option(name, part, whole) for key, part in value.items()}
    if isinstance(value, str) and A_USER.fullmatch(f"{name}"):
        user, colon, password = value.partition(":")
        if colon and not re.search("[/@]", user) and re.match(OF_USER, password):
            _secrets.update(_forms(password))
            return f"{user}:..."
    if isinstance(value, (list, tuple)):
        parts = [of_option(name, part, whole) for part in value]
        if len(value) == 2 and isinstance(value[0], str) and _looks_secret(value[1]):
            parts[1] = of_option(value[0], parts[1], whole)  # ("password", "x")
        return parts if isinstance(value, list) else tuple(parts)
    return stripped(value, whole)


def _is_secret(name: Any, value: float | str) -> bool:
    """Whether the value of an option that is called so is a secret."""
    if value == "" or isinstance(value, bool):
        return False
    if re.fullmatch(rf"{PART}(?:{SURE_SECRET}|{A_CODE})", f"{name}", re.I):
        return True
    if re.fullmatch(f"{PERHAPS}s?|-p", f"{name}", re.I) and _looks_secret(value):
        return True
    known = re.fullmatch(OF_OPTION, f"{name}", re.I) is not None
    return known and re.fullmatch(A_NUMBER, f"{value}") is None


def _looks_secret(value: Any) -> bool:
    """Whether a value looks like a token, whatever it is called."""
    if not isinstance(value, str):
        return False
    return re.fullmatch(A_TOKEN, value, re.I) is not None or (
        len(value) >= LEAST_TOKEN and bool(_forms(value))
    )


def of_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, with the values of options as `of_option` has them.

    >>> of_words(["run", "--password", "p w", "--password=p w", "--lr", "1"])
    ['run', '--password', '...', '--password=...', '--lr', '1']
    """
    shown, before, given = list[str](), "", False
    for word in words:
        before = "" if given and word.startswith("-") else before  # an option may take several
        name, equals, value = word.partition("=")
        own = equals and (A_USER.fullmatch(name) or _is_secret(name, value))
        own = own and not _is_secret(before, word)
        shown.append(f"{name}={of_option(name, value)}" if own else of_option(before, word))
        given = shown[-1] == "..."
        before = before if given else word
    return shown


def recordable(text: str) -> str:
    """Return text that may be kept: without secrets, and what UTF-8 has no way for written out.

    >>> recordable("caf\\udce9 https://ada:pw@host")
    'caf\\\\udce9 https://host'
    """
    return without_secrets(text).encode("utf-8", "backslashreplace").decode()


def _without_user(found: re.Match[str]) -> str:
    """Return an address of a text without user."""
    return found[1] + found[2][_end_of_user(found[1], found[2]) :]


def _signed_word(word: str) -> str:
    """Return a word without who signs in, where it is an address or lacks the beginning of one."""
    if WHOLE.search(word):
        return WHOLE.sub(_noted_user, word)
    return SIGNED_WORD.sub(_noted_key, word)


def _noted_user(found: re.Match[str]) -> str:
    """Return an address that is a word without user, and note the password."""
    head, rest = found.groups()
    end = _end_of_user(head, rest, whole=True)
    user, colon, password = rest[: max(end - 1, 0)].partition(":")
    if colon or len(user) >= LEAST_TOKEN:
        _secrets.update(_forms(password if colon else user))
    return head + rest[end:]


def _without_typed(found: re.Match[str]) -> str:
    """Return an option with its value left out, if that is no word of a sentence."""
    told = "=" in found[1] or _forms(found[3])
    return f"{found[1]}..." if told and _is_secret(found[2], found[3]) else found[0]


def _said(what: Callable[[re.Match[str]], str], text: str) -> str:
    """Return a text with something else for each name of a secret and its value."""
    if NAMED.search(text) is None:
        return text
    return functools.reduce(lambda left, form: form.sub(what, left), SAID, text)


def _without_key(found: re.Match[str]) -> str:
    return f"{found[1]}..."


def _noted_key(found: re.Match[str]) -> str:
    _secrets.update(_forms(found[2]))
    return f"{found[1]}..."


def _end_of_user(head: str, rest: str, whole: bool = False) -> int:
    """Return where the host of an address begins: after the last @ before its path.

    A password may have a slash, unescaped: databases take it so; of a server, whose address it
    makes wrong, it is known by what follows the colon and is no port. Of a word, by any @: a server
    with one in its path is refused.
    """
    scheme, slashes = re.split(COLON, head, maxsplit=1)
    before_path = re.split("[/?#]", rest, maxsplit=1)[0]
    end = before_path.rfind("@")
    port = before_path.rpartition(":")[2]
    signed = ":" in before_path and (whole or (end < 0 and not port.rstrip("]").isdigit()))
    if not scheme.lower().startswith("http"):
        signed = bool(before_path)
        if len(slashes) > len("//"):  # no machine: a path, or one slash too many
            path = scheme.lower().split("+")[0] in PATHS
            return 0 if path or ":" not in before_path else rest.rfind("@") + 1
    return max(end, rest.rfind("@") if signed else end) + 1


def _forms(secret: str | None) -> set[str]:
    """Return how a secret may stand in a text; nothing for a word that may stand there anyway."""
    forms = {secret or "", unquote(secret or "")}
    forms = {
        form
        for form in forms
        if len(form) >= LEAST_SECRET and re.search(r"\d", form) and re.search(r"[^\W\d]", form)
    }
    return forms | {way(form)[1:-1] for form in forms for way in (repr, json.dumps)}
