"""Exercise 4: how does the mini-batch descent of the notebook run, over 64 orders of the samples?

Hypothesis: with the step size 2e-4 it stops at the printed 48 epochs whatever the order; the
printed eta=0.2 is beyond the stability limit and diverges at once, so it must have lost digits.

Source: Exercise 4. Command: python experiments/ex4_minibatch.py
"""

from dataclasses import dataclass

import numpy as np

import sgdstudy as ss


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 64
    lr: float = 2e-4
    """step size of the first arm"""
    batch_size: int = 10
    """samples per batch"""
    epsilon: float = 0.1
    """stop once the running loss of an epoch is below"""
    epochs: int = 50
    """the most epochs"""


def arms(o):
    curve = ss.problems.curve()
    same = {
        "optimizer": "notebook",
        "batch_size": o.batch_size,
        "epochs": o.epochs,
        "stop": ("running", o.epsilon),
        "seeds": o.seed_range(),
    }
    return {
        "lr 2e-4": ss.Arm(curve, "the step size that gives the printed output", lr=o.lr, **same),
        "eta 0.2 as printed": ss.Arm(curve, "the call as the notebook prints it", lr=0.2, **same),
    }


def claims(o, runs):
    run, printed = runs["lr 2e-4"], runs["eta 0.2 as printed"]
    distance = np.linalg.norm(run.w - [0.3, -1.7, 2.5], axis=1)
    notebook = "printed in the notebook"
    return [
        ss.Claim("stop_epoch", "lr 2e-4", np.median(run.converged_epoch), 48, 1, notebook),
        ss.Claim(
            "seeds_at_48",
            "lr 2e-4",
            np.mean(np.abs(run.converged_epoch - 48) <= 1),
            1,
            0.05,
            notebook + "; nearly all orders, within one epoch",
        ),
        # the printed run is one draw: the spread over the seeds is its uncertainty
        ss.Claim(
            "distance_printed",
            "lr 2e-4",
            np.median(distance),
            0.4525,
            4 * distance.std() + 5e-5,
            notebook + "; 4 standard deviations over orders",
        ),
        ss.Claim(
            "diverges",
            "eta 0.2 as printed",
            np.mean(printed.stop_reason == "diverged"),
            1.0,
            0,
            "lr above 2 / largest eigenvalue of every batch's Hessian",
        ),
        ss.Claim(
            "first_non_finite_loss",
            "eta 0.2 as printed",
            [printed.n_steps.min(), printed.n_steps.max()],
        ),
    ]


def answer(o, runs, claims):
    run, printed = runs["lr 2e-4"], runs["eta 0.2 as printed"]
    return (
        f"With lr {o.lr:g} the running loss falls below {o.epsilon:g} at epoch "
        f"{np.median(run.converged_epoch):.0f} (median of {len(run.w)} orders), as the notebook "
        f"prints. With the printed eta=0.2, {np.sum(printed.stop_reason == 'diverged')} of "
        f"{len(printed.w)} orders diverge, after {printed.n_steps.min()} to "
        f"{printed.n_steps.max()} batches: the notebook's output was made with 0.0002."
    )


STUDY = ss.Study(
    __file__, __doc__, Options, arms, claims, answer, figures={"loss.png": ss.figures.loss_by_epoch}
)

if __name__ == "__main__":
    STUDY.main()
