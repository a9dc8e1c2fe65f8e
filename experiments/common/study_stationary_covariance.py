"""What study_stationary_covariance is made of: names of arms, and covariances."""

import numpy as np

import sgdstudy as ss

SHARES = (0.05, 0.1, 0.2, 0.4)  # of the step at which second moments diverge
SIZES = (4, 5)  # of 12 samples
RAGGED = 5  # leaves a batch of 2
LEFT_OUT = 10  # times 1 / (lr λ) at the start: e^-20 of the covariance is missing after them


def arm_of(size, share):
    """Return the name of an arm."""
    return f"B={size}, {share} of the limit"


def exact(run, lr=None):
    """Return the covariance that SGD settles at, after each batch of an epoch, `(3, 2, 2)`."""
    return _law(ss.theory.stationary_covariance, run, lr)


def paper(run, lr=None):
    """Return what the paper has for small steps, `(2, 2)`, all batches being of B."""
    return _law(ss.theory.ou_covariance, run, lr)


def _law(law, run, lr):
    c, problem = run.config, run.problem
    return law(problem.least_squares, problem.d, c.batch_size, c.lr if lr is None else lr, True)


def gap(run, covariance):
    """Return the excess loss of parameters with this covariance about the best."""
    return float((run.problem.least_squares.hessian * covariance).sum() / 2)


def late(run):
    """Return the first epoch that has forgotten the start."""
    return 1 + int(np.ceil(LEFT_OUT / (run.config.lr * ss.expect(run).eigenvalues[0]) / 3))


def squares(z):
    """Return the mean of z z^T over the time for each seed, `(R, 2, 2)`, of z `(T, R, 2)`."""
    return np.einsum("trp,trq->rpq", z, z) / len(z)


def scatter(run):
    """Return that of w - w* at the ends of the epochs."""
    return squares(run.from_minimiser(epochs=slice(late(run), None)))


def ellipse(covariance):
    """Return where z^T C^-1 z = 1, x and y: one standard deviation in every direction."""
    turn = np.linspace(0, 2 * np.pi, 100)
    values, vectors = np.linalg.eigh(covariance)
    circle = np.array([np.cos(turn), np.sin(turn)])
    x, y = (vectors * np.sqrt(np.maximum(values, 0))) @ circle
    return x, y
