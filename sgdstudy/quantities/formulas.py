"""The quantities: each a pure function of a chunk, `(S, R)`, NaN where it is not defined.

g_i is the gradient of sample i's loss at w, g their mean over the batch of B samples, H the
Hessian of the batch loss. A fraction with 0 below is NaN; so is what divides by B - 1 at B = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from sgdstudy.quantities.chunk import Chunk, norm, ratio

Quantity = TypeVar("Quantity", bound=Callable[..., "np.ndarray | None"])


def needs(*statistics: str) -> Callable[[Quantity], Quantity]:
    """Declare which `Statistics` a quantity asks for, so that all are found in one pass."""

    def declare(quantity: Quantity) -> Quantity:
        quantity.needs = frozenset(statistics)  # type: ignore[attr-defined]
        return quantity

    return declare


def distance(chunk: Chunk) -> np.ndarray:
    """Distance to the true parameters, |w - w_true|; NaN where they are not known."""
    if chunk.w_true is None:
        return np.full(chunk.loss.shape, np.nan)
    return norm(chunk.path[:-1], chunk.w_true)


def distance_start(chunk: Chunk) -> np.ndarray:
    """Distance to the parameters the run started from, |w - w_start|."""
    if chunk.from_start is not None:
        return chunk.from_start
    return norm(chunk.path[:-1], chunk.w_start)


def grad_cosine(chunk: Chunk) -> np.ndarray:
    """Cosine of the angle between batch and full gradient; NaN where either is zero."""
    full = chunk.full
    slopes = full.of(chunk.slopes).astype(float)
    product = np.einsum("...p,...p->...", slopes, full.vectors)
    return full.put(product / (norm(slopes) * full.of(chunk.full_grad_norm)))


# ---- noise of the gradient within the batch -----------------------------------------------------


@needs("scatter")
def trace_sigma(chunk: Chunk) -> np.ndarray:
    """Trace of the covariance of the samples' gradients, sum_i |g_i - g|^2 / (B - 1).

    Unbiased for independent samples; units of the squared gradient.
    """
    return ratio(chunk.statistics["scatter"], _size(chunk) - 1)


@needs("scatter", "square")
def noise_scale(chunk: Chunk) -> np.ndarray:
    """Simple gradient noise scale tr(Sigma) / |g|^2, in samples (McCandlish et al. 2018, eq. 2.9).

    |g|^2 is that of the batch and so holds tr(Sigma) / B of noise: seldom much above B.
    """
    return ratio(trace_sigma(chunk), chunk.statistics["square"])


@needs("scatter", "square")
def noise_scale_two_batch(chunk: Chunk) -> np.ndarray:
    """Noise scale without that bias, S / G2, G2 = |g|^2 - S / B, S = tr(Sigma), in samples.

    The estimators of McCandlish et al. 2018 (appendix A.1) for the sizes 1 and B within the
    batch. NaN where G2 <= 0: the batch is too small to see the gradient.
    """
    noise = trace_sigma(chunk)
    signal = chunk.statistics["square"] - noise / _size(chunk)
    return ratio(noise, np.where(signal > 0, signal, np.nan))


@needs("scatter", "square")
def norm_test(chunk: Chunk) -> np.ndarray:
    """Norm test, sqrt(sum |g_i - g|^2 / ((B - 1) B |g|^2)) (Byrd et al. 2012, eq. 3.9)."""
    return np.sqrt(ratio(trace_sigma(chunk) / _size(chunk), chunk.statistics["square"]))


@needs("along")
def inner_test(chunk: Chunk) -> np.ndarray:
    """Inner product test, sqrt(sum ((g_i - g).g)^2 / ((B - 1) B |g|^4)).

    Bollapragada, Byrd, Nocedal 2018, eq. 2.6. Its square and that of `ortho_test` add up to that
    of `norm_test`.
    """
    return np.sqrt(ratio(chunk.statistics["along"], _size(chunk) * (_size(chunk) - 1)))


@needs("across", "square")
def ortho_test(chunk: Chunk) -> np.ndarray:
    """Orthogonality test, sqrt(sum |g_i - g - ((g_i - g).g / |g|^2) g|^2 / ((B - 1) B |g|^2)).

    Bollapragada, Byrd, Nocedal 2018, eq. 3.3.
    """
    across = ratio(chunk.statistics["across"], _size(chunk) * (_size(chunk) - 1))
    return np.sqrt(ratio(across, chunk.statistics["square"]))


@needs("snr")
def gsnr(chunk: Chunk) -> np.ndarray:
    """Mean gradient signal-to-noise ratio, mean_j g_j^2 / var_j, var over B (Liu et al. 2020).

    Parameters on which no sample of the batch has a gradient are left out; NaN where another
    has no variance.
    """
    return chunk.statistics["snr"]


@needs("snr")
def early_stopping(chunk: Chunk) -> np.ndarray:
    """Evidence-based criterion, 1 - B mean_j g_j^2 / var_j, var over B - 1: stop above 0.

    Mahsereci et al. 2017, eq. 7. Equals 1 - (B - 1) gsnr.
    """
    return np.where(_size(chunk) > 1, 1 - (_size(chunk) - 1) * chunk.statistics["snr"], np.nan)


@needs("scatter")
def cabs(chunk: Chunk) -> np.ndarray:
    """Batch size that CABS proposes, lr tr(Sigma) / L, in samples (Balles et al. 2017, eq. 22).

    For losses whose least value is near 0.
    """
    return ratio(chunk.lr * trace_sigma(chunk), chunk.loss)


@needs("histogram")
def grad_histogram(chunk: Chunk) -> np.ndarray:
    """Counts `(S, R, 13)` of the elements of all g_i, in fixed bins.

    Edges -1e4, -1e2, -1, -1e-2, -1e-4, -1e-6 and the same above 0; a bin holds its lower edge.
    """
    return chunk.statistics["histogram"]


# ---- curvature ----------------------------------------------------------------------------------


@needs("alpha")
def alpha(chunk: Chunk) -> np.ndarray:
    """Where the update lands on the batch loss along it: 0 its minimum, 1 the other side.

    -(g(w_next).s) / (g(w).s) for the true update s = w_next - w, whatever rule made it: t / t* - 1
    on the parabola with the slopes at both ends (Schneider et al. 2021, section 2.1). Where the
    loss bends down it is below -1. For plain SGD on a quadratic: lr g'Hg / g'g - 1.
    """
    return chunk.statistics["alpha"]


@needs("hess_max_eig")
def hess_max_eig(chunk: Chunk) -> np.ndarray:
    """Largest eigenvalue of the Hessian of the batch loss."""
    return chunk.statistics["hess_max_eig"]


@needs("hess_trace")
def hess_trace(chunk: Chunk) -> np.ndarray:
    """Trace of the Hessian of the batch loss."""
    return chunk.statistics["hess_trace"]


@needs("hess_max_eig")
def lr_sharpness(chunk: Chunk) -> np.ndarray:
    """Step size times `hess_max_eig`: plain descent on this batch alone grows above 2."""
    return chunk.lr * chunk.statistics["hess_max_eig"]


@needs("scatter", "hess_trace")
def tic(chunk: Chunk) -> np.ndarray:
    """Takeuchi's criterion by traces, tr(Sigma) / tr(H) (Thomas et al. 2020), units of the loss."""
    return ratio(trace_sigma(chunk), chunk.statistics["hess_trace"])


# ---- all the data -------------------------------------------------------------------------------


@needs("full_trace_sigma")
def full_trace_sigma(chunk: Chunk) -> np.ndarray:
    """Trace of the covariance of all samples' gradients, over d: `theory.trace_sigma`."""
    return chunk.statistics["full_trace_sigma"]


@needs("full_trace_sigma", "full_square")
def full_noise_scale(chunk: Chunk) -> np.ndarray:
    """Gradient noise scale of all the data, in samples: `theory.noise_scale`."""
    return ratio(chunk.statistics["full_trace_sigma"], chunk.statistics["full_square"])


@needs("full_hess_max_eig")
def full_hess_max_eig(chunk: Chunk) -> np.ndarray:
    """Largest eigenvalue of the Hessian of the loss of all the data."""
    return chunk.statistics["full_hess_max_eig"]


@needs("full_hess_trace")
def full_hess_trace(chunk: Chunk) -> np.ndarray:
    """Trace of the Hessian of the loss of all the data."""
    return chunk.statistics["full_hess_trace"]


def _size(chunk: Chunk) -> np.ndarray:
    return chunk.size.astype(float)[:, None]
