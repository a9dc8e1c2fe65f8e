"""Whose a file is: Python's, an installed package's, ours, or the user's own."""

from __future__ import annotations

import functools
import sysconfig
from pathlib import Path


@functools.cache
def is_installed(file: str) -> bool:
    """Whether a file is Python's own, of an installed package, or ours."""
    if file.startswith("<frozen"):
        return True
    path = Path(file)
    inside = any(path.is_relative_to(place) for place in _places())
    return inside or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


@functools.cache
def _places() -> tuple[Path, ...]:
    """Return where Python, installed packages and this one lie."""
    paths = sysconfig.get_paths()
    found = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return (*map(Path, found), Path(__file__).parent)
