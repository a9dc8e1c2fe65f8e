"""One small run of every script, and of the README's own example."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from counts import plurals_of_one
from matplotlib.text import Text
from small import SMALL

import sgdstudy as ss
from sgdstudy import language
from sgdstudy.errors import InputError
from sgdstudy.figures import describe
from sgdstudy.figures.palette import OPTIMIZERS, ORDERS
from sgdstudy.recipe.columns import STEPS
from sgdstudy.recipe.stop import STOP_COLUMNS
from sgdstudy.studies.arm import in_charts
from sgdstudy.studies.claims import Claims
from sgdstudy.studies.outcome import Runs
from sgdstudy.studies.scripts import find_scripts, load_study
from sgdstudy.theory.predictions import predict
from sgdstudy.tracking.claims import CLAIM_FIELDS
from sgdstudy.tracking.runs import every_run
from sgdstudy.tracking.store import open_store
from sgdstudy.training.train import train

FIXED = ("sequential", "reversed", "strided")
ROOT = Path(__file__).parents[2]
# one of whatever there may be one of
SINGLE = {"seeds": 1, "others": 1, "tuning": 1, "limit": 1, "passes": 1}
ONE = {
    name: {option: n for option, n in SINGLE.items() if option in small}
    for name, small in SMALL.items()
}
ONE |= {name: {"epochs": 1} for name in ("ex1_gradient_descent", "ex2_mse_loss", "ex3_batches")}
# in every language
NAMES = {"shuffle=True", "shuffle=False", "lr", "MSELoss", "Nesterov", "x", "y", "μ"}


def test_every_script_has_a_small_run():
    assert set(find_scripts()) == set(SMALL)


def unspoken(text, names):
    """The words of a text that stand outside of `‹›`, but for numbers and these names."""
    inner = 1
    while inner:
        text, inner = re.subn("‹[^‹›]*›", " ", text)
    text = " ".join(text.split())
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", " ", text)
    text = re.sub(r"`[^`]*`|\$[^$]*\$|\d\S*|\w+\.png", " ", text)
    return re.findall(r"[^\W\d_]+", text)


@pytest.fixture
def marked(monkeypatch):
    """French that stands in `‹›` wherever it is said."""
    known = language.catalogue("fr")
    texts = {text: tuple(f"‹{form}›" for form in forms) for text, forms in known.texts.items()}
    told = language.Catalogue(texts, known.plural, known.decimal, known.spaced)
    monkeypatch.setattr(language, "catalogue", lambda name: told)
    with language.speaking("fr"):
        yield


@pytest.fixture(scope="module")
def small(empty_store, tmp_path_factory):
    """Name -> the store that holds the small run of a script alone, and its result."""
    folder = tmp_path_factory.mktemp("small")

    @cache
    def run(name):
        store = str(shutil.copytree(empty_store, folder / name))
        return store, ss.run(name, store=store, **SMALL[name])

    return run


@pytest.fixture
def trained(small):
    """Name -> a study, the options of its small run, and the runs."""

    def of(name):
        study = load_study(name)
        return study, study.options(**SMALL[name]), small(name)[1].runs

    return of


@pytest.fixture(scope="module")
def told(small):
    """Name, language -> what the small run of a script says: claims, main chart, its figure."""

    @cache
    def of(name, lang):
        with language.speaking(lang):
            return said(load_study(name), SMALL[name], small(name)[1].runs)

    return of


def said(study, given, runs):
    """The claims of runs, the chart of the main figure, and the figure."""
    options = study.options(**given)
    claims = Claims(study.claimed(options, runs))
    chart = study.picture(options, runs, claims)
    return claims, chart, chart.figure()


def untracked(study, given):
    """The runs of a study, as it has them, of which nothing is kept."""
    runs = {}
    for name, arm in in_charts(study.placed_arms(study.options(**given))).items():
        how = {"config": arm.config, "trajectory": arm.trajectory, "progress": False}
        run = train(arm.problem, **how)
        predicted = predict(arm.problem, arm.config)
        runs[name] = replace(run, predicted=predicted, color=arm.color)
    return Runs(runs)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_no_text_of_a_main_figure_is_cut_off_in_any_language(name, told):
    """Names are longer in French; test_all_studies.py looks at the English of the whole runs."""
    for lang in ("fr", "en"):
        figure = told(name, lang)[2]
        figure.draw_without_rendering()
        held = (t for a in figure.axes for t in (*a.get_xticklabels(), *a.get_yticklabels()))
        texts = {t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()}
        for text in texts - {*held}:  # of numbers, matplotlib holds some beyond the axes
            box = text.get_window_extent()
            assert -1 < box.x0 < box.x1 < figure.bbox.width + 1, (lang, text)
            assert -1 < box.y0 < box.y1 < figure.bbox.height + 1, (lang, text)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_nothing_that_a_reader_sees_is_left_in_english(name, trained, marked):
    """The words of all it says and draws are said, so that each has a translation."""
    study, options, runs = trained(name)
    claims, arms = Claims(study.claimed(options, runs)), study.placed_arms(options)
    parts = {part for arm in runs for part in re.split(", | (?=K=)", arm)}
    names = {*runs, *parts, *ORDERS, *OPTIMIZERS, *NAMES}
    # a purpose that is a name too, as "constant", is said all the same
    written = [*(arm.about for arm in arms.values()), *(c.source for c in claims)]
    written += [*study.charts, *study.questions(options, arms).values()]
    told = [language.translated(text) for text in (*written, *study.doc.split("\n\n"))]
    assert [
        text for text in told if unspoken(text, {*OPTIMIZERS, *NAMES}) and "‹" not in text
    ] == []
    texts = [*told, *study.answered(options, runs, claims)]
    chart = study.picture(options, runs, claims)
    texts += [text.get_text() for text in chart.figure().findobj(Text)]
    texts += [chart.note, chart.describe(), chart.interactive().layout.meta["note"]]
    assert [(text, left) for text in texts if (left := unspoken(text, names))] == []
    for file, draw in study.drawn(runs):
        figure = draw()
        texts = [describe(figure), *(text.get_text() for text in figure.findobj(Text))]
        words = unspoken(" ".join(texts), names | {*STEPS, *STOP_COLUMNS})
        assert [word for word in words if len(word) > 1] == [], file  # w and x are names too


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE)
def test_what_there_is_one_of_is_said_in_the_singular(name, small, told):
    """In the answer, the claims and the figures, of one seed, and of one of several."""
    study = load_study(name)
    one, cases = SMALL[name] | ONE[name], [(SMALL[name], small(name)[1].runs)]
    if one != SMALL[name]:
        cases.append((one, untracked(study, one)))
    for (given, runs), lang in product(cases, language.languages()):
        with language.speaking(lang):
            same = given is SMALL[name]
            claims, chart, figure = told(name, lang) if same else said(study, given, runs)
            options = study.options(**given)
            texts = [*study.answered(options, runs, claims)]
            texts += [study.show(options, runs)] if study.show else []
            texts += [text for claim in claims for text in (claim.name, claim.arm, claim.source)]
            texts += [chart.title, chart.note, chart.describe()]
            for drawn in (figure, *(draw() for _, draw in study.drawn(runs))):
                texts += [text.get_text() for text in drawn.findobj(Text)]
            assert [found for text in texts for found in plurals_of_one(text, lang)] == []


def test_words_that_nobody_said_are_found():
    assert unspoken("‹a ‹b› c› 0.5, lr 2e-4", {"lr"}) == []
    assert unspoken("‹a› by epoch", {"lr"}) == ["by", "epoch"]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "ex3_batches")) for n in SMALL]
)
def test_script_runs_small(name, small):
    store, result = small(name)
    study = load_study(name)
    # what assumes the default options is only described here; tests/test_all_studies.py judges it
    assert [(c.name, c.arm, c.expected, c.measured) for c in result.failed] == []
    assert result.answer
    runs = ss.load_runs(name, store=store)
    assert runs["arm"].tolist() == list(result.runs)
    assert set(runs["status"]) == {"FINISHED"}
    for arm, history in result.runs.items():
        steps = ss.load_steps(name, store=store, arms=arm, columns=["seed", "step"])
        assert len(steps) == history.n_steps.sum()
    files = [path.name for path in Path(store).rglob("*") if path.is_file()]
    opened = open_store(store)
    (told,) = [r for r in every_run(opened, opened.experiment(name)) if r.is_answer]
    figures = told.tags["sgdstudy.figures"].split(", ")
    assert figures[0].endswith(".png")
    assert {"claims.json", "answer.md", *figures, *study.tables} <= set(files)
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".arrow"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_the_first_seed_shifts_every_random_arm(name):
    study = load_study(name)
    first, other = (
        study.placed_arms(study.options(first_seed=n, **SMALL[name])) for n in (0, 1000)
    )
    for arm, before in first.items():
        after = other[arm]
        shifted = tuple(seed + 1000 for seed in before.config.seeds)
        assert tuple(after.config.seeds) == shifted or is_the_same_for_every_seed(before), arm


def is_the_same_for_every_seed(arm):
    """Whether neither the order nor the start of an arm is random."""
    order = arm.config.order
    fixed = arm.config.batch_size is None or not isinstance(order, str) or order in FIXED
    first, other = arm.problem.initial([0, 1])
    return fixed and bool((first == other).all())


@pytest.mark.slow
def test_arms_in_processes_give_what_they_give_one_by_one(store):
    alone = ss.run("ex4_minibatch", store=store, **SMALL["ex4_minibatch"])
    together = ss.run("ex4_minibatch", store=store, jobs=2, **SMALL["ex4_minibatch"])
    assert list(together.runs) == list(alone.runs)
    for arm, history in alone.runs.items():
        assert np.array_equal(together.runs[arm].w, history.w)
        assert together.runs[arm].epochs.equals(history.epochs)
    assert ss.load_runs("ex4_minibatch", store=store, invocation="all")["run_id"].nunique() == 4


@pytest.mark.slow
def test_a_script_runs_by_itself_from_anywhere(store, tmp_path):
    words = [sys.executable, ROOT / "experiments" / "ex3_batches.py", "--store", store, "--strict"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "batch 0, sample 0: x = -0.669786, y = 3.773221" in done.stdout
    assert re.search(r"each_sample_once.*holds", done.stdout)
    assert "viewStateShareKey" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("bad", [["--lr=0"], ["--batch-size=2001"], ["--seeds=0"], ["--jobs=0"]])
def test_options_out_of_range_are_one_line_and_write_nothing(store, monkeypatch, capsys, bad):
    """As the script itself would say it: `STUDY.main()`."""
    before = sorted(Path(store).rglob("*"))
    monkeypatch.setattr(sys, "argv", ["ex4_minibatch.py", "--store", store, *bad])
    with pytest.raises(SystemExit) as exit_:
        load_study("ex4_minibatch").main()
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    assert sorted(Path(store).rglob("*")) == before


def test_unknown_options_suggest_the_nearest():
    with pytest.raises(InputError, match="did you mean 'epochs'"):
        ss.run("ex4_minibatch", epoch=3)


@pytest.mark.slow
def test_the_readmes_example_runs(store, tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (source,) = [part for part in re.findall(r"```python\n(.*?)```", text, re.S) if "STUDY" in part]
    script = tmp_path / "larger_batches.py"
    script.write_text(source, encoding="utf-8")
    result = ss.run(str(script), store=store, seeds=2)
    assert list(result.runs) == ["B=5", "B=10", "B=20"]
    claims = ss.load_claims("larger_batches", store=store)
    assert claims["name"].tolist() == ["stop_epoch"] * 3


@pytest.mark.slow
def test_claims_are_listed_as_json(store):
    result = ss.run("ex3_batches", store=store)
    (path,) = Path(store).rglob("claims.json")
    claims = json.loads(path.read_text(encoding="utf-8"))
    assert all(tuple(claim) == CLAIM_FIELDS for claim in claims)
    assert len(claims) == len(result.claims)
    assert all(claim["holds"] for claim in claims if claim["kind"] != "description")
