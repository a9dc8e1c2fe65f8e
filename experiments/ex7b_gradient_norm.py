"""Exercise 7b: how does the norm of the full gradient compare with those of the batch gradients?

Hypothesis: at fixed parameters the weighted mean of the batch gradients is the full gradient, so
its norm is at most the mean of the batch norms; the gap is small at the start, where all batches
agree, and large near the optimum, where they cancel. For plain SGD the mean of the gradients along
an epoch is the way made divided by lr m.

Source: Exercise 7, second part. Command: python experiments/ex7b_gradient_norm.py
"""

import numpy as np

import sgdstudy as ss
from answers.ex7b_gradient_norm import NORMS, RATIO, answer, headline, short

SHOWN = {ss.to_say("mean of the batch norms"): NORMS[0]}
SHOWN |= {ss.to_say("norm of the full gradient"): NORMS[1]}
SHOWN |= {ss.to_say("norm of the mean gradient"): "norm_mean_grad"}


class Options(ss.Options):
    lr: float = 2e-4
    """step size of the arms that move"""
    batch_size: int = 10
    """samples per batch"""
    epochs: int = 50
    """epochs of the arms that move"""


def arms(o):
    curve, noisy = ss.problems.curve(), ss.problems.curve(noise=1.0)
    if o.batch_size >= curve.d:
        raise ss.InputError(f"batch_size is below {curve.d}, all the data; got {o.batch_size}")
    on_the_way = ss.train(curve, optimizer="notebook", lr=2e-4, epochs=10).w[0]
    same = {"batch_size": o.batch_size, "lr": o.lr, "seeds": o.seed_range()}
    still = ss.Arm(curve, "fixed", optimizer="none", epochs=1, charted=False, **same)
    yield "at the start", still
    yield "on the way", still.but(problem=curve.replace(w_init=on_the_way))
    printed = curve.replace(w_init=[0.3079, -1.7, 2.0258])  # by Exercise 1
    yield "near the optimum", still.but(problem=printed)
    best = noisy.replace(w_init=noisy.least_squares.w_star)
    yield "optimum, noise 1", still.but(problem=best)
    move = still.but("along the training", optimizer="notebook", epochs=o.epochs, charted=True)
    yield "moving", move
    yield "moving, noise 1", move.but("along the training, noisy labels", problem=noisy)


def claims(o, runs):
    fixed, moving = runs.select("*", without="moving*"), runs.select("moving*")
    d = runs["moving"].problem.d
    for arm, run in fixed.items():
        known, seen = ss.expect(run), run.mean_square_batch_norm()
        square = np.sum(known.gradients.mean(0) ** 2)
        yield ss.Claim(RATIO, arm, run.ratio(*NORMS)[0])
        yield ss.Claim("mean_square_batch_norm", arm, seen, known.mean_square_batch_norm)
        yield ss.Claim("noise_scale", arm, ss.theory.noise_scale(known.ls, known.start, d))
        bias = ss.theory.two_batch_estimate(seen, o.batch_size, square, d) - square
        yield ss.Claim("two_batch_estimator_bias", arm, bias)
        yield ss.Claim("full_gradient_norm", arm, np.sqrt(square))
        yield ss.Claim("least_batch_norm", arm, run.steps["grad_norm"].min())
    for arm, run in moving.items():
        ratio = run.ratio(*NORMS)
        yield ss.Claim(RATIO, arm, ratio[[0, -1]] if len(ratio) else None)  # all diverged
    yield ss.Claim.off("full_norm_off", "all fixed", fixed.off("full_grad"))
    yield ss.Claim.off("mean_gradient_off", "all fixed", fixed.off("mean_grad"))
    yield ss.Claim.off("full_norm_above_mean", "all fixed", fixed.off("grad_triangle"))
    if d % o.batch_size == 0:  # of two sizes the mean that is recorded is weighted
        yield ss.Claim.off("way_off", "all moving", moving.off("way"))


def picture(o, runs, value):
    arms = {ss.say("no noise"): "moving", ss.say("labels with noise 1"): "moving, noise 1"}
    lines = {ss.say(name): column for name, column in SHOWN.items()}
    y = ss.say("norm of a gradient")
    panels = ss.figures.lines.of_each(runs.named(arms), lines, y=y)
    note = ss.say(
        """Batches that point apart have a short mean. While w moves, no inequality holds by
        itself.""",
        """Batches that point apart have a short mean. Band: 10 to 90 % of the seeds.
        While w moves, no inequality holds by itself.""",
        n=o.seeds,
    )
    return ss.figures.Chart(headline(runs), panels, note)


def figures(runs):
    yield "fixed.png", ss.figures.batch_gradients(runs.select("*", without="moving*"))
    yield "moving.png", ss.figures.gradient_norms(runs.select("moving*"))


charts = {title: f"epoch/{norm}" for title, norm in SHOWN.items()}
ask = {
    (RATIO, "at the start"): "At w = 0: mean norm of the batch gradients over that of the "
    "full one?",
    (RATIO, "near the optimum"): "And near the optimum?",
}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
