"""`sgdstudy study` as a person runs it: every claim of all studies, its report, its reruns."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import Page, section
from PIL import Image

import sgdstudy as ss
from sgdstudy.studies.rerun import rerun
from sgdstudy.studies.scripts import find_scripts, load_study
from sgdstudy.tracking.runs import every_run
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
def test_the_main_figure_can_be_read(studied, study):
    """At most six lines with a name, no two of one colour; its title has a figure in it."""
    opened = open_store(studied[0])
    (answer,) = [r for r in every_run(opened, opened.experiment(study)) if r.is_answer]
    assert figures_of(study, studied[0])[0] == "picture.png"
    (picture,) = Path(studied[0]).rglob(f"{answer.run_id}/artifacts/picture.png")
    with Image.open(picture) as image:
        assert image.width == 1400
    assert "plotly" in picture.with_suffix(".html").read_text(encoding="utf-8")
    drawn = json.loads(picture.with_suffix(".json").read_text(encoding="utf-8"))
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


@pytest.mark.parametrize("study", STUDIES)
def test_an_arm_runs_again_and_is_identical(studied, study):
    """The arm that took the least time: all of them are `make study`'s cost once more."""
    runs = ss.load_runs(study, store=studied[0])
    quickest = runs.loc[runs["train_seconds"].idxmin()]
    assert str(rerun(quickest.run_id, store=studied[0])).endswith("identical")
