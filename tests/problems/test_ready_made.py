"""Problems by name: what they are made of, against its definition."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import sgdstudy as ss
from sgdstudy.problems.ready_made import tanh_network


def test_a_stream_goes_on_with_its_true_parameters_from_block_to_block():
    start, moves = np.array([[0.3], [-1.7], [2.5]]), np.array([[1e-3], [0.0], [-2e-3]])
    problem = ss.problems.drifting_parabola(moves[:, 0], noise=0.0)
    blocks = itertools.islice(problem.stream(torch.Generator().manual_seed(0)), 2)
    x, y = (torch.cat(part).numpy() for part in zip(*blocks, strict=True))
    w = start + moves * np.arange(len(x))  # the number of a sample is that of its step
    assert np.allclose(y, w[0] * x**2 + w[1] * x + w[2], rtol=1e-12, atol=1e-12)
    assert np.abs(x).max() <= 1
    assert abs(x.mean()) < 4 / (3 * len(x)) ** 0.5  # uniform on +-1: a variance of 1 / 3


def test_what_is_held_out_is_not_trained_on():
    """Together they are the data, each sample as often as there, with its class."""
    digits = ss.problems.digits(hidden=1)
    parts = [(digits.x, digits.y), digits.test]
    rows = np.vstack([np.column_stack([x.numpy(), y.numpy()]) for x, y in parts])
    x, classes = load_digits(return_X_y=True)
    expected = np.column_stack([x / 16, classes])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, expected))


def test_weights_start_uniform_over_the_root_of_the_inputs():
    network, start = tanh_network(64, 32, 10)
    w, sizes = start(torch.Generator().manual_seed(0)), [p.numel() for p in network.parameters()]
    first, bias, last, other = w.double().split(sizes)
    assert not bias.any()
    assert not other.any()
    for weights, inputs in ((first, 64), (last, 32)):
        u = weights * inputs**0.5  # uniform on +-1: u^2 has mean 1 / 3 and variance 4 / 45
        assert u.abs().max() <= 1 + 1e-6  # float32
        assert abs((u**2).mean() - 1 / 3) < 4 * (4 / 45 / len(u)) ** 0.5


@pytest.mark.parametrize(
    ("degree", "polynomial"),
    [(1, [1, 0]), (2, [2, 0, -1]), (3, [4, 0, -3, 0]), (4, [8, 0, -8, 0, 1])],
)
def test_the_targets_are_the_chebyshev_polynomial(degree, polynomial):
    problem = ss.problems.chebyshev(degree, width=2, d=11)
    x = np.linspace(-1, 1, 11)
    assert np.array_equal(problem.x[:, 0], x)
    assert np.allclose(problem.y[:, 0], np.polyval(polynomial, x), rtol=0, atol=1e-13)
