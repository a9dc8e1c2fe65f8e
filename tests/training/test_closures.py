"""Optimisers whose `step(closure)` evaluates the batch again: SAM, LBFGS, line searches."""

import dataclasses
import logging
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import flat, one_line, recorded, small_curve
from torch.nn.utils import clip_grad_norm_
from torch.optim import LBFGS, SGD, Optimizer
from torch.utils.data import DataLoader, TensorDataset

import sgdstudy as ss
from sgdstudy.recipe import rules
from sgdstudy.recipe.one_by_one import OneByOne
from sgdstudy.recipe.rules import TorchOptimizer
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.store import open_store
from sgdstudy.training import checkpoint

CURVE = small_curve(noise=0.1)
FEW = {"batch_size": 10, "epochs": 3}


class SAM(Optimizer):
    """Sharpness-aware minimisation (Foret et al. 2021), as it is mostly written."""

    def __init__(self, params, base=SGD, lr=0.05, rho=0.05, **options):
        super().__init__(params, {"lr": lr, "rho": rho, **options})
        self.base = base(self.param_groups, lr=lr, **options)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def first_step(self, zero_grad=False):
        params = [p for group in self.param_groups for p in group["params"]]
        norm = torch.norm(torch.stack([p.grad.norm(p=2) for p in params]), p=2)
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old_p"] = p.data.clone()
                p.add_(p.grad * (group["rho"] / (norm + 1e-12)))
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad=False):
        for group in self.param_groups:
            for p in group["params"]:
                p.data = self.state[p]["old_p"]
        self.base.step()
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def step(self, closure=None):
        assert closure is not None, "SAM requires a closure"
        closure = torch.enable_grad()(closure)
        self.first_step(zero_grad=True)
        closure()
        self.second_step()


class Backtracking(Optimizer):
    """Armijo's line search along the gradient; each batch starts from the largest step."""

    def __init__(self, params, lr=1.0, c=0.5, shrink=0.5):
        super().__init__(params, {"lr": lr, "c": c, "shrink": shrink})

    def step(self, closure):
        (group,) = self.param_groups
        loss, params = closure(), group["params"]
        start, slopes = [p.detach().clone() for p in params], [p.grad for p in params]
        square, size = sum(float((g * g).sum()) for g in slopes), group["lr"]
        for _ in range(30):
            with torch.no_grad():
                for p, w, g in zip(params, start, slopes, strict=True):
                    p.copy_(w - size * g)
            if closure() <= loss - group["c"] * size * square:
                break
            size *= group["shrink"]
        return loss


class Polyak(Optimizer):
    """Reads the loss off its closure, and nothing else: it never moves between."""

    def __init__(self, params):
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure=None):
        loss = torch.enable_grad()(closure)().item()
        for p in self.param_groups[0]["params"]:
            p -= loss / (2 * (p.grad**2).sum()) * p.grad


class Template(SGD):
    """A subclass whose step is torch's own: a closure for the loss alone."""


class Optional(Backtracking):
    """A search where there is a closure, else nothing."""

    def step(self, closure=None):
        return None if closure is None else super().step(closure)


class Searches(Backtracking):
    """A search where there is a closure, else the largest step."""

    def step(self, closure=None):
        if closure is not None:
            return super().step(closure)
        for p in self.param_groups[0]["params"]:
            p.data -= 1e-3 * self.param_groups[0]["lr"] * p.grad


class Clipped(SGD):
    """Changes the gradients before a step that takes its closure on."""

    def step(self, closure=None):
        clip_grad_norm_(self.param_groups[0]["params"], 1e-12)
        return super().step(closure)


class Signs(Clipped):
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.grad.sign_()
        return SGD.step(self, closure)


class Scaled(Clipped):
    def step(self, *given, **named):
        for p in self.param_groups[0]["params"]:
            p.grad = p.grad / p.grad.norm()
        return SGD.step(self, *given, **named)


class OtherName(Backtracking):
    def step(self, evaluate):
        return super().step(evaluate)


class Passes(Backtracking):
    def step(self, *given, **named):
        return super().step(*given, **named)


def net():
    model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    draw = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=draw)
    return model


X = torch.stack([CURVE.x, CURVE.x**2], 1)
NETWORK = ss.Problem(X, CURVE.y[:, None], net())


def batches(x, y, seed, batch_size, epochs):
    generator = torch.Generator().manual_seed(seed)
    data = TensorDataset(x, y)
    loader = DataLoader(data, batch_size or len(x), shuffle=True, generator=generator)
    for _ in range(epochs):
        yield from [(x, y)] if batch_size is None else loader


def torch_loop(f, params, x, y, rule, seed=0, clip=None, penalty=None, **given):
    """`optimizer.step(closure)` as torch documents it; parameters, loss, norm before each step."""
    optimizer, rows = rule(params), []
    for bx, by in batches(x, y, seed, **given):

        def closure(bx=bx, by=by):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(f(bx), by)
            if penalty:
                loss = loss + penalty(flat_grad(params))
            loss.backward()
            if clip:
                clip_grad_norm_(params, clip)
            return loss

        w, loss = flat(params), torch.nn.functional.mse_loss(f(bx), by)
        grad = torch.cat([g.flatten() for g in torch.autograd.grad(loss, params)])
        rows.append((w, loss.detach(), grad.norm()))
        closure()  # SAM's first step reads the gradient before it asks
        optimizer.step(closure)
    ws, losses, norms = (torch.stack(part) for part in zip(*rows, strict=True))
    return SimpleNamespace(w=flat(params), ws=ws, losses=losses, norms=norms)


def flat_grad(params):
    return torch.cat([p.flatten() for p in params])


def curve_loop(rule, seed=0, problem=CURVE, **given):
    w = problem.initial([seed])[0].requires_grad_()
    return torch_loop(lambda x: problem.model(w, x), [w], problem.x, problem.y, rule, seed, **given)


RULES = {
    "SAM": lambda params: SAM(params, rho=0.1),
    "SAM with momentum": lambda params: SAM(params, lr=0.02, momentum=0.9),
    "SAM over Adam": lambda params: SAM(params, torch.optim.Adam, lr=0.05),
    "LBFGS": lambda params: LBFGS(params, lr=0.3, max_iter=4, history_size=3),
    "LBFGS, strong Wolfe": lambda params: LBFGS(params, line_search_fn="strong_wolfe"),
    "backtracking": Backtracking,
    "another name": OtherName,
    "passes on": Passes,
    "Polyak": Polyak,
}


@pytest.mark.parametrize("batch_size", [10, None])
@pytest.mark.parametrize("name", RULES)
def test_a_closure_makes_the_steps_of_the_loop_in_torch(name, batch_size, caplog):
    """On the curve to the last bit, each of three seeds."""
    given = {"batch_size": batch_size, "epochs": 4}
    history = ss.train(CURVE, optimizer=RULES[name], seeds=[3, 5, 8], **given)
    (line,) = caplog.messages
    assert "takes a closure: its replicas step one by one" in line
    for r, seed in enumerate((3, 5, 8)):
        loop = curve_loop(RULES[name], seed, **given)
        assert np.array_equal(history.w[r], loop.w.numpy())
        assert np.array_equal(recorded(history, seed), loop.ws.numpy())


@pytest.mark.parametrize("name", RULES)
def test_a_row_is_of_the_parameters_before_the_step(name):
    history = ss.train(CURVE, optimizer=RULES[name], seeds=[3], **FEW)
    loop = curve_loop(RULES[name], 3, **FEW)
    assert np.array_equal(history.steps["loss"], loop.losses.numpy())
    assert np.allclose(history.steps["grad_norm"], loop.norms, rtol=1e-6)
    moves = np.diff(np.vstack([loop.ws, loop.w]).astype(float), axis=0)
    assert np.allclose(history.steps["update_norm"], np.linalg.norm(moves, axis=1), rtol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_a_module_steps_as_in_the_loop_and_a_seed_as_alone(name):
    given = {"optimizer": RULES[name], "batch_size": 10, "epochs": 2, "dtype": "float64"}
    together = ss.train(NETWORK, seeds=[3, 4], **given)
    for r, seed in enumerate((3, 4)):
        model = net().double()
        params, x, y = list(model.parameters()), X.double(), CURVE.y.double()[:, None]
        loop = torch_loop(model, params, x, y, RULES[name], seed, batch_size=10, epochs=2)
        assert np.allclose(together.w[r], loop.w, rtol=1e-6, atol=1e-9)  # float64, sums reordered
        alone = ss.train(NETWORK, seeds=[seed], **given)
        rows = together.steps[together.steps.seed == seed].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, alone.steps, check_exact=True)


# ---- theory ----------------------------------------------------------------------------------


def quadratic(dtype=np.float64):
    """w^T H w / 2, and its H: mean squares of dependent features, least at 0."""
    rows = np.random.default_rng(0).normal(size=(12, 3)).astype(dtype)
    problem = ss.Problem(rows, np.zeros(12), lambda w, x: x @ w, w_init=[1.0, -2.0, 0.5])
    return problem, 2 * rows.T @ rows / 12


def test_sams_step_on_a_quadratic():
    """w - lr H (w + rho g / |g|)."""
    problem, hessian = quadratic()
    rule = lambda params: SAM(params, lr=0.05, rho=0.3)  # noqa: E731
    history = ss.train(problem, optimizer=rule, batch_size=None, epochs=20)
    w = np.array([1.0, -2.0, 0.5])
    for _ in range(20):
        gradient = hessian @ w
        w = w - 0.05 * hessian @ (w + 0.3 * gradient / np.linalg.norm(gradient))
    assert np.allclose(history.w[0], w, rtol=1e-9)


def test_lbfgs_ends_where_it_says():
    """At a gradient of no more than tolerance_grad: there w^T H w / 2 = g^T H^-1 g / 2."""
    problem, hessian = quadratic()
    options = {"line_search_fn": "strong_wolfe", "tolerance_grad": 1e-10, "tolerance_change": 0}
    history = ss.train(problem, optimizer=LBFGS, options=options, batch_size=None, epochs=2)
    assert np.abs(hessian @ history.w[0]).max() <= 1e-10
    most = 3 * 1e-10**2 / (2 * np.linalg.eigvalsh(hessian)[0])
    assert history.epochs["full_loss"].iloc[-1] <= most


def test_armijos_step_is_the_largest_that_gains_enough():
    """Along -g a quadratic gains t |g|^2 - t^2 g^T H g / 2: half of the slope up to |g|^2 / gHg."""
    problem, hessian = quadratic()
    history = ss.train(problem, optimizer=Backtracking, batch_size=None, epochs=5)
    for row in recorded(history):
        g = hessian @ row
        most = g @ g / (g @ hessian @ g)
        size = 0.5 ** np.ceil(np.log2(1 / min(1.0, most)))
        row_after = row - size * g
        assert any(np.allclose(row_after, w, rtol=1e-9) for w in [*recorded(history), history.w[0]])


# ---- who gets one ----------------------------------------------------------------------------


def rule_of(optimizer, problem=CURVE):
    return rules.make(optimizer, *rules.settle(optimizer, None, {})[1:], {}, problem)


@pytest.mark.parametrize("optimizer", [*RULES.values(), Optional])
def test_who_evaluates_again_gets_a_closure(optimizer):
    rule = rule_of(optimizer)
    assert isinstance(rule, OneByOne)
    assert rule.closure


@pytest.mark.parametrize("optimizer", [Clipped, Signs, Scaled, Searches])
def test_who_steps_without_moves_as_in_the_plain_loop(optimizer):
    """`loss.backward(); optimizer.step()`: a closure would undo what it did to the gradients."""
    history = ss.train(CURVE, optimizer=optimizer, seeds=[3], **FEW)
    w = CURVE.initial([3])[0].requires_grad_()
    loop = optimizer([w])
    for bx, by in batches(CURVE.x, CURVE.y, 3, **FEW):
        loop.zero_grad()
        torch.nn.functional.mse_loss(CURVE.model(w, bx), by).backward()
        loop.step()
    assert np.array_equal(history.w[0], w.detach().numpy())
    assert not rule_of(optimizer).closure


def test_a_closure_for_the_loss_alone_changes_nothing():
    assert not rule_of(Template).closure
    assert isinstance(rule_of(lambda params: SGD(params, lr=0.1)), TorchOptimizer)


class Wrong(SAM):
    def second_step(self, zero_grad=False):
        raise ValueError("no second step")


class Reads(Backtracking):
    """Has no closure to give: its argument is something else."""

    def step(self, damp=1.0):
        for p in self.param_groups[0]["params"]:
            p.data -= damp * 0.05 * p.grad


def test_a_step_that_fails_says_what_failed():
    with pytest.raises(ss.InputError, match="'Wrong' failed: ValueError: no second step") as error:
        ss.train(CURVE, optimizer=Wrong, **FEW)
    assert one_line(error)


def test_an_argument_that_is_no_closure_is_left_alone():
    assert not rule_of(Reads).closure


# ---- with the other settings -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["SAM", "backtracking"])
def test_the_closures_gradients_are_clipped_too(name):
    history = ss.train(CURVE, optimizer=RULES[name], clip_norm=0.5, seeds=[3], **FEW)
    loop = curve_loop(RULES[name], 3, clip=0.5, **FEW)
    assert np.allclose(history.w[0], loop.w, rtol=1e-5)
    assert np.allclose(history.steps["grad_norm"], loop.norms, rtol=1e-5)  # as it was


@pytest.mark.parametrize("name", ["SAM", "LBFGS", "backtracking"])
def test_the_closures_loss_holds_the_penalty(name):
    problem = CURVE.replace(penalty=("l2", 0.1))
    history = ss.train(problem, optimizer=RULES[name], seeds=[3], **FEW)
    loop = curve_loop(RULES[name], 3, penalty=lambda w: 0.1 * (w * w).sum(), **FEW)
    assert np.allclose(history.w[0], loop.w, rtol=1e-5)


def test_a_schedule_drives_the_step_size():
    given = {"schedule": "ExponentialLR", "schedule_options": {"gamma": 0.8}, "seeds": [3], **FEW}
    history = ss.train(CURVE, optimizer=SAM, lr=0.1, **given)
    w, x, y = CURVE.initial([3])[0].requires_grad_(), CURVE.x, CURVE.y
    optimizer = SAM([w], lr=0.1)
    by = torch.optim.lr_scheduler.ExponentialLR(optimizer.base, 0.8)
    for bx, by_ in batches(x, y, 3, **FEW):

        def closure(bx=bx, by_=by_):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(CURVE.model(w, bx), by_)
            loss.backward()
            return loss

        closure()
        optimizer.step(closure)
        by.step()
    assert np.allclose(history.w[0], w.detach(), rtol=1e-5)


class Endless(Backtracking):
    """A search without a bound, which NaN would never end."""

    def step(self, closure):
        (p,), size, loss = self.param_groups[0]["params"], 1.0, closure()
        start, slope = p.detach().clone(), p.grad
        p.data = start - size * slope
        while not closure() <= loss:
            size *= 0.5
            p.data = start - size * slope
        p.data = start - 1e12 * size * slope  # far beyond


def test_a_seed_that_has_diverged_asks_no_more():
    history = ss.train(CURVE, optimizer=Endless, seeds=[0, 1], batch_size=10, epochs=3)
    assert (history.stop_reason == "diverged").all()


# ---- checkpoints -----------------------------------------------------------------------------

KEPT = ["SAM", "LBFGS", "LBFGS, strong Wolfe", "backtracking"]


@pytest.mark.parametrize("name", KEPT)
def test_an_optimisers_lists_come_back_from_the_file(name, tmp_path):
    """LBFGS keeps lists of tensors."""
    rule = rule_of(RULES[name])
    assert rule.complete
    w = CURVE.initial([0, 1]) + torch.tensor([[0.1], [0.2]])
    state = rule.init(w)
    x, y = CURVE.x.expand(2, -1), CURVE.y.expand(2, -1)

    def again(r, w):
        loss, gradient = CURVE.losses_and_gradients(w[None], x[:1], y[:1])
        return loss[0], gradient[0]

    other_w = other = None
    for step in range(6):
        if step == 3:
            packed = {f"rule.{k}": v for k, v in rules.state_dict(state).items()}
            checkpoint.write(tmp_path / "a", packed)
            back = checkpoint.part(checkpoint.read(tmp_path / "a"), "rule")
            other_w, other = w.clone(), rules.load_state_dict(rule.init(w), back)
        loss, gradient = CURVE.losses_and_gradients(w, x, y)
        w, state = rule.update(w, state, rules.Step(gradient, loss, None, again))
        if other is not None:
            other_w, other = rule.update(other_w, other, rules.Step(gradient, loss, None, again))
            assert torch.equal(w, other_w)


def test_state_kept_elsewhere_is_not_written():
    """That of SAM's base is."""
    assert not rule_of(RULES["SAM with momentum"]).complete


@pytest.mark.slow
def test_a_tracked_run_is_gone_on_with(store, caplog):
    caplog.set_level(logging.WARNING, "sgdstudy")
    start = Invocation.start(open_store(store), "own")
    invocation = dataclasses.replace(start, checkpoint_seconds=0.0)
    arm = ss.Arm(CURVE, optimizer=RULES["LBFGS"], epochs=60, batch_size=10)
    _, history = train_arm(invocation, "kept", arm, False)
    assert history.stop_reason.tolist() == ["max_epochs"]
    assert not any("checkpoint" in line for line in caplog.messages)
