"""Optimisers of one's own: the step size that is recorded is used, and replicas never mix."""

import dataclasses
import enum
import functools
import logging

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import flat, literal, literal_curve, one_line, recorded, small_curve
from torch.optim import SGD, Adafactor, Adam, Muon, Optimizer, RMSprop, lr_scheduler

import sgdstudy as ss
from sgdstudy.recipe import own_optimizer, rules
from sgdstudy.recipe.own_optimizer import OneByOne
from sgdstudy.studies.arm import at_settings
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking import describe
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.store import open_store
from sgdstudy.training import checkpoint
from sgdstudy.training.engines import Eager

CURVE = small_curve(noise=0.1)
FEW = {"batch_size": 10, "epochs": 3}


class Plain(Optimizer):
    """Descent written as a user writes it."""

    def __init__(self, params, lr=0.05, damp=1.0):
        super().__init__(params, {"lr": lr, "damp": damp})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                self.move(p, group)

    def move(self, p, group):
        p -= group["lr"] * group["damp"] * p.grad


class Asks(Plain):
    def step(self, closure):
        raise NotImplementedError


class Normalised(Plain):
    def move(self, p, group):
        p -= group["lr"] * p.grad / p.grad.norm()


class Clipped(Plain):
    def step(self):
        torch.nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 2.0)
        super().step()


class Remembers(Plain):
    """Momentum of the clipped direction, kept outside `Optimizer.state`."""

    def __init__(self, params, lr=0.05):
        super().__init__(params, lr)
        self.before = {}

    def move(self, p, group):
        self.before[p] = 0.5 * self.before.get(p, 0.0) + p.grad
        p -= group["lr"] * self.before[p]


class NormState(Plain):
    """The running norm of the gradient, of shape (R, 1) where it is given (R, p)."""

    def move(self, p, group):
        norm = p.grad.norm(dim=-1, keepdim=True)
        self.state[p]["norm"] = 0.9 * self.state[p].get("norm", norm) + 0.1 * norm
        p -= group["lr"] * p.grad / (1 + self.state[p]["norm"])


class ByRow(NormState):
    """Written for the axis of the replicas: on one vector it fails."""

    def move(self, p, group):
        assert p.dim() == 2
        super().move(p, group)


class OwnAdafactor(Adafactor):
    def __init__(self, params, lr=0.3):
        super().__init__(params, lr)


class SetsMomentum(SGD):
    """Element-wise, and a subclass."""

    def __init__(self, params, lr=0.05):
        super().__init__(params, lr, momentum=0.5)


class NoSize(Plain):
    def __init__(self, params):
        Optimizer.__init__(self, params, {"size": 0.05})

    def move(self, p, group):
        p -= group["size"] * p.grad


# ---- the step size ---------------------------------------------------------------------------

TAKES = {
    "class": SGD,
    "own class": Plain,
    "argument": lambda params, lr: SGD(params, lr=lr),
    "any argument": lambda params, **given: SGD(params, **given),
    "partial": functools.partial(SGD, lr=0.3),
}


@pytest.mark.parametrize("name", TAKES)
def test_a_class_trains_with_the_lr_it_is_given(name):
    rule = functools.partial(Plain if name == "own class" else SGD, lr=0.02)
    history = ss.train(CURVE, optimizer=TAKES[name], lr=0.02, seeds=[3], **FEW)
    loop = literal_curve(CURVE, lr=0.02, seed=3, rule=rule, **FEW)
    assert np.array_equal(history.w[0], loop.w.numpy())
    assert history.config.lr == 0.02


@pytest.mark.parametrize(
    ("optimizer", "lr"),
    [
        ("SGD", 1e-3),
        ("Adadelta", 1e-3),
        (torch.optim.Adadelta, 1.0),
        (SGD, 1e-3),
        (Plain, 0.05),
        (lambda params: SGD(params, lr=0.04), 0.04),
        (lambda params: Adam(params, lr=torch.tensor(0.25)), 0.25),
        (lambda params, lr: SGD(params, lr=lr), 1e-3),
        (functools.partial(SGD, lr=0.3), 0.3),
    ],
)
def test_without_lr_what_is_recorded_is_the_optimisers_own(optimizer, lr):
    config = ss.TrainConfig(optimizer=optimizer)
    assert config.lr == lr
    assert describe.parameters(CURVE, config)["lr"] == str(lr)
    assert config.rates(53)(np.arange(2)).tolist() == [lr, lr]


def test_a_class_takes_options_and_torchs_own_is_its_name():
    given = {"lr": 0.01, "options": {"momentum": 0.5, "centered": True}}
    history = ss.train(CURVE, optimizer=RMSprop, **given, **FEW)
    loop = literal_curve(
        CURVE, lr=0.01, rule=lambda p: RMSprop(p, lr=0.01, momentum=0.5, centered=True), **FEW
    )
    assert np.array_equal(recorded(history), loop.ws.numpy())
    assert history.config.optimizer == "RMSprop"
    damped = ss.train(CURVE, optimizer=Plain, lr=0.04, options={"damp": 0.5}, **FEW)
    assert np.array_equal(damped.w, ss.train(CURVE, optimizer=Plain, lr=0.02, **FEW).w)


def test_diagnostics_and_sweeps_follow_the_lr_that_is_used():
    arm = ss.Arm(
        CURVE, optimizer=Plain, diagnostics=["lr_sharpness", "hess_max_eig", "cabs"], **FEW
    )
    rows = ss.train(CURVE, config=arm.config).steps
    assert np.allclose(rows["lr_sharpness"], 0.05 * rows["hess_max_eig"], rtol=1e-14)
    half = at_settings(arm, {"lr": 0.025}, "steps")
    rows = ss.train(CURVE, config=half.config).steps
    loop = literal_curve(CURVE, lr=0.025, **FEW)
    assert np.array_equal(rows[["w0", "w1", "w2"]].to_numpy(), loop.ws.numpy())
    assert np.allclose(rows["lr_sharpness"], 0.025 * rows["hess_max_eig"], rtol=1e-14)


def test_a_schedule_starts_from_the_factorys_step_size():
    given = {"schedule": "ExponentialLR", "schedule_options": {"gamma": 0.9}, **FEW}
    ours = ss.train(CURVE, optimizer=lambda params: SGD(params, lr=0.05), **given)
    w = CURVE.initial([0])[0].requires_grad_()
    opt = SGD([w], lr=0.05)
    by = lr_scheduler.ExponentialLR(opt, 0.9)
    generator = torch.Generator().manual_seed(0)
    data = torch.utils.data.TensorDataset(CURVE.x, CURVE.y)
    loader = torch.utils.data.DataLoader(data, 10, shuffle=True, generator=generator)
    for _ in range(3):
        for x, y in loader:
            opt.zero_grad()
            ((CURVE.model(w, x) - y) ** 2).mean().backward()
            opt.step()
            by.step()
    assert np.allclose(ours.w[0], w.detach(), rtol=1e-5)


def test_an_optimiser_without_a_step_size_records_none():
    history = ss.train(CURVE, optimizer=NoSize, diagnostics=["lr_sharpness"], **FEW)
    assert np.array_equal(history.w[0], literal_curve(CURVE, lr=0.05, **FEW).w.numpy())
    assert np.isnan(history.config.lr)
    assert history.steps["lr_sharpness"].isna().all()
    ss.Arm(CURVE, optimizer=NoSize, lr=history.config.lr)  # as rerun does
    with pytest.raises(ss.InputError, match="one step size"):
        ss.TrainConfig(optimizer=NoSize, schedule="StepLR", schedule_options={"step_size": 2})


REFUSED = [
    ({"optimizer": lambda p: SGD(p, lr=0.05), "lr": 0.5}, "sets its own lr, 0.05, and lr=0.5"),
    ({"optimizer": NoSize, "lr": 0.5}, "sets its own lr, nan"),
    (
        {"optimizer": lambda p: SGD(p, lr=0.1 / (1 + p[0].norm().item()))},
        "reads its lr off the par",
    ),
    ({"optimizer": lambda p: Plain(p, lr=0.1 if p[0].any() else 0.2)}, "reads its lr off"),
    ({"optimizer": lambda p, lr: SGD(p, lr=2 * lr), "lr": 0.5}, "given lr=0.5 and uses 1"),
    ({"optimizer": Plain, "lr": float("nan")}, "lr must be positive and finite, got nan"),
    ({"optimizer": Plain, "options": {"dampp": 1}}, "unknown option of Plain 'dampp'"),
    ({"optimizer": Plain, "options": {"lr": 1}}, "lr is given as lr=1, not in options"),
    ({"optimizer": lambda p: SGD(p, lr=0.1), "options": {"momentum": 0.9}}, "takes no option"),
    ({"optimizer": Asks}, r"the step of the optimizer 'Asks' failed: NotImplementedError"),
    ({"optimizer": torch.optim.SparseAdam}, "SparseAdam"),
    ({"optimizer": Muon}, "2D"),
]


@pytest.mark.parametrize(("given", "says"), REFUSED)
def test_what_is_refused(given, says):
    with pytest.raises(ss.InputError, match=says) as error:
        ss.train(CURVE, **given, **FEW)
    assert one_line(error)


def test_that_replicas_step_one_by_one_is_said_once_of_a_class(caplog):
    for lr in (0.01, 0.02):
        for optimizer in (Plain, Remembers):
            ss.train(CURVE, optimizer=optimizer, lr=lr, **(FEW | {"seeds": [0, 1]}))
    assert [line.split()[2] for line in caplog.messages] == ["Plain", "Remembers"]


def test_the_lr_that_a_factory_sets_may_be_said_again():
    def factory(params):
        return SGD(params, lr=0.05)

    arm = ss.Arm(CURVE, optimizer=factory, **FEW)
    assert arm.but(lr=arm.config.lr).config.lr == 0.05


# ---- replicas --------------------------------------------------------------------------------

# and the loss of a last batch at which some seeds stop before others
MIXING = {
    Normalised: 0.05,
    Clipped: 0.05,
    Remembers: 0.05,
    NormState: 0.6,
    ByRow: 0.6,
    OwnAdafactor: 0.6,
}


def rule_of(optimizer, problem=CURVE):
    return rules.make(optimizer, *rules.settle(optimizer, None, {})[1:], {}, problem)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", MIXING)
def test_what_mixes_replicas_trains_each_as_alone(optimizer, caplog):
    stop = ("last_batch", MIXING[optimizer])
    given = {"optimizer": optimizer, "stop": stop, "batch_size": 10, "epochs": 12}
    together = ss.train(CURVE, seeds=range(9), **given)
    assert len(set(together.stop_epoch)) > 1  # so that the batch was compacted on the way
    (line,) = caplog.messages
    assert f"{optimizer.__name__} is not known to be element-wise" in line
    assert "one by one" in together.engine_note
    for seed in range(9):
        alone = ss.train(CURVE, seeds=[seed], **given)
        assert np.array_equal(together.w[seed], alone.w[0])
        assert together.stop_epoch[seed] == alone.stop_epoch[0]
        rows = together.steps[together.steps.seed == seed].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, alone.steps, check_exact=True)
    assert len(caplog.messages) == 1  # alone there is nobody to wait for


@pytest.mark.parametrize("optimizer", [Normalised, Clipped, Remembers, NormState, OwnAdafactor])
def test_what_mixes_replicas_is_the_loop_in_torch(optimizer):
    history = ss.train(CURVE, optimizer=optimizer, seeds=[3, 5], **FEW)
    for r, seed in enumerate((3, 5)):
        loop = literal_curve(CURVE, lr=None, seed=seed, rule=optimizer, **FEW)
        assert np.array_equal(history.w[r], loop.w.numpy())
        if optimizer is not Clipped:  # the loop's gradients are clipped in place
            grad = history.steps[history.steps.seed == seed]["grad_norm"]
            assert np.allclose(grad, loop.gradients.norm(dim=1), rtol=1e-5)


def test_the_recorded_gradient_is_that_of_the_batch_though_a_step_clips_it_in_place():
    history = ss.train(CURVE, optimizer=Clipped, **FEW)
    x, y, w = CURVE.x, CURVE.y, CURVE.initial([0])[0].requires_grad_()
    order = ss.orders.Sampler("shuffle", [0], 53, 10).take(10)[0]
    ((CURVE.model(w, x[order]) - y[order]) ** 2).mean().backward()
    assert w.grad.norm() > 2.0
    assert history.steps["grad_norm"][0] == pytest.approx(float(w.grad.norm()), rel=1e-6)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(1)
        self.a = torch.nn.Parameter(torch.randn(4, 2, generator=draw))
        self.b = torch.nn.Parameter(torch.randn(1, 4, generator=draw))

    def forward(self, x):
        return torch.tanh(x @ self.a.T) @ self.b.T


@pytest.mark.parametrize("optimizer", [Normalised, Muon, Adafactor, OwnAdafactor])
def test_an_optimiser_of_a_module_sees_its_own_matrices(optimizer):
    x = torch.stack([CURVE.x, CURVE.x**2], 1)
    problem, net = ss.Problem(x, CURVE.y[:, None], Net()), Net()
    history = ss.train(problem, optimizer=optimizer, lr=0.01, seeds=[3, 4], **FEW)
    params = list(net.parameters())
    rule = functools.partial(optimizer, lr=0.01)
    loop = literal(net, params, x, CURVE.y[:, None], lr=None, seed=3, rule=rule, **FEW)
    assert np.allclose(history.w[0], loop.w, rtol=1e-4, atol=1e-5)  # float32, sums reordered
    assert np.allclose(history.w[0], flat(params), rtol=1e-4, atol=1e-5)


TORCHS = {
    "Adam": lambda p: Adam(p, 0.1),
    "with options": lambda p: torch.optim.AdamW(p, torch.tensor(0.1), weight_decay=0.3),
    "filled": lambda p: torch.optim.Adagrad(p, 0.1, initial_accumulator_value=0.5),
    "two groups": lambda p: SGD([{"params": p[:1]}, {"params": p[1:]}][: len(p)], 0.02, 0.5),
}


@pytest.mark.parametrize("name", TORCHS)
def test_what_is_torchs_own_and_element_wise_runs_side_by_side(name, caplog):
    optimizer = TORCHS[name]
    assert isinstance(rule_of(optimizer), rules.TorchOptimizer)
    history = ss.train(CURVE, optimizer=optimizer, seeds=[3, 4], **FEW)
    loop = literal_curve(CURVE, lr=None, seed=4, rule=optimizer, **FEW)
    assert np.array_equal(history.w[1], loop.w.numpy())
    assert (history.engine_note, caplog.messages) == ("", [])


@pytest.mark.parametrize("optimizer", [Plain, SetsMomentum, NoSize])
def test_ones_own_runs_one_by_one_with_the_numbers_it_had_side_by_side(optimizer):
    assert isinstance(rule_of(optimizer), OneByOne)
    history = ss.train(CURVE, optimizer=optimizer, seeds=[3, 4], **FEW)
    loop = literal_curve(CURVE, lr=None, seed=4, rule=optimizer, **FEW)
    assert np.array_equal(history.w[1], loop.w.numpy())


class LateNorm(Plain):
    """Looks at the norm from step 11 on."""

    def move(self, p, group):
        step = self.state[p]["step"] = self.state[p].get("step", 0) + 1
        p -= group["lr"] * (p.grad if step <= 10 else p.grad / p.grad.norm())


class LateClip(Plain):
    """As `LateNorm`, by a counter of its own."""

    def __init__(self, params, lr=0.05):
        super().__init__(params, lr)
        self.steps = 0

    def step(self):
        self.steps += 1
        if self.steps > 10:
            torch.nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 0.5)
        super().step()


def hooked(params):
    """Torch's own, with a hook that clips from step 11 on."""
    made, steps = SGD(params, lr=0.05), []

    def clip(optimizer, *_):
        steps.append(1)
        if len(steps) > 10:
            torch.nn.utils.clip_grad_norm_(params, 0.5)

    made.register_step_pre_hook(clip)
    return made


def by_size(params):
    """Decays what has many numbers: one replica's three are few."""
    return SGD(params, lr=0.05, weight_decay=0.5 * (sum(p.numel() for p in params) > 10))


def prepared(params):
    """Torch's own, with a state from the beginning."""
    made = SGD(params, lr=0.05, momentum=0.9)
    for p in params:
        made.state[p]["momentum_buffer"] = torch.ones_like(p)
    return made


def by_value(params):
    return SGD(params, lr=0.05, weight_decay=0.1 + abs(float(params[0].detach().flatten()[0])))


@pytest.mark.parametrize("optimizer", [LateNorm, LateClip, hooked, by_size, prepared, by_value])
def test_a_seed_beside_many_is_as_alone(optimizer):
    history = ss.train(CURVE, optimizer=optimizer, seeds=range(5), **FEW)
    loop = literal_curve(CURVE, lr=None, seed=3, rule=optimizer, **FEW)
    assert np.array_equal(history.w[3], loop.w.numpy())


class Counts(Plain):
    """Shrinks its steps by a counter of its own."""

    def __init__(self, params, lr=0.05):
        super().__init__(params, lr)
        self.steps = 0

    def step(self):
        self.steps += 1
        super().step()

    def move(self, p, group):
        p -= group["lr"] * p.grad * min(1.0, 8 / self.steps)


class CountsBelow(Counts):
    """The same, in an object of its own."""

    def __init__(self, params, lr=0.05):
        super().__init__(params, lr)
        self.kept = {"steps": 0}

    steps = property(
        lambda self: self.kept["steps"],
        lambda self, value: vars(self).setdefault("kept", {}).update(steps=value),
    )


@pytest.mark.parametrize("optimizer", [Counts, CountsBelow])
def test_a_counter_of_its_own_goes_on_when_others_stop(optimizer):
    given = {"optimizer": optimizer, "stop": ("last_batch", 0.3), "batch_size": 10, "epochs": 12}
    together = ss.train(CURVE, seeds=range(9), **given)
    assert len(set(together.stop_epoch)) > 2
    for seed in range(9):
        alone = ss.train(CURVE, seeds=[seed], **given)
        assert np.array_equal(together.w[seed], alone.w[0])
        assert together.stop_epoch[seed] == alone.stop_epoch[0]


class Noisy(Plain):
    def move(self, p, group):
        p -= group["lr"] * torch.randn_like(p)


SEEN = []


class Shares(Plain):
    def move(self, p, group):
        SEEN.append(p)
        p -= group["lr"] * p.grad / len(SEEN)


class CountsAll(Plain):
    """Has a counter that is its class's, not its own."""

    steps = 0

    def move(self, p, group):
        CountsAll.steps += 1
        p -= group["lr"] * p.grad / CountsAll.steps


@pytest.mark.parametrize("made", [lambda c: c, lambda c: lambda params: c(params)])
@pytest.mark.parametrize("optimizer", [Noisy, Shares, CountsAll])
def test_replicas_that_are_not_independent_are_refused(optimizer, made):
    words = f"the optimizer '{optimizer.__name__}' moves otherwise each time"
    with pytest.raises(ss.InputError, match=words) as error:
        ss.train(CURVE, optimizer=made(optimizer), seeds=[0, 1], **FEW)
    assert one_line(error)


def test_an_own_generator_may_be_drawn_from():
    class Langevin(Plain):
        def __init__(self, params):
            super().__init__(params)
            self.draw = torch.Generator().manual_seed(5)

        def move(self, p, group):
            p -= group["lr"] * (p.grad + 0.1 * torch.randn(p.shape, generator=self.draw))

    together = ss.train(CURVE, optimizer=Langevin, seeds=[1, 2], **FEW)
    for r, seed in enumerate((1, 2)):
        loop = literal_curve(CURVE, lr=None, seed=seed, rule=Langevin, **FEW)
        assert np.array_equal(together.w[r], loop.w.numpy())


def test_the_trial_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with pytest.raises(ss.InputError):
        rule_of(Noisy)
    assert torch.equal(torch.get_rng_state(), before)


# ---- checkpoints -----------------------------------------------------------------------------


class Scaled(Plain):
    """Takes its steps from step 3 on by what `late` keeps, wherever that is."""

    def late(self, p, group, state):
        raise NotImplementedError

    def move(self, p, group):
        state = self.state[p]
        state["step"] = state.get("step", 0) + 1
        size = self.late(p, group, state) if state["step"] > 2 else 1.0
        p -= group["lr"] * size * p.grad


class OnDefaults(Scaled):
    def late(self, p, group, state):
        self.defaults["n"] = self.defaults.get("n", 1) + 1
        return 1 / self.defaults["n"]


class InSlots(Scaled):
    __slots__ = ("n",)

    def late(self, p, group, state):
        self.n = getattr(self, "n", 1) + 1
        return 1 / self.n


class CyclesBetas(Adam):
    def __init__(self, params):
        super().__init__(params, lr=torch.tensor(0.1))  # which groups and defaults share

    def step(self):
        for group in self.param_groups:
            group["betas"] = (group["betas"][0] * 0.9, 0.99)
        super().step()


class OfItsStart(SGD):
    def __init__(self, params):
        decay = abs(float(params[0].detach().flatten()[0]))
        super().__init__(params, 0.05, momentum=0.5, weight_decay=decay)


class KeepsTheParameter(Scaled):
    def late(self, p, group, state):
        state["p"] = state.get("p", p.detach())
        state["mean"] = 0.5 * state.get("mean", 0.0) + 0.5 * state["p"]
        return 1.0 + state["mean"]


class MadeWithATuple(Plain):
    """Has from the beginning what JSON would change."""

    def __init__(self, params):
        super().__init__(params)
        for p in params:
            self.state[p].update(kind=("a", 1), counts={1: 2})

    def move(self, p, group):
        assert list(self.state[p].values()) == [("a", 1), {1: 2}]
        super().move(p, group)


KEPT = [
    NormState,
    OwnAdafactor,
    functools.partial(Muon, lr=0.1),
    Counts,
    OnDefaults,
    InSlots,
    CyclesBetas,
    OfItsStart,
    KeepsTheParameter,
    MadeWithATuple,
]


@pytest.mark.parametrize("optimizer", KEPT)
def test_what_runs_one_by_one_comes_back_from_the_file(optimizer, tmp_path):
    x = torch.stack([CURVE.x, CURVE.x**2], 1)
    problem = ss.Problem(x, CURVE.y[:, None], Net())
    rule = rule_of(optimizer, problem)
    assert isinstance(rule, OneByOne)
    gradients = torch.randn(6, 3, problem.p, generator=torch.Generator().manual_seed(1))
    w = problem.initial([0, 1, 2])
    state = rule.init(w)
    for step, gradient in enumerate(gradients):
        if step == 3:
            packed = {f"rule.{k}": v for k, v in rules.state_dict(state).items()}
            checkpoint.write(tmp_path / "a", packed)
            back = checkpoint.part(checkpoint.read(tmp_path / "a"), "rule")
            other_w, other = w, rules.load_state_dict(rule.init(w), back)
        w, state = rule.update(w, state, rules.Step(gradient, torch.zeros(3)))
        if step >= 3:
            other_w, other = rule.update(other_w, other, rules.Step(gradient, torch.zeros(3)))
            assert torch.equal(w, other_w)


class Late(Counts):
    """Keeps in an object what it has counted, from the seventh step on."""

    def step(self):
        super().step()
        if self.steps >= 7:
            self.seen = {"steps": self.steps}


class UnderAName(Plain):
    """Has a state under a name, from the seventh step on."""

    def move(self, p, group):
        super().move(p, group)
        self.state[p]["step"] = self.state[p].get("step", 0) + 1
        if self.state[p]["step"] >= 7:
            self.state["all"]["step"] = self.state[p]["step"]


@pytest.mark.parametrize("optimizer", [Late, UnderAName])
def test_what_comes_late_and_cannot_be_kept_is_not_written_then(optimizer):
    rule, w = rule_of(optimizer), CURVE.initial([0, 1])
    assert rule.complete
    state = rule.init(w)
    for step in range(8):
        if step < 7:
            rules.state_dict(state)
        w, state = rule.update(w, state, rules.Step(torch.ones(2, 3), torch.zeros(2)))
    with pytest.raises(TypeError, match=r"elsewhere than in Optimizer\.state"):
        rules.state_dict(state)


class Phase(enum.IntEnum):
    MAIN = 2


def shape(optimizer, p, group, state):
    state["shape"] = p.shape


def pairs(optimizer, p, group, state):
    state["window"] = [*state.get("window", ()), (state["step"], 1.0)]


def setting(optimizer, p, group, state):
    group["mark"] = ("warm", 1)


def keys(optimizer, p, group, state):
    state["hits"] = {state["step"] % 4: 1}


def phase(optimizer, p, group, state):
    state["phase"] = Phase.MAIN


def array(optimizer, p, group, state):
    state["m"] = p.grad.numpy().copy()


def view(optimizer, p, group, state):
    state["m"] = torch.zeros(2 * p.numel())
    state["half"] = state["m"][: p.numel()]


def one_list(optimizer, p, group, state):
    state["a"] = state["b"] = [1.0]


def transposed(optimizer, p, group, state):
    state["m"] = torch.zeros(3, 2).T


def nested(optimizer, p, group, state):
    state["m"] = {"m": torch.zeros_like(p)}


def no_dict(optimizer, p, group, state):
    optimizer.state[p] = p.grad


def no_setting(optimizer, p, group, state):
    group.pop("damp", None)


def no_default(optimizer, p, group, state):
    optimizer.defaults.pop("damp", None)


def new_group(optimizer, p, group, state):
    if state["step"] == 3:
        optimizer.param_groups.append({"params": [], "lr": 0.1})


def on_the_parameter(optimizer, p, group, state):
    p.seen = state["step"]


def in_a_default(optimizer, p, group, state):
    optimizer.defaults["seen"] = [state["step"]]


def tensor_lr(optimizer, p, group, state):
    group["lr"] = state["t"] = torch.tensor(0.1)  # as LBFGS keeps the one that it was given


OTHERWISE = [shape, pairs, setting, keys, phase, array, view, one_list, transposed, nested]
OTHERWISE += [no_dict, no_setting, no_default, new_group, on_the_parameter, in_a_default, tensor_lr]


@pytest.mark.parametrize("late", OTHERWISE)
def test_what_would_come_back_otherwise_is_not_written(late):
    class Own(Scaled):
        def late(self, p, group, state):
            late(self, p, group, state)
            return 1.0

    rule, w = OneByOne(Own, [(3,)]), CURVE.initial([0, 1])
    state = rule.init(w)
    for _ in range(2):
        w, state = rule.update(w, state, rules.Step(torch.ones(2, 3), torch.zeros(2)))
    rules.state_dict(state)
    w, state = rule.update(w, state, rules.Step(torch.ones(2, 3), torch.zeros(2)))
    hint = r" \(give lr as a number, not as a tensor\)" if late is tensor_lr else ""
    with pytest.raises(TypeError, match=f"in a form that no checkpoint holds{hint}, see"):
        rules.state_dict(state)


def test_what_cannot_be_kept_is_not_written():
    rule = rule_of(Remembers)
    assert not rule.complete
    with pytest.raises(TypeError, match=r"elsewhere than in Optimizer\.state"):
        rules.state_dict(rule.init(torch.zeros(2, 3)))


class AddsAGroup(Scaled):
    def late(self, p, group, state):
        if state["step"] == 50:
            self.param_groups.append({"params": [], "lr": 0.1})
        return 1.0


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [Remembers, AddsAGroup])
def test_a_tracked_run_goes_on_without_a_checkpoint_that_cannot_be_written(
    optimizer, store, caplog
):
    caplog.set_level(logging.WARNING, "sgdstudy")
    start = Invocation.start(open_store(store), "own")
    invocation = dataclasses.replace(start, checkpoint_seconds=0.0)
    _, history = train_arm(
        invocation, "kept", ss.Arm(CURVE, optimizer=optimizer, epochs=200, batch_size=10), False
    )
    assert history.stop_reason.tolist() == ["max_epochs"]
    assert sum("no new checkpoint" in line for line in caplog.messages) == 1


def test_the_default_step_size_is_written_once():
    assert own_optimizer.DEFAULT_LR == rules.DEFAULT_LR == ss.TrainConfig().lr == 1e-3
    assert Eager(CURVE, ss.TrainConfig()).note == ""
