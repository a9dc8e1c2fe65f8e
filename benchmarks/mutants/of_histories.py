"""Faults of what is asked of a run beside theory, of its rows on a disk, and of who can repeat."""

from fault import Group

PARTICLES = Group(
    "theory/particles.py",
    "reshuffling",
    [
        (
            "weight += 2 * np.log(length) - nu[part]",
            "weight += np.log(length) - nu[part]",
            "the growth of E|z|, not of its square",
        ),
        (
            "                left[:, first:] = left[kept, first:]\n",
            "",
            "a particle that multiplies forgets which items it has left",
        ),
        (
            "half = (variance / repeats) ** 0.5 *",
            "half = variance / repeats *",
            "the variance for the standard error",
        ),
        ("spread = lr**2 / size *", "spread = lr**2 *", "steps scatter as those of single items"),
    ],
)

ESTIMATES = Group(
    "theory/estimates.py",
    "estimates",
    [
        (
            "r = found if expected is None else float(expected)",
            "r = found",
            "the error is not that under what is expected",
        ),
        (
            "np.exp(np.mean(np.log(samples.mean(1) / true)))",
            "np.mean(samples.mean(1) / true)",
            "an arithmetic mean: twice here and half there do not cancel",
        ),
        ("float(error) * ratio,", "float(error),", "a relative error for an absolute one"),
        (
            "there = curves[len(expected) - 1]",
            "there = curves[-1]",
            "the scatter of the last step, long after the target",
        ),
    ],
)

LEAST_ABSOLUTE = Group(
    "theory/mean_absolute.py",
    "mean_absolute",
    [
        (
            "square[np.triu_indices(len(square))].min()",
            "square.min()",
            "stretches that end before they begin count, with a sign of 3",
        )
    ],
)

MOMENTS = Group(
    "history/moments.py",
    "measured identities expect_random",
    [
        (
            'averaged = kind == "epochs" and run.config.average is not None',
            "averaged = False",
            "the loss of the last parameters, not of their mean",
        ),
        (
            "loss = np.where(lost, np.inf, last.reindex(run.config.seeds).to_numpy(float))",
            "loss = last.reindex(run.config.seeds).to_numpy(float)",
            "a seed that diverges counts with what it had before",
        ),
        (
            "steps=slice(0, 3 * len(expected))",
            "steps=slice(0, len(expected))",
            "seeds slower than expected never arrive",
        ),
        (
            "bound = theory.gradient_bound(known.ls, 1) ** 2",
            "bound = theory.gradient_bound(known.ls, 1)",
            "the square of a gradient over its bound, not the bound's square",
        ),
        ("z.var((0, 1))", "(z**2).mean((0, 1))", "about the minimiser: a bias counts as noise"),
        (
            "theory.Estimate.mean(each, others=products / steps)",
            "theory.Estimate.mean(each)",
            "theory's own error is left out",
        ),
        ("np.average(terms, 1, weights)", "terms.mean(1)", "the weights do nothing"),
    ],
)

IDENTITIES = Group(
    "history/identities.py",
    "identities",
    [
        ("- still.gap(1).weighting)", "+ still.gap(1).weighting)", "the wrong sign"),
        (
            "max(0.0, float((low / values - 1).max()), float((values / high - 1).max()))",
            "max(0.0, float((values / high - 1).max()))",
            "what is below its bounds passes",
        ),
        (
            'parameters(run, "epochs")[-1] - known.start',
            'parameters(run, "epochs")[-2] - known.start',
            "an epoch early",
        ),
    ],
)

EDGE = Group(
    "history/edge.py",
    "edge",
    [
        (
            "last, first = step[max(above[0] - 1, 0)], step[above[0]]",
            "last, first = step[above[0]], step[above[0]]",
            "before lasts until the edge is seen to be passed, not while it was not",
        ),
        ("values[3 * len(values) // 4 :]", "values[len(values) // 4 :]", "three quarters"),
        (
            "sharpness_limit(run.config.lr, **run.config.options)",
            "sharpness_limit(run.config.lr)",
            "the edge of plain descent, whatever the momentum",
        ),
    ],
)

BATCHES = Group(
    "history/batches.py",
    "batches_off ratio_and_way batch_vs_full",
    [
        (
            "size = norm(np.abs(gradient).mean(0))",
            "size = norm(gradient.mean(0))",
            "relative to what the terms leave when they cancel",
        ),
        ('rows.loc[whole, "grad_norm"]', 'rows["grad_norm"]', "short last batches count as well"),
        ("way / (c.lr * len(sizes))", "way / c.lr", "the way of an epoch for that of a step"),
    ],
)

BEHIND = Group(
    "history/drift.py",
    "behind",
    [
        (
            "Estimate.mean(self.excess.mean(0))",
            "Estimate.mean(self.excess.ravel())",
            "the steps of a seed count as independent",
        ),
        (
            "expect(run).tracking_path(law)[1][step]",
            "expect(run).tracking_path(law)[1][: len(step)]",
            "what is expected of the first steps, whichever are looked at",
        ),
        (
            "true = run.problem.true_at(step)",
            "true = run.problem.true_at(step + 1)",
            "the true parameters of the step after",
        ),
    ],
)

ROWS = Group(
    "history/rows.py",
    "rows checksums",
    [
        (
            "keep = np.zeros(shape, bool)\n        keep[row, replica] = True",
            "keep = np.ones(shape, bool)",
            "a seed that has ended goes on, with zeros",
        )
    ],
)

FILES = Group(
    "history/files.py",
    "rows checksums",
    [("held, waiting = [], 0", "waiting = 0", "row groups repeat those before")],
)

STREAM = Group(
    "history/stream.py",
    "rows checksums",
    [
        (
            'what = "" if size == 0 or grew or is_cut(file, start) else reason(error)',
            "what = reason(error)",
            "a block that was being written when its process was killed is damage",
        )
    ],
)

CHECKSUMS = Group(
    "history/checksums.py",
    "checksums load",
    [
        (
            "total = zlib.crc32(np.ascontiguousarray(values).data, total)",
            "total = zlib.crc32(np.ascontiguousarray(values).data)",
            "the last column alone is looked at",
        ),
        (
            "self.sums[group * len(names) + column]",
            "self.sums[column]",
            "every row group is compared with the first",
        ),
        ("crc is not None and crc != own", "False", "the file of another run is read as its own"),
        ("before = found", "pass", "a block twice is read twice"),
        ("or length > MOST_HEAD or", "or", "a length that is damaged passes for a cut"),
        (
            "first = min(first, column.dictionary_page_offset)",
            "first = max(first, column.dictionary_page_offset)",
            "dictionaries are not looked at",
        ),
    ],
)

REPEATS = Group(
    "training/repeats.py",
    "repeats",
    [
        ("self._steps += len(sizes)", "self._steps += 1", "chunks are counted for steps"),
        (
            "if self._steps >= min(self._due, max(self.n_steps, FIRST_LOOK)):",
            "if self._steps >= self._due:",
            "what begins after the last look passes",
        ),
        (
            "if not _same_values(once, self._losses(given, batch)):",
            "if False:",
            "what draws where parameters are large passes",
        ),
        (
            "                trial.put_back(self._before)\n",
            "",
            "a run that is refused leaves the global generators elsewhere",
        ),
        (
            "if not _same_values(self._losses(w, batch), now) or bool((off > share).any()):",
            "if bool((off > share).any()):",
            "noise below a thousand roundings passes",
        ),
        (
            "(then.abs() + scale.abs())",
            "then.abs()",
            "at a minimum, where all of a loss is rounding, compiled runs are refused",
        ),
    ],
)

GROUPS = [
    PARTICLES,
    ESTIMATES,
    LEAST_ABSOLUTE,
    MOMENTS,
    IDENTITIES,
    EDGE,
    BATCHES,
    BEHIND,
    ROWS,
    FILES,
    STREAM,
    CHECKSUMS,
    REPEATS,
]
