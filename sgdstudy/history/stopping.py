"""Where a stopping rule stops a run, and whether it should have."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sgdstudy import checks, theory
from sgdstudy.history.arrays import array, parameters
from sgdstudy.recipe.stop import STOP_COLUMNS

if TYPE_CHECKING:
    from sgdstudy.figures.style import Run


class Stops(NamedTuple):
    """What a rule does to R seeds that ran on regardless, beside the truth: the loss of all data.

    Attributes:
        epoch: where it stops them, from 1, `(R,)`; infinite: nowhere.
        false: whether the loss of all the data is not below epsilon there, `(R,)`.
        truth: where that loss first is, `(R,)`; infinite: nowhere.
    """

    epoch: np.ndarray
    false: np.ndarray
    truth: np.ndarray

    @property
    def stopped(self) -> np.ndarray:
        """Whether it stops the seed at all, `(R,)`."""
        return np.isfinite(self.epoch)

    @property
    def late(self) -> float:
        """Median epochs from the truth to the stop, of seeds stopped rightly; NaN: none is."""
        both = self.stopped & np.isfinite(self.truth) & ~self.false
        late = self.epoch[both] - self.truth[both]
        return float(np.median(late)) if len(late) else np.nan


def stops_by_rule(run: Run, rule: str, epsilon: float) -> Stops:
    """Return where a stopping rule would have ended the seeds, and whether it should have.

    Losses stop below epsilon, the gradient norm below what it has to be at that loss
    (`theory.gradient_bound`).

    Args:
        rule: as of `TrainConfig.stop`.
        epsilon: the loss of all the data that counts as done.

    Raises:
        InputError: a rule that does not exist; the gradient norm of what is not least squares.
    """
    column, threshold = STOP_COLUMNS[checks.choice("stop rule", rule, STOP_COLUMNS)], epsilon
    if rule == "grad_norm":
        ls = theory.moments(run.problem)
        threshold = float(theory.gradient_bound(ls, epsilon - ls.least_loss))
    quantity, loss = (array(run, "epochs", name) for name in (column, "full_loss"))
    return stops(quantity, threshold, loss, epsilon)


def lucky_stops(run: Run, epsilon: float, draws: int = 200) -> np.ndarray:
    """Return with which probability a random last batch had stopped a seed falsely, `(R,)`.

    At the parameters before every epoch's last step, random batches in the last one's place:
    how many of them have a loss below epsilon, while that of all the data is not.

    Args:
        epsilon: the loss that counts as done.
        draws: random batches an epoch and seed.
    """
    c, d = run.config, run.problem.d
    sizes = c.batch_sizes(d)
    ws, ls = parameters(run)[len(sizes) - 1 :: len(sizes)], theory.moments(run.problem)
    chance = theory.lucky_share(ls, ws, d, sizes[-1], epsilon, draws)
    return stops_by_chance(chance, array(run, "epochs", "full_loss") < epsilon)


def stops(quantity: np.ndarray, threshold: float, loss: np.ndarray, epsilon: float) -> Stops:
    """Return where a quantity is first below a threshold, and where the loss is below epsilon.

    Args:
        quantity: what the rule looks at, by epoch and seed, `(E, R)`.
        threshold: it stops below.
        loss: of all the data at the end of the epochs, `(E, R)`.
        epsilon: the loss that counts as done.

    Example:
        >>> found = stops(np.array([[0.9], [0.2]]), 1.0, np.array([[3.0], [0.4]]), 0.5)
        >>> found.epoch, found.false, found.truth, found.late
        (array([1.]), array([ True]), array([2.]), nan)
    """
    done = loss < epsilon
    epoch = first_marked(quantity < threshold)
    there = np.arange(1, len(done) + 1)[:, None] == epoch
    return Stops(epoch, (there & ~done).any(0), first_marked(done))


def stops_by_chance(chance: np.ndarray, done: np.ndarray) -> np.ndarray:
    """Return with which probability a seed is stopped falsely, `(R,)`.

    Args:
        chance: of being stopped at the end of an epoch, if not before, `(E, R)`.
        done: whether a stop there is right, `(E, R)`.

    Example:
        >>> stops_by_chance(np.array([[0.5], [0.5]]), np.array([[True], [False]]))
        array([0.25])
    """
    going = np.vstack([np.ones(chance.shape[1]), np.cumprod(1 - chance, 0)[:-1]])
    return (going * chance * ~done).sum(0)


def first_marked(marks: np.ndarray) -> np.ndarray:
    """Return the first epoch, from 1, that is marked, `(R,)`; infinite where none is."""
    epochs = np.arange(1.0, len(marks) + 1)[:, None]
    return np.where(marks, epochs, np.inf).min(0, initial=np.inf)
