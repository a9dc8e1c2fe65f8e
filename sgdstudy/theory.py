"""What theory expects of a least-squares problem, before anything runs.

Pure float64 functions of `LeastSquares` (features, minimiser, Hessian H, least loss L*). With
z = w - w* the loss is L* + z^T H z / 2, a full-batch step is z -> (I - lr H) z, and a step on a
batch b is z -> (I - lr H_b) z - lr g_b, g_b the batch's gradient at w*.
"""

from __future__ import annotations

from dataclasses import dataclass

import mpmath
import numpy as np
from scipy.optimize import minimize_scalar

from sgdstudy.config import TrainConfig
from sgdstudy.errors import InputError
from sgdstudy.least_squares import LeastSquares
from sgdstudy.orders import Sampler
from sgdstudy.problem import Problem

DIGITS = 120  # products of 200 factors may grow by 10^50 and cancel

# ---- full-batch descent ----------------------------------------------------------------------


def moments(problem: Problem) -> LeastSquares:
    """Return the problem's moments.

    Raises:
        InputError: the loss is not `mse` or the model is not linear in w.
    """
    if problem.least_squares is None:
        raise InputError(
            f"theory needs a model linear in w under loss 'mse'; {problem.name!r} is not"
        )
    return problem.least_squares


def eigenvalues(ls: LeastSquares) -> np.ndarray:
    """Return the eigenvalues of the Hessian, `(p,)`, smallest first."""
    return np.linalg.eigvalsh(ls.hessian)


def lr_limit(ls: LeastSquares) -> float:
    """Return 2 / lambda_max, the step size beyond which full-batch descent diverges."""
    return 2 / eigenvalues(ls)[-1]


def lr_best_asymptotic(ls: LeastSquares) -> float:
    """Return 2 / (lambda_min + lambda_max), the step size of the best rate per epoch (Polyak)."""
    spectrum = eigenvalues(ls)
    return 2 / (spectrum[0] + spectrum[-1])


def descent_loss(ls: LeastSquares, w0: np.ndarray, lr: float, k: np.ndarray) -> np.ndarray:
    """Return the loss after k full-batch steps from w0.

    L(w_k) = L* + sum_j (lambda_j / 2) c_j^2 (1 - lr lambda_j)^(2k), c the coordinates of w0 - w*
    along the eigenvectors.
    """
    spectrum, vectors = np.linalg.eigh(ls.hessian)
    c = (np.asarray(w0, dtype=float) - ls.w_star) @ vectors
    with np.errstate(over="ignore"):
        powers = ((1 - lr * spectrum) ** 2) ** np.asarray(k)[..., None]
        return ls.least_loss + (spectrum / 2 * c**2 * powers).sum(-1)


def descent_w(ls: LeastSquares, w0: np.ndarray, lr: float, k: int) -> np.ndarray:
    """Return the parameters `(p,)` after k full-batch steps from w0."""
    spectrum, vectors = np.linalg.eigh(ls.hessian)
    c = (np.asarray(w0, dtype=float) - ls.w_star) @ vectors
    return ls.w_star + vectors @ ((1 - lr * spectrum) ** k * c)


def descent_stop(ls: LeastSquares, w0: np.ndarray, lr: float, epsilon: float) -> float:
    """Return the epoch (from 1) at which full-batch descent stops; infinite if it never does.

    The loss is read before the update, as in the notebook: epoch k + 1 stops when
    L(w_k) < epsilon. Within the stability limit the loss only falls, so bisection finds it.
    """
    if descent_loss(ls, w0, lr, np.array(0)) < epsilon:
        return 1.0
    if lr >= lr_limit(ls) or epsilon <= ls.least_loss:
        return np.inf
    low, high = 0, 1
    while descent_loss(ls, w0, lr, np.array(high)) >= epsilon:
        low, high = high, 2 * high
        if high > 2**52:
            return np.inf
    while high - low > 1:
        middle = (low + high) // 2
        below = descent_loss(ls, w0, lr, np.array(middle)) < epsilon
        low, high = (low, middle) if below else (middle, high)
    return float(high + 1)


def lr_best_for_epsilon(ls: LeastSquares, w0: np.ndarray, epsilon: float) -> float:
    """Return the constant step size that reaches epsilon in the fewest full-batch epochs.

    The epochs are taken as a real number, -> the minimum is found between 0 and the limit.
    """
    limit = lr_limit(ls)

    def epochs(lr: float) -> float:
        stop = descent_stop(ls, w0, lr, epsilon)
        if not np.isfinite(stop) or stop < 2:
            return stop
        k = np.array([stop - 2, stop - 1])  # last loss above, first below
        above, below = np.log(descent_loss(ls, w0, lr, k) - ls.least_loss)
        target = np.log(epsilon - ls.least_loss)
        return float(k[0] + (above - target) / (above - below))

    grid = limit * np.linspace(0.02, 0.999, 200)
    best = int(np.argmin([epochs(lr) for lr in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    return float(minimize_scalar(epochs, bounds=around, method="bounded").x)


def growth_per_epoch(ls: LeastSquares, lr: float) -> float:
    """Return the factor of the loss per full-batch epoch far beyond the limit.

    (1 - lr lambda_max)^2.
    """
    return float((1 - lr * eigenvalues(ls)[-1]) ** 2)


def float32_floor(ls: LeastSquares, lr: float) -> float:
    """Return the excess loss at which float32 descent stops moving.

    Parameters move no more once lr lambda_min |delta| < ulp(w) / 2 along the flattest direction:
    floor = ulp(w)^2 / (8 lr^2 lambda_min), w the largest component of that eigenvector's share.
    """
    spectrum, vectors = np.linalg.eigh(ls.hessian)
    slow = int(np.argmax(np.abs(vectors[:, 0])))
    ulp = float(np.spacing(np.float32(abs(ls.w_star[slow]))))
    return ulp**2 / (8 * lr**2 * spectrum[0])


# ---- a given order of the samples ------------------------------------------------------------


@dataclass(frozen=True)
class Batches:
    """The batches of one epoch, as maps z -> (I - lr H_b) z - lr g_b.

    Attributes:
        hessians: `(m, p, p)`.
        gradients: `(m, p)`, at w*.
        losses: `(m,)`, at w*.
        sizes: `(m,)`, samples.
    """

    hessians: np.ndarray
    gradients: np.ndarray
    losses: np.ndarray
    sizes: np.ndarray

    def factors(self, lr: float) -> np.ndarray:
        """Return I - lr H_b, `(m, p, p)`."""
        return np.eye(self.hessians.shape[1]) - lr * self.hessians


def batches(problem: Problem, config: TrainConfig, epoch: int = 1) -> Batches:
    """Return the batches that the first seed of a configuration meets in an epoch (from 1)."""
    ls = moments(problem)
    sizes = config.batch_sizes(problem.d)
    sampler = Sampler(config.order, [config.seeds[0]], problem.d, sizes[0])
    indices = [sampler.take(sum(sizes))[0].numpy() for _ in range(epoch)][-1]
    outputs = len(ls.features) // problem.d
    features = ls.features.reshape(problem.d, outputs, -1)
    residual = ls.residual.reshape(problem.d, outputs)
    hessians, gradients, losses = [], [], []
    for part in np.split(indices, np.cumsum(sizes)[:-1]):
        phi = features[part].reshape(-1, features.shape[2])
        hessians.append(2 / len(phi) * phi.T @ phi)
        gradients.append(2 / len(phi) * phi.T @ residual[part].ravel())
        losses.append(np.mean(residual[part] ** 2))
    return Batches(np.array(hessians), np.array(gradients), np.array(losses), np.array(sizes))


def epoch_map(b: Batches, lr: float) -> tuple[np.ndarray, np.ndarray]:
    """Return M `(p, p)` and c `(p,)` of an epoch, z -> M z + c.

    M is the product of the factors, the last batch leftmost. Products that grow a lot inside the
    epoch cancel: then use `exact_radius`.
    """
    matrix, offset = np.eye(b.hessians.shape[1]), np.zeros(b.hessians.shape[1])
    for factor, gradient in zip(b.factors(lr), b.gradients, strict=True):
        matrix, offset = factor @ matrix, factor @ offset - lr * gradient
    return matrix, offset


def fixed_order_losses(
    ls: LeastSquares, b: Batches, w0: np.ndarray, lr: float, epochs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return running and full loss by epoch, `(epochs,)` each, of a fixed order, step by step."""
    z = np.asarray(w0, dtype=float) - ls.w_star
    share = b.sizes / b.sizes.sum()
    running, full = np.zeros(epochs), np.zeros(epochs)
    for epoch in range(epochs):
        for h, g, least, weight in zip(b.hessians, b.gradients, b.losses, share, strict=True):
            slope = h @ z
            running[epoch] += weight * (least + (slope / 2 + g) @ z)
            z = z - lr * (slope + g)
        full[epoch] = ls.loss(ls.w_star + z)
    return running, full


def spectral_radius(b: Batches, lr: float) -> float:
    """Return rho(M): the order converges between epochs if and only if it is below 1."""
    with np.errstate(all="ignore"):
        matrix, _ = epoch_map(b, lr)
    if not np.isfinite(matrix).all():
        return np.inf
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def fixed_point(b: Batches, lr: float) -> np.ndarray:
    """Return where the ends of the epochs settle, z = (I - M)^-1 c."""
    matrix, offset = epoch_map(b, lr)
    return np.linalg.solve(np.eye(len(offset)) - matrix, offset)


def fixed_point_loss(ls: LeastSquares, b: Batches, lr: float) -> float:
    """Return the loss of all the data at the fixed point: computed with 120 digits."""
    matrix, offset = _exact_map(b, lr)
    p = len(offset)
    with mpmath.workdps(DIGITS):
        z = mpmath.lu_solve(mpmath.eye(p) - matrix, offset)
        hessian = mpmath.matrix(ls.hessian.tolist())
        return ls.least_loss + float((z.T * hessian * z)[0]) / 2


def growth(b: Batches, lr: float, epochs: int = 1) -> float:
    """Return the largest norm of a product of consecutive factors.

    Over all stretches within one epoch, or, with `epochs=2`, also across the boundary.
    """
    factors = np.concatenate([b.factors(lr)] * epochs)
    running = np.empty_like(factors)  # the product of factors i..j, for every i, as j moves on
    largest = 0.0
    with np.errstate(all="ignore"):
        for j, factor in enumerate(factors):
            running[:j] = factor @ running[:j]
            running[j] = factor
            window = running[max(0, j + 1 - len(b.hessians)) : j + 1]  # an epoch at most
            bound = np.sqrt((window**2).sum((1, 2)))  # Frobenius: never below the norm sought
            if not np.isfinite(bound).all():
                return np.inf
            for product in window[bound > largest]:
                largest = max(largest, float(np.linalg.norm(product, 2)))
    return largest


def exact_radius(b: Batches, lr: float) -> float:
    """Return rho(M) computed with 120 digits."""
    matrix, _ = _exact_map(b, lr)
    with mpmath.workdps(DIGITS):
        # mpmath returns no list of eigenvalues for a 1 x 1 matrix
        values = [matrix[0]] if matrix.rows == 1 else mpmath.eig(matrix, left=False, right=False)
        return float(max(abs(value) for value in values))


def critical_lr(b: Batches, low: float, high: float) -> float:
    """Return the step size between `low` and `high` at which rho(M) first reaches 1.

    Raises:
        InputError: rho(M) is not below 1 at `low`, or nowhere at 1 up to `high`.
    """
    grid = np.geomspace(low, high, 25)
    radius = [exact_radius(b, lr) for lr in grid]
    above = [i for i, value in enumerate(radius) if value >= 1]
    if not above or above[0] == 0:
        raise InputError(
            f"the spectral radius does not cross 1 between lr {low:g} and {high:g}: "
            f"it is {radius[0]:.4g} and {radius[-1]:.4g} there"
        )
    low, high = grid[above[0] - 1], grid[above[0]]
    while high / low > 1 + 1e-6:
        middle = np.sqrt(low * high)
        low, high = (middle, high) if exact_radius(b, middle) < 1 else (low, middle)
    return float(low)


def usable_lr(ls: LeastSquares, b: Batches, epsilon: float, low: float, high: float) -> float:
    """Return the largest step size whose fixed point still has a loss below epsilon.

    Below the critical step the order converges, but to where the labels' rounding, or noise,
    amplified inside the epoch, puts it. `low` must be usable and `high` not.
    """
    while high / low > 1 + 1e-5:
        middle = np.sqrt(low * high)
        good = fixed_point_loss(ls, b, middle) < epsilon
        low, high = (middle, high) if good else (low, middle)
    return float(low)


def _exact_map(b: Batches, lr: float) -> tuple[mpmath.matrix, mpmath.matrix]:
    """Return the epoch's M and c in 120 digits; numpy's object arrays multiply mpmath numbers."""
    p = b.hessians.shape[1]
    with mpmath.workdps(DIGITS):
        exact = np.vectorize(mpmath.mpf, otypes=[object])
        step, identity = mpmath.mpf(lr), exact(np.eye(p))
        matrix, offset = identity, exact(np.zeros(p))
        for hessian, gradient in zip(exact(b.hessians), exact(b.gradients), strict=True):
            factor = identity - step * hessian
            matrix, offset = factor @ matrix, factor @ offset - step * gradient
        return mpmath.matrix(matrix.tolist()), mpmath.matrix(offset.tolist())


# ---- random orders and gradient noise --------------------------------------------------------


def gradients(ls: LeastSquares, w: np.ndarray, d: int) -> np.ndarray:
    """Return the gradient of every sample's loss at w, `(d, p)`."""
    error = ls.features @ (np.asarray(w, dtype=float) - ls.w_star) + ls.residual
    rows = 2 * error[:, None] * ls.features
    return rows.reshape(d, -1, rows.shape[1]).mean(1)


def trace_sigma(ls: LeastSquares, w: np.ndarray, d: int) -> float:
    """Return tr(Sigma), the trace of the covariance of the samples' gradients at w (over d)."""
    return float(gradients(ls, w, d).var(0).sum())


def noise_scale(ls: LeastSquares, w: np.ndarray, d: int) -> float:
    """Return the gradient noise scale tr(Sigma) / |g|^2 (McCandlish et al. 2018)."""
    g = gradients(ls, w, d).mean(0)
    return trace_sigma(ls, w, d) / float(g @ g)


def mean_square_batch_norm(ls: LeastSquares, w: np.ndarray, d: int, batch_size: int) -> float:
    """Return E|g_B|^2 over batches drawn without replacement.

    |g|^2 + tr(Sigma) (d - B) / (B (d - 1)), the last factor that of a finite population.
    """
    g = gradients(ls, w, d).mean(0)
    share = (d - batch_size) / (batch_size * max(d - 1, 1))
    return float(g @ g) + trace_sigma(ls, w, d) * share


@dataclass(frozen=True)
class Moments:
    """First and second moments of one random step, z -> (I - lr H_b) z - lr g_b.

    Batches are drawn without replacement inside, independently of each other: what random
    reshuffling is but for the memory within an epoch. With B of d samples, a batch's mean has the
    samples' covariance times share = (d - B) / (B (d - 1)).

    Attributes:
        mean: `(p, p)`, z_mean -> next z_mean.
        second: `(p^2, p^2)`, T = E[(I - lr H_b) x (I - lr H_b)].
        cross: `(p^2, p)`, what z_mean adds to E[z z^T] where residuals go with the features.
        noise: `(p^2,)`, what the gradients at w* add: lr^2 share S.
    """

    mean: np.ndarray
    second: np.ndarray
    cross: np.ndarray
    noise: np.ndarray


def step_moments(ls: LeastSquares, d: int, batch_size: int, lr: float) -> Moments:
    """Return the moments of a step of SGD."""
    p = ls.features.shape[1]
    phi = ls.features.reshape(d, -1, p)
    each = 2 / phi.shape[1] * np.einsum("imp,imq->ipq", phi, phi)  # H_i
    g = gradients(ls, ls.w_star, d)
    h, identity = ls.hessian, np.eye(p)
    share = (d - batch_size) / (batch_size * max(d - 1, 1))
    factor = identity - lr * h
    covariance = np.einsum("ipq,irs->prqs", each, each).reshape(p * p, -1) / d - np.kron(h, h)
    pair = np.einsum("ipq,ir->prq", each, g) / d  # E[H_i z g_i^T], as a map of z
    cross = lr**2 * share * (pair + pair.transpose(1, 0, 2))
    return Moments(
        mean=factor,
        second=np.kron(factor, factor) + lr**2 * share * covariance,
        cross=cross.reshape(p * p, p),
        noise=lr**2 * share * (g.T @ g / d).ravel(),
    )


def mean_square_radius(ls: LeastSquares, d: int, batch_size: int, lr: float) -> float:
    """Return rho(T): second moments stay bounded if and only if it is below 1."""
    return float(np.abs(np.linalg.eigvals(step_moments(ls, d, batch_size, lr).second)).max())


def stationary_excess(ls: LeastSquares, d: int, batch_size: int, lr: float) -> float:
    """Return the excess loss E[L] - L* that SGD settles at; infinite where rho(T) >= 1.

    vec C = T vec C + lr^2 share vec S, S the covariance of the gradients at w*; excess
    = tr(H C) / 2. For small lr about lr tr(S) share / 4, with label noise sigma
    lr sigma^2 tr(H) / (2 B).
    """
    moments_ = step_moments(ls, d, batch_size, lr)
    if np.abs(np.linalg.eigvals(moments_.second)).max() >= 1:
        return np.inf
    c = np.linalg.solve(np.eye(len(moments_.noise)) - moments_.second, moments_.noise)
    return float(ls.hessian.ravel() @ c / 2)


def expected_losses(
    ls: LeastSquares, w0: np.ndarray, d: int, batch_size: int, lr: float, epochs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the expected running loss and the expected full loss by epoch, `(epochs,)` each.

    The loss of a fresh batch at w has the expectation L(w); the running loss is the mean of these
    over the epoch's d / B steps.
    """
    step = step_moments(ls, d, batch_size, lr)
    z = np.asarray(w0, dtype=float) - ls.w_star
    c, h = np.outer(z, z).ravel(), ls.hessian.ravel()
    m = -(-d // batch_size)
    running, full = np.empty(epochs), np.empty(epochs)
    for epoch in range(epochs):
        total = 0.0
        for _ in range(m):
            total += float(ls.least_loss + h @ c / 2)
            c = step.second @ c + step.cross @ z + step.noise
            z = step.mean @ z
        running[epoch], full[epoch] = total / m, ls.least_loss + h @ c / 2
    return running, full


def first_below(losses: np.ndarray, epsilon: float) -> float:
    """Return the first epoch (from 1) whose loss is below epsilon; infinite if none is."""
    below = np.flatnonzero(losses < epsilon)
    return float(below[0] + 1) if len(below) else np.inf


def first_overflow(problem: Problem, config: TrainConfig, most: int = 100) -> np.ndarray:
    """Return, seed by seed, the step (from 1) of the first batch loss beyond float32, `(R,)`.

    The linear recursion w -> w - lr g_b of the seed's own order, in float64; a loss overflows when
    its sum of squares exceeds the largest float32. Infinite where none does within `most` steps.
    """
    ls, sizes = moments(problem), config.batch_sizes(problem.d)
    size = sizes[0]
    found = np.full(len(config.seeds), np.inf)
    limit = float(np.finfo(np.float32).max)
    for r, seed in enumerate(config.seeds):
        indices = Sampler(config.order, [seed], problem.d, size).take(min(most * size, problem.d))
        z = problem.initial([seed])[0].double().numpy() - ls.w_star
        for step, part in enumerate(indices[0].numpy().reshape(-1, size)):
            phi = ls.features[part]
            error = phi @ z + ls.residual[part]
            if error @ error > limit:
                found[r] = step + 1
                break
            z = z - config.lr * 2 / size * phi.T @ error
    return found


def lyapunov(problem: Problem, batch_size: int, lr: float, steps: int = 20_000) -> float:
    """Return the top Lyapunov exponent per step of random batches, estimated by one long product.

    Almost every path converges if and only if it is below 0; the mean square may still diverge
    (`mean_square_radius`). The standard error is about 1 / sqrt(steps) of the factors' spread.
    """
    ls = moments(problem)
    generator = np.random.default_rng(0)
    phi = ls.features.reshape(problem.d, -1, ls.features.shape[1])
    z, total = np.ones(phi.shape[2]), 0.0
    for _ in range(steps):
        rows = phi[generator.choice(problem.d, batch_size, replace=False)].reshape(-1, len(z))
        z = z - lr * 2 / len(rows) * rows.T @ (rows @ z)
        length = np.linalg.norm(z)
        total += np.log(length)
        z /= length
    return float(total / steps)


def reshuffling_factor(x: np.ndarray) -> np.ndarray:
    """Return the share of the noise that reshuffling leaves, per mode, x = m lr lambda.

    RR / WR about 1 - tanh(x / 2) / (x / 2).
    """
    half = np.asarray(x, dtype=float) / 2
    return 1 - np.tanh(half) / half


# ---- the running loss ------------------------------------------------------------------------


@dataclass(frozen=True)
class Gap:
    """What separates an epoch's running loss from the loss of all the data at its end.

    running - full(w_end) = drift + sampling, an identity.

    Attributes:
        drift: sum (n_b / d) [L(w_b) - L(w_end)]: the parameters were worse on the way.
        sampling: sum (n_b / d) [L_b(w_b) - L(w_b)]: batches are not the whole.
    """

    drift: float
    sampling: float


def gap(loss: np.ndarray, full_loss: np.ndarray, size: np.ndarray, full_end: float) -> Gap:
    """Split the gap of one epoch from its recorded steps, `(m,)` each."""
    share = size / size.sum()
    drift = float(share @ (full_loss - full_end))
    return Gap(drift, float(share @ (loss - full_loss)))
