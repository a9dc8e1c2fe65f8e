"""Exercise 1: where does gradient descent stop, and how does the step size decide it?

Hypothesis: full-batch descent with the notebook's values stops at the printed epoch 9340. A larger
step stops earlier until 2 / (largest eigenvalue of the Hessian), beyond which it diverges. The sum
form of the loss is the mean form with a step d times smaller. "One sample at a time" is another
algorithm than the exercise's code: shuffled it converges, in the order of the curve it explodes.

Source: Exercise 1. Command: python experiments/ex1_gradient_descent.py
"""

from dataclasses import dataclass

import numpy as np

import sgdstudy as ss

D = 2000  # points of the curve
PRINTED = "printed in the notebook"


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 1
    epsilon: float = 0.1
    """stop once the running loss of an epoch is below"""
    epochs: int = 20_000
    """the most epochs of the full-batch arms"""


def sum_of_squares(prediction, y):
    return D * (prediction - y) ** 2  # the mean over the full batch is the sum of squares


def arms(o):
    curve = ss.problems.curve()
    full = {"optimizer": "notebook", "epochs": o.epochs, "stop": ("running", o.epsilon)}
    steps = {
        "lr 1e-4": 1e-4,
        "lr 2e-4": 2e-4,
        "lr 3e-4": 3e-4,
        "lr 4e-4": 4e-4,
        "lr 4.9e-4": 4.9e-4,
    }
    found = {
        name: ss.Arm(curve, "full batch, mean form", lr=lr, **full) for name, lr in steps.items()
    }
    found["lr 5.1e-4"] = ss.Arm(curve, "beyond the stability limit", lr=5.1e-4, **full)
    found["lr 2e-4, float64"] = ss.Arm(curve, "without rounding", lr=2e-4, dtype="float64", **full)
    total = curve.replace(loss=sum_of_squares)
    full["stop"] = ("running", o.epsilon * D)
    found["sum, lr 2e-4/d"] = ss.Arm(total, "sum form, step divided by d", lr=2e-4 / D, **full)
    found["sum, lr 2e-4"] = ss.Arm(total, "sum form, same step", lr=2e-4, **full)
    one = {"optimizer": "notebook", "batch_size": 1, "epochs": 100, "seeds": o.seed_range()}
    prose = {"lr": 1e-5, "stop": ("running", 1e-3)}
    found["one sample, prose"] = ss.Arm(
        curve, "the values of the text: 1e-5, 1e-3, 100", **one, **prose
    )
    one |= {"lr": 2e-4, "stop": ("running", o.epsilon)}
    found["one sample, shuffled"] = ss.Arm(curve, "stochastic descent proper", **one)
    found["one sample, sorted"] = ss.Arm(
        curve, "in the order of the curve", order="sequential", **one
    )
    return found


def claims(o, runs):
    limit = 2 / np.linalg.eigvalsh(ss.problems.curve().least_squares.hessian).max()
    by_theory = "theory: lr against 2 / largest eigenvalue of the Hessian"
    printed = runs["lr 2e-4"]
    found = [
        ss.Claim("stop_epoch", "lr 2e-4", printed.converged_epoch[0], 9340, 1, PRINTED),
        ss.Claim("w_printed", "lr 2e-4", printed.w[0], [0.3079, -1.7, 2.0258], 5e-5, PRINTED),
        ss.Claim(
            "distance_printed",
            "lr 2e-4",
            np.linalg.norm(printed.w[0] - [0.3, -1.7, 2.5]),
            0.4743,
            5e-5,
            PRINTED,
        ),
    ]
    for arm in ("lr 2e-4, float64", "sum, lr 2e-4/d"):
        found.append(ss.Claim("stop_epoch", arm, runs[arm].converged_epoch[0], 9340, 1, PRINTED))
    for arm in ("lr 1e-4", "lr 3e-4", "lr 4e-4", "lr 4.9e-4", *list(runs)[-3:]):
        found.append(ss.Claim("stop_epoch", arm, np.median(runs[arm].converged_epoch)))
    for arm in ("lr 4.9e-4", "lr 5.1e-4"):
        diverges = "diverged" in runs[arm].stop_reason
        found.append(ss.Claim("diverges", arm, diverges, runs[arm].config.lr > limit, 0, by_theory))
    sum_diverges = "diverged" in runs["sum, lr 2e-4"].stop_reason
    found.append(ss.Claim("diverges", "sum, lr 2e-4", sum_diverges, limit < 2e-4 * D, 0, by_theory))
    found.append(ss.Claim("lr_limit", "all", limit))
    return found


def answer(o, runs, claims):
    epochs = {name: np.median(run.converged_epoch) for name, run in runs.items()}
    limit = claims[-1].measured
    return f"""
Full-batch descent with lr 2e-4 stops at epoch {epochs["lr 2e-4"]:.0f}, as printed, and still lies
{np.linalg.norm(runs["lr 2e-4"].w[0] - [0.3, -1.7, 2.5]):.4f} from the true parameters: the constant
term hardly changes the loss, so descent is slow along it. Steps up to 2/λmax = {limit:.3g} work
(4.9e-4 stops at epoch {epochs["lr 4.9e-4"]:.0f}), 5.1e-4 diverges. The sum form needs the step
divided by d = {D}: the same step diverges after {runs["sum, lr 2e-4"].n_steps[0]} epochs. One sample at
a time, shuffled, needs {epochs["one sample, shuffled"]:.0f} passes over the data at 2e-4; in the order
of the curve it ends as '{runs["one sample, sorted"].stop_reason[0]}' in epoch
{runs["one sample, sorted"].stop_epoch[0]}; with the values of the text (1e-5, 1e-3, 100 epochs) it
ends as '{runs["one sample, prose"].stop_reason[0]}'."""


STUDY = ss.Study(
    __file__, __doc__, Options, arms, claims, answer, figures={"loss.png": ss.figures.loss_by_epoch}
)

if __name__ == "__main__":
    STUDY.main()
