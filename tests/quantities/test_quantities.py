"""Diagnostics against independent oracles: autograd loops, closed forms, theory, BackPACK."""

import copy
import gc
import itertools
import math
import re
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_curve
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import sgdstudy as ss
from sgdstudy import quantities, theory
from sgdstudy.quantities import autograd, eigen, linear, sources, spread, statistics
from sgdstudy.quantities.chunk import Chunk, Known

EVERYTHING = list(quantities.QUANTITIES)
OF_BATCH = [name for name in quantities.PRESETS["full"] if not name.startswith("full_")][3:]


# ---- problems, chunks ------------------------------------------------------------------------


def mlp(d=30, hidden=4, loss="mse", seed=0, outputs=1, activation=nn.Tanh):
    """A small network on random data, its parameters drawn without the global generator."""
    g = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(2, hidden), activation(), nn.Linear(hidden, outputs))
    for part in net.parameters():
        part.data = torch.randn(part.shape, generator=g)
    x = torch.randn(d, 2, generator=g)
    if loss == "cross_entropy":
        y = torch.randint(0, outputs, (d,), generator=g)
    else:
        y = torch.randn(d, outputs, generator=g)
    return ss.Problem(x, y, net, loss)


def linear_layer(d=30, n=4, outputs=3, seed=0):
    """Least squares with several outputs to a sample."""
    g = torch.Generator().manual_seed(seed)
    w = torch.randn((n + 1) * outputs, generator=g).double()
    x, y = (torch.randn(d, k, generator=g).double() for k in (n, outputs))
    return ss.Problem(x, y, nn.Linear(n, outputs).double(), w_init=w)


class Scaled(nn.Module):
    """A module with a parameter of its own that no layer knows."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1, bias=False)
        self.scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        return self.scale * torch.sin(self.layer(x)) + self.scale**2


def taken(problem, indices, size=None, *, w=None, n=2, lr=0.1, seed=0, **more):
    """Random steps `(S, R)` on given samples `(R, sum of sizes)`; None: all the data."""
    rng = np.random.default_rng(seed)
    if indices is not None:
        indices = torch.as_tensor(indices)
        n, size = len(indices), np.asarray(size)
    else:
        size = np.full(3 if size is None else size, problem.d)
    if w is None:
        w = rng.normal(size=(len(size) + 1, n, problem.p))
    found = [problem.full(row) for row in w[:-1]]
    full = np.stack([gradient for _, gradient in found])
    return Chunk(
        path=w,
        slopes=full,
        loss=np.stack([loss for loss, _ in found]),
        size=size,
        full=Known.at_all(full),
        w_start=w[0],
        w_true=None,
        lr=lr,
        problem=problem,
        indices=indices,
        **({"every": 1} | more),
    )


def computed(names, of):
    return quantities.compute(quantities.resolve(names), of)


def batches_of(of):
    """Every `(s, r)` with the samples of its batch."""
    starts = np.cumsum(of.size) - of.size
    for s, size in enumerate(of.size):
        for r in range(of.w.shape[1]):
            if of.indices is None:
                yield s, r, torch.arange(of.problem.d)
            else:
                yield s, r, of.indices[r, starts[s] : starts[s] + size]


@np.errstate(all="ignore")
def loop(of):
    """What every quantity of the batch is, by autograd in a loop over samples, and textbook sums.

    Raw sums as printed in the papers, which the code avoids: fine on ordinary data.
    """
    problem = of.problem.to(torch.float64, "cpu")
    found = {name: np.full(of.loss.shape, np.nan) for name in OF_BATCH}

    def batch_loss(w, index):
        prediction = problem.model(w, problem.x[index])
        return problem.batch_loss(prediction[None], problem.y[index][None])[0]

    def slope(w, index):
        w = w.clone().requires_grad_()
        return torch.autograd.grad(batch_loss(w, index), w)[0].numpy()

    for s, r, index in batches_of(of):
        w, after = torch.tensor(of.w[s, r]), torch.tensor(of.w_next[s, r])
        each = np.stack([slope(w, index[i : i + 1]) for i in range(len(index))])
        n, g = len(index), each.mean(0)
        gg, dots = g @ g, each @ g
        hessian = torch.autograd.functional.hessian(lambda w, i=index: batch_loss(w, i), w).numpy()
        trace, top = np.trace(hessian), np.linalg.eigvalsh(hessian)[-1]
        noise = ((each**2).sum() - n * gg) / (n - 1)
        signal = gg - noise / n
        step = of.w_next[s, r] - of.w[s, r]
        values = {
            "trace_sigma": noise,
            "noise_scale": noise / gg,
            "noise_scale_two_batch": noise / signal if signal > 0 else np.nan,
            "norm_test": np.sqrt(((each**2).sum() - n * gg) / ((n - 1) * n * gg)),
            "inner_test": np.sqrt(((dots**2).sum() - n * gg**2) / ((n - 1) * n * gg**2)),
            "ortho_test": np.sqrt(
                max((each**2).sum() - (dots**2).sum() / gg, 0) / ((n - 1) * n * gg)
            ),
            "gsnr": np.mean(g**2 / each.var(0)),
            "early_stopping": 1 - n * np.mean(g**2 / each.var(0, ddof=1)),
            "cabs": of.lr * noise / of.loss[s, r],
            "alpha": -(slope(after, index) @ step) / (slope(w, index) @ step),
            "tic": noise / trace,
            "hess_max_eig": top,
            "hess_trace": trace,
            "lr_sharpness": of.lr * top,
        }
        for name, value in values.items():
            found[name][s, r] = value
    return found


def spread_of(gradients, names):
    mean, names = spread.centre(gradients), frozenset(names)
    with np.errstate(all="ignore"):
        sums = spread.sums(gradients, mean, names)
        return spread.statistics(sums, mean, gradients.shape[1], names)


def random_batches(d, sizes, n=2, seed=0):
    return np.random.default_rng(seed).integers(0, d, (n, sum(sizes)))


CASES = {
    "curve": (small_curve(noise=0.3), [10, 10, 7]),
    "curve, full batch": (small_curve(noise=0.3), None),
    "one parameter": (
        ss.Problem(
            np.linspace(-1, 2, 9), np.cos(np.arange(9)), lambda w, x: w[0] * x, w_init=[0.0]
        ),
        [4, 4, 3],
    ),
    "two parameters": (
        ss.Problem(
            np.linspace(-1, 2, 9),
            np.cos(np.arange(9)),
            lambda w, x: w[0] * x + w[1],
            w_init=[0.0, 0.0],
        ),
        [2, 5, 2],
    ),
    "linear layer": (linear_layer(), [5, 5, 4]),
    "linear layer, full batch": (linear_layer(), None),
    "wide linear layer, small batch": (linear_layer(n=9, outputs=1), [2, 3, 6]),
    "mlp": (mlp(), [8, 8, 5]),
    "mlp, full batch": (mlp(d=12), None),
    "classes": (mlp(loss="cross_entropy", outputs=3), [8, 5, 5]),
    "unsquared": (mlp(loss="abs"), [6, 6]),
    "own parameter": (
        ss.Problem(
            torch.randn(20, 2, generator=torch.Generator().manual_seed(3)),
            torch.zeros(20, 1),
            Scaled(),
        ),
        [7, 6],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_quantity_is_what_a_loop_of_autograd_gives(case):
    problem, sizes = CASES[case]
    indices = None if sizes is None else random_batches(problem.d, sizes)
    of = taken(problem, indices, sizes)
    values, expected = computed(OF_BATCH, of), loop(of)
    assert list(values) == OF_BATCH
    for name in OF_BATCH:
        scale = 1e-7 if name == "ortho_test" else 1e-9  # raw sums leave a root of their rounding
        assert np.allclose(values[name], expected[name], rtol=1e-7, atol=scale, equal_nan=True), (
            name
        )


@pytest.mark.parametrize("case", ["curve", "curve, full batch", "linear layer", "two parameters"])
def test_closed_forms_equal_torch_func(case):
    problem, sizes = CASES[case]
    indices = None if sizes is None else random_batches(problem.d, sizes)
    of = taken(problem, indices, sizes)
    wanted = frozenset([*spread.SPREAD, "alpha", "hess_max_eig", "hess_trace", "histogram"])
    ours, other = (
        source(of, wanted)
        for source in (sources.source_of(problem).batch, autograd.Autograd(problem).batch)
    )
    for name in wanted:
        assert np.allclose(ours[name], other[name], rtol=1e-9, atol=1e-12, equal_nan=True), name
    names = frozenset(["full_trace_sigma", "full_square", "full_hess_max_eig", "full_hess_trace"])
    ours, other = (
        source(of, names)
        for source in (sources.source_of(problem).full, autograd.Autograd(problem).full)
    )
    for name in names:
        assert np.allclose(ours[name], other[name], rtol=1e-9), name


# ---- identities, exact values ----------------------------------------------------------------


@given(
    st.lists(
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=2, max_size=9
    )
)
def test_the_squared_norm_test_splits_in_two(rows):
    found = spread_of(np.repeat(np.array(rows).T[..., None], 2, axis=2), spread.SPREAD)
    if (found["square"] > 0).all():
        parts = found["along"] * found["square"] + found["across"]
        assert np.allclose(parts, found["scatter"], rtol=1e-9, atol=1e-200)


def test_norm_inner_and_orthogonality_test_are_pythagoras():
    of = taken(small_curve(noise=0.3), random_batches(53, [10] * 20), [10] * 20)
    v = computed(["norm_test", "inner_test", "ortho_test"], of)
    assert np.allclose(v["norm_test"] ** 2, v["inner_test"] ** 2 + v["ortho_test"] ** 2, rtol=1e-12)


@pytest.mark.parametrize("problem", [small_curve(d=7, noise=0.3), mlp(d=7)], ids=["curve", "mlp"])
def test_the_mean_over_all_batches_is_the_exact_value(problem):
    """Without replacement, E trace_sigma = d / (d - 1) tr(Sigma), and E|g_B|^2 is known."""
    d, size = problem.d, 3
    samples = list(itertools.combinations(range(d), size))
    w = np.tile(np.random.default_rng(1).normal(size=problem.p), (len(samples) + 1, 1, 1))
    of = taken(problem, np.array(samples).reshape(1, -1), [size] * len(samples), w=w)
    found = computed(["trace_sigma", "full_trace_sigma"], of)
    exact = found["full_trace_sigma"][0, 0]
    assert np.isclose(found["trace_sigma"].mean(), exact * d / (d - 1), rtol=1e-9)
    gg = (of.full_gradient[0, 0] ** 2).sum()
    expected = gg + exact * theory.finite_share(d, size)
    shared = statistics.Statistics(of)
    assert np.isclose(shared["square"].mean(), expected, rtol=1e-6)  # f32 full gradient
    if problem.least_squares is not None:
        expected = theory.mean_square_batch_norm(problem.least_squares, w[0, 0], d, size)
        assert np.isclose(shared["square"].mean(), expected, rtol=1e-9)
        # the estimators of the noise scale: S and G2 separately without bias but for S / d
        signal = shared["square"] - found["trace_sigma"] / size
        bias = theory.two_batch_bias(problem.least_squares, w[0, 0], d)
        assert np.isclose(signal.mean(), gg + bias, rtol=1e-9)


def test_alpha_of_full_batch_descent_on_a_quadratic():
    problem = small_curve(noise=0.2)
    for lr in (0.02, 0.3, 0.7):
        history = ss.train(
            problem, lr=lr, epochs=6, dtype="float64", diagnostics=["alpha"], record_rows=100
        )
        h = problem.least_squares.hessian
        for _, row in history.steps.iterrows():
            g = problem.least_squares.gradient(row[["w0", "w1", "w2"]].to_numpy(float))
            assert np.isclose(row.alpha, lr * g @ h @ g / (g @ g) - 1, rtol=0, atol=1e-6)


def test_alpha_uses_the_true_update_of_rmsprop():
    problem = small_curve(noise=0.2)
    settings = {"batch_size": 10, "epochs": 3, "dtype": "float64", "seeds": range(2)}
    history = ss.train(problem, optimizer="RMSprop", lr=0.01, diagnostics=["alpha"], **settings)
    listing = ss.orders.listing(problem, history.config)
    steps = history.steps[history.steps.seed == 0]
    w = steps[["w0", "w1", "w2"]].to_numpy()
    x, y = problem.x.double().numpy(), problem.y.double().numpy()
    phi = np.stack([x * x, x, np.ones_like(x)], axis=1)
    for k in range(len(steps) - 1):
        row = steps.iloc[k]
        index = listing[(listing.epoch == row.epoch) & (listing.batch == row.batch)]["index"]
        f, target, s = phi[index], y[index], w[k + 1] - w[k]
        before, after = ((f @ at - target) @ f @ s for at in (w[k], w[k + 1]))
        assert np.isclose(row.alpha, -after / before, rtol=1e-7, atol=1e-7)


def test_full_quantities_follow_theory_along_a_run():
    for problem in (small_curve(noise=0.1), small_curve()):
        settings = {"optimizer": "notebook", "lr": 0.3, "batch_size": 10, "epochs": 150}
        history = ss.train(problem, diagnostics="full", dtype="float64", **settings)
        ls = problem.least_squares
        for _, row in history.steps.iloc[::41].iterrows():
            w = row[["w0", "w1", "w2"]].to_numpy(float)
            assert np.isclose(row.full_trace_sigma, theory.trace_sigma(ls, w, problem.d), rtol=1e-6)
            assert np.isclose(row.full_noise_scale, theory.noise_scale(ls, w, problem.d), rtol=1e-5)
        assert np.allclose(history.steps.full_hess_max_eig, theory.eigenvalues(ls).max())
        assert np.allclose(history.steps.full_hess_trace, np.trace(ls.hessian))


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_root_by_eigenvectors_is_as_good(outputs, monkeypatch):
    problem = linear_layer(n=5, outputs=outputs)
    of = taken(problem, None)
    expected = computed(["full_trace_sigma"], of)["full_trace_sigma"]
    monkeypatch.setattr(linear, "MAX_QR_OPERATIONS", 0)
    source = linear.Linear(problem.least_squares, problem.d)
    found = source.full(of, frozenset(["full_trace_sigma"]))["full_trace_sigma"]
    assert np.allclose(found, expected, rtol=1e-9)
    exact = theory.trace_sigma(problem.least_squares, of.w[0, 0], problem.d)
    assert np.isclose(found[0, 0], exact, rtol=1e-9)


# ---- eigenvalues -----------------------------------------------------------------------------


@given(
    k=st.integers(1, 5),
    exponent=st.floats(-12, 12),
    gaps=st.lists(
        st.sampled_from([0, 1e-15, 1e-12, 1e-9, 1e-6, 1e-3, 0.1, 1.0, 1e3]), min_size=5, max_size=5
    ),
    seed=st.integers(0, 2**31),
)
def test_closed_form_eigenvalues_are_lapacks(k, exponent, gaps, seed):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(k, k)))
    values = 10**exponent * np.cumsum(gaps[:k]) if sum(gaps[:k]) else np.full(k, 10**exponent)
    matrix = (q * values) @ q.T
    matrix = (matrix + matrix.T) / 2
    stacked = np.repeat(matrix[..., None], 2, axis=2)
    for sign in (1, -1):
        expected = np.linalg.eigvalsh(sign * matrix)[-1]
        assert np.allclose(
            eigen.largest(sign * stacked), expected, rtol=0, atol=2e-13 * np.abs(values).max()
        )


@pytest.mark.parametrize("gap", [0.0, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (-1.0, 0.0)])
def test_two_largest_eigenvalues_that_nearly_coincide_keep_their_digits(gap, ends):
    rng, (least, largest) = np.random.default_rng(0), ends
    turns = np.stack([np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(200)])
    matrices = (turns * [least, largest - gap, largest]) @ turns.swapaxes(1, 2)
    matrices = (matrices + matrices.swapaxes(1, 2)) / 2
    found = eigen.largest(np.moveaxis(matrices, 0, -1))
    assert np.allclose(found, np.linalg.eigvalsh(matrices)[:, -1], rtol=0, atol=2e-13)


@np.errstate(invalid="ignore")
def test_eigenvalues_of_simple_matrices():
    eye = np.eye(3)[..., None] * np.array([3.0, 0.0, -2.0, np.nan, np.inf])
    assert eigen.largest(eye)[:3].tolist() == [3, 0, -2]
    assert not np.isfinite(eigen.largest(eye)[3:]).any()
    for k in (4, 5):
        found = eigen.largest(np.eye(k)[..., None] * np.array([2.0, np.nan]))
        assert found[0] == 2
        assert np.isnan(found[1])


@pytest.mark.parametrize("p", [30, 100])
def test_large_models_by_products_with_the_hessian(p, monkeypatch):
    problem = mlp(d=20, hidden=(p - 1) // 4)
    sizes = [10, 10]
    of = taken(problem, random_batches(problem.d, sizes), sizes)
    names = ["hess_max_eig", "hess_trace", "trace_sigma", "alpha"]
    monkeypatch.setattr(autograd, "EXACT_PARAMETERS", 1000)
    exact = computed(names, of)
    monkeypatch.setattr(autograd, "EXACT_PARAMETERS", 10)
    monkeypatch.setattr(autograd, "PROBES", 400)
    of = taken(problem, of.indices, sizes)
    found = computed(names, of)
    assert np.allclose(found["hess_max_eig"], exact["hess_max_eig"], rtol=1e-5)
    spread_of_probes = np.sqrt(2 / 400) * 3 * exact["hess_max_eig"]  # |H|_F is a few of that
    assert (np.abs(found["hess_trace"] - exact["hess_trace"]) < 4 * spread_of_probes).all()
    assert np.array_equal(found["trace_sigma"], exact["trace_sigma"])


def test_lanczos_on_few_distinct_eigenvalues():
    for values in ([-3.0, -3, -1, -1, -3, -1], [5.0] * 6, [0.0] * 6, [-2.0, 0, 0, 0, 0, 1]):
        matrix = torch.diag(torch.tensor(values, dtype=torch.float64))
        start = torch.ones(2, 6, dtype=torch.float64)
        assert np.allclose(autograd.lanczos(lambda v, m=matrix: v @ m, start), max(values))


def test_many_samples_are_taken_in_parts(monkeypatch):
    problem = mlp(d=40)
    names = [*OF_BATCH, "grad_histogram", "full_trace_sigma"]
    whole = computed(names, taken(problem, None))
    monkeypatch.setattr(autograd, "BLOCK_VALUES", 7 * problem.p)
    parts = computed(names, taken(problem, None))
    for name, value in whole.items():
        assert np.allclose(parts[name], value, rtol=1e-6, atol=1e-12), name


# ---- what is not defined ---------------------------------------------------------------------


NEED_TWO = ["trace_sigma", "noise_scale", "noise_scale_two_batch", "norm_test", "inner_test"]
NEED_TWO += ["ortho_test", "gsnr", "early_stopping", "cabs", "tic"]


@pytest.mark.parametrize("problem", [small_curve(noise=0.1), mlp()], ids=["curve", "mlp"])
def test_one_sample_has_no_variance(problem):
    values = computed(EVERYTHING, taken(problem, random_batches(problem.d, [1] * 4), [1] * 4))
    for name in NEED_TWO:
        assert np.isnan(values[name]).all(), name
    for name in ("alpha", "hess_max_eig", "hess_trace", "lr_sharpness"):
        assert np.isfinite(values[name]).all(), name


def identical(model, p, d=13, **settings):
    x = torch.full((d, 2), 0.1) if isinstance(model, nn.Module) else torch.full((d,), 0.1)
    y = torch.full((d, 1), 0.7) if isinstance(model, nn.Module) else torch.full((d,), 0.7)
    return ss.Problem(
        x, y, model, w_init=None if isinstance(model, nn.Module) else [0.3] * p, **settings
    )


@pytest.mark.parametrize("indices", [True, False], ids=["batches", "full batch"])
@pytest.mark.parametrize("model", ["parabola", "layer", "mlp"])
def test_identical_samples_have_exactly_no_variance(model, indices):
    models = {
        "parabola": (ss.problems.parabola, 3),
        "layer": (nn.Linear(2, 1), 3),
        "mlp": (mlp(hidden=9).source, 37),
    }
    problem = identical(*models[model])
    sizes = [10, 10, 3]
    of = taken(problem, random_batches(13, sizes) if indices else None, sizes if indices else None)
    values = computed(EVERYTHING, of)
    for name in ("trace_sigma", "noise_scale", "noise_scale_two_batch", "norm_test", "cabs"):
        assert (values[name] == 0).all(), name
    assert (values["inner_test"] == 0).all()
    assert (values["ortho_test"] == 0).all()
    assert np.isnan(values["gsnr"]).all()
    assert np.isnan(values["early_stopping"]).all()
    assert (values["full_trace_sigma"] < 1e-24).all()


def test_zero_gradients_and_losses_are_undefined_ratios():
    """Exact labels at the true parameters: every gradient is 0, and the loss too."""
    x = np.arange(8.0)
    problem = ss.Problem(x, 2 * x + 1, lambda w, x: w[0] * x + w[1], w_init=[0.0, 0.0])
    w = np.tile([2.0, 1.0], (3, 1, 1))
    of = taken(problem, random_batches(8, [4, 4], n=1), [4, 4], w=w)
    object.__setattr__(of, "loss", np.zeros((2, 1)))
    generic = autograd.Autograd(problem)
    for source in (sources.source_of(problem), generic):
        sources._sources[problem] = source
        values = computed(EVERYTHING, of)
        assert np.abs(values["trace_sigma"]).max() < 1e-25
        if source is generic:
            assert (values["trace_sigma"] == 0).all()
            for name in ("noise_scale", "norm_test", "inner_test", "ortho_test", "gsnr", "alpha"):
                assert np.isnan(values[name]).all(), name
        assert np.isnan(values["cabs"]).all()
        assert np.isfinite(values["hess_max_eig"]).all()


def test_dead_parameters_are_left_out_and_constant_ones_undefined():
    g = np.zeros((3, 4, 2))
    g[0] = np.array([1.0, 2.0, 3.0, 6.0])[:, None]
    g[2, :, 1] = 5.0  # gradient without variance, in the second row
    found = spread_of(g, ["snr"])["snr"]
    assert found[0] == 9 / np.var([1, 2, 3, 6])
    assert np.isnan(found[1])


def test_losses_that_are_no_mean_over_samples_have_no_sample_gradients():
    for loss in ("norm", "rmse"):
        problem = mlp(loss=loss)
        of = taken(problem, random_batches(30, [8, 5]), [8, 5])
        values, expected = computed(OF_BATCH, of), loop(of)
        for name in OF_BATCH:
            if name in NEED_TWO:
                assert np.isnan(values[name]).all(), name
            else:
                assert np.allclose(values[name], expected[name], rtol=1e-8), name


def test_without_a_problem_only_the_trajectory_is_known():
    of = taken(small_curve(), random_batches(53, [5]), [5])
    object.__setattr__(of, "problem", None)
    values = computed(EVERYTHING, of)
    assert np.isfinite(values["distance_start"]).all()
    assert np.isnan(values["trace_sigma"]).all()
    assert "full_trace_sigma" not in computed("full", of)


def test_parameters_that_overflow_are_no_error():
    for problem in (small_curve(), mlp()):
        w = np.full((3, 1, problem.p), 1e200)
        w[1] = np.nan
        of = taken(problem, random_batches(problem.d, [5, 5], n=1), [5, 5], w=w)
        values = computed(EVERYTHING, of)
        # nothing finite comes from parameters that are not a number
        assert np.isnan(values["trace_sigma"][1]).all()
        assert np.isnan(values["noise_scale"][1]).all()


# ---- schedule, columns -----------------------------------------------------------------------


@pytest.mark.parametrize("problem", [small_curve(), mlp()], ids=["exact", "by autograd"])
def test_the_schedule_goes_on_from_chunk_to_chunk(problem, monkeypatch):
    settings = {"lr": 0.01, "batch_size": 10, "epochs": 9, "diagnostics": ["trace_sigma"]}
    whole = ss.train(problem, diagnostics_every=4, **settings).steps
    monkeypatch.setattr("sgdstudy.training.run.FIRST_STEPS", 7)
    cut = ss.train(problem, diagnostics_every=4, **settings).steps
    assert (cut.trace_sigma.notna() == (cut.step % 4 == 0)).all()
    assert np.allclose(cut.trace_sigma, whole.trace_sigma, rtol=1e-9, equal_nan=True)


def test_the_schedule():
    settings = {"lr": 0.01, "batch_size": 10, "epochs": 5, "diagnostics": "full"}
    exact = ss.train(small_curve(), **settings).steps
    assert exact.trace_sigma.notna().all()
    thin = ss.train(small_curve(), diagnostics_every=4, **settings).steps
    known = thin.trace_sigma.notna()
    assert (known == (thin.step % 4 == 0)).all()
    assert np.array_equal(thin.trace_sigma[known], exact.trace_sigma[known])
    assert thin.full_trace_sigma.notna().all()
    for every in (None, 3):
        rows = ss.train(mlp(), diagnostics_every=every, **settings).steps
        assert (rows.trace_sigma.notna() == (rows.step % (every or 10) == 0)).all()
        assert rows.distance_start.notna().all()
        assert not [name for name in rows if name.startswith("full_trace")]


def test_by_name_the_whole_data_is_known_where_epochs_start():
    names = ["full_trace_sigma", "full_noise_scale", "full_hess_max_eig", "full_hess_trace"]
    settings = {"lr": 0.01, "epochs": 3, "diagnostics": names, "seeds": range(2)}
    problem = mlp()
    rows = ss.train(problem, batch_size=10, **settings).steps
    for name in names:
        assert (rows[name].notna() == (rows.batch == 0)).all(), name
    most = rows.step.max() + 1
    rows = ss.train(problem, batch_size=10, diagnostics_every=int(most) - 1, **settings).steps
    for name in names:  # of the epochs' starts those that are scheduled
        assert (rows[name].notna() == (rows.step == 0)).all(), name
    rows = ss.train(problem, diagnostics_every=2, **settings).steps
    for name in names:
        assert (rows[name].notna() == (rows.step % 2 == 0)).all(), name


def test_a_bin_of_the_histogram_holds_its_lower_edge():
    for place, edge in enumerate(spread.EDGES):
        counts = spread.histogram(np.full((1, 1, 1), edge))[0]
        assert counts.tolist() == [float(k == place + 1) for k in range(13)]


def test_a_histogram_counts_every_element_once():
    for problem in (small_curve(noise=0.3), mlp()):
        of = taken(problem, random_batches(problem.d, [8, 8, 5]), [8, 8, 5])
        values = computed(["grad_histogram", "trace_sigma"], of)
        counts = np.stack([values[f"grad_histogram_{k}"] for k in range(13)], axis=-1)
        assert np.array_equal(counts.sum(-1), np.outer(of.size * problem.p, [1, 1]))
        exact = problem.to(torch.float64, "cpu")
        for s, r, index in batches_of(of):
            w = torch.tensor(of.w[s, r]).expand(len(index), -1)
            _, each = exact.losses_and_gradients(
                w, exact.x[index][:, None], exact.y[index][:, None]
            )
            edges = [-np.inf, *spread.EDGES, np.inf]
            assert np.array_equal(counts[s, r], np.histogram(each.numpy(), edges)[0])


def test_only_what_is_asked_for_is_computed(monkeypatch):
    asked = []
    source = sources.source_of(small := small_curve())
    monkeypatch.setattr(
        source, "batch", lambda of, names: asked.append(names) or spread.nowhere((1, 2), names)
    )
    of = taken(small, random_batches(53, [5]), [5])
    computed("light", of)
    assert asked == []
    computed(["norm_test", "trace_sigma", "hess_trace"], of)
    assert asked == [{"scatter", "square", "hess_trace"}]


def test_shared_statistics_cannot_be_changed():
    def careless(of):
        of.statistics["scatter"][:] = 0
        return of.loss

    of = taken(small_curve(), random_batches(53, [5]), [5])
    with pytest.raises(ValueError, match="read-only"):
        computed(["trace_sigma", careless], of)


def test_a_model_that_vmap_cannot_run_says_so():
    def model(w, x):
        return w[0] * x if float(w[0].detach()) > 0 else w[0] * x * x + w[1] ** 3

    problem = ss.Problem(np.arange(5.0), np.arange(5.0), model, w_init=[-1.0, 1.0])
    ss.train(problem, lr=1e-3, epochs=2, diagnostics="light")
    with pytest.raises(ss.InputError, match="light") as error:
        ss.train(problem, lr=1e-3, epochs=2, diagnostics="full")
    assert "\n" not in str(error.value)


def test_a_model_bound_to_float32_is_observed_in_float32():
    mixing = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    net = mlp(d=20)
    bound = ss.Problem(
        net.x, net.y[:, 0], lambda w, x: torch.tanh(x @ mixing) @ w, w_init=[0.1] * 3
    )
    free = ss.Problem(
        net.x, net.y[:, 0], lambda w, x: torch.tanh(x @ mixing.to(x)) @ w, w_init=[0.1] * 3
    )
    assert bound.least_squares is None
    assert free.least_squares is not None
    batches = random_batches(20, [8, 5]), [8, 5]
    ours, exact = (computed(OF_BATCH, taken(problem, *batches)) for problem in (bound, free))
    for name in OF_BATCH:
        assert np.allclose(ours[name], exact[name], rtol=1e-3, atol=1e-5, equal_nan=True), name


def test_only_rows_that_are_kept_are_computed():
    settings = {"lr": 0.05, "batch_size": 10, "epochs": 20, "diagnostics": EVERYTHING}
    whole = ss.train(small_curve(noise=0.1), **settings).steps
    thin = ss.train(small_curve(noise=0.1), record_rows=30, **settings).steps
    kept = whole.merge(thin[["step"]])
    assert np.array_equal(thin.to_numpy(), kept.to_numpy(), equal_nan=True)
    assert thin.trace_sigma.notna().all()


def test_the_docs_list_every_quantity():
    text = (Path(__file__).parents[2] / "docs" / "diagnostics.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert listed == EVERYTHING


# ---- neutral, and the same for whoever runs beside ---------------------------------------------


@pytest.mark.parametrize("optimizer", ["SGD", "RMSprop"])
@pytest.mark.parametrize("kind", ["curve", "mlp", "classes", "full batch"])
def test_diagnostics_change_nothing(kind, optimizer):
    problems = {"mlp": mlp(), "classes": mlp(loss="cross_entropy", outputs=3)}
    problem = problems.get(kind, small_curve(noise=0.1))
    settings = {"optimizer": optimizer, "lr": 0.01, "epochs": 4, "seeds": range(3)}
    settings["batch_size"] = None if kind == "full batch" else 8  # the last is ragged
    before, parameters = torch.get_rng_state(), problem.initial([0]).clone()
    np_before = np.random.get_state()[1].copy()
    plain = ss.train(problem, diagnostics="off", **settings)
    seen = ss.train(problem, diagnostics=EVERYTHING, diagnostics_every=2, **settings)
    assert np.array_equal(plain.w, seen.w)
    assert np.array_equal(
        plain.steps.to_numpy(), seen.steps[list(plain.steps)].to_numpy(), equal_nan=True
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], np_before)
    assert torch.equal(problem.initial([0]), parameters)
    assert seen.steps.trace_sigma.notna().any()


def test_a_seeds_values_do_not_depend_on_the_others():
    settings = {"lr": 0.05, "batch_size": 10, "epochs": 4, "diagnostics": EVERYTHING}
    for problem in (small_curve(noise=0.1), ss.problems.curve(noise=0.1)):
        changes = {} if problem.d < 100 else {"lr": 1e-4, "epochs": 1}
        many = ss.train(problem, seeds=range(5), **(settings | changes)).steps
        one = ss.train(problem, seeds=[3], **(settings | changes)).steps
        beside = many[many.seed == 3].reset_index(drop=True)
        assert np.array_equal(one.to_numpy(), beside.to_numpy(), equal_nan=True)


@pytest.mark.parametrize("rows", [2, 3, 1000])
def test_how_the_rows_are_cut_changes_nothing(rows, monkeypatch):
    problem = small_curve(noise=0.1)
    sizes = [10, 10, 10, 4] * 3
    indices = random_batches(53, sizes, n=5)
    whole = computed("full", taken(problem, indices, sizes))
    monkeypatch.setattr(linear, "BLOCK_VALUES", rows * 30)
    parts = computed("full", taken(problem, indices, sizes))
    for name, value in whole.items():
        assert np.array_equal(parts[name], value, equal_nan=True), name


@pytest.mark.slow
def test_a_source_does_not_keep_its_problem_alive():
    for problem in (small_curve(), mlp(), mlp().to(torch.float64, "cpu")):
        computed(["trace_sigma"], taken(problem, random_batches(problem.d, [5]), [5]))
        assert problem in sources._sources
    count = len(sources._sources)
    del problem
    gc.collect()
    assert len(sources._sources) < count


# ---- BackPACK --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "mlp", "classes"])
def test_backpack_agrees(kind):
    backpack = pytest.importorskip(
        "backpack", reason="BackPACK, of the test extra, is not installed"
    )
    from backpack import extensions

    g = torch.Generator().manual_seed(5)
    outputs = 3 if kind == "classes" else 1
    layers = [nn.Linear(2, outputs)]
    if kind != "linear":
        layers = [nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, outputs)]
    module = nn.Sequential(*layers).double()
    for part in module.parameters():
        part.data = torch.randn(part.shape, generator=g).double()
    x = torch.randn(9, 2, generator=g).double()
    y = (
        torch.randint(0, 3, (9,), generator=g)
        if kind == "classes"
        else torch.randn(9, 1, generator=g).double()
    )
    loss = nn.CrossEntropyLoss() if kind == "classes" else nn.MSELoss()
    problem = ss.Problem(x, y, module, "cross_entropy" if kind == "classes" else "mse")
    w = np.tile(problem.initial([0]).numpy(), (2, 1, 1))
    of = taken(problem, np.arange(9)[None], [9], w=w)
    found = computed(OF_BATCH, of)

    extended, criterion = backpack.extend(copy.deepcopy(module)), backpack.extend(loss)
    wanted = [extensions.BatchGrad(), extensions.Variance(), extensions.SumGradSquared()]
    wanted += [extensions.BatchL2Grad(), extensions.DiagHessian()]
    with backpack.backpack(*wanted):
        criterion(extended(x.clone().requires_grad_()), y).backward()  # else its hooks warn
    parts = list(extended.parameters())
    n = 9
    each = n * torch.cat([p.grad_batch.flatten(1) for p in parts], 1).numpy()
    variance = n**2 * torch.cat([p.variance.flatten() for p in parts]).numpy()  # of g_i / n
    squares = n**2 * torch.cat([p.sum_grad_squared.flatten() for p in parts]).numpy()
    lengths = n**2 * sum(p.batch_l2 for p in parts).numpy()
    mean = torch.cat([p.grad.flatten() for p in parts]).numpy()
    trace = sum(float(p.diag_h.sum()) for p in parts)

    ours = next(autograd.Autograd(problem)._by_sample((torch.tensor(w[0]), x[None], y[None])))
    assert np.allclose(ours[..., 0].T, each, rtol=1e-9, atol=1e-12)
    noise = (squares.sum() - n * mean @ mean) / (n - 1)
    value = {name: float(found[name][0, 0]) for name in found}
    assert np.isclose(value["trace_sigma"], noise, rtol=1e-9)
    assert np.isclose(value["trace_sigma"], (lengths.sum() - n * mean @ mean) / (n - 1), rtol=1e-9)
    assert np.isclose(value["trace_sigma"], variance.sum() * n / (n - 1), rtol=1e-9)
    assert np.isclose(value["gsnr"], np.mean(mean**2 / variance), rtol=1e-9)
    assert np.isclose(value["norm_test"], np.sqrt(noise / n / (mean @ mean)), rtol=1e-9)
    assert np.isclose(value["hess_trace"], trace, rtol=1e-9)


class Padded(nn.Module):
    """torch's rule for the gradient of an embedding under vmap is of the padding, too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.e, self.o = nn.Embedding(4, 2, padding_idx=1), nn.Linear(6, 3)

    def forward(self, t):
        return self.o(torch.tanh(self.e(t)).flatten(1))


class Guarded(nn.Module):
    """A gradient that is turned by a hook, which torch.func does not set."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        if h.requires_grad:
            h.register_hook(lambda g: 0.5 * g)
        return self.b(h)


class Large(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module, self.own = module, nn.Parameter(torch.zeros(autograd.EXACT_PARAMETERS))

    def forward(self, x):
        return self.module(x) + self.own.sum()


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", [Padded, Guarded])
def test_what_torch_func_differentiates_otherwise_is_differentiated_plainly(kind, large):
    g = torch.Generator().manual_seed(2)
    x, y = torch.randint(0, 4, (20, 3), generator=g), torch.randint(0, 3, (20,), generator=g)
    problem = ss.Problem(x, y, Large(kind()) if large else kind(), "cross_entropy")
    of = taken(problem, random_batches(20, [5, 5]), [5, 5])
    found = computed(["trace_sigma", "hess_trace", "hess_max_eig", "alpha"], of)
    exact = problem.to(torch.float64, "cpu")

    def gradient(w, rows):
        loss = exact.batch_loss(exact.model(w, exact.x[rows])[None], exact.y[rows][None])[0]
        return torch.autograd.grad(loss, w, create_graph=True)[0]

    for step, replica in itertools.product(range(2), range(2)):
        rows = of.indices[replica, 5 * step : 5 * step + 5]
        w = torch.tensor(of.w[step, replica], dtype=torch.float64).requires_grad_()
        after = torch.tensor(of.w_next[step, replica], dtype=torch.float64).requires_grad_()
        mean = gradient(w, rows)
        matrix = torch.stack([torch.autograd.grad(s, w, retain_graph=True)[0] for s in mean])
        each = torch.stack([gradient(w, rows[k : k + 1]) for k in range(5)])
        move = (after - w).detach()
        value = {name: found[name][step, replica] for name in found}
        assert value["trace_sigma"] == pytest.approx(float(each.detach().var(0).sum()), rel=1e-6)
        slopes = [float((slope @ move).detach()) for slope in (gradient(after, rows), mean)]
        assert value["alpha"] == pytest.approx(-slopes[0] / slopes[1], rel=1e-6)
        largest = float(torch.linalg.eigvals(matrix).real.max())
        if kind is Padded:  # the derivative of a turned gradient need not be symmetric
            assert value["hess_max_eig"] == pytest.approx(largest, rel=1e-6)
        if not large:  # else random signs estimate it
            assert value["hess_trace"] == pytest.approx(float(matrix.trace()), rel=1e-6)


def test_batch_normalisation_without_statistics_has_no_gradients_of_samples():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 4, generator=draw), torch.randint(0, 3, (20,), generator=draw)
    normalised = nn.BatchNorm1d(5, track_running_stats=False)
    net = nn.Sequential(nn.Linear(4, 5), normalised, nn.Linear(5, 3))
    problem = ss.Problem(x, y, net, "cross_entropy")
    first = ss.train(problem, batch_size=5, epochs=1, diagnostics="full").steps.iloc[0]
    assert np.isnan(first["trace_sigma"])
    assert np.isnan(first["gsnr"])
    assert np.isfinite(first["hess_max_eig"])


def test_a_chunk_does_not_wait_for_the_garbage_collector():
    of = taken(small_curve(), random_batches(53, [5, 5], n=1), [5, 5])
    alive = weakref.ref(of)
    gc.disable()
    try:
        computed(EVERYTHING, of)
        del of
        assert alive() is None
    finally:
        gc.enable()


def test_a_diagnostic_that_writes_into_what_it_sees_changes_nothing():
    def overwrites(chunk):
        for array in (chunk.w, chunk.w_next, chunk.gradient, chunk.loss, chunk.full_gradient):
            array[:] = 7.0
        chunk.size[:] = 1
        chunk.indices[:] = 0
        return chunk.loss

    given = {"lr": 0.05, "batch_size": 10, "epochs": 3, "seeds": range(2)}
    own = ["alpha", "noise_scale"]
    history = ss.train(small_curve(noise=0.1), **given, diagnostics=[overwrites, *own, overwrites])
    plain = ss.train(small_curve(noise=0.1), **given, diagnostics=own)
    assert history.steps.drop(columns="overwrites").equals(plain.steps)
    assert history.epochs.equals(plain.epochs)


def test_a_norm_of_many_vectors_is_that_of_each():
    """More numbers than are looked at in one go; against a sum without rounding."""
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(70, 3, 1000)).astype(np.float32)
    for other in (None, draw.normal(size=1000), draw.normal(size=(70, 1, 1000))):
        off = vectors.astype(float) - (0.0 if other is None else other)
        expected = [[math.fsum(v * v) ** 0.5 for v in row] for row in off]
        assert np.allclose(quantities.norm(vectors, other), expected, rtol=1e-13, atol=0)
        assert quantities.norm(off[0, 0]) == pytest.approx(expected[0][0], rel=1e-13)


def test_what_is_known_at_some_steps_is_put_there_and_nowhere_else():
    some = Known(np.array([0, 3]), np.array([[[1.0, 2.0]], [[3.0, 4.0]]]), 5)
    found = some.put(some.vectors)
    assert np.array_equal(found[[0, 3]], some.vectors)
    assert np.isnan(found[[1, 2, 4]]).all()
    assert np.array_equal(some.of(found), some.vectors)
    every = Known.at_all(np.ones((2, 1, 3)))
    assert np.array_equal(every.put(every.vectors), np.ones((2, 1, 3)))


def test_of_values_of_first_steps_those_of_the_epochs_that_are_known_are_taken():
    first = np.array([10.0, 20.0, 30.0])  # of three epochs of two steps
    for epochs in ([0, 2], [1], [0, 1, 2], []):
        at = np.array(epochs, dtype=int)
        some = Known(2 * at, np.zeros((len(at), 1, 1)), 6)
        assert np.array_equal(some.of(first), first[at])
