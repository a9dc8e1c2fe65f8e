"""The command line: words in, one of `commands` run, an exit code and one-line errors out."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sgdstudy import __version__
from sgdstudy.cli.commands import COMMANDS, OLD_WORDS, RunCommand, SweepCommand
from sgdstudy.cli.parsing import about, given_twice, parse
from sgdstudy.cli.running import parse_options, run_script
from sgdstudy.cli.terminal import PlainWarnings
from sgdstudy.errors import InputError, Interrupted, StoreError, message, one_line, quoted, shortage
from sgdstudy.language import languages, say, speaking, to_say, unknown
from sgdstudy.secrecy import of_words
from sgdstudy.studies import output
from sgdstudy.studies.scripts import find_scripts
from sgdstudy.studies.study import Study
from sgdstudy.studies.workers import collect_seldom

HELP = ("-h", "--help")
VERSION = ("-V", "--version", "version")
# full, over its quota, broken, read-only, or not ours
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)
# a path that leads nowhere, a network's file system that is gone
SYSTEM = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `sgdstudy`."""
    if arguments is None:  # the program, not a call from somebody else's
        collect_seldom()
    words, lang = _split(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["help"]:  # of all, or of a command: `help run`
        words = [*(word for word in words[1:] if word != "help"), HELP[1]]
    helps = not words or words[0] in HELP
    code = _guarded(lambda: print(_usage()) if helps else _run(words), lang)
    if code or not helps:
        sys.exit(code)


def script_main(study: Study) -> None:
    """Entry point of a script in `experiments/`."""
    collect_seldom()
    words, lang = _split(sys.argv[1:])
    sys.exit(_guarded(lambda: run_script(study, parse_options(study, words)), lang))


def _split(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return words without `--lang fr`, which all commands and scripts take, and its values."""
    of_words(given)  # no text shows a password among them from then on
    words, left, lang = iter(given), [], []
    for word in words:
        if word == "--lang":
            lang.append(next(words, ""))
        elif word.startswith("--lang="):
            lang.append(word.partition("=")[2])
        else:
            left.append(word)
    return left, lang


def _run(words: list[str]) -> int:
    name, rest = OLD_WORDS.get(words[0], words[0]), words[1:]
    if name in VERSION:
        print(__version__)
        return 0
    if name not in COMMANDS:
        raise _no_command(name)
    _require_folder()
    kind, theirs = COMMANDS[name], []
    if kind is RunCommand:
        # a word is a study until the first option; what follows belongs to the study
        cut = next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))
        if cut or rest[:1] not in ([HELP[0]], [HELP[1]]):
            rest, theirs = rest[:cut], rest[cut:]
    settings = "--grid" if kind is SweepCommand else ""
    command = parse(kind, rest, f"sgdstudy {name}", say(about(kind)), settings)
    code: int = command.run(theirs) if kind is RunCommand else command.run()
    return code


def _usage() -> str:
    head = say("usage: sgdstudy COMMAND [OPTIONS] (sgdstudy COMMAND --help for its options)")
    lines = [f"  {name:<8} {say(about(kind))}" for name, kind in COMMANDS.items()]
    foot = say("All take --lang: the language, {names}.", names=" | ".join(languages()))
    return "\n".join([head, "", *lines, "", foot])


def _no_command(name: str) -> InputError:
    """Build the error for a word that is no command; it may be a study."""
    study = Path(name).stem
    if study and study in find_scripts():
        text = to_say("unknown command {given}; did you mean sgdstudy run {study}?")
        return InputError(say(text, given=quoted(name), study=study))
    return unknown(to_say("command"), name, COMMANDS)


def _require_folder() -> None:
    """Refuse a current folder that was deleted: nothing below it is found, whatever is asked.

    Raises:
        InputError: there is none.
    """
    try:
        os.getcwd()
    except OSError:
        text = to_say("the current folder is gone; change to one that is there")
        raise InputError(say(text)) from None


def _guarded(action: Callable[[], int | None], lang: Sequence[str] = ()) -> int:
    """Do something and return the exit code; a user's mistake is one line, and exit code 2."""
    if sys.stdout is sys.__stdout__:  # a program of its own, no test and no notebook
        output.harden()
        output.keep_warnings_ours()
        logging.getLogger("sgdstudy").addHandler(PlainWarnings())
    with output.guarded():
        try:
            code = _exit_code(action, lang)
        finally:
            output.reopen()
            why = output.lost()
        if why:
            text = f"error: what was to be printed is lost ({why}); what ran is kept"
            print(one_line(text), file=sys.stderr)
    return code or int(bool(why) or output.is_cut())


def _exit_code(action: Callable[[], int | None], lang: Sequence[str]) -> int:
    try:
        if len(lang) > 1:
            raise given_twice("--lang")
        with speaking(lang[0] if lang else None):
            return _code_in_language(action)
    except InputError as error:  # a language that we do not have
        print(one_line(f"error: {error}"), file=sys.stderr)
        return 2


def _code_in_language(action: Callable[[], int | None]) -> int:
    try:
        return action() or 0
    except SystemExit as end:  # --help, of a command
        return int(end.code or 0)
    except InputError as error:
        code, text = 2, say("error: {what}", what=message(error) or say("no message"))
    except StoreError as error:
        code, text = 1, say("error: {what}", what=message(error) or say("no message"))
    # wherever it was: a traceback would tell no more
    except (OSError, MemoryError, RuntimeError) as error:
        number, name = getattr(error, "errno", None), getattr(error, "filename", None)
        held = isinstance(error, TimeoutError) and number is None  # a database, by another program
        if not (held or shortage(error)) and number not in (*DISK, *SYSTEM):
            raise
        why = shortage(error) or getattr(error, "strerror", None) or ""
        why += f" ({name})" if name else ""
        if held:
            what = message(error) or say("no message")
        elif number in DISK:
            what = say("the disk refuses: {why}; what was recorded is kept", why=why)
        else:
            what = say("the system refuses: {why}; what was recorded is kept", why=why)
        code, text = 1, say("error: {what}", what=what)
    except Interrupted as error:
        code, text = 130, say("interrupted: {what}", what=message(error) or say("no message"))
    except KeyboardInterrupt:
        code, text = 130, say("interrupted")
    output.reopen()
    print(one_line(text), file=sys.stderr)
    return code
