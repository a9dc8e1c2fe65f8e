"""Groups of parameters by name: the steps are those of torch's parameter groups."""

from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import pytest
import torch
from conftest import one_line
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

import sgdstudy as ss
from sgdstudy.recipe.identity import Identity
from sgdstudy.recipe.rules import ELEMENT_WISE
from sgdstudy.tracking import describe

DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(24, 3)), DRAW.normal(size=(24, 2))
GROUPS = {"0.*": {"lr": 0.002}, "*2.bias": {"lr": 0.05, "weight_decay": 0.1}}
EPOCHS, B = 4, 5
GIVEN = {"lr": 0.01, "batch_size": B, "epochs": EPOCHS, "order": "sequential"}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def problem(**changes):
    return ss.Problem(X, Y, net(), **changes)


def literal(optimizer, options, groups, schedule=None, by_epoch=False, lr=0.01):
    """What a script does in torch, with an optimizer of parameter groups."""
    model, x, y = net(), torch.as_tensor(X), torch.as_tensor(Y)
    parts = [{"params": [], **own} for own in groups.values()] + [{"params": []}]
    for name, p in model.named_parameters():
        at = [i for i, pattern in enumerate(groups) if fnmatchcase(name, pattern)]
        parts[at[0] if at else -1]["params"].append(p)
    made = getattr(torch.optim, optimizer)(parts, lr=lr, **options)
    scheduler = schedule and schedule(made)
    for _ in range(EPOCHS):
        for begin in range(0, len(x), B):
            batch = slice(begin, begin + B)
            made.zero_grad()
            ((model(x[batch]) - y[batch]) ** 2).mean().backward()
            made.step()
            if scheduler and not by_epoch:
                scheduler.step()
        if scheduler and by_epoch:
            scheduler.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


def close(a, b):
    return np.allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("optimizer", ELEMENT_WISE)
def test_steps_are_those_of_torch(optimizer):
    groups = {"0.*": {"lr": 0.002}, "*2.bias": {"lr": 0.05}}
    history = ss.train(problem(), optimizer=optimizer, groups=groups, seeds=range(3), **GIVEN)
    expected = literal(optimizer, {}, groups)
    assert all(close(w, expected) for w in history.w)
    assert not close(expected, literal(optimizer, {}, {}))


@pytest.mark.parametrize("by_epoch", [False, True])
def test_options_and_schedules_are_those_of_torch(by_epoch):
    options = {"momentum": 0.9, "weight_decay": 0.01}
    unit = "epoch" if by_epoch else "step"
    length = EPOCHS * (1 if by_epoch else 5)
    for name, chosen, schedule in (
        ("CosineAnnealingLR", {"eta_min": 1e-3}, lambda o: CosineAnnealingLR(o, length, 1e-3)),
        ("StepLR", {"step_size": 2}, lambda o: StepLR(o, 2)),
    ):
        given = {"schedule": name, "schedule_options": chosen, "schedule_unit": unit}
        history = ss.train(problem(), options=options, groups=GROUPS, **given, **GIVEN)
        expected = literal("SGD", options, GROUPS, schedule, by_epoch)
        assert close(history.w[0], expected)
        assert history.steps["lr"][0] == GIVEN["lr"]  # of parameters in no group


def test_groups_of_everything_and_of_what_they_are_without_are_the_same():
    alone = ss.train(problem(), **GIVEN)
    for groups in ({"*": {}}, {"0.*": {"lr": 0.01}}, {"0.*": {}, "2.*": {}}):
        assert np.array_equal(ss.train(problem(), groups=groups, **GIVEN).w, alone.w)
    notebook = ss.train(problem(), optimizer="notebook", groups={"*": {}}, **GIVEN)
    assert np.array_equal(notebook.w, ss.train(problem(), optimizer="notebook", **GIVEN).w)


def test_a_group_without_a_step_size_follows_that_of_all():
    config = replace(ss.TrainConfig(groups={"0.*": {"weight_decay": 0.1}}, **GIVEN), lr=0.002)
    expected = literal("SGD", {}, {"0.*": {"weight_decay": 0.1}}, lr=0.002)
    assert close(ss.train(problem(), config=config).w[0], expected)


def test_options_of_a_group_go_with_those_of_all():
    both = {"options": {"momentum": 0.9, "nesterov": True}, "groups": {"0.*": {"dampening": 0.1}}}
    with pytest.raises(ss.InputError, match=r"Nesterov|nesterov") as error:
        ss.TrainConfig(**both, **GIVEN)
    assert one_line(error)


def test_seeds_that_end_leave_the_others_as_they_are(monkeypatch):
    monkeypatch.setattr("sgdstudy.training.run.FIRST_STEPS", 5)  # a look after every epoch
    given = GIVEN | {"epochs": 30, "stop": ("full", 2.4), "order": "shuffle"}
    given |= {"optimizer": "Adam", "groups": GROUPS, "engine": "eager"}
    start = {"w_init": lambda generator: torch.randn(26, generator=generator).double()}
    together = ss.train(problem(**start), seeds=range(8), **given)
    assert len(set(together.stop_epoch)) > 2
    for seed in (0, 5):
        alone = ss.train(problem(**start), seeds=(seed,), **given)
        assert alone.stop_epoch[0] == together.stop_epoch[seed]
        assert close(alone.w[0], together.w[seed])


def test_they_are_recorded_and_part_of_what_a_run_is(tmp_path):
    one = problem()
    config = ss.TrainConfig(groups=GROUPS, **GIVEN)
    params = describe.parameters(one, config)
    assert params["groups"] == "0.*: lr=0.002; *2.bias: lr=0.05, weight_decay=0.1"
    other = ss.TrainConfig(groups={"0.*": {"lr": 0.003}}, **GIVEN)
    found = {Identity.of(one, c).hash for c in (config, other, ss.TrainConfig(**GIVEN))}
    assert len(found) == 3
    history = ss.train(one, config=config)
    history.save(tmp_path / "run.sgdstudy")
    again = ss.load_history(tmp_path / "run.sgdstudy", one)
    assert again.config.groups == config.groups
    assert np.array_equal(ss.train(one, config=again.config).w, history.w)


@pytest.mark.slow
def test_they_are_not_compiled_and_the_run_says_so():
    given = {**GIVEN, "groups": GROUPS, "epochs": 500}
    assert "groups" in ss.train(problem(), **given).engine_note
    with pytest.raises(ss.InputError, match="groups of parameters") as error:
        ss.train(problem(), engine="compiled", **given)
    assert one_line(error)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"groups": [1]}, "groups is a dict of patterns"),
        ({"groups": {"0.*": 0.1}}, "groups is a dict of patterns"),
        ({"groups": {0: {}}}, "groups is a dict of patterns"),
        ({"groups": {"5.*": {}}}, "'5.*' matches no parameter; there are 0.weight, 0.bias"),
        ({"groups": {"0.*": {}, "*bias": {}}}, "two groups, .*, match '0.bias'"),
        ({"groups": {"*": {"momentun": 0.9}}}, "option of SGD"),
        ({"groups": {"*": {"lr": -1.0}}}, "lr"),
        ({"groups": {"*": {}}, "optimizer": "polyak"}, "groups go with"),
        ({"groups": {"*": {}}, "optimizer": lambda p: torch.optim.SGD(p, lr=1.0)}, "factory"),
    ],
)
def test_what_is_no_group_is_refused_in_one_line(changes, match):
    given = {**GIVEN, **changes}
    if callable(changes.get("optimizer")):
        given.pop("lr")
    with pytest.raises(ss.InputError, match=match) as error:
        ss.train(problem(), **given)
    assert one_line(error)


def test_a_function_of_w_has_no_names():
    with pytest.raises(ss.InputError, match="the model is a function of w"):
        ss.train("curve", groups={"*": {}}, lr=1e-4)


def test_theory_and_edges_have_one_step_size():
    linear = ss.Problem(X, Y[:, :1], nn.Linear(3, 1).double())
    arm = ss.Arm(linear, groups={"bias": {"lr": 0.1}}, **GIVEN)
    with pytest.raises(ss.InputError, match="one step size for all"):
        ss.expect(arm)
    history = ss.train(linear, config=arm.config)
    with pytest.raises(ss.InputError, match="edges of their own"):
        history.edge()
    assert describe.results(history)["full_loss"] > 0


def test_a_factory_may_make_groups_by_the_names_of_its_module():
    """The way of own optimisers: parameters come in the order of the module's."""
    names = [name for name, _ in net().named_parameters()]

    def factory(params):
        groups = {"first": [], "others": []}
        for name, p in zip(names, params, strict=len(params) == len(names)):
            groups["first" if name.startswith("0.") else "others"].append(p)
        return torch.optim.SGD(
            [{"params": groups["first"], "lr": 0.002}, {"params": groups["others"], "lr": 0.01}]
        )

    given = {name: value for name, value in GIVEN.items() if name != "lr"}
    history = ss.train(problem(), optimizer=factory, seeds=range(2), **given)
    assert all(close(w, literal("SGD", {}, {"0.*": {"lr": 0.002}})) for w in history.w)
    assert np.isnan(history.config.lr)
