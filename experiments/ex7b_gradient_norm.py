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

ROUNDING = 4 * np.sqrt(2000) * 2.0**-24  # relative; 2000 float32 terms: 4 standard deviations
DRAWS = 400  # random partitions from which the standard error is computed


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


def at(run):
    """Return where a run stands still, and the gradient of all the data there, by theory."""
    w = run.w[0].astype(float)
    return w, theory.gradients(run.problem.least_squares, w, run.problem.d)


def spread(gradients, size):
    """Return the standard deviation of an epoch's mean |g_B|^2, over random partitions."""
    draw, whole = np.random.default_rng(0), len(gradients) // size * size
    means = []
    for _ in range(DRAWS):
        batches = draw.permutation(gradients)[:whole].reshape(-1, size, gradients.shape[1])
        means.append((batches.mean(1) ** 2).sum(1).mean())
    return np.std(means, ddof=1)


def noise(arm, run):
    """Check the recorded batch gradients against the covariance of the samples' gradients."""
    (w, each), ls, d, size = (
        at(run),
        run.problem.least_squares,
        run.problem.d,
        run.config.batch_size,
    )
    rows = run.load(columns=["seed", "size", "grad_norm"])
    norms = rows.loc[rows["size"] == size, "grad_norm"]  # not of a short last batch
    mean_square, square = np.mean(norms.astype(float) ** 2), np.sum(each.mean(0) ** 2)
    expected = theory.mean_square_batch_norm(ls, w, d, size)
    near = 4 * spread(each, size) / np.sqrt(len(run.w)) + ROUNDING * expected
    # all of these follow from the mean square: tr(Sigma) is what it has beyond |g|^2, and the
    # two-batch estimate of |g|^2 comes from batches of this size and the full batch
    trace = (mean_square - square) / theory.finite_share(d, size)
    estimate = (d * square - size * mean_square) / (d - size)
    source = "theory: |g|^2 + tr(Sigma) (d - B) / (B (d - 1)); its own standard error"
    return [
        ss.Claim("mean_square_batch_norm", arm, mean_square, expected, near, source, always=True),
        ss.Claim("noise_scale", arm, trace / square),
        ss.Claim("two_batch_estimator_bias", arm, estimate - square),
        ss.Claim("full_gradient_norm", arm, np.sqrt(square)),
        ss.Claim("least_batch_norm", arm, norms.min()),
    ]


def off_full(run):
    norm = np.linalg.norm(at(run)[1].mean(0))
    return np.abs(run.epochs["full_grad_norm"] - norm).max() / max(norm, 1)


def off_mean(run):
    off = np.abs(run.epochs["norm_mean_grad"] - run.epochs["full_grad_norm"])
    return (off / run.epochs["mean_grad_norm"]).max()


def off_triangle(run):
    return max(0.0, (run.epochs["full_grad_norm"] / run.epochs["mean_grad_norm"] - 1).max())


def off_way(run):
    first = run.load("epochs", epochs=slice(1, 2))
    way = np.linalg.norm(first[["w0", "w1", "w2"]].astype(float), axis=1)  # from 0
    steps = run.config.lr * len(run.config.batch_sizes(run.problem.d))
    off = np.abs(first["norm_mean_grad"] - way / steps) / first["mean_grad_norm"]
    return off.to_numpy().max(initial=0.0)  # no seed may end an epoch


def identities(runs):
    """Return what holds by definition, each the worst of all its arms."""
    way = "mean g_B = (w_start - w_end) / (lr m)"
    rows = [
        ("full_norm_off", False, off_full, 1e-9, "theory: the samples' gradients; float64"),
        ("mean_gradient_off", False, off_mean, ROUNDING, "the mean of the g_B is g"),
        ("full_norm_above_mean", False, off_triangle, ROUNDING, "triangle: |g| <= mean |g_B|"),
        ("way_off", True, off_way, ROUNDING, way),
    ]
    return [
        ss.Claim(
            name,
            "all moving" if moving else "all fixed",
            max(map(off, some(runs, moving).values())),
            0,
            near,
            source,
            identity=True,
        )
        for name, moving, off, near, source in rows
    ]


def claims(o, runs):
    found = []
    for arm, run in runs.items():
        rows = run.epochs
        ratio = (rows["mean_grad_norm"] / rows["full_grad_norm"]).groupby(rows["epoch"]).median()
        if "moving" in arm:
            ends = [ratio.iloc[0], ratio.iloc[-1]] if len(ratio) else None  # all seeds diverged
            found.append(ss.Claim("batch_norm_over_full_norm", arm, ends))
        else:
            found.append(ss.Claim("batch_norm_over_full_norm", arm, ratio.iloc[0]))
            found += noise(arm, run)
    return found + identities(runs)


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    ratio = {c.arm: c.measured for c in claims if c.name == "batch_norm_over_full_norm"}
    scale = {arm: f"{value['noise_scale', arm]:.3g}" for arm in some(runs, False)}
    noisy = "optimum, noise 1"
    return f"""At fixed parameters the batch gradients average to the full gradient, so by the
    triangle inequality the full norm is at most the mean of the batch norms. At the start the
    batches point nearly the same way: the mean is {ratio["at the start"]:.3f} times the full norm.
    On the way it is {ratio["on the way"]:.2f} times, near the optimum
    {ratio["near the optimum"]:.1f} times, and at the optimum of noisy labels {ratio[noisy]:.0e}
    times: there the full gradient vanishes and the batch gradients do not (the smallest of
    {runs[noisy].n_steps.sum()} has a norm of {value["least_batch_norm", noisy]:.2g}). So on noisy
    data a rule that waits for the batch gradients to vanish waits in vain, and near an optimum the
    norm of one batch's gradient says little about the full one; their mean over an epoch is what
    moves the parameters.

    The gradient noise scale, the batch size at which noise and signal of its gradient are equally
    strong, goes from {scale["at the start"]} at the start over {scale["on the way"]} to
    {scale["near the optimum"]} near the optimum: it is a property of a place, not of a problem.
    Estimated from batches of {o.batch_size} and of all the data, drawn without replacement, the
    squared full norm is off by {value["two_batch_estimator_bias", "near the optimum"]:.3g} near the
    optimum, where it is {value["full_gradient_norm", "near the optimum"] ** 2:.3g}."""


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
