"""One HTML file of what is in the store: every study's question, answer, claims, figures, arms."""

from __future__ import annotations

import logging
import secrets
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from sgdstudy.errors import InputError, unwritable
from sgdstudy.figures import interactive
from sgdstudy.language import say, to_say
from sgdstudy.report.markup import rendered
from sgdstudy.report.sections import parts_of_tally, sections_of, tallied, unanswered
from sgdstudy.tracking.outputs import replacing, require_free
from sgdstudy.tracking.runs import require_none_deleted
from sgdstudy.tracking.store import Store

log = logging.getLogger("sgdstudy")
ROWS_OPEN = 12  # a longer table starts folded
ENDINGS = (".html", ".htm")
PAGE = (b"<!doctype html", b"<html")  # how one begins


def write_report(store: Store, path: Path) -> Path:
    """Write what is in a store as one HTML file that needs no network; return its path.

    It shows the latest invocation of every study that has an answer: exercises first.

    Args:
        store: see `store.open_store`.
        path: the file to write.

    Raises:
        InputError: no study has run yet, or the file cannot be written, or is another one.
    """
    _require_page(store, path)
    html = page(store, store.server if store.root is None else None)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            draft.write_text(html, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise unwritable(f"the report {path}", error) from error
    return path


def page(store: Store, server: str | None = None) -> str:
    """Return what is in a store as one page of HTML that needs no network.

    Args:
        store: see `store.open_store`.
        server: address of MLflow's, for links; "" the one that serves the page; None: no links.

    Raises:
        InputError: no study has run yet, or none can be shown.
    """
    sections, damaged = sections_of(store, server)
    for line in damaged:
        log.warning("%s", line)
    if not sections and damaged:
        raise InputError(f"no study of {store.shown} can be shown: {damaged[0]}")
    if not sections and (names := unanswered(store)):
        text = to_say(
            "{store} has runs of {names}, but no answer of a study, which is what a report shows: "
            "ss.load_runs(name) and sgdstudy ui show runs; sgdstudy study makes answers"
        )
        raise InputError(say(text, store=store.shown, names=", ".join(names)))
    if not sections:
        require_none_deleted(store)
        raise InputError(f"no study has run in {store.shown} yet: run sgdstudy study, then report")
    return rendered(
        "report.html",
        sections=sections,
        damaged=damaged,
        tally=parts_of_tally([row for section in sections for row in section.claims]),
        failing=[(section, row) for section in sections for row in section.only(False)],
        now=datetime.now(UTC),
        version=version("sgdstudy"),
        rows_open=ROWS_OPEN,
        tallied=tallied,
        zip=zip,
        nonce=secrets.token_urlsafe(16),
        plotly=interactive.packed() if any(p.live for s in sections for p in s.pictures) else "",
        script=interactive.script(),
        server=server,
    )


def _require_page(store: Store, path: Path) -> None:
    """Refuse to write over a file that is not a page: the database, or somebody's script."""
    if store.root is not None and store.root in path.absolute().parents and path.is_symlink():
        raise InputError(f"{path} is a symbolic link, which is not followed in a store; remove it")
    require_free(path, "a page", ENDINGS, lambda first: first.lstrip().lower().startswith(PAGE))
