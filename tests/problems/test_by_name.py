"""Problems by name: what is kept is the problem that its function makes, and nobody's to change."""

import numpy as np
import pytest
import torch

import sgdstudy as ss
from sgdstudy.problems.by_name import MODULES, PROBLEMS

MOMENTS = ("features", "residual", "w_star", "root")


def numbers(problem):
    """Return all numbers of a problem, by what they are."""
    found = {"x": problem.x, "y": problem.y, "w_true": problem.w_true, "w_init": problem.w_init}
    found |= dict(zip(("test x", "test y"), problem.test or (), strict=False))
    found = {name: v.numpy() for name, v in found.items() if isinstance(v, torch.Tensor)}
    exact = problem.least_squares
    return found | ({} if exact is None else {name: getattr(exact, name) for name in MOMENTS})


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_name_is_the_problem_that_its_function_makes_however_others_were_changed(name):
    made = PROBLEMS[name]()
    for _ in range(2):
        found = ss.problems.get(name)
        assert repr(found) == repr(made)
        assert found.digest == made.digest
        assert torch.equal(found.initial([0, 3]), made.initial([0, 3]))
        expected = numbers(made)
        assert numbers(found).keys() == expected.keys()
        for key, values in numbers(found).items():
            assert np.array_equal(values, expected[key]), key
            values[:] = 7  # in place: those of a caller
        found.name, found.loss = "other", "abs"


def test_what_is_kept_is_a_function_of_parameters_that_start_at_known_values():
    for name, make in PROBLEMS.items():
        problem = make()
        assert (name in MODULES) == isinstance(problem.source, torch.nn.Module)
        assert (name in MODULES) == problem.draws_starts


def test_a_problem_whose_data_a_caller_changed_is_refused_and_its_name_is_not():
    settings = {"lr": 2e-4, "batch_size": 100, "epochs": 1}
    history = ss.train("curve", **settings)
    history.problem.x[0] = 3.0
    with pytest.raises(ss.InputError, match="changed since"):
        ss.train(history.problem, **settings)
    assert np.array_equal(ss.train("curve", **settings).w, history.w)


def test_what_a_caller_has_set_in_torch_is_not_in_it():
    with torch.inference_mode():
        assert not ss.problems.get("curve").x.is_inference()
