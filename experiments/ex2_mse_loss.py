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
    ready_made = torch.nn.MSELoss(reduction="none")
    return {
        "by hand": ss.Arm(curve.replace(loss=by_hand), "mean of (y - f)^2", **same),
        "MSELoss": ss.Arm(curve.replace(loss=ready_made), "torch.nn.MSELoss", **same),
        "abs": ss.Arm(curve.replace(loss="abs"), "the text's Q_i, not squared", **same),
    }


def claims(o, runs):
    columns = ["loss", "grad_norm", "w0", "w1", "w2"]
    rows = {arm: run.load(columns=columns).to_numpy() for arm, run in runs.items()}
    identical = np.array_equal(rows["by hand"], rows["MSELoss"])
    printed = "printed in the notebook (Exercise 1)"
    return [
        ss.Claim(
            "same_trajectory",
            "MSELoss",
            identical,
            True,
            0,
            "identity: every recorded loss, gradient and parameter, bit for bit",
            always=True,
        ),
        ss.Claim("stop_epoch", "MSELoss", runs["MSELoss"].converged_epoch[0], 9340, 1, printed),
        ss.Claim("stop_epoch", "by hand", runs["by hand"].converged_epoch[0], 9340, 1, printed),
        ss.Claim("stop_epoch", "abs", runs["abs"].converged_epoch[0]),
        ss.Claim("distance", "abs", np.linalg.norm(runs["abs"].w[0] - [0.3, -1.7, 2.5])),
    ]


def answer(o, runs, claims):
    same = "the same to the last bit" if claims[0].measured else "NOT the same"
    steps = int(runs["MSELoss"].n_steps[0])
    return (
        f"The {steps} steps of the two arms are {same}. The unsquared loss of the text is another "
        f"problem: it ends as '{runs['abs'].stop_reason[0]}' at epoch {runs['abs'].stop_epoch[0]}, "
        f"{claims[-1].measured:.3g} from the true parameters."
    )


STUDY = ss.Study(
    __file__, __doc__, Options, arms, claims, answer, figures={"loss.png": ss.figures.loss_by_epoch}
)

if __name__ == "__main__":
    STUDY.main()
