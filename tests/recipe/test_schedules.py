"""Step sizes that change, Polyak's step, and averages of the parameters."""

import re
import sys

import numpy as np
import pytest
import torch
from conftest import one_line, small_curve
from torch.optim import lr_scheduler

import sgdstudy as ss
from sgdstudy.errors import InputError
from sgdstudy.recipe import schedules
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.theory.predictions import predict

SAME = {"lr": 0.05, "batch_size": 10, "epochs": 8, "seeds": range(3)}
OPTIONS = {
    "ConstantLR": {"factor": 0.5, "total_iters": 7},
    "CosineAnnealingLR": {"eta_min": 0.001},
    "CosineAnnealingWarmRestarts": {"T_0": 9},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 5},
    "ExponentialLR": {"gamma": 0.97},
    "LinearLR": {"start_factor": 0.1, "total_iters": 12},
    "MultiStepLR": {"milestones": [5, 20], "gamma": 0.3},
    "OneCycleLR": {"max_lr": 0.1},
    "PolynomialLR": {"power": 2.0},
    "StepLR": {"step_size": 6, "gamma": 0.5},
}


def test_every_schedule_of_torch_is_tried():
    assert set(OPTIONS) == set(schedules.BY_STEP)


def literal(name, options, optimizer, seed=0):
    """The parameters before each step, by torch's own loop."""
    problem, n_steps = small_curve(noise=0.1), 48
    order = ss.orders.Sampler("shuffle", [seed], 53, 10).take(53 * 8)[0]
    w = problem.initial([seed])[0].requires_grad_()
    opt = getattr(torch.optim, optimizer)([w], lr=SAME["lr"])
    lengths = {"CosineAnnealingLR": "T_max", "OneCycleLR": "total_steps"}
    lengths["PolynomialLR"] = "total_iters"
    whole = {lengths[name]: n_steps} if name in lengths else {}
    if name in ("CyclicLR", "OneCycleLR"):
        whole["cycle_momentum"] = False
    schedule = getattr(lr_scheduler, name)(opt, **whole, **options)
    ws, rates, at = [], [], 0
    for step in range(n_steps):
        size = 3 if step % 6 == 5 else 10
        rows, at = order[at : at + size], at + size
        ws.append(w.detach().clone())
        rates.append(opt.param_groups[0]["lr"])
        opt.zero_grad()
        ((problem.model(w, problem.x[rows]) - problem.y[rows]) ** 2).mean().backward()
        opt.step()
        if step + 1 < n_steps:
            schedule.step()
    return torch.stack(ws).numpy(), np.array(rates)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_schedule_is_that_of_torchs_own_loop(name, engine):
    settings = {**SAME, "schedule": name, "schedule_options": OPTIONS[name], "engine": engine}
    history = ss.train(small_curve(noise=0.1), optimizer="SGD", **settings)
    ws, rates = literal(name, OPTIONS[name], "SGD")
    rows = history.steps[history.steps.seed == 0]
    assert np.array_equal(rows["lr"], rates)
    assert np.array_equal(rows[["w0", "w1", "w2"]].to_numpy(np.float32), ws)


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("schedule", ["inverse_time", "StepLR"])
def test_the_notebooks_rule_takes_the_step_sizes_of_a_schedule(engine, schedule):
    options = OPTIONS.get(schedule, {"decay": 0.1})
    given = {"schedule": schedule, "schedule_options": options, "engine": engine}
    problem = small_curve(noise=0.1)
    history = ss.train(problem, optimizer="notebook", **SAME, **given)
    rates = [
        0.05 / (1 + 0.1 * t) if "decay" in options else 0.05 * 0.5 ** (t // 6) for t in range(48)
    ]
    for r, seed in enumerate(SAME["seeds"]):
        order = ss.orders.Sampler("shuffle", [seed], 53, 10).take(53 * 8)[0].reshape(8, 53)
        batches = [batch for epoch in order for batch in epoch.split(10)]
        w = problem.initial([seed])[0].requires_grad_()
        for rate, rows in zip(rates, batches, strict=True):
            loss = ((problem.model(w, problem.x[rows]) - problem.y[rows]) ** 2).mean()
            (gradient,) = torch.autograd.grad(loss, w)
            w = (w - rate * gradient).detach().requires_grad_()
        assert np.allclose(history.w[r], w.detach(), rtol=1e-5, atol=1e-6)  # float32, 48 steps
        rows = history.steps[history.steps.seed == seed]
        assert np.allclose(rows["lr"], rates, rtol=1e-14)


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "RMSprop"])
def test_optimisers_with_a_state_follow_it_too(optimizer, engine):
    options = {"gamma": 0.9}
    settings = {**SAME, "schedule": "ExponentialLR", "schedule_options": options, "engine": engine}
    history = ss.train(small_curve(noise=0.1), optimizer=optimizer, **settings)
    rows = history.steps[history.steps.seed == 0][["w0", "w1", "w2"]].to_numpy()
    ws, _ = literal("ExponentialLR", options, optimizer)
    assert np.abs(rows - ws).max() < 1e-6


def test_diagnostics_see_the_step_size_of_their_step():
    given = {"schedule": "inverse_time", "diagnostics": ["lr_sharpness", "hess_max_eig"]}
    rows = ss.train(small_curve(), optimizer="SGD", **SAME, **given).steps
    assert np.allclose(rows["lr_sharpness"], 0.05 / (1 + rows["step"]) * rows["hess_max_eig"])


def test_a_factory_of_a_schedule_and_of_an_optimiser():
    def warm_up_then_cosine(optimizer):
        first = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=10)
        then = lr_scheduler.CosineAnnealingLR(optimizer, 38)
        return lr_scheduler.SequentialLR(optimizer, [first, then], [10])

    problem = small_curve()
    by_name = ss.train(problem, optimizer="SGD", schedule=warm_up_then_cosine, **SAME)
    given = {**SAME, "optimizer": lambda params: torch.optim.SGD(params, lr=0.05)}
    by_factory = ss.train(problem, schedule=warm_up_then_cosine, **given)
    assert np.array_equal(by_name.w, by_factory.w)
    rates = by_name.steps[by_name.steps.seed == 0]["lr"].to_numpy()
    assert rates[0] == pytest.approx(0.005)
    assert rates[10] == pytest.approx(0.05)
    assert rates[29] == pytest.approx(0.05 * (1 + np.cos(np.pi * 19 / 38)) / 2)


@pytest.mark.parametrize(("name", "power"), [("inverse_time", 1.0), ("inverse_sqrt", 0.5)])
def test_our_schedules(name, power):
    rates = schedules.make(name, 2.0, {"decay": 0.1}, 100)(np.arange(100))
    assert np.allclose(rates, 2.0 / (1 + 0.1 * np.arange(100)) ** power)


def test_a_schedule_costs_the_same_however_it_is_read():
    whole = schedules.make("CosineAnnealingLR", 1.0, {}, 10_000)(np.arange(10_000))
    rates = schedules.make("CosineAnnealingLR", 1.0, {}, 10_000)
    parts = [rates(np.arange(n, n + 100)) for n in range(0, 10_000, 100)]
    assert np.array_equal(np.concatenate(parts), whole)
    rates = schedules.make("CosineAnnealingLR", 1.0, {}, 10_000)
    assert [rates(np.array([n]))[0] for n in range(10_000)] == whole.tolist()


def test_theory_says_nothing_of_steps_that_change():
    config = ss.TrainConfig(lr=2e-4, batch_size=None, stop=("running", 0.1))
    problem = ss.problems.curve()
    changing = ss.TrainConfig.of(
        lr=2e-4, batch_size=None, stop=("running", 0.1), schedule="inverse_time"
    )
    assert predict(problem, config)
    assert predict(problem, changing) == {}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"schedule": "CosineAnealingLR"}, "did you mean 'CosineAnnealingLR'"),
        ({"schedule": "ReduceLROnPlateau"}, "valid|Valid"),
        ({"schedule": "StepLR"}, "step_size"),
        ({"schedule": "StepLR", "schedule_options": {"stepsize": 3}}, "did you mean 'step_size'"),
        ({"schedule": "inverse_time", "schedule_options": {"decay": -1}}, "at least 0"),
        ({"schedule": "OneCycleLR", "schedule_options": {"cycle_momentum": True}}, "leave"),
        ({"schedule": 3}, "name or a factory"),
        ({"schedule": lambda optimizer: 3}, "LRScheduler"),
        ({"schedule": lr_scheduler.ReduceLROnPlateau}, "follows the losses"),
        ({"schedule_options": {"gamma": 1}}, "name one"),
        ({"schedule": "StepLR", "schedule_options": 3}, "is a dict"),
        ({"schedule": "LinearLR", "schedule_options": {"end_factor": float("nan")}}, "nan|NaN"),
        ({"average": 1.0}, "below 1"),
        ({"metrics": ["lr"]}, "lr"),
        ({"optimizer": "polyak", "options": {"d": 1}}, "least_loss"),
        ({"optimizer": "polyak", "options": {"c": 0}}, "positive"),
    ],
)
def test_mistakes_are_one_line(settings, says):
    with pytest.raises(InputError) as error:
        ss.train(small_curve(), **{**SAME, "optimizer": "SGD", **settings})
    assert re.search(says, str(error.value)), error.value
    assert one_line(error)


# ---- Polyak's step ------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_polyaks_step_at_one_sample_is_a_projection(engine):
    """With c = 1/2 it solves each sample's equation (Kaczmarz)."""
    problem = small_curve().replace(x=small_curve().x.double(), y=small_curve().y.double())
    settings = {"options": {"c": 0.5}, "lr": 1e6, "batch_size": 1, "epochs": 40, "seeds": range(2)}
    history = ss.train(problem, optimizer="polyak", engine=engine, **settings)
    phi, target = problem.least_squares.features, problem.y.numpy()
    rows = history.steps[history.steps.seed == 1][["w0", "w1", "w2"]].to_numpy()
    order = ss.orders.Sampler("shuffle", [1], 53, 1).take(53)[0].numpy()
    for step in range(40):
        i, w = order[step], rows[step]
        error = phi[i] @ w - target[i]
        assert np.allclose(rows[step + 1], w - error * phi[i] / (phi[i] @ phi[i]), atol=1e-12)
    assert history.distance.max() < 1e-3


def test_polyaks_engines_agree_and_its_step_has_a_top():
    settings = {**SAME, "optimizer": "polyak", "options": {"least_loss": 1e-4, "c": 5.0}}
    eager, compiled = (
        ss.train(small_curve(noise=0.1), engine=engine, **settings)
        for engine in ("eager", "compiled")
    )
    assert np.abs(eager.w - compiled.w).max() < 1e-5
    steps = eager.steps
    size = steps["update_norm"] / steps["grad_norm"]
    expected = (steps["loss"] - 1e-4) / (5.0 * steps["grad_norm"] ** 2)
    assert np.allclose(size, expected.clip(0, 0.05), rtol=1e-4)
    assert (expected > 0.05).any()
    assert (expected < 0.05).any()


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_polyaks_step_without_options_is_the_loss_over_the_squared_gradient(engine):
    """As in Loizou et al. 2021 with c = 1, where the least loss of a batch is 0."""
    history = ss.train(small_curve(), optimizer="polyak", **{**SAME, "lr": 10.0}, engine=engine)
    steps = history.steps
    size = steps["update_norm"] / steps["grad_norm"]
    early = steps["step"] < 6  # later the update is rounded away
    assert np.allclose(size[early], (steps["loss"] / steps["grad_norm"] ** 2)[early], rtol=1e-4)


def test_polyak_stays_where_there_is_no_gradient():
    x = torch.linspace(-1, 1, 20)
    solved = {"w_init": [0.0, 0.0, 0.0], "w_true": [0.0, 0.0, 0.0]}
    problem = ss.Problem(x, 0 * x, ss.problems.parabola, **solved)
    for engine in ("eager", "compiled"):
        history = ss.train(problem, optimizer="polyak", **{**SAME, "engine": engine})
        assert not history.w.any()
        assert set(history.stop_reason) == {"max_epochs"}


# ---- averages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("average", [0.0, 0.5])
@pytest.mark.parametrize("order", ["shuffle", "with_replacement"])
def test_the_average_is_that_of_the_recorded_parameters(average, order):
    problem = small_curve(noise=0.5)
    history = ss.train(problem, optimizer="SGD", average=average, order=order, **SAME)
    plain = ss.train(problem, optimizer="SGD", order=order, **SAME)
    assert np.array_equal(history.w, plain.w)
    for r, seed in enumerate(SAME["seeds"]):
        rows = history.steps[history.steps.seed == seed][["w0", "w1", "w2"]].to_numpy()
        after = np.vstack([rows[1:], history.w[r]])  # the parameters after each step
        means = [after[int(average * 8) * 6 : 6 * (epoch + 1)] for epoch in range(8)]
        ends = history.epochs[history.epochs.seed == seed]
        for epoch, some in enumerate(means):
            w = some.mean(0) if len(some) else after[6 * epoch + 5]
            loss = problem.full(w[None].astype(float))[0][0]
            assert ends["average_loss"].iloc[epoch] == pytest.approx(loss, rel=1e-6)
    assert history.epochs["average_distance"].notna().all()


def test_the_average_goes_on_when_others_stop_and_over_long_epochs(monkeypatch):
    problem = small_curve(noise=0.5)
    settings = {**SAME, "optimizer": "SGD", "average": 0.25, "seeds": range(6)}
    whole = ss.train(problem, **settings).epochs
    monkeypatch.setattr("sgdstudy.training.run.FIRST_STEPS", 4)  # less than an epoch
    assert ss.train(problem, **settings).epochs.equals(whole)
    epsilon = float(np.median(whole.groupby("seed")["running_loss"].min()))
    stopped = ss.train(problem, stop=("running", epsilon), **settings)
    assert 0 < (stopped.stop_reason == "converged").sum() < 6
    both = stopped.epochs.merge(whole, on=["seed", "epoch"], suffixes=("", "_whole"))
    assert np.array_equal(both["average_loss"], both["average_loss_whole"])


@pytest.mark.slow
def test_results_tell_the_average(store):
    arm = ss.Arm(small_curve(noise=0.5), optimizer="SGD", average=0.0, **SAME)
    from sgdstudy.tracking.invocation import Invocation
    from sgdstudy.tracking.store import open_store

    _, history = train_arm(Invocation.start(open_store(store), "averages"), "arm", arm, False)
    (run,) = ss.load_runs("averages", store=store).to_dict("records")
    ends = history.epochs[history.epochs.epoch == 8]["average_loss"]
    assert run["average_loss"] == pytest.approx(ends.quantile(0.5, interpolation="lower"))
    assert run["average"] == 0.0


@pytest.mark.slow
def test_a_sweep_goes_over_schedules_and_their_options(store, tmp_path):
    from sgdstudy.studies.scripts import load_study
    from sgdstudy.sweeps import sweep

    script = tmp_path / "scheduled.py"
    script.write_text(
        '"""What does a schedule do?"""\n'
        "import sgdstudy as ss\n"
        "arm = lambda o: {'arm': ss.Arm('legendre', batch_size=10, epochs=3, lr=0.1)}\n"
        "STUDY = ss.Study(__file__, __doc__, ss.Options, arm, lambda o, r: [], lambda *a: 'this')\n"
    )
    study = load_study(str(script))
    grid = {"schedule": ["ExponentialLR"], "schedule.gamma": [0.9, 0.8], "average": [0.0]}
    plan = sweep.Plan.of(study, study.options(store=store), None, grid, "epochs")
    sweep.run(plan, progress=False)
    runs = ss.load_runs("scheduled_sweep", store=store)
    assert sorted(runs["schedule.gamma"]) == [0.8, 0.9]
    assert set(runs["schedule"]) == {"ExponentialLR"}
    assert runs["average_loss"].notna().all()
    with pytest.raises(InputError, match="schedule"):
        sweep.Plan.of(study, study.options(), None, {"schedul": [1]}, "epochs")


def test_mlflow_is_shown_the_step_size(store):
    from sgdstudy.tracking.invocation import Invocation
    from sgdstudy.tracking.store import open_store

    given = {**SAME, "diagnostics": "full", "schedule": "inverse_sqrt"}
    arm = ss.Arm(small_curve(noise=0.5), optimizer="SGD", **given)
    opened = open_store(store)
    run_id, history = train_arm(Invocation.start(opened, "rates"), "arm", arm, False)
    found = opened.client.get_metric_history(run_id, "batch/lr")
    known = history.steps[history.steps.seed == 0].set_index("step")["lr"]
    assert len(found) == 48
    assert all(point.value == pytest.approx(known[point.step]) for point in found)
    keys = opened.client.get_run(run_id).data.metrics
    assert sum(key.startswith(("batch/", "epoch/")) for key in keys) <= 12


class DecaysMore(lr_scheduler.LRScheduler):
    """Changes the weight decay from the third step on."""

    def get_lr(self):
        if self.last_epoch >= 2:
            self.optimizer.param_groups[0]["weight_decay"] = 0.1
        return [0.05]


CYCLES = {
    "OneCycleLR": {"max_lr": 0.05, "total_steps": 48},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.05},
}


@pytest.mark.parametrize("name", CYCLES)
def test_a_cycle_of_the_momentum_is_refused_however_it_is_asked_for(name):
    def by_factory(optimizer, **more):
        return getattr(lr_scheduler, name)(optimizer, **CYCLES[name], **more)

    given = {**SAME, "optimizer": "SGD", "options": {"momentum": 0.9}}
    options = {**CYCLES[name], "cycle_momentum": True}
    for schedule in ({"schedule": by_factory}, {"schedule": name, "schedule_options": options}):
        with pytest.raises(ss.InputError, match="cycle_momentum") as error:
            ss.train(small_curve(), **given, **schedule)
        assert one_line(error)
    without = ss.train(
        small_curve(), **given, schedule=lambda o: by_factory(o, cycle_momentum=False)
    )
    named = ss.train(small_curve(), **given, schedule=name, schedule_options=CYCLES[name])
    assert np.array_equal(without.w, named.w)


def test_what_a_schedule_changes_later_is_refused_then():
    with pytest.raises(ss.InputError, match="changes weight_decay too"):
        ss.train(small_curve(), optimizer="SGD", schedule=DecaysMore, **SAME)


class AtStepEight(lr_scheduler.LRScheduler):
    """Leaves the step size alone, and does something else at step 8."""

    def get_lr(self):
        if self.last_epoch == 8:
            self.act(self.optimizer.param_groups[0])
        return [group["lr"] for group in self.optimizer.param_groups]

    def act(self, group):
        """What it does."""


class ClearsState(AtStepEight):
    def act(self, group):
        self.optimizer.state.clear()


class ZeroesState(AtStepEight):
    def act(self, group):
        for held in self.optimizer.state.values():
            for value in held.values():
                value.zero_()


class Shrinks(AtStepEight):
    def act(self, group):
        for p in group["params"]:
            p.data.mul_(0.5)


class Replaces(AtStepEight):
    def act(self, group):
        for p in group["params"]:
            p.data = p.data / 2


class AddsHook(AtStepEight):
    def act(self, group):
        self.optimizer.register_step_post_hook(lambda *_: None)


class AddsGroup(AtStepEight):
    def act(self, group):
        self.optimizer.add_param_group({"params": [torch.zeros(1, requires_grad=True)]})


class LowersBetas(AtStepEight):
    def act(self, group):
        if "betas" in group:
            group["betas"] = 0.5, 0.9


class ByNorm(lr_scheduler.LRScheduler):
    def get_lr(self):
        norms = [p.detach().norm() for p in self.optimizer.param_groups[0]["params"]]
        return [0.05 / (1 + float(max(norms)))]


class ByCount(lr_scheduler.LRScheduler):
    def get_lr(self):
        return [0.05 / sum(p.numel() for p in self.optimizer.param_groups[0]["params"])]


class Draws(lr_scheduler.LRScheduler):
    drawn = np.random.default_rng(0)

    def get_lr(self):
        return [0.05 * self.drawn.random()]


DOES_MORE = {
    ClearsState: "changes the optimizer's state too",
    ZeroesState: "changes the optimizer's state too",
    Shrinks: "changes the parameters too",
    Replaces: "changes the parameters too",
    AddsHook: "changes the hooks too",
    AddsGroup: "changes the groups too",
    LowersBetas: "changes betas too",
    ByNorm: "its parameters are others",
    ByCount: "its parameters are others",
    Draws: "each time it is asked",
}


@pytest.mark.parametrize("schedule", DOES_MORE)
def test_a_schedule_that_does_more_than_set_the_step_size_is_refused(schedule):
    with pytest.raises(InputError, match=DOES_MORE[schedule]) as error:
        ss.TrainConfig(lr=0.05, schedule=schedule, batch_size=10, epochs=3).rates(53)(np.arange(9))
    assert one_line(error)


@pytest.mark.parametrize("schedule", [ClearsState, Shrinks, LowersBetas, DecaysMore])
def test_what_it_does_after_the_last_step_is_nothing_to_the_run(schedule):
    given = {"optimizer": "SGD", "lr": 0.05, "batch_size": 10, "steps": 2, "epochs": 1}
    assert ss.train(small_curve(), schedule=schedule, **given).n_steps.tolist() == [2]


def falls(step):
    """Reach 0 at step 48, the run's length, and go on below."""
    return 1 - step / 48


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: lr_scheduler.LambdaLR(optimizer, falls),
        lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda t: 1 if t < 48 else np.nan),
    ],
)
def test_a_schedule_is_judged_over_the_steps_of_the_run_only(schedule, engine):
    history = ss.train(small_curve(), **SAME, schedule=schedule, engine=engine)
    assert history.n_steps.tolist() == [48] * 3
    shorter = {**SAME, "epochs": 7}
    assert ss.train(small_curve(), **shorter, schedule=schedule, engine=engine).n_steps[0] == 42


def test_a_step_size_that_the_run_does_take_is_refused():
    def schedule(optimizer):
        return lr_scheduler.LambdaLR(optimizer, lambda step: 1 if step < 47 else -1)

    with pytest.raises(InputError, match="gives step 47"):
        ss.train(small_curve(), **SAME, schedule=schedule)


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("name", ["StepLR", "CosineAnnealingLR", "OneCycleLR", "LambdaLR"])
def test_a_schedule_by_epoch_is_stepped_at_the_end_of_epochs(name, engine):
    """As torch's tutorials do it; lengths that are not given are the epochs of the run."""
    options = {"StepLR": {"step_size": 3, "gamma": 0.5}, "OneCycleLR": {"max_lr": 0.1}}
    schedule, given = name, {"schedule_options": options.get(name, {})}
    if name == "LambdaLR":
        given = {}

        def schedule(optimizer):
            return lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 - epoch / 8)

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.05)
    lengths = {"CosineAnnealingLR": {"T_max": 8}, "OneCycleLR": {"total_steps": 8}}
    if name == "OneCycleLR":
        lengths[name]["cycle_momentum"] = False
    theirs = (
        schedule(optimizer)
        if callable(schedule)
        else getattr(lr_scheduler, name)(
            optimizer, **options.get(name, {}), **lengths.get(name, {})
        )
    )
    expected = []
    for epoch in range(8):
        expected += [optimizer.param_groups[0]["lr"]] * 6
        optimizer.step()
        if epoch < 7:
            theirs.step()
    history = ss.train(
        small_curve(), **SAME, schedule=schedule, schedule_unit="epoch", engine=engine, **given
    )
    assert history.array("steps", "lr")[:, 0].tolist() == expected


def test_what_a_schedule_counts_is_logged_and_checked():
    from sgdstudy.tracking import describe

    config = ss.TrainConfig(schedule="inverse_time", schedule_unit="epoch", epochs=3, batch_size=20)
    assert describe.parameters(small_curve(), config)["schedule_unit"] == "epoch"
    assert config.rates(53)(np.arange(9)) == pytest.approx(np.repeat([1, 1 / 2, 1 / 3], 3) * 1e-3)
    with pytest.raises(InputError, match="schedule unit"):
        ss.TrainConfig(schedule="inverse_time", schedule_unit="batch")
    with pytest.raises(InputError, match="goes with a schedule"):
        ss.TrainConfig(schedule_unit="epoch")

    def falls_below(optimizer):
        return lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 if epoch < 7 else -1)

    with pytest.raises(InputError, match="gives epoch 7"):
        ss.train(small_curve(), **SAME, schedule=falls_below, schedule_unit="epoch")


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_schedule_that_ends_the_program_is_one_line(when):
    def ends(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 1.0 if when == "later" and step < 3 else sys.exit("done")
        )

    with pytest.raises(ss.InputError, match="schedule 'ends' failed: SystemExit: done") as error:
        ss.train(small_curve(), lr=0.1, batch_size=10, epochs=3, schedule=ends)
    assert one_line(error)
