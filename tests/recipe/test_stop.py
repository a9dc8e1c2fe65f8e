"""When a run stops: on any column of epochs, with patience, or no better; as a function says."""

import itertools
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, literal_curve, one_line, small_curve
from hypothesis import given
from hypothesis import strategies as st

import sgdstudy as ss
from sgdstudy.recipe import columns
from sgdstudy.recipe import stop as stops
from sgdstudy.recipe.identity import Identity
from sgdstudy.studies.arm import at_settings
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.theory.predictions import predict
from sgdstudy.tracking import describe
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.store import open_store
from sgdstudy.training import run as trainer

CURVE = small_curve(noise=0.1)
CURVE = CURVE.replace(test=(CURVE.x[:9], CURVE.y[:9]))
CLASSES = ss.Problem(
    np.linspace(-1, 1, 40, dtype="f")[:, None],
    (np.arange(40) % 7 > 2).astype(int) * (np.arange(40) > 11),
    lambda w, x: x * w[:2] + w[2:],
    "cross_entropy",
    w_init=[0.0] * 4,
    test=(np.linspace(-0.9, 0.9, 9, dtype="f")[:, None], np.arange(9) // 5),
)


def near_score(f, y):
    return ((f - y).abs() < 0.2).float().mean()


def worst(f, y):
    return (f - y).abs().max()


GIVEN = {"batch_size": 10, "epochs": 30, "seeds": range(6), "ema": 0.9, "average": 0.0}
RUNS = {
    "curve": (CURVE, GIVEN | {"lr": 0.1, "measures": {"near_score": near_score, "worst": worst}}),
    "classes": (CLASSES, GIVEN | {"lr": 0.5}),
}
FREE = {}  # runs without a stop rule, trained once


def free(name, engine="auto"):
    if (name, engine) not in FREE:
        problem, settings = RUNS[name]
        FREE[name, engine] = ss.train(problem, **settings, engine=engine)
    return FREE[name, engine]


COLUMNS = [
    (name, column)
    for name, (problem, settings) in RUNS.items()
    for column in ss.TrainConfig(**settings).epoch_columns(problem)
]


def by_hand(values, above, epsilon, patience):
    """The epoch, from 1, at which one seed stops; infinite: none."""
    row, best = 0, -np.inf if above else np.inf
    for epoch, value in enumerate(values, 1):
        better = value > best if above else value < best
        reached = epsilon is not None and (value > epsilon if above else value < epsilon)
        held = not better if epsilon is None else reached
        best = value if better else best
        row = row + 1 if held else 0
        if row == patience:
            return epoch
    return np.inf


@given(
    values=st.lists(
        st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, np.inf, np.nan]), min_size=2, max_size=2),
        min_size=1,
        max_size=12,
    ),
    epsilon=st.sampled_from([None, 1.0, 2.5]),
    patience=st.integers(1, 4),
    rule=st.sampled_from(["full", "test_accuracy"]),
    cut=st.integers(0, 12),
)
def test_it_is_what_one_finds_by_hand_however_the_epochs_are_cut(
    values, epsilon, patience, rule, cut
):
    array, watch, done = np.array(values), stops.Watch.of(2), 0
    found = np.full(2, np.inf)
    for part in (array[:cut], array[cut:]):
        if len(part):
            first, watch = stops.look(part, (rule, epsilon), patience, watch)
            here = np.where(first < len(part), done + first + 1.0, np.inf)
            found, done = np.minimum(found, here), done + len(part)
    above = rule == "test_accuracy"
    assert found.tolist() == [by_hand(seed, above, epsilon, patience) for seed in array.T]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "column"), COLUMNS)
def test_a_run_stops_on_any_column_as_its_rows_say(name, column):
    problem, settings = RUNS[name]
    rows, above = free(name).epochs, columns.more_is_better(column)
    values = rows.pivot(index="epoch", columns="seed", values=column)
    middle = float(np.median(values.iloc[3:20]))
    for epsilon, patience in itertools.product((middle, None), (1, 3)):
        history = ss.train(problem, **settings, stop=(column, epsilon), patience=patience)
        found = [by_hand(values[seed], above, epsilon, patience) for seed in range(6)]
        assert history.converged_epoch.tolist() == found
        kept = rows[rows["epoch"].to_numpy() <= np.array(found)[rows["seed"]]]
        assert history.epochs.equals(kept.reset_index(drop=True))  # and nothing of it is changed


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_engines_stop_by_their_own_rows(engine):
    problem, settings = RUNS["curve"]
    values = free("curve", engine).epochs.pivot(index="epoch", columns="seed", values="test_worst")
    stop = {"stop": ("test_worst", None), "patience": 4}
    history = ss.train(problem, **settings, **stop, engine=engine)
    assert history.engine == engine
    found = [by_hand(values[seed], False, None, 4) for seed in range(6)]
    assert history.converged_epoch.tolist() == found
    assert np.isfinite(found).any()


def test_a_column_that_has_a_rules_name_is_that_rule():
    for rule, column in stops.STOP_COLUMNS.items():
        one, other = (ss.TrainConfig(stop=(name, 0.1)) for name in (rule, column))
        assert one.stop == other.stop == (rule, 0.1)


def test_rules_that_differ_are_different_runs():
    given = [
        {"stop": stop, "patience": patience}
        for stop in (("full", 0.1), ("full", None), ("test_loss", 0.1), ("test_loss", None))
        for patience in (1, 2)
    ]
    configs = [ss.TrainConfig(**one) for one in [{}, *given]]
    assert len({Identity.of(CURVE, config).hash for config in configs}) == len(configs)
    hashes = {describe.config_hash(CURVE, describe.parameters(CURVE, c)) for c in configs}
    assert len(hashes) == len(configs)


REFUSED = [
    (CURVE, {"stop": ("accuracy", 0.9)}, "looks at accuracy, which this run does not record"),
    (CURVE, {"stop": ("ema_loss", 0.9)}, "looks at ema_loss, .*; it has running_loss, full_loss"),
    (CLASSES, {"stop": ("distance", 0.9)}, "looks at distance"),
    (CURVE.replace(test=None), {"stop": ("test_loss", None)}, "looks at test_loss"),
    (
        CURVE.replace(test=None),
        {"stop": ("test_worst", 1.0), "measures": {"worst": worst}},
        "looks at test_worst",
    ),
]


@pytest.mark.parametrize(("problem", "settings", "says"), REFUSED)
def test_a_column_that_the_run_does_not_have_is_refused_in_one_line(problem, settings, says):
    for act in (ss.train, ss.Arm):
        with pytest.raises(ss.InputError, match=says) as error:
            act(problem, **settings)
        assert one_line(error)


def test_theory_speaks_of_the_first_epoch_below_epsilon_alone():
    settings = {"optimizer": "SGD", "lr": 0.1, "batch_size": 10, "epochs": 40, "order": "strided"}
    curve = small_curve()

    def found(lr=0.1, **changes):
        return predict(curve, ss.TrainConfig(**(settings | {"lr": lr} | changes)))

    assert "stop_epoch" in found(stop=("full_loss", 0.5))
    for other in (
        {"stop": ("full", 0.5), "patience": 2},
        {"stop": ("full", None)},
        {"stop": ("distance", 0.5)},
    ):
        assert set(found(**other)) == {"rho"}  # of an epoch, wherever it stops
        full = other | {"batch_size": None}
        assert found(**full) == {}
        grows = {"lr": 3.0, "batch_size": None, "epochs": 20}
        assert "growth_per_epoch" in found(**grows)
        assert found(**grows, **other) == {}  # it may stop first
        config = ss.TrainConfig(**(settings | other))
        with pytest.raises(ss.InputError, match="needs a stop rule"):
            _ = ss.expect(ss.Arm(curve, **(settings | full))).lr_best_for_epsilon
        assert config.simple_stop is None


SCRIPT = '''
"""Which seed stops when?"""
import sgdstudy as ss

class Options(ss.Options):
    seeds: int = 3

def arms(o):
    curve = ss.problems.curve(noise=0.1)
    sgd = ss.Arm(curve, lr=1e-4, batch_size=10, epochs=60, seeds=o.seed_range(),
                 stop=("distance", None), patience=2)
    yield "patient", sgd
    yield "first", sgd.but(stop=("full_grad_norm", 5.0), patience=1)

def claims(o, runs):
    yield from ss.predicted_claims(runs)

def answer(o, runs, claims):
    return "so"

STUDY = ss.study(__name__)
'''


@pytest.mark.slow
def test_a_study_records_reruns_and_compares_it(store, tmp_path, capsys):
    script = tmp_path / "patient.py"
    script.write_text(SCRIPT)
    result = ss.run(str(script), store=store)
    assert not result.failed
    runs = ss.load_runs("patient", store=store).set_index("arm")
    assert runs.loc["patient", ["stop", "patience"]].tolist() == ["distance", 2]
    assert runs.loc["first", "stop"] == "grad_norm"
    for arm, history in result.runs.items():
        found = ss.compare(arm, history, study="patient", store=store).values
        assert found["a"].tolist() == found["b"].tolist()
        assert len(found) == 3
    assert call("rerun", *runs["run_id"], "--store", store, "--script", script) == 0
    assert capsys.readouterr().out.count("identical") == 2


@pytest.mark.slow
def test_a_sweep_names_patience(store, tmp_path):
    script = tmp_path / "patient.py"
    script.write_text(SCRIPT)
    words = ("--grid", "patience=1,2", "epsilon=none,0.5", "--jobs", 1, "--store", store)
    assert call("sweep", script, *words, "--seeds", 2) == 0
    swept = ss.load_runs("patient_sweep", store=store)
    assert len(swept) == 4
    assert swept[["epsilon", "patience"]].astype(str).drop_duplicates().shape == (4, 2)


def test_the_sentence_of_a_run_says_it(store):
    arm = ss.Arm(CURVE, lr=0.1, batch_size=10, epochs=5, stop=("test_loss", None), patience=2)
    params = describe.parameters(arm.problem, arm.config)
    assert (params["stop"], params["epsilon"], params["patience"]) == ("test_loss", "None", "2")
    said = "at most 5 epochs, until test_loss gets no better at 2 epochs in a row;"
    assert said in describe.sentence(params)
    train_arm(Invocation.start(open_store(store), "said"), "arm", arm, False)
    (run,) = ss.load_runs("said", store=store).to_dict("records")
    assert stops.recorded(run) == (("test_loss", None), 2)
    assert stops.recorded({"stop": "none", "epsilon": "None"}) == (None, 1)
    assert stops.recorded({"stop": "full", "epsilon": 0.5}) == (("full", 0.5), 1)


# ---- a function of an epoch's row ----------------------------------------------------------------


def below(column, epsilon):
    return lambda row: row[column] < epsilon


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("patience", [1, 3])
@pytest.mark.parametrize("cut", [False, True])
def test_a_function_stops_where_its_rows_say(engine, patience, cut, monkeypatch):
    if cut:
        monkeypatch.setattr(trainer, "FIRST_STEPS", 1)  # chunks of other lengths
    problem, settings = RUNS["curve"]
    rows = free("curve", engine).epochs
    values = rows.pivot(index="epoch", columns="seed", values="test_worst")
    epsilon = float(np.median(values.iloc[3:20]))
    given = settings | {"stop": below("test_worst", epsilon), "patience": patience}
    history = ss.train(problem, **given, engine=engine)
    assert history.engine == engine
    found = [by_hand(values[seed], False, epsilon, patience) for seed in range(6)]
    assert history.converged_epoch.tolist() == found
    assert np.isfinite(found).any()
    kept = rows[rows["epoch"].to_numpy() <= np.array(found)[rows["seed"]]]
    assert history.epochs.equals(kept.reset_index(drop=True))


def test_it_is_the_rule_of_the_same_column_with_a_literal_loop():
    problem, n = small_curve(noise=0.1), 30
    run = ss.train(
        problem,
        optimizer="notebook",
        lr=0.1,
        batch_size=10,
        epochs=n,
        seeds=(3, 5),
        stop=lambda row: row["running_loss"] < 0.3,
    )
    for r, seed in enumerate((3, 5)):
        loop = literal_curve(problem, seed=seed, lr=0.1, batch_size=10, epochs=n)
        sizes = np.array([10] * 5 + [3])
        running = loop.losses.numpy().astype(float).reshape(n, 6) @ sizes / 53
        assert run.stop_epoch[r] == 1 + int((running < 0.3).argmax())


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("first", [256, 6])  # steps of the first chunk
def test_it_gets_the_very_rows_in_their_order_and_no_other(name, first, monkeypatch):
    monkeypatch.setattr(trainer, "FIRST_STEPS", first)
    problem, settings = RUNS[name]
    asked = []

    def until(row):
        asked.append(row)
        return row["epoch"] >= 3 + row["seed"]

    history = ss.train(problem, **settings, clock=True, stop=until)
    assert history.stop_epoch.tolist() == [3, 4, 5, 6, 7, 8]
    got = pd.DataFrame(asked)
    assert got["epoch"].is_monotonic_increasing
    rows = history.epochs.drop(columns="elapsed_seconds")
    got = got.sort_values(["seed", "epoch"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(got, rows, check_dtype=False, check_exact=True)
    assert {type(value) for row in asked for value in row.values()} == {int, float}


def test_a_seed_that_diverges_is_not_asked_about_what_never_was():
    asked = []

    def never(row):
        asked.append((row["seed"], row["epoch"]))
        assert np.isfinite(row["running_loss"])
        return False

    history = ss.train(CURVE, lr=40.0, batch_size=10, epochs=60, seeds=range(4), stop=never)
    assert (history.stop_reason == "diverged").all()
    rows = history.epochs[["seed", "epoch"]]
    assert sorted(asked) == sorted(rows.itertuples(index=False, name=None))


def test_beside_evaluate_every_it_gets_what_the_batches_say():
    problem, settings = RUNS["classes"]
    seen = set()

    def until(row):
        seen.update(row)
        return row["running_loss"] < 0.66

    every = ss.train(problem, **settings, stop=("running", 0.66))
    some = ss.train(problem, **settings, stop=until, evaluate_every=7)
    assert seen >= {"seed", "epoch", "running_loss", "last_loss", "mean_loss"}
    assert not seen & {"full_loss", "accuracy", "test_loss"}
    assert np.array_equal(some.stop_epoch, every.stop_epoch)
    assert (some.stop_reason == "converged").any()
    ends = some.epochs.groupby("seed").tail(1)
    assert ends.equals(every.epochs.groupby("seed").tail(1))  # evaluated where it stops


def fails(row):
    return row["nothing"] > 1


class Object:
    def __call__(self, row):
        return None


WRONG = [
    (fails, r"'fails' failed: KeyError: 'nothing'; a row has seed, epoch, running_loss, full_loss"),
    (lambda row: 1, r"what the stop rule '<lambda>' returns is True or False, not 1"),
    (lambda row: row["running_loss"], r"returns is True or False, not \d"),
    (Object(), r"what the stop rule 'Object' returns is True or False, not None"),
    (lambda: True, r"the stop rule '<lambda>' failed: TypeError"),
]


@pytest.mark.parametrize(("stop", "says"), WRONG)
def test_what_fails_or_says_neither_yes_nor_no_is_one_line(stop, says):
    with pytest.raises(ss.InputError, match=says) as error:
        ss.train(CURVE, epochs=2, stop=stop)
    assert one_line(error)


@pytest.mark.parametrize("yes", [np.True_, torch.tensor(True), True])
def test_truth_is_numpys_and_torchs_too(yes):
    assert ss.train(CURVE, epochs=4, stop=lambda row: yes).stop_epoch.tolist() == [1]


def test_another_function_is_another_run():
    settings = [{"stop": below("full_loss", e), "patience": n} for e in (0.1, 0.2) for n in (1, 2)]
    configs = [ss.TrainConfig(**one) for one in [{}, {"stop": ("full", 0.1)}, *settings]]
    assert len({Identity.of(CURVE, config).hash for config in configs}) == len(configs)
    again = ss.TrainConfig(stop=below("full_loss", 0.1))
    assert Identity.of(CURVE, again).hash == Identity.of(CURVE, configs[2]).hash
    lock = threading.Lock()
    unseen = Identity.of(CURVE, ss.TrainConfig(stop=lambda row: lock.locked()))
    assert (unseen.hash, "the stop" in unseen.unseen) == ("", True)


def test_a_function_that_looks_up_late_is_refused():
    arms = []
    for epsilon in (0.1, 0.2):
        arms.append(ss.Arm(CURVE, epochs=2, stop=lambda row: row["full_loss"] < epsilon))  # noqa: B023
    with pytest.raises(ss.InputError, match="epsilon") as error:
        ss.train(CURVE, config=arms[0].config)
    assert one_line(error)


def test_theory_and_grids_of_epsilon_have_nothing_of_a_function():
    arm = ss.Arm(CURVE, lr=0.1, batch_size=10, epochs=9, stop=below("full_loss", 0.1))
    assert arm.config.simple_stop is None
    assert predict(CURVE, arm.config) == {}
    with pytest.raises(ss.InputError, match="the arm stops by a function") as error:
        at_settings(arm, {"epsilon": 0.2}, "steps")
    assert one_line(error)
    assert at_settings(arm, {"patience": 2}, "steps").config.stop is arm.config.stop
    ss.figures.loss_by_epoch({"a": ss.train(CURVE, config=arm.config)})


def test_what_is_said_of_a_function():
    arm = ss.Arm(CURVE, lr=0.1, batch_size=10, epochs=9, stop=fails, patience=2)
    params = describe.parameters(arm.problem, arm.config)
    assert (params["stop"], params["epsilon"]) == ("fails()", "None")
    said = "at most 9 epochs, until fails() is true at 2 epochs in a row;"
    assert said in describe.sentence(params)
    with pytest.raises(ss.InputError, match=r"stops by a function, fails\(\)") as error:
        stops.recorded(params)
    assert one_line(error)
