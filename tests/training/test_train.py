"""The trainer against the notebook's loop and torch.optim, seed by seed and bit by bit."""

import os
import signal
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import flat, literal, literal_curve, one_line, recorded, small_curve
from torch import nn

import sgdstudy as ss
from sgdstudy import quantities
from sgdstudy.history.stream import ArrowStream
from sgdstudy.recipe import rules
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.training import engines, run
from sgdstudy.training.recorded import sum_batches

CURVE = ss.problems.curve()
WHERE = ["seed", "epoch", "batch", "step", "size"]
VALUES = ["loss", "grad_norm", "full_loss", "full_grad_norm", "update_norm"]
NOTEBOOK = {"optimizer": "notebook", "lr": 2e-4, "batch_size": 10}


def same(a, b, **tolerance):
    """Whether two runs recorded the same; to the last bit unless a tolerance is given."""
    tolerance = tolerance or {"check_exact": True}
    pd.testing.assert_frame_equal(a.steps, b.steps, **tolerance)
    pd.testing.assert_frame_equal(a.epochs, b.epochs, **tolerance)
    assert np.array_equal(a.stop_epoch, b.stop_epoch)
    assert a.stop_reason.tolist() == b.stop_reason.tolist()
    return np.array_equal(a.w, b.w, equal_nan=True)


def one_seed(frame, seed):
    return frame[frame.seed == seed].reset_index(drop=True)


# ---- equal to the notebook's loop -----------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 7, 10, 64, 300, 2000, None])
def test_the_notebooks_rule_is_the_notebooks_loop_bit_for_bit(batch_size):
    settings = {"lr": 2e-5, "batch_size": batch_size, "epochs": 3}
    history = ss.train(CURVE, optimizer="notebook", seeds=[3], **settings)
    loop = literal_curve(CURVE, seed=3, **settings)
    assert np.array_equal(history.w[0], loop.w.numpy())
    assert np.array_equal(recorded(history, 3), loop.ws.numpy())
    assert np.array_equal(history.steps.loss, loop.losses.numpy())
    norms = np.linalg.norm(loop.gradients.double().numpy(), axis=1)
    assert np.allclose(history.steps.grad_norm, norms, rtol=1e-14)


def test_sequential_is_the_loop_without_shuffling():
    settings = {"lr": 2e-4, "batch_size": 10, "epochs": 2}
    history = ss.train(CURVE, optimizer="notebook", order="sequential", **settings)
    loop = literal_curve(CURVE, shuffle=False, **settings)
    assert np.array_equal(history.w[0], loop.w.numpy())


def test_float64_is_the_loop_in_float64():
    settings = {"lr": 2e-4, "batch_size": 10, "epochs": 1}
    history = ss.train(CURVE, optimizer="notebook", dtype="float64", **settings)
    loop = literal_curve(CURVE, dtype=torch.float64, **settings)
    assert history.w.dtype == np.float64
    assert np.array_equal(history.w[0], loop.w.numpy())


OPTIMISERS = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("SGD", {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    ("SGD", {"maximize": True}),
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    ("Adam", {"betas": (0.5, 0.9), "eps": 1e-3}),
    ("AdamW", {"weight_decay": 0.3}),
    ("AdamW", {"amsgrad": True}),
    ("Adagrad", {"lr_decay": 0.1}),
    ("Adagrad", {"initial_accumulator_value": 0.5}),
    ("Adadelta", {}),
    ("Adadelta", {"rho": 0.5}),
    ("Adamax", {}),
    ("NAdam", {}),
    ("NAdam", {"momentum_decay": 0.1, "decoupled_weight_decay": True, "weight_decay": 0.1}),
    ("RAdam", {}),
    ("RMSprop", {}),
    ("RMSprop", {"centered": True, "momentum": 0.9}),
    ("Rprop", {}),
    ("Rprop", {"etas": (0.3, 1.5)}),
    ("ASGD", {}),
    ("ASGD", {"lambd": 0.1, "alpha": 0.5, "t0": 5}),
]


def test_every_optimiser_is_compared_with_torch():
    assert {name for name, _ in OPTIMISERS} == set(rules.ELEMENT_WISE)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [10, None])
@pytest.mark.parametrize(("name", "options"), OPTIMISERS)
def test_an_optimiser_is_the_loop_with_torch_optim_bit_for_bit(name, options, batch_size):
    problem = small_curve(noise=0.1)
    settings = {"lr": 0.05, "batch_size": batch_size, "epochs": 5}
    history = ss.train(problem, optimizer=name, options=options, seeds=[0, 3], **settings)
    loop = literal_curve(
        problem,
        seed=3,
        rule=lambda params: getattr(torch.optim, name)(params, lr=0.05, **options),
        **settings,
    )
    assert np.array_equal(recorded(history, 3), loop.ws.numpy())
    assert np.array_equal(history.w[1], loop.w.numpy())


def test_replicas_that_go_on_keep_the_options_that_their_optimiser_has_by_now():
    rule = rules.TorchOptimizer(lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.5))
    w, gradient = torch.zeros(4, 3), torch.arange(12.0).reshape(4, 3)
    state = rule.init(w)
    state.param_groups[0]["lr"] = 0.25  # as a hook of its owner may
    w, state = rule.update(w, state, rules.Step(gradient, torch.zeros(4)))
    live = torch.tensor([1, 3])
    other = rule.select(w[live], state, live)
    found, _ = rule.update(w[live], other, rules.Step(gradient[live], torch.zeros(2)))
    expected, _ = rule.update(w, state, rules.Step(gradient, torch.zeros(4)))
    assert torch.equal(found, expected[live])
    assert torch.allclose(found, -0.25 * (gradient + 1.5 * gradient)[live])


def test_a_factory_is_the_same_as_the_name_and_its_options():
    def factory(params):
        return torch.optim.RMSprop(params, lr=0.01, momentum=0.5)

    settings = {"batch_size": 10, "epochs": 3, "seeds": range(3)}
    by_name = {"optimizer": "RMSprop", "lr": 0.01, "options": {"momentum": 0.5}}
    made = ss.train(small_curve(), optimizer=factory, **settings)
    assert np.array_equal(made.w, ss.train(small_curve(), **by_name, **settings).w)


def test_sgd_changes_w_in_place_as_the_notebooks_function_does():
    points = torch.stack([CURVE.x, CURVE.y], 1)
    w = torch.zeros(3, requires_grad=True)
    history = ss.sgd(ss.problems.parabola, w, points, 2e-4, 1e-9, 2, 10, seed=4)
    loop = literal_curve(CURVE, lr=2e-4, batch_size=10, epochs=2, seed=4)
    assert torch.equal(w.detach(), loop.w)
    assert w.requires_grad
    assert history.stop_reason.tolist() == ["max_epochs"]


def test_sgd_of_the_full_batch_is_exercise_1():
    points = torch.stack([CURVE.x, CURVE.y], 1)
    w = torch.zeros(3, requires_grad=True)
    ss.sgd(ss.problems.parabola, w, points, eta=2e-4, epsilon=1e-9, nepoch=20, minibatch=None)
    assert torch.equal(w.detach(), literal_curve(CURVE, lr=2e-4, batch_size=None, epochs=20).w)


@pytest.mark.parametrize(
    "bad", [{"t": torch.zeros(5)}, {"w": [0.0] * 3}, {"w": torch.zeros(2).int()}]
)
def test_sgd_refuses_what_it_cannot_train(bad):
    given = {"w": torch.zeros(3), "t": torch.stack([CURVE.x, CURVE.y], 1)} | bad
    with pytest.raises(ss.InputError) as error:
        ss.sgd(ss.problems.parabola, **given)
    assert one_line(error)


# ---- the notebook's printed output ----------------------------------------------------------


def test_exercise_1_stops_at_the_printed_epoch_with_the_printed_w():
    history = ss.train(
        CURVE,
        optimizer="notebook",
        lr=2e-4,
        epochs=10_000,
        stop=("running", 0.1),
        diagnostics="off",
    )
    assert history.stop_epoch.tolist() == [9340]
    assert np.allclose(history.w[0], [0.3079, -1.7000, 2.0258], rtol=0, atol=5e-5)
    assert history.distance[0] == pytest.approx(0.4743, abs=5e-5)


def test_exercise_4_stops_at_the_printed_epoch():
    history = ss.train(CURVE, epochs=60, stop=("running", 0.1), seeds=range(4), **NOTEBOOK)
    assert set(history.stop_reason) == {"converged"}
    assert np.all(np.abs(history.stop_epoch - 48) <= 1)


# ---- replicas do not mix --------------------------------------------------------------------

TOGETHER = {
    "notebook": {"optimizer": "notebook", "lr": 2e-4, "batch_size": 10, "epochs": 2},
    "Adam": {"optimizer": "Adam", "lr": 0.1, "batch_size": 64, "epochs": 4},
    "RMSprop that stops": {
        "optimizer": "RMSprop",
        "lr": 0.01,
        "batch_size": 10,
        "epochs": 12,
        "stop": ("last_batch", 1e-4),
    },
    "Adam that stops": {
        "optimizer": "Adam",
        "lr": 0.1,
        "batch_size": 10,
        "epochs": 12,
        "stop": ("last_batch", 1e-3),
        "options": {"amsgrad": True},
    },
    "a rule that diverges": {"optimizer": "notebook", "lr": 0.2, "batch_size": 10, "epochs": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TOGETHER)
def test_seeds_side_by_side_are_each_as_alone(name):
    settings = TOGETHER[name]
    together = ss.train(CURVE, seeds=range(64), **settings)
    for seed in (0, 17, 40, 63):
        alone = ss.train(CURVE, seeds=[seed], **settings)
        assert np.array_equal(together.w[seed], alone.w[0])
        assert together.stop_epoch[seed] == alone.stop_epoch[0]
        assert together.stop_reason[seed] == alone.stop_reason[0]
        assert together.n_steps[seed] == alone.n_steps[0]
        for kind in ("steps", "epochs"):
            rows = one_seed(getattr(together, kind), seed)
            pd.testing.assert_frame_equal(rows, getattr(alone, kind), check_exact=True)


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("RMSprop that stops", engines.Eager),
        ("RMSprop that stops", engines.Compiled),
        ("Adam that stops", engines.Eager),  # with amsgrad, which is not compiled
    ],
)
def test_the_batch_is_compacted_on_the_way(name, engine, monkeypatch):
    left = []
    select = engine.select

    def spy(self, w, state, live):
        left.append(len(live))
        return select(self, w, state, live)

    monkeypatch.setattr(engine, "select", spy)
    history = ss.train(CURVE, seeds=range(64), engine=engine.name, **TOGETHER[name])
    assert len(set(history.stop_epoch)) > 1
    assert left
    assert all(now <= 32 for now in left)


def test_the_order_of_the_seeds_does_not_matter():
    settings = {"lr": 0.1, "batch_size": 10, "epochs": 3}
    one = ss.train(small_curve(), seeds=[5, 2, 9], **settings)
    other = ss.train(small_curve(), seeds=[2, 5, 9], **settings)
    assert np.array_equal(one.w, other.w[[1, 0, 2]])
    pd.testing.assert_frame_equal(one.steps, other.steps, check_exact=True)


# ---- stop rules -----------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [10, 7, None])
def test_the_running_loss_is_the_size_weighted_mean_of_the_batches(batch_size):
    history = ss.train(small_curve(), lr=0.05, batch_size=batch_size, epochs=3, seeds=range(2))
    steps = history.steps.assign(weighted=lambda s: s["size"] * s.loss.astype(float))
    groups = steps.groupby(["seed", "epoch"])
    expected = groups.weighted.sum() / groups["size"].sum()
    assert groups["size"].sum().eq(53).all()
    assert np.allclose(history.epochs.running_loss, expected, rtol=1e-14)


def test_the_running_loss_is_that_of_the_notebooks_loop():
    loop = literal_curve(CURVE, lr=2e-4, batch_size=300, epochs=1)
    running = 0.0
    for loss, size in zip(loop.losses, [300] * 6 + [200], strict=True):
        running = running + loss.item() * size
    history = ss.train(CURVE, optimizer="notebook", lr=2e-4, batch_size=300, epochs=1)
    assert history.epochs.running_loss[0] == pytest.approx(running / 2000, rel=1e-14)


@pytest.mark.parametrize("batch_size", [10, 7, 53, None])
def test_what_an_epoch_adds_up_is_weighted_by_the_sizes_of_its_batches(batch_size):
    problem = small_curve(noise=0.1)  # of 53 samples: the last batch holds 3, or 4
    settings = {"lr": 0.05, "batch_size": batch_size, "epochs": 3}
    history = ss.train(problem, optimizer="notebook", seeds=[3], **settings)
    loop = literal_curve(problem, seed=3, **settings)
    losses = loop.losses.double().numpy().reshape(3, -1)
    gradients = loop.gradients.double().numpy().reshape(3, -1, 3)
    sizes = history.steps["size"].to_numpy().reshape(3, -1)
    for epoch, loss, gradient, size in zip(
        history.epochs.itertuples(), losses, gradients, sizes, strict=True
    ):
        share = size / 53
        assert epoch.sum_loss == pytest.approx(loss.sum(), rel=1e-12)
        assert epoch.mean_loss == pytest.approx(loss.mean(), rel=1e-12)
        assert epoch.last_loss == loss[-1]
        norms = np.linalg.norm(gradient, axis=1)
        assert epoch.mean_grad_norm == pytest.approx(share @ norms, rel=1e-12)
        assert epoch.norm_mean_grad == pytest.approx(np.linalg.norm(share @ gradient), rel=1e-9)


def test_full_loss_and_gradient_of_an_epoch_belong_to_its_end():
    problem = small_curve(noise=0.1)
    history = ss.train(problem, lr=0.05, batch_size=10, epochs=4)
    w = history.epochs[["w0", "w1", "w2"]].to_numpy()
    starts = recorded(history)[history.steps.batch == 0]
    assert np.array_equal(w[:-1], starts[1:])
    assert np.array_equal(w[-1], history.w[0])
    x, y = problem.x.double(), problem.y.double()
    for row, epoch in zip(w.astype(float), history.epochs.itertuples(), strict=True):
        v = torch.tensor(row, requires_grad=True)
        loss = (problem.model(v, x) - y).square().mean()
        loss.backward()
        assert epoch.full_loss == pytest.approx(loss.item(), rel=1e-9)
        assert epoch.full_grad_norm == pytest.approx(v.grad.norm().item(), rel=1e-9)


def stop_column(history, rule):
    """What a stop rule looks at, `(epochs, seeds)`, from the recorded rows."""
    if rule == "last_batch":
        last = history.steps.groupby(["seed", "epoch"]).loss.last()
        return last.unstack("seed").to_numpy()
    name = {"running": "running_loss", "full": "full_loss", "grad_norm": "full_grad_norm"}[rule]
    return history.epochs.pivot(index="epoch", columns="seed", values=name).to_numpy()


@pytest.mark.parametrize("batch_size", [10, None])
@pytest.mark.parametrize("rule", ["running", "full", "last_batch", "grad_norm"])
def test_a_stop_rule_stops_at_the_first_epoch_below_epsilon(rule, batch_size):
    settings = {"lr": 0.1, "batch_size": batch_size, "epochs": 30, "seeds": range(8)}
    free = ss.train(small_curve(noise=0.1), **settings)
    column = stop_column(free, rule)
    epsilon = float(np.median(column[8:20]))
    below = column < epsilon
    history = ss.train(small_curve(noise=0.1), stop=(rule, epsilon), **settings)
    assert (history.stop_reason == "converged").any()
    for r in range(8):
        first = below[:, r].argmax() + 1 if below[:, r].any() else 30
        assert history.stop_epoch[r] == first
        assert history.stop_reason[r] == ("converged" if below[:, r].any() else "max_epochs")
        assert len(one_seed(history.epochs, r)) == first
        assert one_seed(history.steps, r).epoch.max() == first
        assert np.array_equal(
            history.w[r], one_seed(free.epochs, r).iloc[first - 1][["w0", "w1", "w2"]]
        )


@pytest.mark.parametrize("rule", ["running", "full", "last_batch", "grad_norm"])
def test_a_loss_of_exactly_epsilon_does_not_stop(rule):
    settings = {"lr": 0.1, "epochs": 12}  # full batch: all four fall from epoch to epoch
    column = stop_column(ss.train(small_curve(), **settings), rule)[:, 0]
    assert (np.diff(column) < 0).all()
    history = ss.train(small_curve(), stop=(rule, float(column[6])), **settings)
    assert history.stop_epoch.tolist() == [8]  # the first one below it: column[7]


def test_a_seed_that_never_stops_is_censored():
    history = ss.train(small_curve(), lr=1e-6, batch_size=10, epochs=2, stop=("running", 1e-9))
    assert history.stop_reason.tolist() == ["max_epochs"]
    assert history.stop_epoch.tolist() == [2]
    assert history.converged_epoch.tolist() == [np.inf]
    assert history.median_stop == np.inf


# ---- divergence -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 5])
def test_a_seed_diverges_at_the_first_step_that_is_not_finite(seed):
    settings = {"lr": 0.2, "batch_size": 10, "epochs": 1}
    history = ss.train(CURVE, optimizer="notebook", seeds=range(8), **settings)
    loop = literal_curve(CURVE, seed=seed, **settings)
    finite = torch.isfinite(loop.losses) & torch.isfinite(loop.gradients).all(1)
    first = int(finite.int().argmin())
    assert set(history.stop_reason) == {"diverged"}
    assert history.n_steps[seed] == first + 1
    assert history.stop_epoch[seed] == 1
    rows = one_seed(history.steps, seed)
    assert rows.step.tolist() == list(range(first + 1))
    assert np.isfinite(rows.loss[:-1]).all()
    assert not np.isfinite(rows[["loss", "grad_norm"]].iloc[-1]).all()
    assert np.array_equal(history.w[seed], loop.ws[first].numpy())
    assert np.array_equal(recorded(history, seed)[-1], history.w[seed])
    assert history.epochs.empty


def test_a_gradient_that_is_not_finite_is_divergence_too():
    x = torch.ones(4)
    problem = ss.Problem(x, x, lambda w, x: torch.sqrt(w[0]) * x, w_init=[0.0])
    history = ss.train(problem, lr=0.1, epochs=3)
    assert history.stop_reason.tolist() == ["diverged"]
    assert history.n_steps.tolist() == [1]
    assert history.w.tolist() == [[0.0]]
    assert np.isfinite(history.steps.loss).all()


def test_a_gradient_that_is_not_finite_comes_before_a_stop_in_the_same_epoch():
    x = torch.ones(4)
    problem = ss.Problem(x, x, lambda w, x: torch.sqrt(w[0]) * x, w_init=[0.0])
    history = ss.train(problem, optimizer="none", epochs=3, stop=("running", 2.0))
    assert history.stop_reason.tolist() == ["diverged"]  # though its loss of 1 is below 2
    assert history.n_steps.tolist() == [1]


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_a_gradient_whose_norm_alone_is_not_finite_is_none(engine):
    """1e200 is a float64, its square is not."""
    problem = ss.Problem(
        np.full(4, 1e200),
        np.zeros(4),
        lambda w, x: w[0] * x,
        loss=lambda f, y: (f - y).abs(),
        w_init=[1e-3],
    )
    history = ss.train(problem, lr=1e-210, batch_size=2, epochs=3, engine=engine)
    assert history.stop_reason.tolist() == ["max_epochs"]
    assert np.isinf(history.steps["grad_norm"]).all()
    assert history.steps["update_norm"].to_numpy() == pytest.approx(np.full(6, 1e-10), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [4, 256], ids=["within epochs", "by epochs"])
@pytest.mark.parametrize("optimizer", ["notebook", "Adam"])
def test_seeds_that_diverge_leave_the_others_alone(optimizer, chunk, monkeypatch):
    monkeypatch.setattr(run, "FIRST_STEPS", chunk)
    monkeypatch.setattr(engines.Eager, "chunk_steps", chunk)

    def start(generator):
        far = torch.rand(1, generator=generator) < 0.6
        return torch.full((3,), 1e30 if far else 0.0)

    problem = small_curve(w_init=start)
    far = [problem.initial([seed])[0, 0] > 0 for seed in range(10)]
    assert 0 < sum(far) < 10
    assert far[: 10 - sum(far)] != [False] * (10 - sum(far))  # those left are not the first ones
    settings = {"optimizer": optimizer, "lr": 0.1, "batch_size": 10, "epochs": 60, "average": 0.0}
    history = ss.train(problem, seeds=range(10), **settings)
    for seed in range(10):
        assert history.stop_reason[seed] == ("diverged" if far[seed] else "max_epochs")
        alone = ss.train(problem, seeds=[seed], **settings)
        assert np.array_equal(history.w[seed], alone.w[0])
        for kind in ("steps", "epochs"):
            rows = one_seed(getattr(history, kind), seed)
            pd.testing.assert_frame_equal(rows, getattr(alone, kind), check_exact=True)


def test_divergence_after_some_epochs_keeps_the_epochs_before_it():
    settings = {"lr": 3.0, "batch_size": None, "epochs": 1000}
    history = ss.train(small_curve(), optimizer="notebook", **settings)
    assert history.stop_reason.tolist() == ["diverged"]
    assert history.n_steps[0] > 10
    assert history.stop_epoch[0] == history.n_steps[0]  # one step an epoch
    assert len(history.steps) == history.n_steps[0]
    assert history.epochs.epoch.tolist() == list(range(1, history.n_steps[0]))


# ---- observing changes nothing --------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["notebook", "Adam"])
def test_diagnostics_do_not_change_a_trajectory(optimizer, tmp_path):
    def spoil(chunk):
        chunk.w[:], chunk.gradient[:], chunk.loss[:] = 0, 0, 0  # a careless quantity
        return np.zeros(chunk.loss.shape)

    settings = {"optimizer": optimizer, "lr": 0.05, "batch_size": 10, "epochs": 4}
    settings |= {"seeds": range(3), "stop": ("running", 1e-3)}
    plain = ss.train(small_curve(), diagnostics="off", **settings)
    for diagnostics in ("light", "full", ["distance"], [spoil]):
        history = ss.train(small_curve(), diagnostics=diagnostics, **settings)
        assert np.array_equal(history.w, plain.w)
    stream = ArrowStream(tmp_path / "stream")
    assert np.array_equal(ss.train(small_curve(), sink=stream, **settings).w, plain.w)
    stream.close()


def test_tracking_does_not_change_a_trajectory(store):
    from sgdstudy.tracking.invocation import Invocation
    from sgdstudy.tracking.store import open_store

    settings = {"lr": 0.05, "batch_size": 10, "epochs": 4, "seeds": range(3)}
    invocation = Invocation.start(open_store(store), "study")
    _, tracked = train_arm(invocation, "arm", ss.Arm(small_curve(), **settings), False)
    assert same(tracked, ss.train(small_curve(), **settings))


def test_the_global_generators_are_not_drawn_from():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for order in ("shuffle", "with_replacement", "block_shuffle"):
        ss.train(small_curve(), lr=0.1, batch_size=10, epochs=2, seeds=range(2), order=order)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_the_number_of_threads_is_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ss.train(small_curve(), lr=0.1, epochs=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---- chunks ---------------------------------------------------------------------------------


def cut_after(patch, steps):
    """Let every chunk have so many steps."""
    patch.setattr(run, "FIRST_STEPS", steps)
    for engine in (engines.Eager, engines.Compiled):
        patch.setattr(engine, "chunk_steps", steps)


NEVER = {"stop": ("full", 1e-30)}


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        # 120,000 / (10 * 3), samples times parameters, are 4000 steps: 20 epochs of 200
        ({"epochs": 60}, [4000, 8000]),
        ({"epochs": 60} | NEVER, [4000, 4000, 4000]),
        ({"epochs": 60, "seeds": range(16)}, [200, 600, 2400, 8800]),
        ({"epochs": 60, "seeds": range(16)} | NEVER, [200, 200, 400, 800, 1600, 3200, 5600]),
        ({"epochs": 2000, "batch_size": None}, [256, 768, 976]),
        ({"epochs": 2000, "batch_size": None} | NEVER, [256, 256, 512, 976]),
    ],
)
def test_what_runs_beyond_an_end_is_cheap_or_no_more_than_what_came_before(
    settings, steps, monkeypatch
):
    """Three times that where only divergence ends a run."""
    taken, theirs = [], engines.Compiled.steps

    def counted(self, w, state, samples, sizes, n_epochs, *rest):
        taken.append(len(sizes) * n_epochs)
        return theirs(self, w, state, samples, sizes, n_epochs, *rest)

    monkeypatch.setattr(engines.Compiled, "steps", counted)
    ss.train(CURVE, engine="compiled", **(NOTEBOOK | settings))
    assert taken == steps


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 7, 5000])
@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 1, "lr": 0.05},
        {"batch_size": 10, "lr": 0.05},
        {"batch_size": None, "lr": 0.5},
        {"batch_size": 10, "lr": 0.05, "stop": ("last_batch", 0.02), "optimizer": "Adam"},
        {"batch_size": 1, "lr": 0.05, "stop": ("running", 0.2)},
        {"batch_size": 1, "lr": 5.0, "optimizer": "notebook"},
    ],
    ids=["B=1", "ragged", "full batch", "seeds that stop", "long epochs that stop", "diverging"],
)
def test_a_run_does_not_depend_on_how_it_is_cut_into_chunks(chunk, settings):
    settings = {"epochs": 12, "seeds": range(6)} | settings
    problem = small_curve(noise=0.1)
    for engine in ("eager", "compiled"):
        whole = ss.train(problem, engine=engine, **settings)
        with pytest.MonkeyPatch.context() as patch:
            cut_after(patch, chunk)
            cut = ss.train(problem, engine=engine, **settings)
        assert same(cut, whole)
        assert np.array_equal(cut.n_steps, whole.n_steps)


@pytest.mark.parametrize("chunk", [1, 3, 13, 5000])
def test_chunks_do_not_matter_where_the_full_loss_is_not_known_at_every_step(chunk, monkeypatch):
    def f(w, x):
        return torch.exp(w[0] * x) + w[1]

    problem = ss.Problem(small_curve().x, small_curve().y, f, w_init=[0.0, 0.0])
    settings = {"lr": 0.05, "batch_size": 10, "epochs": 5, "seeds": range(4)}
    whole = ss.train(problem, stop=("full", 0.3), **settings)
    cut_after(monkeypatch, chunk)
    cut = ss.train(problem, stop=("full", 0.3), **settings)
    assert same(cut, whole, rtol=1e-6)  # the full loss is summed in float32
    assert np.array_equal(cut.steps.full_loss.notna(), cut.steps.batch == 0)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_seeds_without_moments_are_each_as_alone_when_the_batch_is_compacted(chunk, monkeypatch):
    def f(w, x):
        return torch.exp(w[0] * x) + w[1]

    cut_after(monkeypatch, chunk)
    problem = ss.Problem(small_curve().x, small_curve().y, f, w_init=[0.0, 0.0])
    settings = {"lr": 0.05, "batch_size": 10, "epochs": 30, "stop": ("last_batch", 0.03)}
    together = ss.train(problem, seeds=range(16), **settings)
    assert len(set(together.stop_epoch)) > 3
    for seed in range(16):
        alone = ss.train(problem, seeds=[seed], **settings)
        for kind in ("steps", "epochs"):
            rows = one_seed(getattr(together, kind), seed)
            # float32 sums over all the data may add in another order
            pd.testing.assert_frame_equal(rows, getattr(alone, kind), rtol=1e-6)


def test_the_full_loss_without_moments_is_that_at_the_end_of_the_epoch():
    def f(w, x):
        return torch.exp(w[0] * x) + w[1]

    problem = ss.Problem(small_curve().x, small_curve().y, f, w_init=[0.0, 0.0])
    for batch_size in (None, 10):
        settings = {"lr": 0.05, "batch_size": batch_size, "epochs": 6, "seeds": range(2)}
        history = ss.train(problem, **settings)
        ends = history.epochs[["w0", "w1"]].to_numpy(float)
        loss, gradient = problem.full(ends)
        # float32 sums may add in another order
        assert np.allclose(history.epochs.full_loss, loss, rtol=1e-6)
        assert np.allclose(
            history.epochs.full_grad_norm, np.linalg.norm(gradient, axis=1), rtol=1e-5
        )
        assert abs(np.diff(loss.reshape(2, 6)) / loss.reshape(2, 6)[:, 1:]).min() > 1e-3
        starts = history.steps[history.steps.batch == 0]
        loss, gradient = problem.full(starts[["w0", "w1"]].to_numpy(float))
        assert np.allclose(starts.full_loss, loss, rtol=1e-6)
        assert np.allclose(starts.full_grad_norm, np.linalg.norm(gradient, axis=1), rtol=1e-5)


# ---- modules and models that go through vmap ------------------------------------------------


def classes(d=60):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(d, 2, generator=generator, dtype=torch.float64)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5)


def mlp(outputs):
    generator = torch.Generator().manual_seed(1)
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, outputs)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
    return net


@pytest.mark.parametrize("seeds", [[2], [0, 2, 5]])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_a_module_is_trained_as_by_the_loop(loss, seeds):
    x, y = classes()
    y = y if loss == "cross_entropy" else nn.functional.one_hot(y, 3).double()
    criterion = nn.CrossEntropyLoss() if loss == "cross_entropy" else nn.MSELoss()
    settings = {"lr": 0.1, "batch_size": 16, "epochs": 5}
    problem = ss.Problem(x, y, mlp(3), loss)
    history = ss.train(problem, optimizer="Adam", seeds=seeds, **settings)
    net = mlp(3)
    params = list(net.parameters())
    loop = literal(
        net,
        params,
        x,
        y,
        seed=2,
        rule=lambda p: torch.optim.Adam(p, 0.1),
        loss=criterion,
        **settings,
    )
    # float64: batched matrix products add in another order
    assert np.allclose(history.w[seeds.index(2)], loop.w, rtol=1e-9, atol=1e-12)
    assert np.allclose(one_seed(history.steps, 2).loss, loop.losses, rtol=1e-9)
    assert np.allclose(problem.initial([0])[0], flat(mlp(3).parameters()))


@pytest.mark.parametrize("replicas", [1, 4])
def test_a_model_of_matrix_products_is_trained_as_by_the_loop(replicas):
    x, _ = classes()
    y = x @ torch.tensor([1.0, -2.0]).double() + 0.1
    problem = ss.Problem(x, y, lambda w, x: x @ w, w_init=[0.0, 0.0])
    settings = {"lr": 0.05, "batch_size": 7, "epochs": 4}
    history = ss.train(problem, optimizer="notebook", seeds=range(replicas), **settings)
    for seed in range(replicas):
        loop = literal_curve(problem, seed=seed, dtype=torch.float64, **settings)
        assert np.allclose(recorded(history, seed), loop.ws, rtol=1e-12, atol=1e-14)
        assert np.allclose(history.w[seed], loop.w, rtol=1e-12)


def test_a_model_of_many_parameters_logs_norms_only():
    x, y = classes()
    history = ss.train(ss.Problem(x, y, mlp(3), "cross_entropy"), lr=0.1, batch_size=16, epochs=2)
    assert history.w.shape == (1, 27)
    assert not [c for c in history.steps if c.startswith("w") and c[1:].isdigit()]
    assert not [c for c in history.epochs if c.startswith("w") and c[1:].isdigit()]


def test_test_loss_is_recorded_at_the_end_of_every_epoch():
    x, y = torch.linspace(-1, 1, 11), torch.ones(11)
    problem = small_curve(test=(x, y))
    history = ss.train(problem, lr=0.1, batch_size=10, epochs=3, seeds=range(2))
    w = history.epochs[["w0", "w1", "w2"]].to_numpy(dtype=float).T[:, :, None]
    expected = ((ss.problems.parabola(w, x.double().numpy()) - 1) ** 2).mean(1)
    assert np.allclose(history.epochs.test_loss, expected, rtol=1e-5)  # in float32
    assert "test_loss" not in ss.train(small_curve(), lr=0.1, epochs=1).epochs


# ---- fixed parameters -----------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["mse", "abs"])
@pytest.mark.parametrize("batch_size", [1, 10, 300, None])
def test_at_fixed_parameters_the_running_loss_is_the_full_loss(batch_size, loss):
    problem = ss.problems.curve(loss=loss).replace(w_init=[0.1, -0.5, 1.0])
    history = ss.train(problem, optimizer="none", batch_size=batch_size, epochs=2)
    assert np.array_equal(history.w[0], np.array([0.1, -0.5, 1.0], dtype="f"))
    assert (recorded(history) == history.w[0]).all()
    assert (history.steps.update_norm == 0).all()
    # each float32 loss is off by some 2^-24; float32 sums over 2000 values a little more
    assert np.allclose(history.epochs.running_loss, history.epochs.full_loss, rtol=1e-6)


# ---- rows -----------------------------------------------------------------------------------


def test_the_columns_of_the_contract_come_in_order():
    history = ss.train(small_curve(), lr=0.1, batch_size=10, epochs=2, seeds=[4, 1])
    expected = [*WHERE, *VALUES, "w0", "w1", "w2", *quantities.PRESETS["light"]]
    assert list(history.steps) == expected
    assert list(history.epochs)[:4] == ["seed", "epoch", "running_loss", "full_loss"]
    assert {"w0", "w1", "w2"} < set(history.epochs)


def test_epochs_count_from_one_and_batches_and_steps_from_zero():
    history = ss.train(small_curve(), lr=0.1, batch_size=10, epochs=2, seeds=[4, 1])
    for seed in (1, 4):
        rows = one_seed(history.steps, seed)
        assert rows.epoch.tolist() == [1] * 6 + [2] * 6
        assert rows.batch.tolist() == [*range(6)] * 2
        assert rows.step.tolist() == [*range(12)]
        assert rows["size"].tolist() == [10, 10, 10, 10, 10, 3] * 2
        assert one_seed(history.epochs, seed).epoch.tolist() == [1, 2]


def test_recorded_values_are_what_they_are_called():
    problem = small_curve(noise=0.1)
    history = ss.train(problem, lr=0.1, batch_size=10, epochs=2)
    loop = literal_curve(
        problem, lr=0.1, batch_size=10, epochs=2, rule=lambda p: torch.optim.SGD(p, 0.1)
    )
    steps = history.steps
    w = torch.vstack([loop.ws, loop.w]).double().numpy()
    exact = problem.least_squares
    full = exact.gradient(w[:-1])
    batch = loop.gradients.double().numpy()
    cosine = (full * batch).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(batch, axis=1)
    expected = {
        "full_loss": exact.loss(w[:-1]),
        "full_grad_norm": np.linalg.norm(full, axis=1),
        "update_norm": np.linalg.norm(np.diff(w, axis=0), axis=1),
        "distance": np.linalg.norm(w[:-1] - problem.w_true.double().numpy(), axis=1),
        "distance_start": np.linalg.norm(w[:-1], axis=1),
        "grad_cosine": cosine,
    }
    for name, values in expected.items():
        assert np.allclose(steps[name], values, rtol=1e-9, atol=1e-12), name


def test_a_callable_is_a_column_by_its_name():
    def twice(chunk):
        return 2 * chunk.loss

    history = ss.train(
        small_curve(),
        lr=0.1,
        batch_size=10,
        epochs=2,
        seeds=range(2),
        diagnostics=["distance", twice],
    )
    assert list(history.steps)[-2:] == ["distance", "twice"]
    assert np.array_equal(history.steps.twice, 2 * history.steps.loss.astype(float))


def test_a_callable_of_the_wrong_shape_is_refused():
    with pytest.raises(ss.InputError, match="steps, replicas") as error:
        ss.train(small_curve(), lr=0.1, epochs=2, diagnostics=[lambda chunk: np.zeros(3)])
    assert one_line(error)


@pytest.mark.parametrize("stop", [None, ("running", 0.05)])
@pytest.mark.parametrize("chunk", [7, 256])
def test_thinned_rows_are_every_kth_and_the_last(stop, chunk, monkeypatch):
    cut_after(monkeypatch, chunk)
    settings = {"lr": 0.05, "batch_size": 10, "epochs": 21, "seeds": range(3), "stop": stop}
    whole = ss.train(small_curve(noise=0.1), **settings)
    thin = ss.train(small_curve(noise=0.1), record_rows=40, **settings)
    assert np.array_equal(thin.w, whole.w)
    assert len(thin.steps) <= 40 + 3
    for seed in range(3):
        steps = one_seed(thin.steps, seed).step.to_numpy()
        last = thin.n_steps[seed] - 1
        every = np.arange(0, last + 1, -(-3 * 21 * 6 // 40))
        assert steps.tolist() == sorted({*every.tolist(), last})
    kept = whole.steps.merge(thin.steps[["seed", "step"]])
    pd.testing.assert_frame_equal(thin.steps, kept, check_exact=True)
    pd.testing.assert_frame_equal(thin.epochs, whole.epochs, check_exact=True)


def test_without_rows_of_steps_the_epochs_are_the_same():
    settings = {"lr": 0.05, "batch_size": 10, "epochs": 9, "seeds": range(3)}
    whole = ss.train(small_curve(noise=0.1), **settings)
    bare = ss.train(small_curve(noise=0.1), record_rows=0, **settings)
    assert bare.steps.empty
    # matrix products of other numbers of rows may round otherwise
    pd.testing.assert_frame_equal(bare.epochs, whole.epochs, rtol=1e-12)


def test_loading_chooses_rows_and_columns():
    history = ss.train(small_curve(), lr=0.1, batch_size=10, epochs=3, seeds=range(3))
    rows = history.load(columns=["loss", "step"], seeds=[2], steps=slice(4, 8))
    expected = one_seed(history.steps, 2)[["loss", "step"]].iloc[4:8].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, expected)
    assert history.load("epochs", epochs=slice(2, None)).epoch.unique().tolist() == [2, 3]


def test_an_array_has_a_column_for_each_seed_as_they_were_given():
    settings = {"lr": 0.1, "batch_size": 10, "epochs": 3, "stop": ("running", 0.2)}
    history = ss.train(small_curve(), seeds=[9, 2, 5], **settings)
    for kind, column in (("epochs", "running_loss"), ("steps", "loss")):
        wide, rows = history.array(kind, column), getattr(history, kind)
        assert wide.shape == (rows[kind[:-1]].nunique(), 3)
        for r, seed in enumerate([9, 2, 5]):
            alone = one_seed(rows, seed)[column].to_numpy(float)
            assert np.array_equal(wide[: len(alone), r], alone)
            assert np.isnan(wide[len(alone) :, r]).all()
    assert history.array("epochs", "running_loss", seeds=[5, 9]).shape[1] == 2


@pytest.mark.parametrize("ask", [{"columns": ["los"]}, {"kind": "step"}, {"steps": slice(0, 9, 2)}])
def test_loading_what_is_not_there_is_refused(ask):
    history = ss.train(small_curve(), lr=0.1, epochs=2)
    with pytest.raises(ss.InputError) as error:
        history.load(**ask)
    assert one_line(error)


def test_too_many_rows_at_once_ask_for_columns(monkeypatch):
    monkeypatch.setattr("sgdstudy.history.history.MAX_ROWS", 5)
    history = ss.train(small_curve(), lr=0.1, epochs=6)
    with pytest.raises(ss.InputError, match="columns="):
        _ = history.steps
    assert len(history.load(columns=["loss"])) == 6


# ---- Ctrl-C ---------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [10, 1])
def test_ctrl_c_keeps_what_was_recorded(batch_size):
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)

    def start(chunk):  # once the run is going on
        if timer.ident is None:
            timer.start()
        return np.zeros(chunk.loss.shape)

    settings = {"lr": 1e-6, "batch_size": batch_size, "epochs": 100_000, "seeds": [0, 7]}
    history = ss.train(CURVE, diagnostics=[start], **settings)
    timer.join()
    assert signal.getsignal(signal.SIGINT) is before
    assert history.stop_reason.tolist() == ["interrupted"] * 2
    for r, seed in enumerate((0, 7)):
        rows = one_seed(history.load(columns=["seed", "step", "epoch"]), seed)
        per_epoch = 2000 // batch_size
        stride = -(-2 * 100_000 * per_epoch // 5_000_000)
        assert 0 <= history.n_steps[r] - 1 - rows.step.iloc[-1] < stride
        assert 0 <= history.n_steps[r] - per_epoch * history.stop_epoch[r] < per_epoch
        assert len(one_seed(history.epochs, seed)) == history.stop_epoch[r]


def test_an_interrupted_run_is_the_start_of_the_whole_run():
    def interrupt(chunk):
        if chunk.w.any():  # not the first chunk
            os.kill(os.getpid(), signal.SIGINT)
        return np.zeros(chunk.loss.shape)

    settings = {"lr": 0.01, "batch_size": 10, "seeds": [0, 7]}
    history = ss.train(small_curve(), epochs=4000, diagnostics=[interrupt], **settings)
    n = int(history.n_steps[0])
    assert history.stop_reason.tolist() == ["interrupted"] * 2
    assert len(one_seed(history.steps, 0)) == n
    assert 0 < n < 4000 * 6
    whole = ss.train(small_curve(), epochs=int(history.stop_epoch[0]), **settings)
    assert np.array_equal(history.w, whole.w)


# ---- what is refused ------------------------------------------------------------------------

BAD = [
    {"lr": 0},
    {"lr": -0.1},
    {"lr": float("nan")},
    {"lr": float("inf")},
    {"lr": "0.1"},
    {"lr": True},
    {"lr": np.array([0.1, 0.2])},
    {"batch_size": 0},
    {"batch_size": -3},
    {"batch_size": 54},
    {"batch_size": 2.5},
    {"batch_size": "10"},
    {"epochs": 0},
    {"epochs": 1.5},
    {"epochs": True},
    {"record_rows": -1},
    {"seeds": []},
    {"seeds": [1, 2, 1]},
    {"seeds": torch.tensor([1, 1])},
    {"seeds": [-1]},
    {"seeds": [0.5]},
    {"seeds": 2**63},
    {"seeds": "abc"},
    {"seeds": None},
    {"order": "shufle"},
    {"order": np.zeros((1, 5, 10))},
    {"order": np.full((2, 5, 10), 53)},
    {"order": np.zeros((1, 5, 10), int)},
    {"order": np.zeros((2, 5, 9), int)},
    {"optimizer": "adam"},
    {"optimizer": "Muon"},
    {"optimizer": "LBFGS"},
    {"optimizer": "SparseAdam"},
    {"optimizer": "Adafactor"},
    {"optimizer": None},
    {"optimizer": lambda params: torch.optim.LBFGS(params)},
    {"optimizer": lambda params: torch.optim.Muon(params, lr=0.1)},
    {"optimizer": lambda params: None},
    {"optimizer": "SGD", "options": {"momentun": 0.9}},
    {"optimizer": "SGD", "options": {"momentum": -1}},
    {"optimizer": "SGD", "options": {"momentum": "much"}},
    {"optimizer": "SGD", "options": {"nesterov": True}},
    {"optimizer": "SGD", "options": {"lr": 0.1}},
    {"optimizer": "Adam", "options": {"betas": 0.9}},
    {"optimizer": "notebook", "options": {"momentum": 0.9}},
    {"optimizer": torch.optim.SGD, "options": {"momentun": 0.9}},
    {"optimizer": lambda params: torch.optim.SGD(params, lr=0.2)},
    {"stop": "running"},
    {"stop": ("runing", 0.1)},
    {"stop": ("running", 0)},
    {"stop": ("running", "0.1")},
    {"stop": ("running", float("nan"))},
    {"stop": ("running", 0.1, 2)},
    {"stop": 0.1},
    {"dtype": "float16"},
    {"dtype": torch.float32},
    {"device": "gpu"},
    {"device": "cuda:99"},
    {"device": 1.5},
    {"diagnostics": "lite"},
    {"diagnostics": ["distanse"]},
    {"diagnostics": [3]},
    {"diagnostics": None},
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: "-".join(bad))
def test_a_bad_setting_is_refused_in_one_line(bad):
    settings = {"lr": 0.1, "batch_size": 10, "epochs": 2} | bad
    with pytest.raises(ss.InputError) as error:
        ss.train(small_curve(), **settings)
    assert one_line(error)
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"order": "shufle"}, "did you mean 'shuffle'"),
        ({"optimizer": "adam"}, "did you mean 'Adam'"),
        ({"stop": ("runing", 0.1)}, "did you mean 'running'"),
        ({"diagnostics": ["distanse"]}, "did you mean 'distance'"),
        ({"optimizer": "SGD", "options": {"momentun": 1}}, "did you mean 'momentum'"),
        ({"optimizer": "Muon"}, ", ".join(rules.ELEMENT_WISE)),
        ({"optimizer": "LBFGS"}, ", ".join(rules.ELEMENT_WISE)),
        ({"seeds": [4, 2, 4]}, "seed 4 is given twice"),
        ({"batch_size": 54}, "1 to 53"),
    ],
    ids=str,
)
def test_an_error_says_how_to_mend_it(bad, says):
    with pytest.raises(ss.InputError, match=says):
        ss.train(small_curve(), **({"batch_size": 10} | bad))


def test_an_unknown_problem_is_refused():
    with pytest.raises(ss.InputError, match="curve") as error:
        ss.train("curv")
    assert one_line(error)


# ---- sums over the batches of an epoch ------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(1, 5000, 1), (1, 5000, 1, 2), (3, 700, 9), (2, 300, 4, 3), (40, 1, 2)]
)
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("cut", [None, 1, 7])
def test_batches_are_added_one_by_one(shape, strided, cut):
    """So that no bit depends on how many seeds run, or on where the chunks end."""
    draw = np.random.default_rng(0)
    values = draw.normal(size=shape) * 10.0 ** draw.uniform(-6, 6, size=shape)
    if strided:
        values = np.asfortranarray(values)
    expected = values[:, 0].copy()
    for i in range(1, shape[1]):
        expected = expected + values[:, i]
    cut = min(cut or 0, shape[1] - 1)
    before = sum_batches(values[:, :cut], None) if cut else None
    assert np.array_equal(sum_batches(values[:, cut:], before), expected)
