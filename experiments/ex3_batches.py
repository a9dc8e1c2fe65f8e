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
    """batches printed; the table batches.csv has them all"""


def arms(o):
    curve = ss.problems.curve()
    still = {"optimizer": "none", "epochs": o.epochs, "seeds": [0]}
    return {
        "shuffle": ss.Arm(curve, "shuffle=True", batch_size=o.batch_size, **still),
        "sequential": ss.Arm(
            curve, "shuffle=False", batch_size=o.batch_size, order="sequential", **still
        ),
        "ragged": ss.Arm(curve, "a short last batch", batch_size=o.ragged, **still),
    }


def samples(o, runs, arm="shuffle"):
    return ss.orders.listing(runs[arm].problem, runs[arm].config)


def loader(o, d):
    generator = torch.Generator().manual_seed(0)
    batches = torch.utils.data.DataLoader(range(d), o.batch_size, shuffle=True, generator=generator)
    return np.concatenate([torch.cat(list(batches)).numpy() for _ in range(o.epochs)])


def claims(o, runs):
    found = []
    for arm, run in runs.items():
        rows, d = samples(o, runs, arm), run.problem.d
        size = run.config.batch_size
        once = rows.groupby("epoch")["index"].apply(lambda i, d=d: sorted(i) == list(range(d)))
        epoch = rows[rows["epoch"] == 1].groupby("batch").size()
        # at w = 0 the recorded loss of a batch is the mean of its y^2
        mean_square = (rows["y"] ** 2).groupby([rows["epoch"], rows["batch"]]).mean().to_numpy()
        loss = run.steps["loss"].to_numpy()
        found += [
            ss.Claim("each_sample_once", arm, bool(once.all()), True, 0, "definition", True),
            ss.Claim("batches", arm, len(epoch), -(-d // size), 0, "ceil(d / batch_size)", True),
            ss.Claim(
                "last_batch",
                arm,
                int(epoch.iloc[-1]),
                d - size * (-(-d // size) - 1),
                0,
                "what is left of d",
                True,
            ),
            ss.Claim(
                "trained_on_these",
                arm,
                float(np.abs(loss / mean_square - 1).max()),
                0,
                2e-6,
                "recorded batch losses at w = 0; float32 rounding",
                True,
            ),
        ]
    same = np.array_equal(samples(o, runs)["index"], loader(o, runs["shuffle"].problem.d))
    found.append(
        ss.Claim(
            "same_as_dataloader",
            "shuffle",
            same,
            True,
            0,
            "torch.utils.data.DataLoader, run beside it",
            True,
        )
    )
    return found


def show(o, runs):
    rows = samples(o, runs)
    few = rows[(rows["epoch"] == 1) & (rows["batch"] < o.limit)]
    return "\n".join(
        f"batch {r.batch}, sample {r.sample}: x = {r.x:f}, y = {r.y:f}" for r in few.itertuples()
    )


def answer(o, runs, claims):
    batches = {c.arm: c.measured for c in claims if c.name == "batches"}
    last = {c.arm: c.measured for c in claims if c.name == "last_batch"}
    return (
        f"An epoch is {batches['shuffle']} batches of {o.batch_size} and visits each of the "
        f"{runs['shuffle'].problem.d} samples once. With batch_size {o.ragged} it is "
        f"{batches['ragged']} batches, the last one of {last['ragged']}: a plain mean of the batch "
        f"losses weighs its samples more (Exercise 7). shuffle=False cuts the curve into "
        f"neighbouring points, so that every batch sees one short piece of it (Exercise 6)."
    )


STUDY = ss.Study(
    __file__,
    __doc__,
    Options,
    arms,
    claims,
    answer,
    tables={"batches.csv": samples},
    figures={"batches.png": ss.figures.batch_losses},
    show=show,
)

if __name__ == "__main__":
    STUDY.main()
