"""Exercise 3: what does a DataLoader put into each batch?

Hypothesis: every epoch visits each sample exactly once, in ceil(d / batch_size) batches of which
only the last may be short; the trainer draws the very permutations of DataLoader.

Source: Exercise 3. Command: python experiments/ex3_batches.py --limit 3
"""

from dataclasses import dataclass

import numpy as np
import torch

import sgdstudy as ss


def rounding(run):
    """Return how far a batch's loss may be off, relative: 4 standard deviations of what adds up.

    Four float32 operations a term, the sum included, each off by 2^-24 at most, at random.
    """
    return 4 * np.sqrt(4 * run.config.batch_size) * 2.0**-24


@dataclass(frozen=True)
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
    curve = ss.problems.curve()
    still = {"optimizer": "none", "epochs": o.epochs, "seeds": o.seed_range()}  # batches at w = 0
    by_size = {"batch_size": o.batch_size, **still}
    return {
        "shuffle": ss.Arm(curve, "shuffle=True", **by_size),
        "sequential": ss.Arm(curve, "shuffle=False", order="sequential", **by_size),
        "ragged": ss.Arm(curve, "a short last batch", batch_size=o.ragged, **still),
    }


def samples(o, runs, arm="shuffle"):
    return ss.orders.listing(runs[arm].problem, runs[arm].config)


def dataloader(run):
    """Return the batches, of numbers of samples, that a DataLoader gives to a run's first seed."""
    config = run.config
    generator = torch.Generator().manual_seed(config.seeds[0])
    shuffle = config.order == "shuffle"
    loader = torch.utils.data.DataLoader(
        range(run.problem.d), config.batch_size, shuffle=shuffle, generator=generator
    )
    return [[batch.numpy() for batch in loader] for _ in range(config.epochs)]


def mismatch(run, batches):
    """Return how far a run's batches are from these, relative: their loss and gradient at w = 0."""
    x, y = (v.double().numpy() for v in (run.problem.x, run.problem.y))
    phi = np.stack([x * x, x, np.ones_like(x)], 1)
    flat = [batch for epoch in batches for batch in epoch]
    rows = run.load(columns=["seed", "step", "loss", "grad_norm"], seeds=run.config.seeds[0])
    if len(rows) != len(flat):
        return np.inf
    loss = np.array([np.mean(y[b] ** 2) for b in flat])
    # sums of terms of both signs: relative to the sum of their sizes
    slope = np.array([np.linalg.norm(2 * y[b] @ phi[b] / len(b)) for b in flat])
    size = np.array([np.linalg.norm(2 * y[b] @ abs(phi[b]) / len(b)) for b in flat])
    of_slope = np.abs(rows["grad_norm"] - slope) / size
    return max(np.abs(rows["loss"] / loss - 1).max(), of_slope.max())


def claims(o, runs):
    found, missed, off = [], 0, 0
    for arm, run in runs.items():
        batches, d, size = dataloader(run), run.problem.d, run.config.batch_size
        for epoch in batches:
            visits = np.bincount(np.concatenate(epoch), minlength=d)
            missed += int(np.sum(visits != 1))
        rows = run.load(columns=["seed", "epoch", "batch", "size"], seeds=run.config.seeds[0])
        sizes = rows.pivot(index="epoch", columns="batch", values="size").to_numpy()
        m = -(-d // size)
        rest = d - size * (m - 1)
        wanted = np.tile([size] * (m - 1) + [rest], (o.epochs, 1))
        off += abs(sizes - wanted).max() if sizes.shape == wanted.shape else d
        source = "torch.utils.data.DataLoader, run beside it: loss and gradient at w = 0"
        error = mismatch(run, batches)
        found += [
            ss.Claim("same_as_dataloader", arm, error, 0, rounding(run), source, always=True),
            ss.Claim("batches", arm, sizes.shape[1]),
            ss.Claim("last_batch", arm, int(sizes[0, -1])),
        ]
    listed = samples(o, runs).groupby(["epoch", "batch"])["index"].apply(np.array)
    listed = [list(epoch) for _, epoch in listed.groupby("epoch")]
    error, near = mismatch(runs["shuffle"], listed), rounding(runs["shuffle"])
    everywhere = "all arms"
    ordered = samples(o, runs, "sequential").groupby(["epoch", "batch"])["x"]
    return [
        *found,
        ss.Claim(
            "each_sample_once", everywhere, missed, 0, 0, "samples not visited once", identity=True
        ),
        ss.Claim("sizes_off", everywhere, off, 0, 0, "ceil(d / B), and the rest", identity=True),
        ss.Claim("listing_off", "shuffle", error, 0, near, "the run's batches", identity=True),
        ss.Claim("widest_batch", "sequential", (ordered.max() - ordered.min()).max()),
    ]


def show(o, runs):
    rows = samples(o, runs).query("epoch == 1 and batch < @o.limit")
    line = "batch {0.batch}, sample {0.sample}: x = {0.x:f}, y = {0.y:f}"
    return "\n".join(line.format(row) for row in rows.itertuples())


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    batches, last = value["batches", "ragged"], value["last_batch", "ragged"]
    short = f", the last one of {last}" if last < o.ragged else ""
    weighs = ": a plain mean of the batch losses weighs its samples more (Exercise 7)"
    return f"""An epoch is {value["batches", "shuffle"]} batches of {o.batch_size}; it visits each
    of the {runs["shuffle"].problem.d} samples once. With batch_size {o.ragged} it is {batches}
    batches{short}{weighs if short else ""}. shuffle=False cuts the curve into neighbouring points,
    so that every batch sees one short piece of it, {value["widest_batch", "sequential"]:.2g} of its
    20 wide at most (Exercise 6)."""


figures = {"batches.png": ss.figures.batch_losses}
tables = {"batches.csv": samples}
STUDY = ss.Study(__file__, __doc__, Options, arms, claims, answer, figures, tables, show)

if __name__ == "__main__":
    STUDY.main()
