"""What study_optimizers is made of: problems, step sizes that were chosen, who is the fastest."""

import numpy as np

import sgdstudy as ss

TUNING = 1_000_000  # the first of the seeds that choose
PROBLEMS = {  # batch size, epochs, targets: shares of the loss there is to lose
    "curve": (50, 250, (0.1, 0.01, 0.001)),
    "ill-conditioned": (20, 50, (0.1, 0.01, 0.001)),
    "diabetes": (59, 350, (0.1, 0.03, 0.01)),
    "digits": (64, 10, (0.3, 0.1, 0.03)),
}
BY = ["problem", "optimizer"]


def tuning(runs, expected=False):
    """Return what the tuning seeds choose and how the others fare, or theory's mean would."""
    parts = {}
    for arm, run in runs.items():
        name, rule, _ = arm.split(", ")
        # a blind guess among ten classes has the loss log(10)
        parts[name, rule, arm] = run, ss.expect(run).levels(PROBLEMS[name][2], np.log(10))
    return ss.tuning.Tuning.of(parts, BY, TUNING, expected)


def table(o, runs):
    theory = tuning(runs, True).rows.rename(columns={"time": "theory"})
    return tuning(runs).medians.merge(theory[[*BY, "lr", "target", "theory"]], "left")


def tuned(o, runs):
    return tuning(runs).best({"optimizer": "SGD"}).merge(table(o, runs), "left")


def winners(o, runs):
    """Return problem -> the optimisers of the least median time, none where it is never, time."""
    found = {}
    for problem, rows in tuned(o, runs).groupby("problem", sort=False):
        least = rows["median"].min()
        first = rows["optimizer"][rows["median"] == least]
        found[problem] = (first.tolist() if np.isfinite(least) else []), least
    return found


def won(o, runs):
    """Return who is the fastest on each problem, in words."""
    return [
        ss.say("{optimizers} on {problem} ({epochs})", optimizers=names, problem=name, epochs=time)
        if names
        else ss.say("none on {problem}", problem=name)
        for name, (names, time) in winners(o, runs).items()
    ]
