"""Figures that show themselves: in a notebook by their name alone, from a script by `.show()`."""

from __future__ import annotations

import logging
import sys
import tempfile
import webbrowser
from importlib import import_module
from pathlib import Path
from typing import Any

from matplotlib import figure

from sgdstudy.figures.style import png
from sgdstudy.language import say, to_say

log = logging.getLogger("sgdstudy")


class Figure(figure.Figure):
    """matplotlib's figure; a notebook shows it without `%matplotlib` and without pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self)

    def show(self, warn: bool = True) -> None:
        """Show it in a notebook, or in the browser of this machine.

        Args:
            warn: as of matplotlib's; there is nothing to warn of.
        """
        show(self, png(self), ".png")


def show(drawn: Any, data: bytes, suffix: str) -> None:
    """Show what was drawn: in a notebook by itself, else as a file that a browser opens."""
    if in_notebook():
        import_module("IPython.display").display(drawn)
        return
    with tempfile.NamedTemporaryFile(prefix="sgdstudy-", suffix=suffix, delete=False) as file:
        file.write(data)
    if not webbrowser.open(Path(file.name).as_uri()):
        text = to_say("there is no browser to show it in; it is in {file}")
        log.warning("%s", say(text, file=file.name))


def in_notebook() -> bool:
    """Whether this is a kernel, whose pictures a notebook shows."""
    python = sys.modules.get("IPython")
    return python is not None and getattr(python.get_ipython(), "kernel", None) is not None
