"""One line of a comparison: what it holds, what differs in another, what a grid changes of it."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from conftest import one_line, small_curve

import sgdstudy as ss
from sgdstudy.figures import palette
from sgdstudy.studies.arm import MOST_CHARTED, SETTINGS, at_settings, in_charts, split_point
from sgdstudy.studies.scripts import find_scripts, load_study

CURVE = small_curve()


def refused(call, says):
    with pytest.raises(ss.InputError, match=says) as error:
        call()
    assert one_line(error)


def test_an_arm_cannot_be_changed():
    arm = ss.Arm(CURVE, lr=0.1)
    for name in ("config", "about", "problem"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(arm, name, None)


def test_a_problem_is_taken_by_name():
    arm = ss.Arm("curve", lr=0.1)
    assert arm.problem.name == "curve"
    assert arm.problem.d == 2000


def test_another_arm_differs_in_what_is_named_alone():
    first = ss.Arm(CURVE, "first", lr=0.1, batch_size=10, charted=False, seeds=[3])
    other = first.but("other", lr=0.2)
    assert (first.config.lr, first.about) == (0.1, "first")
    assert (other.config.lr, other.about, other.charted) == (0.2, "other", False)
    assert other.problem is CURVE
    same = [f.name for f in dataclasses.fields(first.config) if f.name != "lr"]
    assert [getattr(other.config, n) for n in same] == [getattr(first.config, n) for n in same]
    assert first.but().about == "first"
    assert first.but(charted=True, problem="curve").problem.name == "curve"


def test_another_arm_is_checked_like_any():
    arm = ss.Arm(CURVE, lr=0.1)
    refused(lambda: arm.but(lrr=0.2), "did you mean 'lr'")
    refused(lambda: arm.but(batch_size=54), "more than the 53 samples")


@pytest.mark.parametrize(("size", "steps"), [(None, 7), (10, 42), (53, 7), (1, 371)])
def test_it_takes_a_step_for_each_batch_of_each_epoch(size, steps):
    assert ss.Arm(CURVE, lr=0.1, batch_size=size, epochs=7).n_steps == steps


def test_steps_taken_elsewhere_are_as_many_as_they_are():
    w, indices = np.zeros((13, 3)), np.arange(24).reshape(12, 2)
    taken = ss.Trajectory(CURVE, w, indices)
    arm = ss.Arm(CURVE, lr=0.1, trajectory=taken)
    assert arm.n_steps >= 12
    assert arm.but("other").trajectory is taken
    refused(lambda: ss.Arm(CURVE, trajectory=taken), "needs lr=")
    refused(lambda: ss.Arm(CURVE, trajectory=w, lr=0.1), "is a ss.Trajectory")


def test_the_seeds_of_random_arms_follow_the_first():
    assert ss.Options(seeds=3, first_seed=5).seed_range() == range(5, 8)
    refused(lambda: ss.Options(seeds=0).seed_range(), "at least 1, got 0")
    refused(lambda: ss.Options(first_seed=-1).seed_range(), "at least 0, got -1")


# ---- a point of a grid -------------------------------------------------------------------------


def test_a_point_is_parted_into_settings_and_the_scripts_own_options():
    point = {"lr": 0.1, "scale": 2.0, "optimizer.momentum": 0.9, "schedule.gamma": 0.5, "fails": 1}
    settings, own = split_point(point)
    assert settings == {"lr": 0.1, "optimizer.momentum": 0.9, "schedule.gamma": 0.5}
    assert own == {"scale": 2.0, "fails": 1}


def test_a_setting_that_a_grid_may_name_is_one_that_an_arm_has():
    known = {f.name for f in dataclasses.fields(ss.TrainConfig)}
    assert set(SETTINGS) - {"epsilon"} <= known


def test_an_optimisers_option_joins_the_others():
    arm = ss.Arm(CURVE, lr=0.1, options={"momentum": 0.5, "nesterov": True})
    at = at_settings(arm, {"optimizer.momentum": 0.9, "lr": 0.2}, "steps")
    assert at.config.options == {"momentum": 0.9, "nesterov": True}
    assert at.config.lr == 0.2
    falling = ss.Arm(CURVE, lr=0.1, schedule="ExponentialLR", schedule_options={"gamma": 0.9})
    assert at_settings(falling, {"schedule.gamma": 0.5}, "steps").config.schedule_options == {
        "gamma": 0.5
    }


def test_epsilon_is_that_of_the_arms_own_stop_rule():
    arm = ss.Arm(CURVE, lr=0.1, stop=("full", 0.5))
    assert at_settings(arm, {"epsilon": 0.01}, "steps").config.stop == ("full", 0.01)
    assert arm.config.stop == ("full", 0.5)
    bare = ss.Arm(CURVE, lr=0.1)
    refused(lambda: at_settings(bare, {"epsilon": 0.01}, "steps"), "no stop rule")


def test_without_rows_of_steps_nothing_is_computed_for_them():
    arm = ss.Arm(CURVE, lr=0.1, diagnostics="full", metrics=["alpha"])
    few = at_settings(arm, {}, "epochs").config
    assert (few.diagnostics, few.record_rows) == ("off", 0)
    all_of_it = at_settings(arm, {}, "steps").config
    assert (all_of_it.diagnostics, all_of_it.metrics) == ("full", ("alpha",))


def test_of_more_than_six_charted_arms_the_first_six_are_shown_each_in_a_colour_of_its_own():
    arms = {f"lr {i}": ss.Arm("curve", lr=1e-4 * (i + 1)) for i in range(9)}
    arms["lr 0"] = arms["lr 0"].but(charted=False)
    shown = in_charts(arms)
    assert [*shown] == [*arms]
    assert [name for name, arm in shown.items() if arm.charted] == [f"lr {i}" for i in range(1, 7)]
    colors = [arm.color for arm in shown.values()]
    assert {*colors[1:7]} == {*palette.CYCLE}
    assert len({*colors}) == 9
    assert in_charts(shown)["lr 3"].color == shown["lr 3"].color


def test_a_colour_is_declared_by_name_or_by_number_and_two_lines_of_a_chart_differ():
    arm = ss.Arm("curve", lr=1e-4, color="red")
    assert (arm.color, arm.but(lr=2e-4).color) == (palette.RED, palette.RED)
    assert arm.but(color="#d55e00").color == palette.RED
    for wrong in ("pink", "#12345", 3, ["red"]):
        with pytest.raises(ss.InputError, match='color is "#rrggbb" or one of blue'):
            ss.Arm("curve", color=wrong)
    with pytest.raises(ss.InputError, match="the charts show 'a' and 'b' in one colour"):
        in_charts({"a": arm, "b": arm})
    sgd = ss.Arm("curve", lr=1e-4, batch_size=10)  # what is not shown takes nothing from the others
    hidden = sgd.but(charted=False, color=palette.ORDERS["shuffle"])
    arms = {"hidden": hidden, "shuffle": sgd, "sequential": sgd.but(order="sequential")}
    seen = {name: arm.color for name, arm in in_charts(arms).items()}
    due = palette.ORDERS["shuffle"], palette.ORDERS["shuffle"], palette.ORDERS["sequential"]
    assert seen == dict(zip(arms, due, strict=True))
    both = in_charts({"a": arm, "b": arm.but(charted=False)})
    assert [one.color for one in both.values()] == [palette.RED] * 2


# pages whose arms are others without --quick, and soon made
LONG = ["study_edge_of_stability", "study_noise_floor", "study_optimizers", "study_orders"]


def arms_of(study, quick):
    page = load_study(study)
    has = "quick" in {field.name for field in dataclasses.fields(page.options)}
    return page.placed_arms(page.chosen(**({"quick": quick} if has else {})))


EVERY_PAGE = pytest.mark.parametrize(
    ("study", "quick"), [*((s, True) for s in find_scripts()), *((s, False) for s in LONG)]
)


@EVERY_PAGE
def test_every_process_declares_the_same_numbers(study, quick):
    """As it was seen: 0.04999999999999999 in one, 0.04999999999999998 in the next.

    A setting is a short decimal or a small fraction, which scripts write, or theory's, `rounded`.
    """
    for name, arm in arms_of(study, quick).items():
        given = {"lr": arm.config.lr, **arm.config.options, **arm.config.schedule_options}
        given.pop("least_loss", None)  # what is left above it falls to the last bits
        for setting, value in given.items():
            if isinstance(value, float) and value != ss.rounded(value):
                fraction = Fraction(value).limit_denominator(100)
                assert value == pytest.approx(float(fraction), rel=1e-15), (name, setting, value)


@EVERY_PAGE
def test_a_page_chooses_at_most_six_arms_for_its_charts(study, quick):
    arms = arms_of(study, quick)
    charted = [name for name, arm in arms.items() if arm.charted]
    assert 1 <= len(charted) <= MOST_CHARTED, charted
    shown = in_charts(arms)
    assert [name for name, arm in shown.items() if arm.charted] == charted
    assert len({shown[name].color for name in charted}) == len(charted)
