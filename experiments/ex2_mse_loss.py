"""Exercise 2: is the ready-made MSELoss the same as the mean square written by hand?

Hypothesis: yes, to the last bit, at every step. The text's Qᵢ is another loss: it is not squared,
its gradient does not vanish near the solution, and a constant step does not settle on it.

Source: Exercise 2. Command: python experiments/ex2_mse_loss.py
"""

import numpy as np
import torch

import sgdstudy as ss
from answers.ex2_mse_loss import answer, short

TRUE = np.array([0.3, -1.7, 2.5])
AWAY = np.array([0.0, 0.0, 1e-3])  # where "abs, near" starts: every residual is 0.001
LAST = 100  # steps, here epochs, over which it is seen where descent ends
EVERY = 100  # steps between two at which torch.nn.MSELoss() is called beside the run
BITS = "hypothesis: every loss, gradient norm and parameter, bit for bit"
CALLED = "torch.nn.MSELoss(), called beside the run"
PRINTED = "printed in the notebook (Exercise 1)"
POSITIVE = "theory: all residuals positive, so the gradient is the mean of φᵢ"
SIGNS = ss.to_say("the text's loss: its gradient is a mean of ±φᵢ")


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
    hand = ss.Arm("curve", "mean of (y - f)²", optimizer="notebook", lr=o.lr, epochs=o.epochs)
    hand = hand.but(problem=curve.replace(loss=by_hand), stop=("running", o.epsilon))
    ready_made = torch.nn.MSELoss(reduction="none")  # one value per sample; a batch takes the mean
    text = curve.replace(loss="abs")
    unsquared = hand.but("the text's Qᵢ, not squared", problem=text, dtype="float64")
    near = unsquared.but("the same, 0.001 from the solution", stop=None, charted=False)
    yield "by hand", hand.but(charted=False)  # to the bit MSELoss, whose line would cover it
    yield "MSELoss", hand.but("torch.nn.MSELoss", problem=curve.replace(loss=ready_made))
    yield "abs", unsquared
    yield "abs, near", near.but(problem=text.replace(w_init=TRUE + AWAY))


def claims(o, runs):
    hand, ready, text, near = runs.values()
    differ = ready.differing(hand, "loss", "grad_norm", "w0", "w1", "w2")
    yield ss.Claim("numbers_that_differ", "MSELoss", differ, 0, source=BITS, always=True)
    rows, loss, data = ready.steps[::EVERY], torch.nn.MSELoss(), ready.problem
    at = torch.tensor(rows[["w0", "w1", "w2"]].to_numpy())
    called = np.array([float(loss(data.model(w, data.x), data.y)) for w in at])
    differ = int(np.sum(rows["loss"].to_numpy() != called))
    yield ss.Claim("losses_that_differ", "MSELoss", differ, 0, source=CALLED, always=True)
    yield ss.Claim("stop_epoch_printed", "MSELoss", ready.median_stop, 9340, 1, PRINTED)
    phi, distances = ss.problems.curve().least_squares.features, near.epochs["distance"].to_numpy()
    float32 = np.spacing(np.float32(2.5))  # the start is one
    due = ss.Known(np.linalg.norm(AWAY - o.lr * phi.mean(0)), float32, POSITIVE)
    yield ss.Claim("distance_after_first_step", "abs, near", distances[0], due)
    least = ss.theory.least_absolute_gradient(phi)
    below = 1 - min(run.steps["grad_norm"].min() for run in (text, near)) / least
    same = {"abs": 1e-9, "source": SIGNS, "identity": True}
    yield ss.Claim("gradient_below_the_least", "all of abs", max(0.0, below), 0, **same)
    yield ss.Claim("least_gradient", "all of abs", least)
    yield ss.Claim("stop_epoch", "abs", text.median_stop)
    yield ss.Claim("distance", "abs", text.distance[0])
    last = distances[-LAST:]
    yield ss.Claim("distance", "abs, near", [last.min(), last.max()])


def picture(o, runs, value):
    names = {ss.say("the text's, not squared"): "abs", ss.say("MSELoss, and by hand"): "MSELoss"}
    shown, y = runs.named(names), ss.say("distance to the true parameters")
    panel = ss.figures.lines.by_epoch(shown, "distance", y=y)
    title = ss.say(
        """By hand and by MSELoss {n} number differs; the text's loss, not squared, ends
        {distance:.2} from the parameters""",
        """By hand and by MSELoss {n} numbers differ; the text's loss, not squared, ends
        {distance:.2} from the parameters""",
        n=value["numbers_that_differ"],
        distance=value["distance", "abs"],
    )
    note = ss.say(
        "All with the same step. Not squared, the gradient's norm was never below {least:.2}.",
        least=ss.text.at_most(
            min(runs[arm].steps["grad_norm"].min() for arm in ("abs", "abs, near"))
        ),
    )
    return ss.figures.Chart(title, [panel], note)


def figures(runs):
    yield "loss.png", ss.figures.loss_by_epoch(runs)


charts = {"distance to the true parameters, by hand as by MSELoss": "epoch/distance"}
ask = {
    ("numbers_that_differ", "MSELoss"): "Of the recorded numbers, how many differ by MSELoss?",
    ("stop_epoch", "abs"): "At which epoch does descent on the text's loss, not squared, stop?",
    ("distance", "abs"): "And how far from the true parameters does it end?",
}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
