"""`sgdstudy ui` in a browser: the printed address shows the arms as lines, on a log axis."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sgdstudy as ss
from sgdstudy.studies.arm import MOST_CHARTED
from sgdstudy.tracking import chart_views, ui
from sgdstudy.tracking.store import Store, open_store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
ARMS = ("SGD shuffle", "SGD sequential")


@pytest.fixture(scope="module")
def server(empty_store, tmp_path_factory):
    """The addresses that `sgdstudy ui` prints for a store with one run of Exercise 6; "": first."""
    store = str(shutil.copytree(empty_store, tmp_path_factory.mktemp("ui") / "mlruns"))
    ss.run("ex6_shuffle", store=store, seeds=2, epochs=3)
    words = [
        sys.executable,
        "-c",
        "from sgdstudy.cli.main import main; main()",
        "ui",
        "--store",
        store,
    ]
    log = Path(store).parent / "ui.txt"
    with open(log, "w") as out:
        process = subprocess.Popen([*words, "--port", "5790"], stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 90
        while "Ctrl-C stops" not in log.read_text() and time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        first, *studies = re.findall(r"^(?:Open|\s*(\w+)) +(http\S+)", log.read_text(), re.M)
        assert first[0] == ""
        yield dict([first, *studies])
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert log.read_text().rstrip().endswith("stopped")


@pytest.mark.server
def test_the_printed_address_shows_the_arms_on_a_log_axis(server, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(server["ex6_shuffle"])
        page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for(timeout=60_000)
        page.wait_for_function(
            "document.querySelectorAll('.js-plotly-plot').length >= 2", timeout=60_000
        )
        charts = page.evaluate(
            """() => [...document.querySelectorAll('.js-plotly-plot')].map(chart => ({
                axis: chart.layout.yaxis.type,
                lines: chart.data.map(line => line.name),
            }))"""
        )
        page.screenshot(path=tmp_path / "ui.png")
        for arm in ARMS:
            assert page.get_by_text(arm, exact=True).first.is_visible()
        browser.close()
    assert Path(tmp_path / "ui.png").stat().st_size > 20_000
    assert all(chart["axis"] == "log" for chart in charts)
    assert any(set(ARMS) <= set(chart["lines"]) for chart in charts)


DRAWN = """() => [...document.querySelectorAll('.js-plotly-plot')].map(chart => ({
    axis: chart.layout.yaxis.type,
    lines: chart._fullData.filter(line => line.y && line.y.length > 1).map(
        line => [line.name, line.line.color.slice(0, 7)]),
}))"""


def charts_of(page):
    """The charts in sight, as soon as they are drawn: few lines, each in a colour of its own."""
    page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for()
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length >= 2")
    for chart in page.evaluate(DRAWN):
        assert chart["axis"] == "log"
        names, colors = zip(*{tuple(line) for line in chart["lines"]}, strict=True)
        assert 1 < len({*names}) <= MOST_CHARTED
        assert len({*names}) == len(names) == len({*colors})


@pytest.mark.server
def test_from_the_bare_address_to_the_charts_to_a_run_and_back(server):
    """Arms are visible at each station, at most six in a chart, each in a colour of its own."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        first = server[""]
        page.goto(first)
        card = page.locator("#ex6_shuffle")
        assert "what happens with shuffle=False" in card.inner_text()
        assert card.locator("img").evaluate("image => image.decode().then(() => image.width > 0)")
        card.get_by_text("Charts", exact=True).click()
        charts_of(page)
        for arm in ARMS:
            assert page.get_by_text(arm, exact=True).first.is_visible()
        page.get_by_text("running loss (shuffle may cover strided)").first.wait_for()
        # the view is the browser's own: all runs are listed, the answer first; few are drawn
        assert not page.get_by_text("viewing a shared view").is_visible()
        assert page.get_by_role("link", name="exact", exact=True).is_visible()
        listed = page.get_by_role("link").all_inner_texts()
        assert listed.index("answer") < min(map(listed.index, ARMS))
        assert page.get_by_text("SGD strided (epoch/full_loss)").count()  # a legend's words
        assert not page.get_by_text("answer (epoch/").count()
        assert not page.get_by_text("result/steps", exact=True).count()  # no wall of bars
        page.get_by_role("link", name=ARMS[0], exact=True).first.click()
        page.wait_for_function("location.hash.includes('/runs/')")
        page.get_by_text(ARMS[0], exact=True).first.wait_for()
        page.go_back()
        charts_of(page)
        page.get_by_text(ARMS[1], exact=True).first.wait_for()
        page.goto(first)
        card.get_by_text("Answer", exact=True).click()
        page.get_by_text("Predictions: known before the run", exact=False).first.wait_for()
        assert not page.get_by_text("Select a file to preview").count()
        page.goto(first)
        page.goto(server["ex6_shuffle"])  # typed over the first page: the browser loads nothing
        charts_of(page)
        # a browser that has never seen the first page, at an address that `sgdstudy ui` prints
        page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
        page.set_default_timeout(60_000)
        page.goto(server["ex6_shuffle"])
        charts_of(page)
        page.get_by_role("link", name=ARMS[0], exact=True).first.click()
        page.wait_for_function("location.hash.includes('/runs/')")
        page.go_back()
        charts_of(page)
        page.get_by_text("running loss (shuffle may cover strided)").first.wait_for()
        browser.close()


@pytest.mark.parametrize(("asked", "server", "local"), [("", False, True), ("on", True, True)])
def test_a_server_gets_views_only_when_asked(monkeypatch, tmp_path, asked, server, local):
    monkeypatch.delenv("SGDSTUDY_VIEWS", raising=False)
    if asked:
        monkeypatch.setenv("SGDSTUDY_VIEWS", asked)
    assert chart_views.wanted(Store("http://127.0.0.1:5000", None)) is server
    assert chart_views.wanted(Store("sqlite:///x.db", tmp_path)) is local
    monkeypatch.setenv("SGDSTUDY_VIEWS", "off")
    assert not chart_views.wanted(Store("sqlite:///x.db", tmp_path))


def test_the_first_page_is_printed_first_and_is_what_opens(monkeypatch, store):
    """The addresses of many studies fill a screen; without a study there is the page, too."""
    asked, lines = [], []
    monkeypatch.setattr(ui.webbrowser, "open", asked.append)
    opened = open_store(store)
    for names in ([], ["ex10_mine", "ex2_mine"]):
        for name in names:
            opened.experiment(name)
        lines.clear()
        ui._show_addresses(opened, "http://127.0.0.1:5000", lines.append, browse=True)
        assert "http://127.0.0.1:5000/ " in lines[0]
        assert [line.split()[0] for line in lines[1:]] == names
    assert asked == ["http://127.0.0.1:5000/"] * 2
