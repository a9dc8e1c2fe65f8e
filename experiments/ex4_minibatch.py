"""Exercise 4: how does the mini-batch descent of the notebook run, over many orders of the samples?

Hypothesis: with the step size 2e-4 it stops at the printed 48 epochs whatever the order; the
printed eta=0.2 is beyond the stability limit and diverges at once, so it has probably lost digits.

Source: Exercise 4. Command: python experiments/ex4_minibatch.py
"""

from dataclasses import replace

import numpy as np

import sgdstudy as ss
from answers.ex4_minibatch import answer, short

PRINTED = "printed in the notebook"
EACH = "printed in the notebook; of all seeds"
ORDERS = "theory: the seeds' own orders, in float64"
FOLLOWED = 8  # seeds whose own orders are followed, step by step


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
    same = {"batch_size": o.batch_size, "epochs": o.epochs, "stop": ("running", o.epsilon)}
    about = ss.to_say("the step that gives the printed output")
    run = ss.Arm("curve", about, optimizer="notebook", lr=o.lr, seeds=o.seed_range(), **same)
    yield "descent", run
    yield "eta 0.2", run.but("the call as the notebook prints it", lr=0.2, charted=False)


def claims(o, runs):
    run, printed = runs["descent"], runs["eta 0.2"]
    stops = [run.converged_epoch.min(), run.converged_epoch.max()]
    yield ss.Claim("stop_epoch_printed", "descent", stops, [48, 48], 1, EACH)
    # the printed distance is one draw: the spread over the seeds is its uncertainty
    drawn = 0.4525 if len(run.w) > 1 else None
    within = ss.theory.draw_within(run.distance) + 5e-5
    yield ss.Claim("distance_printed", "descent", run.distance.mean(), drawn, within, PRINTED)
    # how many do elsewhere than foretold: from batch to batch the loss grows a hundred thousand
    # times, so that rounding decides nothing
    lost = printed.stop_reason == "diverged"
    seen, due = np.where(lost, printed.n_steps, np.inf), ss.expect(printed).first_overflow
    off = int(np.sum(seen != due))
    yield ss.Claim("printed_eta_diverges_at_batch", "eta 0.2", off, ss.Known(0, source=ORDERS))
    yield ss.Claim("diverged", "eta 0.2", int(lost.sum()))
    yield ss.Claim("first_non_finite_loss", "eta 0.2", [seen.min(), seen.max()])
    seeds, epoch = run.config.seeds[:FOLLOWED], int(run.stop_epoch.min())  # all complete it
    rows = run.load("epochs", seeds=seeds, epochs=slice(epoch, epoch + 1))
    late, known = rows["running_loss"] / rows["full_loss"], ss.expect(run).of(seeds)
    due = known.running_over_full(epoch)
    yield ss.Claim("running_loss_ratio_late", "descent", late.mean(), due)
    yield from ss.predicted_claims(runs.select("descent"))


def picture(o, runs, value):
    run, steps = runs["descent"], np.unique(np.geomspace(1, 20_000, 400).astype(int))
    whole = ss.Arm("curve", lr=o.lr, epochs=int(steps[-1]), stop=("running", o.epsilon))
    loss = ss.theory.descent_loss(run.problem.least_squares, np.zeros(3), o.lr, steps - 1)
    label = ss.say("batches of {n}", n=o.batch_size)
    panel = ss.figures.lines.by_epoch({label: run}, "running_loss", epsilon=o.epsilon)
    beside = ss.figures.Line(ss.say("all the data at once, theory"), steps, loss)
    due = ss.expect(whole).stop_epoch
    title = ss.say(
        "Batches of {n} are below {epsilon} {stop}, all the data at once {whole}",
        n=o.batch_size,
        epsilon=o.epsilon,
        stop=run.when(),
        whole=run.when(np.inf if due is None else due.value),
    )
    panel = replace(panel, lines=[beside, *panel.lines])
    note = ss.say("Each epoch reads all the data once, either way.")
    return ss.figures.Chart(title, [panel], note)


def figures(runs):
    descent = runs.select("descent")
    yield "stop_epochs.png", ss.figures.stop_epochs(descent, printed=48)
    yield "path.png", ss.figures.path(descent, 0, 2, epochs=50)
    yield "eta_0.2.png", ss.figures.within_epoch(runs.select("eta 0.2"))


charts = {"running loss, median of the orders": "epoch/running_loss"}
ask = {
    ("stop_epoch", "descent"): "Exercise 1 needed 9340 epochs. How many, with mini-batches?",
    ("running_loss_ratio_late", "descent"): "When the first order stops, running / full loss?",
}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
