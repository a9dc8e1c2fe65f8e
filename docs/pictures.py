"""Makes the pictures of these pages anew, from a store in which `sgdstudy study` has run.

    python docs/pictures.py [FOLDER OF THE STORE]

The main figures of studies are copied; `sgdstudy ui` is shown in a browser. benchmark.png comes
with its page (`make bench`), sweep.png by the command that docs/sweeps.md shows.
"""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from sgdstudy.report.pictures import small_png
from sgdstudy.report.sections import MAIN, answered
from sgdstudy.tracking.runs import artifact
from sgdstudy.tracking.store import Store, read_store

DOCS = Path(__file__).parent
FIGURES = ("ex6_shuffle", "study_edge_of_stability", "study_step_size", "study_online")
PAGES = {"ui.png": "", "ui_charts.png": "ex6_shuffle"}  # the first page; the charts of a study
SIZE = {"width": 1400, "height": 900}


def main() -> None:
    """Write all of them."""
    store = read_store(sys.argv[1] if len(sys.argv) > 1 else None)
    for name, data in {**figures(store), **pages(store)}.items():
        (DOCS / name).write_bytes(data)
        print(f"docs/{name}: {len(data):,} bytes")


def figures(store: Store) -> dict[str, bytes]:
    """Return the main figures, as PNG by file name."""
    found = {}
    for name, _, run in answered(store):
        if name in FIGURES:
            path = artifact(store, run, MAIN)
            assert path is not None, f"{name} has no main figure: run it again"
            found[f"{name}.png"] = small_png(path)[0]
    missing = [name for name in FIGURES if f"{name}.png" not in found]
    if missing:
        sys.exit(f"{', '.join(missing)} not in {store.shown}: run sgdstudy study first")
    return found


def pages(store: Store) -> dict[str, bytes]:
    """Return what `sgdstudy ui` shows, as PNG by file name."""
    from playwright.sync_api import sync_playwright

    words = [sys.executable, "-m", "sgdstudy", "ui", "--port", "5890", "--store", store.shown]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    found = {}
    try:
        assert server.stdout is not None
        lines = iter(server.stdout.readline, "Ctrl-C stops the server.\n")
        charts = dict(re.findall(r"^\s*(\w+)\s+(http\S+)$", "".join(lines), re.M))
        with sync_playwright() as play:
            browser = play.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport=SIZE, device_scale_factor=1)
            page.set_default_timeout(60_000)
            first = next(iter(charts.values())).partition("/#")[0]
            for name, study in {"": "", **PAGES}.items():  # the first visit makes it all ready
                page.goto(first)
                if study:
                    page.locator(f"#{study}").get_by_text("Charts", exact=True).click()
                seen = ".js-plotly-plot .scatterlayer .trace" if study else "article img"
                page.locator(seen).first.wait_for()
                page.wait_for_timeout(4000)  # until all that is in sight has come
                if name:  # in all its colours: 256 are too few for nine figures
                    found[name] = page.screenshot()
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
    return found


if __name__ == "__main__":
    main()
