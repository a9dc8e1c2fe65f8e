"""Functions of a loop share its variable: an arm sees its own value, or is refused in one line."""

import array
import contextlib
import copy
import dataclasses
import functools
import gc
import pickle
import types
import weakref
from collections import ChainMap, UserDict, UserList, deque
from functools import partialmethod

import numpy as np
import pytest
import torch
from conftest import call, one_line, small_curve
from torch.utils.checkpoint import checkpoint

import sgdstudy as ss

CURVE = small_curve(noise=0.1)
GIVEN = {"lr": 0.01, "batch_size": 10, "epochs": 2}
SCALE = 1.0


def problem(**changes):
    return CURVE.replace(**changes)


def scaled_by_global(f, y):
    return SCALE * (f - y) ** 2


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return SCALE * self.a * x


class Scaled:
    def __call__(self, f, y):
        return SCALE * (f - y) ** 2


# each makes a thing of a function that reads s, of the problem or of its settings
MAKERS = {
    "loss": lambda s: (problem(loss=lambda f, y: s() * (f - y) ** 2), {}),
    "model": lambda s: (problem(model=lambda w, x: s() * (w[0] + w[1] * x + w[2] * x * x)), {}),
    "penalty": lambda s: (problem(penalty=lambda w: s() * (w**2).sum()), {}),
    "start": lambda s: (
        problem(w_init=lambda generator: s() * torch.randn(3, generator=generator)),
        {},
    ),
    "partial": lambda s: (
        problem(loss=functools.partial(lambda k, f, y: k * s() * (f - y) ** 2, 2.0)),
        {},
    ),
    "optimizer": lambda s: (CURVE, {"optimizer": lambda p: torch.optim.SGD(p, lr=0.01 * s())}),
    "order": lambda s: (
        CURVE,
        {"order": lambda generator, d: torch.randperm(d, generator=generator).roll(int(s()))},
    ),
    "measure": lambda s: (CURVE, {"measures": {"own": lambda f, y: s() * (f - y).abs().max()}}),
    "diagnostic": lambda s: (CURVE, {"diagnostics": [diagnostic(s)]}),
}


def diagnostic(s):
    def own(chunk):
        return s() * chunk.loss

    return own


def settings(own):
    return {**GIVEN, **own} if "optimizer" not in own else {**GIVEN, **own, "lr": None}


def loop(make, values=(1.0, 2.0, 3.0)):
    """What a loop makes where every function reads its variable."""
    found = {}
    for s in values:
        found[s] = make(lambda: s)  # noqa: B023
    return found


@pytest.mark.parametrize("name", MAKERS)
def test_what_a_loop_makes_and_is_trained_at_once_has_its_own_value(name):
    for s in (1.0, 2.0):
        one, own = MAKERS[name](lambda: s)  # noqa: B023
        late = ss.train(one, **settings(own))
        one, own = MAKERS[name](lambda s=s: s)
        bound = ss.train(one, **settings(own))
        assert np.array_equal(late.w, bound.w)
        assert late.epochs.equals(bound.epochs)


@pytest.mark.parametrize("name", ["loss", "model", "penalty", "start", "partial"])
def test_a_problem_of_a_loop_that_is_over_is_refused(name):
    made = loop(MAKERS[name])
    for s in (1.0, 2.0):
        with pytest.raises(ss.InputError, match=f"reads 's', which was {s} when") as error:
            ss.train(made[s][0], **GIVEN)
        assert one_line(error)
        assert "is 3.0 now" in str(error.value)
    assert ss.train(made[3.0][0], **GIVEN).stop_reason[0] == "max_epochs"
    with pytest.raises(ss.InputError, match="reads 's'"):
        made[1.0][0].replace(name="other")


class Holds(torch.nn.Module):
    """f(x) = act(a x), with a function that it is given."""

    def __init__(self, act):
        super().__init__()
        self.a, self.act = torch.nn.Parameter(torch.ones(())), act

    def forward(self, x):
        return self.act(self.a * x)


class Many(Holds):
    def forward(self, x):
        for act in self.act:
            x = act(self.a * x)
        return x


class Keeps:
    def __init__(self, act):
        self.act = act

    def __call__(self, x):
        return self.act(x)


@dataclasses.dataclass
class Deep:
    inner: Keeps

    def __call__(self, x):
        return self.inner(x)


class Slotted:
    __slots__ = ("act",)

    def __init__(self, act):
        self.act = act

    def __call__(self, x):
        return self.act(x)


def hooked(act):
    net = torch.nn.Sequential(Holds(torch.nn.Identity()))
    net[0].register_forward_hook(lambda module, given, out: act(out))
    return net


def before(act):
    net = Holds(torch.nn.Identity())
    net.register_forward_pre_hook(lambda module, given: (act(given[0]),))
    return net


def of_class(method):
    """What calls a method of a class of its own."""
    return Keeps(type("Own", (), {"go": method, "__call__": lambda self, x: self.go(x)})())


class Pipeline:
    def __init__(self, *steps):
        self.__dict__.update({f"step{i}": step for i, step in enumerate(steps)})

    def __call__(self, x):
        for step in vars(self).values():
            x = step(x)
        return x


class ByNamespace(Holds):
    def forward(self, x):
        return self.act.own(self.a * x)


class ByItem(Holds):
    def forward(self, x):
        return self.act["own"](self.a * x)


# where a module may hold a function
HOLDERS = {
    "attribute": Holds,
    "module in a Sequential": lambda act: torch.nn.Sequential(Holds(act), torch.nn.Identity()),
    "list": lambda act: Many([act]),
    "dict": lambda act: ByItem({"own": act}),
    "namespace": lambda act: ByNamespace(types.SimpleNamespace(own=act)),
    "object": lambda act: Holds(Keeps(act)),
    "objects in objects": lambda act: Holds(Deep(Deep(Keeps(act)))),
    "slot": lambda act: Holds(Slotted(act)),
    "method of an object": lambda act: Holds(Keeps(act).__call__),
    "partial": lambda act: Holds(functools.partial(lambda f, x: f(x), act)),
    "cache": lambda act: Holds(functools.lru_cache(None)(act)),
    "wrapper": lambda act: Holds(functools.wraps(act)(lambda x: act(x))),
    "vmap": lambda act: Holds(torch.vmap(act)),
    "checkpoint": lambda act: Holds(functools.partial(checkpoint, act, use_reentrant=False)),
    "hook": hooked,
    "hook before": before,
    "deque": lambda act: Many(deque([act])),
    "set": lambda act: Many({act}),
    "array of objects": lambda act: Many(np.array([act], dtype=object)),
    "UserList": lambda act: Many(UserList([act])),
    "default": lambda act: Holds(lambda x, inner=act: inner(x)),
    "keyword": lambda act: Holds(lambda x, *, inner=(act,): inner[0](x)),
    "partialmethod": lambda act: Holds(of_class(partialmethod(lambda self, x, f: f(x), f=act))),
    "static method": lambda act: Holds(of_class(staticmethod(act))),
    "all attributes": lambda act: Holds(Pipeline(act)),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_a_function_that_a_module_holds_is_looked_at(name):
    x = np.linspace(1.0, 2.0, 12)[:, None]
    made = loop(lambda s: ss.Problem(x, 8 * x, HOLDERS[name](lambda x: s() * x)))
    for s in (1.0, 2.0):
        with pytest.raises(ss.InputError, match=f"reads 's', which was {s} when") as error:
            ss.train(made[s], **GIVEN, engine="eager")
        assert one_line(error)
    assert ss.train(made[3.0], **GIVEN, engine="eager").stop_reason[0] == "max_epochs"


class Own:
    """Settings with everything that a class may offer for changing them."""

    def __init__(self):
        object.__setattr__(self, "kept", {"s": 0.0})
        self.s = 0.0

    def put(self, s):
        self.s = s
        return self

    def __setattr__(self, name, value):
        self.kept[name] = value

    def __getattr__(self, name):
        if name in ("kept", "__deepcopy__", "__getstate__", "__setstate__"):
            raise AttributeError(name)
        return self.kept[name]

    def __setitem__(self, name, value):
        self.kept[name] = value

    def __getitem__(self, name):
        return self.kept[name]


class Plain:
    s = 0.0

    def put(self, s):
        self.s = s

    @contextlib.contextmanager
    def during(self, s):
        self.s = s
        yield


class Acts:
    def act(self):
        return 0.0


def with_attribute(own, s):
    own.s = s


def with_item(own, s):
    own["s"] = s


def during(own, s):
    with own.during(s):
        pass


def with_method(own, s):
    own.act = types.MethodType(lambda self: s, own)


def with_static_method(own, s):
    own.act = staticmethod(lambda: s)


def filled(own, s):
    own[:] = s


def first(own, s):
    own[0] = s


# what a loss may read, how, and how a loop changes it
OUTSIDE = {
    "setter": (Plain, lambda own: own.s, Plain.put),
    "block": (Plain, lambda own: own.s, during),
    "own attributes": (Own, lambda own: own.s, with_attribute),
    "own setter": (Own, lambda own: own.s, Own.put),
    "own items": (Own, lambda own: own["s"], with_item),
    "ChainMap": (lambda: ChainMap({"s": 0.0}), lambda own: own["s"], with_item),
    "UserDict": (lambda: UserDict(s=0.0), lambda own: own["s"], with_item),
    "UserList": (lambda: UserList([0.0]), lambda own: own[0], first),
    "deque": (lambda: deque([0.0]), lambda own: own[0], first),
    "numbers as keys": (lambda: {0: 0.0, "own": 1.0}, lambda own: own[0], first),
    "array.array": (lambda: array.array("d", [0.0]), lambda own: own[0], first),
    "bytearray": (lambda: bytearray(1), lambda own: own[0], lambda own, s: first(own, int(s))),
    "array": (lambda: np.zeros(5000), lambda own: own[7], filled),
    "tensor": (lambda: torch.zeros(5000), lambda own: own[7], filled),
    "method": (Acts, lambda own: own.act(), with_method),
    "static method": (lambda: type("A", (Acts,), {}), lambda own: own.act(), with_static_method),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_a_loop_changes_is_seen_however_it_does(name):
    make, read, change = OUTSIDE[name]
    own, made = make(), []
    for s in (1.0, 2.0, 3.0):
        change(own, s)
        made.append(problem(loss=lambda f, y: float(read(own)) * (f - y) ** 2))
    for one in made[:2]:
        with pytest.raises(ss.InputError, match=r"a function of the problem .* reads") as error:
            ss.train(one, **GIVEN)
        assert one_line(error)
    ss.train(made[2], **GIVEN)


def test_a_function_that_takes_the_place_of_one_that_is_gone_is_seen():
    """As it was seen: the first was garbage by the time that its variable was looked at."""
    acts = {}

    def made(s):
        def act(f, y):
            return s() * (f - y) ** 2

        acts["act"] = act
        vars(act)["itself"] = act  # garbage that only a collection finds
        return problem(loss=lambda f, y: acts["act"](f, y))

    found = loop(made)
    for s in (1.0, 2.0):
        with pytest.raises(ss.InputError, match="reads"):
            ss.train(found[s], **GIVEN)
    ss.train(found[3.0], **GIVEN)


def test_what_a_module_holds_and_does_not_call_is_let_be():
    x = np.linspace(1.0, 2.0, 12)[:, None]
    net = Holds(lambda x: 2 * x)
    net.told = lambda: s
    s = 1.0
    one = ss.Problem(x, 8 * x, net)
    s = 2.0
    ss.train(one, **GIVEN)


@pytest.mark.parametrize("name", ["optimizer", "order", "measure", "diagnostic"])
def test_settings_of_a_loop_that_is_over_are_refused(name):
    made = loop(lambda s: ss.TrainConfig(**settings(MAKERS[name](s)[1])))
    for s in (1.0, 2.0):
        with pytest.raises(ss.InputError, match=f"reads 's', which was {s} when") as error:
            ss.train(CURVE, config=made[s])
        assert one_line(error)
    ss.train(CURVE, config=made[3.0])


SCRIPT = '''
"""Which scale?"""
import sgdstudy as ss

class Options(ss.Options):
    seeds: int = 2

def arms(o):
    curve = ss.problems.curve()
    for s in (1.0, 2.0, 3.0):
        loss = lambda f, y{bound}: s * (f - y) ** 2
        given = dict(lr=1e-5, batch_size=10, epochs=2, seeds=o.seed_range())
        yield f"s={{s:g}}", ss.Arm(curve.replace(loss=loss), **given)

def claims(o, runs):
    yield from ()

def answer(o, runs, claims):
    return "so"

STUDY = ss.study(__name__)
'''


@pytest.mark.slow
def test_arms_of_a_loop_are_refused_before_any_is_trained(store, tmp_path, capsys):
    script = tmp_path / "loop.py"
    script.write_text(SCRIPT.format(bound=""))
    assert call("run", script, "--store", store) == 2
    said = capsys.readouterr().err
    assert "a function of the arm 's=1' reads 's', which was 1.0" in said
    assert len(said.strip().splitlines()) == 1
    with pytest.raises(ss.InputError):
        ss.load_runs("loop", store=store)
    assert call("sweep", script, "--grid", "lr=1e-5,1e-6", "--store", store) == 2
    script.write_text(SCRIPT.format(bound=", s=s"))
    result = ss.run(str(script), store=store)
    first = [history.epochs["full_loss"].iloc[0] for history in result.runs.values()]
    assert first[0] < first[1] < first[2]


def test_globals_that_are_read_far_away_are_looked_at(monkeypatch):
    made = {
        "loss": problem(loss=scaled_by_global),
        "object": problem(loss=Scaled()),
        "through another": problem(loss=lambda f, y: scaled_by_global(f, y)),
        "module": ss.Problem(CURVE.x, CURVE.y, Net()),
    }
    for one in made.values():
        ss.train(one, **GIVEN)
    monkeypatch.setattr(f"{__name__}.SCALE", 2.0)
    for one in made.values():
        with pytest.raises(ss.InputError, match=r"'SCALE', which was 1\.0 when .* is 2\.0 now"):
            ss.train(one, **GIVEN)
    monkeypatch.setattr(f"{__name__}.SCALE", 1.0)
    for one in made.values():
        ss.train(one, **GIVEN)


def squares():
    def helper(f, y):
        return (f - y) ** 2

    return helper


def absolute(f, y):
    return (f - y).abs()


def test_what_makes_no_difference_is_let_be():
    helper = squares()
    calls, seen = 0, []

    def counts(f, y):
        nonlocal calls
        calls += 1
        seen.append(calls)
        return helper(f, y).mean()

    one = problem(loss=lambda f, y: helper(f, y))
    config = ss.TrainConfig(**GIVEN, measures={"own": counts})
    for _ in range(2):
        ss.train(one, config=config)
    assert calls == len(seen) > 2
    same, helper = helper, squares()
    assert helper is not same
    ss.train(one, **GIVEN)  # the same code
    helper = absolute
    with pytest.raises(ss.InputError, match="reads 'helper', which was something else when"):
        ss.train(one, **GIVEN)


@pytest.mark.slow
def test_nothing_is_kept_alive_and_copies_can_be_made():
    big = torch.zeros(1000)
    held = weakref.ref(big)
    one = problem(loss=lambda f, y: (f - y) ** 2 + big[0])
    config = ss.TrainConfig(**GIVEN, measures={"own": lambda f, y: one.d + big[0]})
    assert ss.train(one, config=config).w.shape == (1, 3)
    watched = weakref.ref(one), weakref.ref(config)
    one = big = config = None
    gc.collect()
    assert (held(), *(ref() for ref in watched)) == (None, None, None)
    plain = problem(loss=scaled_by_global)
    for other in (pickle.loads(pickle.dumps(plain)), copy.deepcopy(plain)):
        assert np.array_equal(ss.train(other, **GIVEN).w, ss.train(plain, **GIVEN).w)
