"""Row about Cockpit's quantities: by Cockpit, by our closed forms, and by our autograd."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import work
from measure import Bar, Costs, Goal, Options, Table, Worker, interleave
from rows_step import in_us, us

import sgdstudy as ss

ECONOMY = ("distance_start", "alpha", "inner_test", "norm_test", "ortho_test", "grad_histogram")
QUANTITIES = {"economy": ECONOMY, "full": (*ECONOMY, "tic", "hess_trace", "hess_max_eig")}
HIDDEN = 16
LINEAR, NETWORK = "the curve", f"{HIDDEN} tanh units"
CLOSED, AUTOGRAD = "closed forms", "autograd"


class ByAutograd(ss.Problem):
    """A problem whose least squares nobody has noticed."""

    least_squares = None  # type: ignore[assignment]


def cockpit(o: Options) -> list[Table]:
    """Measure what Cockpit's sets of quantities cost a step, computed in every step."""
    table = Table(
        "Cockpit's quantities, in every step",
        "us per step",
        "One seed, batches of 10, training included, kept in memory. *Economy*: loss, gradient "
        "norm, size of the update, distance, alpha, inner product, norm and orthogonality test, "
        "histogram of the gradient's elements; *full*: TIC, trace and largest eigenvalue of the "
        "batch's Hessian too (Cockpit's also has a two-dimensional histogram, which we have not). "
        "Ours: `ss.train(diagnostics=[...])`, eager steps as Cockpit's, or compiled ones; closed "
        "forms where the model is linear in its parameters, autograd in the same code where it is "
        f"not, and on the curve where we do not let it see that it is. *{NETWORK}*: a network "
        f"1-{HIDDEN}-1. All columns of ours are there too. 200 steps of ours, compiling left out, "
        "60 of Cockpit's.",
    )
    with Worker(o.folder("cockpit")) as worker:
        for model in (LINEAR, NETWORK):
            for preset in QUANTITIES:
                _contest(table, o, worker, model, preset)
    return [table]


def _contest(table: Table, o: Options, worker: Worker, model: str, preset: str) -> None:
    peer = f"Cockpit, {preset}, {model}"
    arguments = {"preset": preset, "n_steps": 60, "hidden": HIDDEN if model == NETWORK else 0}
    contest: dict[str, Callable[[], float]] = {
        peer: functools.partial(worker.call, "peers_train:cockpit", **arguments)
    }
    ways = (CLOSED, AUTOGRAD) if model == LINEAR else (AUTOGRAD,)
    for way in ways:
        for engine in ("eager", "compiled"):
            settings = work.config(
                1, 1, engine=engine, diagnostics=QUANTITIES[preset], diagnostics_every=1
            )
            name = f"ours, {preset}, {model}, {way}, {engine}"
            contest[name] = work.whole(problem(model, way), settings)
    costs = interleave(contest, o.repeats)
    for name in contest:
        table.lines.append(in_us(costs.line(name, peer, ours=name != peer)))
    _reach(table, costs, preset, model, peer)


def _reach(table: Table, costs: Costs, preset: str, model: str, peer: str) -> None:
    name = f"ours, {preset}, {model}, {AUTOGRAD}, eager"
    what = f"Cockpit's {preset} quantities, {model}, by autograd, eager: ours over Cockpit"
    table.goals.append(Goal.of(what, 1, costs.ratio(name, peer)))
    for bar in (peer, name):
        label = Bar("Cockpit's quantities, by autograd", bar, us(costs.cost(bar)), bar == name)
        table.bars.append(label)


def problem(model: str, way: str) -> ss.Problem:
    """Return the problem of a contestant."""
    curve = ss.problems.curve()
    if model == LINEAR and way == CLOSED:
        return curve
    if model == LINEAR:
        return ByAutograd(curve.x, curve.y, ss.problems.parabola, w_true=curve.w_true)
    network, start = ss.problems.tanh_network(1, HIDDEN, 1)
    x = np.asarray(curve.x)[:, None] / 10
    return ss.Problem(x, np.asarray(curve.y)[:, None], network, w_init=start)
