"""Secrets in lines of a program, which a diff keeps: more is left out of them than of a text."""

from __future__ import annotations

import re

from sgdstudy.secrecy import A_TOKEN, OF_OTHERS, without_secrets

NAME = (  # "passw" of "passwordForDb": whatever it is a part of
    rf"passw|passphrase|mot.?de.?passe|{OF_OTHERS}|pwd|secret|credential"
    r"|(?:access|auth|api|account)_?(?:token|key)"
)
PERHAPS = (  # "Auth" of "HTTPBasicAuth", "PASS" of "DBPASS": the value tells
    r"token(?!i)|auth(?!or(?!iz))|cookie|bearer|log_?in|mysql|sshpass|jwt"
    r"|(?<![^\W_])(?:pass|pw|mdp)(?![^\W_])"
    r"|(?-i:(?<=[A-Z])PASS(?![A-Z])|(?<=[a-z])Pass(?![a-z]))"
)
LITERAL = (  # "f'a'", cut or not; of "x['a']" the bracket too
    r"(?P<of>[\w)\]]\[)?(?<!\w)[bruf]{0,2}(?P<quote>'''|\"\"\"|['\"])"
    r"(?P<inside>(?:(?!(?P=quote))[^\\]|\\.){0,2000}+)(?P=quote)?"
)
OPENS = r".*[(\[{]\s*(?:#.*)?$"  # "tokens = {", whose values are on the next lines
SHORT = 4  # characters that no secret is shorter than

_name, _perhaps, _literal, _token = (
    re.compile(form, re.I) for form in (NAME, PERHAPS, LITERAL, f"(?:-p)?(?:{A_TOKEN})")
)


def of_code(text: str) -> str:
    """Return lines of a program, or a diff of them, without secrets.

    What a name has to do with a value a reader sees, a pattern does not: so where a name in a line
    has the word of a secret as a part, every text in quotes is left out of it, but what speaks of
    the secret itself.

    >>> print(of_code("+user, dbPassword = 'ada1', SecretStr('hunter')"))
    +user, dbPassword = ..., SecretStr(...)
    """
    lines, within = list[str](), -1  # how far the line is set in whose brackets are open
    for line in without_secrets(text).split("\n"):
        code = line[1:] if line[:1] in ("+", "-", " ") else line
        far = len(code) - len(code.lstrip())
        within = within if far > within or not code.strip() else -1
        sure = _name.search(line) is not None
        if sure or within >= 0:
            line = _literal.sub(_without_text, line)
        elif _perhaps.search(line):
            line = _literal.sub(_without_token, line)
        lines.append(line)
        if sure and within < 0 and re.match(OPENS, code):
            within = far
    return "\n".join(lines)


def _without_text(found: re.Match[str]) -> str:
    """Return a text of a program left out, but what names a secret, or is too short for one."""
    inside = found["inside"]
    speaks = _name.search(inside) and not re.fullmatch(r"\S*\d\S*", inside)
    return found[0] if found["of"] or speaks or len(inside) < SHORT else "..."


def _without_token(found: re.Match[str]) -> str:
    return "..." if not found["of"] and _token.fullmatch(found["inside"]) else found[0]
