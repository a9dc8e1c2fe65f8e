"""The command line: words in, one of `commands` run, an exit code and one-line errors out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sgdstudy.cli.commands import COMMANDS, OLD_WORDS, RunCommand, parse_options, run_script
from sgdstudy.cli.parsing import parse
from sgdstudy.errors import InputError, Interrupted, StoreError, unknown
from sgdstudy.studies.study import Study


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `sgdstudy`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with _one_line_errors():
        if not words or words[0] in ("-h", "--help"):
            print(_usage())
            return
        name, rest = OLD_WORDS.get(words[0], words[0]), words[1:]
        if name not in COMMANDS:
            raise unknown("command", name, COMMANDS)
        kind = COMMANDS[name]
        if kind is RunCommand:
            # a word is a study until the first option; what follows belongs to the study
            cut = next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))
            own, theirs = rest[:cut], rest[cut:]
            if not own and theirs[:1] in (["-h"], ["--help"]):
                own, theirs = theirs, []
            code = parse(kind, own, "sgdstudy run").run(theirs)
        else:
            code = parse(kind, rest, f"sgdstudy {name}").run()
    sys.exit(code)


def script_main(study: Study) -> None:
    """Entry point of a script in `experiments/`."""
    with _one_line_errors():
        code = run_script(study, parse_options(study, sys.argv[1:]))
    sys.exit(code)


def _usage() -> str:
    lines = [f"  {name:<8} {kind.__doc__}" for name, kind in COMMANDS.items()]
    return (
        "usage: sgdstudy COMMAND [OPTIONS]     (sgdstudy COMMAND --help for its options)\n\n"
        + "\n".join(lines)
    )


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn a user's mistake into one line and exit code 2."""
    stop: Callable[[int], Any] = sys.exit
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our lines has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        stop(1)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        stop(2)
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        stop(1)
    except Interrupted as error:
        print(f"interrupted: {error}", file=sys.stderr)
        stop(130)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        stop(130)
