"""Any two things that a run is made of and that differ have different fingerprints.

Each way in which a function or object can differ is a maker from a number: made twice of one number
it is the same, of two numbers it is not.
"""

import collections.abc
import configparser
import copy
import csv
import decimal
import enum
import functools
import gzip
import importlib
import inspect
import linecache
import logging
import math
import os
import sqlite3
import subprocess
import sys
import threading
import time
import types
import typing
import warnings
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet
import pytest
import torch
from conftest import one_line
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import sgdstudy as ss
from sgdstudy.problems.fingerprint import Unseen, fingerprint

SPACE = """
import helper
import helper.deep
from helper.deep import shape as own_shape

SCALE = {k}

def reads(w, x):
    return SCALE * w[0] * x

def calls(w, x):
    return reads(w, x)

def nested(w, x):
    def inner(v):
        return SCALE * v
    return inner(w[0] * x)

def comprehends(w, x):
    return sum([SCALE * v for v in w]) * x

def of_module(w, x):
    return helper.SCALE * w[0] * x

def of_package(w, x):
    return helper.deep.SCALE * w[0] * x

def imports(w, x):
    import helper.deep
    return helper.deep.SCALE * w[0] * x

def takes(w, x, *, scale={k}):
    return scale * w[0] * x

def of_alias(w, x):
    return own_shape(w, x)

def constant(w, x):
    return {k} * w[0] * x

def doc(w, x):
    "{k}"
    return w[0] * x + int(doc.__doc__)

class Model:
    gain = {k}

    def __call__(self, w, x):
        return self.gain * w[0] * x

class Heir(Model):
    def bound(self, w, x):
        return super().__call__(w, x)

class Slotted:
    __slots__ = ("gain",)

    def __init__(self, gain):
        self.gain = gain

    def __call__(self, w, x):
        return self.gain * w[0] * x

class Property:
    @property
    def gain(self):
        return {k}

    @staticmethod
    def one(w, x):
        return {k} * w[0] * x

    @classmethod
    def two(cls, w, x):
        return {k} * w[0] * x

    @functools.cached_property
    def three(self):
        return {k}

    def __call__(self, w, x):
        return self.gain * self.three * w[0] * x

@functools.lru_cache
def cached(w, x):
    return SCALE * w[0] * x

@torch.no_grad()
def start(generator):
    return SCALE * torch.randn(3, generator=generator)

@dataclass
class Data:
    gain: float = {k}
    more: list = field(default_factory=lambda: [{k}])

    def __call__(self, w, x):
        return self.gain * w[0] * x

class Kind(enum.Enum):
    ONE = {k}

def chooses(w, x):
    return Kind.ONE.value * w[0] * x

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.gain = {k}

    def forward(self, x):
        return self.gain * self.layer(x)

class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x):
        return {k} * self.layer(x)
"""
OTHER_MODULES = """
SCALE = {k}

def shape(w, x):
    return SCALE * w[0] * x
"""


def space(k):
    """A script of the user's, with a helper module and a package in it."""
    helper, deep = types.ModuleType("helper"), types.ModuleType("helper.deep")
    for module in (helper, deep):
        module.__file__ = f"/nowhere/{module.__name__}.py"
        exec(compile(OTHER_MODULES.format(k=k), module.__file__, "exec"), vars(module))
    vars(helper)["deep"] = deep
    sys.modules |= {"helper": helper, "helper.deep": deep}
    names = {"torch": torch, "nn": nn, "enum": enum, "functools": functools}
    found = {"__name__": "script", **names, "dataclass": dataclass, "field": field}
    script = types.ModuleType("script")
    sys.modules["script"] = script
    vars(script).update(found)
    exec(compile(SPACE.format(k=k), "/nowhere/script.py", "exec"), vars(script))
    return script


class State:
    """A callable object."""

    def __init__(self, value):
        self.value = value

    def __call__(self, w, x):
        return self.value

    def bound(self, w, x):
        return self.value


def takes(w, x, scale=1.0, *, shift=0.0):
    return scale * w[0] * x + shift


def net(k, change):
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
    change(made, k)
    return made


def buffer(module, k):
    module.register_buffer("shift", torch.tensor([0.0, k]))


def parameter(module, k):
    with torch.no_grad():
        module[0].weight[0, 1] = k


def attribute(module, k):
    module[1].gain = k


def frozen(module, k):
    module[2].requires_grad_(k % 2 == 0)


def mode(module, k):
    module.train(k % 2 == 0)


def hook(module, k):
    module.register_forward_hook(lambda module, given, out: k * out)


def array(k, dtype=float):
    values = np.zeros(1000, dtype)
    values[677] = k
    return values


def closure(value):
    return lambda w, x: value


def deeper(value):
    def outer():
        def inner(w, x):
            return value

        return inner

    return closure(outer())


def default(value):
    return lambda w, x, value=value: value


def decorated(value):
    def twice(function):
        @functools.wraps(function)
        def wrapper(*given):
            return value * function(*given)

        return wrapper

    return twice(takes)


def marked(value):
    function = closure(0)
    function.scale = value
    return function


def generator_at(k):
    return torch.Generator().manual_seed(k)


# of values, each within a closure, a default, a partial, an object, ...
VALUES = {
    "int": lambda k: k,
    "float": lambda k: k / 7,
    "last bit": lambda k: np.nextafter(1.0, 2.0) if k % 2 else 1.0,
    "sign of zero": lambda k: -0.0 if k % 2 else 0.0,
    "truth": lambda k: bool(k % 2),
    "text": str,
    "bytes": lambda k: str(k).encode(),
    "complex": lambda k: complex(1, k),
    "fraction": lambda k: Fraction(1, k + 1),
    "tuple": lambda k: (1, (2, k)),
    "list": lambda k: [[k]],
    "dict": lambda k: {"a": {"b": k}},
    "key": lambda k: {k: 1},
    "set": lambda k: {1.5, ("x", k)},
    "array": array,
    "array of whole numbers": lambda k: array(k, np.int32),
    "array of objects": lambda k: np.array([None, {"k": k}], dtype=object),
    "shape": lambda k: np.zeros((k + 1, 3)),
    "shape of as many": lambda k: np.zeros((2, 6) if k % 2 else (3, 4)),
    "dtype of as many bytes": lambda k: np.zeros(5, np.int64 if k % 2 else np.float64),
    "numpy's number": lambda k: np.float32(k),
    "tensor": lambda k: torch.from_numpy(array(k)),
    "half": lambda k: torch.tensor([1.0, k % 2], dtype=torch.bfloat16),
    "view": lambda k: torch.from_numpy(array(k))[600:700],
    "parameter": lambda k: nn.Parameter(torch.tensor([float(k)])),
    "table": lambda k: pd.DataFrame({"a": [1, k]}),
    "namespace": lambda k: types.SimpleNamespace(a=k),
    "object": State,
    "partial": lambda k: functools.partial(takes, scale=k),
    "generator": generator_at,
    "numpy's generator": np.random.default_rng,
    "range": lambda k: range(k, 1000),
}
HOLDERS = {
    "closure": closure,
    "deeper": deeper,
    "default": default,
    "partial": lambda value: functools.partial(takes, scale=value),
    "second partial": lambda value: functools.partial(functools.partial(takes, value), shift=0),
    "state": State,
    "bound method": lambda value: State(value).bound,
    "object in an object": lambda value: State(State({"a": value})),
    "decorated": decorated,
    "attribute": marked,
    "class attribute": lambda value: type("Own", (State,), {"gain": value})(0),
    "class": lambda value: type("Own", (State,), {"gain": value}),
}
SCRIPT = """
    reads calls nested comprehends of_module of_package imports takes of_alias constant doc Model
    Heir Property cached start Data chooses Kind
"""
MODULES = [buffer, parameter, attribute, frozen, mode, hook]
MAKERS = {
    **{f"value: {name}": maker for name, maker in VALUES.items()},
    **{f"script: {name}": lambda k, n=name: getattr(space(k), n) for name in SCRIPT.split()},
    "script: an object": lambda k: space(k).Model(),
    "script: a method": lambda k: space(k).Heir().bound,
    "script: slots": lambda k: space(0).Slotted(k),
    "script: a static method": lambda k: space(k).Property.one,
    "script: a class method": lambda k: space(k).Property.two,
    "script: data": lambda k: space(0).Data(k),
    "script: net": lambda k: (torch.manual_seed(0), space(k).Net())[1],
    "script: hidden": lambda k: (torch.manual_seed(0), space(k).Hidden())[1],
    **{f"module: {c.__name__}": lambda k, c=c: net(k, c) for c in MODULES},
    "lambda": lambda k: eval(f"lambda w, x: {k} * w[0] * x"),
    "name of an argument": lambda k: eval(f"lambda w, x, lr{k % 2}=0: w"),
    "operation": lambda k: eval(f"lambda w, x: w[0] {'+-'[k % 2]} x"),
    "name of a method": lambda k: eval(f"lambda w, x: (w[0] * x).{('sin', 'cos')[k % 2]}()"),
    "order of two": lambda k: [{"a": 1, "b": 2}, {"b": 2, "a": 1}][k % 2],
}
LOG = logging.getLogger("mine")
NUMBERS = st.integers(0, 999)


@pytest.mark.slow
@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
@given(a=NUMBERS, b=NUMBERS)
def test_the_same_is_the_same_and_another_is_another(maker, a, b):
    """Some makers know even from odd only: b is the other."""
    b = a + 1 + 2 * b
    assert fingerprint(maker(a)) == fingerprint(maker(a)) != fingerprint(maker(b))


@given(value=st.sampled_from(sorted(VALUES)), holder=st.sampled_from(sorted(HOLDERS)), a=NUMBERS)
def test_wherever_a_value_lies_it_is_seen(value, holder, a):
    made = [HOLDERS[holder](VALUES[value](k)) for k in (a, a, a + 1)]
    one, again, other = map(fingerprint, made)
    assert one == again != other


def test_makers_of_different_kinds_never_meet():
    found = [fingerprint(maker(3)) for maker in MAKERS.values()]
    kinds = dict(zip(found, MAKERS, strict=True))
    # equal texts in two places are equal
    assert len(kinds) >= len(MAKERS) - 3


def test_a_name_a_comment_and_a_place_do_not_matter():
    texts = [
        "def f(w, x):\n    return 2 * w[0] * x\n",
        "# why\n\n\ndef g(w, x):  # so\n    return 2 * w[0] * x\n",
    ]
    found = []
    for text in texts:
        names = {"__name__": "script"}
        exec(compile(text, f"/nowhere/{len(text)}.py", "exec"), names)
        found.append(fingerprint(names["f" if "f" in names else "g"]))
    assert found[0] == found[1]


class Caches(State):
    changes_no_number = ("cache",)


def test_a_class_may_say_what_is_not_looked_at():
    one, other = Caches(1), Caches(1)
    vars(one)["cache"], vars(other)["cache"] = {}, {"a": threading.Lock()}
    assert fingerprint(one) == fingerprint(other) != fingerprint(Caches(2))


def test_what_refers_to_itself_ends():
    one, other = State(1), State(2)
    vars(one)["back"], vars(other)["back"] = one, other
    assert fingerprint(one) == fingerprint(one) != fingerprint(other)

    def again(n):
        return again(n - 1) if n else 0

    assert fingerprint(again) == fingerprint(again)
    nest = []
    for _ in range(100_000):
        nest = [nest]
    with pytest.raises(Unseen, match="nested too deep"):
        fingerprint(nest)


def running():
    yield 1


def reads_a_file(w, x):
    return float(open("scale").read()) * x


def reads_the_environment(w, x):
    import os

    return float(os.environ["SCALE"]) * x


def evaluates(w, x):
    return eval("SCALE") * x


@pytest.mark.parametrize(
    "value",
    [
        closure(threading.Lock()),
        State(running()),
        closure(sys.stdout),
        reads_a_file,
        reads_the_environment,
        evaluates,
        State({"a": [threading.local()]}),
        closure(torch.zeros(3).to_sparse()),
    ],
)
def test_what_nothing_shows_is_said_in_one_line(value):
    with pytest.raises(Unseen, match=r"^the model.* is, or reads, ") as error:
        fingerprint(value, "the model")
    assert one_line(error)


@pytest.mark.filterwarnings("ignore::UserWarning")  # one is a prototype, the other is to go
@pytest.mark.parametrize("kind", ["nested", "quantized"])
def test_tensors_whose_numbers_are_not_all_are_unseen(kind):
    """As it was seen: 1 in steps of 0.1 and 2 in steps of 0.2 were one."""
    if kind == "nested":
        value = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    else:
        value = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8)
    with pytest.raises(Unseen, match="nested or quantized") as error:
        fingerprint(closure(value), "the model")
    assert one_line(error)


def test_a_module_that_is_asked_by_name_may_be_asked_for_anything():
    script = space(1)
    exec("def asks(w, x): return getattr(helper, 'SCALE') * x", vars(script))
    with pytest.raises(Unseen, match="getattr"):
        fingerprint(script.asks)


def outside_of(text, **given):
    """A function of a script that asks for a text."""
    script = space(1)
    modules = (configparser, gzip, importlib, inspect, linecache, os, pd, sqlite3, sys)
    vars(script).update({one.__name__: one for one in modules} | {"np": np, "pd": pd} | given)
    exec(f"def asks(w, x): return {text}", vars(script))
    return script.asks


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("pd.read_csv('a').v[0] * x", "read_csv"),
        ("np.memmap('a')[0] * x", "memmap"),
        ("p.open().read()", "open"),
        ("p.exists() * x", "exists"),
        ("os.read(os.open('a', 0), 9)", "open"),
        ("os.path.expandvars('$A')", "expandvars"),
        ("os.path.getsize('a') * x", "getsize"),
        ("gzip.open('a').read()", "open"),
        ("gzip.GzipFile('a').read()", "GzipFile"),
        ("configparser.ConfigParser().read('a')", "ConfigParser"),
        ("linecache.getline('a', 1)", "getline"),
        ("sqlite3.connect('a')", "connect"),
        ("importlib.import_module('helper').SCALE * x", "import_module"),
        ("inspect.currentframe().f_globals['SCALE'] * x", "f_globals"),
        ("sys._getframe() and x", "_getframe"),
        ("(lambda: 1).__globals__['SCALE'] * x", "__globals__"),
        ("getattr(reads, '__globals__')['SCALE'] * x", "__globals__"),
        ("reads.__closure__[0].cell_contents", "__closure__"),
        ("helper.__dict__['SCALE'] * x", "helper"),
        ("(lambda module: module.SCALE)(helper) * x", "helper"),
        ("(lambda module: module.SCALE)(helper.deep) * x", "helper.deep"),
        ("(lambda module: module.environ)(os)", "module os"),
        ("held['read']('a')", "getline"),
        ("scaled(w)", "ufunc"),
        ("pyarrow.csv.read_csv('a')['v'][0].as_py() * x", "read_csv"),
        ("pyarrow.parquet.ParquetFile('a').read()", "ParquetFile"),
        ("pyarrow.dataset.dataset('a').to_table()", "dataset"),
        ("pyarrow.OSFile('a').read()", "OSFile"),
        ("np.lib.npyio.DataSource().open('a')", "DataSource"),
        ("pd.get_option('display.max_rows') * x", "get_option"),
        ("ss.load_losses('a').loss[0] * x", "load_losses"),
        ("ss.load_steps('a').loss[0] * x", "load_steps"),
        ("psutil.Process().num_threads() * x", "Process"),
        ("reads.__code__.co_firstlineno * x", "co_firstlineno"),
        ("len(reads.__code__.co_filename) * x", "co_filename"),
    ],
)
def test_what_reads_the_world_outside_is_unseen(text, reads):
    given = {"p": Path("a"), "held": {"read": linecache.getline}}
    given["scaled"] = np.frompyfunc(lambda value: 2 * value, 1, 1)
    given |= {"pyarrow": pyarrow, "psutil": psutil, "ss": ss}
    with pytest.raises(Unseen, match=reads) as error:
        fingerprint(outside_of(text, **given))
    assert one_line(error)


class Ordinary(nn.Module):
    """What models have: a folder, a log, a cast, a copy, a save."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def forward(self, x):
        LOG.info("%s in %d", type(self).__name__, os.getpid())
        with warnings.catch_warnings():
            scaled = copy.deepcopy(x) * math.sqrt(2) + np.tanh(1.0)
        return F.relu(scaled) if isinstance(x, collections.abc.Sized) else scaled

    def save(self, name):
        os.makedirs(self.folder, exist_ok=True)
        torch.save(self.state_dict(), os.path.join(self.folder, name))


def test_ordinary_models_are_seen():
    assert fingerprint(Ordinary(Path("a"))) != fingerprint(Ordinary(Path("b")))


def masked(k):
    values = np.ma.array([1.0, 2.0, 3.0], mask=[False, k % 2 == 0, False])
    return lambda w, x: w * values.sum()


def filled(k):
    values = np.ma.array([1.0, 2.0], mask=[False, True], fill_value=float(k))
    return lambda w, x: w * values.filled().sum()


def on_tensor(k):
    values = torch.ones(3)
    vars(values)["scale"] = k
    return lambda w, x: w * getattr(values, "scale", None)


def on_parameter(k):
    made = net(0, lambda module, k: None)
    made[0].weight.scale = k
    return made


def documented(k):
    def function(w, x):
        return int(function.__doc__) * x

    function.__doc__ = str(k)
    return function


def called(k):
    def function(w, x):
        return len(function.__name__) * x

    function.__name__ = "a" * (k + 1)
    return function


def annotated(k):
    def function(w, x):
        return function.__annotations__["x"] * x

    function.__annotations__ = {"x": k}
    return function


def annotated_class(k):
    own = type("Own", (), {"__annotations__": {"gain": k}})
    return lambda w, x: own.__annotations__["gain"] * x


def one_list_or_two(k):
    counts = [0]
    others = counts if k % 2 else [0]

    def counted(w, x):
        counts[0] += 1
        return others[0] * x

    return counted


def one_memory_or_two(k):
    values = torch.zeros(4)
    one, other = values[:2], values[1:3] if k % 2 else torch.zeros(2)
    return lambda w, x: one.add_(1) + other


def on_table(k):
    table = pd.DataFrame({"a": [1.0]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table.scale = k
    return lambda w, x: table.scale * x


def on_masked(k):
    values = np.ma.array([1.0, 2.0])
    vars(values)["scale"] = k
    return lambda w, x: getattr(values, "scale") * x  # noqa: B009


def documented_by_name(k):
    function = documented(k)
    return lambda w, x: int(getattr(function, "__doc__")) * x  # noqa: B009


def of_a_module(k):
    function = closure(0)
    function.__module__ = "a" * k
    return lambda w, x: len(function.__module__) * x


def hinted(k):
    def function(w, x):
        return w

    function.__annotations__ = {"w": typing.Literal[k]}
    return lambda w, x: typing.get_args(typing.get_type_hints(function)["w"])[0] * x


def with_gradient(k):
    values = torch.zeros(1, requires_grad=True)
    values.grad = torch.tensor([float(k)])
    return lambda w, x: values.grad * x


def hooked(k):
    values = torch.ones(1, requires_grad=True)
    values.register_hook(lambda gradient: k * gradient)
    return lambda w, x: torch.autograd.grad(values.sum(), values)[0] * x


def of_a_view(k):
    values = torch.tensor([1.0, k])[:1]
    return lambda w, x: values.as_strided((1,), (1,), 1) * x


def base_of_a_view(k):
    values = torch.tensor([1.0, k])[:1]
    return lambda w, x: values._base[1] * x


def base_of_an_array(k):
    values = np.array([1.0, k])[:1]
    return lambda w, x: values.base[1] * x


def strided(k):
    values = np.zeros((2, 3), order="F" if k % 2 else "C")
    return lambda w, x: values.strides[0] * x


def strided_tensor(k):
    values = torch.zeros(2, 2)
    values = values.T if k % 2 else values
    return lambda w, x: values.stride()[0] * x


def written_to(k):
    values = np.zeros(3)
    values.flags.writeable = bool(k % 2)
    return lambda w, x: values.flags.writeable * x


def with_metadata(k):
    values = np.zeros(1, np.dtype("f8", metadata={"k": k}))
    return lambda w, x: values.dtype.metadata["k"] * x


def rounded(k):
    decimal.getcontext().prec = k + 1
    return lambda w, x: float(decimal.Decimal(1) / decimal.Decimal(3)) * x


def rounded_number(k):
    decimal.getcontext().prec = k + 1
    number = decimal.Decimal(1)
    return lambda w, x: float(number / 3) * x


def logged(k):
    vars(logging.getLogger("test_fingerprint.gain"))["gain"] = k
    return lambda w, x: logging.getLogger("test_fingerprint.gain").gain * x  # type: ignore


def of_level(k):
    log = logging.getLogger("test_fingerprint.level")
    log.setLevel(10 * k)
    return lambda w, x: log.isEnabledFor(15) * x


def of_a_dialect(k):
    csv.register_dialect("test_fingerprint", delimiter=",;"[k % 2])
    return lambda w, x: len(next(csv.reader(["1;2"], "test_fingerprint"))) * x


def printed(k):
    np.set_printoptions(precision=k + 1)
    return lambda w, x: float(str(np.array([1 / 3]))[1:-1]) * x


def of_a_zone(k):
    os.environ["TZ"] = ("UTC", "Asia/Tokyo")[k % 2]
    time.tzset()
    return lambda w, x: time.localtime(0).tm_hour * x


def of_builtins(k):
    names = {"__builtins__": {"abs": lambda value: k * value}}
    exec("def function(w, x): return abs(x)", names)
    return names["function"]


def appended_to(k):
    log = [0] * k

    def function(w, x):
        append = log.append
        return len(append.__self__) * x  # type: ignore

    return function


def caused(k):
    error = ValueError()
    error.__cause__ = KeyError(k)
    return lambda w, x: error.__cause__.args[0] * x


LATER = [
    masked, filled, on_tensor, on_parameter, documented, called, annotated, annotated_class,
    one_list_or_two, one_memory_or_two, on_table, on_masked, documented_by_name, of_a_module,
    hinted, with_gradient, hooked, of_a_view, base_of_a_view, base_of_an_array, strided,
    strided_tensor, written_to, with_metadata, rounded, rounded_number, logged, of_level,
    of_a_dialect, printed, of_a_zone, of_builtins, appended_to, caused,
]  # fmt: skip


@pytest.fixture
def process():
    """The state of the process, put back after the test."""
    kept, zone, options = decimal.getcontext().copy(), os.environ.get("TZ"), np.get_printoptions()
    yield
    decimal.setcontext(kept)
    os.environ.pop("TZ", None)
    if zone is not None:
        os.environ["TZ"] = zone
    time.tzset()
    np.set_printoptions(**options)
    if "test_fingerprint" in csv.list_dialects():
        csv.unregister_dialect("test_fingerprint")


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize("maker", LATER)
def test_what_hangs_on_a_value_and_what_is_one_in_memory(maker):
    assert fingerprint(maker(1)) == fingerprint(maker(1)) != fingerprint(maker(2))


def mine(module, x):
    return 2 * x


PUT = {
    "method": (nn.Softplus, "forward", mine, lambda: nn.Softplus()),
    "of its base": (nn.Module, "__call__", mine, lambda: nn.Softplus()),
    "static": (nn.Softplus, "forward", staticmethod(mine), lambda: nn.Sequential(nn.Softplus())),
    "property": (nn.Softplus, "slope", property(lambda module: 2), lambda: nn.Softplus()),
    "function of its module": (nn.functional, "softplus", mine, lambda: nn.Softplus()),
    "value": (nn.Softplus, "gain", 3, lambda: outside_of("nn.Softplus.gain * x")),
    "value of the base": (nn.Module, "gain", [3], lambda: outside_of("nn.Softplus().gain * x")),
    "of tensors": (torch.Tensor, "mine", mine, lambda: outside_of("x.mine()")),
}


@pytest.mark.parametrize("name", PUT)
def test_what_is_put_into_an_installed_package_is_seen(name, monkeypatch):
    where, attribute, value, maker = PUT[name]
    before = fingerprint(maker())
    with monkeypatch.context() as patch:
        patch.setattr(where, attribute, value, raising=False)
        assert fingerprint(maker()) != before
    assert fingerprint(maker()) == before


class Times:
    """A callable object of the user's."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return self.factor * x


def times(k):
    return functools.partialmethod(lambda module, x, k: k * x, k=k)


OTHERS = {
    "partial method": (nn.ELU, "forward", times, nn.ELU),
    "object": (nn.CELU, "forward", Times, lambda: nn.Sequential(nn.CELU())),
    "partial of an installed one": (
        F, "softsign", lambda k: functools.partial(torch.mul, other=k), nn.Softsign,
    ),
    "installed one": (F, "softsign", lambda k: (torch.sin, torch.cos)[k % 2], nn.Softsign),
    "method of another": (nn.ELU, "forward", lambda k: (nn.ReLU, nn.GELU)[k % 2].forward, nn.ELU),
    "value by name": (
        nn.Hardtanh, "gain", lambda k: k, lambda: outside_of("getattr(nn.Hardtanh, 'gain') * x"),
    ),
    "value in a format": (
        nn.Hardtanh, "gain", lambda k: k, lambda: outside_of("'{0.gain}'.format(nn.Hardtanh)"),
    ),
    "defaults": (nn.Softplus.__init__, "__defaults__", lambda k: (k + 0.5, 20.0), nn.Softplus),
    "defaults by keyword": (
        nn.Softplus.forward, "__kwdefaults__", lambda k: {"more": k}, nn.Softplus,
    ),
    "class": (F, "softsign", lambda k: type("Own", (Times,), {"gain": k}), nn.Softsign),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_whatever_is_put_into_an_installed_package_is_seen(name, monkeypatch):
    where, attribute, value, maker = OTHERS[name]
    found = [fingerprint(maker())]
    for k in (1, 2, 2):
        with monkeypatch.context() as patch:
            patch.setattr(where, attribute, value(k), raising=False)
            found.append(fingerprint(maker()))
    assert fingerprint(maker()) == found[0]
    assert len(set(found[:3])) == 3
    assert found[2] == found[3]


def test_how_a_tensor_was_made_is_unseen():
    leaf = torch.ones(1, requires_grad=True)
    made = 2 * leaf
    with pytest.raises(Unseen, match="how a tensor was made"):
        fingerprint(lambda w, x: torch.autograd.grad(made.sum(), leaf)[0] * x)


def test_ordinary_packages_are_seen():
    words = pd.DataFrame({"a": ["b", "c"]})
    einops = pytest.importorskip("einops")
    assert fingerprint(lambda w, x: einops.rearrange(words.a == "b", "a -> 1 a") * x)
    assert fingerprint(nn.Transformer(4, 2, 1, 1, 4, batch_first=True))


def test_a_file_name_makes_no_function_installed():
    found = []
    for k in (1, 2):
        code = compile(f"lambda w: w * {k}", "/usr/lib/python3/dist-packages/x.py", "eval")
        found.append(fingerprint(eval(code)))
    assert found[0] != found[1]


def draws(generator):
    return torch.randn(3, generator=generator) + np.random.normal(size=0).sum()


def test_global_generators_are_not_looked_at():
    """What draws from them is refused elsewhere; their state is not the function's."""
    one = fingerprint(draws)
    np.random.normal()
    torch.rand(1)
    assert fingerprint(draws) == one


CHILD = """
import sys
sys.path[:0] = {paths!r}
from test_fingerprint import HOLDERS, MAKERS, VALUES, fingerprint
print(*(fingerprint(maker(3)) for maker in MAKERS.values()))
print(*(fingerprint(h(v(5))) for h in HOLDERS.values() for v in VALUES.values()))
"""


@pytest.mark.slow
def test_another_process_finds_the_same():
    from pathlib import Path

    here = Path(__file__)
    code = CHILD.format(paths=[str(here.parent), str(here.parents[1]), str(here.parents[2])])
    found = []
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.split())
    assert len(found[0]) == len(MAKERS) + len(HOLDERS) * len(VALUES)
    assert found[0] == found[1]


@pytest.mark.parametrize("make", [functools.partial, functools.partialmethod])
def test_looking_at_a_partial_makes_no_other_of_it(make):
    """As it was seen: every combination of a sweep ran anew, since its dict was asked for."""
    value = make(takes, scale=2.0)
    before = fingerprint(value)
    assert vars(value) == {} or make is functools.partialmethod
    assert fingerprint(value) == before
    value.note = "own"  # what somebody puts there is told
    assert fingerprint(value) != before


def test_training_leaves_the_parts_of_a_problem_as_they_are():
    """So that runs of one problem are told apart by their settings alone."""
    x = torch.linspace(-1, 1, 20)
    losses = [functools.partial(torch.nn.functional.huber_loss, reduction="none", delta=0.5)]
    losses += [torch.nn.HuberLoss(reduction="none"), lambda f, y: (f - y).abs() ** 3, "mse"]
    for loss in losses:
        net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Flatten(0))
        for one in (
            ss.Problem(x, x, lambda w, x: w[0] * x, loss, w_init=[0.1]),
            ss.Problem(x[:, None], x, net, loss),
        ):
            before = {name: fingerprint(part) for name, part in one.parts.items()}
            ss.train(one, lr=0.1, batch_size=5, epochs=10, seeds=[0, 1])
            assert {name: fingerprint(part) for name, part in one.parts.items()} == before


def seeded(w, x):
    torch.manual_seed(0)
    return w[0] * x


def test_calling_a_function_of_torch_makes_no_other_of_it():
    """As it was seen: with its first call torch puts what keeps its compiler away there."""
    inner = getattr(torch.manual_seed, "__wrapped__", torch.manual_seed)
    held = vars(inner).pop("__dynamo_disable", None)
    try:
        before = fingerprint(seeded)
        vars(inner)["__dynamo_disable"] = lambda: inner
        assert fingerprint(seeded) == before
    finally:
        vars(inner).pop("__dynamo_disable", None)
        vars(inner).update({} if held is None else {"__dynamo_disable": held})
