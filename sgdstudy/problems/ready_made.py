"""The problems of the notebook and of the studies."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted
from sgdstudy.problems.problem import Problem
from sgdstudy.problems.torch_state import own_state

BLOCK = 5000  # samples that a stream makes at once
MAPPED = 1_000_000  # samples written to a file at once


def parabola(w: Any, x: Any) -> Any:
    """Return w0 x^2 + w1 x + w2, the notebook's model (section 1, equation 2)."""
    return w[0] * x * x + w[1] * x + w[2]


@own_state()
def curve(noise: float = 0.0, loss: Any = "mse", seed: int = 0) -> Problem:
    """Return the notebook's curve fit: 2000 float32 points of 0.3 x^2 - 1.7 x + 2.5 on [-10, 10).

    Args:
        noise: standard deviation of normal noise added to the labels.
        loss: see `Problem`.
        seed: seed of the noise.

    Raises:
        InputError: a noise that is negative, not finite, or beyond float32; no seed.
    """
    allowed = "a standard deviation, at least 0 and finite"
    noise = checks.number("noise", noise, lambda v: v >= 0, allowed)
    generator = torch.Generator().manual_seed(checks.seed(seed))
    w_true = [0.3, -1.7, 2.5]
    x = np.arange(-10, 10, 0.01, dtype="f")
    y = parabola(w_true, x)
    if noise:
        y = y + noise * torch.randn(len(y), generator=generator, dtype=torch.float64).numpy()
    name = "curve" if not noise else f"curve, label noise {noise:g}"
    with np.errstate(over="ignore"):  # too much noise: the problem says so
        y = y.astype("f")
    return Problem(x, y, parabola, loss, w_true=w_true, name=name)


@own_state()
def even_parabola(
    width: float = 10.0,
    d: int = 256,
    noise: float = 0.0,
    excess: Sequence[float] | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Problem:
    """Return the fit of the notebook's parabola at even points of [-width, width], float64.

    The true parameters are those of the best fit, labels' noise included.

    Args:
        width: the largest input.
        d: number of samples, at least 3.
        noise: standard deviation of normal noise added to the labels.
        excess: excess loss of the start, from the flattest direction to the steepest, `(3,)`; see
            `LeastSquares.at_excess`. None: it starts at 0.
        seed: seed of the noise.
        name: what it is called; None: by what it is.

    Raises:
        InputError: a width that is not above 0, fewer than 3 samples, a noise that is negative or
            not finite, an excess loss that is negative, no seed.
    """
    width, d = checks.number("width", width), checks.count("d", d, least=3)
    allowed = "a standard deviation, at least 0 and finite"
    noise = checks.number("noise", noise, lambda v: v >= 0, allowed)
    x, draw = np.linspace(-width, width, d), np.random.default_rng(checks.seed(seed))
    y = parabola([0.3, -1.7, 2.5], x) + noise * draw.normal(size=d)
    name = name or f"parabola on [-{width:g}, {width:g}], label noise {noise:g}"
    fit = Problem(x, y, parabola, w_init=np.zeros(3), name=name)
    ls = fit.least_squares
    assert ls is not None
    start = np.zeros(3) if excess is None else ls.at_excess(np.asarray(excess))
    return fit.replace(w_init=start, w_true=ls.w_star)


@own_state()
def mapped_parabola(d: int, loss: Any = "mse", exact: bool = True) -> Problem:
    """Return 0.3 x^2 - 1.7 x + 2.5 on d points of [-2, 2], float32, from files mapped into memory.

    Nothing reads them whole. The files have no name: they vanish with the last array that is
    looked at through them.

    Args:
        d: number of samples; memory need not hold them.
        loss: see `Problem`.
        exact: False: nobody computes the moments of all the data.
    """
    d, w_true = checks.count("d", d), [0.3, -1.7, 2.5]
    with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
        x, y = (np.memmap(file, np.float32, "w+", shape=(d,)) for file in (first, second))
    for start in range(0, d, MAPPED):
        part = slice(start, min(start + MAPPED, d))
        x[part] = 4 * (np.arange(part.start, part.stop) + 0.5) / d - 2
        y[part] = parabola(w_true, x[part])
    given: dict[str, Any] = {"w_init": np.zeros(3), "w_true": w_true, "exact": exact}
    return Problem(x, y, parabola, loss, **given, name=f"parabola on {d} points of [-2, 2]")


@own_state()
def drifting_parabola(velocity: Any, noise: float = 0.3, d: int = 100) -> Problem:
    """Return a parabola whose coefficients move, and the stream of its noisy points, float64.

    The true parameters start at (0.3, -1.7, 2.5); every step of one sample meets a point whose x is
    uniform on [-1, 1] and that nobody met before. The d points stored, those of the start, are a
    yardstick.

    Args:
        velocity: what the true parameters move by in a step, `(3,)`.
        noise: standard deviation of normal noise added to the labels.
        d: number of points stored; as many steps are called an epoch.

    Raises:
        InputError: a velocity that is not three finite numbers, a noise that is negative.
    """
    allowed = "a standard deviation, at least 0 and finite"
    noise = checks.number("noise", noise, lambda v: v >= 0, allowed)
    d, start = checks.count("d", d), np.array([0.3, -1.7, 2.5])
    try:
        moves = np.asarray(velocity, dtype=float)
    except (TypeError, ValueError):
        moves = np.empty(0)
    if moves.shape != (3,) or not np.isfinite(moves).all():
        raise InputError(f"velocity is three finite numbers a step, not {quoted(velocity)}")

    true = functools.partial(_moved, start, moves)
    stream = functools.partial(_points, true, noise)
    x = np.linspace(-1, 1, d)
    name = f"a parabola that {'drifts' if moves.any() else 'stands still'}"
    y = parabola(start, x)
    return Problem(x, y, parabola, w_init=start, w_true=true, stream=stream, name=name)


def _moved(start: np.ndarray, moves: np.ndarray, steps: Any) -> np.ndarray:
    """Return parameters that move by the same in every step, after so many, `(S, 3)`."""
    return start + np.asarray(steps)[:, None] * moves


def _points(
    true: Callable[[Any], np.ndarray], noise: float, generator: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield noisy points of a parabola whose parameters are those of the step that meets them."""
    like: Any = {"generator": generator, "dtype": torch.float64}
    for first in itertools.count(step=BLOCK):  # the number of a sample is that of its step
        x = 2 * torch.rand(BLOCK, **like) - 1
        w = torch.as_tensor(true(np.arange(first, first + BLOCK)))
        yield x, parabola(w.T, x) + noise * torch.randn(BLOCK, **like)


def legendre_parabola(w: Any, x: Any) -> Any:
    """Return w0 + w1 sqrt(3) x + w2 sqrt(5) (3 x^2 - 1) / 2, orthonormal for x uniform on +-1."""
    return w[0] + w[1] * (3**0.5 * x) + w[2] * (5**0.5 / 2 * (3 * x * x - 1))


@own_state()
def legendre(target: str = "normal", d: int = 100, seed: int = 0) -> Problem:
    """Return a fit whose Hessian is 2 I but for O(1/d^2), float64, started at its minimiser.

    The inputs are x_i = 2 (i + 1/2) / d - 1; the residuals are scaled to a root mean square of 1,
    so that all its loss is noise.

    Args:
        target: what the parabola is fitted to: `normal` draws, which go with nothing, or the
            `cubic` x^3, which the model misses systematically.
        d: number of samples, at least 4.
        seed: seed of the draws.

    Raises:
        InputError: a target that is not known, fewer than 4 samples, no seed.
    """
    checks.choice("target", target, TARGETS)
    d, seed = checks.count("d", d, least=4), checks.seed(seed)  # more samples than parameters
    x = 2 * (np.arange(d) + 0.5) / d - 1
    y = TARGETS[target](x, seed)
    fit = Problem(x, y, legendre_parabola, w_init=np.zeros(3)).least_squares
    assert fit is not None
    y = fit.features @ fit.w_star - fit.residual / np.sqrt(fit.least_loss)
    name = f"legendre, {target} target"
    return Problem(x, y, legendre_parabola, w_init=fit.w_star, w_true=fit.w_star, name=name)


def _normal(x: np.ndarray, seed: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(x), generator=generator, dtype=torch.float64).numpy()


@own_state()
def ill_conditioned(d: int = 1000, noise: float = 0.1, seed: int = 0) -> Problem:
    """Return least squares in 100 dimensions whose Hessian is badly conditioned, float64.

    The spectrum of DeepOBS's quadratic (Schneider, Balles, Hennig 2019): 90 eigenvalues drawn from
    U(0, 1), 10 from U(30, 60), in a basis that is turned at random, so that no optimiser is helped
    by the axes. The features are made such that the Hessian of all the data is exactly that.

    Args:
        d: number of samples, at least 200.
        noise: standard deviation of the normal noise of the labels.
        seed: seed of all draws.

    Raises:
        InputError: fewer than 200 samples, a noise that is negative, no seed.
    """
    d, p, seed = checks.count("d", d, least=200), 100, checks.seed(seed)
    noise = checks.number("noise", noise, lambda v: v >= 0, "at least 0 and finite")
    draw = np.random.default_rng(seed)
    values = np.concatenate([draw.uniform(0, 1, 90), draw.uniform(30, 60, 10)])
    turned, _ = np.linalg.qr(draw.normal(size=(p, p)))
    orthonormal, _ = np.linalg.qr(draw.normal(size=(d, p)))
    x = np.sqrt(d / 2) * orthonormal * np.sqrt(values) @ turned.T  # (2 / d) x^T x: the Hessian
    w_true = draw.normal(size=p)
    y = x @ w_true + noise * draw.normal(size=d)
    return Problem(x, y, linear, w_init=np.zeros(p), w_true=w_true, name="ill-conditioned")


def linear(w: Any, x: torch.Tensor) -> torch.Tensor:
    """Return x w for inputs `(B, p)`."""
    return x @ w


def affine(w: Any, x: torch.Tensor) -> torch.Tensor:
    """Return x w + b, b the last parameter, for inputs `(B, p - 1)`."""
    return x @ w[:-1] + w[-1]


@own_state()
def diabetes(seed: int = 0) -> Problem:
    """Return linear regression on scikit-learn's diabetes data (real, 442 x 10), float64.

    Inputs and targets have mean 0 and standard deviation 1 over the 354 samples that are trained
    on; 88 are held out. Efron, Hastie, Johnstone, Tibshirani: Least Angle Regression (2004).

    Args:
        seed: seed of the draw that decides which samples are held out.
    """
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    kept, held = _split(len(x), seed)
    x, y = ((v - v[kept].mean(0)) / v[kept].std(0) for v in (x, y))
    test = (x[held], y[held])
    return Problem(x[kept], y[kept], affine, w_init=np.zeros(11), test=test, name="diabetes")


@own_state()
def digits(hidden: int = 32, seed: int = 0) -> Problem:
    """Return scikit-learn's digits (real, 1797 x 64) for a network of one hidden tanh layer.

    Classification by cross entropy, float32; 1438 samples to train on, 359 held out. Every seed of
    a run starts from weights of its own, see `tanh_network`.

    Args:
        hidden: width of the hidden layer.
        seed: seed of the draw that decides which samples are held out.
    """
    from sklearn.datasets import load_digits

    hidden = checks.count("hidden", hidden)
    x, classes = load_digits(return_X_y=True)
    x = (x / 16).astype("f")
    kept, held = _split(len(x), seed)
    network, start = tanh_network(64, hidden, 10)
    return Problem(
        x[kept],
        classes[kept],
        network,
        "cross_entropy",
        w_init=start,
        test=(x[held], classes[held]),
        name=f"digits, {hidden} tanh units",
    )


@own_state()
def chebyshev(degree: int = 4, width: int = 32, d: int = 20) -> Problem:
    """Return the fit of a network of two hidden tanh layers to a Chebyshev polynomial, float64.

    At d evenly spaced points of [-1, 1]; full-batch descent on it sharpens until it stands at the
    edge of stability (Cohen, Kaur, Li, Kolter, Talwalkar 2021). Every seed starts from weights of
    its own, see `tanh_network`.

    Args:
        degree: of the polynomial.
        width: of the hidden layers.
        d: number of points.
    """
    degree, width, d = (checks.count(*v) for v in (("degree", degree), ("width", width), ("d", d)))
    x = np.linspace(-1, 1, d)[:, None]
    network, start = tanh_network(1, width, width, 1)
    y, name = np.cos(degree * np.arccos(x)), f"Chebyshev polynomial {degree}, tanh network"
    return Problem(x, y, network.double(), w_init=start, name=name)


@own_state()
def tanh_network(*widths: int) -> tuple[nn.Sequential, Callable[[torch.Generator], torch.Tensor]]:
    """Return linear layers with tanh between them, and what draws their parameters for a seed.

    Weights are U(-1, 1) / sqrt(inputs of the layer), biases 0.
    """
    shapes, layers = list(itertools.pairwise(widths)), list[nn.Module]()
    with torch.random.fork_rng(devices=[]):  # the caller's generator is not drawn from
        for shape in shapes:
            layers += [nn.Linear(*shape), nn.Tanh()]

    return nn.Sequential(*layers[:-1]), functools.partial(_even_weights, shapes)


def _even_weights(shapes: Sequence[tuple[int, ...]], generator: torch.Generator) -> torch.Tensor:
    """Draw weights and biases of linear layers of these (inputs, outputs)."""
    drawn = []
    for inputs, outputs in shapes:
        weights = 2 * torch.rand(inputs * outputs, generator=generator) - 1
        drawn += [weights / inputs**0.5, torch.zeros(outputs)]
    return torch.cat(drawn)


def _split(d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples to train on, four fifths of them, and those held out, in order."""
    drawn = np.random.default_rng(checks.seed(seed)).permutation(d)
    return np.sort(drawn[d // 5 :]), np.sort(drawn[: d // 5])


@own_state()
def staircase(noise: float = 0.0, d: int = 256, seed: int = 0) -> Problem:
    """Return a staircase of 8 steps, the height of each fitted by a parameter of its own; float64.

    Input i is the unit vector of its step; heights are sqrt(2) sin(j pi / 4), at first 0, an excess
    loss of 1. One sample moves one height, the Hessian is I / 4, and the noise scale at an excess
    loss e is 7 + 8 noise^2 / e.

    Args:
        noise: standard deviation of normal noise added to the labels.
        d: number of samples, a multiple of 8.
        seed: seed of the noise.

    Raises:
        InputError: a noise that is negative or not finite, samples that are no multiple of 8, no
            seed.
    """
    allowed = "a standard deviation, at least 0 and finite"
    noise = checks.number("noise", noise, lambda v: v >= 0, allowed)
    d, seed = checks.count("d", d), checks.seed(seed)
    if d % 8:
        raise InputError(f"a staircase of 8 steps takes a multiple of 8 samples, not {d}")
    heights = 2**0.5 * np.sin(np.arange(8) * np.pi / 4)
    x = np.repeat(np.eye(8), d // 8, axis=0)
    y = x @ heights
    if noise:
        y = y + noise * _normal(x[:, 0], seed)
    name = "staircase" if not noise else f"staircase, label noise {noise:.3g}"
    return Problem(x, y, linear, w_init=np.zeros(8), w_true=heights, name=name)


TARGETS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "normal": _normal,
    "cubic": lambda x, seed: x**3,
}
