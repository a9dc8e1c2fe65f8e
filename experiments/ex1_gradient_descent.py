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
from sgdstudy.predict import contraction, growth

D = 2000  # points of the curve
STEPS = ("1e-4", "2e-4", "3e-4", "4e-4", "4.9e-4", "5.1e-4")
PRINTED = "printed in the notebook"
FLOOR_LR = 4.9e-4  # reaches the floor soonest


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 1
    epsilon: float = 0.1
    """stop once the running loss of an epoch is below"""
    epochs: int = 20_000
    """the most epochs of the full-batch arms"""
    passes: int = 100
    """the most epochs of the arms that take one sample at a time"""


def sum_of_squares(prediction, y):
    return D * (prediction - y) ** 2  # its mean over the full batch is the sum of squares


def arms(o):
    curve = ss.problems.curve()
    start = curve.initial([0])[0].numpy()
    best = ss.theory.lr_best_for_epsilon(curve.least_squares, start, o.epsilon)
    fastest = ss.theory.lr_best_asymptotic(curve.least_squares)
    long = {"optimizer": "notebook", "epochs": min(o.epochs, 2000), "dtype": "float64"}
    total = curve.replace(loss=sum_of_squares)
    full = {"optimizer": "notebook", "epochs": o.epochs, "stop": ("running", o.epsilon)}
    still = {"optimizer": "notebook", "epochs": o.epochs * 5 // 4, "lr": FLOOR_LR}
    sums = full | {"stop": ("running", o.epsilon * D)}
    one = {"optimizer": "notebook", "batch_size": 1, "epochs": o.passes, "seeds": o.seed_range()}
    prose = one | {"lr": 1e-5, "stop": ("running", 1e-3)}
    one |= {"lr": 2e-4, "stop": ("running", o.epsilon)}
    return {
        **{
            f"lr {lr}": ss.Arm(curve, "full batch", charted=float(lr) < 5e-4, lr=float(lr), **full)
            for lr in STEPS
        },
        "lr best": ss.Arm(curve, "the step that theory finds best", lr=best, **full),
        "lr fastest": ss.Arm(curve, "the best rate in the long run", lr=fastest, **long),
        "lr 2e-4, float64": ss.Arm(curve, "less rounding", lr=2e-4, dtype="float64", **full),
        "float32 floor": ss.Arm(curve, "until nothing moves", **still),
        "sum, lr 2e-4/d": ss.Arm(total, "sum form, step divided by d", lr=2e-4 / D, **sums),
        "sum, lr 2e-4": ss.Arm(total, "sum form, same step", charted=False, lr=2e-4, **sums),
        "one sample, prose": ss.Arm(curve, "the text's values: 1e-5, 1e-3, 100", **prose),
        "one sample, shuffled": ss.Arm(curve, "stochastic descent proper", **one),
        "one sample, sorted": ss.Arm(curve, "along the curve", order="sequential", **one),
    }


def claims(o, runs):
    ls, run, total = ss.problems.curve().least_squares, runs["lr 2e-4"], runs["sum, lr 2e-4/d"]
    # beyond the limit the loss grows by (1 - lr * lambda)^2 an epoch: the limit can be read off
    limit, limit_sum = ss.theory.lr_limit(ls), ss.theory.lr_limit(ls) / D
    seen = 2 / ((1 + np.sqrt(growth(runs["lr 5.1e-4"]))) / 5.1e-4)
    seen_sum = 2 / ((1 + np.sqrt(growth(runs["sum, lr 2e-4"]))) / 2e-4)
    # the slowest mode of any step shrinks by at least (k - 1) / (k + 1), k the condition number
    condition = ss.theory.eigenvalues(ls)[-1] / ss.theory.eigenvalues(ls)[0]
    rate, fastest = contraction(runs["lr fastest"], 1000), (condition - 1) / (condition + 1)
    lowest = runs["float32 floor"].epochs["full_loss"].min() - ls.least_loss
    floor = ss.theory.float32_floor(ls, FLOOR_LR)
    best = all(runs["lr best"].median_stop <= runs[f"lr {lr}"].median_stop for lr in STEPS)
    return [
        ss.Claim("w_printed", "lr 2e-4", run.w[0], [0.3079, -1.7, 2.0258], 5e-5, PRINTED),
        ss.Claim("distance_printed", "lr 2e-4", run.distance[0], 0.4743, 5e-5, PRINTED),
        ss.Claim("stop_epoch_printed", "lr 2e-4", run.median_stop, 9340, 1, PRINTED),
        ss.Claim("stop_epoch_printed", "sum, lr 2e-4/d", total.median_stop, 9340, 1, PRINTED),
        ss.Claim("lr_limit", "lr 5.1e-4", seen, limit, 1e-3 * limit, "2 / lambda_max"),
        ss.Claim(
            "sum_form_lr_limit",
            "sum, lr 2e-4",
            seen_sum,
            limit_sum,
            1e-3 * limit_sum,
            "2 / (d lambda_max)",
        ),
        ss.Claim("lr_best_for_epsilon", "lr best", best, True, 0, "no other step stops earlier"),
        ss.Claim("lr_best_asymptotic", "lr fastest", rate, fastest, 1e-7, "(k - 1) / (k + 1)"),
        ss.Claim(
            "float32_floor",
            "float32 floor",
            lowest,
            floor,
            floor / 2,
            "ulp(w)^2 / (8 lr^2 lambda_min), to a factor of 2",
        ),
        *ss.predicted_claims(runs),
    ]


def answer(o, runs, claims):
    stop = {arm: f"{run.median_stop:.0f}" for arm, run in runs.items()}
    value = {c.name: c.measured for c in claims}
    prose, ordered = runs["one sample, prose"], runs["one sample, sorted"]
    return f"""Full-batch descent with lr 2e-4 stops at epoch {stop["lr 2e-4"]}, as printed and as
    theory says, and still lies {runs["lr 2e-4"].distance[0]:.4f} from the true parameters: the
    constant term hardly changes the loss, so descent is slow along it. Steps up to 2 / (largest
    eigenvalue), measured as {value["lr_limit"]:.4g}, work; 5.1e-4 diverges. The best step for this
    epsilon, {runs["lr best"].config.lr:.4g}, is just below and stops at {stop["lr best"]}. The sum
    form needs the step divided by d = {D}: with the same step it diverges within
    {runs["sum, lr 2e-4"].n_steps[0]} epochs.

    One sample at a time, shuffled, takes {stop["one sample, shuffled"]} passes over the data at
    2e-4; along the curve it ends as "{ordered.stop_reason[0]}" after {ordered.n_steps[0]} steps.
    With the values of the text (1e-5, 1e-3, 100 epochs) it ends as "{prose.stop_reason[0]}",
    {prose.distance[0]:.3f} from the true parameters.

    What the text says otherwise: Q_i is written as a norm, the code squares it (Exercise 7 runs
    both); it speaks of one sample at a time, the code uses all at once; its default values are not
    those of the code; and what it calls iterations are epochs."""


def some(runs, *words):
    return {arm: run for arm, run in runs.items() if arm.startswith(words)}


figures = {
    "step_sizes.png": lambda runs: ss.figures.loss_by_epoch(some(runs, "lr", "float32"), top=1e4),
    "forms.png": lambda runs: ss.figures.loss_by_epoch(
        some(runs, "lr 2e-4", "sum", "one"), top=1e8
    ),
    "path.png": lambda runs: ss.figures.path(
        {arm: runs[arm] for arm in ("lr 2e-4", "lr 4.9e-4", "one sample, shuffled")}, 0, 2, 10_000
    ),
}
ask = {
    ("stop_epoch", "lr 2e-4"): "At which epoch does descent with lr 2e-4 stop?",
    ("stop_epoch", "lr 4e-4"): "And with lr 4e-4?",
    ("stop_epoch", "sum, lr 2e-4"): "And for the sum of squares, not the mean, with lr 2e-4?",
}
STUDY = ss.Study(__file__, __doc__, Options, arms, claims, answer, figures, ask=ask)

if __name__ == "__main__":
    STUDY.main()
