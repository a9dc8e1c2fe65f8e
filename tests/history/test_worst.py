"""A seed that diverged is the worst in every column, whichever way is better.

Classes are the signs of x, and the logit of the upper one is w x. A seed that starts at w = -1
gets every class wrong, and stays near; one that starts at w = 101 gets every class right, for two
epochs, until its parameter is not finite.
"""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import one_line

import sgdstudy as ss
from sgdstudy.history import tuning
from sgdstudy.history.compare import value_by_seed
from sgdstudy.recipe import columns
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking import describe
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.store import open_store

X = torch.tensor([-2.0, -1.0, 1.0, 2.0])
HIGHER = {"accuracy", "test_accuracy", "ema_test_accuracy"}


class Explodes(torch.optim.Optimizer):
    """Descent that multiplies what is large."""

    def __init__(self, params, lr=1e-9):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            p.copy_(torch.where(p > 100, p * 1e15, p - self.param_groups[0]["lr"] * p.grad))


def problem():
    return ss.Problem(
        X,
        (X > 0).long(),
        lambda w, x: torch.stack([0 * x, w[0] * x], -1),
        loss="cross_entropy",
        w_init=lambda generator: [101.0 if generator.initial_seed() % 2 else -1.0],
        test=(X, (X > 0).long()),
    )


def run(seeds):
    return ss.train(problem(), optimizer=Explodes, epochs=6, seeds=seeds, record_rows=100, ema=0.5)


def test_only_the_accuracies_are_better_where_there_is_more():
    assert {
        c.name for t in columns.TABLES.values() for c in t.values() if c.more_is_better
    } == HIGHER


@pytest.mark.parametrize("metric", [c.name for c in columns.OF_EPOCHS] + sorted(HIGHER))
def test_a_diverged_seed_is_worse_than_any_other_in_every_column(metric):
    history = run(range(4))
    assert history.stop_reason.tolist() == ["max_epochs", "diverged"] * 2
    rows = history.epochs
    assert (rows[rows.seed == 1]["test_accuracy"] == 1.0).any()
    found = value_by_seed(history, metric)
    good, bad = found[[0, 2]], found[[1, 3]]
    assert np.isfinite(good).all()
    assert (bad == (-np.inf if metric in HIGHER else np.inf)).all()
    even, odd = (found[found.index % 2 == k].reset_index(drop=True) for k in (0, 1))
    compared = ss.compare(even, odd, metric)
    assert (compared.censored_a, compared.censored_b) == (0, 2)
    assert compared.difference == (np.inf if metric in HIGHER else -np.inf)


def test_pairs_of_which_neither_ended_well_are_not_known():
    found = ss.compare(run([1, 3]), run([1, 3]), "test_accuracy")
    assert np.isnan(found.difference)
    assert found.censored_a == found.censored_b == 2


def test_results_count_it_as_the_worst():
    figures = describe.results(run([0, 1, 3]))
    assert "result/test_accuracy" not in figures  # the median is that of a diverged seed
    assert "test_accuracy" not in figures
    assert figures["test_accuracy_p90"] == 0.0
    figures = describe.results(run([0, 1, 2]))
    assert figures["accuracy"] == figures["accuracy_p90"] == 0.0
    assert "accuracy_p10" not in figures


def test_of_a_tuned_run_too():
    history = run(range(4))
    rows = tuning._outcomes_of(history, (("easy", 10.0),))
    assert rows["test_accuracy"].tolist() == [0.0, -np.inf] * 2
    assert rows["final"].tolist()[1::2] == [np.inf] * 2


@pytest.mark.slow
def test_of_the_store_as_of_a_history(store):
    start = Invocation.start(open_store(store), "worst")
    arm = ss.Arm(problem(), optimizer=Explodes, epochs=6, seeds=range(4))
    train_arm(dataclasses.replace(start), "arm", arm, False)
    by_name = {"study": "worst", "store": store}
    found = ss.compare("arm", run([0, 1]), "test_accuracy", **by_name)
    assert (found.pairs, found.censored_a, found.censored_b) == (2, 1, 1)
    times = ss.time_to_target("arm", 0.5, "test_accuracy", **by_name)
    assert times.tolist() == [np.inf, 1.0] * 2


def test_a_target_of_a_column_is_beyond_it_the_better_way_unless_told():
    history = run(range(2))
    assert ss.time_to_target(history, 0.5, "accuracy").tolist() == [np.inf, 1.0]
    assert ss.time_to_target(history, 0.5, "accuracy", above=False).tolist() == [1.0, np.inf]
    start = float(history.epochs["full_loss"][0])  # of w = -1, on its way down
    assert ss.time_to_target(history, 0.5 * start, above=True)[0] == 1.0
    assert ss.time_to_target(history, 0.5 * start)[0] == np.inf
    with pytest.raises(ss.InputError, match="above is True or False") as error:
        ss.time_to_target(history, 1.0, above=0.9)
    assert one_line(error)
