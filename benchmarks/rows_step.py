"""Rows about a step: against the notebook's loop, against JAX, diagnostics, number of samples."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np
import peers_train
import torch
import work
from measure import Bar, Goal, Line, Options, Ratio, Table, Worker, interleave

import sgdstudy as ss
from sgdstudy.training.engines import Engine, Samples
from sgdstudy.training.recorded import ALL, Wanted

ORDERS = ("sequential", "shuffle_once", "with_replacement", "shuffle")
REPLICAS = (1, 64, 1024)
NOTEBOOK = "the notebook's loop"
STEPS = {"compiled": {1: 100_000, 64: 6_400, 1024: 600}, "eager": {1: 1_000, 64: 600, 1024: 200}}
COLD = 100_000
PANELS = ("a step, nothing tracked, orders drawn; ours recorded", "a step, the same orders given")


def step(o: Options) -> list[Table]:
    """Measure a step with nothing tracked, against the notebook's loop."""
    table = Table(
        "A step, nothing tracked",
        "us per replica and step",
        "The notebook's loop (DataLoader, autograd) records nothing but its running loss. *Steps*: "
        "orders drawn, samples gathered, steps taken, and w, loss and gradient of each recorded in "
        "buffers. *Whole run*: `ss.train` into memory, shuffled, all its columns, setting up "
        "included; its compiled runs find the library built.",
    )
    for n in (1, 1024) if o.quick else REPLICAS:
        _against_notebook(table, o, n)
    _cold(table, o)
    return [table]


def _against_notebook(table: Table, o: Options, n: int) -> None:
    curve = ss.problems.curve()
    contest: dict[str, Callable[[], float]] = {
        NOTEBOOK: functools.partial(work.notebook, 3 if o.quick else 5)
    }
    for engine in ("eager", "compiled"):
        steps = STEPS[engine][n]
        for order in ORDERS:
            settings = work.config(n, -(-steps // 200), order=order, engine=engine)
            contest[f"{engine} steps, R={n}, {order}"] = work.bare(engine, curve, settings, steps)
        whole = work.config(n, -(-steps // 200), engine=engine)
        contest[f"{engine} whole run, R={n}"] = work.whole(curve, whole)
    costs = interleave(contest, o.repeats)
    for name in contest:
        note = f"beside R={n}" if name == NOTEBOOK else ""
        table.lines.append(in_us(costs.line(name, NOTEBOOK, note, ours=name != NOTEBOOK)))
    if n == 1:
        what = "R=1 eager, shuffled, recorded in buffers, over the notebook's loop"
        name = "eager steps, R=1, shuffle"
        table.goals.append(Goal.of(what, 1.25, costs.ratio(name, NOTEBOOK)))
        table.bars.append(Bar(PANELS[0], NOTEBOOK, us(costs.cost(NOTEBOOK)), False))
        table.bars.append(Bar(PANELS[0], "ours, eager, R=1", us(costs.cost(name)), True))
    if n == 1024:
        for order in ORDERS:
            what = f"R=1024 compiled, {order}, recorded in buffers, over the notebook's loop"
            ratio = costs.ratio(f"compiled steps, R=1024, {order}", NOTEBOOK)
            table.goals.append(Goal.of(what, 1 / 400 if order == "shuffle" else 1 / 1000, ratio))
    cost = costs.cost(f"compiled steps, R={n}, shuffle")
    table.bars.append(Bar(PANELS[0], f"ours, compiled, R={n}", us(cost), True))


def _cold(table: Table, o: Options) -> None:
    """Measure 100,000 steps at R=1 in a new process, compiling included."""
    compiling: list[float] = []

    def fresh(level: str) -> float:
        with Worker(o.folder("cold")) as worker:
            seconds, cost = worker.call("rows_step:cold", level=level, n_steps=COLD)
        compiling.append(seconds)
        return float(cost)

    contest: dict[str, Callable[[], float]] = {NOTEBOOK: functools.partial(work.notebook, 3)}
    for level in ("steps", "whole run"):
        name = f"compiled {level}, R=1, {COLD:,} steps, compiling included"
        contest[name] = functools.partial(fresh, level)
    costs = interleave(contest, 1 if o.quick else 3, warm_up=False)
    for name in list(contest)[1:]:
        table.lines.append(in_us(costs.line(name, NOTEBOOK, ours=True)))
        table.goals.append(
            Goal.of(f"{name}, over the notebook's loop", 0.1, costs.ratio(name, NOTEBOOK))
        )
    note = f"{min(compiling):.2f} to {max(compiling):.2f} s" if compiling else "not measured"
    table.lines.append(Line("compiling alone", None, note=note, ours=True))


def cold(level: str, n_steps: int) -> tuple[float, float]:
    """Compile, then take steps; return seconds of compiling, and in all per step."""
    torch.set_num_threads(1)
    curve, settings = ss.problems.curve(), work.config(1, n_steps // 200, engine="compiled")
    started = time.perf_counter()
    work.CLASSES["compiled"](curve, settings)
    seconds = time.perf_counter() - started
    run = work.whole(curve, settings)
    if level == "steps":
        run = work.bare("compiled", curve, settings, n_steps)
    run()
    return seconds, (time.perf_counter() - started) / n_steps


def jax(o: Options) -> list[Table]:
    """Measure steps alone against JAX's scan, on the same permutations."""
    table = Table(
        "The same permutations given to JAX",
        "us per replica and step",
        "JAX: `jit` of `lax.scan` over steps of `value_and_grad`, gathering inside the `jit`, on "
        "one core, in three forms; it is compared in the one that is quickest at each R. Both get "
        "the permutations drawn, in the layout each likes (JAX int32, `(S, B, R)`; ours int64, "
        "`(R, S B)`, as they are drawn), and record w, loss and gradient of every step, ours "
        "their norms too. Drawing them is measured apart.",
    )
    curve = ss.problems.curve()
    with Worker(
        o.folder("jax"), one_core=True, env={"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    ) as worker:
        for n, steps in {1: 20_000, 64: 4_000, 1024: 600}.items():
            _same_permutations(table, o, worker, curve, n, steps)
    return [table]


def _same_permutations(
    table: Table, o: Options, worker: Worker, curve: ss.Problem, n: int, steps: int
) -> None:
    settings = work.config(n, steps // 200)
    drawn = ss.orders.Sampler("shuffle", list(range(n)), 2000, work.BATCH)
    indices = drawn.take(steps * work.BATCH)
    path = o.folder("indices") / "indices.npy"
    np.save(path, indices.numpy())
    ours = f"ours, R={n}"
    forms = {f"JAX, R={n}, {form}": form for form in peers_train.JAX_FORMS}
    contest: dict[str, Callable[[], float]] = {
        name: functools.partial(worker.call, "peers_train:jax_steps", path=str(path), form=form)
        for name, form in forms.items()
    }
    contest[ours] = given(curve, settings, indices)
    contest[f"drawing the permutations, R={n}"] = _drawing(n, steps)
    costs = interleave(contest, 2 * o.repeats)
    best = min(forms, key=lambda name: costs.cost(name) or np.inf)
    for name in contest:
        note = "JAX's best form here" if name == best else ""
        table.lines.append(in_us(costs.line(name, best, note, ours=name not in forms)))
    what = f"R={n}, ours over JAX's best form, same permutations"
    table.goals.append(Goal.of(what, 1, costs.ratio(ours, best)))
    for name, label in ((best, f"JAX's best form, R={n}"), (ours, ours)):
        table.bars.append(Bar(PANELS[1], label, us(costs.cost(name)), name == ours))


def given(
    problem: ss.Problem, settings: ss.TrainConfig, indices: torch.Tensor, wanted: Wanted = ALL
) -> Callable[[], float]:
    """Return the compiled steps on given samples, from the start, and what is recorded of them."""
    kept: list[Engine] = []

    def run() -> float:
        if not kept:
            kept.append(work.CLASSES["compiled"](problem, settings))
        engine, w = kept[0], problem.initial(list(settings.seeds))
        batch = settings.batch_size or problem.d
        sizes = np.full(indices.shape[1] // batch, batch)
        started = time.perf_counter()
        samples = Samples(indices, problem.x, problem.y)
        engine.steps(w, engine.init(w), samples, sizes, 1, 1, wanted)
        return (time.perf_counter() - started) / (len(w) * len(sizes))

    return run


def _drawing(n: int, steps: int) -> Callable[[], float]:
    sampler = ss.orders.Sampler("shuffle", list(range(n)), 2000, work.BATCH)

    def run() -> float:
        started = time.perf_counter()
        sampler.take(steps * work.BATCH)
        return (time.perf_counter() - started) / (n * steps)

    return run


def diagnostics(o: Options) -> list[Table]:
    """Measure what diagnostics cost."""
    table = Table(
        "Diagnostics off and on",
        "us per replica and step",
        "Whole runs of `ss.train` into memory, all columns.",
    )
    curve = ss.problems.curve()
    for engine in ("compiled",) if o.quick else ("eager", "compiled"):
        for n in (1, 1024):
            steps = {"eager": {1: 1000, 1024: 200}, "compiled": {1: 20_000, 1024: 400}}[engine][n]
            contest = {}
            for preset in ("off", "light", "full"):
                settings = work.config(n, steps // 200, engine=engine, diagnostics=preset)
                contest[f"{preset}, R={n}, {engine}"] = work.whole(curve, settings)
            costs = interleave(contest, o.repeats)
            base = f"off, R={n}, {engine}"
            table.lines += [in_us(costs.line(name, base, ours=True)) for name in contest]
    return [table]


def samples(o: Options) -> list[Table]:
    """Measure a step against the number of samples."""
    table = Table(
        "A step against the number of samples d",
        "us per step",
        "R=1, batch 10, `with_replacement`, a parabola through d points. *Steps*: as in the first "
        "table. *Whole run*: the slope of `ss.train` over its last steps, all columns recorded, so "
        "that setting up is not counted.",
    )
    sizes = [2_000, 20_000, 200_000, 2_000_000, 20_000_000]
    if o.quick:
        sizes = [2_000, 2_000_000]
    made = {d: parabola(d) for d in sizes}
    for kind, engine, steps in (
        ("steps", "compiled", 50_000),
        ("steps", "eager", 1_000),
        ("whole run", "compiled", 60_000),
        ("whole run", "eager", 2_000),
    ):
        contest: dict[str, Callable[[], float]] = {}
        for d, problem in made.items():
            epochs = -(-4 * steps * work.BATCH // d)
            settings = work.config(1, epochs, order="with_replacement", engine=engine)
            if kind == "steps":
                run = work.bare(engine, problem, settings, steps)
            else:
                run = functools.partial(work.slope, problem, settings, steps)
            contest[f"{engine} {kind}, d={d:,}"] = run
        costs = interleave(contest, o.repeats)
        base = f"{engine} {kind}, d={sizes[0]:,}"
        table.lines += [in_us(costs.line(name, base, ours=True)) for name in contest]
        ratio = costs.ratio(f"{engine} {kind}, d={sizes[-1]:,}", base)
        what = f"d={sizes[-1]:,} over d={sizes[0]:,}, {engine} {kind}"
        table.goals.append(Goal.of(what, 1.5, ratio))
    return [table]


def parabola(d: int) -> ss.Problem:
    """Return the curve's problem on d points."""
    x = np.linspace(-10, 10, d, dtype=np.float32)
    y = np.float32(0.3) * x * x - np.float32(1.7) * x + np.float32(2.5)
    true = [0.3, -1.7, 2.5]
    return ss.Problem(x, y, ss.problems.parabola, w_true=true, name=f"parabola, {d} points")


def us(seconds: float | None) -> float | None:
    """Return microseconds."""
    return None if seconds is None else 1e6 * seconds


def in_us(line: Line) -> Line:
    """Return a line measured in seconds, in microseconds."""
    ratio: Ratio | None = line.ratio
    if ratio is not None and ratio.to == line.name:
        ratio = None
    return Line(line.name, us(line.cost), ratio, line.note, line.ours)
