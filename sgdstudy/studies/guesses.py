"""What a reader expects: asked by `--predict` before anything runs, and kept beside the claims."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from sgdstudy.errors import InputError
from sgdstudy.language import everywhere, to_say, translated
from sgdstudy.language import say as in_words
from sgdstudy.studies.arm import Options
from sgdstudy.studies.claims import Claim, Claims
from sgdstudy.studies.study import Study

Guesses = Mapping[tuple[str, str], float]  # by claim and arm; infinite: never


def asked(study: Study, options: Options) -> Guesses:
    """Ask the reader what they expect; those that they pass are left out.

    Raises:
        InputError: the answer is to be hidden, or there is nobody to ask.
    """
    if not options.predict:
        return {}
    if not options.answer:
        raise InputError(
            in_words("--predict compares with the claims that --no-answer hides: drop one")
        )
    guesses = ((key, _ask(translated(question))) for key, question in study.ask.items())
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
            never = text in everywhere("never")
            guess = math.inf if never else float(text.replace(",", ".") or "nan")
        except ValueError:
            print(in_words("{text} is not a number", text=repr(text)))
            continue
        return None if math.isnan(guess) else guess
