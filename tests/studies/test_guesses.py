"""What a reader guesses: asked first, kept beside the claims, shown wherever these are."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import call, one_line, small_curve
from pages import Page
from small import SMALL

import sgdstudy as ss
from sgdstudy.language import speaking
from sgdstudy.report import report
from sgdstudy.studies import guesses
from sgdstudy.studies.scripts import load_study
from sgdstudy.tracking.claims import CLAIM_FIELDS
from sgdstudy.tracking.store import open_store, read_store

OTHERWISE = {
    "ex1_gradient_descent": [{"answer": False}],
    "ex3_batches": [{"ragged": 7, "batch_size": 100}],
    "ex7a_loss": [{"divides": 500, "ragged": 7}, {"divides": 1, "ragged": 3}],
}


def study(**ask):
    return ss.Study(
        "/somewhere/guess_tiny.py",
        "Is it?",
        ss.Options,
        lambda o: {"a": ss.Arm(small_curve(), lr=0.1, batch_size=10, epochs=2)},
        lambda o, runs: [ss.Claim("steps", "a", 12, 12, source="theory"), ss.Claim("x", "a", 0.5)],
        lambda o, runs, claims: "Yes.",
        ask={(name, "a"): question for name, question in ask.items()},
    )


def reply(monkeypatch, *replies):
    """Answer what is asked; return the list that the questions go to."""
    left, questions = list(replies), []

    def one(question):
        questions.append(question)
        return left.pop(0)

    monkeypatch.setattr("builtins.input", one)
    return questions


@pytest.mark.parametrize(
    ("replies", "guess"),
    [
        (["7"], 7.0),
        ([" 1e-3 "], 1e-3),
        (["0,5"], 0.5),
        (["Never"], np.inf),
        (["jamais"], np.inf),
        (["10 000"], 1e4),
        (["10\u00a0000"], 1e4),  # a space at which no line breaks
        (["1\u202f234\u202f567"], 1234567.0),  # a narrow one
        (["1 000,5"], 1000.5),
        (["1,000"], 1e3),
        (["1,234,567.8"], 1234567.8),
        (["-1,000"], -1e3),
        (["\u22122"], -2.0),
        (["0,470"], 0.47),
        (["0,47"], 0.47),
        (["10 00", "1 2", "10 0000", "1,,2", "--3", "7"], 7.0),
        ([""], None),
        (["nan"], None),
        (["seven", "7"], 7.0),
    ],
)
def test_a_guess_is_a_number_or_never_or_none(monkeypatch, capsys, replies, guess):
    questions, tiny = reply(monkeypatch, *replies), study(steps="How many?")
    found = guesses.asked(tiny, ss.Options(predict=True), ["a"])
    assert found == ({} if guess is None else {("steps", "a"): guess})
    assert [question.startswith("How many?") for question in questions] == [True] * len(replies)
    told = capsys.readouterr().out.splitlines()
    assert [line.endswith("is not a number") for line in told] == [True] * (len(replies) - 1)
    assert guesses.asked(tiny, ss.Options(), ["a"]) == {}


@pytest.mark.parametrize(
    ("reply_", "guess"),
    [("1,000", 1.0), ("1,5", 1.5), ("10\u202f000,5", 10000.5), ("1,000,000", 1e6), ("1.5", 1.5)],
)
def test_in_french_a_comma_is_the_decimal_sign(monkeypatch, reply_, guess):
    reply(monkeypatch, reply_)
    with speaking("fr"):
        found = guesses.asked(study(steps="How many?"), ss.Options(predict=True), ["a"])
    assert found == {("steps", "a"): guess}


def test_of_an_arm_that_an_option_leaves_out_nothing_is_asked(monkeypatch):
    """Of what is no arm by default either, as "all arms", a claim may be."""
    arm = ss.Arm(small_curve(), lr=0.1, batch_size=10, epochs=2)
    two = dataclasses.replace(
        study(),
        arms=lambda o: {"a": arm} if o.seeds == 3 else {"a": arm, "b": arm},
        ask={("steps", "a"): "a?", ("steps", "b"): "b?", ("steps", "all arms"): "all?"},
    )
    for seeds, due in ((16, ["a?", "b?", "all?"]), (3, ["a?", "all?"])):
        questions = reply(monkeypatch, *["1"] * 3)
        options = ss.Options(predict=True, seeds=seeds)
        asked = guesses.asked(two, options, two.placed_arms(options))
        assert [question.partition(" ")[0] for question in questions] == due
        assert len(asked) == len(due)


def test_questions_may_depend_on_the_options(monkeypatch):
    of = dataclasses.replace(study(), ask=lambda o: {("steps", "a"): f"With {o.seeds} seeds?"})
    questions = reply(monkeypatch, "1")
    guesses.asked(of, ss.Options(predict=True, seeds=3), ["a"])
    assert questions[0].startswith("With 3 seeds?")


@pytest.mark.parametrize("name", [name for name in SMALL if load_study(name).ask])
def test_a_page_asks_of_its_arms_whatever_the_options(name):
    """And in French nothing is asked in English."""
    page, sets = load_study(name), [{}, SMALL[name], *OTHERWISE.get(name, [])]
    for given in sets:
        options = page.options(**given)
        arms = page.placed_arms(options)
        english = page.questions(options, arms)
        with speaking("fr"):
            french = page.questions(options, arms)
        assert english
        assert english.keys() == french.keys()
        assert not {*english.values()} & {*french.values()}
        assert {arm for _, arm in english} - {*arms} <= {"all"}


def test_guesses_need_an_answer_and_someone_to_ask(store, monkeypatch):
    def nobody(question):
        raise EOFError

    monkeypatch.setattr("builtins.input", nobody)
    for given, says in (({}, "in a terminal"), ({"answer": False}, "drop one")):
        with pytest.raises(ss.InputError, match=says) as error:
            study(steps="How many?").run(ss.Options(store=store, predict=True, **given))
        assert one_line(error)
    assert open_store(store).client.get_experiment_by_name("guess_tiny") is None


def test_a_guess_stands_beside_its_claim_or_for_itself():
    claims = [ss.Claim("steps", "a", 12, 12), ss.Claim("x", "a", 0.5)]
    told = {("steps", "a"): 10.0, ("gone", "a"): 1.0}
    found = guesses.beside(claims, told)
    assert [(c.name, c.measured, c.guess) for c in found] == [
        ("steps", 12, 10.0),
        ("x", 0.5, None),
        ("gone", None, 1.0),
    ]
    assert found["gone"] is None
    assert found[2].kind == "description"


def test_a_guess_is_in_the_file_the_table_and_the_report(store, monkeypatch):
    reply(monkeypatch, "7", "never")
    tiny = study(steps="How many?", x="And x?")
    tiny.run(ss.Options(store=store, predict=True), progress=False)
    (path,) = Path(store).rglob("claims.json")
    listed = json.loads(path.read_text(encoding="utf-8"))
    assert [tuple(claim) for claim in listed] == [CLAIM_FIELDS] * 2
    assert [claim["guess"] for claim in listed] == [7.0, "inf"]
    table = ss.load_claims("guess_tiny", store=store)
    assert table.guess.tolist() == [7.0, np.inf]
    page = Page(report.page(read_store(store))).text
    assert "claim arm your guess expected measured" in page
    assert "steps a 7 12 12" in page
    assert "x a ∞ 0.5" in page


def test_without_a_guess_nothing_is_said_of_guesses(store):
    study().run(ss.Options(store=store), progress=False)
    assert ss.load_claims("guess_tiny", store=store).guess.isna().all()
    assert "guess" not in Page(report.page(read_store(store))).text.replace("guess_tiny", "")


def test_claims_of_an_older_version_have_no_guess(store):
    study().run(ss.Options(store=store), progress=False)
    (path,) = Path(store).rglob("claims.json")
    listed = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps([{k: v for k, v in c.items() if k != "guess"} for c in listed]))
    opened = open_store(store)  # nor did that version write a checksum
    (run,) = [r for r in opened.client.search_runs(["1"]) if r.info.run_name == "answer"]
    opened.client.delete_tag(run.info.run_id, "sgdstudy.crc32.claims.json")
    table = ss.load_claims("guess_tiny", store=store)
    assert list(table) == [*CLAIM_FIELDS[:-1], "guess", "study", "invocation"]
    assert table.guess.isna().all()
    assert "steps a 12 12" in Page(report.page(read_store(store))).text
    assert call("guesses", store, "--out", Path(store).parent / "g.csv") == 0
