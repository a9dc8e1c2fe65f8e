"""The answer of study_orders, and what its claims and pictures share with it."""

import numpy as np

import sgdstudy as ss

# of K, for large K, by theory
POWERS = {"with replacement": -1, "shuffle": -3, "shuffle once": -2, "incremental": -2}
NAMES = {
    "with replacement": ss.to_say("drawn with replacement"),
    "shuffle": ss.to_say("shuffled anew in each epoch"),
    "shuffle once": ss.to_say("shuffled once"),
    "incremental": ss.to_say("sorted by residual"),
}


def errors(runs, line, last=0):
    """Return K `(k,)` and the squared distances at the end `(k, R)`, of the last so many K."""
    found = list(runs.select(f"{line} K=*").values())[-last:]
    return np.array([r.config.epochs for r in found]), np.array([r.distance**2 for r in found])


def short(o, runs, value):
    yield ss.say(
        "The error at the end of K epochs falls as a power of K, and the order decides it."
    )
    yield from slopes(o, value)
    yield from balanced(value)


def answer(o, runs, value):
    ks = errors(runs, "shuffle", last=4)[0]
    yield ss.say(
        """The error is the squared distance to the minimiser after K epochs, with a step size
        proportional to 1/K. On logarithmic axes it falls along a line, whose slope is the power of
        K; measured at K = {first} to {last}, and in brackets what theory has for large K.""",
        first=ks[0],
        last=ks[-1],
    )
    yield from slopes(o, value)
    yield None
    ends = {line: errors(runs, line)[1][-1].mean() for line in ("incremental", "shuffle once")}
    yield ss.say(
        """Sorted by residual, the same order in every epoch ends {ratio:.2} times as far (squared)
        as random orders kept for ever do on average.""",
        ratio=ends["incremental"] / ends["shuffle once"],
    )
    yield None
    yield ss.say(
        """Flip-flop (every second epoch backwards) falls with {flip:.2f}, GraB (which balances the
        gradients) with {grab:.2f} (cited for large K: K⁻⁵, then K⁻², and at most K⁻²).""",
        flip=value["slope", "flip-flop"],
        grab=value["slope", "GraB"],
    )
    yield from balanced(value)


def slopes(o, value):
    every = [
        ss.say(
            "{line} {slope:.2f} ({power})",
            line=ss.say(NAMES[line]),
            slope=value["slope", line],
            power=power,
        )
        for line, power in POWERS.items()
    ]
    yield ss.say("The powers: {slopes}.", slopes=every)
    if o.seeds < ss.Claim.FEW:
        yield ss.say(
            "They are of {n} seed: where orders are drawn that is luck above all.",
            "They are of {n} seeds: where orders are drawn that is luck above all.",
            n=o.seeds,
        )


def balanced(value):
    yield ss.say(
        """At the largest K flip-flop ends with {flip:.2} times the error of shuffling, GraB with
        {grab:.2} times.""",
        flip=value["error_over_shuffle", "flip-flop"],
        grab=value["error_over_shuffle", "GraB"],
    )
