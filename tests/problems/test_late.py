"""What functions look up when they are called, in every form and every place.

A form is a function that reads a number, and how that is changed from outside; a place is where a
run may have such a function. No two numbers are taken for one: the fingerprint tells them apart or
says that it cannot, and a thing that was made with another number is refused.
"""

import argparse
import contextvars
import enum
import functools
import os
import types
from collections import deque
from dataclasses import dataclass
from os import getenv
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import one_line
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from test_bindings import CURVE, GIVEN, MAKERS, settings

import sgdstudy as ss
from sgdstudy.problems import bindings
from sgdstudy.problems.fingerprint import Unseen, fingerprint
from sgdstudy.recipe.identity import Identity

FORMS, OUTSIDE, OWN = {}, {}, {}  # by name; whose value no fingerprint holds; changed by themselves


def form(make):
    FORMS[make.__name__] = make
    return make


def outside(make):
    OUTSIDE[make.__name__] = make
    return make


def own(make):
    OWN[make.__name__] = make
    return make


def of_attribute(holder, name="delta"):
    return lambda value: setattr(holder, name, value)


@form
def attribute_of_a_module(k):
    module: Any = types.ModuleType("late_settings")
    module.delta = k
    return lambda: module.delta, of_attribute(module)


@form
def attribute_of_a_module_in_a_module(k):
    module: Any = types.ModuleType("late_settings")
    inner: Any = types.ModuleType("late_settings.inner")
    module.inner, inner.delta = inner, k
    return lambda: module.inner.delta, of_attribute(inner)


@form
def module_that_makes_its_attributes_up(k):
    values = {"delta": k}
    module: Any = types.ModuleType("late_settings")
    module.__getattr__ = lambda name: values[name]
    return lambda: module.delta, functools.partial(values.__setitem__, "delta")


@form
def table(k):
    held = pd.DataFrame({"delta": [k]})
    return lambda: float(held.delta[0]), lambda value: held.__setitem__("delta", [value])


@form
def column(k):
    held = pd.Series([k])
    return lambda: float(held[0]), functools.partial(held.__setitem__, 0)


@form
def buffer_of_a_network(k):
    network = torch.nn.Linear(1, 1)
    network.register_buffer("delta", torch.tensor([k], dtype=torch.float64))
    return lambda: float(network.delta), network.delta.fill_


@form
def buffer_in_a_network(k):
    network = torch.nn.Sequential(torch.nn.Linear(1, 1))
    network[0].register_buffer("delta", torch.tensor([k], dtype=torch.float64))
    network.inner = network[0]
    return lambda: float(network.inner.delta), network.inner.delta.fill_


@form
def namespace(k):
    held = types.SimpleNamespace(delta=k, unread=0)
    return lambda: held.delta, of_attribute(held)


@form
def arguments_of_a_program(k):
    held = argparse.Namespace(delta=k)
    return lambda: held.delta, of_attribute(held)


@form
def namespace_given_whole(k):
    held = types.SimpleNamespace(delta=k)

    def helper(given):
        return vars(given)["del" + "ta"]

    return lambda: helper(held), of_attribute(held)


@dataclass
class Settings:
    delta: float = 0.0
    unread: int = 0


@form
def data_class(k):
    held = Settings(k)
    return lambda: held.delta, of_attribute(held)


@form
def data_class_that_a_helper_reads(k):
    held = Settings(k)

    def helper(given):
        return given.delta

    return lambda: helper(held), of_attribute(held)


@form
def object_in_an_object(k):
    held: Any = Settings()
    held.delta = Settings(k)
    return lambda: held.delta.delta, lambda value: setattr(held.delta, "delta", value)


class Slotted:
    __slots__ = ("delta",)


@form
def slots(k):
    held: Any = Slotted()
    held.delta = k
    return lambda: held.delta, of_attribute(held)


@form
def class_attribute(k):
    held: Any = type("Held", (), {"delta": k})
    return lambda: held.delta, of_attribute(held)


@form
def class_attribute_of_a_base(k):
    base: Any = type("Base", (), {"delta": k})
    held: Any = type("Held", (base,), {})
    return lambda: held.delta, of_attribute(base)


@form
def class_attribute_of_an_object(k):
    kind: Any = type("Held", (), {"delta": k})
    held = kind()
    return lambda: held.delta, of_attribute(kind)


class Callable:
    def __init__(self, value):
        self.delta = value

    def __call__(self):
        return self.delta

    def read(self):
        return self.delta

    @property
    def shown(self):
        return self.delta

    @classmethod
    def of_class(cls):
        return cls.delta


@form
def bound_method(k):
    held = Callable(k)
    return held.read, of_attribute(held)


@form
def callable_object(k):
    held = Callable(k)
    return held, of_attribute(held)


@form
def property_of_an_object(k):
    held = Callable(k)
    return lambda: held.shown, of_attribute(held)


@form
def class_method(k):
    held: Any = type("Held", (Callable,), {"delta": k})
    return held.of_class, of_attribute(held)


@form
def item_of_a_dict(k):
    held = {"delta": k, "unread": 0}
    return lambda: held["delta"], functools.partial(held.__setitem__, "delta")


@form
def item_of_a_dict_in_a_dict(k):
    held = {"loss": {"delta": k}}
    return lambda: held["loss"]["delta"], functools.partial(held["loss"].__setitem__, "delta")


@form
def item_of_a_dict_by_a_variable(k):
    held, key = {"delta": k}, "delta"
    return lambda: held[key], functools.partial(held.__setitem__, "delta")


@form
def dict_given_whole(k):
    held = {"delta": k}
    return lambda: dict(**held)["delta"], functools.partial(held.__setitem__, "delta")


@form
def item_of_a_list(k):
    held = [0.0, k]
    return lambda: held[1], functools.partial(held.__setitem__, 1)


@form
def list_given_whole(k):
    held = [0.0, k]
    return lambda: sum(held), functools.partial(held.__setitem__, 1)


@form
def item_of_a_list_by_a_variable(k):
    held, i = [0.0, k], 1
    return lambda: held[i], functools.partial(held.__setitem__, 1)


@form
def items_that_others_are_stored_beside(k):
    held = [k]

    def read():
        found = [0.0, 0.0]
        found[1] = held[0]
        return found[1]

    return read, functools.partial(held.__setitem__, 0)


def first(values, shift=0.0):
    return values[0] + shift


@form
def argument_of_a_partial(k):
    held = [k]
    return functools.partial(first, held), functools.partial(held.__setitem__, 0)


@form
def keyword_of_a_partial(k):
    made = functools.partial(first, [0.0], shift=k)
    return made, functools.partial(made.keywords.__setitem__, "shift")


@form
def lambda_within_a_function(k):
    held = types.SimpleNamespace(delta=k)

    def read():
        return (lambda: held.delta)()

    return read, of_attribute(held)


@form
def default_that_is_a_dict(k):
    held = {"delta": k}

    def read(given=held):
        return given["delta"]

    return read, functools.partial(held.__setitem__, "delta")


@form
def default_behind_another_argument(k):
    held = {"delta": k}

    def helper(scale, given=held):
        return scale * given["delta"]

    return lambda: helper(1.0), functools.partial(held.__setitem__, "delta")


@form
def default_put_in_place(k):
    def read(delta=k):
        return delta

    return read, lambda value: setattr(read, "__defaults__", (value,))


@form
def keyword_default_put_in_place(k):
    def read(*, delta=k):
        return delta

    return read, lambda value: setattr(read, "__kwdefaults__", {"delta": value})


@form
def attribute_of_a_function(k):
    def read():
        return read.delta  # type: ignore[attr-defined]

    read.delta = k  # type: ignore[attr-defined]
    return read, of_attribute(read)


@form
def tensor_changed_in_place(k):
    held = torch.tensor(float(k))
    return lambda: float(held), held.fill_


@form
def array_changed_in_place(k):
    held = np.array([0.0, k])
    return lambda: float(held.sum()), functools.partial(held.__setitem__, 1)


@form
def number_of_numpy(k):
    held = {"delta": np.float64(k)}
    return (
        lambda: float(held["delta"]),
        lambda value: held.__setitem__("delta", np.float64(value)),
    )


@form
def function_put_in_place(k):
    held, there = types.SimpleNamespace(), {}

    def put(value):
        held.read = there.setdefault(value, lambda: value)

    put(k)
    return lambda: held.read(), put


class Choice(enum.Enum):
    ONE = 1.0
    TWO = 2.0
    THREE = 3.0


@form
def choice(k):
    held = types.SimpleNamespace(choice=Choice(k))
    return lambda: held.choice.value, lambda value: setattr(held, "choice", Choice(value))


class Gain(torch.nn.Module):
    def __init__(self, delta):
        super().__init__()
        self.delta = delta

    def forward(self):
        return self.delta


@form
def attribute_of_an_own_module(k):
    held = Gain(k)
    return lambda: held(), of_attribute(held)


@form
def attribute_of_a_module_of_torch(k):
    held = torch.nn.LeakyReLU(k)
    return lambda: -float(held(torch.tensor(-1.0))), of_attribute(held, "negative_slope")


def put_in_environment(value):
    os.environ["SGDSTUDY_LATE"] = str(value)


@outside
def variable_of_the_environment(k):
    put_in_environment(k)
    return lambda: float(os.environ["SGDSTUDY_LATE"]), put_in_environment


@outside
def variable_of_the_environment_by_getenv(k):
    put_in_environment(k)
    return lambda: float(os.getenv("SGDSTUDY_LATE")), put_in_environment


@outside
def variable_of_the_environment_by_another_name(k):
    put_in_environment(k)
    return lambda: float(getenv("SGDSTUDY_LATE")), put_in_environment


@outside
def context_variable(k):
    held = contextvars.ContextVar("delta")
    held.set(k)
    return lambda: held.get(), held.set


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("SGDSTUDY_LATE", "0")


def identity(one, given):
    return Identity.of(one, ss.TrainConfig(**given))


def made(place, get):
    one, changes = MAKERS[place](get)
    return one, settings(changes)


VALUES = st.sampled_from([1.0, 2.0, 3.0])
EVERY = {**FORMS, **OUTSIDE}
QUIET = {"suppress_health_check": [HealthCheck.function_scoped_fixture], "deadline": None}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_reads_what_is_there_and_its_fingerprint_tells(name):
    get, put = FORMS[name](1.0)
    one = fingerprint(get)
    assert get() == 1.0
    put(2.0)
    assert get() == 2.0
    assert one != fingerprint(get)
    put(1.0)
    assert one == fingerprint(get)


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_lies_outside_has_no_fingerprint(name):
    get, put = OUTSIDE[name](1.0)
    put(2.0)
    assert get() == 2.0
    with pytest.raises(Unseen, match="the loss") as error:
        fingerprint(get, "the loss")
    assert one_line(error)


@pytest.mark.slow
@pytest.mark.parametrize("place", MAKERS)
@given(name=st.sampled_from(sorted(FORMS)), a=VALUES, b=VALUES)
@hypothesis_settings(max_examples=20, **QUIET)
def test_no_two_settings_have_one_identity_in_any_place(place, name, a, b):
    get, put = FORMS[name](a)
    found = identity(*made(place, get))
    put(b)
    other = identity(*made(place, get))
    assert found.hash
    assert other.hash
    assert (found.hash == other.hash) == (a == b)


@pytest.mark.parametrize("place", MAKERS)
@pytest.mark.parametrize("name", OUTSIDE)
def test_what_lies_outside_is_never_shared(place, name):
    get, _ = OUTSIDE[name](1.0)
    found = identity(*made(place, get))
    assert found.hash == ""
    assert found.unseen


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("place", MAKERS)
def test_a_thing_made_with_another_number_is_refused(place, name):
    get, put = EVERY[name](1.0)
    one, given = made(place, get)
    config = ss.TrainConfig(**given)
    put(2.0)
    with pytest.raises(ss.InputError, match=r"reads .*, which was") as error:
        ss.train(one, config=config)
    assert one_line(error)
    put(1.0)
    ss.train(one, config=config)


def test_the_line_says_where_it_is_read_and_what_it_was():
    expected = {
        "attribute_of_a_module": "module.delta",
        "namespace": "held.delta",
        "object_in_an_object": "held.delta.delta",
        "bound_method": "Callable.delta",
        "item_of_a_dict_in_a_dict": "held['loss']['delta']",
        "item_of_a_list": "held[1]",
        "argument_of_a_partial": "s.args[0][0]",
        "default_that_is_a_dict": "given['delta']",
        "default_behind_another_argument": "given['delta']",
        "default_put_in_place": "delta",
        "variable_of_the_environment": "os.environ['SGDSTUDY_LATE']",
        "context_variable": "held.get()",
    }
    for name, shown in expected.items():
        get, put = EVERY[name](1.0)
        one, _ = MAKERS["loss"](get)
        put(2.0)
        with pytest.raises(ss.InputError) as error:
            one.check_unchanged()
        was, now = ("'1.0'", "'2.0'") if "environ" in shown else ("1.0", "2.0")
        assert f"reads {shown!r}, which was {was} when that was made and is {now} now" in str(
            error.value
        )


def test_what_is_not_read_may_change():
    for name in ("namespace", "data_class"):
        get, _ = FORMS[name](1.0)
        one, given = made("loss", get)
        held = dict(zip(get.__code__.co_freevars, get.__closure__, strict=True))["held"]
        held.cell_contents.unread = 7
        ss.train(one, **given)
    held = {"delta": 1.0, "unread": 0}
    one, given = made("loss", lambda: held["delta"])
    held["unread"], held["new"] = 7, 8
    ss.train(one, **given)


def test_a_list_that_is_too_long_to_be_looked_at_may_not_be_another():
    held = [0.0] * 200 + [1.0]
    one, given = made("loss", lambda: sum(held))
    ss.train(one, **given)
    held = [0.0] * 200 + [2.0]
    with pytest.raises(ss.InputError, match="reads 'held', which was something else"):
        ss.train(one, **given)


def test_a_module_may_be_put_into_evaluation_mode():
    get, _ = FORMS["attribute_of_a_module_of_torch"](1.0)
    one, given = made("loss", get)
    held = dict(zip(get.__code__.co_freevars, get.__closure__, strict=True))["held"]
    held.cell_contents.eval()
    ss.train(one, **given)


# ---- what functions change by themselves ---------------------------------------------------------


@own
def log():
    seen = []

    def read():
        seen.append(1.0)
        return 1.0

    return read, seen.clear


@own
def log_that_has_a_head():
    seen = ["loss"]

    def read():
        seen.append("1")
        return 1.0

    return read, lambda: seen.__setitem__(0, "loss, in parts")


@own
def log_in_a_deque():
    seen = deque(maxlen=3)

    def read():
        seen.append(1.0)
        return 1.0

    return read, seen.clear


@own
def log_that_is_looked_at():
    seen = []

    def read():
        seen.append(len(seen))
        return 1.0 + 0 * np.mean(seen[-10:])

    return read, seen.clear


@own
def log_by_another_function():
    seen = []

    def note(rows):
        rows.append(len(rows))

    def read():
        note(seen)
        return 1.0

    return read, lambda: None


@own
def log_by_its_method():
    seen = []
    note = seen.append

    def read():
        note(len(seen))
        return 1.0

    return read, seen.clear


@own
def counter_in_a_dict():
    held = {"n": 0}

    def read():
        held["n"] += 1
        return 1.0

    return read, lambda: held.update(n=0)


@own
def counter_in_a_list():
    held = [0]

    def read():
        held[0] += 1
        return 1.0

    return read, lambda: held.__setitem__(0, 0)


@own
def counter_in_an_array():
    held = np.zeros(1)

    def read():
        held[0] += 1
        return 1.0

    return read, lambda: held.fill(0)


@own
def counter_of_a_namespace():
    held = types.SimpleNamespace(n=0)

    def read():
        held.n += 1
        return 1.0

    return read, lambda: setattr(held, "n", 0)


@own
def counter_of_a_function():
    def read():
        read.n += 1  # type: ignore[attr-defined]
        return 1.0

    read.n = 0  # type: ignore[attr-defined]
    return read, lambda: setattr(read, "n", 0)


@own
def counter_of_an_object():
    class Held:
        def __init__(self):
            self.n, self.rows, self.cache = 0, [], {}

        def __call__(self):
            self.n += 1
            self.rows.append(self.n)
            return self.cache.setdefault(self.n % 2, 1.0)

        def reset(self):
            self.n = 0

    held = Held()
    return held, held.reset


@own
def log_of_an_object_that_has_a_head():
    class Held:
        def __init__(self):
            self.rows = ["loss"]

        def __call__(self):
            self.rows.append("1")
            return 1.0

        def reset(self):
            self.rows[0] = "loss, in parts"

    held = Held()
    return held, held.reset


@own
def cache_in_a_dict():
    cache = {}

    def read():
        if len(cache) not in cache:
            cache[len(cache)] = 1.0
        return 1.0

    return read, cache.clear


@own
def cache_that_is_a_default():
    def read(cache={}):  # noqa: B006
        cache["delta"] = cache.get("delta", 0.0) + 1.0
        return 1.0

    return read, lambda: read.__defaults__[0].clear()


@own
def cache_of_functools():
    @functools.cache
    def read():
        return 1.0

    return read, read.cache_clear


@pytest.mark.parametrize("place", MAKERS)
@pytest.mark.parametrize("name", OWN)
def test_what_functions_change_by_themselves_is_let_be(place, name):
    get, clear = OWN[name]()
    one, given = made(place, get)
    config = ss.TrainConfig(**given)
    expected = ss.train(*made(place, lambda: 1.0)[:1], config=ss.TrainConfig(**given)).w
    get()
    for _ in range(2):
        assert np.array_equal(ss.train(one, config=config).w, expected)
        get()
    clear()
    get()
    assert np.array_equal(ss.train(one, config=config).w, expected)


def test_what_is_read_and_appended_to_is_part_of_an_identity():
    def make(k):
        seen = [k]

        def read():
            seen.append(0.0)
            return sum(seen)

        return read

    assert fingerprint(make(1.0)) == fingerprint(make(1.0))
    assert fingerprint(make(1.0)) != fingerprint(make(2.0))


@pytest.mark.parametrize("name", ["log", "log_in_a_deque"])
def test_what_is_only_appended_to_is_no_part_of_an_identity(name):
    get, _ = OWN[name]()
    one, given = made("measure", get)
    before = identity(one, given)
    ss.train(one, **given)
    assert identity(one, given) == before
    assert before.hash


def test_what_was_changed_in_training_is_theirs_in_other_things_too():
    seen = []

    def note(rows):
        rows[:] = [len(rows) + 1, *rows]

    def own(f, y):
        note(seen)
        return float(seen[-1] >= 1)

    note(seen)
    configs = [ss.TrainConfig(**GIVEN, measures={"own": own}) for _ in range(3)]
    for config in configs:
        ss.train(CURVE, config=config)


def test_nothing_that_is_looked_at_is_kept_alive():
    import gc
    import weakref

    gc.freeze()  # looks at what is made from here on only: torch and MLflow take seconds
    held = Settings(1.0)
    watched = weakref.ref(held)
    one, _ = MAKERS["loss"](lambda: held.delta)
    bindings.check(one, "it")
    one = held = None
    gc.collect()
    assert watched() is None
