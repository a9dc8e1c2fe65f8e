"""Step sizes chosen by seeds; second moments with momentum; the mean-square limit."""

import gc
import weakref
from itertools import product

import numpy as np
import pandas as pd
import pytest
from conftest import small_curve

import sgdstudy as ss
from sgdstudy import theory
from sgdstudy.history import tuning


def problem_of(d=3, p=2, seed=0):
    draw = np.random.default_rng(seed)
    x, y = draw.normal(size=(d, p)), draw.normal(size=d)
    return ss.Problem(x, y, lambda w, x: x @ w, w_init=np.zeros(p))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_expected_losses_are_the_mean_over_all_sequences_of_samples(momentum):
    problem, lr, steps = problem_of(), 0.1, 3
    ls, found = problem.least_squares, []
    phi, target = problem.x.numpy(), problem.y.numpy()
    for sequence in product(range(3), repeat=steps):
        w, v = np.zeros(2), np.zeros(2)
        for i in sequence:
            v = momentum * v + 2 * (phi[i] @ w - target[i]) * phi[i]
            w = w - lr * v
        found.append(ls.loss(w))
    _, full = theory.expected_losses(ls, np.zeros(2), 3, 1, lr, 1, True, momentum)
    assert full[0] == pytest.approx(np.mean(found), rel=1e-12, abs=0)


@pytest.mark.parametrize(("p", "size", "replacement"), [(1, 1, True), (3, 2, True), (4, 5, False)])
def test_the_mean_square_limit_is_where_the_radius_is_one(p, size, replacement):
    ls = problem_of(20, p).least_squares
    limit = theory.mean_square_lr_limit(ls, 20, size, replacement)
    for share, above in ((0.999, False), (1.001, True)):
        radius = theory.mean_square_radius(ls, 20, size, share * limit, replacement)
        assert (radius > 1) == above
    assert theory.mean_square_lr_limit(ls, 20, 20) == pytest.approx(theory.lr_limit(ls))


def test_the_mean_square_limit_of_a_hundred_parameters_is_below_that_of_full_batches():
    ls = ss.problems.ill_conditioned().least_squares
    limits = [theory.mean_square_lr_limit(ls, 1000, size) for size in (1, 20, 1000)]
    assert limits[0] < limits[1] < limits[2] == pytest.approx(theory.lr_limit(ls))


def table(times, finals=None):
    """Return rows of one group: step size -> times by seed."""
    rows = [(lr, seed, t) for lr, each in times.items() for seed, t in enumerate(each)]
    found = pd.DataFrame(rows, columns=["lr", "seed", "time"]).assign(rule="a")
    return found.assign(final=found["lr"].map(finals or dict.fromkeys(times, 1.0)))


def test_the_least_median_time_wins_and_edges_are_flagged():
    inner = tuning.choose(table({0.1: [9, 9, 9], 1: [3, 4, np.inf], 10: [5, 5, 5]}), ["rule"])
    assert inner[["lr", "edge"]].iloc[0].tolist() == [1, ""]
    low = tuning.choose(table({0.1: [1, 1], 1: [3, 4]}), ["rule"])
    assert low[["lr", "edge"]].iloc[0].tolist() == [0.1, "lowest"]


def test_the_time_decides_before_the_loss_at_the_end():
    times = {0.1: [9, 9, 9], 1: [3, 3, 3], 10: [5, 5, 5]}
    best = tuning.choose(table(times, {0.1: 0.01, 1: 5.0, 10: 0.1}), ["rule"])
    assert best[["lr", "edge"]].iloc[0].tolist() == [1, ""]


def test_an_edge_is_that_of_the_steps_its_own_group_tried():
    wide = table({0.1: [9], 1: [3], 10: [5]}).assign(rule="wide")
    rows = pd.concat([table({0.1: [9], 1: [3]}).assign(rule="narrow"), wide])
    best = tuning.choose(rows, ["rule"]).set_index("rule")
    assert best["lr"].to_dict() == {"narrow": 1, "wide": 1}
    assert best["edge"].to_dict() == {"narrow": "highest", "wide": ""}


def test_where_none_got_there_the_end_decides_then_the_smaller_step():
    never = {0.1: [np.inf] * 2, 1: [np.inf] * 2, 10: [np.inf] * 2}
    best = tuning.choose(table(never, {0.1: 3.0, 1: 2.0, 10: np.inf}), ["rule"])
    assert best["lr"].item() == 1
    assert tuning.choose(table(never), ["rule"])["lr"].item() == 0.1


def test_sensitivity_counts_who_got_there():
    (row,) = tuning.sensitivity(table({1: [3, 4, np.inf]}), ["rule"]).to_dict("records")
    assert (row["median"], row["reached"], row["seeds"], row["high"]) == (4, 2, 3, np.inf)


def test_tables_that_cannot_be_used_are_refused():
    with pytest.raises(ss.InputError, match="time is not a number"):
        tuning.choose(table({1: [np.nan]}), ["rule"])
    with pytest.raises(ss.InputError, match="column"):
        tuning.sensitivity(table({1: [1.0]}), ["optimizer"])


def test_heavy_balls_limit_and_rate_are_the_known_ones():
    """It diverges beyond 2 (1 + beta) / lambda_max; where it swings, beta^(k/2) (Polyak 1964)."""
    problem, beta = small_curve(d=50), 0.7
    limit = 2 * (1 + beta) / theory.eigenvalues(problem.least_squares)[-1]
    radius = [
        theory.mean_square_radius(problem.least_squares, 50, 50, share * limit, momentum=beta)
        for share in (0.999, 1.001)
    ]
    assert radius[0] < 1 < radius[1]
    rate = theory.lyapunov(problem, 50, limit / 2, epochs=400, replicas=2, momentum=beta)
    assert rate == pytest.approx(np.log(beta) / 2, abs=0.01)


def test_outcomes_are_those_of_loops_over_epochs_and_seeds():
    draw = np.random.default_rng(3)
    losses = draw.uniform(size=(7, 50))
    losses[5:, 0] = np.nan
    found = tuning.outcomes(losses, range(50), {"easy": 0.3, "hard": 0.1})
    assert len(found) == 100
    for row in found.itertuples():
        level = {"easy": 0.3, "hard": 0.1}[row.target]
        below = [epoch + 1 for epoch in range(7) if losses[epoch, row.seed] < level]
        assert row.time == (below[0] if below else np.inf)
        assert row.final == (losses[-1, row.seed] if row.seed else np.inf)
        assert row.level == level


@pytest.fixture(scope="module")
def tuned():
    """Two rules at three step sizes, seeds 0 to 5 reported and 100 to 102 choosing."""
    settings = {"batch_size": 5, "epochs": 12, "order": "with_replacement"}
    settings["seeds"] = [*range(6), 100, 101, 102]
    problem, runs = small_curve(noise=0.3), {}
    for rule, options in (("SGD", {}), ("momentum", {"momentum": 0.5})):
        for lr in (0.01, 0.05, 0.2):
            run = ss.train(problem, lr=lr, options=options, **settings)
            runs["small", rule, lr] = run, ss.expect(run).levels((0.1, 0.01))
    return runs


def test_a_tuning_is_chosen_by_some_seeds_and_judged_by_the_others(tuned):
    by = ["problem", "optimizer"]
    found = tuning.Tuning.of(tuned, by, 100)
    best = found.best({"optimizer": "SGD"}).set_index("optimizer")
    times = {}
    for rule in ("SGD", "momentum"):
        medians, level = {}, None
        for (_, name, lr), (run, levels) in tuned.items():
            if name == rule:
                level = levels[0.01]
                each = ss.time_to_target(run, level)
                medians[lr] = np.sort(each[[100, 101, 102]])[1], each[:6]
        least = min(middle for middle, _ in medians.values())
        lr = best.loc[rule, "lr"]
        assert medians[lr][0] == least
        times[rule] = medians[lr][1]
        row = best.loc[rule]
        assert (row["target"], row["level"], row["seeds"]) == (0.01, level, 6)
        assert row["median"] == np.quantile(times[rule], 0.5, method="inverted_cdf")
        grid = [np.quantile(each, 0.5, method="inverted_cdf") for _, each in medians.values()]
        assert row["lrs_within_twice"] == sum(m <= 2 * min(grid) < np.inf for m in grid)
        run = tuned["small", rule, lr][0]
        ends = run.array("epochs", "full_loss")[-1, :6]
        assert row["full_loss"] == np.median(ends)
        assert row["above_again"] == sum((ends >= level) & (times[rule].to_numpy() < np.inf))
    pairs = ss.compare(times["momentum"], times["SGD"], "epochs")
    assert best.loc["momentum", "over_sgd"] == pairs.ratio
    assert best.loc["SGD", "over_sgd"] == 1
    assert set(found.medians["target"]) == {0.1, 0.01}
    assert found.medians["chosen"].sum() == 4


def test_the_tuning_of_the_mean_is_that_of_its_curve(tuned):
    found = tuning.Tuning.of(tuned, ["problem", "optimizer"], 100, expected=True)
    assert len(found.rows) == 12
    for (_, rule, lr), (run, levels) in tuned.items():
        mean = ss.expect(run).mean_loss("full_loss")
        rows = found.rows[(found.rows["optimizer"] == rule) & (found.rows["lr"] == lr)]
        for row in rows.itertuples():
            assert row.time == theory.first_below(mean, levels[row.target])
            assert row.final == mean[-1]


@pytest.mark.slow
def test_what_is_kept_of_a_run_goes_with_it():
    run = ss.train(small_curve(), lr=0.1, batch_size=5, epochs=3, seeds=[0, 100])
    once = tuning.Tuning.of({("a",): (run, {0.1: 1.0})}, ["name"], 100)
    run.__dict__["load"] = None  # the second time, nothing is read
    again = tuning.Tuning.of({("a",): (run, {0.1: 1.0})}, ["name"], 100)
    assert once.rows.equals(again.rows)
    left = weakref.ref(run)
    del run
    gc.collect()
    assert left() is None
