"""What a reader expects: asked by `--predict` before anything runs, and kept beside the claims."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from sgdstudy.errors import InputError, quoted
from sgdstudy.language import MINUS, catalogue, everywhere, language, to_say
from sgdstudy.language import say as in_words
from sgdstudy.studies.arm import Options
from sgdstudy.studies.claims import Claim, Claims
from sgdstudy.studies.study import Study

Guesses = Mapping[tuple[str, str], float]  # by claim and arm; infinite: never
# any kind of space between groups of three digits
THOUSANDS = re.compile(r"(?<=\d)\s(?=\d{3}(?!\d))")
GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")


def asked(study: Study, options: Options, arms: Collection[str]) -> Guesses:
    """Ask the reader what they expect; those that they pass are left out.

    Args:
        arms: that the run has; of others nothing is asked.

    Raises:
        InputError: the answer is to be hidden, or there is nobody to ask.
    """
    if not options.predict:
        return {}
    if not options.answer:
        raise InputError(
            in_words("--predict compares with the claims that --no-answer hides: drop one")
        )
    questions = study.questions(options, arms)
    guesses = ((key, _ask(question)) for key, question in questions.items())
    return {key: guess for key, guess in guesses if guess is not None}


def beside(claims: Iterable[Claim], guesses: Guesses) -> Claims:
    """Return the claims with the guesses; one that no claim is about stands for itself."""
    found = [replace(claim, guess=guesses.get((claim.name, claim.arm))) for claim in claims]
    about = {(claim.name, claim.arm) for claim in found}
    alone = [Claim(*key, None, guess=guess) for key, guess in guesses.items() if key not in about]
    return Claims([*found, *alone])


def _ask(question: str) -> float | None:
    """Return the reader's guess; None when they pass."""
    while True:
        try:
            prompt = in_words("{question} (a number, never, or Enter to pass):", question=question)
            text = input(f"{prompt} ").strip().lower()
        except EOFError as error:
            print()
            text = to_say("--predict asks questions: run it in a terminal")
            raise InputError(in_words(text)) from error
        try:
            guess = math.inf if text in everywhere("never") else _number(text or "nan")
        except ValueError:
            print(in_words("{text} is not a number", text=quoted(text)))
            continue
        return None if math.isnan(guess) else guess


def _number(text: str) -> float:
    """Return the number that a person wrote, thousands parted or not.

    A comma is the decimal sign, unless it parts thousands: of an English reader, beside a point,
    or one of several.

    Raises:
        ValueError: it is none.

    >>> [_number(text) for text in ("10 000", "1,000", "0,47", "1,000.5", "−2", "1e-3")]
    [10000.0, 1000.0, 0.47, 1000.5, -2.0, 0.001]
    """
    text = THOUSANDS.sub("", text.replace(MINUS, "-"))
    english = catalogue(language()).decimal == "."
    if GROUPED.fullmatch(text) and (english or "." in text or text.count(",") > 1):
        text = text.replace(",", "")
    return float(text.replace(",", "."))
