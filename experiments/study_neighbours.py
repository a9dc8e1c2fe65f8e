"""What do batches of neighbours cost where the order is random, labels are noisy, or RMSprop steps?

Hypothesis: with noiseless labels neighbours in random order stop later than mixed batches. Label
noise tells more: the excess loss that an order leaves is a matter of what lies in its batches, and
the sorted order, which multiplies the noise within the epoch, ends far away. RMSprop, whose steps
do not grow with the gradient, does not explode, but never stops.

Theory, before it runs: the law of the excess over 250 orders drawn apart where the order is drawn
anew every epoch, the steps of the order itself where it stays.

Source: Exercise 6, continued. Command: python experiments/study_neighbours.py --seeds 64
"""

import numpy as np

import sgdstudy as ss
from answers.study_neighbours import KEPT, answer, short

REDRAWN = ("shuffle", "block_shuffle")


class Options(ss.Options):
    lr: float = 2e-4
    """step size of SGD"""
    epsilon: float = 0.1
    """stop once the running loss is below, without noise"""
    epochs: int = 120
    """the most epochs"""


def arms(o):
    sgd = ss.Arm("curve", optimizer="SGD", lr=o.lr, batch_size=10, epochs=o.epochs)
    noisy = sgd.but("label noise 1", problem=ss.problems.curve(noise=1.0))
    rms = sgd.but(optimizer="RMSprop", lr=0.01, epochs=50, stop=("last_batch", 1e-7))  # Exercise 5
    for order in (*REDRAWN, *KEPT):
        how = {"order": order, "seeds": o.seed_range() if "shuffle" in order else [0]}
        yield f"SGD {order}, noise 1", noisy.but(**how)
        if order in REDRAWN:  # in the picture beside those with noise, in their colours
            color = ss.figures.palette.ORDERS[order]
            clean = sgd.but(stop=("running", o.epsilon), charted=False, color=color)
            yield f"{order}, running rule", clean.but(**how)
        if order in ("shuffle", "sequential"):
            yield f"RMSprop {order}", rms.but(charted=False, **how)


def claims(o, runs):
    for order in (*REDRAWN, *KEPT):
        arm = f"SGD {order}, noise 1"
        run, known = runs[arm], ss.expect(runs[arm])
        if order in REDRAWN:
            yield ss.Claim("log10_late_excess", arm, run.late_excess.mean(), known.late_excess)
        else:
            yield ss.Claim("excess_at_end", arm, run.excess_at_end, known.excess_at_end)
    for arm, run in runs.select("RMSprop *").items():
        yield ss.Claim("largest_running_loss", arm, run.epochs["running_loss"].max())
    yield from ss.predicted_claims(runs)


def picture(o, runs, value):
    clean = {order: runs[f"{order}, running rule"] for order in REDRAWN}
    noisy = {order: runs[f"SGD {order}, noise 1"] for order in (*REDRAWN, *KEPT)}
    given = {"epsilon": o.epsilon, "log": "xy"}
    left = ss.figures.lines.by_epoch(clean, "running_loss", title=ss.say("no noise"), **given)
    given |= {"known": (), "median": True, "title": ss.say("label noise 1")}
    right = ss.figures.lines.excess(noisy, **given)
    mixed, blocks = clean.values()
    ends = value["excess_at_end", "SGD sequential, noise 1"]
    title = ss.say(
        "Neighbours in random order stop {blocks}, mixed batches {mixed}",
        blocks=blocks.when(),
        mixed=mixed.when(),
    )
    if np.isfinite(ends):
        title = ss.say(
            "{title}; sorted, with noise, the loss ends {excess:.1} above the least",
            title=title,
            excess=ends,
        )
    note = ss.say("Of one seed.", "Medians; band: 10 to 90 % of the orders.", n=o.seeds)
    return ss.figures.Chart(title, [left, right], note)


ask = {
    ("stop_epoch", "block_shuffle, running rule"): "Mixed batches stop at epoch 48. And batches of "
    "neighbours, in random order?"
}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
