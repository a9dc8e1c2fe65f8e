"""The switches for a class, of every exercise.

`--no-answer`: nothing that a student sees tells the answer. `--predict`: each asks, and keeps it.
"""

import json
import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from conftest import call, small_curve
from pages import Page
from small import SMALL

import sgdstudy as ss
from sgdstudy.language import speaking, translated
from sgdstudy.report import landing, report
from sgdstudy.studies.claims import Claims
from sgdstudy.studies.rerun import rerun
from sgdstudy.studies.scripts import load_study
from sgdstudy.studies.study import FORETOLD, HIDDEN, Study
from sgdstudy.tracking import chart_views
from sgdstudy.tracking.runs import every_run, find_run
from sgdstudy.tracking.store import open_store, read_store

EXERCISES = [name for name in SMALL if name.startswith("ex")]
TELLING = ("best", "fastest", "worst", "floor")  # in the name of an arm
ENDS = re.compile(r"converged|diverged|max.epochs|\bepoch \d|\d steps")
KNOWN = {"claims.json", "answer.md", "data.png", "steps.parquet", "epochs.parquet"}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seen(empty_store, tmp_path_factory):
    """Name -> the hidden small run of an exercise, one with guesses, and what the first printed."""
    folder, printed = tmp_path_factory.mktemp("hidden"), []

    @cache
    def run(name):
        store = str(shutil.copytree(empty_store, folder / name))
        whole = str(shutil.copytree(empty_store, folder / f"{name} told"))
        study, printed[:] = load_study(name), []
        options = study.options(store=store, answer=False, **SMALL[name])
        hidden = study.run(options, progress=False, say=printed.append)
        with pytest.MonkeyPatch.context() as patch:
            asked = replace(options, answer=True, predict=True)
            guesses = iter(range(len(study.questions(asked, study.placed_arms(asked)))))
            patch.setattr("builtins.input", lambda question: f"{next(guesses)}")
            told = ss.run(name, store=whole, predict=True, **SMALL[name])
            assert next(guesses, None) is None
        return store, hidden, told, "\n".join(printed), whole

    return run


def texts_of(store, name):
    """All that MLflow shows of a study in words: descriptions, tags, params, names, files."""
    opened = open_store(store)
    experiment = opened.client.get_experiment_by_name(name)
    runs = every_run(opened, experiment.experiment_id)
    found = [*experiment.tags.values()]
    for run in runs:
        found += [run.name, *run.metrics, *run.params.values()]
        found += [text for key, text in run.tags.items() if key != "mlflow.source.git.repoURL"]
    kinds = (".json", ".md", ".csv", ".txt", ".html")
    return [
        *found,
        *(p.read_text(encoding="utf-8") for p in Path(store).rglob("*") if p.suffix in kinds),
    ]


def sentences(text):
    return [part for part in re.split(r"(?<=[.!?:;]) |\n+", text) if len(part) > 20]


@pytest.mark.parametrize("name", EXERCISES)
def test_no_sentence_of_an_answer_is_anywhere(name, seen):
    store, hidden, told, printed, _ = seen(name)
    study = load_study(name)
    options = study.options(**SMALL[name])
    chart = study.picture(options, told.runs, Claims(told.claims))
    claimed = {word for c in told.claims for word in (c.name, c.source)}
    secret = [*sentences(told.answer), chart.title]
    secret += [word for word in claimed if re.search("[ _]", word) and word != "stop_epoch"]
    secret += [part for p in study.doc.split("\n\n") if p.startswith(FORETOLD)
               for part in sentences(" ".join(p.split()))]  # fmt: skip
    pages = [Page(make(read_store(store))).text for make in (report.page, landing.page)]
    shown = "\n".join([printed, *texts_of(store, name), *pages])
    assert len(secret) > 8
    assert [text for text in secret if text in shown] == []
    assert hidden.answer == HIDDEN
    assert HIDDEN in shown


@pytest.mark.parametrize("name", EXERCISES)
def test_neither_stops_nor_telling_arms_are_said(name, seen):
    store, hidden, told, printed, _ = seen(name)
    assert ENDS.search(printed) is None
    assert [arm for arm in hidden.runs if any(word in arm for word in TELLING)] == []
    assert set(hidden.runs) <= set(told.runs)
    for arm in hidden.runs:
        assert f"  {arm:<28} recorded in " in printed
    page = Page(report.page(read_store(store))).text
    assert ENDS.search(page.partition("Run it again")[0].replace("epochs", "")) is None
    assert "predict" not in page.partition("Claims")[2]


@pytest.mark.parametrize("name", EXERCISES)
def test_what_was_measured_stays_and_what_was_foretold_is_not_there(name, seen):
    store, hidden, told, *_ = seen(name)
    opened = open_store(store)
    runs = every_run(opened, opened.experiment(name))
    metrics = {key for run in runs for key in run.metrics}
    assert not [key for key in metrics if "predicted" in key or "claim" in key]
    assert "result/full_loss" in metrics
    assert all(history.predicted == {} for history in hidden.runs.values())
    for arm, history in hidden.runs.items():  # the same numbers
        assert (history.w == told.runs[arm].w).all()
    files = {path.name for path in Path(store).rglob("artifacts/*/*/artifacts/*")}
    assert files <= KNOWN | {*load_study(name).tables}
    (path,) = Path(store).rglob("claims.json")
    assert json.loads(path.read_text(encoding="utf-8")) == []
    assert ss.load_claims(name, store=store).empty
    assert not [column for column in ss.load_runs(name, store=store) if "predicted" in column]


@pytest.mark.parametrize("name", EXERCISES)
def test_charts_have_no_titles_of_the_question(name, seen):
    store = seen(name)[0]
    opened = open_store(store)
    experiment = opened.client.get_experiment_by_name(name)
    label = every_run(opened, experiment.experiment_id)[0].invocation
    view = json.loads(chart_views.of_browser(experiment.tags, label))
    titles = {chart["metricKey"]: chart["displayName"] for chart in view["compareRunCharts"]}
    for key in load_study(name).charts.values():
        assert titles[key] == key


@pytest.mark.parametrize("name", EXERCISES)
def test_every_exercise_asks_in_both_languages_and_keeps_what_it_is_told(name, seen):
    _, _, told, _, store = seen(name)
    study = load_study(name)
    options = study.options(**SMALL[name])
    ask = study.questions(options, told.runs)
    assert ask
    kept = {(c.name, c.arm): c.guess for c in told.claims if c.guess is not None}
    assert kept == {key: float(i) for i, key in enumerate(ask)}
    table = ss.load_claims(name, store=store).dropna(subset="guess")
    assert dict(zip(zip(table.name, table.arm, strict=True), table.guess, strict=True)) == kept
    for claim, arm in ask:  # the question is of one that there is
        assert told.claims[claim, arm] is not None, (claim, arm)
    with speaking("fr"):
        assert not {*study.questions(options, told.runs).values()} & {*ask.values()}


@pytest.mark.parametrize("lang", ["en", "fr"])
@pytest.mark.parametrize("name", list(SMALL))
def test_help_tells_the_hypothesis_only_where_it_is_asked_for(name, lang, capsys, monkeypatch):
    study = load_study(name)
    foretold = [p for p in study.doc.strip().split("\n\n") if p.startswith(FORETOLD)]
    with speaking(lang):
        secret = [" ".join(translated(text).split())[:60] for text in foretold]
        question = " ".join(study.question[:40].split())  # help breaks at fixed spaces too
    assert secret
    for words, is_told in (([], False), (["--no-answer"], False), (["--answer"], True)):
        assert call("run", name, *words, "--help", "--lang", lang) == 0
        shown = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
        assert question in shown
        assert [text in shown for text in secret] == [is_told] * len(secret)


def test_an_arm_that_reveals_is_left_out_and_one_stays(store):
    plain = ss.Arm(small_curve(), lr=0.1, batch_size=10, epochs=1)
    study = ss.Study(
        "/somewhere/reveals.py",
        "Is it?",
        ss.Options,
        lambda o: {"a": plain, "best": plain.but(lr=0.2, reveals=True)},
        lambda o, runs: [ss.Claim("x", "best", float(runs["best"].w[0, 0]))],
        lambda o, runs, claims: "Yes.",
    )
    assert list(study.placed_arms(ss.Options())) == ["a", "best"]
    assert list(study.run(ss.Options(store=store, answer=False), progress=False).runs) == ["a"]
    alone = ss.Study(study.file, "Is it?", ss.Options, lambda o: {"best": plain.but(reveals=True)},
                     study.claims, study.answer)  # fmt: skip
    with pytest.raises(ss.InputError, match="all arms of reveals reveal the answer"):
        alone.run(ss.Options(store=store, answer=False), progress=False)


def test_a_rerun_tells_no_more_and_finds_what_an_older_version_ran(store, monkeypatch):
    """An older version ran the arms that reveal, too."""
    hidden = ss.run("ex6_shuffle", store=store, answer=False, **SMALL["ex6_shuffle"])
    again = rerun(hidden.run_ids["SGD strided"], store=store)
    assert again.difference is None
    assert again.changed == []
    run = find_run(open_store(store), again.run_id)
    assert not [key for key in run.metrics if key.startswith("predicted/")]
    assert {path.name for path in Path(store).rglob(f"{again.run_id}/artifacts/*")} <= KNOWN
    monkeypatch.setattr(Study, "placed_arms", as_before(Study.placed_arms))
    old = ss.run("ex6_shuffle", store=store, answer=False, **SMALL["ex6_shuffle"])
    monkeypatch.undo()
    assert rerun(old.run_ids["worst stretch"], store=store).difference is None


def as_before(placed_arms):
    return lambda study, options: placed_arms(study, replace(options, answer=True))
