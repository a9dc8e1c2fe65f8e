"""The first page of `sgdstudy ui`: what it shows of a store, and where its links lead."""

import re
from pathlib import Path

import pytest
from pages import Page

import sgdstudy as ss
from sgdstudy.language import speaking
from sgdstudy.report import landing, report
from sgdstudy.tracking.store import open_store, read_store


def test_a_store_without_an_answer_says_what_to_do(store):
    open_store(store)
    assert "No study has an answer yet" in landing.page(read_store(store))


@pytest.mark.slow
def test_each_study_has_its_question_its_picture_and_its_ways_on(store):
    result = ss.run("ex3_batches", store=store)
    html = landing.page(read_store(store))
    assert "what does a DataLoader put into each batch?" in html
    assert result.answer.split(".")[0] in html
    run, answer = result.run_ids["shuffle"], result.run_ids["answer"]
    assert f"get-artifact?path=picture.png&amp;run_uuid={answer}" in html
    links = re.findall(r'<a href="([^"]+)"', html)
    own = [link for link in links if "/experiments/" in link]
    assert own
    assert all(link.startswith("/mlflow/#/") for link in own)
    files = {link.rpartition("/artifacts/")[2] for link in own if answer in link}
    assert files == {
        "answer.md",
        "picture.html",
    }  # MLflow shows an empty pane without a file's name
    assert not any(run in link for link in links)
    elsewhere = landing.page(read_store(store), "http://host:5000")
    assert "http://host:5000/#/experiments/" in elsewhere


@pytest.mark.slow
def test_a_hidden_answer_has_no_link_to_it(store):
    ss.run("ex3_batches", store=store, answer=False)
    html = landing.page(read_store(store))
    assert "The answer is hidden" in html
    assert ">Answer<" not in html
    assert ">Charts<" in html


@pytest.mark.slow
def test_the_pages_speak_french(store):
    """An answer stays in the language it was written in; all around it is French."""
    ss.run("ex3_batches", store=store, lang="fr")
    with speaking("fr"):
        first, whole = landing.page(read_store(store)), report.page(read_store(store))
    for html in (first, whole):
        assert '<html lang="fr">' in html
        text = Page(html).text.replace("\u00a0", " ")
        assert "Exercice 3 : que met un DataLoader dans chaque lot ?" in text
        assert "Chacun des 2000 points apparaît une fois par époque" in text
        assert "3 prédictions tiennent ; 3 identités tiennent" in text
        assert not re.search(r"\b(holds?|claims?|studies|the runs?|expected|measured)\b", text)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["answer", "question"])
def test_text_of_people_is_text(store, name, tmp_path):
    script = tmp_path / "mine.py"
    said = "<script>alert(1)</script>"
    doc, answer = (said, "ok") if name == "question" else ("why?", said)
    script.write_text(
        f'"""{doc}"""\nimport sgdstudy as ss\n\n\ndef arms(o):\n'
        f'    yield "a", ss.Arm("curve", lr=1e-4, epochs=1)\n\n\ndef claims(o, runs):\n'
        f'    return []\n\n\ndef answer(o, runs, value):\n    return "{answer}"\n\n\n'
        f"STUDY = ss.study(__name__)\n"
    )
    ss.run(str(script), store=store)
    assert said not in landing.page(read_store(store))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["answer.md", "claims.json"])
def test_a_damaged_answer_is_said_and_the_page_stands(store, name):
    ss.run("ex3_batches", store=store)
    (file,) = Path(store).rglob(f"artifacts/{name}")
    file.write_bytes(b"\xff\xfe\x00 damaged")
    html = landing.page(read_store(store))
    assert "ex3_batches" in html
    assert (f"{name} is left out" in html) == (name == "answer.md")  # the answer stands, else


@pytest.mark.slow
def test_the_report_is_served_with_ways_into_mlflow(store):
    assert "No study has an answer yet" in landing._whole(read_store(store))
    answer = ss.run("ex3_batches", store=store).run_ids["answer"]
    assert 'href="/report"' in landing.page(read_store(store))
    html = landing._whole(read_store(store))
    links = re.findall(r'href="(/[^"]*)"', html)
    assert links[0] == "/"
    assert all(link.startswith("/mlflow/#/experiments/") for link in links[1:])
    assert any(link.endswith(f"/runs/{answer}/artifacts/answer.md") for link in links)
    assert landing._whole(read_store(store)) is html  # as long as there is no other answer
    ss.run("ex3_batches", store=store)
    assert answer not in landing._whole(read_store(store))
