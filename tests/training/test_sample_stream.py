"""Streams of samples, parameters that drift, and accuracies."""

import numpy as np
import pytest
import torch
from conftest import one_line, small_curve

import sgdstudy as ss
from sgdstudy.errors import InputError


def blocks(length=7, noise=0.1, end=None):
    """A stream of parabolas' points in blocks of a length that fits no batch."""

    def stream(generator):
        sent = 0
        while end is None or sent < end:
            x = 2 * torch.rand(length, generator=generator) - 1
            y = ss.problems.parabola([0.3, -1.7, 2.5], x)
            yield x, y + noise * torch.randn(length, generator=generator)
            sent += length

    return stream


def problem(**changes):
    return small_curve().replace(stream=blocks(), name="streamed", **changes)


SAME = {"optimizer": "SGD", "lr": 0.1, "batch_size": 10, "order": "stream", "epochs": 8}


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_every_sample_is_seen_once_in_the_streams_own_order(engine):
    history = ss.train(problem(), seeds=[3, 5], engine=engine, **SAME)
    for r, seed in enumerate([3, 5]):
        drawn = blocks()(torch.Generator().manual_seed(seed))
        parts = [next(drawn) for _ in range(70)]
        x, y = (torch.cat(some) for some in zip(*parts, strict=True))
        w, at = torch.zeros(3), 0
        for step in range(48):
            size = 3 if step % 6 == 5 else 10
            rows, at = slice(at, at + size), at + size
            phi = torch.stack([x[rows] ** 2, x[rows], torch.ones(size)], 1)
            w = w - 0.1 * 2 / size * phi.T @ (phi @ w - y[rows])
        assert np.allclose(history.w[r], w, atol=1e-5)


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_chunks_and_neighbours_change_nothing(engine, monkeypatch):
    many = ss.train(problem(), seeds=range(4), engine=engine, **SAME)
    alone = ss.train(problem(), seeds=[2], engine=engine, **SAME)
    assert np.array_equal(alone.w[0], many.w[2])
    monkeypatch.setattr("sgdstudy.training.run.FIRST_STEPS", 4)
    assert np.array_equal(ss.train(problem(), seeds=range(4), engine=engine, **SAME).w, many.w)


def test_seeds_that_stop_leave_the_others_where_they_were():
    whole = ss.train(problem(), seeds=range(6), **SAME)
    epsilon = float(whole.epochs.groupby("seed")["running_loss"].min().median())
    stopped = ss.train(problem(), seeds=range(6), stop=("running", epsilon), **SAME)
    left = stopped.stop_reason == "max_epochs"
    assert 0 < left.sum() < 6
    assert np.array_equal(stopped.w[left], whole.w[left])


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [4, 12])
def test_seeds_that_leave_take_only_their_own_streams_with_them(chunk, monkeypatch):
    monkeypatch.setattr("sgdstudy.training.engines.Eager.chunk_steps", chunk)
    settings = {**SAME, "epochs": 30, "seeds": range(8)}
    whole = ss.train(problem(), **settings)
    epsilon = float(whole.epochs["last_loss"].quantile(0.1))
    stopped = ss.train(problem(), stop=("last_batch", epsilon), **settings)
    assert len(set(stopped.stop_epoch)) > 3
    assert set(np.argsort(stopped.stop_epoch)[4:]) != set(range(4))  # not the first ones go on
    for seed in range(8):
        rows = stopped.steps[stopped.steps.seed == seed].reset_index(drop=True)
        free = whole.steps[whole.steps.seed == seed].reset_index(drop=True)
        assert rows.equals(free[: len(rows)])


def test_diagnostics_are_those_of_the_samples_that_came():
    history = ss.train(problem(), seeds=range(2), diagnostics="full", **SAME)
    assert not [name for name in history.steps if name.startswith("full_")][2:]
    row = history.steps[(history.steps.seed == 1) & (history.steps.step == 0)].iloc[0]
    drawn = blocks()(torch.Generator().manual_seed(1))
    x = torch.cat([next(drawn)[0], next(drawn)[0]])[:10].double().numpy()
    phi = np.stack([x**2, x, np.ones(10)], 1)
    assert row["hess_trace"] == pytest.approx(2 / 10 * (phi**2).sum(), rel=1e-6)
    assert np.isfinite(row["noise_scale"])


def test_a_run_on_a_stream_goes_on_where_it_stopped():
    """`load_state_dict` reads the stream again from its beginning."""
    from sgdstudy.training.sample_stream import SampleStreams

    first, second = SampleStreams(problem(), [1, 2]), SampleStreams(problem(), [1, 2])
    first.take(53)
    rows = first.take(20)
    expected = first.x[rows], first.y[rows]
    second.load_state_dict({}, 53)
    rows = second.take(20)
    assert torch.equal(second.x[rows], expected[0])
    assert torch.equal(second.y[rows], expected[1])


@pytest.mark.slow
def test_a_long_stream_is_read_again_to_the_very_sample():
    from sgdstudy.training.sample_stream import SampleStreams

    long = small_curve().replace(stream=blocks(length=70_001))
    first, second = SampleStreams(long, [1]), SampleStreams(long, [1])
    for n in (80_000, 80_000, 80_005):
        first.take(n)
    second.load_state_dict({}, 240_005)
    rows = [each.take(9)[0] for each in (first, second)]
    assert torch.equal(first.x[rows[0]], second.x[rows[1]])


def test_the_distance_to_parameters_that_drift_is_that_of_the_moment():
    def moving(steps):
        return np.stack([0.3 + 0.01 * steps, np.full(len(steps), -1.7), 2.5 - 0.02 * steps], 1)

    given = problem(w_true=moving)
    assert given.drifts
    history = ss.train(given, seeds=range(2), average=0.5, **SAME)
    rows = history.steps
    w, true = rows[["w0", "w1", "w2"]].to_numpy(), moving(rows["step"].to_numpy())
    assert np.allclose(rows["distance"], np.linalg.norm(w - true, axis=1))
    ends = history.epochs
    true = moving(6 * ends["epoch"].to_numpy())
    w = ends[["w0", "w1", "w2"]].to_numpy()
    assert np.allclose(ends["distance"], np.linalg.norm(w - true, axis=1))
    assert np.allclose(history.distance, ends["distance"][ends.epoch == 8])


def test_theory_looks_at_no_stream():
    arm = ss.Arm(problem(), stop=("running", 0.1), **SAME)
    from sgdstudy.theory.predictions import order_is_known, predict

    assert predict(arm.problem, arm.config) == {}
    assert not order_is_known(arm.problem, arm.config)
    with pytest.raises(InputError, match="never stored"):
        ss.theory.batches(arm.problem, arm.config)


def constant(block):
    return lambda generator: iter([block] * 100)


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (blocks(end=21), "ended after 21 samples"),
        (constant(3), "pairs"),
        (constant((torch.zeros(4, 2), torch.zeros(4))), "shape"),
        (constant((torch.zeros(4), torch.zeros(5))), "same number"),
        (constant((torch.full((4,), torch.nan), torch.zeros(4))), "not finite"),
        (lambda generator: 3, "stream"),
        (lambda generator: iter([1 / 0]), "division"),
    ],
)
def test_a_stream_that_does_not_fit_is_one_line(stream, says):
    with pytest.raises(InputError, match=says) as error:
        ss.train(small_curve().replace(stream=stream), **SAME)
    assert one_line(error)


def test_what_is_missing_is_said():
    with pytest.raises(InputError, match="stream="):
        ss.train(small_curve(), **SAME)
    with pytest.raises(InputError, match="batch_size"):
        ss.train(problem(), **{**SAME, "batch_size": None})
    with pytest.raises(InputError, match="full_trace_sigma"):
        ss.train(problem(), diagnostics=["full_trace_sigma"], **SAME)
    with pytest.raises(InputError, match="iterator of blocks"):
        small_curve().replace(stream=3)
    with pytest.raises(InputError, match=r"\(steps, p\)"):
        small_curve().replace(w_true=lambda steps: np.zeros(3))


# ---- real data ------------------------------------------------------------------------------


def test_accuracy_is_the_share_of_right_answers():
    digits = ss.problems.digits(hidden=8)
    given = {"optimizer": "Adam", "lr": 0.01, "batch_size": 64, "epochs": 3, "seeds": range(2)}
    history = ss.train(digits, **given)
    for test, column in ((False, "accuracy"), (True, "test_accuracy")):
        x, y = digits.test if test else (digits.x, digits.y)
        with torch.no_grad():
            right = [
                float((digits.model(torch.as_tensor(w), x).argmax(1) == y).double().mean())
                for w in history.w
            ]
        assert np.allclose(history.epochs[history.epochs.epoch == 3][column], right)
    assert history.epochs["test_accuracy"].max() > 0.7


def test_the_real_data_is_what_it_says():
    digits, diabetes = ss.problems.digits(), ss.problems.diabetes()
    assert (len(digits.x), len(digits.test[0]), digits.p) == (1438, 359, 65 * 32 + 33 * 10)
    assert (len(diabetes.x), len(diabetes.test[0]), diabetes.p) == (354, 88, 11)
    assert not torch.equal(digits.initial([0]), digits.initial([1]))
    phi = np.hstack([diabetes.x.numpy(), np.ones((354, 1))])
    best = np.linalg.lstsq(phi, diabetes.y.numpy(), rcond=None)[0]
    assert np.allclose(diabetes.least_squares.w_star, best)
    assert np.allclose(diabetes.x.mean(0), 0, atol=1e-12)
    assert np.allclose(diabetes.x.std(0, correction=0), 1)


def test_the_ill_conditioned_problem_has_the_spectrum_it_says():
    problem = ss.problems.ill_conditioned(noise=0.0)
    values = np.linalg.eigvalsh(problem.least_squares.hessian)
    assert ((values[:90] > 0) & (values[:90] < 1)).all()
    assert ((values[90:] > 30) & (values[90:] < 60)).all()
    assert np.allclose(problem.least_squares.w_star, problem.w_true)
    assert problem.least_squares.least_loss < 1e-20


def test_a_block_that_the_problems_dtype_does_not_hold_is_refused():
    def seconds(generator):
        while True:
            x = 1_700_000_000 + torch.arange(10)
            yield x, torch.zeros(10)

    with pytest.raises(InputError, match="float32 does not hold") as error:
        ss.train(small_curve().replace(stream=seconds), **SAME)
    assert one_line(error)
