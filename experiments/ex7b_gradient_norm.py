"""Exercise 7b: how does the norm of the full gradient compare with those of the batch gradients?

Hypothesis: at fixed parameters the weighted mean of the batch gradients is the full gradient, so
its norm is at most the mean of the batch norms; the gap is small at the start, where all batches
agree, and large near the optimum, where they cancel. For plain SGD the mean of the gradients along
an epoch is the way made divided by lr m.

Source: Exercise 7, second part. Command: python experiments/ex7b_gradient_norm.py
"""

from dataclasses import dataclass

import numpy as np

import sgdstudy as ss
from sgdstudy import theory

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
    on_the_way = ss.train(curve, optimizer="notebook", lr=2e-4, epochs=10).w[0]
    places = {
        "at the start": curve,
        "on the way": curve.replace(w_init=on_the_way),
        "near the optimum": curve.replace(w_init=[0.3079, -1.7, 2.0258]),  # printed, Exercise 1
        "optimum, noise 1": noisy.replace(w_init=noisy.least_squares.w_star),
    }
    both = {"batch_size": o.batch_size, "lr": o.lr, "seeds": o.seed_range()}
    still = {"optimizer": "none", "epochs": 1, **both}
    move = {"optimizer": "notebook", "epochs": o.epochs, **both}
    return {
        **{name: ss.Arm(problem, "fixed", **still) for name, problem in places.items()},
        "moving": ss.Arm(curve, "along the training", **move),
        "moving, noise 1": ss.Arm(noisy, "along the training, noisy labels", **move),
    }


def from_theory(arm, run):
    """Check the recorded gradients against the covariance of the samples' gradients."""
    ls, d, size = run.problem.least_squares, run.problem.d, run.config.batch_size
    w = run.w[0].astype(float)
    norm = np.linalg.norm(theory.gradients(ls, w, d).mean(0))
    squares = run.load(columns=["seed", "grad_norm"]).assign(square=lambda rows: rows.grad_norm**2)
    by_seed = squares.groupby("seed")["square"].mean()
    mean_square, expected = by_seed.mean(), theory.mean_square_batch_norm(ls, w, d, size)
    error = 4 * by_seed.std() / np.sqrt(len(by_seed)) + ROUNDING * expected
    # tr(Sigma) as the batches show it: what E|g_B|^2 has beyond |g|^2
    share = theory.finite_share(d, size)
    trace, seen = theory.trace_sigma(ls, w, d), (mean_square - norm**2) / share
    # the two-batch estimate of |g|^2, from batches of this size and the full batch
    estimate = (d * norm**2 - size * mean_square) / (d - size)
    near, source = "4 standard errors over the seeds", "theory: covariance of the gradients"
    expectations = {
        "mean_square_batch_norm": (
            mean_square,
            expected,
            error,
            "theory: |g|^2 + tr(Sigma) (d - B) / (B (d - 1))",
        ),
        "trace_sigma": (seen, trace, error / share, source),
        "noise_scale": (
            seen / norm**2,
            theory.noise_scale(ls, w, d),
            error / share / norm**2,
            source,
        ),
        "two_batch_estimator_bias": (
            estimate - norm**2,
            theory.two_batch_bias(ls, w, d),
            error * size / (d - size),
            "theory: -tr(Sigma) / (d - 1) without replacement",
        ),
    }
    return [
        ss.Claim(
            "full_gradient_norm",
            arm,
            run.epochs["full_grad_norm"][0],
            norm,
            1e-9 * max(norm, 1),
            "theory: norm of the mean of the samples' gradients",
            True,
        ),
        *(
            ss.Claim(name, arm, measured, value, tolerance, f"{source}; {near}")
            for name, (measured, value, tolerance, source) in expectations.items()
        ),
    ]


def claims(o, runs):
    found = []
    for arm, run in runs.items():
        rows = run.epochs
        full, mean, of_mean = rows["full_grad_norm"], rows["mean_grad_norm"], rows["norm_mean_grad"]
        ratio = (mean / full).groupby(rows["epoch"]).median()
        if "moving" in arm:
            found.append(
                ss.Claim("batch_norm_over_full_norm", arm, [ratio.iloc[0], ratio.iloc[-1]])
            )
            m = len(run.config.batch_sizes(run.problem.d))
            first = rows[rows["epoch"] == 1]
            way = np.linalg.norm(first[["w0", "w1", "w2"]], axis=1) / (o.lr * m)
            error = np.abs(first["norm_mean_grad"] / way - 1).max()
            source = "identity: mean g_b = (w_start - w_end) / (lr m); float32"
            found.append(ss.Claim("moving_mean_gradient", arm, error, 0, 1e-4, source, True))
            continue
        found.append(ss.Claim("batch_norm_over_full_norm", arm, ratio.iloc[0]))
        found += from_theory(arm, run)
        error, source = (np.abs(of_mean - full) / mean).max(), "identity at fixed parameters"
        found.append(ss.Claim("mean_is_full", arm, error, 0, ROUNDING, source, True))
        below = bool((full <= mean * (1 + ROUNDING)).all())
        found.append(ss.Claim("full_is_below", arm, below, True, 0, "triangle inequality", True))
    return found


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    ratio = {c.arm: c.measured for c in claims if c.name == "batch_norm_over_full_norm"}
    scale = {arm: f"{value['noise_scale', arm]:.3g}" for arm in runs if "moving" not in arm}
    return f"""At fixed parameters the batch gradients average to the full gradient, so by the
    triangle inequality the full norm is at most the mean of the batch norms. At the start all
    batches point the same way: the mean is {ratio["at the start"]:.3f} times the full norm. On the
    way it is {ratio["on the way"]:.2f} times, near the optimum {ratio["near the optimum"]:.1f}
    times, and at the optimum of noisy labels {ratio["optimum, noise 1"]:.0e} times: there the full
    gradient vanishes and the batch gradients do not. So a rule that waits for the batch gradients
    to vanish never stops on noisy data, and the norm of one batch's gradient says little about the
    full one; their mean over an epoch is what moves the parameters.

    How many samples a batch needs for its gradient to be mostly signal, the gradient noise scale,
    goes from {scale["at the start"]} at the start over {scale["on the way"]} to
    {scale["near the optimum"]} near the optimum: it is a property of a place, not of a problem.
    Estimated from batches of two sizes drawn without replacement, the squared full norm is off by
    {value["two_batch_estimator_bias", "near the optimum"]:.3g} near the optimum, where it is
    {value["full_gradient_norm", "near the optimum"] ** 2:.3g}."""


def some(runs, moving):
    return {arm: run for arm, run in runs.items() if ("moving" in arm) == moving}


figures = {
    "fixed.png": lambda runs: ss.figures.batch_gradients(some(runs, False)),
    "moving.png": lambda runs: ss.figures.gradient_norms(some(runs, True)),
}
ask = {
    (
        "batch_norm_over_full_norm",
        "at the start",
    ): "At w = 0: mean norm of the batch gradients over the norm of the full one?",
    ("batch_norm_over_full_norm", "near the optimum"): "And near the optimum?",
}
STUDY = ss.Study(__file__, __doc__, Options, arms, claims, answer, figures, ask=ask)

if __name__ == "__main__":
    STUDY.main()
