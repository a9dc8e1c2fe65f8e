"""Exercise 3: what does a DataLoader put into each batch?

Hypothesis: every epoch visits each sample exactly once, in ceil(d / batch_size) batches of which
only the last may be short; the trainer draws the very permutations of DataLoader.

Source: Exercise 3. Command: python experiments/ex3_batches.py --limit 3
"""

import numpy as np
import torch

import sgdstudy as ss
from answers.ex3_batches import answer, ask, headline, short

ONCE = "samples not visited once"
CUT = "ceil(d / B), and the rest"
LOADER = "torch.utils.data.DataLoader, run beside it: loss and gradient at w = 0"


class Options(ss.Options):
    seeds: int = 1
    batch_size: int = 10
    """samples per batch"""
    ragged: int = 64
    """a batch size that does not divide the 2000 samples"""
    epochs: int = 3
    """epochs enumerated"""
    limit: int = 2
    """batches printed; the table batches.csv of the answer run has them all"""


def arms(o):
    still = ss.Arm("curve", "shuffle=True", optimizer="none", epochs=o.epochs)  # batches at w = 0
    shuffle = still.but(batch_size=o.batch_size, seeds=o.seed_range())
    yield "shuffle", shuffle
    yield "sequential", shuffle.but("shuffle=False", order="sequential")
    yield "ragged", shuffle.but("a short last batch", batch_size=o.ragged)


def dataloader(run):
    """Return the batches, of numbers of samples, that a DataLoader gives to a run's first seed."""
    c, generator = run.config, torch.Generator().manual_seed(run.config.seeds[0])
    how = {"batch_size": c.batch_size, "shuffle": c.order == "shuffle", "generator": generator}
    loader = torch.utils.data.DataLoader(range(run.problem.d), **how)
    return [batch.numpy() for _ in range(c.epochs) for batch in loader]


def samples(o, runs, arm="shuffle"):
    return ss.orders.listing(runs[arm].problem, runs[arm].config)


def claims(o, runs):
    missed, off = 0, 0
    for arm, run in runs.items():
        batches, d, size = dataloader(run), run.problem.d, run.config.batch_size
        for epoch in np.concatenate(batches).reshape(-1, d):
            missed += int(np.sum(np.bincount(epoch, minlength=d) != 1))
        sizes = run.array("steps", "size", seeds=run.config.seeds[0])[:, 0]
        wanted = np.array([min(size, d - first) for first in range(0, d, size)] * o.epochs)
        off += abs(sizes - wanted).max() if sizes.shape == wanted.shape else d
        same = ss.Known(0, ss.theory.sum_rounding(size, operations=4), LOADER)
        some = size < d  # all at once are the same in any order
        yield ss.Claim("same_as_dataloader", arm, run.batches_off(batches), same if some else None)
        yield ss.Claim("batches", arm, len(sizes) // o.epochs)
        yield ss.Claim("last_batch", arm, int(sizes[-1]))
    yield ss.Claim("each_sample_once", "all arms", missed, 0, source=ONCE, identity=True)
    yield ss.Claim("sizes_off", "all arms", off, 0, source=CUT, identity=True)
    listed = samples(o, runs).groupby(["epoch", "batch"])["index"].apply(np.array).to_list()
    error, near = runs["shuffle"].batches_off(listed), ss.theory.sum_rounding(o.batch_size, 4)
    yield ss.Claim("listing_off", "shuffle", error, 0, near, "the run's batches", identity=True)
    yield ss.Claim("widest_batch", "sequential", widths(o, runs, "sequential").max())
    yield ss.Claim("mean_width", "shuffle", widths(o, runs, "shuffle").mean())


def widths(o, runs, arm):
    """Return how much of x every batch of the first seed spans."""
    x = samples(o, runs, arm).groupby(["epoch", "batch"])["x"]
    return x.max() - x.min()


def show(o, runs):
    rows = samples(o, runs).query("epoch == 1 and batch < @o.limit")
    text = ss.to_say("batch {batch}, sample {sample}: x = {x}, y = {y}")
    rows = rows.astype({"batch": str, "sample": str, "x": object, "y": object})
    rows[["x", "y"]] = rows[["x", "y"]].map("{:f}".format)
    return "\n".join(ss.say(text, **row) for row in rows.to_dict("records"))


def picture(o, runs, value):
    problem, panels, shown = runs["shuffle"].problem, [], min(3, value["batches", "shuffle"])
    x, y = problem.x.numpy(), problem.y.numpy()
    for arm, title in {"shuffle": "shuffle=True", "sequential": "shuffle=False"}.items():
        batches, lines = dataloader(runs[arm])[:shown], [ss.figures.Line("", x, y)]
        for i, batch in enumerate(batches):
            color, label = ss.figures.palette.color(i), ss.say("batch {n}", n=i)
            lines.append(ss.figures.Line(label, x[batch], y[batch], color, dots=True))
        panels.append(ss.figures.Panel(lines, "x", "y", title))
    note = ss.say(
        "The only batch of the first epoch.", "The first {n} batches of the first epoch.", n=shown
    )
    return ss.figures.Chart(headline(o, runs, value), panels, note)


def figures(runs):
    yield "batches.png", ss.figures.batch_losses(runs)


tables = {"batches.csv": samples}
charts = {"loss of a batch, at w = 0": "batch/loss"}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
