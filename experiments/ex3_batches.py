"""Exercise 3: what does a DataLoader put into each batch?

Hypothesis: every epoch visits each sample exactly once, in ceil(d / batch_size) batches of which
only the last may be short; the trainer draws the very permutations of DataLoader.

Source: Exercise 3. Command: python experiments/ex3_batches.py --limit 3
"""

from dataclasses import dataclass

import numpy as np
import torch

import sgdstudy as ss


@dataclass(frozen=True)
class Options(ss.Options):
    batch_size: int = 10
    """samples per batch"""
    ragged: int = 64
    """a batch size that does not divide the 2000 samples"""
    epochs: int = 3
    """epochs enumerated"""
    limit: int = 2
    """batches printed; the table batches.csv of the answer run has them all"""


def arms(o):
    curve = ss.problems.curve()
    still = {"optimizer": "none", "epochs": o.epochs, "seeds": [0]}  # batches at w = 0
    by_size = {"batch_size": o.batch_size, **still}
    return {
        "shuffle": ss.Arm(curve, "shuffle=True", **by_size),
        "sequential": ss.Arm(curve, "shuffle=False", order="sequential", **by_size),
        "ragged": ss.Arm(curve, "a short last batch", batch_size=o.ragged, **still),
    }


def samples(o, runs, arm="shuffle"):
    return ss.orders.listing(runs[arm].problem, runs[arm].config)


def dataloader(o, d):
    generator = torch.Generator().manual_seed(0)
    batches = torch.utils.data.DataLoader(range(d), o.batch_size, shuffle=True, generator=generator)
    return np.concatenate([torch.cat(list(batches)).numpy() for _ in range(o.epochs)])


def claims(o, runs):
    found = []
    for arm, run in runs.items():
        rows, d, size = samples(o, runs, arm), run.problem.d, run.config.batch_size
        m = -(-d // size)
        visits = rows.groupby(["epoch", "index"]).size().reindex(range(d), level="index")
        sizes = rows[rows["epoch"] == 1].groupby("batch").size()
        mean_square = (rows["y"] ** 2).groupby([rows["epoch"], rows["batch"]]).mean()
        error = np.abs(run.steps["loss"] / mean_square.to_numpy() - 1).max()
        once = bool(len(visits) == d * o.epochs and (visits == 1).all())
        found += [
            ss.Claim("each_sample_once", arm, once, True, 0, "definition", True),
            ss.Claim("batches", arm, len(sizes), m, 0, "ceil(d / batch_size)", True),
            ss.Claim("last_batch", arm, sizes.iloc[-1], d - size * (m - 1), 0, "the rest", True),
            # at w = 0 the loss of a batch is the mean of its y^2
            ss.Claim("trained_on_these", arm, error, 0, 2e-6, "loss at w = 0; float32", True),
        ]
    same = np.array_equal(samples(o, runs)["index"], dataloader(o, runs["shuffle"].problem.d))
    source = "torch.utils.data.DataLoader, run beside it"
    return [*found, ss.Claim("same_as_dataloader", "shuffle", same, True, 0, source, True)]


def show(o, runs):
    rows = samples(o, runs).query("epoch == 1 and batch < @o.limit")
    line = "batch {0.batch}, sample {0.sample}: x = {0.x:f}, y = {0.y:f}"
    return "\n".join(line.format(row) for row in rows.itertuples())


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    return f"""An epoch is {value["batches", "shuffle"]} batches of {o.batch_size}; it visits each
    of the {runs["shuffle"].problem.d} samples once. With batch_size {o.ragged} it is
    {value["batches", "ragged"]} batches, the last one of {value["last_batch", "ragged"]}: a plain
    mean of the batch losses weighs its samples more (Exercise 7). shuffle=False cuts the curve into
    neighbouring points, so that every batch sees one short piece of it (Exercise 6)."""


figures = {"batches.png": ss.figures.batch_losses}
tables = {"batches.csv": samples}
STUDY = ss.Study(__file__, __doc__, Options, arms, claims, answer, figures, tables, show)

if __name__ == "__main__":
    STUDY.main()
