"""What a caller has set in torch and numpy changes no number, and is as it was afterwards."""

import contextlib
import random

import numpy as np
import pytest
import torch
from conftest import flat, literal, one_line, small_curve
from torch import nn
from torch.nn.modules import module as modules
from torch.nn.utils import parametrize
from torch.optim import optimizer as optimizers
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import sgdstudy as ss
from sgdstudy.problems.torch_state import own_state


@contextlib.contextmanager
def during(begin, end):
    begin()
    try:
        yield
    finally:
        end()


def setting(set_, value, back):
    return lambda: during(lambda: set_(value), lambda: set_(back))


def precision(value):
    def set_(given):
        torch.set_float32_matmul_precision(given)

    return setting(set_, value, "highest")


def doubled(out):
    return 2 * out if isinstance(out, torch.Tensor) and out.is_floating_point() else out


class DoublesOperations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return doubled(func(*args, **(kwargs or {})))


class DoublesFunctions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return doubled(func(*args, **(kwargs or {})))


def fake():
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode()


def scaled(what):
    """A hook that halves something of every parameter that is stepped."""
    return lambda optimizer, given, named: (
        [what(p).mul_(0.5) for group in optimizer.param_groups for p in group["params"]] and None
    )


def of_all(register, hook):
    """A hook that every module calls, or every optimiser."""
    given = []
    return lambda: during(lambda: given.append(register(hook)), lambda: given.pop().remove())


def both():
    stack = contextlib.ExitStack()
    for enter in (DoublesFunctions, DoublesOperations, DoublesFunctions, DoublesOperations):
        stack.enter_context(enter())
    return stack


STATES = {
    "a mode of operations": DoublesOperations,
    "a mode of functions": DoublesFunctions,
    "several modes": both,
    "fake tensors": fake,
    "hooks on saved tensors": lambda: torch.autograd.graph.saved_tensors_hooks(
        lambda t: t, lambda t: 2 * t
    ),
    "saved tensors on the disk": lambda: torch.autograd.graph.save_on_cpu(),
    "no hooks on saved tensors": lambda: torch.autograd.graph.disable_saved_tensors_hooks("no"),
    "hook after all modules": of_all(
        modules.register_module_forward_hook, lambda module, given, out: 2 * out
    ),
    "hook before all modules": of_all(
        modules.register_module_forward_pre_hook, lambda module, given: (2 * given[0],)
    ),
    "hook on all gradients": of_all(
        modules.register_module_full_backward_hook,
        lambda module, into, out: tuple(g if g is None else 2 * g for g in into),
    ),
    "hook on all parameters": of_all(
        modules.register_module_parameter_registration_hook,
        lambda module, name, p: p if p is None else nn.Parameter(2 * p.detach()),
    ),
    "hook before all optimisers": of_all(
        optimizers.register_optimizer_step_pre_hook, scaled(lambda p: p.grad)
    ),
    "hook after all optimisers": of_all(
        optimizers.register_optimizer_step_post_hook, scaled(lambda p: p.data)
    ),
    "cached parametrizations": parametrize.cached,
    "no oneDNN": setting(torch._C._set_mkldnn_enabled, False, True),
    "slow attention": setting(torch.backends.mha.set_fastpath_enabled, False, True),
    "default dtype": setting(torch.set_default_dtype, torch.float64, torch.float32),
    "half default dtype": setting(torch.set_default_dtype, torch.float16, torch.float32),
    "default device": setting(torch.set_default_device, "meta", None),
    "a device's context": lambda: torch.device("meta"),
    "no_grad": torch.no_grad,
    "grad disabled": setting(torch.set_grad_enabled, False, True),
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu"),
    "autocast to half": lambda: torch.autocast("cpu", torch.float16),
    "anomaly mode": setting(torch.set_anomaly_enabled, True, False),
    "deterministic": setting(torch.use_deterministic_algorithms, True, False),
    "threads": setting(torch.set_num_threads, 2, 1),
    "medium products": precision("medium"),
    "high products": precision("high"),
    "flushed denormals": setting(torch.set_flush_denormal, True, False),
    "numpy raises": lambda: np.errstate(all="raise"),
    "numpy is silent": lambda: np.errstate(all="ignore"),
}


def global_numbers():
    with own_state():  # some modes keep such a state from being read
        return torch.get_rng_state().numpy().tobytes()


def state():
    """All that a caller can see of it."""
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.is_anomaly_enabled(),
        torch.is_anomaly_check_nan_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        5e-324 * float("1") == 0,
        *np.geterr().values(),
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
        torch._C._autograd._top_saved_tensors_default_hooks(True),
        *(dict(value) for name, value in vars(modules).items() if name.startswith("_global_f")),
        dict(modules._global_parameter_registration_hooks),
        dict(modules._global_backward_hooks),
        dict(optimizers._global_optimizer_pre_hooks),
        dict(optimizers._global_optimizer_post_hooks),
        parametrize._cache_enabled,
        torch._C._get_mkldnn_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
        global_numbers(),
        np.random.get_state()[1].tobytes(),
        random.getstate(),
    )


def network():
    """Digits, made and trained within the caller's state: products of matrices, drawn weights."""
    return ss.train("digits", lr=0.1, batch_size=100, epochs=2, seeds=range(2), diagnostics="full")


def parabola():
    given = {"lr": 0.1, "batch_size": 10, "epochs": 3, "seeds": range(3), "diagnostics": "full"}
    return ss.train(PARABOLA, **given, schedule="CosineAnnealingLR")


def diverging():
    return ss.train("curve", lr=1.0, batch_size=10, epochs=3, optimizer="Adam", dtype="float64")


def adaptive():
    return ss.train("diabetes", lr=0.01, batch_size=50, order="grab", optimizer="Adam", epochs=3)


class Weighed(nn.Module):
    def forward(self, weight):
        return weight / weight.norm()


def modules_of_their_own():
    """A normalised weight, a hook of the module's own, convolution, attention."""
    with own_state(), torch.random.fork_rng():
        torch.manual_seed(1)
        first = nn.Conv1d(1, 4, 3, padding=1)
        parametrize.register_parametrization(first, "weight", Weighed())
        first.register_forward_hook(lambda module, given, out: torch.tanh(out))
        layers = [nn.Unflatten(1, (1, 8)), first, nn.Flatten(), nn.Linear(32, 1)]
        net = nn.Sequential(*layers)
        x = torch.randn(40, 8)
        y = x.sum(1, keepdim=True)
    return ss.train(ss.Problem(x, y, net), lr=0.05, batch_size=10, epochs=2, seeds=range(2))


PARABOLA = small_curve(noise=0.1)  # of tensors that the caller has made
RUNS = [network, parabola, diverging, adaptive, modules_of_their_own]
EXPECTED = {}


def same(history, other):
    assert np.array_equal(history.w, other.w, equal_nan=True)
    for table in ("steps", "epochs"):
        a, b = history.load(table), other.load(table)
        assert list(a) == list(b)
        assert np.array_equal(a.to_numpy(float), b.to_numpy(float), equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", STATES)
def test_no_state_of_the_caller_changes_a_number_or_is_changed(name, run):
    torch.set_num_threads(1)
    if run not in EXPECTED:
        EXPECTED[run] = run()
    with STATES[name]():
        before = state()
        history = run()
        assert state() == before
    same(history, EXPECTED[run])


class Descent(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            p -= 0.1 * p.grad


@pytest.mark.parametrize("optimizer", ["SGD", Descent])
@pytest.mark.parametrize("name", [name for name in STATES if "all optimisers" in name])
def test_hooks_of_all_optimisers_change_no_step(name, optimizer):
    given = {"optimizer": optimizer, "lr": None if optimizer is Descent else 0.1}
    same(*(ss.train(PARABOLA, **given, batch_size=10) for _ in stated(name)))


def stated(name):
    """Twice: as it is, and in a state."""
    yield
    with STATES[name]():
        before = state()
        yield
        assert state() == before


@pytest.mark.parametrize("name", STATES)
def test_theory_and_evaluation_are_the_same_in_every_state(name):
    def found():
        problem = ss.problems.chebyshev(width=4)
        with own_state():
            w = problem.initial([0]).double().numpy()
        hessian = ss.theory.linearised(problem, w[0]).hessian
        return [*problem.full(w), hessian, ss.problems.curve(0.1).least_squares.w_star]

    expected = found()
    with STATES[name]():
        before = state()
        given = found()
        assert state() == before
    assert all(np.array_equal(a, b) for a, b in zip(given, expected, strict=True))


@pytest.mark.parametrize("name", STATES)
def test_the_state_comes_back_after_an_error(name):
    def fails(chunk):
        raise ValueError("on purpose")

    with STATES[name]():
        before = state()
        with pytest.raises(ss.InputError):
            ss.train("curve", lr=0.1, epochs=1, diagnostics=[fails])
        assert state() == before


def test_data_made_in_inference_mode_are_trained_on():
    with torch.inference_mode():
        x = torch.linspace(-1, 1, 20)
        problem = ss.Problem(x, 2 * x, lambda w, x: torch.exp(w[0] * x), w_init=torch.zeros(1))
    assert not problem.x.is_inference()
    assert ss.train(problem, lr=0.1, batch_size=5, epochs=2).n_steps[0] == 8


@own_state()
def seen():
    return torch.get_default_dtype(), torch.is_grad_enabled()


def test_it_is_a_decorator_too():
    with STATES["default dtype"](), torch.no_grad():
        assert seen() == (torch.float32, True)
        assert torch.get_default_dtype() == torch.float64


# ---- what is refused, or undone ------------------------------------------------------------------

TRANSFORMS = {
    "grad": lambda f: torch.func.grad(f)(torch.tensor(1.0)),
    "vmap": lambda f: torch.vmap(f)(torch.ones(2)),
    "jvp": lambda f: torch.func.jvp(f, (torch.tensor(1.0),), (torch.tensor(1.0),)),
    "jacrev": lambda f: torch.func.jacrev(f)(torch.ones(2)),
    "functionalize": lambda f: torch.func.functionalize(f)(torch.tensor(1.0)),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # jvp imports it
@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize(
    "call",
    [
        lambda w: ss.train("curve", lr=1e-4, epochs=1),
        lambda w: PARABOLA.full(np.zeros((1, 3))),
        lambda w: ss.Problem(X, X, lambda w, x: w[0] * x, w_init=[0.0]),
    ],
)
def test_a_transform_that_would_see_nothing_is_refused(name, call):
    before = state()
    with pytest.raises(ss.InputError, match=r"torch\.func") as error:
        TRANSFORMS[name](lambda w: call(w) and w.sum())
    assert one_line(error)
    assert state() == before


def test_fake_data_and_modules_without_numbers_are_one_line():
    x = torch.linspace(-1, 1, 8)[:, None]
    with fake():
        numbers, net = torch.ones(8, 1), nn.Linear(1, 1)
    for given in (
        (numbers, x, nn.Linear(1, 1)),
        (x, x, net),
        (x, x, nn.Linear(1, 1, device="meta")),
    ):
        with pytest.raises(ss.InputError, match="of its own") as error:
            ss.Problem(*given)
        assert one_line(error)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.compile(nn.Linear(1, 4), backend="eager")
        self.last = nn.Linear(4, 1)

    def forward(self, x):
        return self.last(torch.tanh(self.layer(x)))


def plain_net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))


def compiled_in_place():
    net = plain_net()
    net.compile(backend="eager")
    return net


def compiled_inside():
    torch.manual_seed(3)
    return Inner()


FEW = {"lr": 0.05, "batch_size": 10, "epochs": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [lambda: torch.compile(plain_net(), backend="eager"), compiled_in_place, compiled_inside],
)
@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_compiled_module_is_trained_as_it_was_before(make, engine, seeds):
    x, y = PARABOLA.x[:, None], PARABOLA.y[:, None]
    given = {**FEW, "engine": engine, "seeds": range(seeds)}
    found, expected = (ss.train(ss.Problem(x, y, net), **given) for net in (make(), plain_net()))
    same(found, expected)


@pytest.mark.slow
def test_a_compiled_function_and_loss_are_those_they_were():
    def model(w, x):
        return w[0] * torch.exp(w[1] * x)

    def loss(f, y):
        return (f - y).abs()

    problems = [
        ss.Problem(PARABOLA.x, PARABOLA.y, wrap(model), wrap(loss), w_init=[1.0, 0.5])
        for wrap in (lambda f: f, lambda f: torch.compile(f, backend="eager"))
    ]
    same(*(ss.train(problem, **FEW, seeds=range(3)) for problem in problems))


def with_hook(register):
    net = plain_net()
    register(net)
    return net


@pytest.mark.parametrize(
    "register",
    [
        lambda net: net[0].weight.register_hook(lambda g: g.clamp(-1, 1)),
        lambda net: net[2].bias.register_post_accumulate_grad_hook(lambda p: p.grad.zero_()),
        lambda net: net[0].register_full_backward_hook(lambda module, into, out: into),
        lambda net: net.register_full_backward_pre_hook(lambda module, out: out),
    ],
)
def test_hooks_on_gradients_that_nobody_would_call_are_refused(register):
    x = PARABOLA.x[:, None]
    with pytest.raises(ss.InputError, match=r"hook on (its gradient|gradients)") as error:
        ss.Problem(x, x, with_hook(register))
    assert one_line(error)


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(1, 4), nn.Linear(4, 1)
        self.weights = [self.layer.weight]

    def forward(self, x):
        return self.last(torch.tanh(x @ self.weights[0].T + self.layer.bias))


@pytest.mark.parametrize("seed", range(5))
def test_a_parameter_that_is_not_read_by_its_name_is_refused(seed):
    x = PARABOLA.x[:, None]
    torch.manual_seed(seed)
    with pytest.raises(ss.InputError, match="by their names") as error:
        ss.Problem(x, x, Listed())
    assert one_line(error)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.other.weight = self.one.weight

    def forward(self, x):
        return self.other(torch.tanh(self.one(x)))


@pytest.mark.parametrize(
    "make",
    [
        Tied,
        lambda: parametrize.register_parametrization(nn.Linear(1, 1), "weight", Doubled()),
        lambda: nn.Sequential(
            nn.Linear(1, 2), nn.MultiheadAttention(2, 1).out_proj, nn.Linear(2, 1)
        ),
    ],
)
def test_shared_and_parametrized_weights_train_as_in_torch(make):
    x, y = PARABOLA.x[:, None], PARABOLA.y[:, None]
    torch.manual_seed(5)
    net = make()
    history = ss.train(ss.Problem(x, y, net), **FEW)
    loop = literal(net, list(net.parameters()), x, y, **FEW)
    assert np.allclose(history.w[0], loop.w, rtol=1e-4, atol=1e-5)  # float32, 12 steps
    assert len(flat(list(net.parameters()))) == history.problem.p


# ---- a model that draws, or changes what it is given --------------------------------------------

X = np.linspace(-1, 1, 12)


def drops(w, x):
    return w[0] * torch.nn.functional.dropout(x, 0.5)


def adds_numpy_noise(w, x):
    return w[0] * x + float(np.random.normal())


def adds_python_noise(w, x):
    return w[0] * x + random.random()


def counts(w, x, calls=[]):  # noqa: B006
    calls.append(0)
    return w[0] * x + len(calls)


def own_generator(w, x, generator=torch.Generator().manual_seed(0)):  # noqa: B008
    return w[0] * x + torch.randn(len(x), generator=generator)


def changes_x(w, x):
    x -= 0.5
    return w[0] * x


def changes_x_by_numpy(w, x):
    x.numpy()[:] = 1
    return w[0] * x


class Drops(torch.nn.Linear):
    def forward(self, x):
        return torch.nn.functional.dropout(super().forward(x), 0.5, self.training)


@pytest.mark.parametrize(
    "model",
    [
        drops,
        adds_numpy_noise,
        adds_python_noise,
        counts,
        own_generator,
        changes_x,
        changes_x_by_numpy,
        Drops(1, 1),
    ],
)
def test_a_model_that_is_no_function_of_w_and_x_is_refused(model):
    before = state()
    x = X[:, None] if isinstance(model, torch.nn.Module) else X
    with pytest.raises(ss.InputError, match=r"draws|two results|changes its input") as error:
        ss.Problem(x, x, model, w_init=None if isinstance(model, torch.nn.Module) else [0.0])
    assert one_line(error)
    assert state() == before


def test_dropout_in_a_forward_pass_is_fine_in_evaluation():
    assert ss.Problem(X[:, None], X[:, None], Drops(1, 1).eval()).p == 2


def test_a_loss_that_changes_the_targets_is_refused():
    def loss(prediction, y):
        y += 1
        return (prediction - y) ** 2

    with pytest.raises(ss.InputError, match="changes its input"):
        ss.Problem(X, X, lambda w, x: w[0] * x, loss, w_init=[0.0])


def test_a_start_drawn_from_the_global_generator_is_refused():
    before = state()
    with pytest.raises(ss.InputError, match="w_init draws from torch"):
        ss.Problem(X, X, lambda w, x: w[0] * x, w_init=lambda generator: torch.randn(1))
    assert state() == before
