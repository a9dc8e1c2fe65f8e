"""matplotlib as our figures need it, whatever this machine's settings of it say.

Those are for windows and for taste: a backend that is not there, `text.usetex` without LaTeX, or a
file of settings that cannot be read would stop a study. This module is imported before anything
else of matplotlib's; our figures are drawn and written in a style of their own.
"""

from __future__ import annotations

import functools
import locale
import logging
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from sgdstudy.language import say, to_say

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T", bound="Figure | None")  # a panel is not drawn yet
NOT_STYLE = (
    *("backend", "date.epoch", "docstring", "figure.max_open_warning", "interactive"),
    *("savefig.directory", "timezone", "tk.", "toolbar", "webagg."),
)
log = logging.getLogger("sgdstudy")


@contextmanager
def _environment(**values: str | None) -> Iterator[None]:
    """Set environment variables, or unset them; they are as before after."""
    before = {name: os.environ.pop(name, None) for name in values}
    os.environ.update({name: value for name, value in values.items() if value is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _imported() -> Any:
    """Import matplotlib; a setting that it cannot take is left out, and named."""
    given, fresh = os.environ.get("MPLBACKEND"), "matplotlib" not in sys.modules
    with _environment(MPLBACKEND=None):
        try:
            import matplotlib
        except (OSError, ValueError, locale.Error) as error:
            text = to_say("the settings of matplotlib are left out: {why}")
            log.warning("%s", say(text, why=str(error)))
            for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
                del sys.modules[name]  # half of them
            with _environment(MATPLOTLIBRC=os.devnull):
                import matplotlib
    if given and fresh:
        try:
            matplotlib.rcParams["backend"] = given
        except ValueError:
            text = to_say("MPLBACKEND={name} is not a backend of matplotlib, and is left out")
            log.warning("%s", say(text, name=given))
    return matplotlib


matplotlib = _imported()
_ours: weakref.WeakSet[Any] = weakref.WeakSet()


@functools.cache
def _defaults() -> dict[str, Any]:
    found = dict.items(matplotlib.rcParamsDefault)
    return {name: value for name, value in found if not name.startswith(NOT_STYLE)}


@contextmanager
def style() -> Iterator[None]:
    """Draw in matplotlib's own style, not in that of this machine's settings."""
    with warnings.catch_warnings():  # settings that are to be given up one day
        warnings.simplefilter("ignore", matplotlib.MatplotlibDeprecationWarning)
        context = matplotlib.rc_context(_defaults())
        context.__enter__()
    try:
        yield
    finally:
        context.__exit__(None, None, None)


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Let a function draw in our style, and its figure be written in it."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        from sgdstudy.figures.overflow import BARE, settle  # it imports matplotlib, too

        with style(), matplotlib.rc_context(BARE):
            figure = draw(*args, **kwargs)
            for axes in () if figure is None else figure.axes:
                settle(axes)
        if figure is not None:
            _ours.add(figure)
        return figure

    return drawn


def style_of(figure: Any) -> Any:
    """Return the context that a figure is written in: our style for ours, else nothing."""
    return style() if figure in _ours else nullcontext()
