"""Every function of `theory` on every kind of problem: right by brute force, or refused in a line.

The kinds are those that formulas forget: several outputs, more parameters than samples, features
that depend on each other, samples that are all equal, huge numbers, no step at all; each with
batches of one sample, of a size that does not divide d, and of all. The oracles enumerate.
"""

import inspect
from dataclasses import dataclass
from itertools import combinations, islice, permutations, product

import numpy as np
import pytest
from conftest import one_line

import sgdstudy as ss
from sgdstudy import theory as T
from sgdstudy.recipe.orders import batch_sizes


@dataclass
class Kind:
    """A tiny problem, and what enumeration needs of it."""

    problem: ss.Problem
    still: bool = False

    def __post_init__(self):
        problem = self.problem
        self.ls, self.d, self.p = problem.least_squares, problem.d, problem.p
        units = [problem.model(w, problem.x).reshape(self.d, -1).numpy() for w in _eye(self.p)]
        self.phi = np.stack(units, 2)  # (d, outputs, p)
        self.w0 = problem.initial([0])[0].numpy()
        self.y = problem.y.reshape(self.d, -1).numpy()
        self.each = 2 / self.phi.shape[1] * np.einsum("imp,imq->ipq", self.phi, self.phi)
        self.h = self.each.mean(0)
        self.w_star = np.linalg.pinv(self.rows, rcond=1e-12) @ self.y.ravel()
        self.g = self.gradients(self.w_star)
        self.lr = 0.0 if self.still else 0.3 / max(np.trace(h) for h in self.each)
        values, vectors = np.linalg.eigh(self.h)
        there = values > 1e-12 * values[-1]
        self.values, self.basis = values[there], vectors[:, there]

    @property
    def rows(self):
        return self.phi.reshape(-1, self.p)

    @property
    def sizes(self):
        return [1, *(size for size in range(2, self.d) if self.d % size), self.d]

    def gradients(self, w):
        error = self.phi @ w - self.y
        return 2 / self.phi.shape[1] * np.einsum("im,imp->ip", error, self.phi)

    def loss(self, w):
        return float(((self.phi @ w - self.y) ** 2).mean())

    def draws(self, size, twice=False):
        samples = range(self.d)
        found = product(samples, repeat=size) if twice else combinations(samples, size)
        return [list(batch) for batch in found]

    def steps(self, size, lr, twice=False):
        """A `(n, p, p)` and b `(n, p)` of the steps z -> A z + b of all batches of a size."""
        batches = self.draws(size, twice)
        maps = [np.eye(self.p) - lr * self.each[batch].mean(0) for batch in batches]
        return np.array(maps), np.array([-lr * self.g[batch].mean(0) for batch in batches])

    def inside(self, lr, size, twice=False):
        """The epoch's second-moment map, and its noise, in the directions that move."""
        r = self.basis.shape[1]
        epoch, noise = np.eye(r * r), np.zeros(r * r)
        for n in batch_sizes(None, self.d, size):
            maps, offsets = self.steps(n, lr, twice)
            maps, offsets = self.basis.T @ maps @ self.basis, offsets @ self.basis
            step = np.mean([np.kron(a, a) for a in maps], 0)
            epoch = step @ epoch
            noise = step @ noise + np.mean([np.kron(b, b) for b in offsets], 0)
        return epoch, noise

    def radius(self, lr, size, twice=False):
        return max(abs(np.linalg.eigvals(self.inside(lr, size, twice)[0])))

    def floor(self, lr, size, twice=False):
        epoch, noise = self.inside(lr, size, twice)
        c = np.linalg.solve(np.eye(len(noise)) - epoch, noise)
        return (self.basis.T @ self.h @ self.basis).ravel() @ c / 2

    def excess_along(self, size, rates, twice=False):
        """Expected excess loss before every step and after the last, from all batches."""
        z = self.w0 - self.w_star
        mean, c = z, np.outer(z, z)
        found, sizes = [np.sum(self.h * c) / 2], batch_sizes(None, self.d, size)
        for t, lr in enumerate(rates):
            maps, offsets = self.steps(sizes[t % len(sizes)], lr, twice)
            cross = np.einsum("npq,q,nr->pr", maps, mean, offsets) / len(maps)
            c = np.mean(maps @ c @ maps.swapaxes(1, 2), 0) + cross + cross.T
            c = c + offsets.T @ offsets / len(offsets)
            mean = maps.mean(0) @ mean + offsets.mean(0)
            found.append(np.sum(self.h * c) / 2)
        return np.array(found)

    def batches(self, size=1, order="sequential"):
        config = ss.TrainConfig(lr=1.0, batch_size=size, order=order)
        return T.batches(self.problem, config)

    def in_order(self, lr, size=1):
        """M and c of an epoch in sorted order."""
        m, c = np.eye(self.p), np.zeros(self.p)
        for first in range(0, self.d, size):
            part = slice(first, first + size)
            a = np.eye(self.p) - lr * self.each[part].mean(0)
            m, c = a @ m, a @ c - lr * self.g[part].mean(0)
        return m, c

    def order_radius(self, lr, size=1):
        m = self.basis.T @ self.in_order(lr, size)[0] @ self.basis
        return max(abs(np.linalg.eigvals(m)))

    def law(self):
        return T.sample_law(self.rows, np.full(len(self.rows), 1 / len(self.rows)), 0.3)


def _eye(p):
    import torch

    return torch.eye(p, dtype=torch.float64)


def linear(d, p, scale=1.0, change=lambda x: x):
    draw = np.random.default_rng(5)
    x = scale * change(draw.normal(size=(d, p)))
    y = scale * draw.normal(size=d)
    return ss.Problem(x, y, ss.problems.linear, w_init=draw.normal(size=p))


def two_outputs():
    x = np.random.default_rng(6).normal(size=(3, 2))
    y = np.random.default_rng(7).normal(size=(3, 2))

    def model(w, x):
        return x * w[0] + x.flip(-1) * w[1] * x[..., :1]

    return ss.Problem(x, y, model, w_init=[0.5, -1.0])


KINDS = {
    "plain": Kind(linear(4, 2)),
    "outputs": Kind(two_outputs()),
    "wide": Kind(linear(3, 5)),
    "dependent": Kind(linear(4, 3, change=lambda x: x[:, [0, 1, 1]])),
    "equal": Kind(linear(3, 2, change=lambda x: x[[0, 0, 0]])),
    "huge": Kind(linear(4, 2, scale=1e15)),
    "still": Kind(linear(4, 2), still=True),
}
CHECKS, REFUSED = {}, {}


def checks(name, *refused):
    """Register what compares a function with brute force, and the kinds it has to refuse."""

    def add(check):
        CHECKS[name], REFUSED[name] = check, refused
        return check

    return add


def same(found, expected, rel=1e-8, scale=None):
    """Equal but for rounding: of the numbers, or of the largest there are."""
    expected = np.asarray(expected, dtype=float)
    scale = np.abs(expected).max(initial=0) if scale is None else scale
    assert np.shape(found) == expected.shape
    np.testing.assert_allclose(found, expected, rtol=rel, atol=1e-11 * scale)


# ---- all the data ---------------------------------------------------------------------------


@checks("moments")
def _(k):
    ls = T.moments(k.problem)
    same(ls.features, k.rows)
    same(ls.loss(k.w0), k.loss(k.w0))
    same(ls.hessian, k.h)
    same(ls.w_star, k.w_star)


@checks("eigenvalues")
def _(k):
    same(T.eigenvalues(k.ls), np.linalg.eigvalsh(k.h))


@checks("lr_limit")
def _(k):
    same(T.lr_limit(k.ls), 2 / k.values[-1])


@checks("lr_best_asymptotic")
def _(k):
    def rate(lr):
        return np.abs(1 - lr * k.values).max()

    best = T.lr_best_asymptotic(k.ls)
    assert rate(best) <= min(map(rate, np.linspace(0, 2 / k.values[-1], 999))) + 1e-12


@checks("lr_best_for_epsilon")
def _(k):
    least, at_start = k.loss(k.w_star), k.loss(k.w0)
    for share in (0.3, 1e-3, 1e-6):
        epsilon = least + share * (at_start - least)
        best = T.descent_stop(k.ls, k.w0, T.lr_best_for_epsilon(k.ls, k.w0, epsilon), epsilon)
        grid = np.linspace(0, 2 / k.values[-1], 300)[1:]
        assert best <= min(T.descent_stop(k.ls, k.w0, lr, epsilon) for lr in grid)


def descend(k, lr, n):
    w = [k.w0]
    for _ in range(n):
        w.append(w[-1] - lr * k.gradients(w[-1]).mean(0))
    return w


@checks("descent_loss")
def _(k):
    losses = [k.loss(w) for w in descend(k, k.lr, 9)]
    same(T.descent_loss(k.ls, k.w0, k.lr, np.arange(10)), losses)


@checks("descent_w")
def _(k):
    same(T.descent_w(k.ls, k.w0, k.lr, 9), descend(k, k.lr, 9)[-1])


@checks("descent_stop")
def _(k):
    losses = np.array([k.loss(w) for w in descend(k, k.lr, 60)])
    least = k.loss(k.w_star)
    for share in (2.0, 0.9, 0.3):
        epsilon = least + share * (losses[0] - least)
        found = T.descent_stop(k.ls, k.w0, k.lr, epsilon)
        expected = T.first_below(losses, epsilon)
        assert found == expected or (expected == np.inf and found > 60)


@checks("growth_per_epoch")
def _(k):
    for lr in (k.lr, 3 / k.values[-1]):
        same(T.growth_per_epoch(k.ls, lr), (1 - lr * k.values[-1]) ** 2)


@checks("float32_floor", "still")
def _(k):
    vectors = k.basis[:, 0]
    still = k.w0 - k.basis @ (k.basis.T @ k.w0)
    for start, end in (((), k.w_star), ((k.w0,), k.w_star + still)):
        found = T.float32_floor(k.ls, k.lr, *start)
        at = end[np.argmax(abs(vectors))]
        floor = np.spacing(np.float32(abs(at))).astype(float) ** 2 / (8 * k.lr**2 * k.values[0])
        same(found, floor, scale=0)


@checks("gradient_bound")
def _(k):
    flat = k.w_star + 0.7 * k.basis[:, 0]  # where the bound is met
    for w in (k.w0, flat):
        norm = np.linalg.norm(k.gradients(w).mean(0))
        bound = T.gradient_bound(k.ls, k.loss(w) - k.loss(k.w_star))
        assert bound <= norm * (1 + 1e-6)
    same(T.gradient_bound(k.ls, k.ls.excess(flat)), k.values[0] * 0.7, 1e-6, scale=0)


# ---- what samples and batches say of all the data ---------------------------------------------


@checks("gradients")
def _(k):
    same(T.gradients(k.ls, k.w0, k.d), k.gradients(k.w0))


def covariance(k, w):
    return np.cov(k.gradients(w).T, bias=True).reshape(k.p, k.p)


@checks("trace_sigma")
def _(k):
    same(T.trace_sigma(k.ls, k.w0, k.d), np.trace(covariance(k, k.w0)))


@checks("two_batch_bias")
def _(k):
    same(T.two_batch_bias(k.ls, k.w0, k.d), -np.trace(covariance(k, k.w0)) / (k.d - 1))


@checks("noise_scale")
def _(k):
    square = np.square(k.gradients(k.w0).mean(0)).sum()
    same(T.noise_scale(k.ls, k.w0, k.d), np.trace(covariance(k, k.w0)) / square)


@checks("mean_square_batch_norm")
def _(k):
    g = k.gradients(k.w0)
    for size in k.sizes:
        expected = np.mean([np.square(g[batch].mean(0)).sum() for batch in k.draws(size)])
        same(T.mean_square_batch_norm(k.ls, k.w0, k.d, size), expected)


@checks("batch_norm_spread")
def _(k):
    g = k.gradients(k.w0)
    for size in k.sizes:
        cut = range(0, k.d - size + 1, size)  # whole batches
        orders = (g[list(order)] for order in permutations(range(k.d)))
        every = [
            np.mean([np.square(o[first : first + size].mean(0)).sum() for first in cut])
            for o in orders
        ]
        off = (np.array(every) - np.mean(every)) ** 2
        # 400 draws: four standard errors of their variance, and what rounding makes of equal means
        near = 4 * (off.std() + off.mean()) / 400**0.5 + (1e-13 * np.mean(every)) ** 2
        found = T.batch_norm_spread(k.ls, k.w0, k.d, size)
        assert found**2 == pytest.approx(off.mean(), abs=near)


@checks("noise_terms")
def _(k):
    sigma, g = covariance(k, k.w0), k.gradients(k.w0).mean(0)
    found = T.noise_terms(k.ls, k.w0, k.d)
    expected = [np.trace(sigma), g @ g, np.trace(k.h @ sigma), g @ k.h @ g]
    for value, right, of in zip(found, expected, (g @ g, g @ g, g @ k.h @ g, 1), strict=True):
        same(value, right, scale=100 * of)  # of all-equal samples the first is rounding


@checks("lucky_share")
def _(k):
    ws = np.array([[k.w0], [k.w_star]])  # (2, 1, p)
    for size in k.sizes:
        for level in (0.5 * k.loss(k.w0), 1e-3 * k.loss(k.w0) + 1.2 * k.loss(k.w_star)):
            found = T.lucky_share(k.ls, ws, k.d, size, level, 4000)
            batches = k.draws(size, True)
            each = (k.phi @ ws[..., None, :, None])[..., 0] - k.y  # (2, 1, d, outputs)
            below = [(each[..., b, :] ** 2).mean((-2, -1)) < level for b in batches]
            share = np.mean(below, 0)
            assert (np.abs(found - share) <= 4 * np.sqrt(share * (1 - share) / 4000)).all()


@checks("linearised")
def _(k):
    ls = T.linearised(k.problem, k.w0)
    same(T.eigenvalues(ls), k.values)
    same(ls.least_loss, k.loss(k.w_star), scale=k.loss(k.w0))


# ---- independent batches ----------------------------------------------------------------------

EITHER = (False, True)


@checks("step_moments")
def _(k):
    for size, twice in product(k.sizes, EITHER):
        maps, offsets = k.steps(size, k.lr, twice)
        found = T.step_moments(k.ls, k.d, size, k.lr, twice)
        same(found.mean, maps.mean(0))
        same(found.second, np.mean([np.kron(a, a) for a in maps], 0))
        noise = np.mean([np.kron(b, b) for b in offsets], 0)
        rough = (k.lr * np.abs(k.y).max() * np.abs(k.phi).max()) ** 2
        same(found.noise, noise, scale=rough)
        pair = np.einsum("npq,nr->prq", maps, offsets) / len(maps)
        cross = (pair + pair.swapaxes(0, 1)).reshape(k.p**2, k.p)
        same(found.cross, cross, scale=rough**0.5)


@checks("mean_square_radius")
def _(k):
    for size, twice in product(k.sizes, EITHER):
        m = -(-k.d // size)
        same(T.mean_square_radius(k.ls, k.d, size, k.lr, twice) ** m, k.radius(k.lr, size, twice))
        same(
            T.mean_square_radius(k.ls, k.d, size, k.lr, twice, 1e-9) ** m,
            k.radius(k.lr, size, twice),
            1e-6,
        )


@checks("mean_square_lr_limit")
def _(k):
    for size, twice in product(k.sizes, EITHER):
        limit = T.mean_square_lr_limit(k.ls, k.d, size, twice)
        below, above = (k.radius(limit * (1 + x), size, twice) for x in (-1e-6, 1e-6))
        assert below < 1 < above
        assert all(k.radius(limit * x, size, twice) < 1 for x in (0.1, 0.5, 0.9))


@checks("stationary_excess", "still")
def _(k):
    for size, twice in product(k.sizes, EITHER):
        rough = (
            k.lr * np.square(k.g).sum(1).max() + k.lr * 1e-9 * np.square(k.y).max() * k.values[-1]
        )
        found = T.stationary_excess(k.ls, k.d, size, k.lr, twice)
        same(found, k.floor(k.lr, size, twice), scale=rough)
        limit = T.mean_square_lr_limit(k.ls, k.d, size, twice)
        assert T.stationary_excess(k.ls, k.d, size, 1.01 * limit, twice) == np.inf


@checks("stationary_covariance", "still")
def _(k):
    noise = np.square(k.g).sum(1).max() + 1e-9 * np.square(k.y).max() * k.values[-1]
    flattest = np.linalg.eigvalsh(k.basis.T @ k.h @ k.basis)[0]
    for size, twice in product(k.sizes, EITHER):
        found, sizes = T.stationary_covariance(k.ls, k.d, size, k.lr, twice), k.d // size * [size]
        sizes += [k.d % size] if k.d % size else []
        for before, after, n in zip(np.roll(found, 1, axis=0), found, sizes, strict=True):
            maps, offsets = k.steps(n, k.lr, twice)
            due = (maps @ before @ maps.swapaxes(1, 2)).mean(0) + offsets.T @ offsets / len(offsets)
            same(after, due, scale=k.lr * noise / flattest)
        limit = T.mean_square_lr_limit(k.ls, k.d, size, twice)
        assert (T.stationary_covariance(k.ls, k.d, size, 1.01 * limit, twice) == np.inf).all()


@checks("ou_covariance")
def _(k):
    noise = np.square(k.g).sum(1).max() + 1e-9 * np.square(k.y).max() * k.values[-1]
    for size, twice in product(k.sizes, EITHER):
        share = 1 / size if twice else T.finite_share(k.d, size)
        c, due = T.ou_covariance(k.ls, k.d, size, k.lr, twice), k.lr * share * k.g.T @ k.g / k.d
        same(k.h @ c + c @ k.h, due, scale=k.lr * noise)
        same(k.basis @ (k.basis.T @ c), c)


@checks("fastest_steps")
def _(k):
    for rule in ("descent", "Nesterov"):
        best = T.fastest_steps(k.ls, k.d, 1, True, rule)
        options = (best.momentum, rule == "Nesterov")
        radius = T.mean_square_radius(k.ls, k.d, 1, best.lr, True, *options)
        same(best.factor, radius, scale=1)
        for lr in np.linspace(0, 2, 30)[1:] / k.values[-1]:
            assert k.radius(lr, 1, True) ** (1 / k.d) >= best.factor - 1e-6


@checks("lr_limit_to_reach")
def _(k):
    for size, twice in product(k.sizes, EITHER):
        limit = T.mean_square_lr_limit(k.ls, k.d, size, twice)
        asked = k.floor(limit / 9, size, twice)
        if asked < 1e-20 * np.square(k.y).max():  # no noise at the minimum
            assert T.lr_limit_to_reach(k.ls, k.d, size, k.loss(k.w0), twice) == limit
            continue
        for excess in (asked, asked * 1e-14):
            lr = T.lr_limit_to_reach(k.ls, k.d, size, excess, twice)
            assert T.stationary_excess(k.ls, k.d, size, lr, twice) == pytest.approx(
                excess, rel=1e-6, abs=0
            )


@checks("critical_size_of_lr", "still")
def _(k):
    same(T.critical_size_of_lr(k.ls, 2, k.lr), 2 * (2 / k.values[-1] / k.lr - 1))


@checks("expected_losses")
def _(k):
    for size, twice in product(k.sizes, EITHER):
        sizes = batch_sizes(None, k.d, size)
        excess = k.excess_along(size, np.full(2 * len(sizes), k.lr), twice)
        running, full = T.expected_losses(k.ls, k.w0, k.d, size, k.lr, 2, twice)
        least = k.loss(k.w_star)
        same(full, least + excess[len(sizes) :: len(sizes)])
        same(running, least + excess[:-1].reshape(2, -1) @ sizes / k.d)


@checks("scheduled_losses")
def _(k):
    for size, twice in product(k.sizes, EITHER):
        rates = k.lr * np.array([1.0, 0.5, 0.0, 2.0])
        found = T.scheduled_losses(k.ls, k.w0, k.d, size, rates, twice)
        same(found, k.loss(k.w_star) + k.excess_along(size, rates, twice))


@checks("resized_losses")
def _(k):
    rates, sizes = k.lr * np.array([1.0, 0.5, 2.0]), [1, k.d, 1]
    for twice in EITHER:
        paths, expected = [k.w0 - k.w_star], [k.loss(k.w0)]
        for size, lr in zip(sizes, rates, strict=True):
            steps = list(zip(*k.steps(size, lr, twice), strict=True))
            paths = [a @ path + b for path in paths for a, b in steps]
            expected.append(np.mean([k.loss(k.w_star + path) for path in paths]))
        same(T.resized_losses(k.ls, k.w0, k.d, sizes, rates, twice), expected)


@checks("averaged_losses")
def _(k):
    for size in k.sizes:
        sizes, paths = batch_sizes(None, k.d, size), [[k.w0 - k.w_star]]
        for t in range(2):
            steps = list(zip(*k.steps(sizes[t % len(sizes)], k.lr), strict=True))
            paths = [[*path, a @ path[-1] + b] for path in paths for a, b in steps]
        means = np.array([np.mean(path[1:], 0) for path in paths])
        expected = np.mean([k.loss(k.w_star + z) for z in means])
        same(T.averaged_losses(k.ls, k.w0, k.d, size, np.full(2, k.lr))[-1], expected)


@checks("expected_path")
def _(k):
    for size, twice in product(k.sizes, EITHER):
        path = T.expected_path(k.ls, k.w0, k.d, size, k.lr, 5, replacement=twice)
        same(path.excess, k.excess_along(size, np.full(5, k.lr), twice))
        same(path.terms[:, 0], T.noise_terms(k.ls, k.w0, k.d))


@checks("expected_steps")
def _(k):
    for size in k.sizes:
        excess = k.excess_along(size, np.full(40, k.lr))
        target = excess.max() * 0.6
        found = T.expected_steps(k.ls, k.w0, k.d, size, k.lr, target, most=40)
        below = np.flatnonzero(excess < target)
        expected = T.time_above(excess[: below[0] + 1], target) if len(below) else np.inf
        assert found == pytest.approx(expected)


@checks("averaged_excess_law")
def _(k):
    s = k.g.T @ k.g / k.d
    rough = np.square(k.g).sum(1).max() / k.values[0] + 1e-9 * np.square(k.y).max()
    same(
        T.averaged_excess_law(k.ls, k.d, 7),
        np.trace(np.linalg.pinv(k.h, rcond=1e-12) @ s) / 14,
        scale=rough,
    )


@checks("projected", "outputs")
def _(k):
    length = np.linalg.norm(k.rows, axis=1)
    other = T.projected(k.ls)
    same(other.features, k.rows / length[:, None])
    same(other.features @ other.w_star - other.residual, k.y.ravel() / length)


@checks("polyak_losses", "outputs")
def _(k):
    paths = [k.w0]
    for _ in range(3):
        paths = [
            w - (x @ w - y) / (x @ x) * x
            for w in paths
            for x, y in zip(k.rows, k.y.ravel(), strict=True)
        ]
    expected = np.mean([k.loss(w) for w in paths])
    same(T.polyak_losses(k.ls, k.w0, k.d, 3)[-1], expected)


# ---- given orders -----------------------------------------------------------------------------


@checks("batches")
def _(k):
    for size in k.sizes:
        b = k.batches(size, "reversed")
        parts = [range(k.d)[::-1][i : i + size] for i in range(0, k.d, size)]
        same(b.hessians, [k.each[list(part)].mean(0) for part in parts])
        same(b.gradients, [k.g[list(part)].mean(0) for part in parts], scale=np.abs(k.y).max() ** 2)


@checks("batches_by_epoch")
def _(k):
    config = ss.TrainConfig(lr=1.0, batch_size=2, order="shuffle")
    for b in islice(T.batches_by_epoch(k.problem, config), 3):
        same(np.einsum("b,bpq->pq", b.sizes / k.d, b.hessians), k.h)


@checks("epoch_map")
def _(k):
    for size in k.sizes:
        for found, right in zip(
            T.epoch_map(k.batches(size), k.lr), k.in_order(k.lr, size), strict=True
        ):
            same(found, right, scale=1)


@checks("exact_radius")
def _(k):
    for size in k.sizes:
        same(T.exact_radius(k.batches(size), k.lr), k.order_radius(k.lr, size))


@checks("spectral_radius")
def _(k):
    for size in k.sizes:
        same(T.spectral_radius(k.batches(size), k.lr), k.order_radius(k.lr, size))


@checks("growth")
def _(k):
    b = k.batches()
    for lr in (k.lr, 5 * k.lr):
        products = {}
        for i in range(k.d):
            a = np.eye(k.p)
            for j in range(i, k.d):
                a = b.factors(lr)[j] @ a
                products[i, j] = np.linalg.norm(a, 2)
        same(T.growth(b, lr).factor, max(products.values()))


def order_path(k, lr, size, epochs):
    z, running, full = k.w0, [], []
    for _ in range(epochs):
        total = 0.0
        for first in range(0, k.d, size):
            part = slice(first, first + size)
            total += ((k.phi[part] @ z - k.y[part]) ** 2).sum() / k.y.size
            z = z - lr * k.gradients(z)[part].mean(0)
        running.append(total)
        full.append(k.loss(z))
    return running, full


@checks("fixed_order_losses")
def _(k):
    for size in k.sizes:
        found = T.fixed_order_losses(k.ls, k.batches(size), k.w0, k.lr, 3)
        same(found, order_path(k, k.lr, size, 3))


@checks("order_losses")
def _(k):
    for size in k.sizes:
        found = T.order_losses(k.ls, k.w0, k.lr, [k.batches(size)] * 3)
        same((found.running, found.full), order_path(k, k.lr, size, 3))


def settled(k, lr, size=1):
    m, c = k.in_order(lr, size)
    m, c = k.basis.T @ m @ k.basis, c @ k.basis
    return k.basis @ np.linalg.solve(np.eye(len(c)) - m, c)


@checks("fixed_point", "still")
def _(k):
    for size in k.sizes:
        same(T.fixed_point(k.batches(size), k.lr), settled(k, k.lr, size), scale=np.abs(k.w0).max())


@checks("fixed_point_loss", "still")
def _(k):
    for size in k.sizes:
        expected = k.loss(k.w_star + settled(k, k.lr, size))
        same(T.fixed_point_loss(k.ls, k.batches(size), k.lr), expected, scale=k.loss(k.w0))


@checks("critical_lr")
def _(k):
    top = 1 / k.values[-1]
    found = T.critical_lr(k.batches(), 0.01 * top, 100 * top)
    assert k.order_radius(found * (1 - 1e-5)) < 1 < k.order_radius(found * (1 + 1e-5))


@checks("usable_lr", "wide")  # there all equations are solved, and nothing depends on lr
def _(k):
    low, high = (x / max(np.trace(h) for h in k.each) for x in (0.01, 0.9))
    ends = [k.loss(k.w_star + settled(k, lr)) for lr in (low, high)]
    found = T.usable_lr(k.ls, k.batches(), np.mean(ends), low, high)
    assert k.loss(k.w_star + settled(k, found)) == pytest.approx(np.mean(ends), rel=1e-2)


@checks("fixed_order_law")
def _(k):
    time, n, order = 6 / k.values[0], 10**5, np.arange(k.d)
    z = settled(k, time / (k.d * n))
    law = T.fixed_order_law(k.ls, order, time)
    # the next order in 1 / K, times as many e-foldings as the steepest direction makes
    assert law[-2] == pytest.approx(
        z @ z * n**2, rel=10 * time * k.values[-1] / n, abs=1e-9 * k.w0 @ k.w0
    )


@checks("rate_laws")
def _(k):
    time, n = 6 / k.values[0], 10**6
    law = T.rate_laws(k.ls, k.d, time)
    lr = time / (k.d * n)
    epoch, noise = k.inside(lr, 1, True)
    c = np.linalg.solve(np.eye(len(noise)) - epoch, noise).reshape(len(k.values), -1)
    rough = 1e-9 * k.w0 @ k.w0
    assert law["with_replacement"][-1] == pytest.approx(np.trace(c) * n, rel=1e-3, abs=rough)
    every = [T.fixed_order_law(k.ls, np.array(o), time)[-2] for o in permutations(range(k.d))]
    assert law["shuffle_once"][-2] == pytest.approx(np.mean(every), rel=1e-9, abs=rough)
    for order in ("shuffle", "flip_flop"):
        assert all(0 <= constant < np.inf for constant in law[order].values())


@checks("independent_error")
def _(k):
    maps, offsets = k.steps(1, k.lr, True)
    paths = [np.zeros(k.p)]
    for _ in range(3):
        paths = [a @ z + b for z in paths for a, b in zip(maps, offsets, strict=True)]
    rough = (k.lr * np.abs(k.y).max() * np.abs(k.phi).max()) ** 2
    found = T.independent_error(k.ls, k.d, k.lr, 3)
    same(found, np.mean([z @ z for z in paths]), scale=rough)


@checks("kept_order_error", "outputs")
def _(k):
    orders = np.array(list(permutations(range(k.d))))
    expected = []
    for order in orders:
        z = np.zeros(k.p)
        for i in [*order, *order]:
            z = z - k.lr * (k.each[i] @ z + k.g[i])
        expected.append(z @ z)
    rough = (k.lr * np.abs(k.y).max() * np.abs(k.phi).max()) ** 2
    same(T.kept_order_error(k.ls, orders, k.lr, 2), expected, scale=rough)


@checks("reshuffling_bias")
def _(k):
    """The mean over all orders of sum_{i before j} H_j g_i, which H z undoes epoch by epoch."""
    pairs = [
        sum(k.each[j] @ k.g[i] for n, j in enumerate(order) for i in order[:n])
        for order in permutations(range(k.d))
    ]
    z = k.lr / k.d * np.linalg.pinv(k.h, rcond=1e-12) @ np.mean(pairs, 0)
    same(T.reshuffling_bias(k.ls, k.d, k.lr), z, scale=np.abs(k.w0).max())


# ---- single paths -----------------------------------------------------------------------------


def simulated(k, lr, size, replicas=400, steps=1000):
    """Exponent per step and its error, of batches drawn with replacement."""
    draw, sizes = np.random.default_rng(1), batch_sizes(None, k.d, size)
    maps = {n: k.basis.T @ k.steps(n, lr, True)[0] @ k.basis for n in set(sizes)}
    z, total = draw.normal(size=(replicas, k.basis.shape[1])), np.zeros(replicas)
    for t in range(2 * steps):
        each = maps[sizes[t % len(sizes)]]
        z = np.einsum("rpq,rq->rp", each[draw.integers(len(each), size=replicas)], z)
        length = np.linalg.norm(z, axis=1)
        z, total = z / length[:, None], total + (np.log(length) if t >= steps else 0)
    each = total / steps
    return each.mean(), each.std() / replicas**0.5


@checks("lyapunov")
def _(k):
    for size in k.sizes:
        mean, error = simulated(k, k.lr, size)
        given = {"epochs": 200, "replicas": 200, "replacement": True}
        found = T.lyapunov(k.problem, size, k.lr, **given)
        # 400 paths of 1000 steps there, 200 of at least 199 here
        assert abs(found - mean) <= 4 * error * (1 + 10) ** 0.5 + 1e-9
    exact = np.log(np.abs(1 - k.lr * k.values)).max()
    assert T.lyapunov(k.problem, k.d, k.lr) == pytest.approx(exact, abs=1e-12)


@checks("log_rate", "still")
def _(k):
    for size, order in product(k.sizes, ("shuffle", "with_replacement")):
        config = ss.TrainConfig(lr=k.lr, batch_size=size, order=order)
        twice = order == "with_replacement"
        found = T.lyapunov(k.problem, size, k.lr, replacement=twice, **T.PRODUCTS)
        assert T.log_rate(k.problem, config) == found


@checks("lyapunov_zero_lr")
def _(k):
    top = 1 / k.values[-1]
    found = T.lyapunov_zero_lr(k.problem, k.d, 0.1 * top, 10 * top)
    assert found == pytest.approx(2 * top, rel=2e-3)
    found = T.lyapunov_zero_lr(k.problem, 1, 0.1 * top, 1000 * top, True)
    below, above = (simulated(k, found * x, 1) for x in (0.8, 1.25))
    assert below[0] + 4 * below[1] < 0 < above[0] - 4 * above[1]


@checks("first_overflow")
def _(k):
    lr = 0.0 if k.still else 1e3 * k.lr
    if lr == 0:  # no configuration takes it
        return
    for size, dtype in product((*k.sizes, None), ("float32", "float64")):
        config = ss.TrainConfig(
            optimizer="notebook", lr=lr, batch_size=size, epochs=200, dtype=dtype
        )
        run = ss.train(k.problem, config=config)
        assert T.first_overflow(k.problem, config, 800).tolist() == run.n_steps.tolist()


# ---- samples that come once -------------------------------------------------------------------

ONCE = ("wide", "dependent", "equal")  # directions that no sample moves


@checks("sample_law", *ONCE)
def _(k):
    law, flat = k.law(), [2 * np.outer(x, x) for x in k.rows]
    same(law.hessian, np.mean(flat, 0))
    same(law.products, np.mean([np.kron(h, h) for h in flat], 0))
    same(law.noise, 2 * 0.3**2 * law.hessian)


def tracked(k, size, lr, v, n):
    """Excess after n steps behind parameters that move by v, from the moments of single steps."""
    law = k.law()
    return T.tracking_path(law, size, np.full(n, lr), np.arange(n + 1)[:, None] * v, 0 * v)[1]


@checks("tracking_path", *ONCE)
def _(k):
    law, v = k.law(), np.ones(k.p)
    mean, excess = T.tracking_path(law, 2, np.full(2, k.lr), np.arange(3)[:, None] * v, 0 * v)
    z = np.zeros(k.p)
    for _ in range(2):
        z = z - k.lr * law.hessian @ z - v
    same(mean[-1], z + 2 * v)
    if k.still:
        same(excess, [t**2 * v @ law.hessian @ v / 2 for t in range(3)])


@checks("stationary_tracking", *ONCE, "still")
def _(k):
    v = np.ones(k.p)
    for size in (1, 3):
        excess = tracked(k, size, k.lr, v, 20_000)
        same(T.stationary_tracking(k.law(), size, k.lr, v).excess, excess[-1], rel=1e-6)


@checks("tracking_lr_limit", *ONCE)
def _(k):
    for size in (1, 3):
        limit = T.tracking_lr_limit(k.law(), size)
        ends = [tracked(k, size, x * limit, np.ones(k.p), 3000)[[-1500, -1]] for x in (0.97, 1.03)]
        assert ends[0][1] == pytest.approx(ends[0][0], rel=1e-3)
        assert ends[1][1] > 10 * ends[1][0]


@checks("tracking_terms", *ONCE, "still")
def _(k):
    noise, lag = T.tracking_terms(k.law(), 2, k.lr, np.ones(k.p))
    same(noise, k.lr * np.trace(k.law().noise) / 8)
    same(lag, np.linalg.inv(k.law().hessian).sum() / (2 * k.lr**2))


@checks("best_tracking_lr", *ONCE)
def _(k):
    law, v = k.law(), np.full(k.p, 0.1)
    best, limit = T.best_tracking_lr(law, 1, v), T.tracking_lr_limit(law, 1)
    grid = [
        T.stationary_tracking(law, 1, lr, v).excess for lr in np.geomspace(1e-4, 0.999, 300) * limit
    ]
    assert T.stationary_tracking(law, 1, best, v).excess <= min(grid) * (1 + 1e-9)
    with pytest.raises(ss.InputError, match="stand still"):
        T.best_tracking_lr(law, 1, 0 * v)


# ---- the list ---------------------------------------------------------------------------------

# these take numbers, not a problem: their own tests have all there is
NUMBERS = {
    "critical_batch_size",
    "draw_within",
    "finite_share",
    "first_below",
    "gap",
    "growth_per_step",
    "jensen_bounds",
    "law_at",
    "least_absolute_gradient",
    "log_minimum",
    "log_slope",
    "minimum_of_means",
    "ratio_of_means",
    "reshuffling_factor",
    "sharpness_limit",
    "shuffle_once_factor",
    "slope_interval",
    "slope_samples",
    "sum_rounding",
    "time_above",
    "triangle_bounds",
    "two_batch_estimate",
    "uniform_law",
}


def public():
    functions = {name: getattr(T, name) for name in T.__all__}
    return {
        name
        for name, function in functions.items()
        # whole orders are enumerated in tests/test_reshuffling.py
        if inspect.isfunction(function)
        and not function.__module__.endswith((".reshuffling", ".particles"))
    }


def test_the_list_is_whole():
    assert set(CHECKS) | NUMBERS == public()
    assert not set(CHECKS) & NUMBERS


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CHECKS))
@pytest.mark.parametrize("kind", KINDS)
def test_right_or_refused(name, kind):
    if kind in REFUSED[name]:
        with pytest.raises(ss.InputError) as error:
            CHECKS[name](KINDS[kind])
        assert one_line(error)
        assert "cannot use these arguments together" not in str(error.value)
    else:
        CHECKS[name](KINDS[kind])
