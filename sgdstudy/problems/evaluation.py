"""Evaluating a problem: predictions, losses and gradients at parameters, of a batch or of all data.

The part of `problem.Problem` that computes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from sgdstudy.errors import InputError, failed, quoted
from sgdstudy.problems import together, trial
from sgdstudy.problems.torch_state import own_state

if TYPE_CHECKING:
    from sgdstudy.problems.least_squares import LeastSquares

log = logging.getLogger("sgdstudy")
EVALUATE_AT_ONCE = 100_000  # numbers of inputs when all the data is evaluated: cached


class Evaluated(NamedTuple):
    """What N parameter vectors make of all the data, in float64."""

    loss: np.ndarray  # (N,)
    gradient: np.ndarray  # (N, p)
    accuracy: np.ndarray | None  # (N,), see `Evaluation.accuracy`; None: there are no classes


class Evaluation:
    """A problem as far as it computes; see `problem.Problem` for what its parts are."""

    x: torch.Tensor
    y: torch.Tensor
    test: tuple[torch.Tensor, torch.Tensor] | None
    dtype: torch.dtype
    model: Callable[[Any, torch.Tensor], torch.Tensor]
    source: Any
    name: str
    loss: Any
    batch_loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    penalties: Callable[[torch.Tensor], torch.Tensor] | None
    p: int

    if TYPE_CHECKING:

        def initial(self, seeds: list[int]) -> torch.Tensor:
            """Return the parameters each seed starts from; see `problem.Problem.initial`."""

        @property
        def loss_name(self) -> str:
            """Name of the loss, as logged."""

        @property
        def names(self) -> list[str]:
            """Names of the module's parameters; see `problem.Problem.names`."""

        @property
        def least_squares(self) -> LeastSquares | None:
            """Exact moments; see `problem.Problem.least_squares`."""

    @property
    def d(self) -> int:
        """Number of samples."""
        return len(self.x)

    def predict(self, w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the model's output `(R, B, ...)` for parameters `(R, p)` and inputs `(R, B, ...)`.

        A model such as `w[0] * x + w[1]` runs on all replicas in one broadcast; any other goes
        through `torch.vmap`, or replica by replica where that cannot follow it.
        """
        if self._broadcasts:
            return self._broadcast(w, x)
        if len(w) == 1:
            return self.model(w[0], x[0]).unsqueeze(0)
        if self._batches:
            return torch.vmap(self.model)(w, x)
        return together.one_by_one(self.model)(w, x)

    def losses(self, w: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the batch loss of every replica, its penalty included, `(R,)`."""
        return self._penalised(self.batch_loss(self.predict(w, x), y), w)

    def losses_and_gradients(
        self, w: torch.Tensor, x: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch losses `(R,)` and their gradients `(R, p)`."""
        loss, gradient, _ = self.differentiated(w, x, y)
        return loss, gradient

    def differentiated(
        self, w: torch.Tensor, x: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return batch losses `(R,)`, their gradients `(R, p)` and predictions `(R, B, ...)`.

        The vector of losses is differentiated against ones, so replicas never mix.
        """
        w = w.detach().requires_grad_()
        prediction = self.predict(w, x)
        loss = self._penalised(self.batch_loss(prediction, y), w)
        (gradient,) = torch.autograd.grad(loss, w, torch.ones_like(loss))
        return loss.detach(), gradient, prediction.detach()

    def over_all(self, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the losses `(R,)` of all the data and their gradients `(R, p)`.

        Of more samples than stay in the cache, block by block, added up in float64 and returned so.
        """
        loss, gradient, _ = self._over_all(w, scored=False)
        return loss, gradient

    def losses_over_all(self, w: torch.Tensor) -> torch.Tensor:
        """Return the losses `(R,)` of all the data, in float64, without gradients."""
        total = w.new_zeros(len(w), dtype=torch.float64)
        for x, y, share in self._samples(self.x, self.y, len(w)):
            total = total + share * self.losses(w, x, y).double()
        return total

    @own_state()
    def full(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return loss `(N,)` and gradient `(N, p)` of all the data at parameters `(N, p)`.

        Exact in float64 for least squares; else computed in the problem's dtype.
        """
        if self.least_squares is not None:
            return self.least_squares.loss(w), self.least_squares.gradient(w)
        found = self.evaluate(w)
        return found.loss, found.gradient

    @own_state()
    def full_loss(self, w: np.ndarray) -> np.ndarray:
        """Return the loss `(N,)` of all the data alone; see `full`."""
        if self.least_squares is not None:
            return self.least_squares.loss(w)
        values = np.empty(len(w))
        for part, tensor in self._blocks(w, self.x):
            with torch.no_grad():
                values[part] = self.losses_over_all(tensor).cpu().numpy()
        return values

    @own_state()
    def evaluate(self, w: np.ndarray) -> Evaluated:
        """Return what all the data say at parameters `(N, p)`, from one pass over them."""
        loss, gradient, right = np.empty(len(w)), np.empty(w.shape), np.empty(len(w))
        for part, tensor in self._blocks(w, self.x):
            found = self._over_all(tensor, scored=True)
            for values, of_part in zip((loss, gradient, right), found, strict=True):
                values[part] = of_part.cpu().numpy()
        return Evaluated(loss, gradient, right if self.has_classes else None)

    @own_state()
    def test_loss(self, w: np.ndarray) -> np.ndarray:
        """Return the loss `(N,)` on the test data at parameters `(N, p)`."""
        if self.test is None:
            raise InputError("this problem has no test data; give test=(x, y)")
        return self.scores(w, test=True)[0]

    def accuracy(self, w: np.ndarray, test: bool = False) -> np.ndarray:
        """Return the share `(N,)` of samples whose largest logit is that of their class.

        Args:
            w: parameters `(N, p)`.
            test: of the test data, instead of the data trained on.
        """
        return self.scores(w, test)[1]

    @own_state()
    def scores(self, w: np.ndarray, test: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return loss, without a penalty, and accuracy `(N,)` each; see `accuracy`."""
        x, y = self._data(test)
        loss, right = np.zeros(len(w)), np.zeros(len(w))
        for part, tensor in self._blocks(w, x):
            for some_x, some_y, share in self._samples(x, y, len(tensor)):
                with torch.no_grad():
                    prediction = self.predict(tensor, some_x)
                    loss[part] += share * self.batch_loss(prediction, some_y).cpu().numpy()
                    right[part] += share * self._right(prediction, some_y).cpu().numpy()
        return loss, right

    @cached_property
    def adds_up(self) -> bool:
        """Whether the loss of all the data is the size-weighted mean of those of its parts."""
        if self.least_squares is not None or self.d == 1:
            return True
        return trial.adds_up(self, self.x, self.y)

    @property
    def has_classes(self) -> bool:
        """Whether there is an accuracy."""
        return self.loss == "cross_entropy"

    @own_state()
    def measured(self, name: str, function: Any, w: np.ndarray, test: bool = False) -> np.ndarray:
        """Return what a function of predictions `(d, ...)` and targets gives, `(N,)`.

        Args:
            name: what it is called.
            function: returns a number.
            w: parameters `(N, p)`.
            test: of the test data, instead of the data trained on.

        Raises:
            InputError: it fails, or returns something else.
        """
        x, y = self._data(test)
        values = np.empty(len(w))
        for i in range(len(w)):
            row = torch.tensor(w[i : i + 1], dtype=self.dtype, device=x.device)
            with torch.no_grad():
                parts = [
                    self.predict(row, part[None])[0] for part in x.split(self._size_of_part(x))
                ]
                try:
                    found = function(torch.cat(parts), y.clone())
                except Exception as error:
                    raise failed(f"the measure {name!r}", error) from error
                try:
                    values[i] = float(found)
                except Exception as error:  # whatever its own `__float__` does
                    is_array = isinstance(found, (np.ndarray, torch.Tensor))
                    given = f"shape {tuple(found.shape)}" if is_array else quoted(found)
                    raise InputError(
                        f"the measure {name!r} returned {given}; expected one number"
                    ) from error
        return values

    def _penalised(self, loss: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return loss if self.penalties is None else loss + self.penalties(w)

    def _right(self, prediction: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the share `(R,)` of samples whose class has the largest logit; else NaN."""
        if not self.has_classes:
            return torch.full((len(prediction),), torch.nan)
        return (prediction.argmax(2) == y).double().mean(1)

    def _over_all(self, w: torch.Tensor, scored: bool) -> list[torch.Tensor]:
        """Return losses, gradients and, if they are to be scored, accuracies; see `over_all`."""
        total: list[torch.Tensor] = []
        for x, y, share in self._samples(self.x, self.y, len(w)):
            loss, gradient, prediction = self.differentiated(w, x, y)
            some = [loss, gradient, self._right(prediction, y) if scored else loss]
            if share == 1:
                return some
            some = [share * part.double() for part in some]
            total = [a + b for a, b in zip(total, some, strict=True)] if total else some
        return total

    def _data(self, test: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the data, or the test data where they are wanted."""
        x, y = self.test if test and self.test is not None else (self.x, self.y)
        return x, y

    def _samples(self, x: torch.Tensor, y: torch.Tensor, n: int) -> Any:
        """Yield all samples for n replicas and their share, in blocks where they are many.

        The loss must add up for that; else they come at once.
        """
        size = self._size_of_part(x)
        for start in range(0, len(x), size):
            block = slice(start, start + size)
            yield (
                x[block].expand(n, *x[block].shape),
                y[block].expand(n, *y[block].shape),
                len(x[block]) / len(x),
            )

    def _size_of_part(self, x: torch.Tensor) -> int:
        """Return how many samples are evaluated at once."""
        size = _at_once(x, self.p)
        return size if size < len(x) and self.adds_up else len(x)

    def _blocks(self, w: np.ndarray, x: torch.Tensor) -> Any:
        size = max(1, _at_once(x, self.p) // len(x))
        for start in range(0, len(w), size):
            part = slice(start, start + size)
            # a copy: of what cannot be written, torch warns
            yield part, torch.tensor(w[part], dtype=self.dtype, device=self.x.device)

    @cached_property
    def _batches(self) -> bool:
        """Whether `torch.vmap` can follow the model: a GRU, or a branch on a value, it cannot."""
        why = self._differs(torch.vmap(self.model), trial.points(self))
        if why:
            words = "replicas of %r are computed one by one, which takes longer: %s"
            log.warning(words, self.name, why)
        return not why

    @cached_property
    def _broadcasts(self) -> bool:
        """Whether the model, given a tuple of `(R, 1)` parameters, handles all replicas at once.

        Decided by trying it: two random replicas against each alone, equal to the last bit.
        """
        if isinstance(self.source, nn.Module) or self.x.dim() != 1:
            return False
        generator = torch.Generator().manual_seed(0)
        w = torch.randn(2, self.p, generator=generator).to(self.x.device, self.dtype)
        return not self._differs(self._broadcast, w, equal=True)

    def _broadcast(self, w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.model(w.unsqueeze(-1).unbind(1), x)

    def _differs(self, model: Any, w: torch.Tensor, equal: bool = False) -> str:
        """Say how the model of two replicas together differs from each alone; see `together`."""
        for rows, scale in together.batches(self.x):
            x = self.x[rows]
            if why := together.differs(model, self.model, w, x, scale=scale, equal=equal):
                return why
        return ""


def _at_once(x: torch.Tensor, p: int) -> int:
    """Return how many samples are evaluated at once.

    As many numbers as parameters, at least: for each block, p are added to the gradient.
    """
    return max(1, max(EVALUATE_AT_ONCE, p) // max(1, x[0].numel()))
