"""Faults of what is made of a run: histories, comparisons, choices, claims, predictions."""

from fault import Group

HISTORY = Group(
    "history/history.py",
    "train trajectory sample_stream load",
    [
        (
            'return np.where(self.stop_reason == "converged", self.stop_epoch, np.inf)',
            'return np.where(self.stop_reason != "diverged", self.stop_epoch, np.inf)',
            "seeds that only ran out of epochs count as stopped",
        ),
        (
            'return float(np.quantile(self.converged_epoch, 0.5, method="inverted_cdf"))',
            "return float(np.median(self.stop_epoch))",
            "the median does not see who never stopped",
        ),
        (
            "true = self.problem.true_at(self.n_steps)",
            "true = self.problem.true_at(0 * self.n_steps)",
            "the true parameters at the beginning",
        ),
        (
            "return norm(self.w.astype(float) - true)",
            "return np.abs(self.w.astype(float) - true).sum(1)",
            "another norm",
        ),
        (
            "table = table.filter((field >= first) & (field < end))",
            "table = table.filter((field >= first) & (field <= end))",
            "the end counts too",
        ),
        (
            'keys = [key for key in ("seed", "epoch", "step") if key in rows.columns]',
            'keys = [key for key in ("epoch", "step", "seed") if key in rows.columns]',
            "sorted by epoch, not by seed",
        ),
        (
            'for name, part in (("step", steps), ("epoch", epochs)):',
            'for name, part in (("step", steps), ("epoch", None)):',
            "the epochs asked for do nothing",
        ),
    ],
)

HISTORY_ARRAYS = Group(
    "history/arrays.py",
    "train trajectory sample_stream load",
    [
        (
            "seeds = list(run.config.seeds)",
            "seeds = sorted(run.config.seeds)",
            "columns in order of the numbers, not of the seeds given",
        )
    ],
)

LOAD = Group(
    "tracking/load.py",
    "load",
    [
        (
            "np.where(np.abs(values) >= LARGEST, np.copysign(np.inf, values), values)",
            "np.where(np.abs(values) >= LARGEST, np.inf, values)",
            "minus infinity is read as infinity",
        )
    ],
)

RUNS = Group(
    "tracking/runs.py",
    "load",
    [
        (
            "return [run for run in runs if run.name in chosen]",
            'return [run for run in runs if run.name in ", ".join(chosen)]',
            "the arm A is loaded with the arm 'A, B'",
        ),
        (
            'LAST_FIRST = (f"tags.`{NUMBER}` DESC",',
            'LAST_FIRST = (f"tags.`{NUMBER}` ASC",',
            "the oldest invocation for the latest",
        ),
    ],
)

COMPARISON = Group(
    "history/compare.py",
    "load",
    [
        (
            "neither = (x == worst) & (y == worst)",
            "neither = (x == worst) | (y == worst)",
            "a pair in which one got there is not known",
        ),
        ("        differences = x - y\n", "        differences = y - x\n", "b - a"),
        (
            "positive = (x > 0).all() and (y > 0).all()",
            "positive = True",
            "ratios of what is not positive",
        ),
        (
            "share_below=float(np.mean(x < y))",
            "share_below=float(np.mean(x <= y))",
            "ties count as below",
        ),
        (
            "ratio = bounded_median(ratios, neither & positive, (0.0, np.inf), confidence)",
            "ratio = bounded_median(ratios, neither & positive, (1.0, 1.0), confidence)",
            "pairs in which neither got there are taken for ties",
        ),
        ("dropna=False).min()", "dropna=False).max()", "the last time below, not the first"),
        (
            "last = last.reindex(seeds, fill_value=worst).mask(diverged, worst)",
            "last = last.reindex(seeds, fill_value=worst)",
            "a seed that diverged has its last finite loss",
        ),
        (
            'rows.drop_duplicates("seed", keep="last")',
            'rows.drop_duplicates("seed", keep="first")',
            "the first epoch for the last",
        ),
        (
            "return self.reached / self.seeds",
            "return self.reached / max(self.seeds - 1, 1)",
            "shares above 1",
        ),
        ('_most_runs(rows["run_id"], arms) > 1:', "False:", "runs of two invocations are mixed"),
        (
            'if arms.nunique(dropna=False) > 1 else ["seed"]',
            'if "run_id" in rows else ["seed"]',
            "arms of runs from elsewhere are mixed",
        ),
    ],
)

MEDIANS = Group(
    "theory/medians.py",
    "load tuning",
    [
        (
            "spread = samples.std(axis, ddof=1) if",
            "spread = samples.std(axis) if",
            "a biased deviation",
        ),
        ("return spread / n**0.5", "return spread / n", "n for its root"),
        (
            'return float(np.quantile(values, 0.5, method="inverted_cdf"))',
            'return float(np.quantile(values, 0.5, method="higher"))',
            "of two middle values the upper",
        ),
        ("np.arange(1, n + 1) / n", "np.arange(n) / n", "the k-th value has k - 1 at or below"),
        (
            "tail = (1 - confidence) / 2",
            "tail = 1 - confidence",
            "an interval of 90 % for one of 95 %",
        ),
        (
            "high = np.argmax(binom.sf(n // 2, n, share) >= 1 - tail)",
            "high = np.argmax(binom.sf(n // 2 - 1, n, share) >= 1 - tail)",
            "the upper end a value too low",
        ),
        (
            "middle = median(lowest) if median(lowest) == median(highest) else np.nan",
            "middle = median(lowest)",
            "a median that is not known",
        ),
        (
            "low, _ = median_interval(lowest, confidence)\n"
            "    _, high = median_interval(highest, confidence)",
            "low, high = median_interval(highest, confidence)",
            "an interval that holds in one case only",
        ),
    ],
)

TUNING = Group(
    "history/tuning.py",
    "tuning",
    [
        (
            "columns = [time, final]\n",
            "columns = [final, time]\n",
            "the loss at the end decides before the time",
        ),
        (
            'ordered = middle.reset_index().sort_values([*columns, "lr"], kind="stable")',
            'ordered = middle.reset_index().sort_values([*columns, "lr"], '
            "ascending=[True, True, False])",
            "of equals the larger step",
        ),
        (
            "[columns].agg(lambda v: median(v.to_numpy()))",
            "[columns].mean()",
            "means, which one seed that never got there decides",
        ),
        (
            'highest = found["lr"] == found["min"], found["lr"] == found["max"]',
            'highest = found["lr"] == found["max"], found["lr"] == found["min"]',
            "lowest and highest change places",
        ),
        (
            'tried = rows.groupby(list(by), sort=False)["lr"].agg(["min", "max"])',
            'tried = rows.groupby(list(by), sort=False)["lr"].agg(["min", '
            '"max"]).assign(max=rows["lr"].max())',
            "the edge is that of all groups",
        ),
        (
            "reached = int(np.isfinite(values).sum())",
            "reached = len(values)",
            "seeds that never got there count as reached",
        ),
        (
            "found.append((*key, median(values), low, high, reached, len(values)))",
            "found.append((*key, median(values[np.isfinite(values)]), low, high, "
            "reached, len(values)))",
            "the median of those that got there",
        ),
    ],
)

CLAIMS = Group(
    "studies/claims.py",
    "claims",
    [
        (
            "if not isinstance(measured, Sequence) or len(measured) != len(expected):",
            "if not isinstance(measured, Sequence):",
            "lists of other lengths: an error, or a claim that holds",
        ),
        (
            "return all(_close(m, e, tolerance) for m, e in pairs)",
            "return any(_close(m, e, tolerance) for m, e in pairs)",
            "one value of a list is enough",
        ),
        (
            "if self.expected is None:\n            return None",
            "if self.expected is None:\n            return True",
            "a description holds",
        ),
        (
            "False: f\"**{say('FAILS')}**\"",
            'False: say("holds")',
            "a claim that fails is printed as one that holds",
        ),
        (
            "if isinstance(expected, (bool, str)) or measured == expected:\n"
            "        return bool(measured == expected)",
            "if isinstance(expected, str) or measured == expected:\n"
            "        return bool(measured == expected)",
            "truth values are numbers with a tolerance",
        ),
    ],
)

PREDICT = Group(
    "theory/predictions.py",
    "predictions schedules sample_stream",
    [
        ('ahead = 0 if rule == "full" else 1', "ahead = 1", "under the rule full an epoch late"),
        ("    if tolerance > 1:\n        return {}\n", "", "rounding that decides is not minded"),
        ("if tolerance > 1:", "if tolerance > 3:", "a stop epoch to within three"),
        (".max) / len(ls.residual)\n", ".max)\n", "a sum of squares holds what its mean does"),
        (
            "value, off = ends.running, off",
            "value, off = value, off",
            "the running rule stops on the full loss",
        ),
        (
            "both = (losses[:-1], losses[1:])",
            "both = (losses[1:], losses[1:])",
            "the running loss of full batches an epoch late",
        ),
        (
            "mean_square_radius(ls, problem.d, size, config.lr, twice) < 1:",
            "mean_square_radius(ls, problem.d, size, config.lr, twice) < 9:",
            "a mean that is infinite is expected",
        ),
        (
            "if ls is None or not config.steps_are_plain or",
            "if ls is None or not config.plain or",
            "a schedule is taken for a constant step",
        ),
        (
            "if config.lr >= theory.lr_limit(ls):",
            "if config.lr >= 2 * theory.lr_limit(ls):",
            "beyond the limit it is predicted to stop",
        ),
        (
            "dead = dead | ~(ends.running < largest)",
            "dead = dead & ~(ends.running < largest)",
            "seeds that diverge are taken for living",
        ),
        (
            "stop = np.where(below & np.isinf(stop), epoch, stop)",
            "stop = np.where(below & np.isinf(stop), epoch + 1, stop)",
            "an epoch late",
        ),
        (
            "return problem.initial(list(config.seeds))",
            "return problem.initial([config.seeds[0]] * len(config.seeds))",
            "every seed starts where the first one does",
        ),
        (
            "middle, least, most = map(median, seeds.distance)",
            "middle, least, most = (float(d[0]) for d in seeds.distance)",
            "the distance of the first seed",
        ),
        ('("stop_epoch_p90", 0.9)', '("stop_epoch_p90", 0.1)', "both quantiles are the lower one"),
        (
            "return k + ahead if k + ahead <= epochs else np.inf",
            "return k + ahead",
            "a stop after the last epoch is predicted",
        ),
    ],
)

FOLLOW = Group(
    "theory/follow.py",
    "predictions",
    [
        (
            "share, epoch = np.array(sizes) / sum(sizes), None",
            "share, epoch = np.full(len(sizes), 1 / len(sizes)), None",
            "a short batch counts as a full one",
        ),
        ("step, form = -2 * lr * squares,", "step, form = -lr * squares,", "half a step"),
        ("step = second @ first", "step = first @ second", "the batches the wrong way round"),
        (
            "parts.append(turned @ batch / batch.shape[2])",
            "parts.append(turned @ batch / size)",
            "no mean over outputs",
        ),
        (
            "seeds = list(config.seeds[:1] if fixed else config.seeds)",
            "seeds = [config.seeds[0]] * (1 if fixed else len(config.seeds))",
            "every seed follows the first one's order",
        ),
        (
            "form[:, : m - 1 : 2] + back @ (form[:, 1::2] @ first)",
            "form[:, : m - 1 : 2] + form[:, 1::2]",
            "losses of later batches at the epoch's beginning",
        ),
    ],
)

ROUNDING = Group(
    "theory/rounding.py",
    "predictions",
    [
        (
            "(1 - self.lr * self._spectrum) ** 2, 1.0)",
            "np.abs(1 - self.lr * self._spectrum), 1.0)",
            "errors fall half as fast",
        ),
        (
            "DEVIATIONS * np.sqrt(variance) + still",
            "DEVIATIONS * np.sqrt(variance)",
            "a run that moves no more has no error",
        ),
        (
            "ulp, pull = self.eps * self._size, self.lr * self._spectrum",
            "ulp, pull = self.eps * self._size, self._spectrum",
            "the step size is forgotten: nothing ever stands still",
        ),
        (
            "off = float(np.finfo(float).eps) * k *",
            "off = float(np.finfo(float).eps) *",
            "theory's own rounding does not grow with k",
        ),
    ],
)

HISTORY_COMPARE = Group(
    "history/compare.py",
    "load",
    (
        (
            'values = pd.concat([a, b], axis=1, join="inner", keys=["a", "b"]).sort_index()',
            "values = pd.concat([x.reset_index(drop=True) for x in [a, b]], axis=1)",
            "paired by place, not by seed",
        ),
        (
            "where(values > target if above else values < target)",
            "where(values > target if above else values <= target)",
            "a target counts as met at equality",
        ),
    ),
)

TRACKING_COMPARE = Group(
    "tracking/compare.py",
    "load",
    (
        (
            ".reindex(index, fill_value=np.inf)\n    times = ",
            ".reindex(index, fill_value=np.nan)\n    times = ",
            "a seed without rows is not known, rather than never",
        ),
        (
            "return last.mask(last.index.isin(self._diverged()), worst)",
            "return last",
            "the same of an arm in the store",
        ),
        (
            "    times = unknown_where(cut, times)\n",
            "",
            "a seed that was cut off counts as one that never gets there",
        ),
        (
            "ended |= set(stopped.index[np.isfinite(stopped)])",
            "ended |= set(stopped.index)",
            "a seed that no rule stopped counts as ended",
        ),
    ),
)

STUDIES_CLAIMS = Group(
    "studies/claims.py",
    "claims",
    (
        (
            "return bool(math.fabs(measured - expected) <= tolerance)",
            "return bool(measured - expected <= tolerance)",
            "too low is never too far",
        ),
        (
            "return bool(math.fabs(measured - expected) <= tolerance)",
            "return not abs(measured - expected) > tolerance",
            "NaN holds",
        ),
        (
            "within = max(due.within, tolerance)",
            "within = tolerance",
            "what theory itself may be off is forgotten",
        ),
    ),
)

STOPPING = Group(
    "history/stopping.py",
    "stopping",
    [
        (
            "[len(sizes) - 1 :: len(sizes)]",
            "[:: len(sizes)]",
            "a lucky stop at the parameters of the epoch's first batch",
        ),
        (
            "np.isfinite(self.truth) & ~self.false",
            "np.isfinite(self.truth)",
            "seeds that are stopped wrongly say how late a rule is",
        ),
    ],
)

KNOWN = Group(
    "known.py",
    "known claims",
    [
        ("/ abs(divisor)", "/ divisor", "a tolerance below 0"),
        (
            "not self.within < abs(self.value) / 2",
            "not self.within < abs(self.value)",
            "what may be off by nine tenths can fail",
        ),
    ],
)

EXPECT = Group(
    "theory/expect.py",
    "expect expect_orders expect_moments expect_random",
    [
        (
            "within = c.epochs * self.eps",
            "within = 1000 * c.epochs * self.eps",
            "a bound that nothing reaches",
        ),
        (
            "within = c.epochs * self.eps + rate * self.sum_rounding / n",
            "within = c.epochs * self.eps",
            "the sums of the losses are exact",
        ),
    ],
)

EXPECTED_ORDERS = Group(
    "theory/expected_orders.py",
    "expect_orders expect",
    [
        ("within = 2 * (off / full)", "within = 200 * (off / full)", "a bound beyond all rounding"),
        (
            "path = known_order(self.problem, config, epochs, off)",
            "path = known_order(self.problem, config, epochs)",
            "residuals are not rounded",
        ),
        ("* self.eps * losses[0] + seen.sum()", "* self.eps * losses[0]", "losses seen exactly"),
        (
            "off = off + (self.sum_rounding + moved / loss) * losses",
            "off = off + self.sum_rounding * losses",
            "what the order multiplies is forgotten",
        ),
    ],
)

EXPECTED_MOMENTS = Group(
    "theory/expected_moments.py",
    "expect phases",
    [
        (
            "if not (c.plain if whatever_lr else c.steps_are_plain):",
            "if not (c.plain if whatever_lr else True):",
            "numbers of plain steps for any rule",
        ),
        (
            'if not rule or set(c.options) - {"momentum", *more}:',
            "if not rule:",
            "numbers of momentum for weight decay too",
        ),
        (
            "losses[phases.steps_before(np.arange(c.epochs + 1))]",
            "losses[phases.steps_before(1) * np.arange(c.epochs + 1)]",
            "epochs of a changing batch size end after as many steps as the first",
        ),
    ],
)

TEXT = Group(
    "text.py",
    "claims",
    (
        (
            "if abs(value) < 1e4 or abs(value) >= 1e6 else",
            "if abs(value) < 1e2 or abs(value) >= 1e6 else",
            "numbers between 100 and 10,000 lose their digits",
        ),
    ),
)

HISTORY_GROWTH = Group(
    "history/growth.py",
    "predictions schedules sample_stream",
    (
        (
            "return float(loss[-1] / loss[-2])",
            "return float(loss[-1] / loss[0])",
            "growth of the whole run",
        ),
        ("** (1 / (2 * epochs)))", "** (1 / epochs))", "the factor of the loss, not of the error"),
        ("(loss[-1] / loss[-1 - epochs])", "(loss[-1] / loss[-epochs])", "an epoch too few"),
    ),
)

HISTORY_LOSSES = Group(
    "history/losses.py",
    "predictions schedules sample_stream",
    (
        (
            "found.append(theory.gap(loss, full, size, end))",
            "found.append(theory.gap(full, loss, size, end))",
            "batch and full loss change places",
        ),
    ),
)

STUDIES_PREDICTED = Group(
    "studies/predicted.py",
    "predictions schedules sample_stream",
    (
        (
            "(lambda run: median(run.distance)",
            "(lambda run: float(run.distance[0])",
            "the first seed for the median",
        ),
        (
            'if run.config.stop is not None and "stop_epoch" not in run.predicted:',
            'if run.config.stop is not None and "stop_epoch" in run.predicted:',
            "described where predicted, and silent where not",
        ),
    ),
)

GROUPS = [
    HISTORY,
    HISTORY_ARRAYS,
    LOAD,
    RUNS,
    COMPARISON,
    MEDIANS,
    TUNING,
    CLAIMS,
    PREDICT,
    FOLLOW,
    ROUNDING,
    HISTORY_COMPARE,
    TRACKING_COMPARE,
    STUDIES_CLAIMS,
    STOPPING,
    KNOWN,
    EXPECT,
    EXPECTED_ORDERS,
    EXPECTED_MOMENTS,
    TEXT,
    HISTORY_GROWTH,
    HISTORY_LOSSES,
    STUDIES_PREDICTED,
]
