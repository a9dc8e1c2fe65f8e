"""Nothing that a page shows is left in English: it is read in a language whose letters are others.

Every text of the code is translated into itself, written in Cyrillic letters. What is in Latin
letters then was never said: the names of arms, options, columns, and what is no language at all.
"""

import re
import string
from dataclasses import replace
from functools import cache

import pytest
from matplotlib.text import Text
from small import SMALL

import sgdstudy as ss
from sgdstudy import language
from sgdstudy.cli.catalogue import texts
from sgdstudy.figures import Chart
from sgdstudy.language import Catalogue, speaking
from sgdstudy.recipe import columns, named_orders, stop
from sgdstudy.studies.arm import in_charts
from sgdstudy.studies.claims import Claims
from sgdstudy.studies.outcome import Runs
from sgdstudy.studies.scripts import load_study

pytestmark = pytest.mark.slow
LETTERS = str.maketrans(string.ascii_letters, "абвгдежзийклмнопрстуфхцчшщ" * 2)
KEPT = re.compile(r"(\{[^}]*\}|`[^`]*`|<[^>]*>|\$[^$]*\$)")  # values, code, marks, mathematics
# what is the same in every language: of code, of mathematics, and of persons
NAMES = {
    *("SGD", "RMSprop", "Nesterov", "Muon", "MSE", "loss", "shuffle", "sequential", "True"),
    *("exp", "log", "max", "min", "abs", "mse", "rmse", "norm", "curve", "diabetes", "digits"),
    *(name for table in columns.TABLES.values() for name in table),
    *named_orders.ORDERS,
    *stop.STOP_COLUMNS,
}


def in_other_letters(text):
    parts = KEPT.split(text)
    return "".join(part.translate(LETTERS) if i % 2 == 0 else part for i, part in enumerate(parts))


@pytest.fixture(scope="module")
def other():
    """A language in which every text of the code is known, in letters of its own."""
    known = {
        one: tuple(in_other_letters(form) for form in (one, found.many) if form)
        for one, found in texts().items()
        if one
    }
    return Catalogue(known, decimal=",")


@pytest.fixture
def spoken(other, monkeypatch):
    monkeypatch.setattr(language, "catalogue", lambda name: other)
    with speaking("fr"):
        yield


def left(told, names):
    """The words of a text in Latin letters that are no names."""
    told = re.sub(r"`[^`]*`|\$[^$]*\$|<[^>]*>|\b\w+=\S+", " ", told)
    for name in sorted(names, key=len, reverse=True):
        told = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", " ", told)
    return [word for word in re.findall(r"\w*[A-Za-z]{3,}\w*", told) if word not in NAMES]


@cache
def trained(page):
    """The study, its options, arms and runs at its small size; nothing is tracked."""
    study = load_study(page)
    options = study.options(**SMALL[page])
    runs = {}
    for name, arm in in_charts(study.placed_arms(options)).items():
        history = ss.train(arm.problem, config=arm.config, progress=False)
        runs[name] = replace(history, color=arm.color)
    return study, options, Runs(runs)


def drawn(figure):
    """The words of a figure."""
    if isinstance(figure, Chart):
        yield from (figure.title, figure.note)
        for panel in figure.panels:
            yield from (panel.title, panel.x, panel.y, *panel.levels, *panel.marks)
            yield from (line.label for line in panel.lines)
    else:
        yield from (text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("page", list(SMALL))
def test_purposes_sources_answers_and_figures_are_said(page, spoken):
    study, options, runs = trained(page)
    arms = study.placed_arms(options)
    names = {*arms, *(part for arm in arms for part in re.split(": |, ", arm))}
    found = {name: language.translated(arm.about) for name, arm in arms.items()}
    claims = Claims(study.claimed(options, runs))
    found |= {(c.name, c.arm): language.translated(c.source) for c in claims}
    # one that is a name too, as "constant", is said all the same
    unsaid = {text for text in found.values() if text.isascii() and left(text, ())}
    assert unsaid <= {arm.config.optimizer for arm in arms.values()}
    names |= {c.arm for c in claims}
    found |= dict(enumerate(study.answered(options, runs, claims)))
    found |= {f"asked {key}": text for key, text in study.questions(options, arms).items()}
    found["about"] = study.about(told=True)
    found |= {title: language.translated(title) for title in study.charts}
    if study.picture is not None:
        chart = study.picture(options, runs, claims)
        found |= {f"picture {i}": text for i, text in enumerate(drawn(chart))}
    for name, draw in study.drawn(runs):
        found |= {f"{name} {i}": text for i, text in enumerate(drawn(draw()))}
    assert {place: text for place, text in found.items() if left(text, names)} == {}
