"""What can be said of recorded rows: choosing them, and numbers with a closed form.

`line()` has the loss (w - 1)^2 and no noise: a step takes w - 1 to (1 - 2 lr) (w - 1).
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import one_line

import sgdstudy as ss
from sgdstudy.history import history as module
from sgdstudy.history.rows import Memory, Rows
from sgdstudy.recipe.config import TrainConfig


def line(w_init=3.0, **given):
    ones = torch.ones(8, dtype=torch.float64)
    return ss.Problem(ones, ones, lambda w, x: w[0] * x, w_init=[w_init], w_true=[1.0], **given)


def descent(lr, epochs=12, **settings):
    return ss.train(line(), optimizer="notebook", lr=lr, epochs=epochs, **settings)


def by_hand(epochs, seeds=(4, 2), **ends):
    """Three seeds' ends and two seeds' rows of epochs, `running_loss` given as `(E, R)`."""
    sink = Memory()
    values = np.array(epochs, dtype=float)
    keep = np.isfinite(values)
    at = {"seed": np.array([seeds]), "epoch": np.arange(1, len(values) + 1)[:, None]}
    sink.write("epochs", Rows(at | {"running_loss": values, "full_loss": values}, keep))
    given = {"w": np.zeros((len(seeds), 1)), "n_steps": keep.sum(0), "train_seconds": 1.0}
    given |= {"stop_epoch": keep.sum(0), "stop_reason": np.array(["max_epochs"] * len(seeds))}
    return ss.History(line(), TrainConfig(seeds=seeds), sink, **(given | ends))


# ---- numbers with a closed form ----------------------------------------------------------------


@pytest.mark.parametrize("lr", [0.1, 0.3, 0.8])
@pytest.mark.parametrize("epochs", [2, 3, 12])
def test_the_contraction_is_that_of_the_error(lr, epochs):
    """An error is right to 1e-15 or so of w = 1; the last is 2 |1 - 2 lr|^12, 3e-5 at least."""
    assert descent(lr, epochs).contraction() == pytest.approx(abs(1 - 2 * lr), rel=1e-9)


def test_of_one_epoch_there_is_no_factor():
    one = descent(0.1, epochs=1)
    assert np.isnan(one.contraction())
    assert np.isnan(one.growth_per_epoch())


@pytest.mark.parametrize("lr", [0.1, 1.5])
def test_the_growth_is_the_square_of_that_of_the_error(lr):
    assert descent(lr).growth_per_epoch() == pytest.approx((1 - 2 * lr) ** 2, rel=1e-9)


def test_the_growth_is_that_of_the_last_losses_that_are_numbers():
    history = by_hand([[1.0, 1.0], [4.0, 3.0], [20.0, np.nan], [np.nan, np.nan]])
    assert history.growth_per_epoch() == 5.0


def test_a_median_is_of_the_seeds_that_are_there_yet():
    history = by_hand([[1.0, 5.0, 9.0], [2.0, 6.0, np.nan], [3.0, np.nan, np.nan]], (7, 8, 9))
    assert [history.at("full_loss", epoch) for epoch in (1, 2, 3)] == [5.0, 4.0, 3.0]
    assert history.at("full_loss") == 6.0  # of each seed's last: 3, 6, 9
    assert np.isnan(history.at("full_loss", 4))
    with pytest.raises(ss.InputError, match="did you mean 'full_loss'") as error:
        history.at("ful_loss")
    assert one_line(error)


def test_a_table_by_epoch_and_seed_is_empty_beyond_a_seeds_end():
    history = by_hand([[1.0, 5.0], [2.0, np.nan]])
    np.testing.assert_array_equal(history.array("epochs", "full_loss"), [[1, 5], [2, np.nan]])
    np.testing.assert_array_equal(history.array("epochs", "full_loss", seeds=2), [[5.0]])


def test_full_batches_are_apart_from_the_end_by_what_their_step_took():
    """The loss before the step is 4 q^2 of the last, q = 0.8; all samples are alike."""
    found = descent(0.1, epochs=3).gaps()
    before = 4 * 0.64 ** np.arange(3)
    np.testing.assert_allclose([g.drift for g in found], before * (1 - 0.64), rtol=1e-12)
    assert [(g.sampling, g.weighting) for g in found] == [pytest.approx((0, 0), abs=1e-14)] * 3


def test_a_short_last_batch_counts_as_a_full_one_in_the_mean_of_the_losses():
    """Batches of 5 and 3: their losses 4 and 4 q^2, their mean less 5/8 and 3/8 of them."""
    (gap,) = ss.train(line(), lr=0.1, epochs=1, batch_size=5).gaps()
    assert gap.weighting == pytest.approx((4 - 4 * 0.64) * (1 / 2 - 5 / 8), rel=1e-12)


# ---- how seeds ended ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reasons", "median"),
    [
        (["converged"] * 3, 20.0),
        (["converged", "converged", "max_epochs"], 20.0),
        (["converged", "diverged", "converged"], 30.0),
        (["interrupted", "converged", "diverged"], np.inf),
    ],
)
def test_a_seed_that_did_not_converge_stops_never(reasons, median):
    ends = {"stop_epoch": np.array([10, 20, 30]), "stop_reason": np.array(reasons)}
    history = by_hand([[1.0] * 3], (1, 2, 3), **ends)
    expected = [
        e if r == "converged" else np.inf for e, r in zip((10, 20, 30), reasons, strict=True)
    ]
    assert history.converged_epoch.tolist() == expected
    assert history.median_stop == median


def test_of_two_the_median_is_the_first():
    """The least epoch by which half of the seeds have stopped: one that occurred, not a mean."""
    ends = {"stop_epoch": np.array([30, 10]), "stop_reason": np.array(["converged"] * 2)}
    assert by_hand([[1.0, 1.0]], **ends).median_stop == 10


def test_the_distance_is_to_the_true_parameters():
    assert by_hand([[1.0, 1.0]], w=np.array([[4.0], [-1.0]])).distance.tolist() == [3.0, 2.0]


def test_it_shows_how_the_seeds_ended():
    reasons = np.array(["converged", "diverged", "converged"])
    history = by_hand([[1.0] * 3], (1, 2, 3), stop_reason=reasons, n_steps=np.array([5, 7, 9]))
    assert "3 seeds: 2 converged, 1 diverged; 21 steps" in repr(history)
    alike = by_hand([[1.0] * 2], (1, 2), stop_reason=reasons[[0, 2]], n_steps=np.array([500, 700]))
    assert "2 seeds: converged; 1,200 steps" in repr(alike)


# ---- choosing rows -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run():
    return ss.train(line(), lr=0.1, epochs=5, batch_size=3, seeds=(9, 2, 5))


@pytest.mark.parametrize("kind", ["steps", "epochs"])
def test_choosing_is_what_pandas_would_choose_of_all(run, kind):
    whole = getattr(run, kind)
    choice = (whole.seed.isin([2, 9])) & (whole.epoch >= 2) & (whole.epoch < 4)
    columns = ["epoch", "full_loss", "seed"]
    found = run.load(kind, columns=columns, seeds=[9, 2], epochs=slice(2, 4))
    pd.testing.assert_frame_equal(found, whole.loc[choice, columns].reset_index(drop=True))
    assert len(found) == 2 * 2 * {"steps": 3, "epochs": 1}[kind]


def test_rows_are_in_the_order_of_seeds_and_steps(run):
    assert list(run.steps.seed) == [2] * 15 + [5] * 15 + [9] * 15
    assert list(run.steps.step) == list(range(15)) * 3
    part = run.load(steps=slice(7, 9), seeds=5)
    assert list(part.step) == [7, 8]


def test_columns_are_by_the_order_of_the_seeds_that_were_given(run):
    wide = run.array("steps", "loss")
    assert wide.shape == (15, 3)
    for place, seed in enumerate((9, 2, 5)):
        np.testing.assert_array_equal(wide[:, place], run.steps.loss[run.steps.seed == seed])


def test_too_many_rows_at_once_are_refused_and_parts_are_given(run, monkeypatch):
    monkeypatch.setattr(module, "MAX_ROWS", 44)
    other = SimpleNamespace(sink=run.sink, load=run.load)
    with pytest.raises(ss.InputError, match="45 rows of steps are a lot") as error:
        module.History._whole(other, "steps")
    assert one_line(error)
    assert len(run.load("steps", columns="loss")) == 45


def test_without_rows_there_are_columns():
    empty = by_hand(np.empty((0, 2)))
    empty = ss.History(empty.problem, empty.config, Memory(), *[np.zeros(2)] * 4, train_seconds=1.0)
    found = empty.load("epochs", columns=["seed", "full_loss"])
    assert (list(found), len(found)) == (["seed", "full_loss"], 0)


# ---- what Exercise 6 measures ------------------------------------------------------------------


def test_a_stop_is_said_in_words():
    done = descent(0.2, stop=("full", 0.01))  # 4 * 0.36^k < 0.01 from k = 6 on
    assert done.when() == "by epoch 6"
    assert done.when(3.0) == "by epoch 3"
    assert done.when(np.inf) == "in none of 12 epochs"
    assert descent(0.2, epochs=5, stop=("full", 0.01)).when() == "in none of 5 epochs"


def test_the_largest_loss_of_an_epoch_and_its_batch():
    """Samples 1 and 3 of y = 3: at w = 0 losses 9, 9; lr = 0 keeps w."""
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    line = ss.Problem(x, x, lambda w, at: w[0] * at, w_init=[0.0])
    run = ss.train(line, lr=1e-9, batch_size=1, order="reversed", epochs=2)
    assert run.peak() == (pytest.approx(9, rel=1e-6), 1)
    run = ss.train(line, lr=1e-9, batch_size=1, order="sequential", epochs=2)
    assert run.peak(epoch=2) == (pytest.approx(9, rel=1e-6), 3)


def test_the_growth_of_the_error_is_by_seed_over_the_first_epochs():
    history = by_hand([[4.0, 1.0], [16.0, 1.0], [64.0, np.e**4], [9.0, 9.0]])
    np.testing.assert_allclose(history.error_growth(3), [np.log(2), 1.0], rtol=1e-12)
    assert np.isnan(by_hand([[4.0, 1.0]]).error_growth(3)).tolist() == [True, True]


def test_the_excess_at_the_end_is_a_median_of_last_losses():
    """The least loss of `line()` is 0; the lower of two middle values."""
    history = by_hand([[4.0, 3.0], [2.0, 1.0]])
    assert history.excess_at_end == pytest.approx(1.0, abs=1e-12)
