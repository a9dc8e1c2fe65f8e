"""Text on its way into a page: paragraphs, names, commands without folders of this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

KEPT = ("--no-answer", "--predict")  # options of `sgdstudy study` that `sgdstudy run` takes too


def markdown(text: str, figures: Mapping[str, str] | None = None) -> list[Markup]:
    """Return the paragraphs of a text as safe HTML: `**bold**`, code, names of figures as links.

    >>> markdown("**yes** <b>\\n\\nsee a.png", {"a.png": "fig"})
    [Markup('<strong>yes</strong> &lt;b&gt;'), Markup('see <a href="#fig">a.png</a>')]
    """
    names = "|".join(re.escape(name) for name in sorted(figures or (), key=len, reverse=True))
    pattern = re.compile(
        r"`(?P<code>[^`]+)`|(?<!\w)\*\*(?=\S)(?P<bold>.+?)(?<=\S)\*\*(?!\w)"
        + (rf"|(?<![\w./])(?P<figure>{names})(?!\w)" if names else "(?P<figure>(?!))"),
        re.DOTALL,
    )
    parts = [part.strip() for part in re.split(r"\n\s*\n", text)]
    return [_inline(part, pattern, figures or {}) for part in parts if part]


def _inline(text: str, pattern: re.Pattern[str], figures: Mapping[str, str]) -> Markup:
    from markupsafe import Markup, escape

    done, end = Markup(), 0
    for match in pattern.finditer(text):
        done += escape(text[end : match.start()])
        if match["code"]:
            done += Markup("<code>{}</code>").format(match["code"])
        elif match["bold"]:
            inner = _inline(match["bold"], pattern, figures)
            done += Markup("<strong>{}</strong>").format(inner)
        else:
            link = Markup('<a href="#{}">{}</a>')
            done += link.format(figures[match["figure"]], match["figure"])
        end = match.end()
    return done + escape(text[end:])


def portable(command: str, study: str) -> tuple[str, bool]:
    """Return how to run a study again anywhere, and whether its options are in the command.

    The store and other folders of this machine are left out.

    >>> portable("ex6_shuffle.py --seeds 64 --store /tmp/x", "ex6_shuffle")
    ('python experiments/ex6_shuffle.py --seeds 64', True)
    >>> portable("sgdstudy run ex4_minibatch ex6_shuffle --seeds 4", "ex6_shuffle")
    ('sgdstudy run ex6_shuffle --seeds 4', True)
    >>> portable("sgdstudy study --jobs 2 --no-answer", "ex6_shuffle")
    ('sgdstudy run ex6_shuffle --no-answer', True)
    >>> portable("ipykernel_launcher.py -f /home/me/kernel.json", "ex6_shuffle")
    ('sgdstudy run ex6_shuffle', False)
    """
    first, *words = command.split() or [""]
    program = re.sub(r"(-script)?(\.exe|\.pyw?)?$", "", first)
    if program == study:
        return " ".join([f"python experiments/{study}.py", *_options(words)]), True
    if program == "sgdstudy" and words[:1] == ["study"]:
        return " ".join([f"sgdstudy run {study}", *(w for w in words if w in KEPT)]), True
    if program == "sgdstudy" and words[:1] == ["run"]:
        cut = next((i for i, w in enumerate(words) if w.startswith("-")), len(words))
        return " ".join([f"sgdstudy run {study}", *_options(words[cut:])]), True
    return f"sgdstudy run {study}", False


def _options(words: Sequence[str]) -> list[str]:
    """Return the options without store and jobs, other absolute paths as bare file names."""
    kept: list[str] = []
    option = ""
    for word in words:
        if word.startswith("--"):
            option = word.partition("=")[0]
        if option in ("--store", "--jobs"):
            continue
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        value = PureWindowsPath(value).name if _is_absolute(value) else value
        kept.append(f"{name}{equals}{value}")
    return kept


def _is_absolute(text: str) -> bool:
    return text.startswith(("/", "~", "\\")) or bool(re.match(r"[A-Za-z]:[\\/]|file:", text))


def breakable(name: str) -> Markup:
    """Let a long name break after an underscore, without a change to what is copied."""
    from markupsafe import Markup, escape

    return escape(name).replace("_", Markup("_<wbr>"))


def slug(name: str) -> str:
    """Return a name that an address can hold."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)
