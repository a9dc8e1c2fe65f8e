"""What the losses and gradients of the batches say of all the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sgdstudy.problems.least_squares import LeastSquares


@dataclass(frozen=True)
class Gap:
    """What separates a mean of batch losses from the loss of all the data at the epoch's end.

    With n_b samples of d in batch b, met at the parameters w_b, the running loss is
    sum (n_b / d) L_b(w_b), and running - L(w_end) = drift + sampling. The plain mean of the
    batch losses adds the weighting: mean - L(w_end) = drift + sampling + weighting.

    Attributes:
        drift: sum (n_b / d) [L(w_b) - L(w_end)]: the parameters were worse on the way.
        sampling: sum (n_b / d) [L_b(w_b) - L(w_b)]: a batch is not the whole.
        weighting: sum (1 / m - n_b / d) L_b(w_b): a short batch counts as a full one.
    """

    drift: float
    sampling: float
    weighting: float


def gap(loss: np.ndarray, full_loss: np.ndarray, size: np.ndarray, full_end: float) -> Gap:
    """Split the gap of one epoch from its steps, `(m,)` each, and the loss at its end."""
    share = size / size.sum()
    drift = float(share @ (full_loss - full_end))
    weighting = float(loss.mean() - share @ loss)
    return Gap(drift, float(share @ (loss - full_loss)), weighting)


def triangle_bounds(norm: float, m: int) -> tuple[float, float]:
    """Return the least and the largest sum of the norms of m parts of a vector of this norm.

    |r| <= sum |r_b| <= sqrt(m) |r|: the triangle inequality and Cauchy-Schwarz.
    """
    return norm, np.sqrt(m) * norm


def jensen_bounds(rmse: float, size: np.ndarray) -> tuple[float, float]:
    """Return the least and the largest weighted mean of the batches' root mean squares.

    sqrt(min n_b / d) RMSE <= sum (n_b / d) RMSE_b <= RMSE: at fixed parameters the squares
    average to RMSE^2, and the root is concave (Jensen).
    """
    return float(np.sqrt(size.min() / size.sum())) * rmse, rmse


def gradients(ls: LeastSquares, w: np.ndarray, d: int) -> np.ndarray:
    """Return the gradient of every sample's loss at w, `(d, p)`."""
    error = ls.features @ (np.asarray(w, dtype=float) - ls.w_star) + ls.residual
    rows = 2 * error[:, None] * ls.features
    return rows.reshape(d, -1, rows.shape[1]).mean(1)


def trace_sigma(ls: LeastSquares, w: np.ndarray, d: int) -> float:
    """Return tr(Sigma), the trace of the covariance of the samples' gradients at w (over d)."""
    return float(gradients(ls, w, d).var(0).sum())


def noise_scale(ls: LeastSquares, w: np.ndarray, d: int) -> float:
    """Return the gradient noise scale tr(Sigma) / |g|^2 (McCandlish et al. 2018).

    Infinite where the gradient is exactly 0, and NaN, not defined, where its samples' are too.
    """
    g = gradients(ls, w, d).mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.divide(trace_sigma(ls, w, d), g @ g))


def mean_square_batch_norm(ls: LeastSquares, w: np.ndarray, d: int, batch_size: int) -> float:
    """Return E|g_B|^2 over batches drawn without replacement.

    |g|^2 + tr(Sigma) (d - B) / (B (d - 1)), the last factor that of a finite population.
    """
    g = gradients(ls, w, d).mean(0)
    return float(g @ g) + trace_sigma(ls, w, d) * finite_share(d, batch_size)


def batch_norm_spread(
    ls: LeastSquares, w: np.ndarray, d: int, batch_size: int, draws: int = 400
) -> float:
    """Return the standard deviation of an epoch's mean |g_B|^2 at w, from one order to another.

    The mean is over the whole batches of a random partition of the samples; its law has no simple
    closed form, and is drawn, from a generator of its own.

    Args:
        w: the parameters, which stay where they are.
        batch_size: B; a short last batch is left out.
        draws: random partitions, two at least.
    """
    draw, each, whole = np.random.default_rng(0), gradients(ls, w, d), d // batch_size * batch_size
    means = []
    for _ in range(draws):
        batches = draw.permutation(each)[:whole].reshape(-1, batch_size, each.shape[1])
        means.append((batches.mean(1) ** 2).sum(1).mean())
    return float(np.std(means, ddof=1))


def two_batch_estimate(small: float, few: int, large: float, many: int) -> float:
    """Return the estimate of |g|^2 from the mean squares of batches of two sizes, b < B.

    (B |g_B|^2 - b |g_b|^2) / (B - b), without bias for independent samples (McCandlish et al. 2018,
    appendix A.1); without replacement `two_batch_bias` is its error. NaN for equal sizes.

    Args:
        small: mean of |g_b|^2.
        few: b, samples in a small batch.
        large: mean of |g_B|^2.
        many: B, samples in a large one.
    """
    return float((many * large - few * small) / (many - few)) if many != few else np.nan


def finite_share(d: int, batch_size: int) -> float:
    """Return (d - B) / (B (d - 1)): the covariance of a batch's mean over that of a sample.

    For batches of B of d samples drawn without replacement; 1 / B with.
    """
    return (d - batch_size) / (batch_size * max(d - 1, 1))


def two_batch_bias(ls: LeastSquares, w: np.ndarray, d: int) -> float:
    """Return how far the two-batch estimate of |g|^2 is off without replacement, on average.

    `two_batch_estimate` is unbiased for independent samples; drawn without replacement its mean is
    off by
    -tr(Sigma) / (d - 1), whatever the sizes (put E|g_B|^2 of `mean_square_batch_norm` in).
    """
    return -trace_sigma(ls, w, d) / max(d - 1, 1)


def lucky_share(
    ls: LeastSquares, ws: np.ndarray, d: int, batch_size: int, level: float, draws: int
) -> np.ndarray:
    """Return the share of random batches whose loss is below a level, by parameters.

    At parameters w a batch of B independent draws has the loss mean_i r_i(w)^2; how often that is
    below a level has no closed form, and is counted over batches from a generator of its own.

    Args:
        ws: `(k, ..., p)`.
        batch_size: B, drawn with replacement.
        level: of the loss.
        draws: batches at each of the parameters.

    Returns:
        `(k, ...)`, multiples of 1 / draws.

    Example:
        >>> import sgdstudy as ss
        >>> ls = ss.problems.curve().least_squares  # all samples agree at the minimum
        >>> lucky_share(ls, np.stack([ls.w_star, ls.w_star + 9]), 2000, 10, 0.1, 50)
        array([1., 0.])
    """
    generator, chance = np.random.default_rng(0), []
    features, residual = ls.features.reshape(d, -1, len(ls.w_star)), ls.residual.reshape(d, -1)
    for z in np.asarray(ws, dtype=float) - ls.w_star:  # all at once may not fit in memory
        batch = generator.integers(d, size=(*z.shape[:-1], draws, batch_size))
        error = np.einsum("...kbop,...p->...kbo", features[batch], z) + residual[batch]
        chance.append(((error**2).mean((-2, -1)) < level).mean(-1))
    return np.array(chance)
