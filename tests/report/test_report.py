"""The report: what is in the page, that nothing is loaded, that no text of a user acts."""

import itertools
import json
import os
import re
import shutil
import struct
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import one_line
from pages import Page, section

import sgdstudy as ss
from sgdstudy.errors import InputError
from sgdstudy.figures import Chart, Line, Panel, interactive
from sgdstudy.report import pictures
from sgdstudy.report.markup import command, markdown
from sgdstudy.report.pictures import MAX_BYTES, MOST_PICTURES, Album, small_png
from sgdstudy.report.report import write_report
from sgdstudy.studies.scripts import load_study
from sgdstudy.tracking.store import open_store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
EVIL = '<script>alert("1")</script>&"'
SCRIPT = '''"""What does <b>markup</b> & "quotes" do to a page?"""
import sgdstudy as ss

EVIL = '<script>alert("1")</script>&"'


def arms(o):
    same = {"optimizer": "SGD", "batch_size": 200, "epochs": 2, "seeds": [0, 1]}
    curve = ss.problems.curve()
    return {f"{EVIL} {lr:g}": ss.Arm(curve, EVIL, lr=lr, **same) for lr in (1e-4, 2e-4)}


def claims(o, runs):
    wrong = [ss.Claim(f"wrong {EVIL}", arm, 2.0, 1.0, 0.5, f"from {EVIL}") for arm in runs]
    many = [ss.Claim(f"seen_{i}", "all", float("inf")) for i in range(20)]
    return [ss.Claim("right", "all", True, True), *wrong, *many]


def answer(o, runs, claims):
    return f"It does **not act**: {EVIL}, see loss.png.\\n\\nA second paragraph."


figures = {"loss.png": ss.figures.loss_by_epoch}
STUDY = ss.Study(__file__, __doc__, ss.Options, arms, claims, answer, figures)
'''


@pytest.fixture(scope="module")
def made(empty_store, tmp_path_factory):
    """A report of three studies: one ordinary, one with its answer hidden, one full of markup."""
    folder = tmp_path_factory.mktemp("report")
    root = folder / "mlruns"
    shutil.copytree(empty_store, root)
    script = folder / "study_markup.py"
    script.write_text(SCRIPT, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("SGDSTUDY_PREFIX", raising=False)
        ss.run(str(script), store=str(root))
        ss.run("ex4_minibatch", store=str(root), seeds=2, epochs=1)
        ss.run("ex3_batches", store=str(root), epochs=2, limit=1, answer=False)
        words = ["sgdstudy", "run", "ex4_minibatch", "--seeds", "2", "--store", str(root)]
        patch.setattr(sys, "argv", words)
        ss.run("ex4_minibatch", store=str(root), seeds=2, epochs=2)
        path = write_report(open_store(str(root)), folder / "new" / "report.html")
    return path


@pytest.fixture(scope="module")
def text(made):
    return made.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


@pytest.mark.slow
def test_studies_stand_in_order_with_their_questions(page, text):
    names = re.findall(r'<section id="study-([^"]+)"', text)
    assert names == ["ex3_batches", "ex4_minibatch", "study_markup"]
    for name in names[:2]:
        assert page.text.count(load_study(name).question) == 2
    links = [a["href"] for a in page.all("a")]
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {link.removeprefix("#") for link in links} <= ids
    assert {f"#study-{name}" for name in names} <= set(links)


@pytest.mark.slow
def test_claims_figures_arms_and_command_of_a_study(text):
    part = Page(section(text, "ex4_minibatch"))
    for word in ("stop_epoch_printed", "printed_eta_diverges_at_batch", "descent", "eta 0.2"):
        assert word in part.text
    assert len(part.all("img")) == 4
    assert "the call as the notebook prints it" in part.text
    assert (
        "sgdstudy run ex4_minibatch --seeds 2 --epochs 2 Ran on" in part.text
    )  # the latest, no store
    assert re.search(r"problem curve, loss mse, .*epochs 2,", part.text)
    assert "never" in part.text
    assert "diverged" in part.text


@pytest.mark.slow
def test_a_hidden_answer_stays_hidden(text):
    part = Page(section(text, "ex3_batches"))
    assert "The answer is hidden: run without --no-answer to see it." in part.text
    assert "answer hidden" in part.text
    assert "holds" not in part.text
    assert "each_sample_once" not in part.text
    assert not part.all("img")
    assert "a short last batch" in part.text
    assert "max epochs" not in part.text


@pytest.mark.slow
def test_a_failing_claim_stands_out(page, text):
    part = section(text, "study_markup")
    table = re.search(r'<table class="claims failed">.*?</table>', part, re.S).group()
    assert table.count('<span class="verdict">FAILS</span>') == 2
    assert "1 of 3 predictions holds, 2 FAIL; 20 described" in Page(part).text
    heads = re.findall(r"<(?:summary|caption)[^>]*>(?:<span>)?([^<]+)<", part)
    assert [head.partition(":")[0] for head in dict.fromkeys(heads)] == [
        "2 claims FAIL", "1 prediction holds", "20 values described", "2 arms",
    ]  # fmt: skip
    assert "Claims that fail" in page.text
    assert any(attrs.get("href") == "#study-study_markup-failed" for attrs in page.all("a"))
    folded = re.search(r"<details.*?</details>", part, re.S).group()  # 20 values
    assert "seen_19" in folded.replace("<wbr>", "")
    assert "∞" in folded


@pytest.mark.slow
def test_text_of_users_does_not_act(page, text):
    assert page.all("b", "iframe", "object", "embed") == []
    policy = page.all("meta")[3]["content"]
    nonce = re.search(r"script-src 'nonce-([\w-]{20,})'", policy)[1]
    kinds = [tag.get("type", tag.get("nonce")) for tag in page.all("script")]
    assert kinds.count(nonce) == kinds.count("text/plain") == 1
    assert set(kinds) == {"application/json", "text/plain", nonce}
    assert text.count("<script") == len(kinds)
    assert page.text.count(f"wrong {EVIL}") == 4
    assert f"It does not act: {EVIL}, see loss.png." in page.text
    assert "<strong>not act</strong>" in text
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    alts = [attrs["alt"] for attrs in page.all("img")]
    assert any('What does <b>markup</b> & "quotes" do to a page?' in alt for alt in alts)


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(page, text):
    for tag, attrs in page.tags:
        for name in ("src", "srcset", "poster", "data", "action"):
            assert attrs.get(name, "data:image/png;base64,").startswith("data:image/png;base64,")
        assert tag == "a" or "href" not in attrs
    style = re.search(r"<style>.*?</style>", text, re.S).group()
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.slow
def test_nothing_names_this_machine(text, made):
    for path in (made.parent.parent, Path.cwd(), Path.home(), Path(sys.prefix)):
        assert str(path) not in text


@pytest.mark.slow
def test_the_structure_can_be_read_aloud(page, text):
    assert page.tags[0] == ("html", {"lang": "en"})
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(len(attrs["alt"]) > 20 for attrs in page.all("img"))
    assert all(attrs["scope"] in ("row", "col") for attrs in page.all("th"))
    assert len(page.all("table")) == len(page.all("caption"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    named = {attrs["aria-labelledby"] for _, attrs in page.tags if "aria-labelledby" in attrs}
    assert named <= set(ids)
    assert text.startswith("<!DOCTYPE html>")


def test_a_store_without_answers_says_what_to_do(store, tmp_path):
    with pytest.raises(InputError, match="run sgdstudy study") as error:
        write_report(open_store(store), tmp_path / "report.html")
    assert one_line(error)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 7])
def test_runs_of_other_tools_are_named_and_why_they_are_not_shown(store, tmp_path, n):
    """As it was seen: a store full of runs, and "no study has run"."""
    client = open_store(store).client
    for number in range(n):
        client.create_run(client.create_experiment(f"theirs {number}"))
    client.create_experiment("empty")
    with pytest.raises(InputError, match=r"has runs of .*theirs \d.*no answer") as error:
        write_report(open_store(store), tmp_path / "report.html")
    assert one_line(error)
    assert "empty" not in str(error.value)
    assert ("..." in str(error.value)) is (n > 5)


def test_a_place_that_cannot_be_written_is_one_line(made, tmp_path, no_server):
    root = made.parent.parent / "mlruns"
    with pytest.raises(InputError, match="is not a file") as error:
        write_report(open_store(str(root)), tmp_path)
    assert one_line(error)


@pytest.mark.slow
def test_figures_are_kept_small_and_say_what_they_show(tmp_path):
    import numpy as np
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    noise = np.random.default_rng(0).integers(0, 255, (600, 1800, 4), dtype=np.uint8)
    said = PngInfo()
    said.add_text("Description", "loss over epoch")
    Image.fromarray(noise).save(tmp_path / "noise.png", pnginfo=said)
    data, (width, height), description = small_png(tmp_path / "noise.png")
    assert len(data) <= MAX_BYTES < os.path.getsize(tmp_path / "noise.png")
    assert width / height == pytest.approx(3, rel=0.01)
    assert description == "loss over epoch"
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png .* no picture"):
        small_png(tmp_path / "broken.png")


def test_markdown_of_figures_with_alike_names():
    links = {"loss.png": "a", "final_loss.png": "b"}
    (line,) = markdown("final_loss.png, loss.png, x/loss.png, 2**3 and 2**4", links)
    assert line == (
        '<a href="#b">final_loss.png</a>, <a href="#a">loss.png</a>, x/loss.png, 2**3 and 2**4'
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ""),
        ({"lr": 0.1, "store": "/home/me/s", "jobs": 2}, " --lr 0.1"),
        ({"data": "/home/me/x.csv"}, " --data x.csv"),
        ({"data": r"C:\Users\me\x.csv"}, " --data x.csv"),
        ({"quick": True, "answer": False, "first_seed": 7}, " --quick --no-answer --first-seed 7"),
        ({"name": "a b", "sizes": [1, 2], "none": None}, " --name 'a b' --sizes 1 2"),
    ],
)
def test_the_command_works_elsewhere(given, expected):
    tags = {"sgdstudy.script": "/home/me/experiments/ex1.py", "sgdstudy.given": json.dumps(given)}
    assert command(tags) == "sgdstudy run ex1" + expected


def test_the_command_of_a_script_of_ones_own_names_its_file():
    tags = {"sgdstudy.script": "/home/me/mine.py", "sgdstudy.given": '{"seeds": 1}'}
    assert command(tags) == "sgdstudy run mine.py --seeds 1"
    swept = {"sgdstudy.arm": "a", "sgdstudy.grid": '{"lr": [1]}'}
    assert command(tags | swept) == "sgdstudy sweep mine.py --arm a --grid lr=1 --seeds 1"


def test_the_command_of_an_older_store_names_every_option():
    assert command({}) == ""
    options = {
        "sgdstudy.script": "/x/experiments/ex1.py",
        "sgdstudy.options": '{"seeds": 8, "lr": 0.1}',
    }
    assert command(options) == "sgdstudy run ex1 --seeds 8 --lr 0.1"
    assert command(options | {"sgdstudy.arm": "a"}) == ""  # a sweep whose grid is not known


@pytest.mark.server
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_on_a_phone_only_tables_and_figures_scroll_sideways(made):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 375, "height": 800})
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(made.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        wide, inner = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        boxes = page.evaluate(
            "[...document.querySelectorAll('.scroll')].map(b => b.scrollWidth > b.clientWidth)"
        )
        browser.close()
    assert wide <= inner
    assert any(boxes)
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.fixture
def browser():
    """Pages of a browser, by their width; what they log is an error."""
    playwright = pytest.importorskip("playwright.sync_api")
    said = []
    with playwright.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

        def opened(width, **how):
            page = found.new_page(viewport={"width": width, "height": 900}, **how)
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            return page

        yield opened
        found.close()
    assert said == []


HOVER = """chart => {
    const own = chart.querySelector(".js-plotly-plot"), rect = own.getBoundingClientRect();
    const line = own._fullData.findIndex(trace => trace.showlegend);
    const axes = own._fullLayout, at = Math.floor(own.calcdata[line].length / 2);
    const x = axes.xaxis.l2p(axes.xaxis.c2l(own.calcdata[line][at].x)) + axes.xaxis._offset;
    const y = axes.yaxis.l2p(axes.yaxis.c2l(own.calcdata[line][at].y)) + axes.yaxis._offset;
    return [own._fullData[line].name, rect.x + x, rect.y + y];
}"""


@pytest.mark.server
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_hovering_names_an_arm_and_a_click_on_its_name_hides_it(made, browser):
    page = browser(1400)
    page.goto(made.as_uri())
    chart = page.locator("#study-ex4_minibatch .main .chart")
    assert chart.locator("img").is_visible()  # until it is drawn
    chart.scroll_into_view_if_needed()
    chart.locator(".scatterlayer .trace").first.wait_for(timeout=60_000)
    assert not chart.locator("img").is_visible()
    name, x, y = chart.evaluate(HOVER)
    page.mouse.move(x, y)
    chart.locator(".hoverlayer").get_by_text(f"{name}: ").first.wait_for()
    hidden = "c => c.querySelector('.js-plotly-plot')._fullData.map(t => [t.name, t.visible])"
    assert [name, True] in chart.evaluate(hidden)
    chart.locator(".legendtoggle").first.click()
    page.wait_for_timeout(1000)  # a second click would have been another act
    assert [name, "legendonly"] in chart.evaluate(hidden)
    page.emulate_media(media="print")
    assert chart.locator("img").is_visible()
    assert not chart.locator(".js-plotly-plot").is_visible()


STANDS = """chart => {
    const layout = chart.querySelector(".js-plotly-plot")._fullLayout;
    const boxes = which => [...chart.querySelectorAll(which)].map(part => {
        const box = part.getBoundingClientRect();
        return [box.left, box.right, box.top, box.bottom];
    });
    return {
        domains: [layout.xaxis.domain, layout.xaxis2.domain],
        plots: boxes(".draglayer .nsewdrag"),
        names: boxes(".infolayer [class*=title], .infolayer .annotation-text"),
        modebar: boxes(".modebar-btn").length,
    };
}"""


@pytest.mark.server
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_panels_stand_below_each_other_on_a_phone_and_nothing_touches(tmp_path, browser):
    x, names = np.arange(1.0, 101), ("a loss, with a name", "a norm")
    panels = [
        Panel([Line("an arm", x, x)], "epochs, with a name that is longer than it", y, y, "xy")
        for y in names
    ]
    chart, own = Chart("It is 5", panels), tmp_path / "own.html"
    own.write_text(interactive.page(chart.interactive(), chart.png()), encoding="utf-8")
    page = browser(390, has_touch=True, is_mobile=True)
    page.goto(own.as_uri())
    chart = page.locator(".chart")
    chart.locator(".scatterlayer .trace").first.wait_for(timeout=60_000)
    found = chart.evaluate(STANDS)
    assert found["domains"] == [[0, 1], [0, 1]]
    (_, _, _, end), (_, _, start, _) = found["plots"]
    assert end < start
    assert found["modebar"] == 0  # fingers scroll and pinch
    assert all(left >= 0 and right <= 391 for left, right, *_ in found["names"])
    for left, right, top, bottom in found["names"]:  # no name lies on a panel
        for west, east, north, south in found["plots"]:
            assert right <= west + 1 or left >= east - 1 or bottom <= north + 1 or top >= south - 1
    page.set_viewport_size({"width": 1400, "height": 900})  # as a tablet that is turned
    page.wait_for_function(f"({STANDS})(document.querySelector('.chart'))"
                           ".domains[1][0] > 0.4")  # fmt: skip


@pytest.mark.server
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_without_scripts_the_pictures_stand_there(made, browser):
    page = browser(1400, java_script_enabled=False)
    page.goto(made.as_uri())
    images = page.locator("figure img")
    assert images.count() == made.read_text(encoding="utf-8").count("<img ") > 3
    assert all(image.is_visible() for image in images.all())


@pytest.mark.slow
def test_a_report_never_replaces_the_database_or_what_is_no_page(made, tmp_path, no_server):
    """As it was seen: `report --out mlruns/mlflow.db`; and a script, a link to the database."""
    root = made.parent.parent / "mlruns"
    store = open_store(str(root))
    (tmp_path / "study.py").write_text("print('mine')\n")
    (tmp_path / "link.html").symlink_to(root / "mlflow.db")
    before = (root / "mlflow.db").read_bytes()
    outside = [tmp_path / "study.py", tmp_path / "link.html"]
    for path in (root / "mlflow.db", root / "streams", root / "artifacts" / "x.png", *outside):
        with pytest.raises(InputError, match=r"page|html|outside of it") as error:
            write_report(store, path)
        assert one_line(error)
    assert (root / "mlflow.db").read_bytes() == before
    assert (tmp_path / "study.py").read_text() == "print('mine')\n"
    (tmp_path / "old.html").write_text("<!DOCTYPE html>\n<p>of yesterday</p>")
    assert b"of yesterday" not in write_report(store, tmp_path / "old.html").read_bytes()


# ---- pictures and texts of others --------------------------------------------------------------


def png_of(path, width, height):
    """A PNG of this size: of few bytes, whatever it takes when it is decoded."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    squeezed = zlib.compressobj(9)
    rows = b"".join(squeezed.compress(bytes(width + 1)) for _ in range(height))
    data = rows + squeezed.flush()
    parts = chunk(b"IHDR", head), chunk(b"IDAT", data), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def test_a_picture_that_is_too_large_is_not_decoded(tmp_path, monkeypatch):
    """As it was seen: 12,000 x 12,000 pixels in 17 kB took 17 s and 1.7 GB."""
    from PIL import Image

    path = png_of(tmp_path / "bomb.png", 12_000, 12_000)
    assert path.stat().st_size < 200_000
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(InputError, match="12,000 x 12,000 pixels") as error:
        small_png(path)
    assert one_line(error)
    long = tmp_path / "long.png"
    long.write_bytes(path.read_bytes()[:16] + struct.pack(">II", 2**31 - 1, 1) + bytes(100))
    with pytest.raises(InputError, match="pixels"):
        small_png(long)


def test_many_pictures_are_cut_and_a_damaged_one_is_named(tmp_path, monkeypatch):
    paths = [png_of(tmp_path / f"{i:03}.png", 50, 40) for i in range(400)]
    paths[1].write_bytes(paths[1].read_bytes()[:45])
    paths[2].write_bytes(b"GIF89a")
    found, notes = Album().of_study(paths, "study-x", "Why?")
    assert len(found) == MOST_PICTURES - 2
    assert [note.partition(" ")[0] for note in notes] == ["001.png", "002.png", "a"]
    monkeypatch.setattr(pictures, "MOST_IN_ALL", 3 * 50 * 40)
    album = Album()
    assert len(album.of_study(paths[5:7], "study-x", "Why?")[0]) == 2
    found, notes = album.of_study(paths[7:9], "study-y", "Why?")
    assert (len(found), len(notes)) == (1, 1)


def test_a_long_text_is_cut_and_searched_in_time():
    started = time.perf_counter()
    parts = markdown("**a " * 500_000, {"a.png": "fig"})
    assert sum(map(len, parts)) < 10_000
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize("value", ["{", "[]", "3", '{"lr": {"a": 1}}', "[" * 10_000, '{"a": "x"}'])
def test_a_damaged_tag_gives_no_command_or_a_harmless_one(value):
    tags = {
        "sgdstudy.script": "/x/experiments/ex1.py",
        "sgdstudy.given": value,
        "sgdstudy.grid": value,
    }
    for more in ({}, {"sgdstudy.arm": "a"}):
        assert command(tags | more) in ("", "sgdstudy run ex1 --a x")
