"""Exercise 4: how does the mini-batch descent of the notebook run, over 64 orders of the samples?

Hypothesis: with the step size 2e-4 it stops at the printed 48 epochs whatever the order; the
printed eta=0.2 is beyond the stability limit and diverges at once, so it must have lost digits.

Source: Exercise 4. Command: python experiments/ex4_minibatch.py
"""

from dataclasses import dataclass

import numpy as np

import sgdstudy as ss

PRINTED = "printed in the notebook"
ORDERS = "theory: share of seeds whose own order overflows at that very batch"
MOMENTS = "theory: expected losses of independent batches; reshuffling moves them by under 1 %"


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 64
    lr: float = 2e-4
    """step size of the first arm"""
    batch_size: int = 10
    """samples per batch"""
    epsilon: float = 0.1
    """stop once the running loss of an epoch is below"""
    epochs: int = 50
    """the most epochs"""


def arms(o):
    curve = ss.problems.curve()
    same = {"optimizer": "notebook", "batch_size": o.batch_size, "epochs": o.epochs}
    same |= {"stop": ("running", o.epsilon), "seeds": o.seed_range()}
    return {
        "descent": ss.Arm(curve, "the step that gives the printed output", lr=o.lr, **same),
        "eta 0.2": ss.Arm(curve, "the call as the notebook prints it", lr=0.2, **same),
    }


def ratio_late(run):
    """Return running over full loss in the last epoch that all seeds complete, and in theory."""
    epoch = int(run.stop_epoch.min())
    rows = run.load("epochs", epochs=slice(epoch, epoch + 1))
    ls, start = run.problem.least_squares, run.problem.initial([0])[0].numpy()
    settings = (run.problem.d, run.config.batch_size, run.config.lr, epoch)
    running, full = ss.theory.expected_losses(ls, start, *settings)
    return rows["running_loss"].mean() / rows["full_loss"].mean(), running[-1] / full[-1]


def claims(o, runs):
    run, printed = runs["descent"], runs["eta 0.2"]
    near = np.mean(np.abs(run.converged_epoch - 48) <= 1)
    # the printed distance is one draw: the spread over the seeds is its uncertainty
    spread = 4 * run.distance.std() + 5e-5
    diverged = np.mean(printed.stop_reason == "diverged")
    first = [printed.n_steps.min(), printed.n_steps.max()]
    predicted = ss.theory.first_overflow(printed.problem, printed.config)
    as_predicted = np.mean(predicted == printed.n_steps)
    late, expected = ratio_late(run)
    return [
        ss.Claim("stop_epoch_printed", "descent", run.median_stop, 48, 1, PRINTED),
        ss.Claim("seeds_near_48", "descent", near, 1, 0.05, PRINTED + "; nearly all, within 1"),
        ss.Claim("distance", "descent", np.median(run.distance), 0.4525, spread, PRINTED),
        ss.Claim("diverges", "eta 0.2", diverged, 1, 0, "0.2 is beyond any batch's limit"),
        ss.Claim("printed_eta_diverges_at_batch", "eta 0.2", as_predicted, 1, 0, ORDERS),
        ss.Claim("first_non_finite_loss", "eta 0.2", first),
        ss.Claim("running_loss_ratio_late", "descent", late, expected, 0.01, MOMENTS),
        *ss.predicted_claims({"descent": run}),
    ]


def answer(o, runs, claims):
    run, printed = runs["descent"], runs["eta 0.2"]
    return f"""With lr {o.lr:g} the running loss falls below {o.epsilon:g} at epoch
    {run.median_stop:.0f} (median of {len(run.w)} orders; the notebook prints 48). With the printed
    eta=0.2, {np.sum(printed.stop_reason == "diverged")} of {len(printed.w)} orders diverge:
    the loss is not finite after {printed.n_steps.min()} to {printed.n_steps.max()} batches. The
    notebook's output was made with 0.0002."""


def only(runs, arm="descent"):
    return {arm: runs[arm]}


figures = {
    "loss.png": lambda runs: ss.figures.loss_by_epoch(only(runs)),
    "stop_epochs.png": lambda runs: ss.figures.stop_epochs(only(runs), printed=48),
    "path.png": lambda runs: ss.figures.path(only(runs), 0, 2, epochs=50),
    "eta_0.2.png": lambda runs: ss.figures.within_epoch(only(runs, "eta 0.2")),
}
ask = {
    ("stop_epoch", "descent"): "Exercise 1 needed 9340 epochs. How many, with batches of 10?",
    ("running_loss_ratio_late", "descent"): "In its last epoch, what is running / full loss?",
}
STUDY = ss.Study(__file__, __doc__, Options, arms, claims, answer, figures, ask=ask)

if __name__ == "__main__":
    STUDY.main()
