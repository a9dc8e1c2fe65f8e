"""`sgdstudy study` as a person runs it: every claim of all studies, its report, its reruns."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from pages import Page, section
from PIL import Image

import sgdstudy as ss
from sgdstudy.figures import Chart, Line, Panel, palette
from sgdstudy.studies.arm import MOST_CHARTED
from sgdstudy.studies.rerun import rerun
from sgdstudy.studies.scripts import find_scripts, load_study
from sgdstudy.tracking import chart_views
from sgdstudy.tracking.runs import every_run, search
from sgdstudy.tracking.store import open_store

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
STUDIES = list(find_scripts())
TOO_WIDE = """[...document.querySelectorAll("table, img, p")].filter(
    part => part.getBoundingClientRect().right > innerWidth + 1
).map(part => part.outerHTML.slice(0, 99))"""
MOST_LINES = """Math.max(...[...document.querySelectorAll("td, th")].map(
    cell => cell.clientHeight / parseFloat(getComputedStyle(cell).lineHeight)
))"""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def studied(empty_store, tmp_path_factory):
    """The store, the exit code and the output of one `sgdstudy study`."""
    folder = tmp_path_factory.mktemp("studied") / "mlruns"
    words = [sys.executable, "-m", "sgdstudy", "study", "--store", str(folder)]
    named = ("MLFLOW_TRACKING_URI", "SGDSTUDY_PREFIX")
    env = {name: value for name, value in os.environ.items() if name not in named}
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    return str(folder), done


def claims_of(study, store):
    found = ss.load_claims(study, store=store)
    return list(found.itertuples())


def test_the_command_is_green_and_counts_the_kinds(studied):
    store, done = studied
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert done.stderr == ""
    every = [claim for study in STUDIES for claim in claims_of(study, store)]
    counts = {kind: sum(c.kind == kind for c in every) for kind in ("prediction", "identity")}
    last = done.stdout[done.stdout.index(f"\n{len(STUDIES)} studies: ") :]
    assert f"{counts['prediction']} predictions hold; {counts['identity']} identities hold" in last
    assert "FAILS" not in last


@pytest.mark.parametrize("study", STUDIES)
def test_every_claim_holds(studied, study):
    claims = claims_of(study, studied[0])
    assert [(c.name, c.arm, c.expected, c.measured) for c in claims if c.holds is False] == []
    assert any(c.kind == "prediction" for c in claims)


@pytest.mark.parametrize("study", STUDIES)
def test_every_verdict_shows_its_number(studied, study):
    for claim in claims_of(study, studied[0]):
        if claim.holds is not None:
            values = [*flat(claim.measured), *flat(claim.expected)]
            assert not [v for v in values if isinstance(v, (bool, str))], (claim.name, claim.arm)
            assert claim.source, (claim.name, claim.arm)


@pytest.mark.parametrize("study", STUDIES)
def test_no_claim_is_there_twice(studied, study):
    claims = claims_of(study, studied[0])
    assert len({(c.name, c.arm) for c in claims}) == len(claims)
    identities = [c.name for c in claims if c.kind == "identity"]
    assert len(set(identities)) == len(identities)


def figures_of(study, store):
    """The names of a study's figures, as its `answer` run has them."""
    opened = open_store(store)
    for run in every_run(opened, opened.experiment(study)):
        if run.is_answer:
            return run.tags["sgdstudy.figures"].split(", ")
    return []


def flat(value):
    return [part for item in value for part in flat(item)] if isinstance(value, list) else [value]


def test_the_report_has_every_study_and_the_count(studied):
    store, done = studied
    text = (Path(store) / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    head = f"{len(STUDIES)} studies: "
    (counts,) = [line for line in done.stdout.splitlines() if line.startswith(head)]
    for part in counts.removeprefix(head).split("; "):
        assert part in page.text
    for study in STUDIES:
        part = Page(section(text, study))
        assert load_study(study).question in part.text
        assert len(part.all("img")) == len(figures_of(study, store))
        for claim in claims_of(study, store):
            assert claim.name in part.text


def test_the_report_is_one_light_page_of_numbers_for_people(studied):
    path = Path(studied[0]) / "report.html"
    assert path.stat().st_size < 8_000_000
    page = Page(path.read_text(encoding="utf-8"))
    assert not re.findall(r"\d\.\d{9,}", page.text)  # as 0.10010000000000001
    assert not re.findall(r".{30}\bnan\b", page.text, re.I)
    figures = [tag for tag in page.all("div") if "chart" in tag.get("class", "").split()]
    assert len(figures) == len(STUDIES)


@pytest.mark.server
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_report_is_printed_on_less_than_thirty_pages_and_nothing_is_cut_off(studied):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 718, "height": 1000})  # A4 within its margins
        page.goto((Path(studied[0]) / "report.html").as_uri())
        page.emulate_media(media="print")
        wide = page.evaluate(TOO_WIDE)
        printed = page.pdf(format="A4")
        page.set_viewport_size({"width": 1400, "height": 900})
        page.emulate_media(media="screen")
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        lines = page.evaluate(MOST_LINES)
        browser.close()
    assert wide == []
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) < 30
    assert lines < 10


@pytest.mark.parametrize("study", STUDIES)
def test_an_answer_is_in_words_and_its_numbers_are_of_prose(studied, study):
    opened = open_store(studied[0])
    (answer,) = [r for r in every_run(opened, opened.experiment(study)) if r.is_answer]
    (path,) = Path(studied[0]).rglob(f"{answer.run_id}/artifacts/answer.md")
    told = re.split(r"\n\|", path.read_text(encoding="utf-8"))[0]
    odd = r"\b(nan|inf|None|True|False)\b|\d[eE][+-]?\d|\{|\}|\d\.\d{9,}"
    assert re.findall(odd, re.sub(r"=(True|False)|`[^`]*`", "", told)) == []


def main_figure(study, store):
    """A study's picture.png, and what picture.json draws."""
    opened = open_store(store)
    (answer,) = [r for r in every_run(opened, opened.experiment(study)) if r.is_answer]
    (picture,) = Path(store).rglob(f"{answer.run_id}/artifacts/picture.png")
    return picture, json.loads(picture.with_suffix(".json").read_text(encoding="utf-8"))


def axes_of(layout, which="x"):
    return {name[0] + name[5:]: layout[name] for name in layout if name.startswith(f"{which}axis")}


def words_of(layout):
    """Title, names of axes, and what is written into the panels of a main figure."""
    axes = [*axes_of(layout).values(), *axes_of(layout, "y").values()]
    titles = [axis.get("title", {}).get("text", "") for axis in axes]
    return [layout["title"]["text"], *titles, *(a["text"] for a in layout.get("annotations", []))]


@pytest.mark.parametrize("study", STUDIES)
def test_the_main_figure_can_be_read(studied, study):
    """At most six lines with a name, no two of one colour; its title has a figure in it."""
    assert figures_of(study, studied[0])[0] == "picture.png"
    picture, drawn = main_figure(study, studied[0])
    with Image.open(picture) as image:
        assert image.width == 1400
        said = image.info["Description"]
    assert "plotly" in picture.with_suffix(".html").read_text(encoding="utf-8")
    colors = {}
    for trace in drawn["data"]:
        if trace.get("showlegend"):
            at = "marker" if trace["mode"] == "markers" else "line"
            colors[trace["name"]] = trace[at]["color"]
    assert 1 <= len(colors) <= 6
    assert len(set(colors.values())) == len(colors)
    title = drawn["layout"]["title"]["text"]
    assert re.search(r"\d", title)
    assert not re.search(r"\b(nan|None|inf)\b", title)
    for words in (said, *colors, *words_of(drawn["layout"])):
        assert not re.search(r"e[+]|e-0|\^-", words), words  # as 1.5e+10, K^-2.94


def values(part):
    """What plotly writes of an array."""
    if isinstance(part, dict):
        return np.frombuffer(base64.b64decode(part["bdata"]), part["dtype"]).astype(float)
    return np.array(part, float)


def drawn_again(drawn):
    """The chart of a picture.json: its lines, names and titles, without theory and bands."""
    layout, panels = drawn["layout"], []
    for at, axis in axes_of(layout).items():
        lines = []
        for trace in drawn["data"]:
            named = trace["name"] and trace.get("hovertemplate", "").startswith(trace["name"] + ":")
            if trace.get("xaxis", "x") == at and named:
                dots = trace["mode"] == "markers"
                color = trace["marker" if dots else "line"]["color"]
                xy = values(trace["x"]), values(trace["y"])
                lines.append(Line(trace["name"], *xy, color, dots=dots))
        upright = axes_of(layout, "y")[at.replace("x", "y")]
        log = "".join(a for a, own in (("x", axis), ("y", upright)) if own.get("type") == "log")
        texts = [a["text"] for a in layout.get("annotations", []) if a["xref"] == f"{at} domain"]
        x, y = (one.get("title", {}).get("text", "") for one in (axis, upright))
        ends = tuple(upright["range"]) if upright.get("range") else None
        if ends and "y" in log:
            ends = tuple(None if end is None else 10.0**end for end in ends)
        panels.append(Panel(lines, x, y, " ".join(texts[:1]), log, limits=ends))
    return Chart(layout["title"]["text"].replace("<br>", " "), panels)


@pytest.mark.parametrize("study", STUDIES)
def test_no_text_of_the_main_figure_is_small_or_cut_off(studied, study):
    """At 700 pixels, 100 dots per inch: 8 points and more, all of it within the picture."""
    figure = drawn_again(main_figure(study, studied[0])[1]).figure()
    figure.draw_without_rendering()
    assert figure.get_figwidth() * figure.dpi == 700
    ticks = {t for axes in figure.axes for t in (*axes.get_xticklabels(), *axes.get_yticklabels())}
    texts = {t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()}
    assert min(text.get_fontsize() for text in texts) >= 8
    for text in texts - ticks:  # of these, matplotlib holds some beyond the axes
        box = text.get_window_extent()
        assert box.x0 > -1, text
        assert box.x1 < figure.bbox.width + 1, text
        assert -1 < box.y0 < box.y1 < figure.bbox.height + 1, text


@pytest.mark.parametrize("study", STUDIES)
def test_a_prepared_chart_has_few_lines_and_each_a_colour_of_its_own(studied, study):
    """Metrics counted: MLflow draws all those of a run in the run's colour."""
    opened = open_store(studied[0])
    experiment = opened.client.get_experiment(opened.experiment(study))
    packed = json.loads(experiment.tags[chart_views.TAG])["state"].partition(";")[2]
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    runs = search(opened, [experiment.experiment_id], state["searchFilter"])
    assert runs[0].is_answer
    assert runs[0].tags[chart_views.COLOR] == palette.GREY
    assert state["compareRunCharts"]
    for chart in state["compareRunCharts"]:
        keys = chart.get("selectedMetricKeys", [chart["metricKey"]])  # lines, or bars
        colors = [r.tags[chart_views.COLOR] for key in keys for r in runs if key in r.metrics]
        assert 1 <= len(colors) <= MOST_CHARTED, chart["displayName"]
        assert len({*colors}) == len(colors), chart["displayName"]


def lines_of(drawn):
    """The lines of a picture.json that have a name: name, colour, places, values."""
    for trace in drawn["data"]:
        if trace["name"] and trace.get("hovertemplate", "").startswith(f"{trace['name']}:"):
            color = trace["marker" if trace["mode"] == "markers" else "line"]["color"]
            yield trace["name"], color, values(trace["x"]), values(trace["y"])


def is_of(x, y, epochs):
    """Whether a line is that of an arm: a column's median, or its loss less what is the least."""
    there = x[(x % 1 == 0) & np.isin(x, epochs["epoch"])]
    if len(there) < len(x) or len(x) < 5:
        return False
    columns = ["running_loss", "full_loss", "distance"]
    by_epoch = epochs.groupby("epoch")[[c for c in columns if c in epochs]]
    seen = [by_epoch.median().loc[x].to_numpy().T, by_epoch.mean().loc[x].to_numpy().T]
    same = np.isclose(np.concatenate(seen), y, rtol=1e-5, atol=0).all(1)
    less = np.stack([part[1] for part in seen]) - y  # the same for all epochs, but for rounding
    return same.any() or (np.ptp(less, 1) < 1e-6 * np.abs(less).max()).any()


# arms that are drawn in the main figure as a line of their own, and in MLflow's charts, at least
DRAWN = {"ex1_gradient_descent": 4, "ex2_mse_loss": 2, "ex4_minibatch": 1, "ex5_optimizers": 6}
DRAWN |= {"ex6_shuffle": 2, "study_edge_of_stability": 4, "study_neighbours": 5, "study_polyak": 3}
DRAWN |= {"study_step_size": 4, "study_one_sample": 2, "study_usable_steps": 2}


@pytest.mark.parametrize("study", STUDIES)
def test_an_arm_has_one_colour_in_the_main_figure_and_in_mlflow(studied, study):
    """The names tell which arm a line is, or its values do; of one it may be several quantities."""
    opened = open_store(studied[0])
    runs = every_run(opened, opened.experiment(study))
    charted = {run.name: run for run in runs if run.tags[chart_views.CHARTED] == "yes"}
    charted.pop("answer")
    epochs, found = ss.load_epochs(study, store=studied[0]), {}
    for label, color, x, y in lines_of(main_figure(study, studied[0])[1]):
        for arm, run in charted.items():
            if label == arm or is_of(x, y, epochs[epochs["arm"] == arm]):
                found.setdefault(arm, {})[label] = color.upper() == run.tags[chart_views.COLOR]
    alone = {arm: lines for arm, lines in found.items() if len(lines) == 1}
    assert all(all(lines.values()) for lines in alone.values()), alone
    assert len(alone) >= DRAWN.get(study, 0), alone


@pytest.mark.parametrize("study", STUDIES)
def test_an_arm_runs_again_and_is_identical(studied, study):
    """The arm that took the least time: all of them are `make study`'s cost once more."""
    runs = ss.load_runs(study, store=studied[0])
    quickest = runs.loc[runs["train_seconds"].idxmin()]
    assert str(rerun(quickest.run_id, store=studied[0])).endswith("identical")
