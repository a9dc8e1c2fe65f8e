"""Runs that were cut off and gone on with: every number is that of a run nobody disturbed."""

import dataclasses
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import one_line, small_curve
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import sgdstudy as ss
from sgdstudy import problems
from sgdstudy.history.rows import Memory
from sgdstudy.recipe import orders, rules
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking import recovery
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.places import local_path
from sgdstudy.tracking.sink import RESUMED_FROM
from sgdstudy.tracking.store import open_store
from sgdstudy.training import checkpoint
from sgdstudy.training.checkpoint import NAME
from sgdstudy.training.run import REASONS, Run

CURVE = small_curve(noise=0.01)
LONG = small_curve(d=3001, noise=0.01)  # an epoch of 601 batches, cut into pieces
OFTEN = {"checkpoint_seconds": 0.0}


def bent(w, x):
    return w[0] * torch.tanh(w[1] * x) + w[2]


def drawn(generator):
    return torch.randn(3, generator=generator)


def backwards(generator, d):
    return torch.randperm(d, generator=generator).flip(0)


def late(row):
    return row["epoch"] > 90 + row["seed"]


BENT = ss.Problem(
    CURVE.x, CURVE.y, bent, w_init=drawn, test=(CURVE.x[:9], CURVE.y[:9]), name="bent"
)
NET = ss.Problem(
    torch.stack([CURVE.x, CURVE.x**2], 1),
    (CURVE.x > 0).long(),
    torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)),
    loss="cross_entropy",
    name="net",
)


class Cut:
    """A diagnostic without a column, which ends the run in one of its chunks."""

    __name__ = "cut"

    def __init__(self, end=None):
        self.end, self.left, self.calls = end or self.ctrl_c, None, 0

    def ctrl_c(self):
        raise KeyboardInterrupt

    def __call__(self, chunk):
        self.calls += 1
        if self.left == 0:
            self.left = None
            self.end()
        elif self.left is not None:
            self.left -= 1


@pytest.fixture(autouse=True)
def many_chunks(monkeypatch):
    """Let runs have several chunks, to be cut off between two of them."""
    monkeypatch.setattr("sgdstudy.training.run.FIRST_STEPS", 256)
    monkeypatch.setattr("sgdstudy.training.run.GROWTH", 1)


@pytest.fixture(scope="module")
def shared(empty_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared") / "mlruns"
    shutil.copytree(empty_store, folder)
    return str(folder)


def arm_of(problem=CURVE, cut=None, **settings):
    given = {"lr": 0.1, "batch_size": 10, "epochs": 100, "seeds": range(3), "optimizer": "notebook"}
    diagnostics = ["distance_start", "grad_cosine", cut or Cut()]
    return ss.Arm(problem, diagnostics=diagnostics, **(given | settings))


def train(store, study, arm, resume=False, **given):
    start = Invocation.start(open_store(store), study)
    return train_arm(dataclasses.replace(start, resume=resume, **given), "arm", arm, False)


def run_of(store, study, status=None):
    """The latest run of a study."""
    opened = open_store(store)
    only = f"attributes.status = '{status}'" if status else ""
    order = ["attributes.start_time DESC"]
    return opened.client.search_runs([opened.experiment(study)], only, order_by=order)[0]


def artifact(run, name=NAME):
    return local_path(run.info.artifact_uri) / name


def killed(store, study, arm, after):
    """Train until a chunk is cut off; return the run."""
    (cut,) = (q for q in arm.config.diagnostics if isinstance(q, Cut))
    cut.left = after
    with pytest.raises(KeyboardInterrupt):
        train(store, study, arm, **OFTEN)
    run = run_of(store, study)
    assert run.info.status == "KILLED"
    return run


def points(store, run_id):
    client = open_store(store).client
    keys = set(client.get_run(run_id).data.metrics) - {
        "result/train_seconds",
        "result/seconds_per_step",
    }
    history = {key: client.get_metric_history(run_id, key) for key in keys}
    return {key: sorted((p.step, p.value) for p in found) for key, found in history.items()}


def assert_same(store, one, other):
    """Every row, parameter, stop and point of two runs, bit by bit."""
    (first_id, a), (second_id, b) = one, other
    for kind in ("steps", "epochs"):
        rows = [pa.Table.from_batches(list(h.sink.batches(kind))).to_pydict() for h in (a, b)]
        assert list(rows[0]) == list(rows[1])
        for name in rows[0]:
            assert np.array(rows[0][name]).tobytes() == np.array(rows[1][name]).tobytes(), name
    for name in ("w", "stop_epoch", "stop_reason", "n_steps"):
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes(), name
    assert points(store, first_id) == points(store, second_id)


def same_after(store, study, arm, after):
    """Cut an arm's run off after some chunks, go on, compare; return the checkpoint it used."""
    (cut,) = (q for q in arm.config.diagnostics if isinstance(q, Cut))
    whole = train(store, f"{study}_whole", arm)
    in_all, cut.calls = cut.calls, 0
    first = killed(store, study, arm, after)
    cut.calls = 0
    found = train(store, study, arm, resume=True)
    assert cut.calls == in_all - after > 0  # chunks that were trained again: none
    assert run_of(store, study).data.tags[RESUMED_FROM] == first.info.run_id
    assert_same(store, whole, found)
    return load_file(artifact(first))


# ---- any engine, rule, order and model -----------------------------------------------------------

EAGER, COMPILED = {"engine": "eager"}, {"engine": "compiled"}
CASES = {  # every rule meets another order
    "notebook, shuffle": (CURVE, {**COMPILED}),
    "momentum, shuffle_once": (
        CURVE,
        {**COMPILED, "optimizer": "SGD", "options": {"momentum": 0.9}, "order": "shuffle_once"},
    ),
    "Adam": (CURVE, {**EAGER, "optimizer": "Adam"}),
    "compiled Adam, flip_flop": (
        CURVE,
        {**COMPILED, "optimizer": "Adam", "order": "flip_flop", "epochs": 101},
    ),
    "RMSprop, callable": (CURVE, {**EAGER, "optimizer": "RMSprop", "lr": 1e-3, "order": backwards}),
    "full batch": (CURVE, {**COMPILED, "batch_size": None, "epochs": 700}),
    "float64, array": (
        CURVE,
        {
            **COMPILED,
            "dtype": "float64",
            "order": np.arange(3600).reshape(120, 5, 6) % 53,
            "batch_size": 6,
            "epochs": 120,
        },
    ),
    "few rows, with_replacement": (
        CURVE,
        {**COMPILED, "record_rows": 100, "order": "with_replacement"},
    ),
    "batch_schedule": (
        CURVE,
        {**COMPILED, "batch_size": 5, "batch_schedule": {30: 10, 60: 53}, "average": 0.2},
    ),
    "batch_schedule, within an epoch": (
        LONG,
        {**EAGER, "batch_size": 300, "batch_schedule": {20: 5}, "epochs": 22, "order": "flip_flop"},
    ),
    "grab": (CURVE, {**COMPILED, "order": "grab", "epochs": 20}),
    "long": (LONG, {**COMPILED, "batch_size": 5, "epochs": 2}),
    "long, grab": (LONG, {**COMPILED, "batch_size": 5, "epochs": 2, "order": "grab"}),
    "bent, long": (BENT, {**EAGER, "batch_size": 1, "epochs": 11, "lr": 0.01}),
    "patience": (CURVE, {**COMPILED, "stop": ("full", 1e3), "patience": 95}),
    "steps, within an epoch": (LONG, {**COMPILED, "batch_size": 5, "epochs": 3, "steps": 1000}),
    "steps": (CURVE, {**EAGER, "steps": 599, "average": 0.5, "stop": late, "patience": 3}),
    "an array for each seed": (
        CURVE,
        {
            **COMPILED,
            "order": np.arange(10800).reshape(3, 120, 5, 6) % 53,
            "batch_size": 6,
            "epochs": 120,
        },
    ),
    "best so far": (NET, {**EAGER, "stop": ("accuracy", None), "patience": 90, "epochs": 200}),
    "net": (NET, {**EAGER, "optimizer": "AdamW", "lr": 1e-3}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_run_that_was_cut_off_ends_as_if_nothing_had_happened(shared, name):
    problem, settings = CASES[name]
    same_after(shared, f"case_{list(CASES).index(name)}", arm_of(problem, **settings), 2)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["sequential", "strided", "reversed"])
def test_a_long_epoch_in_a_fixed_order_goes_on_within_it(shared, order):
    arm = arm_of(LONG, **COMPILED, batch_size=5, epochs=2, order=order, lr=0.05)
    same_after(shared, f"within_{order}", arm, 2)
    values = checkpoint.read(artifact(run_of(shared, f"within_{order}", "KILLED")))
    assert (values["at.epoch"], values["at.batch"]) == (0, 512)


@pytest.mark.slow
@pytest.mark.parametrize("average", [0.0, 0.4])
@pytest.mark.parametrize(("problem", "epochs", "after"), [(CURVE, 200, 2), (LONG, 5, 6)])
def test_an_average_goes_on_with_what_was_added_up(shared, average, problem, epochs, after):
    study = f"average_{average}_{epochs}".replace(".", "_")
    arm = arm_of(problem, **EAGER, batch_size=5, epochs=epochs, average=average, lr=0.05)
    found = same_after(shared, study, arm, after)
    assert found["run.averaged"].abs().sum() > 0 or average > 0
    (run,) = ss.load_runs(f"{study}_whole", store=shared).to_dict("records")
    assert np.isfinite(run["average_loss"])


@pytest.mark.slow
def test_replicas_that_have_ended_stay_ended(shared):
    """The checkpoint holds a compacted batch: of eight seeds, half or more have converged."""
    arm = arm_of(**COMPILED, seeds=range(8), stop=("last_batch", 5e-6), epochs=300)
    found = same_after(shared, "ended", arm, 3)
    live = int(found["run.live"].sum())
    assert 0 < live < len(found["run.live"])
    assert live <= len(found["run.members"]) < len(found["run.live"])


@pytest.mark.slow
def test_replicas_that_are_left_go_on_with_their_own_orders(shared):
    """An order of the user is read again from its seed."""
    given = {"seeds": range(8), "stop": ("last_batch", 3e-6), "epochs": 300}
    arm = arm_of(**COMPILED, **given, order=backwards)
    found = same_after(shared, "left", arm, 3)
    members = found["run.members"].tolist()
    assert members != list(range(len(members)))


@pytest.mark.slow
def test_replicas_that_have_diverged_stay_diverged(shared):
    """Beyond the stable step size, seeds overflow one after the other."""
    arm = arm_of(**EAGER, seeds=range(8), lr=1.0, optimizer="SGD")
    found = same_after(shared, "diverged", arm, 1)
    assert 0 < int(found["run.live"].sum()) < 8
    assert set(found["run.reason"].tolist()) == {0, REASONS.index("diverged")}


@pytest.mark.slow
def test_a_run_may_be_cut_off_again_and_again(shared):
    cut = Cut()
    arm = arm_of(cut=cut, **EAGER, epochs=200)
    whole = train(shared, "again_whole", arm)
    killed(shared, "again", arm, 2)
    for left in (1, 0):
        cut.left = left
        with pytest.raises(KeyboardInterrupt):
            train(shared, "again", arm, resume=True)
    assert_same(shared, whole, train(shared, "again", arm, resume=True))


@pytest.mark.parametrize("name", rules.ELEMENT_WISE)
def test_every_optimiser_comes_back_from_the_file(name, tmp_path):
    rule = rules.make(name, 0.01, {"momentum": 0.5} if name == "SGD" else {})
    gradients = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(1))
    w = torch.ones(4, 3)
    state = rule.init(w)
    for step, gradient in enumerate(gradients):
        if step == 3:
            packed = {f"rule.{k}": v for k, v in rules.state_dict(state).items()}
            checkpoint.write(tmp_path / NAME, packed)
            back = checkpoint.part(checkpoint.read(tmp_path / NAME), "rule")
            other_w, other = w, rules.load_state_dict(rule.init(w), back)
        w, state = rule.update(w, state, rules.Step(gradient, torch.zeros(4)))
        if step >= 3:
            other_w, other = rule.update(other_w, other, rules.Step(gradient, torch.zeros(4)))
            assert torch.equal(w, other_w)


@pytest.mark.parametrize("kept", [53, 50])
@pytest.mark.parametrize(
    "order", [*(name for name in orders.ORDERS if name != "stream"), "callable"]
)
def test_a_sampler_goes_on_anywhere(order, kept):
    """Not only at the end of an epoch, of all its samples or without the last ones."""
    given = (backwards if order == "callable" else order, [3, 5], 53, 10, kept)
    sampler, other = orders.Sampler(*given), orders.Sampler(*given)
    gradients = torch.randn(-(-kept // 10), 2, 3, generator=torch.Generator().manual_seed(2))
    for epoch in range(90):
        sampler.take(kept)
        sampler.learn(gradients * epoch)
    sampler.take(20)
    sampler.learn(gradients[:2])
    other.load_state_dict(sampler.state_dict(), kept * 90 + 20)
    assert torch.equal(sampler.take(kept - 20), other.take(kept - 20))
    for each in (sampler, other):  # `grab` needs the gradients for what comes next
        each.learn(gradients[2:])
    assert torch.equal(sampler.take(kept), other.take(kept))


# ---- what is written, and when -------------------------------------------------------------------


@pytest.mark.slow
def test_checkpoints_change_nothing(shared):
    arm = arm_of(**COMPILED, order="with_replacement")
    _, history = train(shared, "observed", arm, **OFTEN)
    alone = ss.train(arm.problem, config=arm.config, progress=False)
    assert alone.w.tobytes() == history.w.tobytes()
    assert alone.steps.equals(history.steps)


def test_a_short_run_leaves_no_checkpoint(shared):
    train(shared, "short", arm_of(epochs=5))
    assert not artifact(run_of(shared, "short")).exists()
    assert not list(open_store(shared).streams.glob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_of_the_very_last_chunk(shared, number):
    """Nothing was due yet: it is written because the run was told to stop."""
    cut = Cut(lambda: os.kill(os.getpid(), number))
    arm = arm_of(cut=cut, **EAGER)
    study = f"signal_{number}"
    whole = train(shared, f"{study}_whole", arm)
    cut.left, in_all, cut.calls = 1, cut.calls, 0
    _, history = train(shared, study, arm)
    assert history.stop_reason.tolist() == ["interrupted"] * 3
    assert cut.calls == 2
    assert run_of(shared, study).info.status == "KILLED"
    assert_same(shared, whole, train(shared, study, arm, resume=True))
    assert cut.calls == in_all


@pytest.mark.slow
def test_the_file_holds_numbers_and_json_only(shared):
    run = killed(shared, "numbers", arm_of(**EAGER, optimizer="Adam"), 1)
    raw = artifact(run).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert raw[8 : 8 + length].strip().startswith(b"{")  # a header in JSON, then the tensors
    values = checkpoint.read(artifact(run))
    assert values["rule.state.exp_avg"].shape == (3, 3)
    assert values["at.epoch"] == 256 // 6
    assert values["rows.steps"] == 3 * 6 * values["at.epoch"]


def test_a_disk_without_room_stops_no_training(shared, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    _, history = train(shared, "no_room", arm_of(**EAGER), **OFTEN)
    assert history.stop_reason.tolist() == ["max_epochs"] * 3
    assert [r.getMessage() for r in caplog.records] == [
        "arm has no new checkpoint: the disk is full; free some space"
    ]


# ---- what cannot be gone on with -----------------------------------------------------------------


def begins_anew(store, study, arm, caplog, *words):
    caplog.clear()
    _, history = train(store, study, arm, resume=True)
    line = " ".join(record.getMessage() for record in caplog.records)
    assert all(word in line for word in ("from the beginning", *words)), line
    assert "\n" not in line
    assert RESUMED_FROM not in run_of(store, study).data.tags
    assert history.steps.step.min() == 0
    assert history.n_steps.tolist() == [history.steps.step.max() + 1] * 3


def spoil_pickle(path):
    path.write_bytes(pickle.dumps({"run.w": [1.0]}))


def spoil_end(path):
    path.write_bytes(path.read_bytes()[:-100])


def spoil_all(path):
    path.write_bytes(b"")


def spoil_version(path):
    save_file(load_file(path), path, {"sgdstudy.checkpoint": "0", "values": "{}"})


def spoil_origin(path):
    save_file(load_file(path), path)


BROKEN = [spoil_pickle, spoil_end, spoil_all, spoil_version, spoil_origin]


@pytest.fixture(scope="module")
def broken_off(shared):
    arm = arm_of(**EAGER, epochs=60)
    return arm, killed(shared, "broken_off", arm, 1)


@pytest.mark.parametrize("spoil", BROKEN)
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(broken_off, spoil, tmp_path):
    path = tmp_path / NAME
    shutil.copyfile(artifact(broken_off[1]), path)
    spoil(path)
    with pytest.raises(ss.InputError, match=r"checkpoint\.safetensors is no checkpoint") as error:
        checkpoint.read(path)
    assert one_line(error)


@pytest.mark.slow
def test_a_run_whose_checkpoint_is_damaged_begins_anew(shared, caplog):
    arm = arm_of(**EAGER, epochs=60)
    spoil_pickle(artifact(killed(shared, "damaged", arm, 1)))
    begins_anew(shared, "damaged", arm, caplog, "is left out", "no checkpoint")


def hooked(params):
    """An optimiser whose step size is made by what no checkpoint holds."""
    optimizer, counted = torch.optim.SGD(params, lr=1e-3), {"steps": 0}

    def halve(optimizer, *_):
        counted["steps"] += 1
        optimizer.param_groups[0]["lr"] = 1e-3 / counted["steps"]

    optimizer.register_step_pre_hook(halve)
    return optimizer


def test_the_outcome_is_taken_over_of_an_optimiser_that_remembers_more(shared, caplog):
    arm = arm_of(optimizer=hooked, lr=None)
    whole = train(shared, "outcome", arm, **OFTEN)
    assert "has no new checkpoint" in caplog.text
    again = train(shared, "outcome", arm, resume=True, **OFTEN)
    assert "arm is taken over from run" in caplog.text
    assert_same(shared, whole, again)


@pytest.mark.slow
def test_a_checkpoint_without_all_its_values_is_refused(shared, caplog):
    arm = arm_of(**EAGER, epochs=60, optimizer="Adam")
    path = artifact(killed(shared, "holes", arm, 1))
    values = checkpoint.read(path)
    del values["run.n_steps"]
    checkpoint.write(path, values)
    begins_anew(shared, "holes", arm, caplog, "damaged", "n_steps")


def forged(path, change):
    """Change a checkpoint as who knows its format, but not its checksum, would: well-formed."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    values = load_file(path)
    change(values)
    save_file(values, path, metadata)


@pytest.mark.parametrize("seed", range(20))
def test_a_checkpoint_that_is_well_formed_but_wrong_is_refused(broken_off, seed, tmp_path):
    """One tensor has another bit, is zeroed, shorter, of another kind, or another's."""
    path, rng = tmp_path / NAME, np.random.default_rng(seed)
    shutil.copyfile(artifact(broken_off[1]), path)

    def change(values):
        name = rng.choice(sorted(name for name, value in values.items() if value.numel()))
        value = values[name]
        flat = value.contiguous().view(-1).view(torch.uint8)
        match seed % 4:
            case 0:
                flat[rng.integers(len(flat))] ^= 1 << int(rng.integers(8))
            case 1:
                flat[:] = 255 - flat
            case 2:
                values[name] = value.view(-1)[:-1].clone()
            case 3:
                values[name] = value.to(torch.float16)

    forged(path, change)
    with pytest.raises(ss.InputError, match="not what was written") as error:
        checkpoint.read(path)
    assert one_line(error)


def test_bits_that_flip_on_the_disk_are_noticed(broken_off, tmp_path):
    path, rng = tmp_path / NAME, np.random.default_rng(1)
    raw = artifact(broken_off[1]).read_bytes()
    intact = checkpoint.read(artifact(broken_off[1]))
    refused = 0
    for _ in range(100):
        changed = bytearray(raw)
        changed[rng.integers(len(raw))] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            found = checkpoint.read(path)
        except ss.InputError:
            refused += 1
            continue
        assert found.keys() == intact.keys()  # a space of the header
        for key, value in intact.items():
            np.testing.assert_array_equal(found[key], value)
    assert refused > 90


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run.w", torch.zeros(3, 2)),
        ("run.final_w", torch.zeros(2, 3)),
        ("run.live", torch.ones(4, dtype=torch.bool)),
        ("run.members", torch.tensor([0, 1, 3])),
        ("run.members", torch.tensor([1, 0, 2])),
        ("run.n_steps", torch.zeros(3)),
        ("at.epoch", 61),
        ("at.batch", 6),
        ("at.epoch", -1),
    ],
)
def test_values_of_another_shape_are_refused_and_the_run_is_as_it_was(broken_off, name, value):
    """With a right checksum: somebody else's run, or an older version that had none."""
    arm, former = broken_off
    values = checkpoint.read(artifact(former)) | {name: value}
    run = Run(arm.problem, arm.config, Memory(), None)
    before = run.w.clone()
    with pytest.raises(ss.InputError, match="its checkpoint is damaged") as error:
        checkpoint.restore(run, values)
    assert one_line(error)
    assert torch.equal(run.w, before)
    assert run.epoch == 0


@pytest.mark.slow
def test_a_checkpoint_of_the_version_before_checksums_is_gone_on_with(shared):
    arm = arm_of(**EAGER, epochs=60)
    whole = train(shared, "older_whole", arm)
    path = artifact(killed(shared, "older", arm, 1))
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    older = {"sgdstudy.checkpoint": "1", "values": metadata["values"]}
    save_file(load_file(path), path, older)
    assert_same(shared, whole, train(shared, "older", arm, resume=True))


def test_rows_that_are_gone_are_noticed(shared, caplog):
    arm = arm_of(**EAGER, epochs=60)
    artifact(killed(shared, "rowless", arm, 1), "steps.parquet").unlink()
    begins_anew(shared, "rowless", arm, caplog, "its steps have 0 rows")


def test_a_checkpoint_holds_arrays_without_numbers(tmp_path):
    values = {"a.b": np.zeros(0, int), "a.c": torch.zeros(3, 0), "a.d": torch.zeros(())}
    checkpoint.write(tmp_path / NAME, values)
    found = checkpoint.read(tmp_path / NAME)
    assert [tuple(found[name].shape) for name in values] == [(0,), (3, 0), ()]


@pytest.mark.slow
def test_another_configuration_is_not_gone_on_with(shared, caplog):
    killed(shared, "other", arm_of(**EAGER, epochs=60), 1)
    begins_anew(shared, "other", arm_of(**EAGER, epochs=60, lr=0.2), caplog, "other settings, data")
    begins_anew(shared, "other", arm_of(**COMPILED, epochs=60), caplog, "(engine)")


def test_another_version_of_the_code_is_not_gone_on_with(shared, caplog):
    run = killed(shared, "moved", arm_of(**EAGER, epochs=60), 1)
    open_store(shared).client.set_tag(run.info.run_id, "sgdstudy.torch", "1.0")
    begins_anew(shared, "moved", arm_of(**EAGER, epochs=60), caplog, "another version of the code")


def ones(generator):
    return torch.ones(3)


@pytest.mark.slow
def test_another_array_or_other_first_parameters_are_noticed(shared, caplog):
    given = {**EAGER, "epochs": 60, "batch_size": 6}
    arrays = [np.random.default_rng(seed).integers(53, size=(60, 9, 6)) for seed in (0, 1)]
    killed(shared, "array", arm_of(**given, order=arrays[0]), 1)
    begins_anew(shared, "array", arm_of(**given, order=arrays[1]), caplog, "(order)")
    first = {"test": BENT.test, "name": "bent"}
    one, other = (ss.Problem(CURVE.x, CURVE.y, bent, w_init=w, **first) for w in (drawn, ones))
    killed(shared, "first", arm_of(one, **given), 1)
    begins_anew(shared, "first", arm_of(other, **given), caplog, "(first parameters)")


@pytest.mark.slow
def test_the_seconds_of_all_attempts_add_up(shared):
    cut = Cut()
    arm = arm_of(cut=cut, **EAGER, epochs=200)
    first = checkpoint.read(artifact(killed(shared, "seconds", arm, 2)))["at.seconds"]
    assert first > 0
    cut.left = 1
    with pytest.raises(KeyboardInterrupt):
        train(shared, "seconds", arm, resume=True)
    second = checkpoint.read(artifact(run_of(shared, "seconds")))["at.seconds"]
    assert second > first
    _, history = train(shared, "seconds", arm, resume=True)
    assert history.train_seconds > second


def falling(gamma):
    def fall(optimizer):
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)

    return fall


@pytest.mark.slow
def test_a_schedule_that_was_changed_under_its_name_is_noticed(shared, caplog):
    same_after(shared, "schedule", arm_of(**EAGER, epochs=90, schedule=falling(0.999)), 1)
    killed(shared, "fall", arm_of(**EAGER, epochs=60, schedule=falling(0.999)), 1)
    other = arm_of(**EAGER, epochs=60, schedule=falling(0.998))
    begins_anew(shared, "fall", other, caplog, "another configuration", "step sizes")


def test_a_model_that_was_changed_under_its_name_is_noticed(shared, caplog):
    killed(shared, "model", arm_of(BENT, **EAGER, epochs=60), 1)
    given = {"w_init": drawn, "test": BENT.test, "name": "bent"}
    other = ss.Problem(CURVE.x, CURVE.y, lambda w, x: bent(w, x) + 1e-3 * x, **given)
    begins_anew(shared, "model", arm_of(other, **EAGER, epochs=60), caplog, "(model)")


def test_a_machine_that_rounds_otherwise_is_noticed(shared, caplog, monkeypatch):
    """What no fingerprint shows: the losses of a few samples are computed again."""
    killed(shared, "rounds", arm_of(BENT, **EAGER, epochs=60), 1)
    probe = checkpoint._probe
    monkeypatch.setattr(checkpoint, "_probe", lambda *given: probe(*given) * np.float32(1 + 1e-6))
    begins_anew(shared, "rounds", arm_of(BENT, **EAGER, epochs=60), caplog, "other losses")


# ---- the command line ----------------------------------------------------------------------------

SCRIPT = '''"""Does a killed study go on?"""

import sgdstudy as ss


def arms(o):
    same = {"optimizer": "notebook", "batch_size": 10, "lr": 1e-4, "engine": "eager"}
    return {
        "first": ss.Arm(ss.problems.curve(), epochs=3, seeds=[1], **same),
        "second": ss.Arm(ss.problems.curve(), epochs=o.epochs, seeds=o.seed_range(), **same),
    }


@__import__("dataclasses").dataclass(frozen=True)
class Options(ss.Options):
    epochs: int = 30


STUDY = ss.Study(__file__, __doc__, Options, arms, lambda o, r: [], lambda o, r, c: "It does.")

if __name__ == "__main__":
    STUDY.main()
'''


@pytest.mark.faults
def test_a_killed_process_goes_on_by_the_command_line(store, tmp_path):
    script = tmp_path / "phoenix.py"
    script.write_text(SCRIPT)
    words = [sys.executable, str(script), "--store", store, "--seeds", "2"]
    process = subprocess.Popen(
        [*words, "--checkpoint-seconds", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 300  # of a machine with other work
    while not _rows_of_second(store):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    done = subprocess.run([*words, "--resume"], capture_output=True, text=True, check=True)
    assert "finished 1 run that had been cut off" in done.stdout
    assert "second goes on after epoch" in done.stderr
    former = run_of(store, "phoenix", "KILLED")
    experiment = open_store(store).client.search_runs([former.info.experiment_id])
    latest = {run.info.run_name: run for run in reversed(experiment)}
    assert latest["second"].data.tags[RESUMED_FROM] == former.info.run_id
    # what the first attempt had finished is taken over as well
    assert "first is taken over from run" in done.stderr
    same = {"optimizer": "notebook", "batch_size": 10, "lr": 1e-4, "engine": "eager"}
    for arm, epochs, seeds in (("first", 3, [1]), ("second", 30, range(2))):
        whole = ss.train(problems.curve(), epochs=epochs, seeds=seeds, progress=False, **same)
        steps = ss.load_steps("phoenix", store=store, arms=arm)
        assert len(steps) == len(whole.steps)
        ours = whole.steps.sort_values(["seed", "step"])
        for name in ("seed", "step", "loss", "w0", "w1", "w2", "full_loss", "update_norm"):
            assert ours[name].to_numpy().tobytes() == steps[name].to_numpy().tobytes(), name
    assert str(recovery.recover(open_store(store))) == ""


def _rows_of_second(store):
    for path in Path(store, "streams").glob(f"*/{NAME}"):
        try:
            values = checkpoint.read(path)
        except ss.InputError:  # its folder is being removed
            continue
        if len(values["run.live"]) == 2 and values["at.epoch"] >= 3:
            return True
    return False


class Patient:
    """A stop rule that counts its calls."""

    calls = 0

    def __call__(self, row):
        self.calls += 1
        return self.calls > 10_000


def test_what_a_stop_rule_remembers_is_in_no_checkpoint(shared, caplog):
    killed(shared, "patient", arm_of(stop=Patient()), 2)
    said = [r.message for r in caplog.records if "what its functions read has changed" in r.message]
    assert len(said) == 1
    assert "(stop)" in said[0]
    train(shared, "patient", arm_of(stop=Patient()), resume=True)
    assert not any("goes on after epoch" in r.message for r in caplog.records)


@pytest.mark.parametrize("counts", [False, True])
def test_what_a_run_has_changed_of_what_it_reads_is_in_no_checkpoint(shared, caplog, counts):
    """Another process would begin with what was there at the beginning, a log excepted."""
    seen, held = [], {"gain": 1.0}

    def own(f, y):
        seen.append(1.0)
        if counts:
            held["gain"] *= 0.5
        return held["gain"]

    arm = arm_of(measures={"own": own})
    study = f"changed_{counts}"
    killed(shared, study, arm, 2)
    said = [r.message for r in caplog.records if "what its functions read has changed" in r.message]
    assert len(said) == counts
    if counts:
        assert "(measures)" in said[0]
        held["gain"] = 1.0  # as another process has it
    caplog.clear()
    train(shared, study, arm, resume=True)
    words = "starts from the beginning" if counts else "goes on after epoch"
    assert any(words in r.message for r in caplog.records)
