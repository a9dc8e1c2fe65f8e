"""When a run stops: on any column of epochs, above or below, with patience, or no better."""

import itertools

import numpy as np
import pytest
from conftest import call, one_line, small_curve
from hypothesis import given
from hypothesis import strategies as st

import sgdstudy as ss
from sgdstudy.recipe import columns
from sgdstudy.recipe import stop as stops
from sgdstudy.recipe.identity import Identity
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.theory.predictions import predict
from sgdstudy.tracking import describe
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.store import open_store

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
