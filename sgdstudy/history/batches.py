"""What the losses and gradients of the batches say of a run: which they were, their norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from sgdstudy.errors import InputError
from sgdstudy.quantities import norm
from sgdstudy.recipe.columns import of_parameters

if TYPE_CHECKING:
    from sgdstudy.figures.style import Run


def batches_off(run: Run, batches: Sequence[np.ndarray]) -> float:
    """Return how far the first seed's losses and gradients are from those of these batches.

    The largest difference, relative, at the parameters of every step, in float64; of the
    gradient's norm relative to that of the mean of its terms' sizes, as they cancel.

    Args:
        batches: the numbers of the samples of every step, `(B,)` each.

    Returns:
        0 but for rounding where the run took these; infinite where it took more or fewer steps.
    """
    exact, p = run.problem.to(torch.float64, "cpu"), run.problem.p
    columns = ["seed", "step", "loss", "grad_norm", *of_parameters(p)]
    rows = run.load(columns=columns, seeds=run.config.seeds[0]).to_numpy(dtype=float)
    if len(rows) != len(batches):
        return float("inf")
    off, tiny = [0.0], float(np.finfo(float).tiny)
    for (_, _, loss, slope, *w), batch in zip(rows, batches, strict=True):
        one = torch.tensor(w, dtype=torch.float64).expand(len(batch), p)  # sample by sample
        x, y = (part[torch.as_tensor(batch)].unsqueeze(1) for part in (exact.x, exact.y))
        value, gradient = (v.numpy() for v in exact.losses_and_gradients(one, x, y))
        size = norm(np.abs(gradient).mean(0))
        off.append(abs(loss - value.mean()) / max(value.mean(), tiny))
        off.append(abs(slope - norm(gradient.mean(0))) / max(size, tiny))
    return float(np.max(off))


def mean_square_batch_norm(run: Run) -> float:
    """Return the mean of |g_B|^2 over all seeds' steps, those of a short last batch left out.

    What `theory.mean_square_batch_norm` expects where a run stands still.
    """
    rows = run.load(columns=["seed", "size", "grad_norm"])
    whole = rows["size"] == run.config.batch_sizes(run.problem.d)[0]
    return float(np.mean(rows.loc[whole, "grad_norm"].astype(float) ** 2))


def way_off(run: Run) -> float:
    """Return how far the mean gradient of the first epoch is from the way made in it, relative.

    Its norm is |w_start - w_end| / (lr m) for plain steps of batches of one size, whatever the
    batches; the difference is taken relative to the mean of their norms. The largest of the seeds;
    0 where none ended the epoch.

    Raises:
        InputError: steps that are not plain, or batches of two sizes.
    """
    c, sizes = run.config, run.config.batch_sizes(run.problem.d)
    if not c.steps_are_plain or len(set(sizes)) > 1:
        raise InputError("way_off is of plain steps, with one lr, of batches of one size")
    first = run.load("epochs", epochs=slice(1, 2))
    start = run.problem.initial(first["seed"].tolist()).double().cpu().numpy()
    way = norm(start - first[of_parameters(run.problem.p)].to_numpy(dtype=float))
    off = np.abs(first["norm_mean_grad"] - way / (c.lr * len(sizes))) / first["mean_grad_norm"]
    return float(np.max(off.to_numpy(dtype=float), initial=0.0))
