"""The table of columns against what is recorded, and against the pages that list them."""

import re
from pathlib import Path

from conftest import small_curve

import sgdstudy as ss
from sgdstudy.quantities import QUANTITIES
from sgdstudy.recipe import columns
from sgdstudy.tracking.chart_views import SECTIONS

DOCS = Path(__file__).parents[2] / "docs"
INDEX = {column.name: column for column in columns.INDEX}


def listed(page, heading, meaning):
    """What a page's table says of each column, without the parameters `w0, ...`."""
    _, _, part = (DOCS / page).read_text(encoding="utf-8").partition(heading)
    found = {}
    for line in re.split(r"\n#", part)[0].splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for name in re.findall("`([^`]+)`", cells[0]):
                found[name] = cells[meaning].replace("\\|", "|")
    return {name: doc for name, doc in found.items() if not name.startswith("w0")}


def docs(table):
    return {name: column.doc for name, column in table.items()}


def test_the_page_of_diagnostics_says_what_the_table_says():
    page = listed("diagnostics.md", "# Diagnostics", meaning=2)
    assert page == {name: doc for name, doc in docs(columns.STEPS).items() if name in QUANTITIES}
    assert list(page) == list(QUANTITIES)


def test_the_page_of_tracking_says_what_the_table_says():
    steps = listed("tracking.md", "## `steps.parquet`", meaning=1)
    shown = {*columns.STEPS} - {*QUANTITIES} | {"distance", "distance_start", "grad_cosine"}
    every = docs(columns.STEPS)
    assert steps == docs(INDEX) | {name: every[name] for name in shown}
    assert listed("tracking.md", "## `epochs.parquet`", meaning=1) == docs(columns.EPOCHS)


def test_every_recorded_column_is_in_the_table():
    curve = small_curve(test=(small_curve().x[:5], small_curve().y[:5]))
    settings = {
        "schedule": "ExponentialLR",
        "schedule_options": {"gamma": 0.9},
        "average": 0.0,
        "ema": 0.9,
        "clock": True,
    }
    asked = list(QUANTITIES)
    history = ss.train(curve, lr=0.1, batch_size=10, epochs=2, diagnostics=asked, **settings)
    for kind, table in columns.TABLES.items():
        rows = getattr(history, kind)
        names = {re.sub("^(grad_histogram)_.*", r"\1", name) for name in rows.columns}
        names = {name for name in names if not re.fullmatch(r"w\d+", name)} - {*INDEX}
        missing = (
            {"accuracy", "test_accuracy", "ema_test_accuracy"} if kind == "epochs" else set()
        )  # of classes
        assert names == {*table} - missing


def test_every_charted_column_is_known_and_every_view_charts_what_is_sent():
    sent = {f"batch/{name}" for name in columns.charted("steps")}
    sent |= {f"epoch/{name}" for name in columns.charted("epochs")}
    charts = [key for section in SECTIONS.values() for key in section]
    assert len(set(charts)) == len(charts)
    assert {*charts} == sent - {"batch/lr", "epoch/distance", "epoch/elapsed_seconds"}


def test_axes_with_signs_are_linear_and_labels_name_their_unit():
    assert columns.title("steps", "noise_scale").endswith(", in samples")
    assert columns.title("epochs", "full_loss") == "loss of all the data"
    assert columns.title("epochs", "my_own") == "my_own"
    linear = [key for section in SECTIONS.values() for key, c in section.items() if c.linear]
    assert linear == ["batch/alpha"]
