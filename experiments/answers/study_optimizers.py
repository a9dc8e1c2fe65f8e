"""The answer of study_optimizers."""

import numpy as np

import sgdstudy as ss
from answers import epochs
from common.study_optimizers import BY, table, tuned, winners, won


def short(o, runs, value):
    yield from fastest(o, runs)
    yield from within_twice(o, runs)


def answer(o, runs, value):
    yield ss.say("""Each optimiser was given the same step sizes to try, relative to a first guess.
        Some seeds chose the one that gets to the hardest target the soonest, and other seeds
        tell how long it takes: the median of their epochs, and how many got there.""")
    rows = tuned(o, runs)
    for problem, some in rows.groupby("problem", sort=False):
        some = some.sort_values("median", kind="stable")
        yield ss.say(
            "On {problem}, down to {target} of the loss there is to lose: {times}.",
            problem=problem,
            target=some["target"].iloc[0],
            times=[time_of(row) for row in some.itertuples()],
        )
    yield None
    yield from fastest(o, runs)
    yield from momentum(rows)
    yield None
    yield from within_twice(o, runs)
    yield from edges(rows)
    yield from scores(rows)
    yield None
    yield from luck(o, runs, value)


def time_of(row):
    given = {"optimizer": row.optimizer, "reached": row.reached, "n": row.seeds}
    if row.seeds == 1 and row.reached:
        return ss.say("{optimizer} in {epochs}", epochs=epochs(row.median), **given)
    if row.seeds == 1:
        return ss.say("{optimizer} never", **given)
    if np.isfinite(row.median):
        return ss.say("{optimizer} {epochs} ({reached} of {n})", epochs=row.median, **given)
    return ss.say("{optimizer} never ({reached} of {n})", **given)


def fastest(o, runs):
    yield ss.say("Fewest epochs to the hardest target: {won}.", won=won(o, runs))
    every = [set(names) for names, _ in winners(o, runs).values()]
    if all(every):
        both = set.intersection(*every)
        if both:
            yield ss.say("On every problem tried it is {optimizer}.", optimizer=sorted(both))
        else:
            yield ss.say("No optimiser is the fastest on every problem.")


def momentum(rows):
    if "over_sgd" not in rows:  # of a single seed
        return
    rows = rows[(rows["optimizer"] == "momentum") & (rows["over_sgd"] > 0)]
    rows = rows[np.isfinite(rows["over_sgd"])]
    if len(rows):
        found = [
            ss.say("{ratio:.2} on {problem}", ratio=row.over_sgd, problem=row.problem)
            for row in rows.itertuples()
        ]
        yield ss.say(
            "Seed by seed, the epochs of momentum over those of SGD (medians): {found}.",
            found=found,
        )


def within_twice(o, runs):
    rows, tried = tuned(o, runs), table(o, runs).query("hardest").groupby(BY)["lr"].nunique()
    good = rows.groupby("optimizer", sort=False)["lrs_within_twice"].mean()
    yield ss.say(
        """How many of {n} step sizes take at most twice the least time, as a mean over the
        problems: {found}.""",
        n=tried.max(),
        found=[
            ss.say("{share:.1f} for {optimizer}", optimizer=name, share=share)
            for name, share in good.items()
        ],
    )


def edges(rows):
    found = [
        ss.say("{optimizer} on {problem} (the smallest)", optimizer=r.optimizer, problem=r.problem)
        if r.edge == "lowest"
        else ss.say(
            "{optimizer} on {problem} (the largest)", optimizer=r.optimizer, problem=r.problem
        )
        for r in rows[rows["edge"] != ""].itertuples()
    ]
    if found:
        yield ss.say(
            """Chosen at the edge of the step sizes tried, so that a better one may lie beyond:
            {found}.""",
            found=found,
        )
    else:
        yield ss.say("No step size was chosen at the edge of those tried.")


def scores(rows):
    digits = rows[rows["problem"] == "digits"]
    if len(digits):
        found = [
            ss.say(
                "{optimizer} {seen:.1%} (held out {held_out:.1%})",
                optimizer=row.optimizer,
                seen=row.accuracy,
                held_out=row.test_accuracy,
            )
            for row in digits.itertuples()
        ]
        yield ss.say(
            "Accuracy on digits, on the images trained on and on those held out: {found}.",
            found=found,
        )


def luck(o, runs, value):
    """Say of SGD on noisy data how many seeds stay below the target, and where the mean gets."""
    rows, mine = tuned(o, runs), "problem == 'diabetes' and optimizer == 'SGD'"
    row, mean = rows.query(mine).iloc[0], value["lr_fastest_in_the_mean", "diabetes, SGD"]
    given = {"lr": row["lr"], "reached": row["reached"], "n": row["seeds"]}
    if row["above_again"]:
        yield ss.say(
            """With noisy data being below a target once is not staying there: on diabetes SGD with
            lr {lr:.2} got below, and ends above.""",
            """With noisy data being below a target once is not staying there: on diabetes SGD with
            lr {lr:.2} got below for {reached} of {n} seeds; above at the end: {above} of these.""",
            above=row["above_again"],
            **given,
        )
    elif not row["reached"]:
        yield ss.say(
            """On diabetes, whose data are noisy, SGD with lr {lr:.2} does not get below the
            target.""",
            """On diabetes, whose data are noisy, SGD with lr {lr:.2} gets below the target for none
            of {n} seeds.""",
            **given,
        )
    else:
        yield ss.say(
            """The data of diabetes are noisy; there SGD with lr {lr:.2} got below the target, and
            is still below at the end.""",
            """The data of diabetes are noisy; there SGD with lr {lr:.2} got below the target for
            {reached} of {n} seeds, and none of these ends above.""",
            **given,
        )
    known = table(o, runs).query(f"hardest and {mine}")["theory"]
    if not np.isfinite(known).any():
        yield ss.say("The expected loss gets there with none of the step sizes tried.")
    elif row["above_again"] and row["lr"] > mean:
        yield ss.say(
            """The expected loss gets there first with {mean:.2}: counting when a seed is first
            below rewards steps that get there by luck.""",
            mean=mean,
        )
    else:
        yield ss.say("The expected loss gets there first with {mean:.2}.", mean=mean)
