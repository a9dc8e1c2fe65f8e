"""Exercise 1: where does gradient descent stop, and how does the step size decide it?

Hypothesis: full-batch descent with the notebook's values stops at the printed epoch 9340. A larger
step stops earlier until 2 / (largest eigenvalue of the Hessian), beyond which it diverges. The sum
form of the loss is the mean form with a step d times smaller.

Source: Exercise 1. Command: python experiments/ex1_gradient_descent.py
"""

import sgdstudy as ss
from answers.ex1_gradient_descent import answer, short

D = 2000  # points of the curve
STEPS = ("1e-4", "2e-4", "3e-4", "4e-4", "4.9e-4", "5.1e-4")
CHARTED = ("1e-4", "2e-4", "4e-4", "4.9e-4")  # and the best
BEST = {"lr best, 0.1 % less": 0.999, "lr best": 1.0, "lr best, 0.05 % more": 1.0005}
BESIDE = "theory; measured: the earliest stop, beside 0.1 % less and 0.05 % more"
HALF = "theory: less than half a unit in the last place"
FLOOR = 2.5e-4  # 1 / lambda_max: the steep modes are gone at once, only the flat one is left
PRINTED = "printed in the notebook"


class Options(ss.Options):
    epsilon: float = 0.1
    """stop once the running loss of an epoch is below"""
    epochs: int = 20_000
    """the most epochs"""


def sum_of_squares(prediction, y):
    return D * (prediction - y) ** 2  # its mean over the full batch is the sum of squares


def arms(o):
    full = ss.Arm("curve", "full batch", optimizer="notebook", epochs=o.epochs, charted=False)
    full = full.but(lr=2e-4, stop=("running", o.epsilon))
    for lr in STEPS:
        yield f"lr {lr}", full.but(lr=float(lr), charted=lr in CHARTED)
    best = ss.expect(full).lr_best_for_epsilon
    for arm, share in BEST.items():
        near = full.but("the step that theory finds best, or near it", lr=ss.rounded(share * best))
        yield arm, near.but(charted=share == 1, reveals=True)
    long = full.but("the best rate in the long run", epochs=min(o.epochs, 2000), stop=None)
    fastest = ss.rounded(ss.expect(full).lr_best_asymptotic)
    yield "lr fastest", long.but(lr=fastest, dtype="float64", reveals=True)
    yield "lr 2e-4, float64", full.but("less rounding", dtype="float64")
    still = full.but("until nothing moves", lr=FLOOR, epochs=2 * o.epochs, stop=None)
    yield "float32 floor", still.but(reveals=True)
    form = full.problem.replace(loss=sum_of_squares)
    sums = full.but("sum form, same step", problem=form, stop=("running", o.epsilon * D))
    yield "sum, lr 2e-4/d", sums.but("sum form, step divided by d", lr=ss.rounded(2e-4 / D))
    yield "sum, lr 2e-4", sums


def claims(o, runs):
    run, fast, floor = (runs[arm] for arm in ("lr 2e-4", "lr fastest", "float32 floor"))
    yield ss.Claim("w_printed", "lr 2e-4", run.w[0], [0.3079, -1.7, 2.0258], 5e-5, PRINTED)
    yield ss.Claim("distance_printed", "lr 2e-4", run.distance[0], 0.4743, 5e-5, PRINTED)
    yield ss.Claim("stop_epoch_printed", "lr 2e-4", run.median_stop, 9340, 1, PRINTED)
    stop, mean = runs["sum, lr 2e-4/d"].median_stop, ss.expect(run).stop_epoch  # of the mean form
    yield ss.Claim("sum_form_stop_epoch", "sum, lr 2e-4/d", stop, mean, abs=1)
    alike = ss.Arm("curve", lr=2e-4 * D, epochs=o.epochs, stop=("running", o.epsilon))
    seen, due = runs["sum, lr 2e-4"].lr_limit(), ss.expect(alike).lr_limit / D
    grows = seen > 0 and ss.expect(alike).growth_per_epoch  # and for long enough
    yield ss.Claim("sum_form_lr_limit", "sum, lr 2e-4", seen, due if grows else None)
    yield ss.Claim("lr_limit", "lr 5.1e-4", runs["lr 5.1e-4"].lr_limit())
    stops = {runs[arm].config.lr: runs[arm].median_stop for arm in BEST}
    earliest, best = min(stops, key=stops.get), runs["lr best"].config.lr
    yield ss.Claim("lr_best_for_epsilon", "lr best", earliest, best, rel=2e-4, source=BESIDE)
    seen, due = fast.contraction(1000), ss.expect(fast).contraction(1000)
    yield ss.Claim("lr_best_asymptotic", "lr fastest", seen, due)
    end, due = floor.excess_at_end, ss.expect(floor).float32_floor
    yield ss.Claim("float32_floor", "float32 floor", end, due.value, due.within, due.source)
    moved = floor.steps["update_norm"].iloc[-1]
    yield ss.Claim("last_update", "float32 floor", moved, 0, source=HALF)
    yield from ss.predicted_claims(runs.select("*", without=("lr 2e-4", "sum, lr 2e-4/d")))


def picture(o, runs, value):
    best = ss.say("{lr}, the best", lr=f"{1e4 * runs['lr best'].config.lr:.3f}e-4")
    names = {"1e-4": "lr 1e-4", "2e-4": "lr 2e-4", "4e-4": "lr 4e-4", best: "lr best"}
    shown = runs.named(names | {ss.say("5.1e-4, too large"): "lr 5.1e-4"})
    panel = ss.figures.lines.by_epoch(shown, "full_loss", epsilon=o.epsilon, limits=(0.03, 1e4))
    title = ss.say(
        "Descent with lr 2e-4 is below {epsilon} {stop}, with the best step {best}",
        epsilon=o.epsilon,
        stop=runs["lr 2e-4"].when(),
        best=runs["lr best"].when(),
    )
    note = ss.say("Beyond 2 / (largest eigenvalue) the loss grows.")
    return ss.figures.Chart(title, [panel], note)


def figures(runs):
    yield "forms.png", ss.figures.loss_by_epoch(runs.select("lr 2e-4*", "sum*"), top=1e8)
    yield "path.png", ss.figures.path(runs.select("lr 2e-4", "lr 4.9e-4"), 0, 2, 10_000)


charts = {"loss of all the data": "epoch/full_loss"}
ask = {
    ("stop_epoch_printed", "lr 2e-4"): "At which epoch does descent with lr 2e-4 stop?",
    ("stop_epoch", "lr 4e-4"): "And with lr 4e-4?",
    ("stop_epoch", "sum, lr 2e-4"): "And for the sum of squares, not the mean, with lr 2e-4?",
}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
