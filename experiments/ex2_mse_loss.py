"""Exercise 2: is the ready-made MSELoss the same as the mean square written by hand?

Hypothesis: yes, to the last bit, at every step. The text's Q_i is another loss: it is not squared,
its gradient does not shrink near the solution, and a constant step does not settle on it.

Source: Exercise 2. Command: python experiments/ex2_mse_loss.py
"""

from dataclasses import dataclass

import numpy as np
import torch

import sgdstudy as ss

TRUE = np.array([0.3, -1.7, 2.5])
AWAY = np.array([0.0, 0.0, 1e-3])  # where "abs, near" starts: every residual is 0.001
EVERY = 100  # steps between two at which torch.nn.MSELoss() is called beside the run


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
    text = curve.replace(loss="abs")
    near = {"dtype": "float64", "stop": None}
    return {
        "by hand": ss.Arm(curve.replace(loss=by_hand), "mean of (y - f)^2", **same),
        "MSELoss": ss.Arm(curve.replace(loss=ready_made), "torch.nn.MSELoss", **same),
        "abs": ss.Arm(text, "the text's Q_i, not squared", **same | {"dtype": "float64"}),
        "abs, near": ss.Arm(
            text.replace(w_init=TRUE + AWAY), "the same, 0.001 from the solution", **same | near
        ),
    }


def features(run):
    x = run.problem.x.double().numpy()
    return np.stack([x * x, x, np.ones_like(x)], 1)


def least_gradient(phi):
    """Return the least norm that the gradient of mean |r_i| can have.

    It is the mean of +-phi_i. A residual is a parabola in x: its sign changes twice at most along
    the curve, between points a and b, so that the gradient is one of finitely many.
    """
    sums = np.concatenate([np.zeros((1, 3)), (phi / len(phi)).cumsum(0)])
    rest = sums[-1] + 2 * sums  # all, less twice what lies between a and b
    square = (rest**2).sum(1)[:, None] - 4 * rest @ sums.T + 4 * (sums**2).sum(1)
    return np.sqrt(square[np.triu_indices(len(square))].min())


def differing(one, other):
    """Return how many numbers of two tables differ, in any bit."""
    if one.shape != other.shape:
        return max(one.size, other.size)
    return int(np.sum((one != other) & ~(np.isnan(one) & np.isnan(other))))


def claims(o, runs):
    columns = ["loss", "grad_norm", "w0", "w1", "w2"]
    rows = {arm: run.load(columns=columns).to_numpy() for arm, run in runs.items()}
    ready, near, loss = runs["MSELoss"], runs["abs, near"], torch.nn.MSELoss()
    some = torch.tensor(rows["MSELoss"][::EVERY, 2:])
    called = [float(loss(ready.problem.model(w, ready.problem.x), ready.problem.y)) for w in some]
    phi = features(near)
    least, source = least_gradient(phi), "the text's loss: its gradient is a mean of +-phi_i"
    shortest = min(rows[arm][:, 1].min() for arm in ("abs", "abs, near"))
    distances = near.epochs["distance"].to_numpy()  # a step is an epoch
    step = np.linalg.norm(AWAY - o.lr * phi.mean(0))
    return [
        ss.Claim(
            "numbers_that_differ",
            "MSELoss",
            differing(rows["by hand"], rows["MSELoss"]),
            0,
            0,
            "hypothesis: every loss, gradient norm and parameter, bit for bit",
            always=True,
        ),
        ss.Claim(
            "losses_that_differ",
            "MSELoss",
            differing(rows["MSELoss"][::EVERY, 0], np.array(called)),
            0,
            0,
            "torch.nn.MSELoss(), called beside the run",
            always=True,
        ),
        ss.Claim(
            "stop_epoch_printed",
            "MSELoss",
            ready.median_stop,
            9340,
            1,
            "printed in the notebook (Exercise 1)",
        ),
        ss.Claim(
            "distance_after_first_step",
            "abs, near",
            distances[0],
            step,
            np.spacing(np.float32(2.5)),  # the start is a float32
            "theory: all residuals positive, so the gradient is the mean of phi_i",
            always=True,
        ),
        ss.Claim(
            "gradient_below_the_least",
            "all of abs",
            max(0.0, 1 - shortest / least),
            0,
            1e-9,
            source,
            identity=True,
        ),
        ss.Claim("least_gradient", "all of abs", least),
        ss.Claim("stop_epoch", "abs", runs["abs"].median_stop),
        ss.Claim("distance", "abs", runs["abs"].distance[0]),
        ss.Claim("distance", "abs, near", [distances[-100:].min(), distances[-100:].max()]),
    ]


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    differ, run = value["numbers_that_differ", "MSELoss"], runs["abs"]
    same = "the same to the last bit" if differ == 0 else f"NOT the same: {differ} numbers differ"
    low, high = value["distance", "abs, near"]
    return f"""The {runs["MSELoss"].n_steps[0]} steps of the two arms are {same}. The unsquared loss
    of the text is another problem: with the same step it ends as "{run.stop_reason[0]}" at epoch
    {run.stop_epoch[0]}, {run.distance[0]:.3g} from the true parameters. Its gradient does not
    shrink near them: as long as residuals are not mere rounding it has a norm of at least
    {value["least_gradient", "all of abs"]:.2g}. Started 0.001 from the solution, descent is
    {value["distance_after_first_step", "abs, near"]:.2g} away after one step, and between {low:.2g}
    and {high:.2g} away in the last hundred: a constant step does not settle there."""


figures = {"loss.png": ss.figures.loss_by_epoch}
STUDY = ss.Study(__file__, __doc__, Options, arms, claims, answer, figures)

if __name__ == "__main__":
    STUDY.main()
