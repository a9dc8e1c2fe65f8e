"""What studies answer where some of their claims cannot be judged, and the options they take."""

from typing import Any

import numpy as np
import pytest

import sgdstudy as ss
from sgdstudy.language import speaking
from sgdstudy.studies.claims import Claims
from sgdstudy.studies.scripts import load_study


def said(page, function, claims):
    """What a function of a study's answer says of these claims."""
    with speaking("en"):
        found = load_study(page).answer.__globals__[function](Claims(claims))
        return " ".join(str(text) for text in found)


def claim(name, arm, measured):
    """A claim that cannot be judged where nothing is expected: None."""
    due = ss.Known(1.0, 0.4, "theory")
    return ss.Claim(name, arm, measured, due) if measured else ss.Claim(name, arm, 1.0)


@pytest.mark.parametrize(
    ("measured", "says"),
    [
        ([1.1, 0.9, 1.0], ["3", "within"]),
        ([1.1, 0.9, 2.0], ["Of 3 entries", "3 are known", "2 of these"]),
        ([1.1, 2.0, None], ["Of 3 entries", "2 are known", "1 of these"]),
        ([None, None, None], []),
    ],
)
def test_entries_that_cannot_be_judged_are_told_apart(measured, says):
    names = ("covariance_w0_w0", "covariance_w0_w1", "covariance_w1_w1")
    claims = [claim(name, "a", x) for name, x in zip(names, measured, strict=True)]
    found = " ".join(said("study_stationary_covariance", "entries", claims).split())
    assert all(part in found for part in says), found
    assert bool(says) == bool(found)


@pytest.mark.parametrize(
    ("measured", "says"),
    [([1.1, 0.9], True), ([1.1, 2.0], False), ([1.1, None], False), ([None, None], False)],
)
def test_steps_are_those_of_theory_only_if_all_were_judged(measured, says):
    arms = ("kappa=16, descent, one sample", "kappa=16, Nesterov, one sample")
    claims = [claim("steps_to_target", arm, x) for arm, x in zip(arms, measured, strict=True)]
    assert bool(said("study_momentum_noise", "held", claims)) == says


@pytest.mark.parametrize("target", [0.0, 9e-5, 0.5])
def test_targets_that_few_paths_decide_are_refused(target):
    study, given = load_study("study_momentum_noise"), dict[str, Any](target=target)
    with pytest.raises(ss.InputError, match=r"target is at least 0\.0001 and below 0\.5"):
        study.placed_arms(study.options(**given))


def test_each_batch_size_gets_shares_of_its_own_limit():
    study = load_study("study_stationary_covariance")
    for name, arm in study.placed_arms(study.options(seeds=1)).items():
        share = float(name.split(", ")[1].split()[0])
        limit = float(ss.expect(arm).mean_square_lr_limit)
        assert arm.config.lr == ss.rounded(share * limit), name


def test_growing_batches_and_a_falling_step_have_one_ratio_of_lr_and_size():
    study = load_study("study_batch_growth")
    arms = study.placed_arms(study.options(seeds=1))
    cases = {name.split(", ")[0] for name in arms}
    assert len(cases) == 4
    for case in cases:
        seen = []
        for way in ("lr falls", "B grows"):
            arm = arms[f"{case}, {way}"]
            phases = arm.config.phases(arm.problem.d)
            steps = phases.steps_before(np.arange(arm.config.epochs))
            seen.append(arm.config.rates(arm.problem.d)(steps) / phases.sizes_of_steps()[steps])
        assert np.allclose(*seen, rtol=1e-12)
        assert seen[0][0] / seen[0][-1] == pytest.approx(4 if case == "shuffled" else 9)


@pytest.mark.parametrize(
    ("measured", "says"),
    [([1.1, 0.9], True), ([1.1, 2.0], False), ([1.1, None], True), ([None, None], False)],
)
def test_losses_are_those_of_theory_only_if_each_that_was_judged_is(measured, says):
    arms = ("small steps, lr falls", "small steps, B grows")
    claims = [claim("excess_2", arm, x) for arm, x in zip(arms, measured, strict=True)]
    assert bool(said("study_batch_growth", "held", claims)) == says
