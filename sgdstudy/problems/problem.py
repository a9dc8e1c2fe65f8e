"""A problem: data, a model, a loss, and parameters to start from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from sgdstudy import checks
from sgdstudy.errors import InputError, failed, quoted
from sgdstudy.problems import bindings, data, linearity, losses, penalties, together, trial
from sgdstudy.problems.evaluation import Evaluation
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.problems.torch_module import (
    Functional,
    copied,
    load,
    require_apart,
    resetting,
    trained,
    uncompiled,
)
from sgdstudy.problems.torch_state import own_state

INITS = ("default",)


class Problem(Evaluation):
    """What is to be minimised: the loss of `model` on `(x, y)` as a function of w.

    The data are copied; files mapped into memory and data beyond 256 MB are used where they lie. Of
    both, `train` looks whether they changed since. The dtype is float32, but float64 where x is, or
    where x, y or the test data hold a value that float32 does not hold exactly.

    Args:
        x: inputs `(d,)` or `(d, n)`, array or tensor; or a Dataset of pairs, or a DataLoader of
            one, where y is None: each item is read once; `batch_size` and `drop_last` are settings
            of the training. Whole numbers reach a module that fails on floats, as embeddings do,
            as int64.
        y: targets `(d,)` or `(d, m)`, or integer classes `(d,)` for `cross_entropy`. A callable
            loss gets them as floats; as int64 where they are whole and it fails on floats.
        model: `f(w, x)` for one parameter vector w `(p,)` and a batch x, or an `nn.Module`, whose
            parameters with `requires_grad=False` stay as they are (p counts the others).
        loss: a name of `losses.LOSSES`, or a callable `(prediction, y) -> (B,)`, of predictions
            and targets of any shapes.
        w_init: `(p,)`; default: the module's parameters, else zeros of `w_true`'s length. Or
            `callable(generator) -> (p,)`, called once per seed with a generator that nothing else
            of the user's draws from.
        init: `default`: every seed s starts from what the module's layers draw themselves after
            `torch.manual_seed(s)`, in float32; see `torch_module.resetting`. None: see `w_init`.
        w_true: `(p,)`, the parameters that made the data, where known. Where they drift, a callable
            from the numbers of steps taken `(S,)` to the parameters by then, `(S, p)`.
        test: `(x, y)` held out, or a Dataset or DataLoader of pairs; its loss is recorded at the
            end of every epoch.
        stream: `callable(generator)`, called once per seed, returning an iterator of blocks
            `(x, y)` of any length, which `order="stream"` trains on; each sample is seen once, and
            none is stored. x and y above are then a sample of it: the data of the full loss, and
            their number the length of what is called an epoch.
        penalty: on the parameters, added to the loss of every batch and of all the data (not to
            that of the test data): `("l2", c)` or `("l1", c)`, or a function of w `(p,)`; see
            `penalties.resolve`.
        name: what the problem is called in tables and in MLflow.
        exact: whether its moments are sought, see `least_squares`; False: the loss of all the data
            is measured, as of any other problem.

    Raises:
        InputError: empty or non-finite data, numbers that float64 does not hold exactly, shapes
            that do not fit, an unknown loss, a model with dropout or other draws, or one that
            changes its inputs or buffers.

    Example:
        >>> import numpy as np
        >>> x = np.linspace(0, 1, 5, dtype="f")
        >>> problem = Problem(x, 2 * x, model=lambda w, x: w[0] * x, w_init=[0.0])
        >>> problem.d, problem.p, round(problem.least_squares.least_loss, 12)
        (5, 1, 0.0)
    """

    @own_state()
    def __init__(
        self,
        x: Any,
        y: Any,
        model: Callable[[Any, torch.Tensor], torch.Tensor] | nn.Module,
        loss: Any = "mse",
        w_init: Any = None,
        w_true: Any = None,
        test: Any = None,
        stream: Callable[[torch.Generator], Iterator[tuple[Any, Any]]] | None = None,
        name: str = "custom",
        penalty: Any = None,
        exact: bool = True,
        init: str | None = None,
    ) -> None:
        loss, penalty, model = map(uncompiled, (loss, penalty, model))
        self.batch_loss = losses.resolve(loss)
        self.penalty, self.penalties = penalty, penalties.resolve(penalty)
        self.loss, self.name = loss, checks.name("the problem's name", name)
        self.exact = checks.truth("exact", exact)
        self._read(x, y, test)
        self.source = model
        self._module_init: torch.Tensor | None = None
        self._trained: dict[str, torch.Size] = {}
        if isinstance(model, nn.Module):
            self.source = copied(model).to(self.x.device, self.dtype)
            self._trained = {name: value.shape for name, value in trained(self.source).items()}
            self.model = Functional(self.source, self.x, self._trained)
            require_apart(model, self.model, self.x)
            self._module_init = self.model.w
        elif callable(model):
            self.model = checks.made("model", model)
        else:
            raise InputError(f"model is f(w, x) or an nn.Module, not {quoted(model)}")
        if not (stream is None or callable(stream)):
            raise InputError(
                f"stream is a function of a generator that returns an iterator of blocks (x, y), "
                f"not {quoted(stream)}"
            )
        self.stream, self._drift = stream, w_true if callable(w_true) else None
        if self._drift is not None:
            w_true = self._drifted(np.zeros(1, int))[0]
        self.w_true = None if w_true is None else data.vector(w_true, "w_true", self.dtype)
        self.init = init
        self.w_init = self._initial(w_init)
        first = self.initial([0])
        if not torch.equal(first, self.initial([0])):
            raise InputError(
                "w_init gives two results for the same seed: it counts or remembers; draw from the "
                "generator that it is given, and from no other"
            )
        self.p = len(first[0])
        held = sum(shape.numel() for shape in self._trained.values())
        if self._trained and held != self.p:
            raise InputError(f"w_init has {self.p} numbers, the module has {held} to train")
        if self.w_true is not None and len(self.w_true) != self.p:
            raise InputError(f"w_true has {len(self.w_true)} values, w_init has {self.p}")
        self._try()
        penalties.check(self.penalties, first)
        bindings.note(self, (self.source, loss, penalty, self.w_init, self._drift, stream))

    def _read(self, x: Any, y: Any, test: Any) -> None:
        """Take over the data."""
        self.x, self.y = data.samples(x, y, self.loss, "the data")
        data.note_batches(x)
        self.test: tuple[torch.Tensor, torch.Tensor] | None = None
        if test is not None:
            held_out = data.samples(*data.pair(test), self.loss, "the test data")
            if held_out[0].dtype != self.x.dtype:  # one of them needs float64
                self.x, self.y = _widened(self.x), _widened(self.y)
                held_out = _widened(held_out[0]), _widened(held_out[1])
            self.test = held_out
        self.dtype = self.x.dtype
        self._stays = data.stays(self.x, x) or data.stays(self.y, y)
        self._seen = self._glance()

    def _try(self) -> None:
        """Try model and loss; one of the user's that fails on floats gets whole numbers as such."""
        try:
            self._check()
        except InputError as error:
            targets = [self.y] if self.test is None else [self.y, self.test[1]]
            if not (callable(self.loss) and all(data.holds(torch.int64, y) for y in targets)):
                raise
            self.y = self.y.to(torch.int64)
            self.test = self.test and (self.test[0], self.test[1].to(torch.int64))
            self._seen = self._glance()
            try:
                self._check()
            except InputError as again:
                about_kind = re.search("int64|long", str(error), re.IGNORECASE)
                raise (again if about_kind else error) from None

    def _check(self) -> None:
        trial.check(self, self.x, self.y)
        if self.test is not None:
            trial.check(self, *self.test)

    def _glance(self) -> str:
        return data.digest((self.x, self.y, *(self.test or ())), data.READ_AGAIN)

    def check_unchanged(self) -> None:
        """Raise `InputError` where the data are not those that the problem was made of.

        Or a variable that its functions read holds something else, see `bindings`. Of each array up
        to a megabyte is read, in stretches spread evenly over it.
        """
        bindings.check(self, f"the problem {self.name!r}")
        if self._seen and self._glance() != self._seen:
            raise InputError(
                f"the data of {self.name!r} changed since the problem was made; make it again "
                f"from the present data, as ss.Problem(x, y, ...)"
            )

    def __repr__(self) -> str:
        return f"Problem({self.name!r}, d={self.d}, p={self.p}, loss={self.loss_name!r})"

    @property
    def shapes(self) -> list[torch.Size]:
        """Shapes of the parameters, in the order in which w holds them; of f(w, x), that of w."""
        return list(self._trained.values()) or [torch.Size([self.p])]

    @property
    def starts_as_given(self) -> bool:
        """Whether every seed starts from what the module held, and nothing else was asked for."""
        return self._module_init is not None and self.w_init is self._module_init

    @property
    def names(self) -> list[str]:
        """Names of the module's parameters that are trained, as those; of f(w, x), none."""
        return list(self._trained)

    @cached_property
    def unreached(self) -> list[str]:
        """Names of the module's parameters that its loss does not depend on, as far as a trial."""
        if not isinstance(self.model, Functional) or self.penalties is not None:
            return []
        x, y = self.x[: trial.TRIED], self.y[: trial.TRIED]
        reached = self.model.reached(x, lambda f: self.batch_loss(f[None], y[None]))
        return [name for name, is_so in zip(self.names, reached, strict=True) if not is_so]

    @property
    def draws_starts(self) -> bool:
        """Whether every seed draws its initial parameters."""
        return not isinstance(self.w_init, torch.Tensor)

    @property
    def drifts(self) -> bool:
        """Whether the true parameters change from step to step."""
        return self._drift is not None

    def true_at(self, steps: np.ndarray) -> np.ndarray | None:
        """Return the true parameters after so many steps `(S,)`, `(S, p)`; None: not known."""
        if self._drift is not None:
            return self._drifted(steps)
        if self.w_true is None:
            return None
        true = self.w_true.cpu().double().numpy()
        return np.broadcast_to(true, (len(steps), len(true)))  # a view: p may be large

    def _drifted(self, steps: np.ndarray) -> np.ndarray:
        assert self._drift is not None
        try:
            found = np.asarray(self._drift(np.asarray(steps)), dtype=float)
        except Exception as error:
            raise failed("w_true", error) from error
        if found.ndim != 2 or len(found) != len(steps) or not np.isfinite(found).all():
            raise InputError(
                f"w_true, for {len(steps)} steps, returns shape {found.shape}; expected finite "
                f"numbers (steps, p)"
            )
        return found

    @property
    def loss_name(self) -> str:
        """Name of the loss, as logged."""
        return losses.name_of(self.loss)

    @cached_property
    def least_squares(self) -> LeastSquares | None:
        """Exact moments where the model is linear in w and the loss a sum of squares, else None.

        That is `mse`, or a function that gives sum_o c_io (f_io - y_io)^2 of sample i: half of it
        (the 1 / 2d of courses), a multiple, or weights by output or target; without a penalty.
        """
        squared = (self.loss == "mse" or callable(self.loss)) and self.penalties is None
        if not (self.exact and squared and linearity.is_tried(self.y.numel(), self.p)):
            return None
        with own_state():
            try:
                exact = self.to(dtype=torch.float64, device="cpu")
            except InputError:  # the module holds, or makes, constants in float32
                return None
            alone = together.one_by_one(exact.model)
            return linearity.moments(alone, exact.x, exact.y, self.p, self.loss)

    @cached_property
    def digest(self) -> str:
        """Fingerprint of the data: the same data gives the same digest.

        `sample-...` where it is that of a part: of data beyond 64 MB that are used where they lie.
        """
        large = max(t.numel() * t.element_size() for t in (self.x, self.y)) > data.READ_OF_MAPS
        if self._stays and large:
            return f"sample-{data.digest((self.x, self.y), data.READ_OF_MAPS)}"
        return data.digest((self.x, self.y))

    @property
    def parts(self) -> dict[str, Any]:
        """What it is made of, by what that is called in a message: see `recipe.identity`."""
        most = data.READ_OF_MAPS if self._stays else None
        model = self.source
        # its present parameters do not count: `first parameters` says where it starts
        if isinstance(model, nn.Module):
            model = load(copied(model), torch.zeros(self.p), self._trained)
        return {
            "data": self.digest,
            "test data": self.test and data.digest(self.test, most),
            "model": model,
            "loss": self.loss,
            "penalty": self.penalty,
            "first parameters": self.init or self.w_init,
            "true parameters": self.w_true if self._drift is None else self._drift,
            "stream": self.stream,
            "exact": self.exact,
            "name": self.name,
        }

    def module(self, w: np.ndarray) -> nn.Module:
        """Return a copy of the module that was given, with parameters `(p,)` in it.

        Raises:
            InputError: the model is a function.
        """
        if not isinstance(self.source, nn.Module):
            raise InputError(f"the model of {self.name!r} is a function of w, and not a module")
        values = torch.tensor(w)
        return load(copied(self.source).to(values.dtype), values, self._trained)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it be pickled where its functions can be: it is made again."""
        return _made, (self._arguments,)

    @property
    def _arguments(self) -> dict[str, Any]:
        test = self.test and tuple(data.Held(part, self._stays) for part in self.test)
        return {
            "x": data.Held(self.x, self._stays),
            "y": data.Held(self.y, self._stays),
            "model": self.source,
            "loss": self.loss,
            "w_init": None if self.init else self.w_init,
            "w_true": self.w_true if self._drift is None else self._drift,
            "test": test,
            "stream": self.stream,
            "name": self.name,
            "penalty": self.penalty,
            "exact": self.exact,
            "init": self.init,
        }

    def replace(self, **changes: Any) -> Problem:
        """Return the same problem with some arguments of the constructor changed."""
        bindings.check(self, f"the problem {self.name!r}")
        same = self._arguments | ({"init": None} if "w_init" in changes else {})
        wrong = sorted(set(changes) - set(same))
        if wrong:
            raise InputError(f"a problem has no {wrong[0]!r}. Valid: {', '.join(same)}")
        return Problem(**(same | changes))

    @own_state()
    def start_of(self, seed: int) -> Problem:
        """Return the problem whose every seed starts where this one does: seeds order only."""
        return self.replace(w_init=self.initial([checks.seed(seed)])[0])

    def to(self, dtype: torch.dtype, device: str) -> Problem:
        """Return the problem with data and parameters in another dtype, on another device."""
        if dtype == self.dtype and torch.device(device) == self.x.device:
            return self
        other = self._changed(dtype=dtype)
        for tried in ("_batches", "_broadcasts"):
            other.__dict__.pop(tried, None)

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device, dtype if tensor.is_floating_point() else None)

        other.x, other.y = move(self.x), move(self.y)
        other.test = None if self.test is None else (move(self.test[0]), move(self.test[1]))
        other.w_true = None if self.w_true is None else move(self.w_true)
        if isinstance(self.source, nn.Module):
            module = copied(self.source).to(device=device, dtype=dtype)
            other.model = Functional(module, other.x, self._trained)
        other._seen = other._glance()
        return other

    def on(self, x: torch.Tensor, y: torch.Tensor) -> Problem:
        """Return the problem on other data of the same kind; itself on its own."""
        if x is self.x and y is self.y:
            return self
        return self._changed(x=x, y=y)

    def part(self, first: int) -> Problem:
        """Return the problem on the samples from one on, whose moments are not sought."""
        return self._changed(x=self.x[first:], y=self.y[first:], exact=False)

    def _changed(self, **attributes: Any) -> Problem:
        """Return a copy with some attributes changed; what depends on the data is found anew."""
        other = object.__new__(Problem)
        other.__dict__ |= self.__dict__
        for cached in ("least_squares", "digest"):
            other.__dict__.pop(cached, None)
        other.__dict__ |= {"_seen": "", **attributes}
        return other

    @own_state()
    def initial(self, seeds: list[int]) -> torch.Tensor:
        """Return the parameters each seed starts from, `(R, p)`."""
        if isinstance(self.w_init, torch.Tensor):
            w = self.w_init.expand(len(seeds), -1)
        else:
            drawn = trial.undrawn("w_init", lambda: [self._drawn(seed) for seed in seeds])
            w = torch.stack(drawn)
        return w.to(self.x.device, self.dtype).clone()

    def _drawn(self, seed: int) -> torch.Tensor:
        try:
            values = self.w_init(torch.Generator().manual_seed(seed))
        except Exception as error:
            raise failed("w_init", error) from error
        w = data.vector(values, "w_init", self.dtype)
        if len(w) != getattr(self, "p", len(w)):
            raise InputError(
                f"w_init returns {len(w)} values for seed {seed}, and {self.p} for seed 0; "
                f"the number of parameters is the same for every seed"
            )
        return w

    def _initial(self, w_init: Any) -> Any:
        if self.init is not None:
            checks.choice("init", self.init, INITS)
            if w_init is not None:
                raise InputError("give init or w_init, not both")
            if not isinstance(self.source, nn.Module):
                raise InputError(
                    "init='default' is what the layers of a module draw; for f(w, x) give "
                    "w_init=callable(generator)"
                )
            return resetting(self.source, self._trained)
        if w_init is None:
            if self._module_init is not None:
                return self._module_init
            if self.w_true is None:
                raise InputError("give w_init: how many parameters f(w, x) has is not known")
            return torch.zeros_like(self.w_true)
        if callable(w_init) and not isinstance(w_init, torch.Tensor):
            return w_init
        return data.vector(w_init, "w_init", self.dtype)

    def __copy__(self) -> Problem:
        """Return another one of the same data, not tried again; `__reduce__` would make it anew."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other


def _made(arguments: dict[str, Any]) -> Problem:
    return Problem(**arguments)


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
