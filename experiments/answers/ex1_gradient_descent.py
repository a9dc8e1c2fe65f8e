"""The answer of Exercise 1."""

import itertools
import math

import sgdstudy as ss
from answers import epochs

STEPS = ("1e-4", "2e-4", "3e-4", "4e-4", "4.9e-4")  # below the limit
BEST = ("lr best, 0.1 % less", "lr best", "lr best, 0.05 % more")
PRINTED = 9340


def short(o, runs, value):
    run, stop = runs["lr 2e-4"], runs["lr 2e-4"].median_stop
    if abs(stop - PRINTED) <= 1:
        yield ss.say(
            """With the notebook's step of 0.0002 the descent stops at epoch {stop}, as
            printed.""",
            stop=stop,
        )
    elif math.isfinite(stop):
        yield ss.say("With the notebook's step of 0.0002 the descent stops at epoch {n}.", n=stop)
    else:
        yield ss.say(
            """With the notebook's step of 0.0002 the loss is not below {epsilon} within
            {epochs}.""",
            epsilon=o.epsilon,
            epochs=epochs(o.epochs),
        )
    if mostly_constant(run):
        yield ss.say(
            """The parameters are then still {distance} away from the true ones, nearly all
            of it in the constant term: along it the loss is flat, and the descent
            creeps.""",
            distance=run.distance[0],
        )
    best = fastest(runs)
    if best and value["lr_limit"] > 0:
        yield ss.say(
            """A larger step is faster, up to one of {best:.5}; beyond a limit of {limit:.4}, at
            0.00051, the loss grows.""",
            best=best,
            limit=ss.expect(run).lr_limit,
        )
    elif value["lr_limit"] > 0:
        yield ss.say("A step of 0.00051 is too large: the loss grows.")


def answer(o, runs, value):
    yield ss.say(
        """Each step uses all {d} points at once: w ← w − η ∇L(w). L is the mean of the
        squared differences between f and y, ∇L its gradient (the direction in which L grows
        fastest), η the step size; a step goes a little way downhill.""",
        d=runs["lr 2e-4"].problem.d,
    )
    yield None
    yield from steps(o, runs, value)
    yield None
    yield from best(o, runs)
    yield None
    yield from sums(o, runs, value)
    yield None
    yield from standstill(o, runs, value)
    yield None
    yield ss.say("""Where the text and the code differ. The text writes Qᵢ as a norm, the code
        squares it (Exercise 2 runs both). The text takes one sample at a time, this code all of
        them (study_one_sample). The default values of the text are not those of the code. And what
        Exercise 5 prints as iterations are epochs, passes over all the data.""")


def steps(o, runs, value):
    stops = {lr: runs[f"lr {lr}"].median_stop for lr in STEPS}
    for lr, stop in stops.items():
        if math.isfinite(stop):
            yield ss.say("Step {lr}: epoch {n}.", lr=float(lr), n=stop)
        else:
            yield ss.say("Step {lr}: not within {epochs}.", lr=float(lr), epochs=epochs(o.epochs))
    if halved(stops):
        yield ss.say("""Twice the step, half the epochs: the steep directions are done with early,
            and of the error in the flat one each epoch takes away a share that is proportional to
            the step.""")
    yield None
    run = runs["lr 2e-4"]
    yield ss.say(
        """The limit is 2/λ, λ being the largest eigenvalue of the Hessian, the matrix of
        the second derivatives of L: the curvature in the steepest direction. Here it is {limit:.4}.
        A step that is longer leaps over the valley, and lands higher than it
        started.""",
        limit=ss.expect(run).lr_limit,
    )
    large = runs["lr 5.1e-4"]
    if value["lr_limit"] > 0 and ss.expect(large).growth_per_epoch:  # grown for long enough
        yield ss.say(
            "With 0.00051 the loss grows; how fast tells the limit, too: {limit:.4}.",
            limit=value["lr_limit"],
        )
    elif value["lr_limit"] > 0:
        yield ss.say("With 0.00051 the loss grows.")
    else:
        yield ss.say(
            "With 0.00051 the loss goes from {start:.4} to {end:.4} within {epochs}.",
            start=large.array("steps", "full_loss")[0, 0],
            end=large.at("full_loss"),
            epochs=epochs(large.stop_epoch[0]),
        )


def best(o, runs):
    less, best, more = (runs[arm].median_stop for arm in BEST)
    lr, limit = runs["lr best"].config.lr, float(ss.expect(runs["lr 2e-4"]).lr_limit)
    share = lr / limit
    yield ss.say(
        """No step stops earlier, by theory, than one of {lr:.5}, which is {share:.1%} of the
        limit.""",
        lr=lr,
        share=share,
    )
    if 0.9 < share < 1:
        yield ss.say("Nearer to it the steep direction, not the flat one, takes longest.")
    first = min(tried(runs).values())
    if math.isfinite(best) and best <= first:
        yield ss.say("Tried: it stops at epoch {n}.", n=best)
    elif math.isfinite(best):
        yield ss.say(
            "Tried: it stops at epoch {n}, another step here at epoch {first}.", n=best, first=first
        )
    else:
        yield ss.say("Tried: it does not stop within {epochs}.", epochs=epochs(o.epochs))
    if math.isfinite(less) and math.isfinite(more):
        yield ss.say(
            """A step 0.1 % smaller stops at epoch {less}, one 0.05 % larger at epoch
            {more}.""",
            less=less,
            more=more,
        )


def sums(o, runs, value):
    mean, divided = runs["lr 2e-4"].median_stop, runs["sum, lr 2e-4/d"].median_stop
    yield ss.say("""The text writes the loss as a sum over the d points, the code takes their mean.
        The gradient of the sum is d times that of the mean: the same descent needs a step d times
        smaller.""")
    if math.isfinite(divided) and abs(divided - mean) <= 1:
        yield ss.say(
            """With 0.0002/d the sum form does the same, and stops at epoch
            {n}.""",
            n=divided,
        )
    elif math.isfinite(divided):
        yield ss.say("With 0.0002/d the sum form stops at epoch {n}.", n=divided)
    else:
        yield ss.say(
            "With 0.0002/d the sum form does not stop within {epochs}.", epochs=epochs(o.epochs)
        )
    if value["sum_form_lr_limit"] > 0:
        yield ss.say(
            """With 0.0002 undivided its loss becomes {growth:.2} times as large in each
            epoch.""",
            growth=runs["sum, lr 2e-4"].growth_per_epoch(),
        )


def standstill(o, runs, value):
    floor = runs["float32 floor"]
    given = {"n": int(floor.n_steps[0]), "lr": floor.config.lr, "excess": floor.excess_at_end}
    if value["last_update"] == 0:
        yield ss.say(
            """Left running without a stop rule, with the step {lr}, float32 ends up standing
            still: the last of {n} steps changes no parameter, as it is shorter than half the gap to
            the next number of float32. The loss stays {excess} above its least.""",
            **given,
        )
    else:
        yield ss.say(
            """Left running without a stop rule, with the step {lr}, the last of {n} steps
            still has a length of {length:.2}; the loss is {excess} above its
            least.""",
            length=value["last_update"],
            **given,
        )


def mostly_constant(run):
    """Whether at least nine tenths of the distance are in the constant term."""
    off = abs(run.w - run.problem.true_at(run.n_steps))[0]
    return off[2] > 0.9 * run.distance[0]


def tried(runs):
    """Return the epoch at which each step below the limit stops, the small steps first."""
    arms = [runs[f"lr {lr}"] for lr in STEPS] + [runs[arm] for arm in BEST]
    return dict(sorted((run.config.lr, run.median_stop) for run in arms))


def fastest(runs):
    """Return the step that stops first, where of those tried below it each larger one is faster."""
    stops = tried(runs)
    best = min(stops, key=stops.get)
    up_to = [stop for lr, stop in stops.items() if lr <= best]
    falls = all(math.isfinite(a) and b < a for a, b in itertools.pairwise(up_to))
    return best if falls and len(up_to) > 1 else None


def halved(stops):
    """Whether twice the step takes half the epochs, to within one in a hundred."""
    pairs = [("1e-4", "2e-4"), ("2e-4", "4e-4")]
    return all(math.isfinite(stops[a]) and abs(stops[a] / stops[b] - 2) < 0.02 for a, b in pairs)
