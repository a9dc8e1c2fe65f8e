"""How long a study takes without a C++ compiler, said before it begins."""

import pytest
import torch
from conftest import call

import sgdstudy as ss
from sgdstudy.language import speaking
from sgdstudy.studies import duration
from sgdstudy.studies.study import Study

SCRIPT = '''"""Does it run without a compiler?"""
import torch

import sgdstudy as ss


def arms(o):
    x = torch.linspace(-1, 1, 20)
    problem = ss.Problem(x, 2 * x, lambda w, x: w[0] * x, w_init=[0.0])
    yield "two", ss.Arm(problem, lr=0.1, batch_size=5, epochs={epochs})


def claims(o, runs):
    yield ss.Claim("stop_epoch", "two", runs["two"].median_stop)


def answer(o, runs, claims):
    return "It does."


STUDY = ss.study(__name__)
if __name__ == "__main__":
    STUDY.main()
'''


def arms_of(**lengths):
    """An arm for each name, of so many epochs of 10 steps."""
    x = torch.linspace(-1, 1, 20)
    problem = ss.Problem(x, 2 * x, lambda w, x: w[0] * x, w_init=[0.0])
    return {name: ss.Arm(problem, lr=0.1, batch_size=2, epochs=n) for name, n in lengths.items()}


def a_study():
    """A study of 6000 steps."""
    arms = arms_of(one=300, other=300)
    rest = (ss.Options, lambda o: arms, lambda o, runs: [], lambda o, runs, claims: "")
    return Study(__file__, "Is it long?", *rest)


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)


def test_what_is_not_compiled_anyway_does_not_count():
    """Runs below 2000 steps are eager with a compiler too."""
    arms = arms_of(short=199, long=200, longer=300)
    assert duration.steps_of(arms.values(), 1) == 5000
    assert duration.steps_of(arms.values(), 2) == 3000  # no two processes share an arm
    assert duration.steps_of([], 2) == 0
    eager = [arm.but(engine="eager") for arm in arms.values()]
    assert duration.steps_of(eager, 1) == 0


@pytest.mark.parametrize(
    ("system", "mend"),
    [
        ("linux", "apt install g++"),
        ("darwin", "xcode-select --install"),
        ("win32", "MSYS2"),
        ("freebsd14", "clang++"),
    ],
)
def test_a_missing_compiler_is_said_with_how_long_it_takes(no_compiler, monkeypatch, system, mend):
    """Two studies of 6000 eager steps at 0.1 s; one arm of each takes 3000, on two processes.

    That is 10 minutes, and on a busy machine up to twice as many.
    """
    monkeypatch.setattr(duration.sys, "platform", system)
    monkeypatch.setattr(duration, "_seconds_per_step", lambda: 0.1)
    monkeypatch.setattr(duration, "OTHER_STEPS", 0)
    for lang, words in (("en", "takes about 10 to 20 minutes"), ("fr", "de 10 à 20 minutes")):
        with speaking(lang):
            said = duration.for_want_of_a_compiler(
                [a_study(), a_study()], lambda study: study.chosen(), 2
            )
        assert words in said
        assert mend in said
        assert "\n" not in said
        assert ("no C++ compiler" in said) is (lang == "en")


def test_with_a_compiler_nothing_is_said():
    if why := duration.engines.compiler_fault():
        pytest.skip(why)
    assert duration.for_want_of_a_compiler([a_study()], lambda study: study.chosen(), 2) == ""


def test_a_compiler_that_fails_is_named(monkeypatch, tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'error: no licence' >&2\nexit 1\n", encoding="utf-8")
    broken.chmod(0o700)
    monkeypatch.setenv("CXX", str(broken))
    said = duration.for_want_of_a_compiler([a_study()], lambda study: study.chosen(), 2)
    assert said.startswith(f"{broken} failed: error: no licence: torch takes the steps one by one")


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [2, 500])  # 500: 2000 steps, which would be compiled
def test_the_whole_study_says_it_first(no_compiler, tmp_path, monkeypatch, store, capsys, epochs):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "plain.py").write_text(
        SCRIPT.format(epochs=epochs), encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    assert call("study", "--store", store, "--jobs", "1") == 0
    first = next(line for line in capsys.readouterr().out.splitlines() if line)
    says = first.startswith("no C++ compiler (g++ or clang++) was found: torch takes")
    assert says is (epochs == 500)
