"""Figures on a machine whose settings of matplotlib are broken, or of another taste."""

import os
import subprocess
import sys

import matplotlib
import pytest
from matplotlib.figure import Figure

import sgdstudy as ss
from sgdstudy.figures import backend, png

CODE = """
import sgdstudy as ss
made = ss.figures.strips([("a", "b", 1.0, False), ("a", "c", 2.0, True)], "x", "y")
print(len(ss.figures.png(made)) > 1000)
"""


def drawn():
    return png(ss.figures.strips([("a", "b", 1.0, False), ("a", "c", 2.0, True)], "x", "y"))


@pytest.mark.parametrize(
    "settings",
    [
        {"text.usetex": True},
        {"axes.formatter.use_mathtext": True, "font.family": "no such font"},
        {"savefig.bbox": "tight", "savefig.dpi": 10, "figure.facecolor": "red"},
        {"lines.linewidth": 40, "axes.titlesize": 80, "xtick.labelsize": 0.1},
        {"savefig.format": "pdf", "savefig.transparent": True, "path.sketch": (5, 5, 5)},
    ],
    ids=str,
)
def test_our_figures_are_the_same_whatever_this_machine_prefers(settings):
    before = drawn()
    with matplotlib.rc_context(settings):
        assert drawn() == before
        assert {name: matplotlib.rcParams[name] for name in settings} == {
            name: ([value] if name == "font.family" else value) for name, value in settings.items()
        }


def test_a_figure_of_the_users_keeps_their_style():
    with matplotlib.rc_context({"figure.facecolor": "red", "savefig.facecolor": "auto"}):
        made = Figure(figsize=(1, 1))
        made.subplots()
        assert matplotlib.image.imread(__import__("io").BytesIO(png(made)))[0, 0, :3].tolist() == [
            1,
            0,
            0,
        ]


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["backend", "file", "usetex", "folder", "locale"])
def test_a_broken_setting_stops_no_figure(tmp_path, broken):
    """As it was seen: MPLBACKEND of no backend, text.usetex without LaTeX; and three more."""
    rc = tmp_path / "matplotlibrc"
    texts = {
        "file": b"\xff\xfe\x00",
        "usetex": b"text.usetex: True\n",
        "locale": b"axes.formatter.use_locale: True\n",
    }
    rc.write_bytes(texts.get(broken, b""))
    changes = {"MATPLOTLIBRC": str(rc), "LC_ALL": "xx_XX.UTF-8"}  # which is not installed
    if broken == "backend":
        changes["MPLBACKEND"] = "nonsense"
    if broken == "folder":
        changes = {"MPLCONFIGDIR": "/proc/none", "MPLBACKEND": "module://none.at.all"}
    made = subprocess.run(
        [sys.executable, "-c", CODE], env=os.environ | changes, capture_output=True, text=True
    )
    assert made.stdout == "True\n"
    assert "Traceback" not in made.stderr
    assert ("is not a backend" in made.stderr) is (broken == "backend")


@pytest.mark.slow
def test_the_backend_of_the_environment_is_still_the_users():
    """Of a notebook: matplotlib is imported by us, and drawn with by them."""
    code = "import sgdstudy.figures, matplotlib; print(matplotlib.rcParams['backend'])"
    name = "module://matplotlib.backends.backend_svg"
    made = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"MPLBACKEND": name},
        capture_output=True,
        text=True,
    )
    assert made.stdout.strip() == name
    assert os.environ.get("MPLBACKEND") == backend.os.environ.get("MPLBACKEND")
