"""What study_momentum_noise is made of: names of arms, excess losses, what momentum gains."""

from functools import lru_cache

import numpy as np

import sgdstudy as ss

KAPPAS = (16, 64, 256, 1024)
RULES = ("descent", "heavy ball", "Nesterov")
ONE, ALL = "one sample", "exact gradients"
STEEP = "one sample, from the steep side"
EPOCHS = 2  # of those: then few paths carry the mean square


def kappas(o):
    """Return the condition numbers of a run."""
    return KAPPAS[:3] if o.quick else KAPPAS


def arm_of(kappa, rule, noise):
    """Return the name of an arm."""
    return f"kappa={kappa}, {rule}, {noise}"


def parts(arm):
    """Return condition number, rule and noise of an arm."""
    kappa, rule, noise = arm.split(", ", 2)
    return int(kappa.removeprefix("kappa=")), rule, noise


def excess(run):
    """Return the excess loss by epoch and seed, that of the start first."""
    return np.vstack([np.ones(len(run.config.seeds)), run.excess()])


@lru_cache(64)
def expected(run):
    """Return the expected excess loss by epoch, that of the start first."""
    c, ls = run.config, run.problem.least_squares
    start = run.problem.initial([c.seeds[0]])[0].numpy()
    one = c.batch_size == 1
    given = (ls, start, 2, 1 if one else 2, c.lr, c.epochs, one, *c.options.values())
    losses = ss.theory.expected_losses(*given)[1]
    return np.append(ls.loss(start), losses) - ls.least_loss


def gain(value, kappa, rule, noise):
    """Return the steps of descent over those with momentum."""
    taken = [value["steps_to_target", arm_of(kappa, r, noise)] for r in ("descent", rule)]
    return taken[0] / taken[1]


def due_gain(o, runs, kappa, rule, noise):
    """Return what theory has for that."""
    both = [expected(runs[arm_of(kappa, r, noise)]) for r in ("descent", rule)]
    before, after = (ss.theory.time_above(curve, o.target) for curve in both)
    return before / after


def power(o, value, rule, noise):
    """Return the power of κ with which the gain grows, from the smallest to the largest."""
    first, last = kappas(o)[0], kappas(o)[-1]
    ratio = gain(value, last, rule, noise) / gain(value, first, rule, noise)
    return float(np.log(ratio) / np.log(last / first))


@lru_cache
def normal_gain(kappa, rule):
    """Return what momentum gains in the long run where inputs are normal, of that κ.

    Second moments of a step need those of the inputs up to the fourth, which are the same of 36
    points: -√3, four times 0 and √3 along each axis.
    """
    points = np.array([-(3**0.5), 0, 0, 0, 0, 3**0.5])
    x = np.array([(a, b / kappa**0.5) for a in points for b in points])
    ls = ss.Problem(x, x.sum(1), lambda w, x: x @ w, w_init=np.zeros(2)).least_squares
    found = [ss.theory.fastest_steps(ls, 36, 1, True, r).factor for r in (rule, "descent")]
    return float(np.divide(*np.log(found)))
