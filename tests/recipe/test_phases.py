"""Batch sizes that change between epochs: against loops by hand, enumeration, and step by step."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import one_line, small_curve
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import sgdstudy as ss
from sgdstudy import theory
from sgdstudy.recipe import named_orders, orders
from sgdstudy.recipe.identity import Identity
from sgdstudy.recipe.phases import Phases
from sgdstudy.theory import predictions
from sgdstudy.tracking import describe
from sgdstudy.training import run as trainer

CURVE = small_curve(noise=0.1)  # 53 samples
GROWS = {"batch_size": 5, "batch_schedule": {2: 10, 3: 53, 4: 20}, "lr": 0.05, "epochs": 6}
SIZES = [5, 5, 10, 53, 20, 20]  # of the six epochs
STEPS = [11, 11, 6, 1, 3, 3]
PLAIN = [name for name in orders.ORDERS if name not in (*named_orders.SIZED, "stream")]


def loaded(seed, shuffle=True):
    """The samples of every batch, as DataLoaders with one generator give them."""
    generator = torch.Generator().manual_seed(seed)
    given = {"shuffle": shuffle, "generator": generator}
    return [list(DataLoader(torch.arange(53), size, **given)) for size in SIZES]


def by_hand(seed, lrs, momentum=0.0):
    """Parameters before every step and after the last, of a loop written out."""
    w, moved, ws = torch.zeros(3, requires_grad=True), torch.zeros(3), []
    for rows, lr in zip(itertools.chain(*loaded(seed)), lrs, strict=True):
        ws.append(w.detach().numpy().copy())
        ((CURVE.model(w, CURVE.x[rows]) - CURVE.y[rows]) ** 2).mean().backward()
        moved = momentum * moved + w.grad
        w.data.sub_(lr * moved)
        w.grad = None
    return np.array([*ws, w.detach().numpy()])


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("first", [256, 4])  # steps of the first chunk
def test_training_is_the_loop_with_dataloaders_of_these_sizes(engine, first, monkeypatch):
    monkeypatch.setattr(trainer, "FIRST_STEPS", first)
    run = ss.train(CURVE, optimizer="notebook", seeds=[4, 7], engine=engine, **GROWS)
    assert run.engine == engine
    for r, seed in enumerate((4, 7)):
        ws = by_hand(seed, [0.05] * sum(STEPS))
        assert np.array_equal(run.parameters()[:, r], ws[:-1])
        assert np.array_equal(run.w[r], ws[-1])


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("unit", ["step", "epoch"])
def test_step_sizes_are_counted_in_its_own_steps_and_epochs(engine, unit, monkeypatch):
    monkeypatch.setattr(trainer, "FIRST_STEPS", 4)  # less than an epoch
    halved = {"schedule": "StepLR", "schedule_options": {"step_size": 2, "gamma": 0.5}}
    given = {"schedule_unit": unit, "options": {"momentum": 0.5}, "engine": engine, **halved}
    run = ss.train(CURVE, optimizer="SGD", seeds=[4], **GROWS, **given)
    count = np.arange(sum(STEPS)) if unit == "step" else np.repeat(np.arange(6), STEPS)
    lrs = 0.05 * 0.5 ** (count // 2)
    np.testing.assert_allclose(run.array("steps", "lr")[:, 0], lrs, rtol=1e-6)
    ws = by_hand(4, lrs.tolist(), 0.5)
    np.testing.assert_allclose(run.parameters()[:, 0], ws[:-1], rtol=1e-4, atol=1e-6)


def test_rows_say_epoch_batch_step_and_size_and_epochs_add_them_up():
    run = ss.train(CURVE, optimizer="notebook", seeds=[4], average=0.0, ema=0.5, **GROWS)
    rows = run.steps
    sizes = [len(batch) for epoch in loaded(4) for batch in epoch]
    assert rows["size"].tolist() == sizes
    assert rows["step"].tolist() == list(range(sum(STEPS)))
    assert rows["epoch"].tolist() == np.repeat(np.arange(1, 7), STEPS).tolist()
    assert rows["batch"].tolist() == [b for m in STEPS for b in range(m)]
    assert run.n_steps.tolist() == [run.config.n_steps(53)] == [sum(STEPS)]
    each = rows.assign(weighted=rows["loss"] * rows["size"]).groupby("epoch")
    ends = run.epochs
    assert np.allclose(ends["running_loss"], each["weighted"].sum() / 53, rtol=1e-6)
    assert np.allclose(ends["mean_loss"], each["loss"].mean(), rtol=1e-6)
    ws = by_hand(4, [0.05] * sum(STEPS))[1:].astype(float)
    until, ema, moving = np.cumsum(STEPS), ws[0], []
    for w in ws:
        ema = 0.5 * ema + 0.5 * w
        moving.append(ema)
    means = np.array([ws[:n].mean(0) for n in until])
    assert np.allclose(ends["average_loss"], CURVE.full(means)[0], rtol=1e-5)
    assert np.allclose(ends["ema_loss"], CURVE.full(np.array(moving)[until - 1])[0], rtol=1e-5)


def test_parameters_that_move_are_looked_at_after_as_many_steps():
    def true(steps):
        return np.outer(np.asarray(steps), [1.0, 0.0, 0.0])

    problem = small_curve(w_true=true)
    run = ss.train(problem, optimizer="none", seeds=[0], **GROWS)
    assert np.allclose(run.epochs["distance"], np.cumsum(STEPS))
    assert np.allclose(run.steps["distance"], np.arange(sum(STEPS)))


@pytest.mark.parametrize("order", PLAIN)
def test_an_order_goes_on_as_if_nothing_had_changed(order):
    config = ss.TrainConfig(order=order, seeds=[4], **GROWS)
    found = orders.Sampler.of(CURVE, config, [4]).take(6 * 53)
    one = ss.TrainConfig(order=order, seeds=[4], batch_size=7, epochs=6)
    assert torch.equal(found, orders.Sampler.of(CURVE, one, [4]).take(6 * 53))


@pytest.mark.parametrize("order", [*named_orders.SIZED, ss.orders.seeded("strided", 3)])
def test_orders_that_are_made_for_one_size_are_refused(order):
    with pytest.raises(ss.InputError, match="is made for one batch size") as error:
        ss.TrainConfig(order=order, **GROWS)
    assert one_line(error)


def test_the_samples_are_listed_batch_by_batch():
    rows = orders.listing(CURVE, ss.TrainConfig(order="shuffle", seeds=[4], **GROWS))
    for epoch, batches in enumerate(loaded(4), 1):
        for b, batch in enumerate(batches):
            mine = rows[(rows.epoch == epoch) & (rows.batch == b)]
            assert mine["index"].tolist() == batch.tolist()
            assert mine["sample"].tolist() == list(range(len(batch)))


def test_a_stream_is_read_in_batches_of_these_sizes():
    def stream(generator):
        for i in itertools.count():
            x = torch.arange(40 * i, 40 * i + 40, dtype=torch.float32)
            yield x, x

    problem = small_curve(stream=stream, model=lambda w, x: w[0] * x, w_true=None, w_init=[0.0])
    run = ss.train(problem, optimizer="none", order="stream", **GROWS)
    starts = np.cumsum([0, *run.steps["size"]])
    mean = [np.mean(np.arange(a, b) ** 2.0) for a, b in itertools.pairwise(starts)]
    assert np.allclose(run.steps["loss"], mean, rtol=1e-5)


# ---- where steps and epochs are ------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    batches=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=4, max_size=4),
)
def test_places_are_those_of_the_epochs_one_after_the_other(lengths, batches):
    firsts = [0, *np.cumsum(lengths)[:-1].tolist()]
    phases = Phases(dict(zip(firsts, batches, strict=False)), sum(lengths))
    epochs = [b for n, b in zip(lengths, batches, strict=False) for _ in range(n)]
    ends = np.cumsum([0, *map(len, epochs)])
    assert phases.n_steps == ends[-1]
    assert phases.steps_before(np.arange(len(epochs) + 1)).tolist() == ends.tolist()
    assert phases.sizes_of_steps().tolist() == list(itertools.chain(*epochs))
    of_steps = [epoch for epoch, sizes in enumerate(epochs) for _ in sizes]
    assert phases.epochs_before(np.arange(ends[-1])).tolist() == of_steps
    assert phases.every_size == sorted({size for sizes in epochs for size in sizes})
    for epoch, sizes in enumerate(epochs):
        assert phases.at(epoch).sizes.tolist() == sizes
        later = [first for first in firsts if first > epoch]
        assert phases.until(epoch) == (later[0] if later else len(epochs)) - epoch


def test_the_schedule_is_a_dict_or_pairs_in_any_order():
    for given_as in ({3: 9, 1: 7}, [(3, 9), (1, 7)], np.array([[1, 7], [3, 9]])):
        config = ss.TrainConfig(batch_size=5, batch_schedule=given_as, epochs=4)
        assert config.batch_schedule == ((1, 7), (3, 9))
    assert ss.TrainConfig(batch_schedule=None).batch_schedule == ()
    with pytest.raises(ss.InputError, match="batch_size 54 is more than the 53 samples"):
        ss.train(CURVE, batch_size=5, batch_schedule={1: 54}, epochs=4)


def test_what_has_one_batch_size_refuses_and_says_why():
    config = ss.TrainConfig(**GROWS)
    with pytest.raises(ss.InputError, match=r"whose batch size stays.*{2: 10, 3: 53, 4: 20}") as e:
        config.batch_sizes(53)
    assert one_line(e)


def test_a_run_is_told_apart_by_its_schedule_and_says_it():
    one, two = ss.TrainConfig(**GROWS), ss.TrainConfig(**{**GROWS, "batch_schedule": {2: 10}})
    parts = [Identity.of(CURVE, config).parts for config in (one, two)]
    differing = {name for name in parts[0] if parts[0][name] != parts[1][name]}
    assert differing == {"batch_schedule"}
    params = describe.parameters(CURVE, one)
    assert params["batch_schedule"] == "2: 10, 3: 53, 4: 20"
    assert (
        "5 of 53 samples, 10 after epoch 2, 53 after epoch 3 and 20 after epoch 4"
        in describe.sentence(params)
    )
    assert "batch_schedule" not in describe.parameters(CURVE, ss.TrainConfig(batch_size=5))


def test_a_saved_history_has_its_schedule(tmp_path):
    run = ss.train(CURVE, optimizer="notebook", seeds=[4], **GROWS)
    again = ss.load_history(run.save(tmp_path / "run"), CURVE)
    assert again.config.batch_schedule == run.config.batch_schedule
    pd.testing.assert_frame_equal(again.steps, run.steps)


def test_an_epoch_that_was_begun_goes_on_where_fewer_replicas_leave_room_for_more(monkeypatch):
    def far(generator):
        w = torch.zeros(3)
        return w + 1e30 * (torch.rand(1, generator=generator) < 0.6)

    problem = small_curve(w_init=far)  # most seeds diverge at once
    given = {"optimizer": "notebook", "lr": 0.05, "batch_size": 5, "epochs": 3, "engine": "eager"}
    seeds = range(16)
    whole = ss.train(problem, seeds=seeds, **given)
    assert 8 <= (whole.stop_reason == "diverged").sum() < 16
    monkeypatch.setattr(trainer, "CHUNK_VALUES", 6 * 16 * trainer.ROW_VALUES)  # six steps
    pieces = ss.train(problem, seeds=seeds, **given)
    assert pieces.differing(whole, "epoch", "batch", "step", "loss", "w0") == 0


# ---- theory --------------------------------------------------------------------------------------

START = np.array([1.0, -2.0])
GROWN, RATES = (1, 2, 3), (0.3, 0.1, 0.2)


def tiny():
    """Four samples, two parameters."""
    draw = np.random.default_rng(3)
    x = draw.normal(size=(4, 2))
    return ss.Problem(x, x @ [0.5, 1.5] + draw.normal(size=4), ss.problems.linear, w_init=START)


def stepped(problem, w, rows, lr):
    x, y = problem.x.numpy()[rows], problem.y.numpy()[rows]
    return w - lr * 2 / len(rows) * x.T @ (x @ w - y)


@pytest.mark.parametrize("replacement", [True, False])
def test_expected_losses_are_the_means_over_all_draws(replacement):
    problem, paths, expected = tiny(), [START], []
    for size, lr in zip(GROWN, RATES, strict=True):
        expected.append(problem.least_squares.loss(np.array(paths)).mean())
        twice = itertools.product(range(4), repeat=size)
        batches = list(twice if replacement else itertools.combinations(range(4), size))
        paths = [stepped(problem, w, list(rows), lr) for w in paths for rows in batches]
    expected.append(problem.least_squares.loss(np.array(paths)).mean())
    found = theory.resized_losses(problem.least_squares, START, 4, GROWN, RATES, replacement)
    assert np.allclose(found, expected, rtol=1e-10)


def test_reshuffled_losses_are_the_means_over_all_orders():
    problem, paths, expected = tiny(), [START], []
    sizes, rates = (1, 2, 2, 4), (0.3, 0.3, 0.1, 0.1)
    for size, lr in zip(sizes, rates, strict=True):
        moved = []
        for order in itertools.permutations(range(4)):
            if size == 4 and order != (0, 1, 2, 3):
                continue  # all the data: in any order
            for w in paths:
                for first in range(0, 4, size):
                    w = stepped(problem, w, list(order[first : first + size]), lr)
                moved.append(w)
        paths = moved
        expected.append(problem.least_squares.loss(np.array(paths)).mean())
    given = (problem.least_squares, START, 4, np.array(sizes), np.array(rates))
    assert np.allclose(theory.resized_reshuffling_losses(*given), expected, rtol=1e-10)


def test_an_arm_is_expected_to_do_what_its_epochs_do():
    given = {"lr": 0.1, "batch_size": 2, "batch_schedule": {1: 3, 3: 4}, "epochs": 5}
    given |= {"schedule": "StepLR", "schedule_options": {"step_size": 1}, "schedule_unit": "epoch"}
    arm = ss.Arm(tiny(), order="with_replacement", **given)
    sizes, ends = [2, 2, 3, 1, 3, 1, 4, 4], [0, 2, 4, 6, 7, 8]
    rates = np.repeat(0.1 ** np.arange(1, 6), [2, 2, 2, 1, 1])
    ls = arm.problem.least_squares
    losses = theory.resized_losses(ls, START, 4, sizes, rates, True)
    assert np.allclose(ss.expect(arm).excess, losses[ends] - ls.least_loss, rtol=1e-10)
    for other in (arm.but(optimizer="Adam"), arm.but(average=0.5)):
        with pytest.raises(ss.InputError, match="where the batch size changes"):
            _ = ss.expect(other).excess


def test_nothing_is_predicted_of_one_batch_size():
    config = ss.TrainConfig(optimizer="SGD", order="sequential", stop=("full", 0.1), **GROWS)
    assert predictions.predict(CURVE, config) == {}
    assert predictions.expected_losses(CURVE, config) == {}
    assert not predictions.order_is_known(CURVE, config)


# of an arm's expectations, those that are the same whatever its batches are
OF_THE_PROBLEM = {"at_lr_limit", "eigenvalues", "eps", "excess", "gradients", "has_mean", "ls"}
OF_THE_PROBLEM |= {"edge", "lr_best_asymptotic", "lr_limit", "momentum", "plain", "start"}
OF_THE_PROBLEM |= {"sum_rounding", "problem", "config"}
OTHERS = {"at", "first_lr", "levels", "of", "tracking_path"}  # that a step may be tried, and so on
ASKED = {  # what the others are asked for
    **dict.fromkeys(("loss", "losses"), ("full_loss", 1)),
    **dict.fromkeys(("own_order", "gap", "running_over_full", "lyapunov", "rho_along"), (1,)),
    "mean_loss": ("full_loss",),
    "critical_lr": (0.1, 1.0),
    "usable_lr": (0.1, 0.1, 1.0),
    "lr_limit_to_reach": (1.0,),
    "lucky_batches": (np.zeros((2, 2)), 0.1, np.ones(2, bool)),
    "stationary_excess_at": (np.ones(1),),
    "steps_to_excess": (0.1,),
    "stop_under": ("full", 0.1),
}


def answered(known, name):
    """What an expectation is, None where it is refused."""
    try:
        found = getattr(known, name)
        return found(*ASKED.get(name, ())) if callable(found) else found
    except ss.InputError as error:
        return None if "\n" not in str(error) else str(error)


@pytest.mark.parametrize("order", ["with_replacement", "shuffle", "sequential", "shuffle_once"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_ss_expect_has_no_number_that_forgets_the_schedule(order, batch_size):
    given = {"lr": 0.1, "batch_size": batch_size, "batch_schedule": {2: 4}, "epochs": 4}
    known = ss.expect(ss.Arm(tiny(), order=order, stop=("full", 0.1), seeds=[0], **given))
    names = {name for name in dir(known) if not name.startswith("_")}
    found = {name: answered(known, name) for name in names - OF_THE_PROBLEM - OTHERS}
    assert len(found) > 30
    assert {name: value for name, value in found.items() if value is not None} == {}
    assert not known.has_mean


@pytest.mark.parametrize("sizes", [{0: [2, 2, 1]}, {0: [2, 2, 1], 1: [5], 3: [3, 2]}])
def test_phases_that_are_cut_are_those_of_the_first_steps(sizes):
    whole = Phases(sizes, 5)
    each = whole.sizes_of_steps().tolist()
    epochs = whole.epochs_before(np.arange(whole.n_steps)).tolist()
    for n in range(1, whole.n_steps + 1):
        some = whole.cut(n)
        assert some.sizes_of_steps().tolist() == each[:n]
        assert (some.n_steps, some.epochs) == (n, epochs[n - 1] + 1)
        assert some.epochs_before(np.arange(n)).tolist() == epochs[:n]
        assert some.every_size == sorted(set(each[:n]))  # none that never comes is tried
