"""Batch orders: the very permutations of DataLoader, and what each order promises."""

import numpy as np
import pytest
import torch
from conftest import one_line, small_curve
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import sgdstudy as ss
from sgdstudy import orders
from sgdstudy.orders import Sampler

PERMUTATIONS = ("sequential", "shuffle", "shuffle_once", "strided", "reversed", "block_shuffle")
sizes = st.integers(1, 60).flatmap(lambda d: st.tuples(st.just(d), st.integers(1, d)))


def dataloader(d, batch_size, seed, epochs, shuffle=True):
    """The batches of each epoch, as DataLoader gives them."""
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(torch.arange(d), batch_size, shuffle=shuffle, generator=generator)
    return [list(loader) for _ in range(epochs)]


def epochs_of(order, d, batch_size, epochs=3, seed=5):
    return Sampler(order, [seed], d, batch_size).take(epochs * d)[0].reshape(epochs, d)


@pytest.mark.parametrize(
    ("d", "batch_size"),
    [(1, 1), (2, 1), (10, 3), (10, 10), (2000, 10), (2000, 7), (2000, 300), (50_001, 1000)],
)
@pytest.mark.parametrize("seed", [0, 12345])
def test_shuffle_draws_the_permutations_of_dataloader(d, batch_size, seed):
    expected = dataloader(d, batch_size, seed, epochs=3)
    drawn = epochs_of("shuffle", d, batch_size, 3, seed)
    for epoch, batches in zip(drawn, expected, strict=True):
        assert torch.equal(epoch, torch.cat(batches))


@pytest.mark.parametrize(("d", "batch_size"), [(1, 1), (10, 4), (2000, 10)])
def test_batch_sizes_are_those_of_dataloader(d, batch_size):
    (batches,) = dataloader(d, batch_size, 0, 1)
    assert orders.batch_sizes("shuffle", d, batch_size) == [len(b) for b in batches]


@pytest.mark.parametrize("order", PERMUTATIONS)
@given(size=sizes)
def test_a_permutation_visits_every_sample_once_an_epoch(order, size):
    d, batch_size = size
    for epoch in epochs_of(order, d, batch_size):
        assert torch.equal(epoch.sort().values, torch.arange(d))


@given(size=sizes)
def test_sequential_and_reversed_go_through_the_data_in_line(size):
    d, batch_size = size
    assert torch.equal(epochs_of("sequential", d, batch_size)[1], torch.arange(d))
    assert torch.equal(epochs_of("reversed", d, batch_size)[1], torch.arange(d).flip(0))


@pytest.mark.parametrize(("m", "batch_size"), [(1, 5), (4, 1), (3, 5), (200, 10)])
def test_batch_b_of_strided_holds_b_then_every_mth(m, batch_size):
    batches = epochs_of("strided", m * batch_size, batch_size)[0].reshape(m, batch_size)
    for b, batch in enumerate(batches):
        assert batch.tolist() == [b + k * m for k in range(batch_size)]


@given(size=sizes)
def test_block_shuffle_keeps_neighbours_together_and_a_ragged_batch_last(size):
    d, batch_size = size
    full = d // batch_size
    for epoch in epochs_of("block_shuffle", d, batch_size):
        blocks = epoch[: full * batch_size].reshape(full, batch_size)
        assert torch.equal(blocks - blocks[:, :1], torch.arange(batch_size).expand(full, -1))
        assert sorted(blocks[:, 0].tolist()) == list(range(0, full * batch_size, batch_size))
        assert torch.equal(epoch[full * batch_size :], torch.arange(full * batch_size, d))


def test_block_shuffle_draws_a_new_order_of_the_blocks_each_epoch():
    first, second, _ = epochs_of("block_shuffle", 2000, 10)
    assert not torch.equal(first, second)


@given(size=sizes)
def test_with_replacement_stays_in_range(size):
    d, batch_size = size
    drawn = epochs_of("with_replacement", d, batch_size)
    assert drawn.min() >= 0
    assert drawn.max() < d


def test_with_replacement_draws_every_sample_equally_often():
    d, n = 10, 100_000
    counts = torch.bincount(Sampler("with_replacement", [0], d, 1).take(n)[0], minlength=d)
    error = np.sqrt(n * (1 / d) * (1 - 1 / d))
    assert (counts - n / d).abs().max() < 4 * error


def test_shuffle_once_is_the_same_each_epoch_and_differs_between_seeds():
    a, b, c = epochs_of("shuffle_once", 50, 10)
    assert torch.equal(a, b)
    assert torch.equal(a, c)
    assert not torch.equal(a, epochs_of("shuffle_once", 50, 10, seed=6)[0])


def test_shuffle_differs_between_epochs_and_seeds():
    a, b, _ = epochs_of("shuffle", 50, 10)
    assert not torch.equal(a, b)
    assert not torch.equal(a, epochs_of("shuffle", 50, 10, seed=6)[0])


@pytest.mark.parametrize("order", orders.ORDERS)
def test_a_seeds_stream_does_not_depend_on_its_neighbours(order):
    together = Sampler(order, [3, 1, 4], 20, 6).take(60)
    for row, seed in zip(together, [3, 1, 4], strict=True):
        assert torch.equal(row, Sampler(order, [seed], 20, 6).take(60)[0])


@pytest.mark.parametrize("order", orders.ORDERS)
@given(cuts=st.lists(st.integers(0, 25), max_size=8))
def test_a_stream_does_not_depend_on_how_it_is_cut(order, cuts):
    whole = Sampler(order, [0, 1], 20, 6).take(sum(cuts))
    sampler = Sampler(order, [0, 1], 20, 6)
    parts = [sampler.take(n) for n in cuts]
    assert torch.equal(torch.cat([torch.empty(2, 0).long(), *parts], 1), whole)


def test_dropping_replicas_leaves_the_others_streams_alone():
    sampler, whole = Sampler("shuffle", [0, 1, 2], 20, 6), Sampler("shuffle", [0, 1, 2], 20, 6)
    expected = whole.take(50)
    sampler.take(13)
    sampler.keep([0, 2])
    assert torch.equal(sampler.take(37), expected[[0, 2], 13:])


def test_the_global_generator_is_not_drawn_from():
    before = torch.get_rng_state()
    for order in orders.ORDERS:
        Sampler(order, [0, 1], 20, 6).take(60)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_an_array_gives_the_batches_of_each_epoch(kind):
    array = [[[0, 1], [1, 0], [3, 3]], [[2, 2], [0, 1], [3, 0]]]
    order = orders.check(kind(array))
    assert orders.batch_sizes(order, 4, 2) == [2, 2, 2]
    drawn = Sampler(order, [0, 9], 4, 2).take(12)
    assert drawn.tolist() == [np.ravel(array).tolist()] * 2


def test_a_callable_draws_each_epoch_from_the_seeds_own_generator():
    def mine(generator, d):
        return torch.randperm(d, generator=generator)

    drawn = epochs_of(mine, 12, 5, epochs=2, seed=3)
    generator = torch.Generator().manual_seed(3)
    for epoch in drawn:
        assert torch.equal(epoch, torch.randperm(12, generator=generator))


def test_a_callables_permutation_trains_as_the_named_order():
    def backwards(generator, d):
        return np.arange(d)[::-1].copy()

    settings = {"lr": 0.1, "batch_size": 10, "epochs": 2}
    mine = ss.train(small_curve(), order=backwards, **settings)
    named = ss.train(small_curve(), order="reversed", **settings)
    assert np.array_equal(mine.w, named.w)


@pytest.mark.parametrize(
    "draw",
    [
        lambda generator, d: range(d - 1),
        lambda generator, d: [d] * d,
        lambda generator, d: [-1] * d,
        lambda generator, d: None,
        lambda generator, d: "abc",
    ],
    ids=["too few", "too high", "negative", "nothing", "text"],
)
def test_a_callable_that_returns_no_epoch_is_refused(draw):
    with pytest.raises(ss.InputError) as error:
        Sampler(draw, [0], 5, 2).take(5)
    assert one_line(error)


def test_an_unknown_order_suggests_the_nearest():
    with pytest.raises(ss.InputError, match="did you mean 'shuffle'") as error:
        orders.check("shufle")
    assert one_line(error)
    assert all(name in str(error.value) for name in orders.ORDERS)


@pytest.mark.parametrize(
    "order",
    [
        [[0, 1], [2, 3]],
        [[[0.0, 1.0]]],
        np.empty((0, 2, 2), int),
        [[[True, False]]],
        [[[0, 1], [2]]],
        None,
        3,
    ],
    ids=["two axes", "floats", "empty", "truth values", "ragged", "None", "number"],
)
def test_an_array_that_is_no_order_is_refused(order):
    with pytest.raises(ss.InputError) as error:
        orders.check(order)
    assert one_line(error)


def test_the_listing_is_what_dataloader_hands_out():
    problem = small_curve(23)
    rows = orders.listing(problem, ss.TrainConfig(batch_size=10, epochs=2, seeds=[4]))
    expected = dataloader(23, 10, 4, 2)
    index = torch.cat([batch for epoch in expected for batch in epoch])
    assert rows["index"].tolist() == index.tolist()
    assert rows["x"].tolist() == problem.x[index].tolist()
    assert rows["y"].tolist() == problem.y[index].tolist()
    assert rows[["epoch", "batch", "sample"]].iloc[-1].tolist() == [2, 2, 2]
    assert rows.groupby(["epoch", "batch"]).size().tolist() == [10, 10, 3] * 2
