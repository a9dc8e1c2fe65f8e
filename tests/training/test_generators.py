"""One generator per purpose: what a seed draws for one thing says nothing of another."""

import numpy as np
import pytest
import torch
from conftest import one_line, small_curve

import sgdstudy as ss
from sgdstudy.recipe.orders import Sampler, generator_of

CURVE = small_curve()


def drawn(generator):
    return torch.randn(3, generator=generator)


def normal(generator):
    """A stream whose first samples are normal draws of the shape of the parameters."""
    while True:
        x = torch.randn(3, generator=generator)
        yield x, 2 * x


def by_rank(generator, d):
    return torch.randn(d, generator=generator).argsort()


def first_samples(w_init, seeds):
    """The first three samples that each seed's training meets, `(R, 3)`."""
    problem = CURVE.replace(stream=normal, w_init=w_init)
    given = {"order": "stream", "batch_size": 1, "epochs": 1, "optimizer": "none"}
    rows = ss.train(problem, seeds=seeds, diagnostics=[Seen()], **given).steps
    return rows["seen"].to_numpy().reshape(len(seeds), -1)[:, :3], problem.initial(list(seeds))


class Seen:
    """The sample of a step."""

    __name__ = "seen"

    def __call__(self, chunk):
        x = chunk.problem.x.numpy()[np.asarray(chunk.indices)]
        return x.reshape(len(x), -1).T


def test_a_stream_does_not_repeat_the_initial_parameters():
    seeds = range(400)
    x, w = first_samples(drawn, seeds)
    assert not np.isclose(x, w.numpy()).any()
    pairs = np.corrcoef(x.T, w.numpy().T)[:3, 3:]
    assert np.abs(pairs).max() < 4 / np.sqrt(len(seeds))  # of independent ones


def test_an_own_order_does_not_repeat_them_either():
    start = CURVE.replace(w_init=lambda g: torch.randn(53, generator=g)[:3])
    order = Sampler.of(start, ss.TrainConfig(order=by_rank, batch_size=10), [7]).take(53)[0]
    generator = torch.Generator().manual_seed(7)
    assert not torch.equal(order, torch.randn(53, generator=generator).argsort())


def test_where_nothing_else_is_drawn_the_numbers_are_those_of_the_seed():
    x, _ = first_samples([0.0, 0.0, 0.0], [7])
    plain = torch.randn(3, generator=torch.Generator().manual_seed(7))
    assert np.allclose(x[0], plain, rtol=1e-6)
    order = Sampler.of(CURVE, ss.TrainConfig(order=by_rank, batch_size=10), [7]).take(53)[0]
    generator = torch.Generator().manual_seed(7)
    assert torch.equal(order, torch.randn(53, generator=generator).argsort())
    named = Sampler.of(CURVE.replace(w_init=drawn), ss.TrainConfig(batch_size=10), [7]).take(53)
    assert torch.equal(named, Sampler("shuffle", [7], 53, 10).take(53))


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1, 2**63 - 1])
def test_generators_apart_differ_and_no_two_seeds_share_one(seed):
    others = [seed, (seed + 1) % 2**63, seed // 2 + 5]
    each = [
        torch.rand(4, generator=generator_of(s, apart)) for s in others for apart in (False, True)
    ]
    for i, a in enumerate(each):
        assert not any(torch.equal(a, b) for b in each[:i])


def test_theory_follows_an_own_order_with_the_generator_of_training():
    problem = CURVE.replace(w_init=drawn)
    given = {"order": by_rank, "batch_size": 10, "optimizer": "SGD", "lr": 0.05, "epochs": 1}
    config = ss.TrainConfig(seeds=[7], dtype="float64", **given)
    losses = ss.theory.batches_by_epoch(problem.to(torch.float64, "cpu"), config)
    history = ss.train(problem, config=config)
    own = ss.theory.order_losses(
        history.problem.least_squares,
        problem.initial([7])[0].double().numpy(),
        0.05,
        [next(losses)],
    )
    assert np.allclose(history.steps["loss"], own.batch[0], rtol=1e-6)


def test_two_seeds_that_torch_takes_for_one_are_refused():
    with pytest.raises(ss.InputError, match="multiple of 2") as error:
        ss.TrainConfig(seeds=[5, 5 + 2**32])
    assert one_line(error)
    a, b = (torch.rand(2, generator=torch.Generator().manual_seed(s)) for s in (5, 5 + 2**32))
    assert torch.equal(a, b)
