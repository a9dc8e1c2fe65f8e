"""Claims: what was expected, what was measured, and whether it holds.

Three kinds. A *prediction* is a number that theory or the notebook gave before the run, with a
tolerance from a standard error or a rounding: it can fail. An *identity* follows from definitions,
whatever the run does: it checks the recording, and is not counted with the predictions. A
*description* expects nothing.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass, replace
from typing import Any, ClassVar, Literal

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted
from sgdstudy.known import Known
from sgdstudy.language import everywhere, parted, say, to_say
from sgdstudy.text import as_python, written

Kind = Literal["prediction", "identity", "description"]
PLURAL: dict[Kind, str] = {
    "prediction": "predictions",
    "identity": "identities",
    "description": "descriptions",
}
TABLE_HEAD: dict[Kind, str] = {
    "prediction": to_say("**Predictions**: known before the run; these can fail."),
    "identity": to_say("**Identities**: they follow from definitions, and check the recording."),
    "description": to_say("**Described**: nothing was expected."),
}


@dataclass(frozen=True)
class Claim:
    """One sentence that a run can refute.

    Attributes:
        name: short name, as `stop_epoch`.
        arm: the arm it is about.
        measured: a number, a truth value or a list of numbers.
        expected: the same kind, from theory or the notebook's printed output; None describes only.
            A `Known` brings its tolerance and source along, and holds whatever the options; one
            that is too vague to fail, see `Known.is_vague`, describes only.
        tolerance: the largest |measured - expected| allowed; 0 for equality. Or say `abs`, or
            `rel` times |expected|, as of `pytest.approx`; of both the larger.
        source: where `expected` comes from.
        always: `expected` holds whatever the options, as it is computed from them; else a claim
            only describes once options of the script other than `quick` are changed.
        guess: what the reader guessed before the run, shown beside; None: not asked.
        identity: `expected` follows from definitions, whatever the run does, and so holds always.

    Raises:
        InputError: a name that is no text in one line, a value that is neither number nor text, a
            tolerance that is negative.
    """

    FEW: ClassVar[int] = 8  # seeds, below which an error is not estimated from them

    name: str
    arm: str
    measured: Any
    expected: Any = None
    tolerance: float = 0.0
    source: str = ""
    always: bool = False
    guess: float | None = None
    identity: bool = False
    abs: InitVar[float | None] = None
    rel: InitVar[float | None] = None

    def __post_init__(self, abs: float | None, rel: float | None) -> None:
        known = self.expected
        self._take_known()
        for part in ("measured", "expected", "tolerance"):
            _check_value(f"{part} of the claim {self.name!r}", as_python(getattr(self, part)))
        if abs is not None or rel is not None:
            self._settle("tolerance", _tolerance(self.name, self.expected, abs, rel))
        if isinstance(known, Known) and replace(known, within=self.tolerance).is_vague:
            self._settle("expected", None)
        for part in ("name", "arm"):
            checks.name(f"a claim's {part}", getattr(self, part))
        tolerance = as_python(self.tolerance)
        if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or tolerance < 0:
            raise InputError(
                f"tolerance of the claim {self.name!r} is a number, at least 0, "
                f"not {quoted(self.tolerance)}"
            )

    def _take_known(self) -> None:
        """Take value, tolerance and source of an expectation that has them."""
        known = self.expected
        if isinstance(known, Known):
            self._settle("expected", known.value)
            self._settle("tolerance", max(known.within, self.tolerance))
            self._settle("source", self.source or known.source)
            self._settle("always", True)

    def _settle(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def estimated(
        cls,
        name: str,
        arm: str,
        measured: float,
        expected: float | Known,
        error: float,
        seeds: int,
        source: str = "",
    ) -> Claim:
        """Return a prediction whose tolerance is four standard errors, estimated from the seeds.

        An error estimated from few seeds is itself uncertain, so that Student's quantile takes the
        place of the 4: as rare, 6.3e-5 if the seeds scatter normally. Of fewer than 8 it would
        be too wide to fail: then it is a description, and so it is where half of the expected
        value is within it (`Known.is_vague`).

        Args:
            name, arm, measured, source: see `Claim`.
            expected: computed from the options used: the claim is judged under any.
            error: the standard error of `measured`.
            seeds: how many seeds `error` is estimated from.

        Example:
            >>> [round(Claim.estimated("x", "a", 1, 0, 1.0, n).tolerance, 2) for n in (8, 64)]
            [8.47, 4.29]
            >>> [Claim.estimated("x", "a", 1, 17, 1.0, n).kind for n in (7, 8)]
            ['description', 'prediction']
            >>> Claim.estimated("x", "a", 1, 16, 1.0, 8).kind
            'description'
        """
        if seeds < cls.FEW:
            return cls(name, arm, measured)
        from scipy.stats import norm, t  # --help must not wait for it

        tolerance = float(t.isf(norm.sf(4), seeds - 1)) * float(error)
        due = expected if isinstance(expected, Known) else Known(expected)
        within = max(due.within, tolerance)
        return cls(name, arm, measured, Known(due.value, within, source or due.source))

    @classmethod
    def off(cls, name: str, arm: str, off: tuple[float, Known]) -> Claim:
        """Return the claim of an identity: how far off records are, and what rounding may make.

        Where no record was looked at it is a description.

        Args:
            name, arm: see `Claim`.
            off: as `runs.off` and `History.off` return it.

        Example:
            >>> claim = Claim.off("sum", "all arms", (1e-12, Known(0.0, 1e-9, "definition")))
            >>> claim.kind, claim.holds
            ('identity', True)
        """
        if math.isnan(off[0]):
            return cls(name, arm, off[0])
        return cls(name, arm, *off, identity=True)

    @property
    def kind(self) -> Kind:
        """What the claim is: a prediction, an identity, or a description."""
        if self.expected is None:
            return "description"
        return "identity" if self.identity else "prediction"

    @property
    def holds(self) -> bool | None:
        """Whether measured is within the tolerance of expected; None where nothing is expected."""
        if self.expected is None:
            return None
        return _close(as_python(self.measured), as_python(self.expected), self.tolerance)

    def described(self) -> Claim:
        """Return the claim without its expectation: a description."""
        return replace(self, expected=None)

    def as_json(self) -> dict[str, Any]:
        """Return the claim as in `claims.json`; non-finite values are strings."""
        return {
            "name": self.name,
            "arm": self.arm,
            "expected": _text(as_python(self.expected)),
            "measured": _text(as_python(self.measured)),
            "tolerance": _text(as_python(self.tolerance)),
            "holds": self.holds,
            "source": self.source,
            "kind": self.kind,
            "guess": _text(self.guess),
        }


def tally(verdicts: Iterable[tuple[Kind, bool | None]]) -> str:
    """Say how many claims of each kind hold and fail, by (kind, holds).

    >>> tally([("prediction", True), ("prediction", False), ("identity", True)])
    '1 of 2 predictions holds, 1 FAILS; 1 identity holds'
    >>> tally([("prediction", True)] * 3 + [("description", None)])
    '3 predictions hold; 1 described'
    """
    counts = Counter(verdicts)
    words = []
    for kind in ("prediction", "identity"):
        held, failed = counts[kind, True], counts[kind, False]
        words += [_counted(kind, held, failed)] if held or failed else []
    told = counts["description", None]
    words += [say("{n} described", "{n} described", n=told)] if told else []
    if not words:
        return say("no claims")
    return parted(words)


def _counted(kind: Kind, held: int, failed: int) -> str:
    n, both = {"n": held}, {"n": held, "total": held + failed}
    if kind == "prediction":
        all_of_them = say("{n} prediction holds", "{n} predictions hold", **n)
        part = say("{n} of {total} predictions holds", "{n} of {total} predictions hold", **both)
    else:
        all_of_them = say("{n} identity holds", "{n} identities hold", **n)
        part = say("{n} of {total} identities holds", "{n} of {total} identities hold", **both)
    return f"{part}, {say('{n} FAILS', '{n} FAIL', n=failed)}" if failed else all_of_them


def _check_value(what: str, value: Any) -> None:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, list):
            _check_value(what, item)
        elif not (item is None or isinstance(item, (bool, int, float, str))):
            raise InputError(
                f"{what} is a number, a truth value, a text or a list of these, not {quoted(item)}"
            )
        elif isinstance(item, int) and abs(item) > sys.float_info.max:
            raise InputError(f"{what} is a number that float64 has room for, not {quoted(item)}")


def claims_markdown(claims: Sequence[Claim]) -> str:
    """Return the claims as Markdown tables, one a kind; guesses are in them if there are any."""
    parts = []
    for kind in PLURAL:
        rows = [claim for claim in claims if claim.kind == kind]
        if rows:
            parts.append(f"{say(TABLE_HEAD[kind])}\n\n{_markdown_table(rows, kind)}")
    return "\n\n".join(parts)


def without_tables(text: str) -> str:
    """Return an answer.md without the tables of `claims_markdown`, by any version of ours."""
    heads = [words for head in TABLE_HEAD.values() for words in everywhere(head)]
    for mark in (*heads, "| claim | arm |"):
        text = text.partition(mark)[0]
    return text.strip()


def _markdown_table(claims: Sequence[Claim], kind: Kind) -> str:
    verdict = {True: say("holds"), False: f"**{say('FAILS')}**", None: "–"}
    guessed, expects = any(c.guess is not None for c in claims), kind != "description"
    heads = [say("claim"), say("arm"), *[say("your guess")] * guessed]
    both = [say("expected"), say("measured"), say("tolerance"), say("verdict")]
    heads += both if expects else [say("measured")]
    rows = [heads, ["---"] * len(heads)]
    for c in claims:
        cells = [c.name, c.arm, *[written(c.guess)] * guessed]
        numbers = [written(c.expected), written(c.measured), written(c.tolerance), verdict[c.holds]]
        rows.append(cells + (numbers if expects else [written(c.measured)]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _tolerance(name: str, expected: Any, absolute: Any, relative: Any) -> float:
    """Return the larger of an absolute tolerance and a relative one.

    Raises:
        InputError: a relative one of what is no number.
    """
    allowed = "at least 0"
    own = 0.0 if absolute is None else checks.number("abs", absolute, lambda v: v >= 0, allowed)
    if relative is None:
        return own
    expected = as_python(expected)
    if isinstance(expected, (bool, str, list)):
        raise InputError(f"the claim {name!r} has rel=, but expects no number: {quoted(expected)}")
    share = checks.number("rel", relative, lambda v: v >= 0, allowed)
    return max(own, share * math.fabs(expected or 0))


def _close(measured: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(measured, Sequence) or len(measured) != len(expected):
            return False
        pairs = zip(measured, expected, strict=True)
        return all(_close(m, e, tolerance) for m, e in pairs)
    if isinstance(expected, (bool, str)) or measured == expected:
        return bool(measured == expected)
    if not isinstance(measured, (int, float)) or not isinstance(expected, (int, float)):
        return False
    return bool(math.fabs(measured - expected) <= tolerance)  # False for NaN


def _text(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value


class Claims(list[Claim]):
    """A study's claims; a name, or name and arm, finds what was measured.

    Example:
        >>> claims = Claims([Claim("rho", "a", 0.5), Claim("rho", "b", 0.25), Claim("n", "a", 3)])
        >>> claims["rho", "b"], claims["n"], claims[0].arm
        (0.25, 3, 'a')
    """

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, (str, tuple)):
            return super().__getitem__(key)
        name, arm = (key, None) if isinstance(key, str) else key
        found = [c for c in self if c.name == name and arm in (None, c.arm)]
        if len(found) != 1:
            raise InputError(f"{len(found)} claims are called {quoted(key)}, not one; name its arm")
        return found[0].measured
