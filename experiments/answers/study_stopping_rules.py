"""The answer of study_stopping_rules, and what its claims, table and pictures share with it."""

import numpy as np

import sgdstudy as ss
from answers import epochs

PASSES = {"running": 0, "full": 1, "grad_norm": 1, "last_batch": 0}  # over the data, each epoch
RULES = {"full": ss.to_say("loss of all the data"), "running": ss.to_say("running loss")}
RULES |= {"grad_norm": ss.to_say("gradient norm")}
RULES |= {"last_batch": ss.to_say("loss of the last batch")}


def epsilon(run):
    """Return the loss that counts as done: the notebook's, above what noise leaves."""
    return 1e-7 if run.config.optimizer == "RMSprop" else 0.1 + ss.expect(run).ls.least_loss


def outcomes(runs):
    """Return, by arm and rule: where it stops, whether that is false, where the truth is."""
    return {(a, rule): run.stops(rule, epsilon(run)) for a, run in runs.items() for rule in PASSES}


def short(o, runs, value):
    found = outcomes(runs)
    yield from running_loss(runs, found)
    yield from last_batch(runs, value)
    yield from gradient_norm(o, runs, found)


def answer(o, runs, value):
    found = outcomes(runs)
    yield ss.say("""Four rules are asked at the end of each epoch. The loss of all the data is the
        truth, and costs one more pass over them; so does the norm of their gradient. The running
        loss, the mean of the batch losses of the epoch, costs nothing, and neither does the loss
        of its last batch.""")
    yield None
    yield from running_loss(runs, found)
    early, n = max((int(each.false.sum()), len(each.false)) for each in of_running(runs, found))
    if early:
        yield ss.say(
            "In some arm it stops its only seed too early.",
            "In no arm does it stop too early for more than {early} of {n} seeds.",
            n=n,
            early=early,
        )
    else:
        yield ss.say("In no arm does it stop a seed too early.")
    yield None
    yield from sorted_order(o, runs, found)
    yield None
    yield from gradient_norm(o, runs, found)
    ratio = value["square_of_gradient_over_bound", "independent"]
    if np.isfinite(ratio):
        yield ss.say(
            """It rests on a bound, ‖∇L‖² ≥ 2 λ (L − L*), λ being the smallest eigenvalue of the
            Hessian. Of independent draws the left side is {ratio} times the right one, a mean over
            the second half of the epochs.""",
            ratio=ratio,
        )
    yield None
    yield from last_batch(runs, value)
    yield from luck(runs, value)


def of_running(runs, found):
    """Return how the running loss stops each arm."""
    return [found[arm, "running"] for arm in runs]


def running_loss(runs, found):
    run, (stop, _, truth) = runs["shuffle"], map(np.median, found["shuffle", "running"])
    yield ss.say(
        """The running loss is free: on the notebook's run it stops {stop}, the loss of all the
        data is below epsilon {truth}.""",
        """The running loss is free: on the notebook's run it stops {stop}, the loss of all the
        data is below epsilon {truth} (medians of {n} seeds).""",
        stop=run.when(stop),
        truth=run.when(truth),
        n=len(run.w),
    )


def sorted_order(o, runs, found):
    run, ends = runs["sequential"], []
    for rule, name in RULES.items():
        epoch = found["sequential", rule].epoch[0]
        if np.isfinite(epoch):
            ends.append(ss.say("{rule} at epoch {epoch}", rule=ss.say(name), epoch=epoch))
    given = {"first": run.at("full_loss", 1), "epochs": epochs(o.epochs), "ends": ends}
    if ends:
        yield ss.say(
            """Along the curve the loss of all the data is {first:.2} after the first epoch. Within
            {epochs} these rules stop: {ends}.""",
            **given,
        )
    else:
        yield ss.say(
            """Along the curve the loss of all the data is {first:.2} after the first epoch, and no
            rule stops within {epochs}.""",
            **given,
        )
    if found["sequential", "last_batch"].false[0]:
        yield ss.say("""Its last batch is the end of the curve, which the epoch has just been fitted
            to: its loss is below epsilon where that of all the data is not.""")


def gradient_norm(o, runs, found):
    stops = [found[arm, "grad_norm"].epoch for arm in ("shuffle", "noisy labels")]
    normed, noisy = (int(np.isfinite(each).sum()) for each in stops)
    when, late = (runs["shuffle"].when(np.median(each)) for each in stops)
    given = {"n": len(runs["shuffle"].w), "normed": normed, "noisy": noisy}
    given |= {"epochs": epochs(o.epochs), "when": when, "late": late}
    if not any(found[arm, "grad_norm"].false.any() for arm in runs):
        yield ss.say(
            """The gradient norm does not stop too early: it stops {when}, with noisy labels
            {late}.""",
            """The gradient norm stops no seed too early; within {epochs} it stops {normed} of {n}
            seeds, with noisy labels {noisy}.""",
            **given,
        )
    else:
        yield ss.say(
            "The gradient norm stops {when}, with noisy labels {late}.",
            """The gradient norm stops {normed} of {n} seeds within {epochs}, with noisy labels
            {noisy}.""",
            **given,
        )


def shares(runs, value, claim):
    """Return a claim's shares by arm; in sorted order the last batch is always the same."""
    arms = [arm for arm in runs if arm != "sequential"]
    return [ss.say("{arm} {share:.0%}", arm=arm, share=value[claim, arm]) for arm in arms]


def last_batch(runs, value):
    yield ss.say(
        "The loss of the last batch stops these shares of the seeds too early: {shares}.",
        shares=shares(runs, value, "false_stops_last_batch"),
    )


def luck(runs, value):
    yield ss.say(
        """A batch of that size, drawn at random at the end of each epoch, would have stopped
        too early: {shares}.""",
        shares=shares(runs, value, "false_stops_random_batches"),
    )
    (lucky,) = (claim for claim in value if claim.name == "share_of_lucky_batches")
    if lucky.holds:
        yield ss.say(
            """Of independent draws {seen:.2%} of all the batches before the truth are below
            epsilon, of random ones {due:.2%}: such a stop is luck.""",
            seen=lucky.measured,
            due=lucky.expected,
        )
