"""Evaluating a problem: predictions, losses and gradients at parameters, of a batch or of all data.

The part of `problem.Problem` that computes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sgdstudy.errors import InputError, failed, reason
from sgdstudy.problems import losses
from sgdstudy.problems.torch_state import own_state

if TYPE_CHECKING:
    from sgdstudy.problems.least_squares import LeastSquares

log = logging.getLogger("sgdstudy")
EVALUATE_AT_ONCE = 100_000  # numbers of inputs at once when all the data is evaluated: cached


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
            return self.model(w.unsqueeze(-1).unbind(1), x)
        if len(w) == 1:
            return self.model(w[0], x[0]).unsqueeze(0)
        if self._batches:
            return torch.vmap(self.model)(w, x)
        return torch.stack([self.model(*pair) for pair in zip(w, x, strict=True)])

    def losses(self, w: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the batch loss of every replica, its penalty included, `(R,)`."""
        loss = self.batch_loss(self.predict(w, x), y)
        return loss if self.penalties is None else loss + self.penalties(w)

    def losses_and_gradients(
        self, w: torch.Tensor, x: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch losses `(R,)` and their gradients `(R, p)`.

        The vector of losses is differentiated against ones, so replicas never mix.
        """
        w = w.detach().requires_grad_()
        loss = self.losses(w, x, y)
        (gradient,) = torch.autograd.grad(loss, w, torch.ones_like(loss))
        return loss.detach(), gradient

    def over_all(self, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the losses `(R,)` of all the data and their gradients `(R, p)`.

        Of more samples than stay in the cache, block by block, added up in float64 and returned so.
        """
        loss, gradient = w.new_zeros(len(w)).double(), torch.zeros_like(w).double()
        for x, y, share in self._samples(self.x, self.y, len(w)):
            some = self.losses_and_gradients(w, x, y)
            if share == 1:
                return some
            loss, gradient = loss + share * some[0], gradient + share * some[1]
        return loss, gradient

    def losses_over_all(self, w: torch.Tensor) -> torch.Tensor:
        """Return the losses `(R,)` of all the data, without their gradients; see `over_all`."""
        parts = self._samples(self.x, self.y, len(w))
        return sum((share * self.losses(w, x, y) for x, y, share in parts), w.new_zeros(len(w)))

    @own_state()
    def full(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return loss `(N,)` and gradient `(N, p)` of all the data at parameters `(N, p)`.

        Exact in float64 for least squares; else computed in the problem's dtype.
        """
        if self.least_squares is not None:
            return self.least_squares.loss(w), self.least_squares.gradient(w)
        values, gradients = np.empty(len(w)), np.empty(w.shape)
        for part, tensor in self._blocks(w, self.x):
            loss, gradient = self.over_all(tensor)
            values[part], gradients[part] = loss.cpu().numpy(), gradient.cpu().numpy()
        return values, gradients

    @own_state()
    def test_loss(self, w: np.ndarray) -> np.ndarray:
        """Return the loss `(N,)` on the test data at parameters `(N, p)`."""
        if self.test is None:
            raise InputError("this problem has no test data; give test=(x, y)")
        values = np.empty(len(w))
        for part, tensor in self._blocks(w, self.test[0]):
            values[part] = 0.0
            for x, y, share in self._samples(*self.test, len(tensor)):
                with torch.no_grad():
                    loss = self.batch_loss(self.predict(tensor, x), y)
                    values[part] += share * loss.cpu().numpy()
        return values

    @own_state()
    def accuracy(self, w: np.ndarray, test: bool = False) -> np.ndarray:
        """Return the share `(N,)` of samples whose largest logit is that of their class.

        Args:
            w: parameters `(N, p)`.
            test: of the test data, instead of the data trained on.
        """
        x, y = self._data(test)
        values = np.empty(len(w))
        for part, tensor in self._blocks(w, x):
            values[part] = 0.0
            for some_x, some_y, share in self._samples(x, y, len(tensor)):
                with torch.no_grad():
                    right = self.predict(tensor, some_x).argmax(2) == some_y
                values[part] += share * right.double().mean(1).cpu().numpy()
        return values

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
                parts = [self.predict(row, part[None])[0] for part in x.split(_at_once(x))]
                try:
                    values[i] = float(function(torch.cat(parts), y.clone()))
                except Exception as error:
                    raise failed(f"the measure {name!r}", error) from error
        return values

    def _data(self, test: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the data, or the test data where they are wanted."""
        x, y = self.test if test and self.test is not None else (self.x, self.y)
        return x, y

    def _samples(self, x: torch.Tensor, y: torch.Tensor, n: int) -> Any:
        """Yield all samples for n replicas and their share, in blocks where they are many.

        The loss must add up for that; else they come at once.
        """
        adds_up = callable(self.loss) or self.loss in losses.ADDITIVE
        size = _at_once(x) if adds_up else len(x)
        for start in range(0, len(x), size):
            block = slice(start, start + size)
            yield (
                x[block].expand(n, *x[block].shape),
                y[block].expand(n, *y[block].shape),
                len(x[block]) / len(x),
            )

    def _blocks(self, w: np.ndarray, x: torch.Tensor) -> Any:
        size = max(1, _at_once(x) // len(x))
        for start in range(0, len(w), size):
            part = slice(start, start + size)
            # a copy: of what cannot be written, torch warns
            yield part, torch.tensor(w[part], dtype=self.dtype, device=self.x.device)

    @cached_property
    def _batches(self) -> bool:
        """Whether `torch.vmap` can follow the model: a GRU, or a branch on a value, it cannot."""
        w = self.initial([0]).expand(2, -1).clone().requires_grad_()
        x = self.x[:2].expand(2, *self.x[:2].shape)
        try:
            torch.vmap(self.model)(w, x)
        except RuntimeError as error:
            words = "replicas of %r are computed one by one, which takes longer: %s"
            log.warning(words, self.name, reason(error))
            return False
        return True

    @cached_property
    def _broadcasts(self) -> bool:
        """Whether the model, given a tuple of `(R, 1)` parameters, handles all replicas at once.

        Decided by trying it: two random replicas against each alone, equal to the last bit.
        """
        if isinstance(self.source, nn.Module) or self.x.dim() != 1:
            return False
        generator = torch.Generator().manual_seed(0)
        w = torch.randn(2, self.p, generator=generator).to(self.x.device, self.dtype)
        x = self.x[: min(self.d, 7)]
        with torch.no_grad():
            alone = torch.stack([self.model(row, x) for row in w])
            try:
                together = self.model(w.unsqueeze(-1).unbind(1), x.expand(2, -1))
            except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
                return False
        return torch.equal(alone, together) if isinstance(together, torch.Tensor) else False


def _at_once(x: torch.Tensor) -> int:
    """Return how many samples are evaluated at once."""
    return max(1, EVALUATE_AT_ONCE // max(1, x[0].numel()))
