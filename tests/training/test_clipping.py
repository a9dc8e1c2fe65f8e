"""Gradients clipped by norm and by value, replica by replica, as torch.nn.utils does."""

import numpy as np
import pytest
import torch
from conftest import one_line, recorded, small_curve
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

import sgdstudy as ss
from sgdstudy.recipe.clipping import clipped
from sgdstudy.theory import predictions
from sgdstudy.tracking import describe

CURVE = small_curve(noise=0.1)
SAME = {"batch_size": 10, "epochs": 4}
CLIPS = [{"clip_norm": 0.7}, {"clip_value": 0.3}, {"clip_norm": 0.7, "clip_value": 0.6}]
RULES = {
    "SGD": {"momentum": 0.5, "weight_decay": 0.1},
    "Adam": {},
    "RMSprop": {"momentum": 0.5},
    "AdamW": {},
}


def literal(seed, clip, name, options, lr=0.05):
    """The loop in torch; the parameters before each step, and how many gradients were changed."""
    w, ws, changed = CURVE.initial([seed])[0].requires_grad_(), [], 0
    rule = getattr(torch.optim, name)([w], lr=lr, **options)
    order = ss.orders.Sampler("shuffle", [seed], 53, 10).take(53 * 4)[0].reshape(4, 53)
    for rows in (rows for epoch in order for rows in epoch.split(10)):
        rule.zero_grad()
        ((CURVE.model(w, CURVE.x[rows]) - CURVE.y[rows]) ** 2).mean().backward()
        before = w.grad.clone()
        if "clip_value" in clip:
            clip_grad_value_([w], clip["clip_value"])
        if "clip_norm" in clip:
            clip_grad_norm_([w], clip["clip_norm"])
        changed += not torch.equal(before, w.grad)
        ws.append(w.detach().clone())
        rule.step()
    return torch.stack(ws).numpy(), changed


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("clip", CLIPS, ids=str)
def test_steps_are_those_of_the_loop_with_clipping(clip, name, engine):
    given = {"optimizer": name, "options": RULES[name], "lr": 0.05, "engine": engine, **clip}
    history = ss.train(CURVE, seeds=[3, 4, 5], **given, **SAME)
    assert history.engine == engine
    for seed in (3, 4, 5):
        ws, changed = literal(seed, clip, name, RULES[name])
        assert changed > 2
        assert np.allclose(recorded(history, seed), ws, rtol=1e-5, atol=2e-6)  # float32, 24 steps


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_the_gradient_is_recorded_as_it_was_and_moves_as_clipped(engine):
    given = {"optimizer": "SGD", "lr": 0.5, "clip_norm": 0.01, "engine": engine}
    rows = ss.train(CURVE, **given, **SAME).steps
    assert rows["grad_norm"].min() > 0.01
    assert np.allclose(rows["update_norm"], 0.5 * 0.01, rtol=2e-3)  # the 1e-6, and float32's w


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("optimizer", ["SGD", "polyak"])
def test_seeds_side_by_side_are_each_as_alone(optimizer, engine):
    if (optimizer, engine) == ("polyak", "compiled"):
        with pytest.raises(ss.InputError, match="clipped before a rule") as error:
            ss.train(CURVE, optimizer=optimizer, engine=engine, clip_norm=1.0, **SAME)
        assert one_line(error)
        return
    given = {"optimizer": optimizer, "lr": 0.1, "clip_norm": 0.7, "engine": engine, **SAME}
    together = ss.train(CURVE, seeds=range(20), **given)
    for seed in (0, 7, 19):
        assert np.array_equal(together.w[seed], ss.train(CURVE, seeds=[seed], **given).w[0])


@pytest.mark.parametrize("p", [1, 3, 50, 1001])
def test_one_replicas_bits_do_not_depend_on_the_others(p):
    g = torch.randn(9, p, generator=torch.Generator().manual_seed(1))
    g = g * torch.logspace(-3, 3, 9)[:, None]
    every = clipped(g, 1.0, 2.0)
    assert all(torch.equal(every[r], clipped(g[r : r + 1], 1.0, 2.0)[0]) for r in range(9))
    assert (every.norm(dim=1) <= 1 + 1e-5).all()
    assert torch.equal(clipped(g), g)


def test_a_model_of_many_tensors_is_clipped_by_the_norm_of_all():
    net = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    x, y = CURVE.x[:, None], CURVE.y[:, None]
    history = ss.train(ss.Problem(x, y, net), optimizer="SGD", lr=0.1, epochs=5, clip_norm=0.5)
    for _ in range(5):
        net.zero_grad()
        ((net(x) - y) ** 2).mean().backward()
        clip_grad_norm_(net.parameters(), 0.5)
        with torch.no_grad():
            for p in net.parameters():
                p -= 0.1 * p.grad
    w = torch.cat([p.detach().flatten() for p in net.parameters()])
    assert np.allclose(history.w[0], w, rtol=1e-4, atol=1e-6)


def test_theory_says_nothing_of_clipped_steps():
    given = {"optimizer": "SGD", "lr": 0.05, "stop": ("full", 0.01), "clip_norm": 1.0}
    config = ss.TrainConfig(**given)
    assert predictions.predict(CURVE, config) == {}
    assert predictions.expected_losses(CURVE, config) == {}
    for call in (ss.expect, lambda arm: ss.theory.first_overflow(arm.problem, arm.config)):
        with pytest.raises(ss.InputError):
            call(ss.Arm(CURVE, **given))
    assert describe.parameters(CURVE, config)["clip_norm"] == "1.0"
    assert "clip_norm" not in describe.parameters(CURVE, ss.TrainConfig())


@pytest.mark.parametrize("bad", [0, -1, float("inf"), "much"])
def test_bounds_are_positive_numbers(bad):
    for name in ("clip_norm", "clip_value"):
        with pytest.raises(ss.InputError, match=name):
            ss.TrainConfig(**{name: bad})
