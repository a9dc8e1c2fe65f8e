"""The batches of `DataLoader(shuffle=True)` without a generator, after `torch.manual_seed`."""

import numpy as np
import pytest
import torch
from conftest import one_line, small_curve
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import sgdstudy as ss
from sgdstudy.recipe.orders import Sampler
from sgdstudy.theory.order_batches import indices_by_epoch
from sgdstudy.theory.predictions import order_is_known

EPOCHS = 5


def loaded(d, batch_size, seed, before=None, held_out=None):
    """The batches that torch itself gives, `(epochs, list of indices)`."""
    data, epochs = TensorDataset(torch.arange(d)), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if before is not None:
            before()
        loader = DataLoader(data, batch_size, shuffle=True)
        for _ in range(EPOCHS):
            epochs.append([batch.tolist() for (batch,) in loader])
            if held_out is not None:
                list(held_out)
    return epochs


def replayed(order, d, batch_size, seed):
    sampler, epochs = Sampler(order, [seed], d, batch_size), []
    for _ in range(EPOCHS):
        epoch = sampler.take(d)[0].tolist()
        epochs.append([epoch[i : i + batch_size] for i in range(0, d, batch_size)])
    return epochs


@pytest.mark.parametrize("seed", [0, 42, 2**62])
@pytest.mark.parametrize(("d", "batch_size"), [(53, 10), (1, 1), (40, 40), (2000, 7)])
def test_the_batches_are_those_of_the_loader(d, batch_size, seed):
    expected = loaded(d, batch_size, seed)
    assert replayed("manual_seed", d, batch_size, seed) == expected
    assert replayed(ss.orders.after(), d, batch_size, seed) == expected


def make():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


@pytest.mark.parametrize("seed", [0, 7])
def test_a_module_made_before_moves_the_generator(seed):
    expected = loaded(53, 10, seed, make)
    assert replayed(ss.orders.after(make), 53, 10, seed) == expected
    assert replayed("manual_seed", 53, 10, seed) != expected


@pytest.mark.parametrize(("shuffle", "draws"), [(False, 1), (True, 2)])
def test_another_loader_moves_it_after_every_epoch(shuffle, draws):
    held_out = DataLoader(TensorDataset(torch.arange(9)), 4, shuffle=shuffle)
    expected = loaded(53, 10, 3, make, held_out)
    assert replayed(ss.orders.after(make, between=draws), 53, 10, 3) == expected


def test_a_run_is_the_notebooks_loop():
    problem = small_curve(noise=0.1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        w = torch.zeros(3, requires_grad=True)
        loader = DataLoader(TensorDataset(problem.x, problem.y), 10, shuffle=True)
        for _ in range(EPOCHS):
            for x, y in loader:
                loss = torch.nn.functional.mse_loss(problem.model(w, x), y)
                (slope,) = torch.autograd.grad(loss, w)
                w.data.sub_(0.05 * slope)
    before = torch.get_rng_state()
    given = {"lr": 0.05, "batch_size": 10, "epochs": EPOCHS, "optimizer": "notebook"}
    history = ss.train(problem, **given, order="manual_seed", seeds=[1, 4])
    assert np.array_equal(history.w[1], w.detach().numpy())
    again = ss.train(problem, **given, order=ss.orders.after(), seeds=[4])
    assert np.array_equal(again.w[0], history.w[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_it_goes_on_where_it_stood():
    whole, part = (Sampler("manual_seed", [3], 20, 5) for _ in range(2))
    expected, _ = whole.take(100), part.take(47)
    other = Sampler("manual_seed", [3], 20, 5)
    other.load_state_dict(part.state_dict(), 47)
    assert torch.equal(other.take(53), expected[:, 47:])


def fails():
    raise KeyError("gone")


@pytest.mark.parametrize("call", [lambda: ss.orders.after(3), lambda: ss.orders.after(make, -1)])
def test_mistakes_are_one_line(call):
    with pytest.raises(ss.InputError) as error:
        call()
    assert one_line(error)


def test_a_before_that_fails_says_so_and_leaves_the_generator_alone():
    state = torch.get_rng_state()
    with pytest.raises(ss.InputError, match="before failed: KeyError"):
        replayed(ss.orders.after(fails), 10, 5, 0)
    assert torch.equal(torch.get_rng_state(), state)


# ---- one seed for the order, another for the start ----------------------------------------------


def drawn(generator):
    return torch.randn(3, generator=generator)


NAMED = ["shuffle", "manual_seed", "shuffle_once", "with_replacement", "block_shuffle", "flip_flop"]
NAMED += ["grab", "sequential"]


@pytest.mark.parametrize("order", NAMED)
def test_a_seeded_order_is_that_of_its_seed_in_every_replica(order):
    problem = small_curve(noise=0.1, w_init=drawn)
    given = {"lr": 0.05, "batch_size": 10, "epochs": 4, "seeds": [2, 5, 9]}
    history = ss.train(problem, order=ss.orders.seeded(order, 7), **given)
    for r, seed in enumerate([2, 5, 9]):
        alone = problem.replace(w_init=problem.initial([seed])[0])
        same = ss.train(alone, order=order, **{**given, "seeds": [7]})
        assert np.array_equal(history.w[r], same.w[0])


def test_a_start_of_one_seed_leaves_the_orders_to_the_others():
    problem = small_curve(noise=0.1, w_init=drawn)
    fixed = problem.start_of(4)
    assert torch.equal(fixed.initial([0, 1]), problem.initial([4, 4]))
    history = ss.train(fixed, lr=0.05, batch_size=10, epochs=4, seeds=[4, 6])
    assert np.array_equal(
        history.w[0], ss.train(problem, lr=0.05, batch_size=10, epochs=4, seeds=[4]).w[0]
    )
    assert not np.array_equal(history.w[0], history.w[1])


def test_theory_follows_a_seeded_order():
    problem = small_curve(noise=0.1).replace(w_init=drawn)
    order = ss.orders.seeded("shuffle", 7)
    config = ss.TrainConfig(lr=0.05, batch_size=10, epochs=4, seeds=[2, 5], order=order)
    (first, *_), (same, *_) = (next(indices_by_epoch(problem, config, seed)) for seed in (2, 5))
    assert first.tolist() == same.tolist()
    assert first.tolist() == Sampler("shuffle", [7], 53, 10).take(10)[0].tolist()
    assert order_is_known(problem, config)
    grab = ss.TrainConfig(lr=0.05, batch_size=10, order=ss.orders.seeded("grab", 7))
    assert not order_is_known(problem, grab)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ss.orders.seeded("stream", 1),
        lambda: ss.orders.seeded(np.arange, 1),
        lambda: ss.orders.seeded("shuffle", -1),
        lambda: ss.TrainConfig(order=ss.orders.seeded("shufle", 1)),
    ],
)
def test_seeds_and_names_of_a_seeded_order_are_checked(call):
    with pytest.raises(ss.InputError) as error:
        call()
    assert one_line(error)
