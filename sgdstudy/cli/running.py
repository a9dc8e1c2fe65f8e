"""Running a study from the command line: its options, and what is printed of what it found."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from sgdstudy import checks
from sgdstudy.cli.parsing import parse
from sgdstudy.cli.terminal import bold, print_claims, say, show, show_paragraphs
from sgdstudy.errors import InputError, failed
from sgdstudy.language import say as in_words
from sgdstudy.studies.outcome import Result
from sgdstudy.studies.output import called
from sgdstudy.studies.study import Study


def parse_options(study: Study, words: list[str]) -> Any:
    """Return a study's options, from the words of its command line.

    Its help tells the hypothesis where `--answer` is among them, as a class is to find it out.

    Raises:
        InputError: words that are none, or that the script does not take.
    """
    about, told = study.about(told=True), "--answer" in words
    if about != study.about(told):
        more = in_words("The hypothesis is told by --help --answer.")
        about = f"{study.about(told)}\n\n{more}"
    file, here = Path(study.file).resolve(), Path.cwd()
    command = f"python {file.relative_to(here) if file.is_relative_to(here) else file}"
    read = functools.partial(parse, study.options, words, command, about)
    try:
        return read() if {"-h", "--help"} & {*words} else called(read)
    except InputError:
        raise
    except Exception as error:  # of a `__post_init__`
        raise failed(f"the options of {study.name}", error, study.file) from error


def run_script(study: Study, options: Any) -> int:
    """Run a study and print what it found; return the exit code."""
    result = run_and_print(study, options)
    failed = (result.failed or result.missing) and options.strict
    return 1 if result.refused or failed else 0


def run_and_print(study: Study, options: Any) -> Result:
    """Run a study, print what it found, and return it."""
    show("\n", bold(study.name), f"  {study.question}")
    result = study.run(options, say=say)
    if result.shown:
        say(result.shown)
    show_paragraphs(result.answer)
    if result.claims:
        print_claims([result])
    say(in_words("charts, once `sgdstudy ui` runs: {url}", url=result.url))
    for line in result.refused:
        say(in_words("refused by the store, and set aside: {line}", line=line))
    return result


def processes(jobs: int) -> int:
    """Return how many processes work side by side."""
    from sgdstudy.studies.workers import default_jobs

    return checks.count("jobs", jobs, least=0) or default_jobs()
