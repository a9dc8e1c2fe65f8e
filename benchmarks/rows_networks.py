"""Rows about networks: against JAX, products by hand, vmap and the literal loop."""

from __future__ import annotations

import functools
from collections.abc import Callable

import peers_networks as peers
import torch
import work
from measure import Goal, Line, Options, Ratio, Table, Worker, interleave
from rows_step import given, in_us

import sgdstudy as ss
from sgdstudy.training.recorded import Wanted

QUIET = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
WIDE, WIDER = (784, 107), (784, 1358)  # inputs and hidden units: 85,075 and 1,079,620 parameters


def networks(o: Options) -> list[Table]:
    """Measure whole runs of networks."""
    table = Table(
        "Networks",
        "us per replica and step",
        "Cross entropy, batches of 64, on one core. Peers keep the losses of their batches and "
        "look at nothing else; their batches are drawn before. *Steps alone*: as a whole run "
        "takes them, losses, norms and mean gradients recorded. The others are whole runs of "
        "`ss.train`, setting up, orders and rows (losses, norms, light diagnostics) included; "
        "*evaluated at the end*: `evaluate_every` is the number of epochs, as the peers do; else "
        "all the data, its gradient and the accuracies are evaluated at the end of every epoch.",
    )
    with Worker(o.folder("networks"), one_core=True, env=QUIET) as worker:
        for n in (1, 64) if o.quick else (1, 16, 64):
            _dense(table, o, worker, n)
        for n in (1, 16) if o.quick else (1, 16, 64):
            _convolutional(table, o, worker, n)
        _wide(table, o, worker)
    _large(table, o)
    _curve(table, o)
    return [table]


def _problem(network: str, inputs: int = 64, hidden: int = 32) -> ss.Problem:
    net = peers.convolutional() if network == "convolutional" else peers.dense(inputs, hidden)
    return ss.Problem(*peers.data(inputs), net, "cross_entropy")


def _ours(
    problem: ss.Problem, n: int, epochs: int, every: int, engine: str = "auto"
) -> Callable[[], float]:
    return work.whole(problem, _settings(n, epochs, every, engine))


def _settings(n: int, epochs: int, every: int, engine: str) -> ss.TrainConfig:
    same = {"lr": peers.LR, "batch_size": peers.BATCH, "evaluate_every": every, "engine": engine}
    return ss.TrainConfig(**same, epochs=epochs, seeds=range(n))


def _contest(
    table: Table, o: Options, contest: dict[str, Callable[[], float]], limit: float, *ours: str
) -> None:
    """Run a contest, add its lines, each over the first, and its goals: ours over it, at most."""
    costs = interleave(contest, o.repeats)
    first = next(iter(contest))
    table.lines += [in_us(costs.line(k, first, ours=k.startswith("ours"))) for k in contest]
    for mine in ours:
        table.goals.append(Goal.of(f"{mine}, over {first}", limit, costs.ratio(mine, first)))


def _both(
    problem: ss.Problem, what: str, n: int, epochs: int, engine: str = "auto"
) -> dict[str, Callable[[], float]]:
    return {
        f"ours, {what}, evaluated at the end": _ours(problem, n, epochs, epochs, engine),
        f"ours, {what}, at every epoch's end": _ours(problem, n, epochs, 1, engine),
    }


def _dense(table: Table, o: Options, worker: Worker, n: int) -> None:
    what, epochs = f"64-32-10, R={n}", {1: 100, 16: 20, 64: 8}[n]
    sizes = {"n": n, "hidden": 32, "steps": {1: 2000, 16: 200, 64: 60}[n]}
    call = functools.partial(worker.call)
    vmapped = {**sizes, "network": "dense", "inputs": 64, "steps": {1: 200, 16: 100, 64: 40}[n]}
    draw = torch.Generator().manual_seed(0)
    indices = torch.randint(1797, (n, sizes["steps"] * peers.BATCH), generator=draw)
    steps, settings = f"ours, {what}, steps alone", _settings(n, 1, 1, "compiled")
    contest: dict[str, Callable[[], float]] = {
        f"JAX, {what}": functools.partial(call, "peers_networks:jax_scan", **sizes),
        f"products by hand, {what}": functools.partial(call, "peers_networks:products", **sizes),
        f"vmap, {what}": functools.partial(call, "peers_networks:vmapped", **vmapped),
        steps: given(_problem("dense"), settings, indices, Wanted(every_step=False)),
        **_both(_problem("dense"), what, n, epochs, "compiled"),
    }
    _contest(table, o, contest, 1.5, steps, f"ours, {what}, evaluated at the end")


def _convolutional(table: Table, o: Options, worker: Worker, n: int) -> None:
    what, epochs = f"convolutions, R={n}", {1: 12, 16: 2, 64: 1}[n]
    given = {"n": n, "network": "convolutional", "inputs": 64, "hidden": 0}
    given["steps"] = {1: 200, 16: 40, 64: 20}[n]
    peer = "literal loop" if n == 1 else "vmap"
    name = "peers_networks:literal" if n == 1 else "peers_networks:vmapped"
    contest: dict[str, Callable[[], float]] = {
        f"{peer}, {what}": functools.partial(worker.call, name, **given),
        **_both(_problem("convolutional"), what, n, epochs, "compiled"),
    }
    limit = 1.0 if n == 1 else 1.15
    _contest(table, o, contest, limit, f"ours, {what}, evaluated at the end")


def _wide(table: Table, o: Options, worker: Worker) -> None:
    what, (inputs, hidden) = "p=85,075, R=16", WIDE
    given = {"n": 16, "network": "dense", "inputs": inputs, "hidden": hidden, "steps": 20}
    contest: dict[str, Callable[[], float]] = {
        f"literal loop, {what}": functools.partial(worker.call, "peers_networks:literal", **given),
        **_both(_problem("dense", *WIDE), what, 16, 5, "compiled"),
    }
    _contest(table, o, contest, 1.0, f"ours, {what}, evaluated at the end")


def _large(table: Table, o: Options) -> None:
    """Measure time and peak memory of a million parameters, each in a process of its own."""
    what, steps = "p=1,079,620, R=1", 40
    given = {"inputs": WIDER[0], "hidden": WIDER[1]}
    peaks: dict[str, float] = {}

    def alone(name: str, **more: int) -> float:
        with Worker(o.folder("large"), one_core=True) as worker:
            seconds, peaks[name] = worker.call(f"rows_networks:{name}", **given, **more)
        return float(seconds)

    contest: dict[str, Callable[[], float]] = {
        f"literal loop, {what}": functools.partial(alone, "literal_alone", steps=steps),
        f"ours, {what}, evaluated at the end": functools.partial(alone, "ours_alone", epochs=5),
    }
    _contest(table, o, contest, 1.3, f"ours, {what}, evaluated at the end")
    if len(peaks) == 2:
        ratio = peaks["ours_alone"] / peaks["literal_alone"]
        table.goals.append(Goal(f"{what}: peak memory over the literal loop's", 1.3, ratio))
        table.lines.append(Line(f"peak memory, {what}", None, note=f"{peaks} MB"))


def literal_alone(inputs: int, hidden: int, steps: int) -> tuple[float, float]:
    """Return seconds per step of the literal loop, and the peak, MB."""
    from rows_process import peak

    return peers.literal(1, "dense", inputs, hidden, steps), peak()


def ours_alone(inputs: int, hidden: int, epochs: int) -> tuple[float, float]:
    """Return seconds per step of our run, the first epochs not counted, and the peak, MB."""
    from rows_process import peak

    torch.set_num_threads(1)
    problem = _problem("dense", inputs, hidden)
    _ours(problem, 1, 1, 1)()
    return _ours(problem, 1, epochs, epochs)(), peak()


def _curve(table: Table, o: Options) -> None:
    """Measure a whole run of the curve over its orders and steps alone."""
    curve, settings = ss.problems.curve(), work.config(1024, 3, engine="compiled")
    alone, whole = "ours, the curve, R=1024: orders and steps", "ours, the curve, R=1024: whole run"
    contest: dict[str, Callable[[], float]] = {
        alone: work.bare("compiled", curve, settings, 600),
        whole: work.whole(curve, settings),
    }
    costs = interleave(contest, o.repeats)
    table.lines += [in_us(costs.line(name, alone, ours=True)) for name in contest]
    cost = costs.cost(whole)
    table.goals.append(Goal(f"{whole}", 0.2, None if cost is None else 1e6 * cost, unit="us"))
    ratio: Ratio | None = costs.ratio(whole, alone)
    if ratio is not None:
        table.goals.append(Goal.of(f"{whole}, over orders and steps", 0.2 / 0.18, ratio))
