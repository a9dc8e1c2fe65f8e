"""Runs that end after so many steps, within an epoch too: the first steps of the literal loop."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import call, literal_curve, one_line, recorded, small_curve

import sgdstudy as ss
from sgdstudy.recipe import orders
from sgdstudy.recipe.identity import Identity
from sgdstudy.sweeps.estimate import estimate
from sgdstudy.theory.predictions import predict
from sgdstudy.tracking import describe
from sgdstudy.training import run as trainer

CURVE = small_curve(noise=0.1)  # 53 samples: 6 batches an epoch
CURVE = CURVE.replace(test=(CURVE.x[:9], CURVE.y[:9]))
M, D = 6, 53
GIVEN = {"optimizer": "notebook", "lr": 0.1, "batch_size": 10, "epochs": 9, "seeds": (4, 7)}
LITERAL = {
    seed: literal_curve(CURVE, seed=seed, lr=0.1, batch_size=10, epochs=9) for seed in (4, 7)
}


def trained(steps, **settings):
    return ss.train(CURVE, **(GIVEN | {"steps": steps} | settings))


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("first", [256, 4])  # steps of the first chunk
@pytest.mark.parametrize("steps", [1, 4, M, M + 1, 3 * M, 3 * M + 5, 9 * M])
def test_a_run_is_the_first_steps_of_the_literal_loop(steps, first, engine, monkeypatch):
    monkeypatch.setattr(trainer, "FIRST_STEPS", first)
    run = trained(steps, engine=engine)
    assert run.engine == engine
    assert run.n_steps.tolist() == [steps] * 2
    assert run.stop_reason.tolist() == ["max_steps"] * 2
    assert run.stop_epoch.tolist() == [-(-steps // M)] * 2
    assert run.config.n_steps(D) == steps
    for r, seed in enumerate((4, 7)):
        ws = LITERAL[seed].ws.numpy()
        ws = np.array([*ws, LITERAL[seed].w.numpy()])
        assert np.array_equal(recorded(run, seed), ws[:steps])
        assert np.array_equal(run.w[r], ws[steps])


def test_the_row_of_an_epoch_that_is_cut_short_is_of_its_batches():
    n = 3 * M + 4
    run = trained(n, average=0.0, ema=0.5, seeds=[4])
    rows = run.epochs
    assert rows["epoch"].tolist() == [1, 2, 3, 4]
    ws = np.array([*LITERAL[4].ws.numpy(), LITERAL[4].w.numpy()], dtype=float)
    losses = LITERAL[4].losses.numpy().astype(float)[3 * M : n]  # of batches of 10
    sizes = np.array([10] * 5 + [3])
    whole = LITERAL[4].losses.numpy().astype(float)[:M]
    assert rows["running_loss"][0] == pytest.approx(whole @ sizes / D, rel=1e-6)
    last = rows.iloc[3]
    assert last["running_loss"] == pytest.approx(losses.mean(), rel=1e-6)
    assert last["mean_loss"] == pytest.approx(losses.mean(), rel=1e-6)
    assert last["sum_loss"] == pytest.approx(losses.sum(), rel=1e-6)
    assert last["last_loss"] == pytest.approx(losses[-1], rel=1e-6)
    gradients = LITERAL[4].gradients.numpy().astype(float)[3 * M : n]
    norms = np.linalg.norm(gradients, axis=1)
    assert last["mean_grad_norm"] == pytest.approx(norms.mean(), rel=1e-5)
    assert last["norm_mean_grad"] == pytest.approx(np.linalg.norm(gradients.mean(0)), rel=1e-5)
    assert last["full_loss"] == pytest.approx(CURVE.full(ws[n : n + 1])[0][0], rel=1e-6)
    assert last["distance"] == pytest.approx(run.distance[0], rel=1e-6)
    mean = ws[1 : n + 1].mean(0, keepdims=True)
    assert last["average_loss"] == pytest.approx(CURVE.full(mean)[0][0], rel=1e-5)
    ema = ws[1]
    for w in ws[1 : n + 1]:
        ema = 0.5 * ema + 0.5 * w
    assert last["ema_loss"] == pytest.approx(CURVE.full(ema[None])[0][0], rel=1e-5)
    steps = run.steps
    assert steps["epoch"].tolist() == [k // M + 1 for k in range(n)]
    assert steps["batch"].tolist() == [k % M for k in range(n)]


def test_an_average_is_of_the_epochs_that_the_run_has():
    n = 3 * M + 4  # four epochs, of the last two of which the mean is
    run = trained(n, average=0.5, seeds=[4])
    ws = np.array([*LITERAL[4].ws.numpy(), LITERAL[4].w.numpy()], dtype=float)
    mean = ws[2 * M + 1 : n + 1].mean(0, keepdims=True)
    found = run.epochs["average_loss"].to_numpy()
    assert found[-1] == pytest.approx(CURVE.full(mean)[0][0], rel=1e-5)
    assert found[1] == pytest.approx(CURVE.full(ws[2 * M : 2 * M + 1])[0][0], rel=1e-6)


@pytest.mark.parametrize("order", [name for name in orders.ORDERS if name != "stream"])
@pytest.mark.parametrize("steps", [4, 2 * M + 3])
def test_every_order_goes_on_as_if_nobody_counted(order, steps):
    whole, some = (trained(n, order=order, engine="eager") for n in (None, steps))
    for seed in (4, 7):
        assert np.array_equal(recorded(some, seed), recorded(whole, seed)[:steps])
    assert np.array_equal(some.w, [recorded(whole, seed)[steps] for seed in (4, 7)])
    full = whole.epochs["epoch"] <= steps // M
    mine = some.epochs["epoch"] <= steps // M
    assert (
        some.epochs[mine].reset_index(drop=True).equals(whole.epochs[full].reset_index(drop=True))
    )


def test_a_stream_full_batches_and_arrays_end_there_too():
    def stream(generator):
        while True:
            x = torch.rand(7, generator=generator)
            yield x, 2 * x

    problem = CURVE.replace(stream=stream)
    whole, some = (
        ss.train(problem, **(GIVEN | {"order": "stream", "steps": steps})) for steps in (None, 8)
    )
    assert np.array_equal(recorded(some, 7), recorded(whole, 7)[:8])
    full = trained(5, batch_size=None)
    assert (full.n_steps[0], full.stop_epoch[0]) == (5, 5)
    array = np.arange(2 * 3 * 10).reshape(2, 3, 10) % D  # enough for five steps, not nine epochs
    few = trained(5, order=array)
    assert few.epochs["epoch"].tolist() == [1, 2] * 2
    with pytest.raises(ss.InputError, match="holds 2 epochs, fewer than epochs=9"):
        trained(None, order=array)


def test_a_schedule_ends_with_the_last_step():
    n = 2 * M + 3
    run = trained(n, schedule="CosineAnnealingLR", seeds=[4])
    own = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(own, T_max=n)
    lrs = []
    for _ in range(n):
        lrs.append(scheduler.get_last_lr()[0])
        own.step()
        scheduler.step()
    np.testing.assert_allclose(run.array("steps", "lr")[:, 0], lrs, rtol=1e-12)
    by_epoch = trained(n, schedule="CosineAnnealingLR", schedule_unit="epoch", seeds=[4])
    three = np.repeat(0.05 * (1 + np.cos(np.pi * np.arange(3) / 3)), M)[:n]  # it has three epochs
    np.testing.assert_allclose(by_epoch.array("steps", "lr")[:, 0], three, rtol=1e-12)


def test_a_batch_schedule_goes_as_far_as_the_steps():
    given = {"batch_size": 5, "batch_schedule": {1: 10, 2: 53, 4: 20}}
    whole = trained(None, **given)
    for steps in (3, 11, 14, 17, 18, 19, 21):  # epochs of 11, 6, 1, 1, 3 steps
        some = trained(steps, **given)
        assert np.array_equal(recorded(some, 4), recorded(whole, 4)[:steps])
        assert some.steps["size"].tolist() == [
            *whole.steps["size"][:steps],
            *whole.steps["size"][:steps],
        ]


def test_the_last_row_is_there_and_evaluated():
    n = 4 * M + 2
    run = trained(n, evaluate_every=3, record_rows=9)
    assert run.epochs[run.epochs["epoch"] == 5].notna().all(axis=None)
    assert run.steps.groupby("seed")["step"].max().tolist() == [n - 1] * 2
    step = run.steps["step"].tolist()  # nine rows of 52 were asked for: every sixth, and the last
    assert step == [0, 6, 12, 18, 24, 25] * 2


def test_a_stop_rule_is_looked_at_where_the_steps_end():
    n = 3 * M + 4
    loss = trained(n).epochs.query("epoch == 4")["running_loss"].to_numpy()
    run = trained(n, stop=("running", float(loss.max()) * 1.01), patience=1)
    assert (run.stop_reason == "converged").all()
    never = trained(n, stop=("running", 1e-9))
    assert never.stop_reason.tolist() == ["max_steps"] * 2
    assert never.converged_epoch.tolist() == [np.inf] * 2
    assert "none of 4 epochs" in never.when()


def test_a_seed_that_diverges_before_does():
    run = trained(2 * M + 1, lr=1e30)
    assert (run.stop_reason == "diverged").all()
    assert (run.n_steps < 2 * M + 1).all()


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({"steps": 9 * M + 1}, 10),
        ({"steps": 100 * M}, 100),
        ({"steps": 100 * M + 1}, 101),
        ({"steps": 10, "batch_size": None}, 10),
        ({"steps": 60, "batch_size": 5, "batch_schedule": {1: 10, 2: 53}}, 45),
    ],
)
def test_more_steps_than_the_epochs_have_are_refused_with_what_it_takes(settings, needed):
    with pytest.raises(ss.InputError, match=f"give epochs={needed} too") as error:
        ss.Arm(CURVE, **(GIVEN | settings))
    assert one_line(error)
    assert ss.Arm(CURVE, **(GIVEN | settings | {"epochs": needed})).n_steps == settings["steps"]
    with pytest.raises(ss.InputError, match="give epochs="):
        ss.Arm(CURVE, **(GIVEN | settings | {"epochs": needed - 1}))


@pytest.mark.parametrize("steps", [0, -1, 2.5, "many", True, 10**13])
def test_what_counts_no_steps_is_refused(steps):
    with pytest.raises(ss.InputError, match="steps") as error:
        ss.TrainConfig(steps=steps)
    assert one_line(error)
    with pytest.raises(ss.InputError, match="steps is known from the steps"):
        ss.History.from_arrays(CURVE, np.zeros((4, 3)), lr=0.1, steps=2)


def test_theory_follows_whole_epochs_and_refuses_others():
    settings = GIVEN | {"epochs": 40, "order": "strided", "stop": ("full", 0.1)}
    by_epochs = ss.TrainConfig(**(settings | {"epochs": 30}))
    whole, cut = (ss.TrainConfig(**settings, steps=n) for n in (30 * M, 30 * M - 1))
    assert predict(CURVE, whole) == predict(CURVE, by_epochs) != {}
    assert predict(CURVE, cut) == {}
    known, same = (
        ss.expect(ss.Arm(CURVE, **(settings | more)))
        for more in ({"steps": 30 * M}, {"epochs": 30})
    )
    assert np.array_equal(known.losses("full_loss"), same.losses("full_loss"))
    for look in (ss.expect, lambda arm: ss.theory.batches(CURVE, arm.config)):
        with pytest.raises(ss.InputError, match=r"steps=179 cuts the last one short") as error:
            look(ss.Arm(CURVE, **settings, steps=30 * M - 1))
        assert one_line(error)


def test_by_epochs_leaves_out_what_comes_later():
    config = ss.TrainConfig(**GIVEN | {"batch_size": 5, "batch_schedule": {2: 10, 4: 53}}, steps=22)
    same = config.by_epochs(D)
    assert (same.epochs, same.steps, same.batch_schedule) == (2, None, ())
    assert same.n_steps(D) == 22


@pytest.mark.parametrize("steps", [2 * M, 2 * M + 3])
def test_it_is_drawn(steps):
    runs = {
        "a": trained(steps, stop=("running", 1e-3)),
        "b": trained(steps, batch_size=None, epochs=99),
    }
    for draw in (ss.figures.loss_by_epoch, ss.figures.within_epoch, ss.figures.stop_epochs):
        draw(runs)
    ss.figures.cockpit(trained(steps, diagnostics="full"))


def test_it_is_another_run_and_says_so():
    configs = [ss.TrainConfig(**GIVEN, steps=n) for n in (None, 7, 8)]
    assert len({Identity.of(CURVE, config).hash for config in configs}) == 3
    assert "steps" not in Identity.of(CURVE, configs[0]).parts
    params = [describe.parameters(CURVE, config) for config in configs]
    assert "max_steps" not in params[0]
    assert params[1]["max_steps"] == "7"
    assert "; at most 7 steps; seeds" in describe.sentence(params[1])
    assert "; at most 9 epochs; seeds" in describe.sentence(params[0])
    assert describe.ended("2 max_steps, 1 diverged") == "2 max steps, 1 diverged"


SCRIPT = '''
"""How far does it get in so many steps?"""
import numpy as np
import sgdstudy as ss

class Options(ss.Options):
    seeds: int = 3
    patient: float = 0.5

def arms(o):
    curve = ss.problems.curve(noise=0.1)
    def near(row):
        return row["full_loss"] < o.patient
    sgd = ss.Arm(curve, lr=1e-4, batch_size=10, epochs=60, seeds=o.seed_range(), steps=1234)
    yield "counted", sgd
    yield "asked", sgd.but(stop=near, patience=2, steps=None)
    each = np.random.default_rng(0).integers(0, 2000, (o.seeds, 60, 20, 10))
    yield "arrays", sgd.but(order=each, steps=None)

def claims(o, runs):
    yield from ss.predicted_claims(runs)

def answer(o, runs, claims):
    return "so"

STUDY = ss.study(__name__)
'''


@pytest.mark.slow
def test_a_study_records_loads_and_reruns_them(store, tmp_path, capsys):
    script = tmp_path / "counted.py"
    script.write_text(SCRIPT)
    result = ss.run(str(script), store=store)
    assert not result.failed
    runs = ss.load_runs("counted", store=store).set_index("arm")
    assert runs.loc["counted", "stop_reason"] == "max_steps"
    assert runs.loc["counted", ["max_steps", "steps"]].tolist() == [1234, 3 * 1234]
    assert runs.loc["asked", "stop"] == "near()"
    assert runs.loc["arrays", "order"] == "array"
    rows = ss.load_steps("counted", columns=["arm", "seed", "step"], store=store)
    assert rows.groupby("arm", observed=True)["step"].max().loc["counted"] == 1233
    ends = ss.load_epochs("counted", columns=["arm", "seed", "epoch"], store=store)
    assert ends.groupby("arm", observed=True)["epoch"].max().loc["counted"] == 7  # of 200 steps
    assert call("rerun", *runs["run_id"], "--store", store, "--script", script) == 0
    assert capsys.readouterr().out.count("identical") == 3
    assert call("report", "--store", store, "--out", tmp_path / "report.html") == 0
    assert "max steps" in (tmp_path / "report.html").read_text(encoding="utf-8")
    with pytest.raises(ss.InputError, match=r"stops by a function, near\(\)") as error:
        ss.compare("asked", "counted", study="counted", metric="stop_epoch", store=store)
    assert one_line(error)


SWEPT = {
    "counted": ("batch_size=10,20",),
    "asked": ("patient=0.5,5.0", "patience=1,2"),
    "arrays": ("lr=1e-4,2e-4",),
}


@pytest.mark.slow
def test_they_are_swept_and_nothing_is_run_twice(store, tmp_path):
    script = tmp_path / "counted.py"
    script.write_text(SCRIPT)

    def swept(arm):
        words = ("--arm", arm, "--grid", *SWEPT[arm], "--resume", "--seeds", 2)
        assert call("sweep", script, *words, "--jobs", 1, "--store", store) == 0
        return ss.load_runs("counted_sweep", store=store, invocation="all")

    found = [swept(arm) for arm in SWEPT]
    assert [len(runs) for runs in found] == [2, 6, 8]
    assert (found[-1]["status"] == "FINISHED").all()
    assert found[0].set_index("batch_size")["steps"].to_dict() == {10: 2 * 1234, 20: 2 * 1234}
    asked = found[1][found[1]["stop"] == "near()"].fillna({"patience": 1})
    stops = asked.set_index(["option.patient", "patience"])
    assert np.isfinite(stops["stop_epoch"]).all()
    for patience in (1, 2):  # the option is what it reads
        assert stops["stop_epoch"][0.5, patience] > stops["stop_epoch"][5.0, patience]
    assert stops["stop_epoch"][0.5, 2] > stops["stop_epoch"][0.5, 1]
    assert [len(swept(arm)) for arm in SWEPT] == [8, 8, 8]


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({"steps": 4}, 8),
        ({"steps": 3 * M + 4}, 2 * (3 * M + 4)),
        ({"order": np.arange(180).reshape(2, 3, 3, 10) % D, "steps": 8}, 16),
        ({"batch_size": 5, "batch_schedule": {3: 10}}, 2 * (3 * 11 + 6 * 6)),
        ({"stop": lambda row: True}, 2 * 9 * M),
    ],
)
def test_how_long_a_sweep_takes_is_told_by_a_trial_of_its_first_epochs(settings, most):
    combination = SimpleNamespace(arm=ss.Arm(CURVE, **(GIVEN | settings)))
    assert f"at most {most} steps over all seeds" in estimate([combination], 1)


def test_a_plain_run_is_tracked_with_them(store):
    run = trained(2 * M + 3, stop=lambda row: row["epoch"] == 2, seeds=[4])
    assert (run.n_steps[0], run.stop_reason[0]) == (2 * M, "converged")
    ss.track(run, "plain", "arm", store=store)
    (found,) = ss.load_runs("plain", store=store).to_dict("records")
    assert found["stop"] == "<lambda>()"
    assert found["stop_reason"] == "converged"
