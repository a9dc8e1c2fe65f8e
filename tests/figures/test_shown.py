"""Figures that show themselves, in a notebook and from a script."""

import inspect
import logging
import sys
import tempfile
import webbrowser
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import sgdstudy as ss
from sgdstudy.figures import Chart, Line, Panel, shown

X = np.arange(1.0, 6)
FOLDER = Path(ss.__file__).parent / "figures"


def drawn():
    """One of either kind, with what its file begins with."""
    panel = Panel([Line("one", X, X)], "x", "y")
    return [(Chart("It is 5", [panel]), b"<!DOCTYPE html>"), (ss.figures.data(curve()), b"\x89PNG")]


def curve():
    return ss.problems.curve()


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """The addresses a browser was asked for; there is none."""
    found = []
    monkeypatch.setattr(webbrowser, "open", lambda address: found.append(address) is not None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shown, "in_notebook", lambda: False)
    return found


@pytest.mark.slow
def test_a_script_opens_a_file_and_says_where_it_is_without_a_browser(opened, tmp_path, caplog):
    for figure, start in drawn():
        with caplog.at_level(logging.WARNING):
            figure.show()
        (file,) = tmp_path.iterdir()
        assert opened.pop() == file.as_uri()
        assert file.read_bytes().startswith(start)
        assert str(file) in caplog.records[-1].message
        file.unlink()


@pytest.mark.slow
def test_a_notebook_shows_the_figure_itself(opened, monkeypatch, tmp_path):
    monkeypatch.setattr(shown, "in_notebook", lambda: True)
    said = []
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=said.append))
    for figure, _ in drawn():
        figure.show()
        assert said.pop() is figure
        assert figure._repr_png_().startswith(b"\x89PNG")
    assert opened == list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shell", "is_one"),
    [(None, False), (SimpleNamespace(), False), (SimpleNamespace(kernel=3), True)],
)
def test_a_notebook_is_a_shell_with_a_kernel(monkeypatch, shell, is_one):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert shown.in_notebook() is is_one
    monkeypatch.delitem(sys.modules, "IPython")
    assert shown.in_notebook() is False


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_every_figure_of_ours_shows_itself(path):
    module = import_module(f"sgdstudy.figures.{path.stem}")
    if " Figure(" in inspect.getsource(module).replace("class Figure(", ""):
        assert getattr(module, "Figure", shown.Figure) is shown.Figure


@pytest.mark.slow
def test_a_history_shows_its_plots():
    history = ss.train(curve(), lr=1e-4, batch_size=100, epochs=1, diagnostics="full")
    for figure in (history.plot(), history.cockpit()):
        assert isinstance(figure, shown.Figure)
        assert figure._repr_png_().startswith(b"\x89PNG")
