"""Norms, which every row holds: of any number of parameters, of any size."""

import numpy as np
import pytest

from sgdstudy.quantities.chunk import FEW, norm


@pytest.mark.parametrize("p", [1, FEW, FEW + 1, 300])
def test_a_norm_is_that_of_numpy(p):
    vectors = np.random.default_rng(0).normal(size=(5, 3, p))
    others = np.random.default_rng(1).normal(size=(3, p))
    rounding = p * np.finfo(float).eps
    np.testing.assert_allclose(norm(vectors), np.linalg.norm(vectors, axis=-1), rtol=rounding)
    off = np.linalg.norm(vectors - others, axis=-1)
    np.testing.assert_allclose(norm(vectors, others), off, rtol=rounding)
    np.testing.assert_array_equal(norm(vectors[0, 0]), norm(vectors[:, :1])[0, 0])


@pytest.mark.parametrize("p", [1, FEW, FEW + 1, 300])
def test_what_is_too_large_or_no_number_is_no_warning(p):
    large, infinite, none = np.full(p, 1e200), np.full(p, np.inf), np.full(p, np.nan)
    assert norm(large) == norm(infinite) == norm(infinite, large) == np.inf
    assert np.isnan([norm(none), norm(infinite, infinite)]).all()
