"""Running a study: its arms trained and tracked, its claims judged, its answer logged."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sgdstudy.figures import palette
from sgdstudy.history.history import History
from sgdstudy.language import say as in_words
from sgdstudy.language import speaking, to_say, translated
from sgdstudy.secrecy import stripped, without_secrets
from sgdstudy.studies import guesses, helpers
from sgdstudy.studies.arm import Arm, Options, in_charts
from sgdstudy.studies.claims import PLURAL, Claim, Claims, claims_markdown
from sgdstudy.studies.extras import Extras
from sgdstudy.studies.outcome import Result, Runs
from sgdstudy.studies.study import HIDDEN, LAYERED, Study
from sgdstudy.studies.train_arms import train_arms
from sgdstudy.tracking import aside, chart_views, describe, recovery, shapes
from sgdstudy.tracking.entries import Closing
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.tracked_run import ANSWER, FIGURES, KIND, OF_FIGURES
from sgdstudy.tracking.writing import writing

NOTE_LENGTH = 5000  # what MLflow keeps of an experiment's description


def run(
    study: Study,
    options: Options | None = None,
    *,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """Run all arms of a study, judge its claims, and log everything; see `Study.run`."""
    chosen = None if options is None else options.lang
    with helpers.beside(study.file), speaking(chosen):
        return _begun(study, options, progress, say)


def _begun(
    study: Study, options: Options | None, progress: bool | None, say: Callable[[str], None]
) -> Result:
    started = time.perf_counter()
    options = study.chosen() if options is None else options
    declared = study.placed_arms(options)
    arms = in_charts(declared)
    told = guesses.asked(study, options, arms)
    store = recovery.start(options.store, say)
    say(in_words("tracking to {store}", store=store.shown))
    _say_charted(declared, arms, say)
    code = helpers.code_of(study.file)
    code = code if options.answer else code.by_hash()  # a copy of the script tells the answer
    invocation = replace(
        Invocation.start(store, study.name, study.tags(options), code),
        resume=options.resume,
        checkpoint_seconds=options.checkpoint_seconds,
    )
    with writing(store, study.name, invocation.id):
        return _run(study, options, arms, told, invocation, progress, say, started)


def _say_charted(
    declared: Mapping[str, Arm], arms: Mapping[str, Arm], say: Callable[[str], None]
) -> None:
    """Say which arms the charts show, where more are declared to be in them."""
    n, shown = sum(arm.charted for arm in declared.values()), [a for a in arms if arms[a].charted]
    if n > len(shown):
        text = to_say("of {n} charted arms MLflow's charts show the first: {names}")
        say(in_words(text, n=n, names=", ".join(shown)))


def _run(
    study: Study,
    options: Options,
    arms: Mapping[str, Arm],
    told: guesses.Guesses,
    invocation: Invocation,
    progress: bool | None,
    say: Callable[[str], None],
    started: float,
) -> Result:
    store = invocation.store
    found: dict[str, History] = {}
    run_ids: dict[str, str] = {}
    for name, run_id, history in train_arms(study, options, arms, invocation, progress):
        run_ids[name], found[name] = run_id, history
        say(f"  {name:<28} {_outcome(history, options.answer)}")
    runs = Runs({name: found[name] for name in arms})  # in the order of the script
    claims, short, full = Claims(), "", in_words(HIDDEN)
    if options.answer:
        claims = guesses.beside(_judged(study, options, runs), told)
        # addresses of the store, for instance
        short, full = map(without_secrets, study.answered(options, runs, claims))
    extras = Extras(study, options, runs, say)
    shown = extras.text()
    answer = "\n\n".join(filter(None, [short, full]))
    run_ids["answer"] = _log_answer(extras, invocation, claims, answer, bool(short))
    if any((store.streams / run_id).exists() for run_id in run_ids.values()):
        say(str(recovery.recover(store)))
    return Result(
        study=study.name,
        runs=runs,
        run_ids=run_ids,
        claims=claims,
        answer=answer,
        url=invocation.url(),
        seconds=time.perf_counter() - started,
        shown=shown,
        missing=tuple(extras.missing),
        refused=[str(one) for one in aside.listed(store) if one.invocation == invocation.id],
    )


def _outcome(history: History, told: bool) -> str:
    """Say in one line how an arm ended; or only that it did, where the class is to find out."""
    epochs = history.stop_epoch
    note = ""
    if history.engine_note:
        note = " " + in_words("(not compiled: {why})", why=translated(history.engine_note))
    if not told:
        return in_words("recorded in {time:.1f} s", time=history.train_seconds) + note
    low, high = int(epochs.min()), int(epochs.max())
    span = low if low == high else f"{low}-{high}"
    given = {
        "reason": describe.ended(describe.summary_of_reasons(history)),
        "span": span,
        "total": int(np.sum(history.n_steps)),
        "time": history.train_seconds,
    }
    if len(epochs) > 1:
        text = to_say("{n} seeds, {reason} at epoch {span}, {total} steps in {time:.1f} s")
    else:
        text = to_say("{reason} at epoch {span}, {total} steps in {time:.1f} s")
    return in_words(text, n=len(epochs), **given) + note


# ---- claims and answer -----------------------------------------------------------------------


def _judged(study: Study, options: Options, runs: Runs) -> list[Claim]:
    """Return the claims, without the expectations that the options given make void."""
    claims = study.claimed(options, runs)
    if options != study.defaults(options):
        return [c if c.always or c.identity else c.described() for c in claims]
    return claims


def _log_answer(
    extras: Extras, invocation: Invocation, claims: Claims, answer: str, short: bool
) -> str:
    """Log the `answer` run and the experiment's description; return the run's id.

    Under changed options it leaves a description alone that is there: that of the defaults.
    """
    study, options = extras.study, extras.options
    head = without_secrets(f"**{study.question}**\n\n{answer}")
    table = without_secrets(claims_markdown(claims))
    failed = {"sgdstudy.claims_failed": str([c.holds for c in claims].count(False))}
    listed = {chart_views.CHARTED: "yes", chart_views.COLOR: palette.GREY}  # it leads the list
    listing = json.dumps(stripped([c.as_json() for c in claims], whole=False), indent=1)
    texts = {
        name: text.encode(errors="backslashreplace")
        for name, text in {"claims.json": listing, "answer.md": f"{head}\n\n{table}"}.items()
    }
    sums = {shapes.SUM_OF + name: shapes.sum_of(text) for name, text in texts.items()}
    tags = (
        {KIND: ANSWER}
        | listed
        | sums
        | (failed if claims else {})
        | ({LAYERED: "yes"} if short else {})
    )
    with invocation.run(ANSWER, answer, tags, points=_counts(claims)) as journal:
        for name, text in texts.items():
            journal.add(name, functools.partial(Path.write_bytes, data=text))
        names = extras.picture(journal, claims) + extras.figures(journal) if options.answer else []
        extras.tables(journal)
        look = [
            in_words("Look first at **{name}**, of the run `answer`.", name=name) for name in names
        ]
        stands = not (study.changed(options) and options.answer)
        other = [] if stands else [_changed(study, options)]
        note = "\n\n".join([head, *other, *look[:1], table])
        if len(note) > NOTE_LENGTH:
            whole = note[: NOTE_LENGTH - 40].rpartition("\n")[0]  # no row of a table is cut
            note = whole + "\n\n" + in_words("…see answer.md")
        shown = invocation.id if chart_views.wanted(invocation.store) else None
        there = {path.name: shapes.sum_of_file(path) for path in journal.artifacts()}
        drawn = {FIGURES: ", ".join(names), "mlflow.note.content": note}
        drawn[shapes.SUM_OF + OF_FIGURES] = ", ".join(there[name] for name in names)
        if "picture.json" in there:
            drawn[shapes.SUM_OF + "picture.json"] = there["picture.json"]
        parts: dict[str, Any] = {"note": note, "stands": stands, "views": shown}
        titled = study.charts if options.answer else {key: key for key in study.charts.values()}
        journal.close(Closing("FINISHED", drawn, charts=titled, **parts))
    return journal.run_id or journal.folder.name


def _changed(study: Study, options: Options) -> str:
    """Say which options were not the script's own."""
    return in_words(
        "These are the results with other options than the script's own: {words}.",
        words=", ".join(
            f"{name} = {value}" for name, value in stripped(study.changed(options)).items()
        ),
    )


def _counts(claims: list[Claim]) -> list[tuple[str, int, float]]:
    """Return how many claims hold and fail, as metrics."""
    if not claims:
        return []
    verdicts = [claim.holds for claim in claims]
    counts = [("result/claims_hold", 0, float(verdicts.count(True)))]
    counts.append(("result/claims_fail", 0, float(verdicts.count(False))))
    for kind, plural in PLURAL.items():
        of_kind = [c.holds for c in claims if c.kind == kind]
        name = plural if kind == "description" else f"{plural}_hold"
        counts.append((f"result/{name}", 0, float(len(of_kind) - of_kind.count(False))))
    return counts
