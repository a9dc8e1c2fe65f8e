"""Exercise 7b: how does the norm of the full gradient compare with those of the batch gradients?

Hypothesis: at fixed parameters the weighted mean of the batch gradients is the full gradient, so its
norm is at most the mean of the batch norms; the gap is small at the start, where all batches agree,
and large near the optimum, where they cancel. For plain SGD the mean of the gradients along an epoch
is the way made divided by lr m.

Source: Exercise 7, second part. Command: python experiments/ex7b_gradient_norm.py
"""

from dataclasses import dataclass

import numpy as np

import sgdstudy as ss

ROUNDING = 1e-5  # relative to the mean batch norm; float32


@dataclass(frozen=True)
class Options(ss.Options):
    lr: float = 2e-4
    """step size of the arms that move"""
    batch_size: int = 10
    """samples per batch"""
    epochs: int = 50
    """epochs of the arms that move"""


def arms(o):
    curve, noisy = ss.problems.curve(), ss.problems.curve(noise=1.0)
    on_the_way = ss.train(curve, optimizer="notebook", lr=2e-4, epochs=1000).w[0]
    places = {
        "at the start": curve,
        "on the way": curve.replace(w_init=on_the_way),
        "near the optimum": curve.replace(w_init=[0.3079, -1.7, 2.0258]),  # printed, Exercise 1
        "near the optimum, noise 1": noisy.replace(w_init=noisy.least_squares.w_star),
    }
    both = {"batch_size": o.batch_size, "lr": o.lr, "seeds": o.seed_range()}
    found = {
        name: ss.Arm(problem, "fixed parameters", optimizer="none", epochs=1, **both)
        for name, problem in places.items()
    }
    both |= {"optimizer": "notebook", "epochs": o.epochs}
    found["moving"] = ss.Arm(curve, "along the training", **both)
    found["moving, noise 1"] = ss.Arm(noisy, "along the training, noisy labels", **both)
    return found


def claims(o, runs):
    found = []
    for arm, run in runs.items():
        rows = run.epochs
        full, mean, of_mean = (
            rows[c] for c in ("full_grad_norm", "mean_grad_norm", "norm_mean_grad")
        )
        found.append(ss.Claim("mean_over_full_norm", arm, float((mean / full).iloc[-1])))
        if "moving" in arm:
            m = len(run.config.batch_sizes(run.problem.d))
            first = rows[rows["epoch"] == 1]
            way = np.linalg.norm(first[["w0", "w1", "w2"]], axis=1) / (o.lr * m)
            error = np.abs(first["norm_mean_grad"] / way - 1).max()
            found.append(
                ss.Claim(
                    "moving_mean_gradient",
                    arm,
                    error,
                    0,
                    1e-4,
                    "identity: mean g_b = (w_start - w_end) / (lr m); float32",
                    True,
                )
            )
            continue
        found.append(
            ss.Claim(
                "mean_gradient_is_full",
                arm,
                float((abs(of_mean - full) / mean).max()),
                0,
                ROUNDING,
                "identity at fixed parameters",
                True,
            )
        )
        found.append(
            ss.Claim(
                "full_norm_is_below",
                arm,
                bool((full <= mean * (1 + ROUNDING)).all()),
                True,
                0,
                "triangle inequality",
                True,
            )
        )
    return found


def answer(o, runs, claims):
    ratio = {c.arm: c.measured for c in claims if c.name == "mean_over_full_norm"}
    return f"""
At fixed parameters the batch gradients average to the full gradient, so by the triangle inequality the
full norm is at most the mean of the batch norms. At the start they all point the same way: the mean
is {ratio["at the start"]:.2f} times the full norm. On the way it is {ratio["on the way"]:.1f} times, near
the optimum {ratio["near the optimum"]:.0f} times, and at the optimum of noisy labels
{ratio["near the optimum, noise 1"]:.1e} times: there the full gradient vanishes and the batch
gradients do not. So a small batch norm says little, and a rule that waits for the batch gradients to
vanish never stops on noisy data; their mean is what moves the parameters."""


def fixed(runs):
    return {arm: run for arm, run in runs.items() if "moving" not in arm}


def moving(runs):
    found = {arm: run for arm, run in runs.items() if "moving" in arm}
    return ss.figures.by_epoch(found, "mean_grad_norm", "full_grad_norm")


STUDY = ss.Study(
    __file__,
    __doc__,
    Options,
    arms,
    claims,
    answer,
    figures={
        "fixed.png": lambda runs: ss.figures.batch_gradients(fixed(runs)),
        "moving.png": moving,
    },
)

if __name__ == "__main__":
    STUDY.main()
