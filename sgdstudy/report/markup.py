"""Text on its way into a page: paragraphs, names, commands without folders of this machine."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

from sgdstudy.language import language, say
from sgdstudy.text import printable
from sgdstudy.tracking import shapes

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

LONGEST = 5_000  # characters of a paragraph: the search takes a time that grows with its square
LEFT_OUT = (
    "store",
    "jobs",
    "resume",
    "checkpoint_seconds",
    "lang",
)  # options that change no result


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
    parts = [cut(part.strip(), LONGEST) for part in re.split(r"\n\s*\n", printable(text))]
    return [_inline(part, pattern, figures or {}) for part in parts if part]


def joined(parts: Iterable[Markup]) -> Markup:
    """Return safe HTML one after the other."""
    from markupsafe import Markup

    return Markup(" ").join(parts)


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


def command(tags: Mapping[str, str]) -> str:
    """Return the words that run a study, or a sweep, again, from the tags of its runs.

    The store is left out, and paths of this machine are bare file names, that of a script of one's
    own too. "" where an older version wrote too little down, or a tag is damaged.

    >>> tags = {"sgdstudy.script": "/experiments/ex6_shuffle.py", "sgdstudy.given": '{"seeds": 64}'}
    >>> command(tags)
    'sgdstudy run ex6_shuffle --seeds 64'
    >>> command(tags | {"sgdstudy.arm": "SGD", "sgdstudy.grid": '{"lr": [1e-4, 2e-4]}'})
    'sgdstudy sweep ex6_shuffle --arm SGD --grid lr=0.0001,0.0002 --seeds 64'
    """
    given = tags.get("sgdstudy.given", tags.get("sgdstudy.options", "{}"))
    try:
        grid = shapes.parsed(tags.get("sgdstudy.grid", "{}"), shapes.GRID, "the grid")
        values = shapes.parsed(given, shapes.OPTIONS, "the options")
    except shapes.Damaged:
        return ""
    swept = "sgdstudy.arm" in tags
    if "sgdstudy.script" not in tags or (swept and not grid):
        return ""
    script = PureWindowsPath(tags["sgdstudy.script"])
    name = script.stem if script.parent.name == "experiments" else script.name
    words = ["sgdstudy", "sweep" if swept else "run", name]
    if swept:
        axes = [f"{axis}={','.join(map(_grid_word, given))}" for axis, given in grid.items()]
        words += ["--arm", tags["sgdstudy.arm"], "--grid", *axes]
    for option, value in values.items():
        words += [] if option in LEFT_OUT else _option(option.replace("_", "-"), value)
    return cut(printable(shlex.join(words)))


def _option(name: str, value: Any) -> list[str]:
    """Return an option as it is typed; one that has no value is not."""
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if value is None:
        return []
    given = value if isinstance(value, list) else [value]
    texts = map(str, given)
    return [f"--{name}", *(PureWindowsPath(t).name if _is_absolute(t) else t for t in texts)]


def _grid_word(value: Any) -> str:
    """Return a value of a grid as it is typed."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _is_absolute(text: str) -> bool:
    return text.startswith(("/", "~", "\\")) or bool(re.match(r"[A-Za-z]:[\\/]|file:", text))


def breakable(name: str) -> Markup:
    """Let a long name break after an underscore, without a change to what is copied."""
    from markupsafe import Markup, escape

    return escape(name).replace("_", Markup("_<wbr>"))


def cut(text: str, most: int = 2000) -> str:
    """Return text that is not longer than a page has room for.

    >>> cut("abc", 3), cut("abcd", 3)
    ('abc', 'abc …')
    """
    return text if len(text) <= most else f"{text[:most]} …"


def slug(name: str) -> str:
    """Return a name that an address can hold."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)


def rendered(template: str, **values: Any) -> str:
    """Return a page of `templates/` with these values; text in them is text, never markup."""
    return _environment(language()).get_template(template).render(**values)


@functools.cache  # its templates are compiled once
def _environment(lang: str) -> Environment:
    """Return what renders pages in the present language."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sgdstudy.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,  # no Markup
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    colon = say("{title}: {what}", title="", what="")  # French has a space before it
    environment.globals |= {"say": say, "language": lang, "colon": colon}
    return environment
