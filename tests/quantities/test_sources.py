"""Where the statistics of a problem come from."""

import torch
from conftest import small_curve

import sgdstudy as ss
from sgdstudy.quantities.autograd import Autograd
from sgdstudy.quantities.linear import Linear
from sgdstudy.quantities.sources import source_of


def bent(w, x):
    return torch.tanh(w[0] * x) + w[1]


def test_least_squares_has_closed_forms_and_all_else_torch_func():
    assert isinstance(source_of(small_curve()), Linear)
    assert isinstance(source_of(small_curve(loss="abs")), Autograd)
    x = torch.linspace(-1, 1, 9)
    assert isinstance(source_of(ss.Problem(x, x, bent, w_init=[1.0, 0.0])), Autograd)


def test_it_is_made_once_for_each_problem():
    one, other = small_curve(), small_curve()
    assert source_of(one) is source_of(one)
    assert source_of(one) is not source_of(other)
