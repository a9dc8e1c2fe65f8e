"""Compiled steps against eager ones: `losses_and_gradients` and `torch.optim`, written out here.

Sums and element-wise arithmetic round as ATen's do, so those bits are compared; matrix products,
transcendental functions and square roots differ from MKL's by an ulp, so there the largest
difference, relative to the largest value, is.
"""

import math
import os
import re
import sys

import numpy as np
import pytest
import torch
from conftest import small_curve
from torch import nn

import sgdstudy as ss
from sgdstudy.problems.torch_state import own_state
from sgdstudy.training.compiled import Unsupported, compile_steps, steps

if not any(map(steps.shutil.which, ("g++", "clang++"))):
    pytest.skip("no C++ compiler", allow_module_level=True)


@pytest.fixture(autouse=True)
def one_thread():
    with own_state():
        yield


def setting(problem, r, *, n_steps=40, **changes):
    """Return a config, and what a call of r replicas is given: w, indices, sizes."""
    given = {"optimizer": "notebook", "lr": 0.05, "batch_size": 10, "seeds": range(r)}
    config = ss.TrainConfig(**(given | changes))
    epoch = config.batch_sizes(problem.d)
    sizes = np.resize(epoch, n_steps)
    draw = torch.Generator().manual_seed(3)
    w = problem.initial(list(range(r)))
    w += 0.3 * torch.randn(w.shape, generator=draw, dtype=w.dtype)
    indices = torch.randint(problem.d, (r, int(sizes.sum())), generator=draw)
    return config, w, None if config.batch_size is None else indices, sizes


def eager(problem, config, w, indices, sizes):
    """Return ws `(S+1, R, p)`, losses `(S, R)` and gradients `(S, R, p)` of torch's own steps."""
    w, start, ws, losses, gradients = w.clone(), 0, [w], [], []
    optimizer = None
    if config.optimizer not in ("notebook", "none"):
        kind = getattr(torch.optim, config.optimizer)
        optimizer = kind([w], lr=config.lr, foreach=False, **config.options)
    for size in sizes:
        rows = torch.arange(problem.d).expand(len(w), -1)
        if indices is not None:
            rows = indices[:, start : start + size]
        loss, w.grad = problem.losses_and_gradients(w, problem.x[rows], problem.y[rows])
        start += size
        if optimizer is not None:
            optimizer.step()
        elif config.optimizer == "notebook":
            w -= config.lr * w.grad
        ws.append(w.clone())
        losses.append(loss)
        gradients.append(w.grad)
    return [torch.stack(part) for part in (ws, losses, gradients)]


def compiled(problem, config, w, indices, sizes):
    run = compile_steps(problem, config)
    return run(w, run.init(w), indices, sizes, 1)[2][:3]


def same_bits(ours, theirs):
    return all(
        np.array_equal(a.numpy(), b.numpy(), equal_nan=True)
        for a, b in zip(ours, theirs, strict=True)
    )


def relative(ours, theirs):
    pairs = zip(ours, theirs, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def net(inputs, outputs, activation=nn.Tanh):
    torch.manual_seed(1)
    layers = [nn.Linear(inputs, 8), activation(), nn.Linear(8, outputs)]
    return nn.Sequential(*layers, *([nn.Flatten(0)] if outputs == 1 else []))


def table(d=53, n=4):
    return torch.randn(d, n, generator=torch.Generator().manual_seed(5))


def regression(activation=nn.Tanh, loss="mse"):
    x = table()
    return ss.Problem(x, x[:, 0] * x[:, 1], net(4, 1, activation), loss)


# ---- update rules ------------------------------------------------------------------------------

EXACT = [
    ("none", {}),
    ("notebook", {}),
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
]
ROOTS = [
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.5, "centered": True, "weight_decay": 0.01, "eps": 1e-4}),
    ("RMSprop", {"alpha": 0.4, "momentum": 0.5}),
    ("Adam", {}),
    ("Adam", {"betas": (0.3, 0.9), "weight_decay": 0.01}),
    ("AdamW", {"eps": 1e-5}),
]


@pytest.mark.slow
@pytest.mark.parametrize("r", [1, 3, 20])
@pytest.mark.parametrize(("optimizer", "options"), EXACT)
def test_rules_without_roots_have_the_bits_of_torch(optimizer, options, r):
    problem = small_curve(noise=0.1)  # 53 samples: every sixth batch is ragged
    given = setting(problem, r, optimizer=optimizer, options=options)
    assert set(given[3]) == {10, 3}
    assert same_bits(compiled(problem, *given), eager(problem, *given))


@pytest.mark.slow
@pytest.mark.parametrize("r", [1, 20])
@pytest.mark.parametrize(("optimizer", "options"), ROOTS)
def test_rules_with_roots_agree_with_torch(optimizer, options, r):
    problem = small_curve(noise=0.1)
    given = setting(problem, r, optimizer=optimizer, options=options, lr=0.01)
    assert relative(compiled(problem, *given), eager(problem, *given)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "options"), [EXACT[5], *ROOTS])
def test_rules_in_float64_agree_to_the_last_digits(optimizer, options):
    problem = small_curve(noise=0.1).to(torch.float64, "cpu")
    given = setting(problem, 3, optimizer=optimizer, options=options, lr=0.01)
    assert relative(compiled(problem, *given), eager(problem, *given)) < 1e-14


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize(("optimizer", "options"), ROOTS)
def test_a_gradient_that_is_all_rounding_does_not_stop_a_rule_that_divides_by_it(
    optimizer, options, batch_size
):
    """What is added to all logits changes no loss; Adam's step by it is the sign of a rounding."""

    def model(w, x):
        return x @ w[:15].reshape(5, 3) + w[15]

    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    given = ss.Problem(x, torch.arange(40) % 3, model, "cross_entropy", w_init=[0.1] * 16)
    settings = {"lr": 0.01, "batch_size": batch_size, "options": options, "seeds": range(5)}
    history = ss.train(given, **settings, optimizer=optimizer, epochs=2, engine="compiled")
    assert history.engine == "compiled"


# ---- models and losses -------------------------------------------------------------------------


def log_cosh(prediction, y):
    return torch.log(torch.cosh(prediction - y))


def classes():
    x = table()
    return ss.Problem(x, torch.arange(53) % 3, net(4, 3), "cross_entropy")


def vectors():
    x = table()
    return ss.Problem(x, x[:, :2], lambda w, x: x @ w.reshape(4, 2), "abs", w_init=[0.1] * 8)


def sine():
    def model(w, x):
        return w[0] * torch.sin(w[1] * x + w[2]) ** 2

    return small_curve(model=model, w_init=[1.0, 1.2, 0.1])


def mirrored():
    """A tensor and its transpose in one line, sample by sample."""

    def model(w, x):  # (B, 2, 2)
        bent = torch.tanh(w[0] * x + w[1])
        return (bent - 2 * bent.transpose(-1, -2) * x).sum((-1, -2))

    x = table().reshape(53, 2, 2)
    return ss.Problem(x, x[:, 0, 1], model, w_init=[0.5, 0.1])


PROBLEMS = {
    "abs": lambda: small_curve(noise=0.1, loss="abs"),
    "norm": lambda: small_curve(noise=0.1, loss="norm"),
    "rmse": lambda: small_curve(noise=0.1, loss="rmse"),
    "own loss": lambda: small_curve(noise=0.1, loss=log_cosh),
    "sine": sine,
    "vectors": vectors,
    "mirrored": mirrored,
    "tanh": regression,
    "relu": lambda: regression(nn.ReLU),
    "sigmoid, own loss": lambda: regression(nn.Sigmoid, log_cosh),
    "softplus": lambda: regression(nn.Softplus),
    "gelu": lambda: regression(nn.GELU),
    "cross entropy": classes,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_models_and_losses_agree_with_eager(name):
    problem = PROBLEMS[name]()
    for r in (1, 20):
        given = setting(problem, r, n_steps=20, lr=0.01)
        assert relative(compiled(problem, *given), eager(problem, *given)) < 1e-6


@pytest.mark.parametrize("name", ["tanh", "cross entropy", "gelu"])  # gelu: 1 / sqrt(2) in it
def test_modules_in_float64(name):
    problem = PROBLEMS[name]().to(torch.float64, "cpu")
    given = setting(problem, 3, n_steps=20)
    assert relative(compiled(problem, *given), eager(problem, *given)) < 1e-13


@pytest.mark.parametrize("r", [1, 20])
def test_full_batches_have_the_bits_of_torch(r):
    problem = ss.problems.get("curve")
    given = setting(problem, r, batch_size=None, lr=1e-5, n_steps=10)
    assert given[2] is None
    assert same_bits(compiled(problem, *given), eager(problem, *given))


def test_a_step_that_is_too_large_for_the_stack():
    problem = small_curve(d=100_000)
    given = setting(problem, 2, batch_size=None, n_steps=3)
    assert "static thread_local" in compile_steps(problem, given[0]).source
    assert relative(compiled(problem, *given), eager(problem, *given)) < 1e-5


def test_divergence_has_the_bits_of_torch_too():
    problem = ss.problems.get("curve")
    given = setting(problem, 20, lr=0.2, n_steps=60)
    ours = compiled(problem, *given)
    assert ours[1].isinf().any()
    assert ours[0].isnan().any()
    assert same_bits(ours, eager(problem, *given))


# ---- replicas, chunks, libraries ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["abs", "tanh", "cross entropy"])
def test_a_replica_alone_has_the_bits_of_one_among_others(name):
    problem = PROBLEMS[name]()
    config, w, indices, sizes = setting(problem, 20, optimizer="Adam", lr=0.01)
    among = compiled(problem, config, w, indices, sizes)
    single = ss.TrainConfig(optimizer="Adam", lr=0.01, batch_size=10)
    alone = compile_steps(problem, single)
    assert alone.source != compile_steps(problem, config).source
    found = alone(w[7:8], alone.init(w[7:8]), indices[7:8], sizes, 1)[2][:3]
    assert same_bits([part.squeeze(1) for part in found], [part[:, 7] for part in among])


def test_the_state_goes_on_in_the_next_chunk_with_the_replicas_that_are_left():
    problem = small_curve(noise=0.1)
    config, w, indices, sizes = setting(problem, 20, optimizer="Adam", lr=0.01)
    run = compile_steps(problem, config)
    w_end, state_end, (ws, *_) = run(w, run.init(w), indices, sizes, 1)
    cut = int(sizes[:15].sum())
    half, state, (first, *_) = run(w, run.init(w), indices[:, :cut], sizes[:15], 1)
    left = torch.tensor([2, 3, 19])
    rest = run(half[left], state[left], indices[left, cut:], sizes[15:], 16)
    assert state.shape == (20, 2, 3)
    assert torch.equal(first, ws[:16])
    assert torch.equal(rest[2].w, ws[15:, left])
    assert torch.equal(rest[0], w_end[left])
    assert torch.equal(rest[1], state_end[left])


def test_what_it_is_given_is_not_changed():
    problem = small_curve()
    config, w, indices, sizes = setting(problem, 3, optimizer="Adam")
    run = compile_steps(problem, config)
    state = run.init(w)
    before = w.clone()
    run(w, state, indices, sizes, 1)
    assert torch.equal(w, before)
    assert not state.any()


def test_two_problems_live_side_by_side():
    first, second = small_curve(), sine()
    given = setting(first, 3)
    runs = [compile_steps(problem, given[0]) for problem in (first, second)]
    for problem, run in zip((first, second), runs, strict=True):
        ours = run(given[1], run.init(given[1]), *given[2:], first=1)[2][:3]
        assert relative(ours, eager(problem, *given)) < 1e-6


@pytest.fixture
def builds(monkeypatch):
    """The C++ texts that were built."""
    texts, build = [], steps.build

    def counted(source, folder):
        texts.append(source)
        return build(source, folder)

    monkeypatch.setattr(steps, "_loaded", {})
    monkeypatch.setattr(steps, "build", counted)
    return texts


def test_numbers_share_a_library_and_branches_do_not(builds):
    problem = small_curve(noise=0.1)
    for lr, momentum in ((0.05, 0.9), (0.01, 0.9), (0.05, 0.5)):
        given = setting(problem, 3, optimizer="SGD", lr=lr, options={"momentum": momentum})
        assert same_bits(compiled(problem, *given), eager(problem, *given))
    assert len(builds) == 1
    compile_steps(problem, setting(problem, 3, optimizer="SGD")[0])
    assert len(builds) == 2


def test_a_step_is_recorded_again_where_a_constant_of_the_model_is_another():
    scales = [2.0, 0.5]
    x = torch.linspace(-1, 1, 53)
    problem = ss.Problem(
        x, x * x, lambda w, x: scales[0] * w[0] * x + scales[1] * w[1], w_init=[0.5, 0.25]
    )
    given = setting(problem, 3)
    assert same_bits(compiled(problem, *given), eager(problem, *given))
    before = dict(steps._recorded[problem])
    assert sorted(before) == [3, 10]
    compile_steps(problem, given[0])
    assert all(steps._recorded[problem][size] is before[size] for size in before)
    for i, scale in ((0, np.nextafter(np.float32(2), np.float32(3))), (1, 0.75)):
        scales[i] = float(scale)
        assert same_bits(compiled(problem, *given), eager(problem, *given))
        assert all(steps._recorded[problem][size] is not before[size] for size in before)
        before = dict(steps._recorded[problem])


def test_a_step_is_recorded_again_where_its_beginning_does_not_show_the_change():
    bounds = [5.0, torch.full((200,), 7.0)]
    x = torch.linspace(0.5, 1, 53)
    model = lambda w, x: w[0].clamp(max=bounds[0]) * x + w[1].clamp(max=bounds[1][150])  # noqa: E731
    problem = ss.Problem(x, 8 * x, model, w_init=[0.5, 0.25])
    config, w, indices, sizes = setting(problem, 3)
    compile_steps(problem, config)
    bounds[0], w = 50.0, w + 10
    first = compiled(problem, config, w, indices, sizes)
    assert same_bits(first, eager(problem, config, w, indices, sizes))
    bounds[1][150] = 70.0
    second = compiled(problem, config, w, indices, sizes)
    assert same_bits(second, eager(problem, config, w, indices, sizes))
    assert not same_bits(first, second)


@pytest.mark.skipif(sys.platform == "win32", reason="a loaded library cannot be removed")
def test_a_library_leaves_no_files(builds, monkeypatch, tmp_path):
    monkeypatch.setattr(steps.tempfile, "tempdir", str(tmp_path))
    compile_steps(small_curve(), setting(small_curve(), 1)[0])
    assert len(builds) == 1
    assert os.listdir(tmp_path) == []


# ---- what cannot be compiled -------------------------------------------------------------------


def refusal(problem=None, **changes):
    problem = problem or small_curve()
    with pytest.raises(Unsupported) as error:
        compile_steps(problem, setting(problem, 1, **changes)[0])
    assert "\n" not in str(error.value)
    return str(error.value)


def rows_of_numpy(w, x):
    return w[0] * torch.from_numpy(np.sin(x.numpy()))


def numbers_of_w(w, x):
    return x * torch.from_numpy(w[0].detach().numpy().copy()) * w[1]


def constants(w, x):
    return (w[0] * x[..., None] * torch.linspace(0, 1, 2000)).sum(-1)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (rows_of_numpy, "takes values out of torch (numpy)"),
        (numbers_of_w, "takes values out of torch (numpy)"),
        (lambda w, x: w[0] * x + (torch.rand(1) if len(x) > 2 else 0), "random numbers"),
        (lambda w, x: w[0] * x if w[0] > 0 else w[1] * x, "out of torch (__bool__)"),
        (lambda w, x: w[0] * x if torch.equal(w, w.abs()) else w[1] * x, "reads a value"),
        (lambda w, x: (w[0] * x).sort()[0], "sort is not known"),
        (constants, "constant tensor of 2000 values"),
        (lambda w, x: (w[0] * x).double().float(), "dtypes"),
        (lambda w, x: (w[0] * x).long() * w[1], "integers"),
    ],
)
def test_models_that_cannot_be_compiled(model, why):
    problem = small_curve(model=model, w_true=None, w_init=[0.5, 0.1, 0.2])
    assert why in refusal(problem)


SLIGHT = 1e-6  # of what a model gives: beside eager steps it is not to be seen
LEAVING = {
    "numpy": lambda t: float(np.linalg.norm(t.numpy())),
    "array": lambda t: float(np.asarray(t).sum()),
    "from_numpy": lambda t: torch.from_numpy(np.sin(t.numpy())).sum(),
    "dlpack": lambda t: float(np.from_dlpack(t)[0]),
    "list": lambda t: t.tolist()[0],
    "item": lambda t: t[0].item(),
    "float": lambda t: float(t[0]),
    "math": lambda t: math.exp(t[0]),
    "index": lambda t: 1.0 + int(t[0]),
    "branch": lambda t: 1.0 if t[0] > 3.0 else 0.0,
    "numpy branch": lambda t: 1.0 if t.numpy()[0] > 3.0 else 0.0,
}


@pytest.mark.parametrize("of", ["w", "x", "prediction"])
@pytest.mark.parametrize("name", LEAVING)
def test_a_model_that_takes_values_out_of_torch_is_refused_however_small_they_are(name, of):
    """As it was seen: values of the first step went on for all, and the check let them through."""

    def model(w, x):
        made = w[0] * x + w[1]
        seen = {"w": w, "x": x, "prediction": made}[of].detach()
        return made + SLIGHT * w[1] * LEAVING[name](seen)

    problem = small_curve(model=model, w_true=None, w_init=[0.5, 0.1, 0.2])
    assert re.search("takes values out of torch|reads a value", refusal(problem))


SLIGHTLY = {
    "diagonal": lambda m: m.diagonal().sum(),
    "diagonal of a batch": lambda m: torch.diagonal(torch.stack([m, 2 * m]), 1, 1, 2).sum(),
    "diag": lambda m: torch.diag(m).square().sum(),
    "trace": lambda m: m.trace(),
    "einsum": lambda m: torch.einsum("ii", m),
    "diagonal_scatter": lambda m: torch.diagonal_scatter(m, m[0]).sum(),
    "select_scatter": lambda m: torch.select_scatter(m, m[0], 0, 1).square().sum(),
    "slice_scatter": lambda m: torch.slice_scatter(m, m[:1], 0, 1, 2).square().sum(),
    "diag_embed": lambda m: torch.diag_embed(m).square().sum(),
    "fill_diagonal": lambda m: m.clone().fill_diagonal_(0.5).square().sum(),
    "index_put": lambda m: m.clone().index_put_((torch.tensor([1]),), m[:1]).square().sum(),
    "copy": lambda m: m.clone().copy_(m.T * m).sum(),
    "set item": lambda m: assigned(m).square().sum(),
    "empty": lambda m: torch.cat([m[:, :0], m], 1).square().sum(),
    "padded away": lambda m: nn.functional.pad(m, (-2, 3), value=0.5).sum() + m.sum(),
    "flip": lambda m: (m.flip(0) * m).sum(),
    "roll": lambda m: (m.roll(1, 1) * m).sum(),
    "tril": lambda m: m.tril().square().sum(),
    "unfold": lambda m: m.reshape(-1).unfold(0, 2, 1).square().sum(),
    "as_strided": lambda m: m.as_strided((3,), (1,)).square().sum(),
}


def assigned(m):
    made = m.clone()
    made[0] = m[1] * m[0]
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", SLIGHTLY)
def test_what_is_compiled_is_right_however_little_it_adds(name):
    """The self-check sees a thousandth: here all of the gradient is what was added."""

    def model(w, x):
        return x + SLIGHT * SLIGHTLY[name](w.reshape(2, 2))

    x = torch.linspace(-1, 1, 20, dtype=torch.float64)
    with_big_rest = ss.Problem(
        x, 2 * x, lambda w, x: model(w[:4], x) + w[4] * x, w_init=[0.5, 0.1, 0.2, 0.3, 1.0]
    )
    try:
        compile_steps(with_big_rest, ss.TrainConfig(lr=0.1, batch_size=5))
    except Unsupported:
        return
    given = ss.Problem(x, 2 * x, model, w_init=[0.5, 0.1, 0.2, 0.3])
    w, rows = given.initial([0]), torch.arange(20)[None]
    made = compile_steps(given, ss.TrainConfig(lr=0.1, batch_size=20))
    *_, ours = made(w, made.init(w), rows, np.array([20]), 1)
    theirs = given.losses_and_gradients(w, given.x[rows], given.y[rows])[1]
    assert float(theirs.abs().max()) > 0
    assert float((ours.gradient[0] - theirs).abs().max()) < 1e-12 * float(theirs.abs().max())


@pytest.mark.parametrize(
    ("optimizer", "options", "why"),
    [
        ("Adagrad", {}, "Adagrad"),
        ("Adam", {"amsgrad": True}, "amsgrad"),
        ("SGD", {"maximize": True}, "maximize"),
        ("Adam", {"foreach": True}, "foreach"),
        ("RMSprop", {"capturable": True}, "capturable"),
        ("Adam", {"betas": (torch.tensor(0.9), torch.tensor(0.99))}, "betas"),
        (lambda params: torch.optim.SGD(params, lr=0.05), {}, "function"),
    ],
)
def test_rules_that_cannot_be_compiled(optimizer, options, why):
    assert why in refusal(optimizer=optimizer, options=options)


def test_a_step_with_too_many_values_is_refused():
    problem = small_curve(d=1_000_000)
    assert "more than 16 MB" in refusal(problem, batch_size=None)


def test_no_compiler(builds, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert refusal() == "no C++ compiler (g++ or clang++) was found"


def test_a_compiler_that_fails_is_quoted_in_one_line(builds, monkeypatch, tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'a note' >&2\necho 'error: no licence' >&2\nexit 1\n")
    broken.chmod(0o700)
    monkeypatch.setenv("CXX", str(broken))
    assert refusal().endswith("broken failed: error: no licence")


def test_a_compiler_that_hangs_is_given_up(builds, monkeypatch, tmp_path):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o700)
    monkeypatch.setenv("CXX", str(slow))
    monkeypatch.setattr(steps, "BUILD_SECONDS", 0.2)
    assert "took more than" in refusal()


def test_a_torch_that_cannot_be_recorded(monkeypatch):
    for name in ("training.compiled.recorder", "problems.torch_operations"):
        monkeypatch.delitem(sys.modules, f"sgdstudy.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "torch.utils._python_dispatch", None)
    assert "cannot be recorded" in refusal()


def test_a_torch_that_takes_nothing_apart(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._decomp", None)
    assert "_decomp" in refusal(regression(nn.GELU))


def test_wrong_calls():
    problem = small_curve()
    config, w, indices, sizes = setting(problem, 3)
    run = compile_steps(problem, config)
    state = run.init(w)
    with pytest.raises(ValueError, match="beyond the 53 samples"):
        run(w, state, indices + 50, sizes, 1)
    for number in (-1, 53):
        beyond = indices.clone()
        beyond[2, -1] = number
        with pytest.raises(ValueError, match="beyond the 53 samples"):
            run(w, state, beyond, sizes, 1)
    with pytest.raises(ValueError, match="another batch size"):
        run(w, state, indices[:, :7], np.array([7]), 1)
    with pytest.raises(ValueError, match="indices are"):
        run(w, state, indices[:2], sizes, 1)
    with pytest.raises(ValueError, match="full batches"):
        run(w, state, None, sizes, 1)
    with pytest.raises(ValueError, match="does not fit"):
        run(w[:, :2], state, indices, sizes, 1)
