"""Sums over the batches of an epoch: one by one, whatever is added at once."""

import numpy as np
import pytest

from sgdstudy.training.recorded import sum_batches, sum_weighted


def one_by_one(values, weights):
    """The definition, number by number, in float64: `(E, m, R, p)` over m."""
    total = np.zeros((len(values), *values.shape[2:]))
    for place in np.ndindex(total.shape):
        for k, weight in enumerate(weights):
            epoch, *rest = place
            total[place] += float(values[(epoch, k, *rest)]) * float(weight)
    return total


@pytest.mark.parametrize("shape", [(1, 40, 1, 1), (3, 40, 2, 3), (1, 40, 400, 3), (2, 7, 1, 700)])
@pytest.mark.parametrize("cut", [0, 1, 6])
def test_a_sum_is_the_same_to_the_last_bit_wherever_a_chunk_ends(shape, cut):
    draw = np.random.default_rng(0)
    values = draw.lognormal(size=shape).astype(np.float32)
    weights = draw.integers(1, 11, size=shape[1])
    before = sum_weighted(values[:, :cut], weights[:cut], None) if cut else None
    found = sum_weighted(values[:, cut:], weights[cut:], before)
    assert np.array_equal(found, one_by_one(values, weights))
    plain = values.astype(float)
    before = sum_batches(plain[:, :cut], None) if cut else None
    found = sum_batches(plain[:, cut:], before)
    assert np.array_equal(found, one_by_one(values, np.ones(shape[1])))
