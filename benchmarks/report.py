"""The results as a table in the terminal, as docs/benchmark.md, and as a picture."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from matplotlib.figure import Figure
from measure import Bar, Goal, Line, Ratio, Table
from rich.console import Console
from rich.table import Table as RichTable

NOTES_BEGIN = "<!-- written by hand, kept by every run: begin -->"
NOTES_END = "<!-- written by hand, kept by every run: end -->"
NO_NOTES = "Nothing written yet."
RUN = re.compile(r"<!-- last run: (.*?) -->", re.DOTALL)
PEERS = (
    *("torch", "mlflow", "jax", "lightning", "tensorboard", "wandb", "trackio"),
    *("cockpit-for-pytorch", "backpack-for-pytorch", "numpy", "pandas", "pyarrow"),
)
COLOURS = {True: "tab:orange", False: "0.6"}


def number(value: float | None) -> str:
    """Write a number with three digits.

    >>> [number(v) for v in (None, 0.01234, 12.345, 12345.6)]
    ['', '0.0123', '12.3', '12,346']
    """
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def ratio(value: Ratio | None) -> str:
    """Write a ratio with its spread."""
    if value is None:
        return ""
    return f"{number(value.middle)} ({number(value.least)} … {number(value.most)})"


def verdict(goal: Goal) -> str:
    """Say whether a goal is reached."""
    return {True: "yes", False: "NO", None: "not measured"}[goal.reached]


def measured(goal: Goal) -> str:
    """Write what was measured for a goal."""
    if goal.measured is None:
        return ""
    text = f"{number(goal.measured)} {goal.unit}".strip()
    if goal.least is None or goal.least == goal.most:
        return text
    return f"{text} ({number(goal.least)} … {number(goal.most)})"


# ---- the terminal --------------------------------------------------------------------------


def show(console: Console, table: Table) -> None:
    """Print a row's table."""
    drawn = RichTable("who", table.unit, "ratio (spread)", "over", "", title=table.title)
    for column in drawn.columns[1:3]:
        column.justify = "right"
    for line in table.lines:
        over = line.ratio.to if line.ratio else ""
        style = "bold" if line.ours else None
        drawn.add_row(line.name, number(line.cost), ratio(line.ratio), over, line.note, style=style)
    console.print(drawn)


def show_goals(console: Console, goals: list[Goal]) -> None:
    """Print what had to be reached."""
    drawn = RichTable("must reach", "at most", "measured", "reached", title="Figures to reach")
    for goal in goals:
        style = {True: "green", False: "red", None: "yellow"}[goal.reached]
        drawn.add_row(goal.what, limit(goal), measured(goal), verdict(goal), style=style)
    console.print(drawn)


def limit(goal: Goal) -> str:
    """Write a goal's limit."""
    return f"{number(goal.limit)} {goal.unit}".strip()


# ---- the page ------------------------------------------------------------------------------


def write(folder: Path, tables: list[Table], seconds: float) -> None:
    """Write benchmark.md and benchmark.png; what was written by hand is kept."""
    page = folder / "benchmark.md"
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    page.write_text(markdown(tables, seconds, before), encoding="utf-8")
    picture([bar for table in tables for bar in table.bars]).savefig(
        folder / "benchmark.png", dpi=150
    )


def markdown(tables: list[Table], seconds: float, before: str) -> str:
    """Return the page; `before` is the page of the last run."""
    goals = [goal for table in tables for goal in table.goals]
    now = {goal.what: measured(goal) for goal in goals}
    found = RUN.search(before)
    last: dict[str, str] = json.loads(found[1]) if found else {}
    parts = [
        "# Benchmark",
        "`make bench` wrote this page: one run, everyone measured beside us, on the same work: the "
        "notebook's curve (2000 points, batches of 10, 3 parameters, shuffled, mean squared error, "
        "step size 2e-4), one torch thread. Contestants take turns (A B C A B C ...). Costs are "
        "medians; a ratio is the median over the turns of the cost over another's, with the least "
        "and the most.",
        "![Microseconds per step](benchmark.png)",
        machine(seconds),
        "## Figures to reach",
        *_goals(goals, last),
        "## What is not reached, and why",
        f"{NOTES_BEGIN}\n\n{notes(before)}\n\n{NOTES_END}",
    ]
    for table in tables:
        parts += [f"## {table.title}", table.text, _lines(table)]
    return "\n\n".join([*parts, f"<!-- last run: {json.dumps(now)} -->"]) + "\n"


def notes(before: str) -> str:
    """Return what was written by hand between the marks."""
    if NOTES_BEGIN not in before or NOTES_END not in before:
        return NO_NOTES
    return before.split(NOTES_BEGIN)[1].split(NOTES_END)[0].strip()


def machine(seconds: float) -> str:
    """Describe the machine and the versions, naming neither host nor folder."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = [f"{name} {_version(name)}" for name in PEERS]
    rows = [
        ["processor", f"{_processor()}, {cores} cores"],
        ["system", f"{platform.system()} {platform.machine()}"],
        ["Python", platform.python_version()],
        ["versions", ", ".join(versions)],
        ["run", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {seconds / 60:.1f} minutes"],
    ]
    return _table([["machine", ""], *rows])


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _goals(goals: list[Goal], last: dict[str, str]) -> list[str]:
    rows = [
        [g.what, limit(g), measured(g), last.get(g.what, ""), f"**{verdict(g)}**"] for g in goals
    ]
    reached = sum(goal.reached is True for goal in goals)
    return [
        _table([["", "at most", "this run", "the run before", "reached"], *rows]),
        f"{reached} of {len(goals)} are reached.",
    ]


def _lines(table: Table) -> str:
    def bold(line: Line, text: str) -> str:
        return f"**{text}**" if line.ours and text else text

    rows = [
        [
            bold(line, line.name),
            number(line.cost),
            ratio(line.ratio),
            line.ratio.to if line.ratio else "",
            line.note,
        ]
        for line in table.lines
    ]
    return _table([["", table.unit, "ratio", "over", ""], *rows])


def _table(rows: list[list[str]]) -> str:
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)


# ---- the picture ---------------------------------------------------------------------------


def picture(bars: Iterable[Bar]) -> Figure:
    """Draw microseconds per step, a panel per group, on one logarithmic axis; ours are orange."""
    groups: dict[str, list[Bar]] = {}
    for bar in bars:
        if bar.cost is not None:
            groups.setdefault(bar.panel, []).append(bar)
    heights = [len(group) + 1 for group in groups.values()]
    figure = Figure(figsize=(9, 0.3 * sum(heights) + 0.8), layout="constrained")
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=heights)
    for axes, (title, group) in zip(panels[:, 0], groups.items(), strict=True):
        group = sorted(group, key=lambda bar: -(bar.cost or 0))
        costs = [bar.cost or 0 for bar in group]
        colours = [COLOURS[bar.ours] for bar in group]
        axes.hlines(range(len(group)), 0, costs, colors=colours, linewidth=1)
        axes.scatter(costs, range(len(group)), color=colours, s=30, zorder=2)
        axes.set_yticks(range(len(group)), [bar.label for bar in group])
        axes.set(xscale="log", title=title, ylim=(-0.7, len(group) - 0.3))
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        for place, cost in enumerate(costs):
            axes.text(cost * 1.25, place, number(cost), va="center", fontsize=8)
    last = panels[-1, 0]
    last.set_xlabel("microseconds per step (and per replica, where there are R); orange: ours")
    drawn = [bar.cost for group in groups.values() for bar in group if bar.cost]
    last.set_xlim(min(drawn) / 3, max(drawn) * 4)
    return figure
