"""Batch orders: the very permutations of DataLoader, and what each order promises."""

import threading

import numpy as np
import pytest
import torch
from conftest import one_line, small_curve
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import sgdstudy as ss
from sgdstudy.recipe import draw_cache, named_orders, orders
from sgdstudy.recipe.orders import Sampler
from sgdstudy.theory.order_batches import indices_by_epoch

KNOWN = [order for order in orders.ORDERS if order not in named_orders.UNKNOWN]
PERMUTATIONS = [order for order in KNOWN if order != "with_replacement"]
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
def test_strided_goes_by_the_number_of_batches_where_it_does_not_divide_d(size):
    d, batch_size = size
    m = len(orders.batch_sizes("strided", d, batch_size))
    expected = [i for b in range(m) for i in range(d) if i % m == b]
    for epoch in epochs_of("strided", d, batch_size):
        assert epoch.tolist() == expected


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


@pytest.mark.parametrize("order", KNOWN)
def test_a_seeds_stream_does_not_depend_on_its_neighbours(order):
    together = Sampler(order, [3, 1, 4], 20, 6).take(60)
    for row, seed in zip(together, [3, 1, 4], strict=True):
        assert torch.equal(row, Sampler(order, [seed], 20, 6).take(60)[0])


@pytest.mark.parametrize("order", KNOWN)
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
    sampler.retain([0, 2])
    assert torch.equal(sampler.take(37), expected[[0, 2], 13:])


def test_the_global_generator_is_not_drawn_from():
    before = torch.get_rng_state()
    for order in KNOWN:
        Sampler(order, [0, 1], 20, 6).take(60)
    adapted("grab", [0, 1], random_gradients(4, 2), 20, 6)
    assert torch.equal(torch.get_rng_state(), before)


@given(size=sizes)
def test_flip_flop_goes_through_each_permutation_of_shuffle_twice(size):
    d, batch_size = size
    drawn = epochs_of("flip_flop", d, batch_size, epochs=4)
    shuffled = epochs_of("shuffle", d, batch_size, epochs=2)
    assert torch.equal(drawn[::2], shuffled)
    assert torch.equal(drawn[1::2], shuffled.flip(1))


def random_gradients(m, replicas, epochs=3, p=4, seed=0):
    """Gradients of every batch, as an adaptive order gets them, `(epochs, m, R, p)`."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(epochs, m, replicas, p, generator=generator, dtype=torch.float64)
    return noise + 3  # far from centred: the stale mean matters


def adapted(order, seeds, gradients, d, batch_size):
    """The epochs `(epochs + 1, R, d)` of a sampler that is told these gradients."""
    sampler, found = Sampler(order, seeds, d, batch_size), []
    for epoch in gradients:
        found.append(sampler.take(d))
        sampler.learn(epoch)
    return torch.stack([*found, sampler.take(d)])


def published(first, gradients):
    """Algorithm 4 of Lu, Guo, De Sa (2022) with deterministic balancing, line by line.

    Args:
        first: the units in the order of the first epoch.
        gradients: epoch, unit's place in it -> gradient.
    """
    n, p = len(first), len(gradients[0][0])
    sigma, stale_mean, found = list(first), np.zeros(p), [list(first)]
    for epoch in gradients:
        left, right, s, fresh_mean = 0, n - 1, np.zeros(p), np.zeros(p)
        following = [None] * n
        for t in range(n):
            gradient = np.asarray(epoch[t])
            centred = gradient - stale_mean
            fresh_mean = fresh_mean + gradient / n
            if np.linalg.norm(s + centred) <= np.linalg.norm(s - centred):
                s = s + centred
                following[left] = sigma[t]
                left += 1
            else:
                s = s - centred
                following[right] = sigma[t]
                right -= 1
        sigma, stale_mean = following, fresh_mean
        found.append(sigma)
    return found


@given(size=sizes, seed=st.integers(0, 1000))
def test_grab_is_the_published_algorithm(size, seed):
    d, batch_size = size
    m, full = -(-d // batch_size), d // batch_size
    gradients = random_gradients(m, 2, seed=seed)
    drawn = adapted("grab", [seed, seed + 1], gradients, d, batch_size)
    for r in range(2):
        batches = drawn[0, r, : full * batch_size].reshape(full, batch_size).tolist()
        expected = published(batches, gradients[:, :full, r].tolist())
        for epoch, units in zip(drawn[:, r], expected, strict=True):
            assert epoch[: full * batch_size].tolist() == np.ravel(units).tolist()
            # a ragged last batch stays last; every sample comes once
            assert torch.equal(epoch[full * batch_size :], drawn[0, r, full * batch_size :])
            assert torch.equal(epoch.sort().values, torch.arange(d))


def test_an_adaptive_order_depends_neither_on_neighbours_nor_on_how_an_epoch_is_cut():
    gradients = random_gradients(10, 3)
    together = adapted("grab", [3, 1, 4], gradients, 20, 2)
    for r, seed in enumerate([3, 1, 4]):
        alone = adapted("grab", [seed], gradients[:, :, [r]], 20, 2)
        assert torch.equal(alone[:, 0], together[:, r])
    sampler, found = Sampler("grab", [3, 1, 4], 20, 2), []
    for epoch in gradients:
        for part in (slice(0, 3), slice(3, 10)):
            found.append(sampler.take(2 * len(epoch[part])))
            sampler.learn(epoch[part])
    assert torch.equal(torch.cat(found, 1), together[:-1].transpose(0, 1).flatten(1))


@pytest.mark.parametrize("within", [False, True])
def test_dropping_replicas_leaves_the_others_adaptive_orders_alone(within):
    gradients = random_gradients(10, 3)
    whole, live = adapted("grab", [0, 1, 2], gradients, 20, 2), [0, 2]
    sampler = Sampler("grab", [0, 1, 2], 20, 2)
    sampler.take(20)
    sampler.learn(gradients[0])
    if within:
        sampler.take(8)
        sampler.learn(gradients[1, :4])
        sampler.retain(live)
        sampler.take(12)
        sampler.learn(gradients[1, 4:, live])
    else:
        sampler.retain(live)
        sampler.take(20)
        sampler.learn(gradients[1][:, live])
    assert torch.equal(sampler.take(20), whole[2, live])


def herding_error(order, vectors):
    """The longest sum of the first vectors less their mean: what GraB keeps short."""
    return np.linalg.norm(np.cumsum((vectors - vectors.mean(0))[order], 0), axis=1).max()


def test_grab_herds_better_than_any_of_many_shuffles():
    vectors, generator = random_gradients(200, 1)[0, :, 0].numpy(), np.random.default_rng(0)
    sampler = Sampler("grab", [0], 200, 1)
    for _ in range(15):
        order = sampler.take(200)[0]
        sampler.learn(torch.as_tensor(vectors)[order][:, None])
    shuffled = [herding_error(generator.permutation(200), vectors) for _ in range(100)]
    assert herding_error(sampler.take(200)[0].numpy(), vectors) < min(shuffled)


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [3, 8], ids=["eager", "compiled where it pays"])
def test_training_feeds_grab_the_gradients_of_its_own_steps(epochs):
    problem = ss.problems.legendre("cubic", d=300)
    settings = {"lr": 0.02, "batch_size": 1, "order": "grab", "epochs": epochs}
    history = ss.train(problem, seeds=[3, 1, 4], **settings)
    ls, units = problem.least_squares, None
    for r, seed in enumerate([3, 1, 4]):
        w, gradients = ls.w_star.copy(), []
        units = torch.randperm(300, generator=torch.Generator().manual_seed(seed)).tolist()
        first = units
        for _ in range(epochs):
            gradients.append([])
            for i in units:
                error = ls.features[i] @ (w - ls.w_star) + ls.residual[i]
                gradients[-1].append(2 * error * ls.features[i])
                w = w - 0.02 * gradients[-1][-1]
            units = published(first, gradients)[-1]
        assert history.w[r] == pytest.approx(w, abs=1e-12)
        assert np.array_equal(ss.train(problem, seeds=[seed], **settings).w[0], history.w[r])


@pytest.mark.slow
def test_grab_outlives_seeds_that_stop_and_ignores_full_batches():
    problem = small_curve(w_init=lambda generator: torch.randn(3, generator=generator))
    settings = {"lr": 0.05, "order": "grab", "epochs": 30, "stop": ("running", 1e-4)}
    together = ss.train(problem, batch_size=5, seeds=range(6), **settings)
    assert len(set(together.stop_epoch)) > 1
    for seed in range(6):
        alone = ss.train(problem, batch_size=5, seeds=[seed], **settings)
        assert np.array_equal(alone.w[0], together.w[seed])
    full, named = (ss.train(problem, **(settings | {"order": o})) for o in ("grab", "shuffle"))
    assert np.array_equal(full.w, named.w)


def test_an_adaptive_order_is_not_known_ahead():
    config = ss.TrainConfig(batch_size=10, order="grab", epochs=2)
    with pytest.raises(ss.InputError, match="first epoch") as error:
        orders.listing(small_curve(), config)
    assert one_line(error)


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_an_array_gives_the_batches_of_each_epoch(kind):
    array = [[[0, 1], [1, 0], [3, 3]], [[2, 2], [0, 1], [3, 0]]]
    order = orders.checked_order(kind(array))
    assert orders.batch_sizes(order, 4, 2) == [2, 2, 2]
    drawn = Sampler(order, [0, 9], 4, 2).take(12)
    assert drawn.tolist() == [np.ravel(array).tolist()] * 2


BY_SEED = np.random.default_rng(0).integers(0, 53, (3, 30, 5, 10))  # (seeds, epochs, steps, B)


def by_hand(problem, order, lr):
    """Parameters after every epoch, of a loop over one seed's batches."""
    w, ends = problem.initial([0])[0].requires_grad_(), []
    for epoch in order:
        for batch in epoch:
            ((problem.model(w, problem.x[batch]) - problem.y[batch]) ** 2).mean().backward()
            w.data.sub_(lr * w.grad)
            w.grad.zero_()
        ends.append(w.detach().numpy().copy())
    return np.array(ends)


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_an_array_for_each_seed_gives_each_its_own_batches(engine, kind):
    problem = small_curve(noise=0.1)
    given = {"optimizer": "notebook", "lr": 0.1, "batch_size": 10, "epochs": 30, "engine": engine}
    order = kind(BY_SEED)
    run = ss.train(problem, seeds=(7, 2, 5), order=order, **given)
    assert run.engine == engine
    for r, seed in enumerate((7, 2, 5)):
        ends = by_hand(problem, BY_SEED[r], 0.1)
        rows = run.epochs[run.epochs["seed"] == seed]
        assert np.array_equal(rows[["w0", "w1", "w2"]], ends)
        alone = ss.train(problem, seeds=(seed,), order=BY_SEED[r], **given)
        assert np.array_equal(alone.w[0], run.w[r])


def test_seeds_that_are_left_go_on_with_their_own_arrays():
    problem = small_curve(noise=0.1)
    ends = [by_hand(problem, order, 0.1) for order in BY_SEED]
    last = [2, 11, 29]  # epochs that the seeds have
    run = ss.train(
        problem,
        optimizer="notebook",
        lr=0.1,
        batch_size=10,
        epochs=30,
        seeds=(7, 2, 5),
        order=BY_SEED,
        stop=lambda row: row["epoch"] > {7: 2, 2: 11, 5: 29}[row["seed"]],
    )
    assert run.stop_epoch.tolist() == [3, 12, 30]
    assert np.array_equal(run.w, [ends[r][epoch] for r, epoch in enumerate(last)])


def test_theory_follows_the_array_of_each_seed():
    problem = small_curve(noise=0.1)
    given = {"optimizer": "SGD", "lr": 0.1, "batch_size": 10, "epochs": 30, "seeds": (7, 2, 5)}
    run = ss.train(problem, order=BY_SEED, dtype="float64", **given)
    known = ss.expect(run)
    for column in ("running_loss", "full_loss"):
        losses, off = known.losses(column)
        assert (np.abs(run.array("epochs", column) - losses) <= off + 1e-12 * losses).all()
    for r, seed in enumerate((7, 2, 5)):
        batch = known.own_order(3, seed).batch[-1]
        rows = run.steps[(run.steps["seed"] == seed) & (run.steps["epoch"] == 3)]
        np.testing.assert_allclose(batch, rows["loss"], rtol=1e-9)
        pieces = next(indices_by_epoch(problem, run.config, seed))
        assert np.array_equal(pieces, BY_SEED[r, 0])
    epsilon = float(np.median(run.array("epochs", "full_loss")[4:9]))
    arm = ss.Arm(problem, order=BY_SEED, stop=("full", epsilon), dtype="float64", **given)
    stopped = ss.train(problem, config=arm.config)
    assert float(ss.expect(arm).stop_epoch) == stopped.median_stop
    assert (
        orders.listing(problem, run.config)["index"][:50].tolist() == BY_SEED[0, 0].ravel().tolist()
    )
    with pytest.raises(ss.InputError, match=r"for the seeds \(7, 2, 5\), not 4"):
        known.own_order(1, 4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seeds": range(4)}, "is given for 3 seeds, and the run has 4"),
        ({"seeds": 0}, "is given for 3 seeds, and the run has 1"),
        ({"epochs": 31}, "holds 30 epochs, fewer than epochs=31"),
        ({"batch_size": 5}, "batch_size is 5, but the order's batches hold 10"),
        ({"order": BY_SEED + 1}, "indices go from 1 to 53; expected 0 to 52"),
        (
            {"order": BY_SEED[0, 0]},
            r"\(epochs, steps, B\), or for each seed its own \(seeds, epochs, ",
        ),
        ({"batch_schedule": {2: 5}}, "is made for one batch size"),
    ],
)
def test_an_array_for_each_seed_that_does_not_fit_is_one_line(changes, says):
    given = {"batch_size": 10, "epochs": 30, "seeds": range(3), "order": BY_SEED}
    with pytest.raises(ss.InputError, match=says) as error:
        ss.Arm(small_curve(), **(given | changes))
    assert one_line(error)


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
        lambda generator, d: np.arange(d) % 2 == 0,
        lambda generator, d: torch.ones(d, dtype=torch.bool),
        lambda generator, d: torch.zeros(d, dtype=torch.complex64),
    ],
    ids=["too few", "too high", "negative", "nothing", "text", "odd", "all of them", "complex"],
)
def test_a_callable_that_returns_no_epoch_is_refused(draw):
    with pytest.raises(ss.InputError) as error:
        Sampler(draw, [0], 5, 2).take(5)
    assert one_line(error)


def test_an_unknown_order_suggests_the_nearest():
    with pytest.raises(ss.InputError, match="did you mean 'shuffle'") as error:
        orders.checked_order("shufle")
    assert one_line(error)
    assert all(name in str(error.value) for name in orders.ORDERS)


@pytest.mark.parametrize(
    "order",
    [
        [[[[[0, 1]]]]],
        [[0, 1], [2, 3]],
        [[[0.0, 1.0]]],
        np.empty((0, 2, 2), int),
        [[[True, False]]],
        [[[0, 1], [2]]],
        None,
        3,
        torch.ones(1, 2, 2, dtype=torch.int64).to_sparse(),
        torch.ones(1, 2, 2, requires_grad=True),
    ],
    ids=["five", "two", "floats", "empty", "truth", "ragged", "None", "number", "sparse", "graph"],
)
def test_an_array_that_is_no_order_is_refused(order):
    with pytest.raises(ss.InputError) as error:
        orders.checked_order(order)
    assert one_line(error)


@pytest.mark.parametrize(
    "settings",
    [
        {"order": BY_SEED, "seeds": [0]},
        {"order": BY_SEED, "seeds": range(4)},
        {"order": BY_SEED[0], "epochs": 31},
        {"order": BY_SEED[0] + 50, "epochs": 30},
        {"order": "shuffle", "batch_size": 100},
    ],
)
def test_the_listing_refuses_what_the_training_refuses(settings):
    problem, told = small_curve(), []
    config = ss.TrainConfig(**({"batch_size": 10, "epochs": 30} | settings))
    for ask in (orders.listing, lambda problem, config: ss.train(problem, config=config)):
        with pytest.raises(ss.InputError) as error:
            ask(problem, config)
        told.append(str(error.value))
    assert told[0] == told[1]


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


@pytest.mark.parametrize("order", named_orders.FRESH)
def test_shared_draws_are_the_same_draws(order, monkeypatch):
    """However far each run reads, whatever is forgotten in between, and after a restart."""
    monkeypatch.setattr(draw_cache, "_kept", type(draw_cache._kept)())
    expected = Sampler(order, [4, 9], 53, 10).take(1000)
    with draw_cache.shared():
        first, second = Sampler(order, [4, 9], 53, 10), Sampler(order, [9, 4], 53, 10)
        assert torch.equal(first.take(300), expected[:, :300])
        assert torch.equal(second.take(700), expected[[1, 0], :700])
        monkeypatch.setattr(draw_cache, "MOST_BYTES", 1000)
        other = Sampler(order, [1], 53, 10).take(400)  # the draws of the others are forgotten
        assert torch.equal(first.take(700), expected[:, 300:])
        third = Sampler(order, [4, 9], 53, 10)
        assert third.state_dict() == {}
        third.load_state_dict({}, 120)
        assert torch.equal(third.take(80), expected[:, 120:200])
    assert torch.equal(Sampler(order, [1], 53, 10).take(400), other)
    held = sum(block.nbytes for kept in draw_cache._kept.values() for block in kept.blocks)
    assert held <= 1000 or len(draw_cache._kept) == 1


def test_shared_draws_are_drawn_once(monkeypatch):
    monkeypatch.setattr(draw_cache, "_kept", type(draw_cache._kept)())
    with draw_cache.shared():
        Sampler("shuffle", [4], 53, 10).take(530)
        monkeypatch.setattr(torch, "randperm", None)
        assert Sampler("shuffle", [4], 53, 10).take(530).shape == (1, 530)
        assert [len(kept.blocks) for kept in draw_cache._kept.values()] == [
            1
        ]  # one block: fast to read


def test_shared_draws_are_those_of_the_batch_size(monkeypatch):
    monkeypatch.setattr(draw_cache, "_kept", type(draw_cache._kept)())
    expected = {size: Sampler("block_shuffle", [4], 53, size).take(106) for size in (10, 7)}
    with draw_cache.shared():
        for size in (10, 7, 10):
            assert torch.equal(Sampler("block_shuffle", [4], 53, size).take(106), expected[size])


def test_shared_draws_are_read_from_wherever_each_reader_is(monkeypatch):
    monkeypatch.setattr(draw_cache, "_kept", type(draw_cache._kept)())
    expected = Sampler("shuffle", [4], 10, 5).take(200)
    with draw_cache.shared():
        readers = [Sampler("shuffle", [4], 10, 5) for _ in range(4)]
        parts = [[reader.take(10 * r)] for r, reader in enumerate(readers)]  # 0, 10, 20, 30
        for r in (3, 0, 1, 2, 0, 3):
            parts[r].append(readers[r].take(50))
        for r, reader in enumerate(readers):
            part = torch.cat([*parts[r], reader.take(40)], 1)
            assert torch.equal(part, expected[:, : part.shape[1]])


def test_shared_draws_are_drawn_by_one_thread_at_a_time(monkeypatch):
    """The second reader waits for what the first one draws, and reads the same."""
    monkeypatch.setattr(draw_cache, "_kept", type(draw_cache._kept)())
    begun, go_on, found = threading.Event(), threading.Event(), []

    def source():
        begun.set()
        assert go_on.wait(60)
        yield torch.arange(5)

    readers = [draw_cache.again("key", source()) for _ in range(2)]
    threads = [threading.Thread(target=lambda r=r: found.append(next(r))) for r in readers]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    threads[1].join(0.1)  # long enough for one that does not wait to fail
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert [block.tolist() for block in found] == [[0, 1, 2, 3, 4]] * 2


def test_only_the_thread_that_asked_shares():
    found = []
    with draw_cache.shared():
        thread = threading.Thread(target=lambda: found.append(draw_cache.are_shared()))
        thread.start()
        thread.join(60)
        assert (found, draw_cache.are_shared()) == ([False], True)
    assert not draw_cache.are_shared()


@pytest.mark.parametrize("turn", [1, 2])
def test_what_calls_itself_is_named_once_where_it_fails(turn):
    """As it was seen: an order that trains with itself; or by turns with a start that does."""
    depth = []

    def again():
        depth.append(1)
        if len(depth) > 5:
            raise ValueError("too deep")
        problem = small_curve(w_init=start)
        ss.train(problem, lr=1e-4, batch_size=10, epochs=1, order=order)

    def order(generator, d):
        if len(depth) % turn == 0:
            again()
        return torch.randperm(d, generator=generator)

    def start(generator):
        if len(depth) % turn:
            again()
        return torch.zeros(3)

    with pytest.raises(ss.InputError, match="ValueError: too deep") as error:
        again()
    assert str(error.value).count("failed: ") == turn
