"""Exercise 6: what happens with shuffle=False, and why?

Hypothesis: at both ends of the curve a batch of neighbours is far steeper than the mean, and
consecutive ones push the same way, so in sorted order the loss explodes within an epoch; noiseless
labels let it contract from one epoch to the next all the same. Randomness is not what helps: a
fixed order whose batches are spread over the curve (strided) does as well as shuffling.

Source: Exercise 6, which study_usable_steps and study_neighbours take further.
Command: python experiments/ex6_shuffle.py --seeds 64
"""

import sgdstudy as ss
from answers.ex6_shuffle import answer, headline, short


class Options(ss.Options):
    lr: float = 2e-4
    """step size of SGD"""
    epsilon: float = 0.1
    """stop once the loss of all the data is below"""
    epochs: int = 120
    """the most epochs"""


def arms(o):
    sgd = ss.Arm("curve", lr=o.lr, batch_size=10, epochs=o.epochs, stop=("full", o.epsilon))
    for order in ("shuffle", "shuffle_once", "block_shuffle", "sequential", "reversed", "strided"):
        seeds = o.seed_range() if "shuffle" in order else [0]
        own_line = order != "shuffle_once"  # that of shuffle covers it
        yield f"SGD {order}", sgd.but(order=order, seeds=seeds, charted=own_line)
    exact = sgd.but("sequential in float64", order="sequential", dtype="float64", charted=False)
    yield "exact", exact.but(diagnostics="full", color=ss.figures.palette.ORDERS["sequential"])
    most = exact.but("the batches that multiply an error most")
    yield "worst stretch", most.but(**ss.expect(exact).alone())
    yield "worst stretch, across", most.but(**ss.expect(exact).alone(across=True))


def claims(o, runs):
    exact, law, last = runs["exact"], ss.expect(runs["exact"]), int(runs["exact"].stop_epoch[0])
    first, late = sum(law.beyond_limit < 100), sum(law.beyond_limit >= 100)
    yield ss.Claim("batches_beyond_limit", "all", [first, late])
    yield ss.Claim("steepest_over_mean", "all", law.steepest.max() * law.lr_limit.value / 2)
    yield ss.Claim("least_cosine", "all", law.least_cosine)
    share = exact.share_along_steepest(epoch=1)
    share = [share[0], share[first - 1], share[200 - late :].max(initial=0)]
    yield ss.Claim("share_along_steepest", "exact", share)
    for loss in ("running_loss", "full_loss"):
        for k in (1, 50)[: 1 + (last >= 50)]:
            yield ss.Claim(f"{loss}_epoch_{k}", "exact", exact.at(loss, k), law.loss(loss, k))
    yield ss.Claim("rho_sequential", "exact", exact.contraction_along(), law.rho_along(last))
    yield ss.Claim("peak_batch_loss", "exact", exact.peak(epoch=1))
    within, across = (runs[arm].last_error for arm in ("worst stretch", "worst stretch, across"))
    yield ss.Claim("growth_within_epoch", "worst stretch", within, law.growth())
    yield ss.Claim("growth_across_boundary", "worst stretch, across", across, law.growth(True))
    without_rounding = ss.expect(runs["SGD reversed"]).stop_without_rounding
    yield ss.Claim("stop_without_rounding", "SGD reversed", without_rounding)
    yield from ss.predicted_claims(runs)


def picture(o, runs, value):
    arms = {"strided": "SGD strided", "shuffle=True": "SGD shuffle", "shuffle=False": "exact"}
    shown = runs.named(arms)
    first = ss.figures.lines.within_epoch(shown, title=ss.say("inside the first epoch"))
    ends = ss.say("at the end of each epoch")
    ends = ss.figures.lines.by_epoch(shown, "full_loss", title=ends)
    title = headline(runs, value)
    note = ss.say(
        "Of one seed. The line of shuffle=True may cover strided.",
        "Medians; band: 10 to 90 % of the orders. The line of shuffle=True may cover strided.",
        n=o.seeds,
    )
    return ss.figures.Chart(title, [first, ends], note)


def figures(runs):
    yield "first_epoch.png", ss.figures.within_epoch(runs.select("SGD *"))
    yield "steep_batches.png", ss.figures.steep_batches(runs["exact"])
    yield "cockpit.png", ss.figures.cockpit(runs["exact"])
    three = {order: runs[f"SGD {order}"] for order in ("sequential", "strided", "shuffle")}
    yield "path.png", ss.figures.path(three, 0, 2, epochs=1)


ask = {
    ("stop_epoch", "SGD shuffle"): "At which epoch does the full loss stop it, shuffled?",
    ("stop_epoch", "SGD sequential"): "And with shuffle=False?",
    ("stop_epoch", "SGD strided"): "And in a fixed order whose batches are spread over the curve?",
    ("running_loss_epoch_1", "exact"): "With shuffle=False, the running loss of epoch 1?",
}
charts = {
    "full loss (shuffle may cover strided)": "epoch/full_loss",
    "running loss (shuffle may cover strided)": "epoch/running_loss",
}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
