"""The answer of Exercise 2."""

import sgdstudy as ss
from answers import epochs

PRINTED = 9340
NEAR = 1e-3  # where "abs, near" starts, from the true parameters


def short(o, runs, value):
    run, differ = runs["MSELoss"], value["numbers_that_differ"]
    if differ == 0:
        yield ss.say(
            """Yes: written by hand or with MSELoss, the descent is the same to the last bit,
            in {n} step.""",
            """Yes: written by hand or with MSELoss, the descent is the same to the
            last bit, in each of {n} steps.""",
            n=int(run.n_steps[0]),
        )
    else:
        yield ss.say(
            "No: {n} of the recorded numbers differs.",
            "No: {n} of the recorded numbers differ.",
            n=differ,
        )
    text = runs["abs"]
    if text.stop_reason[0] == "converged":
        yield ss.say(
            """The formula of the text has no square, and is another loss: with it the descent
            stops at epoch {epoch}, {distance} away from the true parameters.""",
            epoch=text.stop_epoch[0],
            distance=text.distance[0],
        )
    elif text.stop_reason[0] == "diverged":
        yield ss.say("""The formula of the text has no square, and is another loss: with it the
            descent diverges here.""")
    else:
        yield ss.say(
            """The formula of the text has no square, and is another loss: with it the descent
            is still {distance} away from the true parameters after {epochs}.""",
            distance=text.distance[0],
            epochs=epochs(text.stop_epoch[0]),
        )


def answer(o, runs, value):
    run = runs["MSELoss"]
    yield ss.say("""MSELoss takes the mean of the squared differences between the predictions and
        the targets, L = (1/n) Σᵢ (yᵢ − f(xᵢ))², which is what `torch.mean(torch.pow(y - f(w, x),
        2))` computes.""")
    if value["losses_that_differ"] == 0:
        yield ss.say("""`torch.nn.MSELoss()`, called beside the run, gives the very losses that were
            recorded.""")
    if run.stop_reason[0] == "diverged":
        yield ss.say("With a step of {lr} both descents diverge.", lr=o.lr)
    elif run.stop_reason[0] == "converged":
        yield ss.say("Both stop at epoch {n}.", n=run.stop_epoch[0])
        if abs(run.stop_epoch[0] - PRINTED) <= 1:
            yield ss.say("That is the epoch the notebook prints in Exercise 1.")
    else:
        yield ss.say(
            "Neither is below {epsilon} within {epochs}.",
            epsilon=o.epsilon,
            epochs=epochs(o.epochs),
        )
    yield None
    yield ss.say("""Without the square, the loss of a point is Qᵢ = |yᵢ − f(xᵢ)|. Its gradient is
        ±(xᵢ², xᵢ, 1): it pulls as hard on a point that is nearly right as on one that is far
        off.""")
    if value["gradient_below_the_least"] == 0:
        yield ss.say(
            """So the gradient does not vanish on the way to the solution: its norm was never
            below {least:.3}. That is the least that a mean of ±(xᵢ², xᵢ, 1) can have whose signs
            change at most twice along the curve, as the difference of two parabolas does. Each
            step is at least {length:.2} long: with a constant step such a descent does not
            settle.""",
            least=ss.text.at_most(value["least_gradient"], 3),
            length=ss.text.at_most(o.lr * value["least_gradient"]),
        )
    yield None
    (low, high), first = value["distance", "abs, near"], value["distance_after_first_step"]
    if first > NEAR:
        yield ss.say(
            """Started {near} away from the solution, this descent leaves it: after one step it
            is {first:.2} away.""",
            near=NEAR,
            first=first,
        )
    else:
        yield ss.say(
            """Started {near} away from the solution, this descent is {first:.2} away after one
            step.""",
            near=NEAR,
            first=first,
        )
    n = int(min(100, runs["abs, near"].stop_epoch[0]))
    if n > 1 and high > 1.1 * low:
        yield ss.say(
            "In its last {n} epochs it stays between {low:.2} and {high:.2} away.",
            n=n,
            low=low,
            high=high,
        )
    else:
        yield ss.say("At the end of its last epoch it is {high:.2} away.", high=high)
