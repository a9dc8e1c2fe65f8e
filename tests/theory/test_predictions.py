"""Predictions against the runs themselves, over the kinds of runs, not examples of them."""

from dataclasses import replace
from itertools import islice, product

import numpy as np
import pytest
import torch
from conftest import small_curve

import sgdstudy as ss
from sgdstudy import theory
from sgdstudy.problems.least_squares import from_features
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.studies.predicted import predicted_claims
from sgdstudy.theory import predictions
from sgdstudy.theory.follow import epoch_ends
from sgdstudy.theory.medians import median
from sgdstudy.theory.rounding import Rounding
from sgdstudy.tracking.store import open_store

D = 53  # of small_curve
NAMES = ("stop_epoch", "distance_at_stop", "growth_per_epoch")


def anywhere(generator):
    """A start of a seed's own."""
    return torch.tensor([0.3, -1.7, 2.5]) + 3 * torch.randn(3, generator=generator)


def both(problem, **settings):
    """Return what is predicted of a run, and the run."""
    config = TrainConfig(record_rows=0, **settings)
    return predictions.predict(problem, config), ss.train(problem, config=config)


def check(predicted, run):
    """Every prediction is within its tolerance, and the quantiles of the seeds are the run's."""
    claims = predicted_claims({"arm": replace(run, predicted=predicted)})
    assert all(claim.holds is not False for claim in claims), claims
    if "stop_epoch_p10" in predicted and predicted["stop_epoch_tolerance"] == 0:
        for name, q in (("stop_epoch_p10", 0.1), ("stop_epoch_p90", 0.9)):
            measured = np.quantile(run.converged_epoch, q, method="inverted_cdf")
            assert predicted[name] == measured or abs(predicted[name] - measured) <= 1


# ---- the whole kind ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("start", [None, anywhere], ids=["one start", "own starts"])
@pytest.mark.parametrize("rule", ["running", "full", "last_batch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_full_batch_stops_where_it_is_said_to_down_to_the_floor(dtype, rule, start):
    problem = small_curve(w_init=start)
    ls, said = problem.least_squares, 0
    for share, exponent in product((0.05, 0.9), range(0, 15, 2)):
        lr, epsilon = share * theory.lr_limit(ls), 10.0**-exponent
        settings = {"lr": lr, "dtype": dtype, "epochs": 2000, "seeds": range(5)}
        predicted, run = both(problem, stop=(rule, epsilon), **settings)
        check(predicted, run)
        said += "stop_epoch" in predicted
    assert said >= (16 if dtype == "float64" and rule == "full" else 8)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("batch_size", [1, 7, 10, D - 1, D])
@pytest.mark.parametrize("order", ["shuffle", "with_replacement"])
def test_random_orders_stop_where_their_own_orders_say(order, batch_size, noise):
    problem = small_curve(noise=noise)
    ls, said = problem.least_squares, 0
    twice = order == "with_replacement"
    limit = theory.mean_square_lr_limit(ls, D, batch_size, twice)
    kinds = list(product((0.1, 0.8, 0.99), ("running", "full"), (None, anywhere)))
    for share, rule, start in kinds:
        settings = {"batch_size": batch_size, "order": order, "seeds": range(8), "epochs": 60}
        stop = (rule, 0.01 + 1.05 * ls.least_loss)
        arm = problem.replace(w_init=start) if start else problem
        predicted, run = both(arm, lr=share * limit, stop=stop, **settings)
        check(predicted, run)
        said += "stop_epoch" in predicted
    assert said >= 0.9 * len(kinds)


@pytest.mark.slow
@pytest.mark.parametrize(
    "order", ["sequential", "reversed", "strided", "shuffle_once", "block_shuffle", "flip_flop"]
)
def test_other_orders_that_are_known_stop_where_they_say(order):
    said, kinds = 0, list(product((0.0, 0.3), (1, 10), (0.05, 1.5), ("running", "full")))
    for noise, batch_size, lr, rule in kinds:
        problem = small_curve(noise=noise, w_init=anywhere)
        settings = {"batch_size": batch_size, "order": order, "seeds": range(3), "epochs": 80}
        stop = (rule, 0.01 + 1.1 * problem.least_squares.least_loss)
        predicted, run = both(problem, lr=lr, stop=stop, **settings)
        check(predicted, run)
        said += "stop_epoch" in predicted
    assert said >= 0.6 * len(kinds)


# ---- what was wrong ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stop_below_what_float32_can_reach_is_not_predicted():
    curve, said = ss.problems.curve(), {}
    for dtype in ("float32", "float64"):
        settings = {"optimizer": "notebook", "lr": 2e-4, "stop": ("running", 1e-7)}
        said[dtype], run = both(curve, dtype=dtype, epochs=50_000, **settings)
        assert np.isfinite(run.median_stop) == (dtype == "float64")
        check(said[dtype], run)
    assert said["float32"] == {}
    assert said["float64"]["stop_epoch"] == 48204


def test_every_seed_is_predicted_from_where_it_starts():
    problem = small_curve(w_init=anywhere)
    for kind in ({}, {"batch_size": 10}, {"batch_size": 10, "order": "strided"}):
        settings = {"lr": 0.1, "stop": ("running", 0.5), "epochs": 200, **kind}
        predicted, run = both(problem, seeds=range(9), **settings)
        check(predicted, run)
        alone = [
            predictions.predict(problem, TrainConfig(seeds=[s], **settings))["stop_epoch"]
            for s in range(9)
        ]
        assert len(set(alone)) > 4
        assert predicted["stop_epoch"] == median(np.array(alone)) != alone[0]


def test_a_last_batch_of_one_sample_and_steps_near_the_limit_are_followed():
    curve = ss.problems.curve()
    limit = theory.mean_square_lr_limit(curve.least_squares, 2000, 10)
    for settings in (
        {"batch_size": 1999, "lr": 2e-4, "stop": ("running", 2.0), "epochs": 600},
        {"batch_size": 10, "lr": 0.95 * limit, "stop": ("full", 0.5), "epochs": 40},
    ):
        predicted, run = both(curve, seeds=range(4), **settings)
        check(predicted, run)
        assert np.isfinite(predicted["stop_epoch"])


def test_no_mean_is_expected_where_a_short_last_batch_undoes_the_epoch():
    problem = small_curve()
    ls = problem.least_squares
    without, limit = theory.lr_limit(ls), theory.mean_square_lr_limit(ls, D, D - 1)
    assert limit < without  # the batch of one sample undoes what the other gains
    config = TrainConfig(lr=0.99 * without, batch_size=D - 1, epochs=30)
    _, full = theory.expected_losses(ls, np.zeros(3), D, D - 1, config.lr, 30)
    assert full[-1] > 10 * full[0]
    assert predictions.expected_losses(problem, config) == {}
    assert predictions.expected_losses(problem, replace(config, lr=0.99 * limit))


# ---- which rule, which seed, which bound -----------------------------------------------------


def test_the_rule_decides():
    curve = ss.problems.curve()
    for rule in ("running", "full"):
        settings = {"lr": 2e-4, "batch_size": 10, "stop": (rule, 0.1), "epochs": 50}
        predicted, run = both(curve, seeds=[0, 1], **settings)
        check(predicted, run)
        assert predicted["stop_epoch"] == {"running": 48, "full": 47}[rule]
        full = {"lr": 0.2, "stop": (rule, 0.5)}
        predicted, run = both(small_curve(), **full)
        losses = theory.descent_loss(
            run.problem.least_squares, np.zeros(3), 0.2, np.arange(len(run.epochs) + 1)
        )
        seen = losses[:-1] if rule == "running" else losses[1:]
        assert predicted["stop_epoch"] == run.median_stop == theory.first_below(seen, 0.5)
    unknown = TrainConfig(lr=2e-4, batch_size=10, stop=("last_batch", 0.1))
    assert predictions.predict(curve, unknown) == {}
    assert (
        predictions.predict(curve, replace(unknown, batch_size=None, stop=("grad_norm", 1))) == {}
    )


@pytest.mark.parametrize("batch_size", [None, 10])
def test_the_distance_is_the_median_over_the_seeds_to_rounding(batch_size):
    problem = small_curve(w_init=anywhere)
    settings = {"lr": 0.1, "stop": ("full", 0.5), "epochs": 300, "seeds": range(7)}
    predicted, run = both(problem, batch_size=batch_size, dtype="float64", **settings)
    assert len(set(run.distance)) == 7
    assert predicted["distance_at_stop"] == pytest.approx(median(run.distance), abs=1e-12)
    assert 0 < predicted["distance_at_stop_tolerance"] < 1e-12
    rough, run = both(problem, batch_size=batch_size, **settings)
    assert abs(rough["distance_at_stop"] - median(run.distance)) > 0
    assert rough["distance_at_stop_tolerance"] < 1e-4
    check(rough, run)


def test_a_prediction_that_is_one_epoch_off_fails():
    problem = small_curve(w_init=lambda generator: 4 + torch.randn(3, generator=generator))
    settings = {"lr": 0.1, "stop": ("full", 0.5), "epochs": 300, "seeds": range(7)}
    predicted, run = both(problem, batch_size=10, **settings)
    assert run.stop_epoch.min() > 1
    w = run.load("epochs", columns=["seed", "epoch", "distance"])
    before = w.groupby("seed").distance.apply(lambda d: d.iloc[-2])
    off = predicted | {
        "stop_epoch": predicted["stop_epoch"] + 1,
        "distance_at_stop": median(before.to_numpy()),
    }
    claims = predicted_claims({"arm": replace(run, predicted=off)})
    assert [(c.name, c.holds) for c in claims] == [
        ("stop_epoch", False),
        ("distance_at_stop", False),
    ]


def test_where_rounding_decides_nothing_is_said():
    curve = ss.problems.curve()  # in sorted order an epoch multiplies errors by millions
    settings = {"lr": 2e-4, "batch_size": 10, "epochs": 200, "stop": ("full", 0.1)}
    exact, rough = (
        predictions.predict(curve, TrainConfig(order="sequential", dtype=dtype, **settings))
        for dtype in ("float64", "float32")
    )
    assert "stop_epoch" in exact
    assert set(rough) == {"rho"}


def test_noise_of_the_labels_does_not_mislead():
    problem = small_curve(noise=1.0)
    ls = problem.least_squares
    excess = theory.stationary_excess(ls, D, 1, 0.05)
    settings = {"lr": 0.05, "batch_size": 1, "epochs": 400, "seeds": range(9)}
    stop = ("full", ls.least_loss + excess / 3)  # below where the mean settles: a matter of luck
    predicted, run = both(problem, stop=stop, **settings)
    mean = predictions.expected_losses(problem, run.config)["full_loss"]
    assert np.isinf(theory.first_below(mean, stop[1]))
    assert np.isfinite(run.median_stop)
    assert predicted["stop_epoch"] == run.median_stop
    check(predicted, run)


def test_what_takes_too_long_to_follow_is_left_out():
    problem = small_curve()
    config = TrainConfig(lr=0.1, batch_size=10, stop=("full", 0.5), epochs=100)
    assert predictions.predict(problem, config, most=1e4) == {}
    assert predictions.predict(problem, config)
    full = replace(config, batch_size=None)
    assert predictions.predict(problem, full, most=0) == predictions.predict(problem, full)


def test_orders_of_which_nothing_is_known_are_left_out():
    problem = small_curve()
    for order in ("grab", lambda generator, d: torch.arange(d)):
        config = TrainConfig(lr=0.1, batch_size=10, order=order, stop=("full", 0.5))
        assert predictions.predict(problem, config) == {}
    given = np.arange(50).reshape(1, 5, 10).repeat(90, 0)
    predicted, run = both(
        problem, lr=0.1, batch_size=10, order=given, epochs=90, stop=("full", 0.5)
    )
    check(predicted, run)
    assert np.isfinite(predicted["stop_epoch"])


# ---- beyond the limit ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("share", [1.01, 1.5, 4.0, 30.0])
def test_growth_beyond_the_limit_is_the_laws_to_rounding(share, dtype):
    problem = small_curve()
    lr = share * theory.lr_limit(problem.least_squares)
    predicted, run = both(problem, optimizer="notebook", lr=lr, epochs=5000, dtype=dtype)
    law = (1 - lr * np.linalg.eigvalsh(problem.least_squares.hessian)[-1]) ** 2
    assert predicted["growth_per_epoch"] == pytest.approx(law, rel=1e-13)
    assert predicted["growth_per_epoch_tolerance"] < 2000 * np.finfo(dtype).eps * law
    check(predicted, run)
    off = predicted | {"growth_per_epoch": law * (1 + 3000 * np.finfo(dtype).eps)}
    (claim,) = predicted_claims({"arm": replace(run, predicted=off)})
    assert not claim.holds


def test_growth_is_not_predicted_of_a_run_too_short_to_show_it():
    problem = small_curve()
    limit = theory.lr_limit(problem.least_squares)
    assert predictions.predict(problem, TrainConfig(lr=1.01 * limit, epochs=5)) == {}
    assert predictions.predict(problem, TrainConfig(lr=1.01 * limit, epochs=1)) == {}
    # all but without a part along the steepest direction it stops before it can grow
    ls = problem.least_squares
    vectors = np.linalg.eigh(ls.hessian)[1]
    start = ls.w_star + 3 * vectors[:, 0] + 1e-6 * vectors[:, 2]
    exact = problem.to(torch.float64, "cpu").replace(w_init=start)
    stops = TrainConfig(lr=1.2 * limit, epochs=5000, stop=("running", 0.01))
    assert ss.train(exact, config=stops).stop_reason[0] == "converged"
    assert predictions.predict(exact, stops) == {}
    assert predictions.predict(exact, replace(stops, stop=None))


def test_growth_reads_every_epoch_and_needs_two():
    problem = small_curve()
    run = ss.train(problem, lr=2.0, epochs=30, record_rows=3)
    losses = ss.train(problem, lr=2.0, epochs=30).steps["loss"].to_numpy()
    assert run.growth_per_epoch() == losses[-1] / losses[-2]
    assert np.isnan(ss.train(problem, lr=2.0, epochs=1).growth_per_epoch())


# ---- the parts -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["shuffle", "with_replacement", "strided", "block_shuffle"])
@pytest.mark.parametrize("batch_size", [1, 7, 10, D - 1, D])
def test_epochs_that_are_followed_are_the_steps_one_by_one(order, batch_size):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(D, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(D, 2, generator=generator, dtype=torch.float64)
    problem = ss.Problem(x, y, lambda w, x: x @ w.reshape(4, 2), w_init=torch.ones(8).double())
    config = TrainConfig(lr=0.05, batch_size=batch_size, order=order, seeds=[3, 5])
    ls, starts = problem.least_squares, np.ones((2, 8))
    ends = list(islice(epoch_ends(problem, config, ls, starts), 4))
    for r, seed in enumerate(config.seeds):
        alone = predictions.known_order(problem, replace(config, seeds=[seed]), 4)
        assert np.allclose([e.running[r] for e in ends], alone.running, rtol=1e-12)
        full = [ls.loss(ls.w_star + e.z[r]) for e in ends]
        assert np.allclose(full, alone.full, rtol=1e-12)


def test_losses_that_are_followed_are_those_of_the_run_to_rounding():
    problem = small_curve(noise=0.1)
    config = TrainConfig(lr=1e-4, batch_size=7, order="shuffle", seeds=[3, 5], epochs=4)
    run = ss.train(problem, config=config, progress=False)
    for rule in ("running", "full"):
        expected, off = predictions.followed_losses(problem, config, rule, 4)
        seen = run.array("epochs", f"{rule}_loss")
        assert expected.shape == off.shape == seen.shape
        assert (np.abs(seen - expected) <= off).all()
        assert (off < 1e-3 * expected).all()


def test_growth_of_an_epoch_is_that_of_its_stretches():
    problem = small_curve()
    config = TrainConfig(lr=2.0, batch_size=1, order="sequential")
    (ends,) = islice(epoch_ends(problem, config, problem.least_squares, np.zeros((1, 3))), 1)
    most = theory.growth(theory.batches(problem, config), 2.0).factor
    assert most > 100
    assert ends.growth[0] == most
    drawn = replace(config, order="shuffle")  # of these, those that were multiplied out
    (ends,) = islice(epoch_ends(problem, drawn, problem.least_squares, np.zeros((1, 3))), 1)
    assert 1 < ends.growth[0] <= most
    calm = replace(config, lr=0.01)
    (ends,) = islice(epoch_ends(problem, calm, problem.least_squares, np.zeros((1, 3))), 1)
    assert ends.growth[0] == 1


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_rounding_is_bounded_and_not_by_far(share):
    problem = small_curve(w_init=anywhere)
    ls, n = problem.least_squares, 40
    lr, steps, eps = share * theory.lr_limit(ls), 150, float(np.finfo("f").eps)
    settings = {"optimizer": "notebook", "lr": lr, "epochs": steps, "seeds": range(n)}
    rough, exact = (ss.train(problem, dtype=t, **settings) for t in ("float32", "float64"))
    starts = problem.initial(list(range(n))).double().numpy()
    rounding, start = Rounding(ls, lr, eps), starts - ls.w_star
    variance = rounding.after(np.zeros((n, 3)), start, steps, np.ones(n))
    bound = rounding.of_w(variance, exact.w - ls.w_star)
    vectors = np.linalg.eigh(ls.hessian)[1]
    seen = np.abs((rough.w - exact.w) @ vectors)
    assert (seen <= bound).all()
    assert np.linalg.norm(bound) < 60 * np.linalg.norm(seen)


def test_contraction_is_the_factor_of_the_error_an_epoch():
    problem = ss.Problem([1.0], [0.0], lambda w, x: w[0] * x, w_init=[1.0])
    run = ss.train(problem, lr=0.125, epochs=8, dtype="float64", optimizer="notebook")
    # the loss is w^2, a step w -> (1 - 2 lr) w
    assert run.contraction(3) == pytest.approx(0.75, rel=1e-12)
    assert run.contraction() == pytest.approx(0.75, rel=1e-12)  # of 7, there are no 10
    assert np.isnan(ss.train(problem, lr=0.125, epochs=1).contraction())
    # only the last epochs count, and only the first seed
    two = small_curve(w_init=anywhere)
    run = ss.train(two, lr=0.3, epochs=12, seeds=[4, 5], dtype="float64")
    loss = run.array("epochs", "full_loss")[:, 0]
    assert run.contraction(2) == pytest.approx((loss[-1] / loss[-3]) ** 0.25, rel=1e-12)


def test_gaps_are_those_of_the_first_seeds_epochs():
    problem = small_curve(noise=0.5).to(torch.float64, "cpu")
    run = ss.train(problem, lr=0.1, batch_size=10, epochs=3, seeds=[2, 1])
    ls, sizes = problem.least_squares, np.array([10] * 5 + [3])
    steps = run.steps[run.steps.seed == 2]
    ends = run.epochs[run.epochs.seed == 2].full_loss.to_numpy()
    found = run.gaps()
    assert len(found) == 3
    for epoch, gap in enumerate(found, 1):
        rows = steps[steps.epoch == epoch]
        way = ls.loss(rows[["w0", "w1", "w2"]].to_numpy())
        drift = (sizes * (way - ends[epoch - 1])).sum() / D
        sampling = (sizes * (rows.loss.to_numpy() - way)).sum() / D
        assert gap.drift == pytest.approx(drift, rel=1e-9)
        assert gap.sampling == pytest.approx(sampling, rel=1e-9)
        weighting = rows.loss.mean() - (sizes * rows.loss.to_numpy()).sum() / D
        assert gap.weighting == pytest.approx(weighting, rel=1e-9)


# ---- tracked ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_predictions_are_logged_before_an_arm_and_checked(store):
    settings = {"optimizer": "notebook", "stop": ("running", 0.5), "epochs": 400}
    arms = {
        "full batch": {"lr": 0.2, **settings},
        "beyond": {"lr": 5.0, **settings},
        "mixed batches": {"lr": 0.1, "batch_size": 10, "order": "strided", **settings},
        "shuffled": {"lr": 0.1, "batch_size": 10, "seeds": range(8), **settings},
        "no theory": {"lr": 0.1, **(settings | {"optimizer": "Adam"})},
    }
    study = ss.Study(
        "predicted.py",
        "Does theory hold?",
        ss.Options,
        lambda o: {name: ss.Arm(small_curve(), **kind) for name, kind in arms.items()},
        lambda o, runs: ss.predicted_claims(runs),
        lambda o, runs, claims: "it does",
    )
    result = study.run(ss.Options(store=store))
    verdicts = {(c.name, c.arm): c.holds for c in result.claims}
    stops = ("full batch", "mixed batches", "shuffled")
    expected = {(name, arm): True for arm in stops for name in NAMES[:2]}
    expected |= {("growth_per_epoch", "beyond"): True}
    expected |= {("stop_epoch", arm): None for arm in ("beyond", "no theory")}  # described
    assert verdicts == expected
    client = open_store(store).client
    for arm, history in result.runs.items():
        metrics = client.get_run(result.run_ids[arm]).data.metrics
        logged = {k.removeprefix("predicted/"): v for k, v in metrics.items() if "predicted/" in k}
        assert logged == history.predicted


@pytest.mark.slow
def test_a_wrong_prediction_shows_as_failed(store, monkeypatch):
    laws = theory.descent_stop, theory.descent_w
    slower = [lambda ls, w0, lr, *rest, f=f: f(ls, w0, 0.7 * lr, *rest) for f in laws]
    monkeypatch.setattr(theory, "descent_stop", slower[0])
    monkeypatch.setattr(theory, "descent_w", slower[1])
    arm = ss.Arm(small_curve(), lr=0.2, optimizer="notebook", stop=("running", 0.5), epochs=400)
    study = ss.Study(
        "wrong.py",
        "Does a wrong theory show?",
        ss.Options,
        lambda o: {"arm": arm},
        lambda o, runs: ss.predicted_claims(runs),
        lambda o, runs, claims: "it does",
    )
    result = study.run(ss.Options(store=store))
    assert [c.name for c in result.failed] == ["stop_epoch", "distance_at_stop"]
    client = open_store(store).client
    assert client.get_run(result.run_ids["answer"]).data.tags["sgdstudy.claims_failed"] == "2"
    note = client.get_experiment_by_name("wrong").tags["mlflow.note.content"]
    assert "**FAILS**" in note


def test_too_many_parameters_take_too_long():
    problem = ss.problems.ill_conditioned()
    config = TrainConfig(lr=1e-3, batch_size=10, stop=("full", 0.1), epochs=1000, seeds=range(32))
    assert predictions.predict(problem, config) == {}
    assert predictions.expected_losses(problem, config) == {}


# ---- what planted faults left untested --------------------------------------------------------


def test_a_stop_that_rounding_may_move_past_the_last_epoch_is_not_predicted():
    problem = small_curve()
    ls, lr, k = problem.least_squares, 0.1, 20
    loss = theory.descent_loss(ls, np.zeros(3), lr, np.array([k]))[0]
    given = {"lr": lr, "stop": ("running", float(loss) * (1 + 1e-12))}  # less than float32 tells
    found = predictions.predict(problem, TrainConfig(epochs=k + 9, **given))
    assert found["stop_epoch"] == k + 1
    assert found["stop_epoch_tolerance"] == 1
    assert predictions.predict(problem, TrainConfig(epochs=k + 1, **given)) == {}


@pytest.mark.parametrize("changed", [{"options": {"momentum": 0.9}}, {"schedule": "inverse_time"}])
@pytest.mark.parametrize("batch_size", [None, 10])
def test_nothing_is_said_of_steps_that_are_not_plain(changed, batch_size):
    plain = {"lr": 0.1, "batch_size": batch_size, "stop": ("running", 0.1), "epochs": 60}
    for settings, says in ((plain, True), (plain | changed, False)):
        config = TrainConfig(**settings)
        assert bool(predictions.predict(small_curve(), config)) is says
        assert bool(predictions.expected_losses(small_curve(), config)) is says
        order = predictions.order_is_known(small_curve(), config)
        assert order is (says and batch_size is not None)


@pytest.mark.parametrize("optimizer", ["notebook", "SGD"])
def test_the_expected_losses_of_full_batches_are_those_of_the_run(optimizer):
    settings = {"optimizer": optimizer, "lr": 0.2, "epochs": 30, "dtype": "float64"}
    expected = predictions.expected_losses(small_curve(noise=0.1), TrainConfig(**settings))
    run = ss.train(small_curve(noise=0.1), **settings).epochs
    for name in ("running_loss", "full_loss"):
        assert np.allclose(run[name], expected[name], rtol=1e-9)


def test_the_distance_that_is_claimed_is_the_median_of_the_seeds():
    problem = small_curve(w_init=anywhere)
    run = ss.train(problem, lr=0.05, epochs=3, seeds=range(5), stop=("running", 1e-9))
    assert median(run.distance) != run.distance[0]
    run = replace(run, predicted={"distance_at_stop": 1.0})
    claim, _ = predicted_claims({"arm": run})  # and its stop epoch, described
    assert claim.measured == median(run.distance)


def rounding_of(eigenvalues, lr, size=1.0):
    """The rounding of a run on these eigenvalues, the largest parameter of the minimum `size`."""
    p = len(eigenvalues)
    features = np.diag(np.sqrt(np.array(eigenvalues) * p / 2))
    return Rounding(from_features(features, features @ np.full(p, size)), lr, 2.0**-23)


def test_rounding_adds_up_step_by_step():
    """A variance of (growth eps |w|)^2 / 12 a step, of which a step leaves (1 - lr lambda)^2."""
    rounding = rounding_of([0.1, 1.0, 3.0], 0.5)
    z = np.array([[0.1, -0.2, 0.05]])
    one = (2.0 * rounding.eps * 1.1) ** 2 / 12  # |w| is 1.1 where it is largest
    variance = before = np.array([[1e-13, 2e-13, 3e-13]])
    for steps in range(1, 40):
        variance = (1 - 0.5 * np.array([0.1, 1.0, 3.0])) ** 2 * variance + one
        found = rounding.after(before, z, steps, np.array([2.0]))
        assert np.allclose(found, variance, rtol=1e-9, atol=0)


def test_where_rounding_stops_a_run_is_the_floor_of_theory():
    """Far from the minimum a step of s units leaves c / (8 s^2) of the way c; near it, all."""
    rounding = rounding_of([0.01, 0.02], 0.3, size=1 + 1e-6)  # its unit in the last place is eps
    ulp, pull = rounding.eps, 0.3 * np.array([0.01, 0.02])
    none = np.zeros((1, 2))
    still = rounding.of_w(none, np.array([[1e-9, 1e-9]]))[0]
    assert np.allclose(still, ulp / (2 * pull), rtol=1e-5, atol=0)
    floor = theory.float32_floor(rounding.ls, 0.3)
    assert floor == pytest.approx(0.01 / 2 * still[0] ** 2, rel=1e-5, abs=0)
    far = rounding.of_w(none, np.array([[1.0, 1.0]]))[0]
    assert np.allclose(far, 1 / (8 * (pull / ulp) ** 2), rtol=1e-5, atol=0)
    assert np.allclose(rounding.of_w(np.full((1, 2), 4e-10), np.ones((1, 2))) - far, 4 * 2e-5)


def test_theorys_own_rounding_grows_with_the_steps():
    """(1 - x)^k changes by k dx / (1 - x) of itself, dx the rounding of lr lambda."""
    rounding, z = rounding_of([0.5, 2.0], 0.4), np.array([[0.6, 0.8]])
    for k in (1, 10, 1000):
        assert np.allclose(rounding.of_powers(z, k), k * 0.4 * 2.0 * 2.0**-52, rtol=1e-9, atol=0)


@pytest.mark.slow
def test_a_stop_epoch_is_foretold_to_the_epoch_or_not_at_all():
    """Ever nearer to the floor of float32 rounding decides first by one epoch, then by more."""
    found = []
    for epsilon in np.geomspace(1e-7, 1e-12, 20):
        config = ss.TrainConfig(lr=0.02, batch_size=50, epochs=4000, stop=("full", float(epsilon)))
        found.append(predictions.predict(small_curve(), config).get("stop_epoch_tolerance"))
    assert {one for one in found if one is not None} <= {0.0, 1.0}
    assert found[0] is not None
    assert found[-1] is None


def test_a_descent_diverges_where_the_sum_of_its_losses_is_beyond_float32():
    """The mean of the squares is a sum first: 100 times as large, and not finite any more."""
    problem, lr, epochs = small_curve(), 3.0, 6
    assert lr > float(ss.expect(ss.Arm(problem)).lr_limit)
    whole = {"lr": lr, "batch_size": problem.d, "order": "sequential", "epochs": epochs}
    exact = ss.train(problem, **whole, dtype="float64").epochs["running_loss"].to_numpy()
    ratio = 0.1 * np.finfo(np.float32).max / exact[3]  # its mean is below the largest
    w_star = problem.least_squares.w_star
    start = w_star + ratio**0.5 * (problem.initial([0])[0].double().numpy() - w_star)
    far = ss.Arm(problem.replace(w_init=start), **whole)
    run = ss.train(far.problem, config=far.config)
    assert run.stop_reason[0] == "diverged"
    assert run.stop_epoch[0] == 4
    finite = np.isfinite(ss.expect(far).losses("running_loss")[0][:, 0])
    assert finite.tolist() == [True, True, True, False, False, False]
