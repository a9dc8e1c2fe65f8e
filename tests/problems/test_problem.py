"""Problems: the notebook's data, the losses, modules, exact least squares, what is refused."""

import numpy as np
import pytest
import torch
from conftest import one_line, small_curve
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import sgdstudy as ss
from sgdstudy.problems import losses


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradient(loss, w):
    """Value and gradient of a plain function of one w."""
    w = torch.as_tensor(w).clone().requires_grad_()
    value = loss(w)
    value.backward()
    return value.item(), w.grad.numpy()


# ---- the notebook's data ------------------------------------------------------------------------


def test_the_curve_is_the_notebooks_bit_for_bit():
    wt = [0.3, -1.7, 2.5]
    xtrain = np.arange(-10, 10, 0.01, dtype="f")
    ytrain = wt[0] * xtrain * xtrain + wt[1] * xtrain + wt[2]
    problem = ss.problems.curve()
    assert problem.x.dtype == problem.y.dtype == torch.float32
    assert np.array_equal(problem.x.numpy(), xtrain)
    assert np.array_equal(problem.y.numpy(), ytrain)


def test_the_curves_points_are_those_printed_in_the_notebook():
    problem = ss.problems.curve()
    points = torch.stack([problem.x, problem.y], 1).numpy()
    printed = {0: (-10, 49.5), 1: (-9.99, 49.423027), 2: (-9.98, 49.346115)}
    printed |= {-3: (9.970457, 15.373228), -2: (9.980457, 15.416082), -1: (9.990458, 15.458996)}
    assert len(points) == 2000
    for i, point in printed.items():
        assert np.array_equal(points[i], np.array(point, dtype="f"))


def test_label_noise_leaves_x_alone_and_has_its_standard_deviation():
    clean, noisy = ss.problems.curve(), ss.problems.curve(noise=0.5)
    assert torch.equal(clean.x, noisy.x)
    noise = (noisy.y - clean.y).double()
    n = len(noise)
    assert abs(noise.mean()) < 4 * 0.5 / n**0.5
    assert abs(noise.std() - 0.5) < 4 * 0.5 / (2 * n) ** 0.5


def test_label_noise_follows_its_seed_and_draws_from_no_global_generator():
    before = torch.get_rng_state()
    first, again = ss.problems.curve(noise=1.0, seed=3), ss.problems.curve(noise=1.0, seed=3)
    assert torch.equal(first.y, again.y)
    assert not torch.equal(first.y, ss.problems.curve(noise=1.0, seed=4).y)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("noise", [-1.0, float("nan"), float("inf")])
def test_a_noise_that_is_no_standard_deviation_is_refused(noise):
    with pytest.raises(ss.InputError) as error:
        ss.problems.curve(noise=noise)
    assert one_line(error)


@pytest.mark.parametrize("target", ["normal", "cubic"])
def test_legendre_starts_at_its_minimum_with_hessian_two_and_unit_loss(target):
    problem = ss.problems.legendre(target)
    ls = problem.least_squares
    assert (problem.d, problem.p, problem.dtype) == (100, 3, torch.float64)
    # the midpoint rule is exact but for O(1 / d^2)
    assert ls.hessian == pytest.approx(2 * np.eye(3), abs=30 / 100**2)
    assert ls.least_loss == pytest.approx(1)
    assert problem.initial([0])[0].numpy() == pytest.approx(ls.w_star, abs=1e-12)
    assert problem.w_true.numpy() == pytest.approx(ls.w_star, abs=1e-12)
    assert problem.x[[0, -1]].tolist() == [-0.99, 0.99]


def test_legendres_residuals_are_those_of_its_target():
    x = ss.problems.legendre().x.numpy()
    # least squares leaves of x^3 the third Legendre polynomial, (5 x^3 - 3 x) / 2
    cubic = ss.problems.legendre("cubic").least_squares.residual
    third = 7**0.5 / 2 * (5 * x**3 - 3 * x)
    assert -cubic == pytest.approx(third, abs=0.01)
    first, again = ss.problems.legendre(seed=3), ss.problems.legendre(seed=3)
    assert torch.equal(first.y, again.y)
    assert not torch.equal(first.y, ss.problems.legendre(seed=4).y)


@pytest.mark.parametrize("wrong", [{"target": "cubik"}, {"d": 3}])
def test_a_legendre_problem_that_cannot_be_is_refused(wrong):
    with pytest.raises(ss.InputError) as error:
        ss.problems.legendre(**wrong)
    assert one_line(error)


# ---- losses -------------------------------------------------------------------------------------

SHAPES = [(3, 5), (3, 5, 2), (1, 1), (2, 4, 1)]
DEFINITIONS = {
    "mse": lambda r: (r**2).mean(),
    "abs": lambda r: np.sqrt((r.reshape(len(r), -1) ** 2).sum(1)).mean(),
    "norm": lambda r: np.sqrt((r**2).sum()),
    "rmse": lambda r: np.sqrt((r**2).mean()),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_loss_is_its_definition_in_every_replica(name, shape):
    prediction, y = random(*shape), random(*shape, seed=1)
    expected = [DEFINITIONS[name](r) for r in (prediction - y).numpy()]
    assert np.allclose(losses.LOSSES[name](prediction, y), expected, rtol=1e-14)


def test_cross_entropy_is_minus_the_log_of_the_true_class():
    logits, y = random(3, 6, 4), torch.randint(4, (3, 6), generator=torch.Generator())
    chance = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(chance, y.numpy()[..., None], 2)).mean((1, 2))
    assert np.allclose(losses.cross_entropy(logits, y), expected, rtol=1e-14)


@pytest.mark.parametrize("shape", [(1, 10), (4, 10), (4, 10, 3)])
def test_mse_rounds_as_torchs_mse_loss(shape):
    prediction, y = random(*shape).float().requires_grad_(), random(*shape, seed=1).float()
    value = losses.mse(prediction, y)
    (slope,) = torch.autograd.grad(value.sum(), prediction)
    for r in range(shape[0]):
        alone = prediction[r].detach().requires_grad_()
        expected = nn.functional.mse_loss(alone, y[r])
        (expected_slope,) = torch.autograd.grad(expected, alone)
        assert torch.equal(value[r], expected)
        assert torch.equal(slope[r], expected_slope)


@pytest.mark.parametrize("name", ["mse", "abs", "cross_entropy"])
def test_an_additive_loss_is_the_weighted_mean_of_its_batches(name):
    if name == "cross_entropy":
        prediction, y = random(1, 10, 3), torch.arange(10)[None] % 3
    else:
        prediction, y = random(1, 10, 2), random(1, 10, 2, seed=1)
    loss = losses.LOSSES[name]
    parts = [4 * loss(prediction[:, :4], y[:, :4]), 6 * loss(prediction[:, 4:], y[:, 4:])]
    assert torch.allclose(sum(parts) / 10, loss(prediction, y), rtol=1e-14)


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_callable_loss_is_averaged_over_the_batch(replicas):
    def huber(prediction, y):
        return nn.functional.huber_loss(prediction, y, reduction="none")

    prediction, y = random(replicas, 7), random(replicas, 7, seed=1)
    expected = [nn.functional.huber_loss(p, t) for p, t in zip(prediction, y, strict=True)]
    assert torch.allclose(losses.resolve(huber)(prediction, y), torch.stack(expected))


# ---- models -------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [1, 4])
def test_a_module_is_the_same_as_its_function_of_w(replicas):
    module = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()

    def f(w, x):
        hidden = torch.tanh(x @ w[:6].reshape(3, 2).T + w[6:9])
        return hidden @ w[9:12].reshape(1, 3).T + w[12:]

    x, y = random(20, 2), random(20, 1, seed=1)
    one, other = ss.Problem(x, y, module), ss.Problem(x, y, f, w_init=torch.zeros(13))
    assert one.p == 13
    w = random(replicas, 13, seed=2)
    batch = (x.expand(replicas, -1, -1), y.expand(replicas, -1, -1))
    for a, b in zip(
        one.losses_and_gradients(w, *batch), other.losses_and_gradients(w, *batch), strict=True
    ):
        assert torch.allclose(a, b, rtol=1e-12)


def test_a_module_starts_from_its_own_parameters_and_stays_as_it_was():
    module = nn.Linear(2, 1)
    before = [p.detach().clone() for p in module.parameters()]
    problem = ss.Problem(random(20, 2).float(), random(20, 1).float(), module)
    assert torch.equal(problem.initial([0])[0], torch.cat([p.flatten() for p in before]))
    ss.train(problem, lr=0.1, epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize(
    ("model", "p", "n"),
    [
        (ss.problems.parabola, 3, None),
        (lambda w, x: x @ w, 3, 3),
        (lambda w, x: torch.stack([x, x * x], 1) @ w, 2, None),
        (lambda w, x: w.sum() * x, 2, None),
        (lambda w, x: w[0] * x / (1 + w[1].abs().max()), 2, None),
    ],
    ids=["broadcasts", "matrix product", "stacks", "uses w as a whole", "broadcasts and mixes"],
)
def test_replicas_do_not_mix(model, p, n):
    x = random(8, n) if n else random(8)
    problem = ss.Problem(x, random(8, seed=1), model, w_init=torch.zeros(p))
    w, batch = random(5, p, seed=2), (problem.x.expand(5, *x.shape), problem.y.expand(5, 8))
    value, slope = problem.losses_and_gradients(w, *batch)
    for r in range(5):
        loss, expected = gradient(lambda v: (model(v, x) - problem.y).square().mean(), w[r])
        assert value[r].item() == pytest.approx(loss, rel=1e-12, abs=0)
        assert np.allclose(slope[r], expected, rtol=1e-12)


def test_w_init_may_be_drawn_for_each_seed():
    problem = small_curve(w_init=lambda generator: torch.randn(3, generator=generator))
    w = problem.initial([5, 6])
    for row, seed in zip(w, (5, 6), strict=True):
        assert torch.equal(row, torch.randn(3, generator=torch.Generator().manual_seed(seed)))


def test_w_init_is_zero_where_only_the_true_parameters_are_given():
    assert ss.problems.curve().initial([0, 1]).tolist() == [[0, 0, 0]] * 2


def test_a_problem_can_be_replaced_in_part():
    problem = ss.problems.curve().replace(loss="abs")
    assert problem.loss == "abs"
    assert torch.equal(problem.y, ss.problems.curve().y)
    with pytest.raises(ss.InputError, match="losss"):
        problem.replace(losss="abs")


def test_a_problem_that_is_replaced_keeps_its_stream_and_its_drift():
    def moving(steps):
        return np.stack([0.3 + 0.01 * steps, np.full(len(steps), -1.7), 0.0 * steps], 1)

    def stream(generator):
        yield torch.zeros(3), torch.zeros(3)

    problem = small_curve(w_true=moving, stream=stream).replace(loss="abs")
    assert problem.drifts
    assert problem.stream is stream
    assert problem.true_at(np.array([0, 10]))[:, 0] == pytest.approx([0.3, 0.4])


def test_another_dtype_is_that_of_all_numbers_but_classes():
    x, y = random(6), random(6, seed=1)
    problem = ss.Problem(x, y, line, w_init=[0.5, 0.5], w_true=[1.0, 2.0], test=(x, y))
    other = problem.to(torch.float32, "cpu")
    for tensor in (other.x, other.y, *other.test, other.w_true, other.initial([0])):
        assert tensor.dtype == torch.float32
    assert problem.y.dtype == torch.float64
    labels = ss.Problem(x, torch.tensor([0, 1, 0, 1, 0, 1]), logits, "cross_entropy", [0.5, 0.5])
    assert labels.to(torch.float32, "cpu").y.dtype == torch.int64


@pytest.mark.parametrize("loss", ["mse", "abs", "norm", "rmse", lambda f, y: (f - y) ** 4])
def test_many_samples_are_evaluated_in_blocks(loss, monkeypatch):
    """Where the loss adds up; else at once."""
    x, y = random(23), random(23, seed=1)
    held_back = (x[:19], y[:19])
    problem = ss.Problem(x, y, lambda w, x: torch.exp(w[0] * x), loss, [0.5], test=held_back)
    w = np.array([[0.5], [-0.25], [0.1]])
    values, slopes = problem.full(w)
    held_out = problem.test_loss(w)
    monkeypatch.setattr("sgdstudy.problems.evaluation.EVALUATE_AT_ONCE", 5)
    assert np.allclose(problem.full(w)[0], values, rtol=1e-12)
    assert np.allclose(problem.full(w)[1], slopes, rtol=1e-12)
    assert np.allclose(problem.test_loss(w), held_out, rtol=1e-12)


def test_the_accuracy_of_many_samples_is_counted_in_blocks(monkeypatch):
    x, classes = random(23), torch.arange(23) % 2
    model = nn.Linear(1, 2)
    problem = ss.Problem(x[:, None].float(), classes, model, "cross_entropy")
    w = np.random.default_rng(0).normal(size=(2, problem.p)).astype(np.float32)
    outputs = [problem.predict(torch.tensor(one)[None], problem.x[None])[0] for one in w]
    right = [float((out.argmax(-1) == classes).double().mean()) for out in outputs]
    monkeypatch.setattr("sgdstudy.problems.evaluation.EVALUATE_AT_ONCE", 5)
    assert problem.accuracy(w) == pytest.approx(right, rel=1e-12)


def test_arrays_that_cannot_be_written_are_taken_without_a_warning():
    x = np.arange(5.0)
    x.setflags(write=False)  # as pandas hands columns out
    problem = ss.Problem(x, x, lambda w, x: w[0] * x, w_init=[0.0])
    assert problem.x.tolist() == x.tolist()
    bent = ss.Problem(x, x, lambda w, x: torch.exp(w[0] * x), w_init=[0.0])
    w, order = np.zeros((1, 1)), np.arange(5)
    for array in (w, order):
        array.setflags(write=False)
    assert bent.full(w)[0].tolist() == [np.mean((1 - x) ** 2)]
    assert ss.theory.linearised(bent, w[0]).least_loss >= 0
    history = ss.train(bent, lr=1e-6, batch_size=2, epochs=1, order=lambda generator, d: order)
    assert history.n_steps.tolist() == [3]


def test_the_digest_tells_data_apart():
    assert ss.problems.curve().digest == ss.problems.curve().digest
    assert ss.problems.curve().digest != ss.problems.curve(noise=1e-3).digest


# ---- exact least squares ------------------------------------------------------------------------


@given(
    d=st.integers(1, 25),
    p=st.integers(1, 5),
    m=st.sampled_from([None, 1, 2]),
    seed=st.integers(0, 1000),
)
def test_least_squares_is_the_loss_and_gradient_of_all_the_data(d, p, m, seed):
    x = random(d, p, seed=seed)
    y = random(d, seed=seed + 1) if m is None else random(d, m, seed=seed + 1)
    count = p if m is None else p * m

    def f(w, x):
        return x @ w + 3 if m is None else x @ w.reshape(p, m) + 3

    exact = ss.Problem(x, y, f, w_init=torch.zeros(count)).least_squares
    assert exact is not None
    w = random(count, seed=seed + 2)
    value, slope = gradient(lambda v: (f(v, x) - y).square().mean(), w)
    assert exact.loss(w.numpy()) == pytest.approx(value, rel=1e-9)
    assert np.allclose(exact.gradient(w.numpy()), slope, rtol=1e-9, atol=1e-9)
    assert exact.least_loss <= value * (1 + 1e-9)
    assert np.allclose(exact.gradient(exact.w_star), 0, atol=1e-9)


def test_features_that_repeat_each_other_have_the_least_norm_minimiser():
    both = random(12, 2)
    x, y = both @ random(2, 4, seed=1), random(12, seed=2)  # four features, two of them new
    ls = ss.Problem(x, y, lambda w, x: x @ w, w_init=[0.0] * 4).least_squares
    expected = np.linalg.pinv(x.numpy(), rcond=1e-10) @ y.numpy()
    assert np.allclose(ls.w_star, expected, rtol=1e-9, atol=1e-12)
    values, vectors = ls.modes
    assert np.allclose(values, np.linalg.eigvalsh(2 / 12 * x.numpy().T @ x.numpy())[2:], rtol=1e-9)
    assert np.allclose(ls.hessian @ vectors, vectors * values, atol=1e-12)


def test_the_curves_hessian_is_that_of_its_features():
    problem = ss.problems.curve()
    x = problem.x.double().numpy()
    phi = np.stack([x * x, x, np.ones_like(x)], 1)
    assert np.allclose(problem.least_squares.hessian, 2 / 2000 * phi.T @ phi, rtol=1e-12)


def test_full_loss_of_a_float32_problem_is_exact_in_float64():
    problem = small_curve(noise=0.1)
    w = np.array([[0.1, 0.2, 0.3], [0.3, -1.7, 2.5]])
    x, y = problem.x.double(), problem.y.double()
    values, slopes = problem.full(w)
    for row, value, slope in zip(w, values, slopes, strict=True):
        loss, expected = gradient(lambda v: (problem.model(v, x) - y).square().mean(), row)
        assert value == pytest.approx(loss, rel=1e-12, abs=0)
        assert np.allclose(slope, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (lambda w, x: torch.exp(w[0] * x), "mse"),
        (lambda w, x: w[0] * w[0] * x, "mse"),
        (lambda w, x: w[0] * x, "abs"),
        (lambda w, x: w[0] * x, "rmse"),
        (lambda w, x: w[0] * x, "norm"),
        (lambda w, x: w[0] * x, lambda f, y: (f - y) ** 4),
    ],
    ids=["exponential", "square", "abs", "rmse", "norm", "callable loss"],
)
def test_what_is_not_least_squares_has_no_moments(model, loss):
    problem = ss.Problem(random(9), random(9, seed=1), model, loss, w_init=[0.5])
    assert problem.least_squares is None


@pytest.mark.parametrize("share", [1e-2, 1e-4, 1e-6, 1e-8])
def test_a_model_that_is_a_little_non_linear_has_no_moments(share):
    x = random(9)

    def f(w, x):
        return w[0] * x + share * w[0] ** 2 * x

    assert ss.Problem(x, x, f, w_init=[0.5]).least_squares is None
    assert ss.Problem(x, x, lambda w, x: w[0] * x + share * x**2, w_init=[0.5]).least_squares


def test_a_model_that_is_non_linear_at_one_sample_has_no_moments():
    x = torch.arange(5000.0)  # linearity is tried on every fifth sample first

    def f(w, x):
        return w[0] * x + torch.where(x == 1234, w[0] ** 2, 0)

    assert ss.Problem(x, x, f, w_init=[0.5]).least_squares is None


def test_full_loss_without_moments_is_the_batch_loss_of_all_the_data():
    def f(w, x):
        return torch.exp(w[0] * x)

    problem = ss.Problem(random(9), random(9, seed=1), f, w_init=[0.5])
    w = np.array([[0.5], [-0.25]])
    values, slopes = problem.full(w)
    for row, value, slope in zip(w, values, slopes, strict=True):
        loss, expected = gradient(lambda v: (f(v, problem.x) - problem.y).square().mean(), row)
        assert value == pytest.approx(loss, rel=1e-12)
        assert np.allclose(slope, expected, rtol=1e-12)


def test_test_loss_is_the_loss_on_the_held_out_data():
    x, y = random(6), random(6, seed=1)
    problem = small_curve(test=(x, y))
    w = np.array([[0.1, 0.2, 0.3]])
    expected = (0.1 * x * x + 0.2 * x + 0.3 - y).square().mean()
    assert problem.test_loss(w)[0] == pytest.approx(expected.item(), rel=1e-5)  # in float32


# ---- what is refused ----------------------------------------------------------------------------

X, Y = np.arange(6.0), np.arange(6.0)
CLASSES = np.array([0, 1, 0, 1, 0, 5])


def line(w, x):
    return w[0] * x + w[1]


def logits(w, x):
    return torch.stack([w[0] * x, w[1] * x], 1)


def mean_loss(prediction, y):
    return ((prediction - y) ** 2).mean()


def bad(**changes):
    return {"x": X, "y": Y, "model": line, "w_init": [0.0, 0.0]} | changes


def module(*layers, **changes):
    x = random(6, 2).float()
    net = nn.Sequential(nn.Linear(2, 2), *layers)
    return {"x": x, "y": x, "model": net} | changes


BAD = {
    "NaN in x": bad(x=np.array([0, 1, 2, 3, 4, np.nan])),
    "infinity in y": bad(y=np.array([0, 1, 2, 3, 4, np.inf])),
    "infinity in w_init": bad(w_init=[0.0, np.inf]),
    "empty": bad(x=[], y=[]),
    "a number for x": bad(x=1.0),
    "text for x": bad(x="points"),
    "ragged x": bad(x=[[1.0], [1.0, 2.0]]),
    "complex x": bad(x=X + 1j),
    "half precision": bad(x=X.astype(np.float16)),
    "more x than y": bad(y=Y[:5]),
    "a column where a row is due": bad(y=Y[:, None]),
    "predictions of another shape": bad(model=lambda w, x: w[0] * x.sum()),
    "a model that fails": bad(model=lambda w, x: w[5] * x),
    "a model that is none": bad(model="line"),
    "no w_init": bad(w_init=None),
    "w_init as a matrix": bad(w_init=[[0.0, 0.0]]),
    "empty w_init": bad(w_init=[]),
    "w_true of another length": bad(w_true=[1.0, 2.0, 3.0]),
    "unknown loss": bad(loss="msee"),
    "a loss that is none": bad(loss=3),
    "a loss that averages": bad(loss=mean_loss),
    "classes that are floats": bad(model=logits, loss="cross_entropy"),
    "a negative class": bad(model=logits, loss="cross_entropy", y=-CLASSES),
    "a class without a logit": bad(model=logits, loss="cross_entropy", y=CLASSES),
    "cross entropy of numbers": bad(loss="cross_entropy", y=CLASSES),
    "test data of another length": bad(test=(X, Y[:4])),
    "test data that do not fit the model": bad(test=(np.ones((4, 3)), np.ones(4))),
    "test data of another width": module(test=(np.ones((4, 3)), np.ones((4, 3)))),
    "dropout": module(nn.Dropout(0.5)),
    "batch normalisation": module(nn.BatchNorm1d(2)),
    "a module without parameters": module(model=nn.Tanh()),
    "a module for other inputs": module(model=nn.Linear(3, 2)),
}


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_one_line(arguments):
    with pytest.raises(ss.InputError) as error:
        ss.Problem(**arguments)
    assert one_line(error)


def test_an_unknown_loss_suggests_the_nearest():
    with pytest.raises(ss.InputError, match="did you mean 'mse'"):
        ss.Problem(**bad(loss="msee"))


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(2)])
def test_dropout_and_batch_normalisation_are_fine_in_evaluation(layer):
    arguments = module(layer)
    arguments["model"].eval()
    assert ss.Problem(**arguments).p == 6 + 2 * len(list(layer.parameters()))


def test_an_unknown_problem_lists_the_known():
    with pytest.raises(ss.InputError, match="curve") as error:
        ss.problems.get("curv")
    assert one_line(error)


def test_a_mapped_parabola_is_written_block_by_block(monkeypatch):
    from sgdstudy.problems import ready_made

    monkeypatch.setattr(ready_made, "MAPPED", 7)
    found = ss.problems.mapped_parabola(20)
    x = np.float32(4 * (np.arange(20) + 0.5) / 20 - 2)
    assert np.array_equal(found.x.numpy(), x)
    assert np.allclose(found.y.numpy(), 0.3 * x * x - 1.7 * x + 2.5, rtol=1e-6)
    assert found.least_squares.w_star == pytest.approx([0.3, -1.7, 2.5], abs=1e-5)
    with pytest.raises(ss.InputError, match="d must be"):
        ss.problems.mapped_parabola(0)
