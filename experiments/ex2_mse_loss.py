"""Exercise 2: is the ready-made MSELoss the same as the mean square written by hand?

Hypothesis: yes, to the last bit, at every step. The text's Q_i is another loss: it is not squared,
its gradient does not shrink near the solution, and a constant step does not settle on it.

Source: Exercise 2. Command: python experiments/ex2_mse_loss.py
"""

from dataclasses import dataclass

import numpy as np
import torch

import sgdstudy as ss


@dataclass(frozen=True)
class Options(ss.Options):
    lr: float = 2e-4
    """step size"""
    epsilon: float = 0.1
    """stop once the loss is below"""
    epochs: int = 10_000
    """the most epochs"""


def by_hand(prediction, y):
    return torch.pow(y - prediction, 2)


def arms(o):
    curve = ss.problems.curve()
    same = {"optimizer": "notebook", "lr": o.lr, "epochs": o.epochs, "stop": ("running", o.epsilon)}
    ready_made = torch.nn.MSELoss(reduction="none")  # one value per sample; a batch takes the mean
    return {
        "by hand": ss.Arm(curve.replace(loss=by_hand), "mean of (y - f)^2", **same),
        "MSELoss": ss.Arm(curve.replace(loss=ready_made), "torch.nn.MSELoss", **same),
        "abs": ss.Arm(curve.replace(loss="abs"), "the text's Q_i, not squared", **same),
    }


def claims(o, runs):
    columns = ["loss", "grad_norm", "w0", "w1", "w2"]
    rows = {arm: run.load(columns=columns).to_numpy() for arm, run in runs.items()}
    same = np.array_equal(rows["by hand"], rows["MSELoss"])
    identity = "identity: every recorded loss, gradient norm and parameter, bit for bit"
    printed = "printed in the notebook (Exercise 1)"
    return [
        ss.Claim("same_trajectory", "MSELoss", same, True, 0, identity, always=True),
        ss.Claim("stop_epoch", "MSELoss", runs["MSELoss"].median_stop, 9340, 1, printed),
        ss.Claim("stop_epoch", "by hand", runs["by hand"].median_stop, 9340, 1, printed),
        ss.Claim("stop_epoch", "abs", runs["abs"].median_stop),
        ss.Claim("distance", "abs", runs["abs"].distance[0]),
    ]


def answer(o, runs, claims):
    same = "the same to the last bit" if claims[0].measured else "NOT the same"
    run = runs["abs"]
    return f"""The {runs["MSELoss"].n_steps[0]} steps of the two arms are {same}. The unsquared loss
    of the text is another problem: it ends as "{run.stop_reason[0]}" at epoch {run.stop_epoch[0]},
    {run.distance[0]:.3g} from the true parameters."""


figures = {"loss.png": ss.figures.loss_by_epoch}
STUDY = ss.Study(__file__, __doc__, Options, arms, claims, answer, figures)

if __name__ == "__main__":
    STUDY.main()
