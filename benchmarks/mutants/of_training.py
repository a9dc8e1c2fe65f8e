"""Faults of training: the loop, its epochs, settings, streams, checkpoints."""

from fault import Group

TRAINER = Group(
    "training/run.py",
    "train evaluate_every evaluation steps stop phases trajectory checkpoint orders schedules",
    [
        (
            'self.reason[self.reason == ""] = most',
            "self.reason[self.live] = most",
            "an interrupted run says that it is over",
        ),
        (
            "self.row_stride = config.record_rows and -(-most_rows // config.record_rows)",
            "self.row_stride = config.record_rows and most_rows // config.record_rows",
            "more rows than asked for, or none",
        ),
        (
            "ahead = 1 if self.adaptive else",
            "ahead = 2 if self.adaptive else",
            "an adaptive order is asked for an epoch it does not know",
        ),
        (
            "due[stopped[stopped < span.n_epochs]] = True",
            "pass",
            "a run that stops is not evaluated where it stops",
        ),
        (
            "| (epoch == self.phases.epochs)",
            "| (epoch == self.config.epochs)",
            "nor at its last epoch, where steps end it",
        ),
        (
            "| (epoch == self.phases.epochs)",
            "| (epoch == self.phases.epochs + 1)",
            "nor at its last epoch",
        ),
        (
            "self.epoch >= self.phases.epochs",
            "self.epoch >= self.config.epochs",
            "a run goes on beyond its steps",
        ),
        (
            "np.where(self.live[self.members], trace.diverged // span.m, 0)",
            "np.where(self.live[self.members], span.n_epochs, 0)",
            "a stop rule is asked about epochs after a seed diverged",
        ),
        (
            "np.where(self.live[self.members], trace.diverged // span.m, 0)",
            "trace.diverged // span.m",
            "and about seeds that have stopped",
        ),
        ("if k != columns.CLOCK}", "}", "a stop rule that is a function sees the clock"),
        (
            'if self.config.evaluate_every == 1 and "full_loss" not in epochs:',
            'if "full_loss" not in epochs:',
            "beside evaluate_every a function sees losses that are not there",
        ),
        (
            "later = done if self.config.stop is not None else GROWTH * done",
            "later = GROWTH * done",
            "beyond a stop more is computed than came before",
        ),
        (
            "FIRST_VALUES // values",
            "FIRST_VALUES // (values // len(self.members))",
            "the first chunk of many seeds is as long as that of one",
        ),
        (
            "else self.phases.until(self.epoch)",
            "else self.config.epochs - self.epoch",
            "a chunk goes on beyond a change of the batch size",
        ),
        (
            "if m <= most and not self.batch:",
            "if m <= most:",
            "an epoch that was begun is begun again once fewer replicas leave room for all of it",
        ),
        (
            "return Span(self.sizes[self.batch : last], 1, self.batch, last == m)",
            "span = Span(self.sizes[self.batch : last], 1, 0, last == m)",
            "batches of a long epoch are numbered from 0 in every chunk",
        ),
        (
            "before = int(self.phases.steps_before(self.epoch)) + span.first",
            "before = int(self.phases.steps_before(self.epoch))",
            "steps within a long epoch take the step sizes of its beginning",
        ),
        (
            "epochs = self.epochs.close(self.epoch, epochs, whole.ends, due)",
            "epochs = self.epochs.close(self.epoch + 1, epochs, whole.ends, due)",
            "epochs numbered one too high",
        ),
        (
            "return Whole(values[:-1], Known.at_all(slopes[:-1]), ends)",
            "return Whole(values[1:], Known.at_all(slopes[1:]), ends)",
            "the full loss of a step is that after it",
        ),
        (
            "ends = Ends(values[m::m], Known.at_all(slopes[m::m]))",
            "ends = Ends(values[:-1:m], Known.at_all(slopes[:-1:m]))",
            "an epoch's end is its beginning",
        ),
        (
            "values, slopes = problem.full(trace.ends(span).astype(float))",
            "values, slopes = problem.full(trace.w[:-1:m].astype(float))",
            "the same where no steps are recorded",
        ),
        (
            "ends = Ends(np.vstack([values[1:], value[None]]), Known.at_all(after))",
            "ends = Ends(values, Known.at_all(after))",
            "full batch: the loss at an epoch's end is that at its beginning",
        ),
        (
            "if (w == w[:1]).all():",
            "if True:",
            "seeds that start elsewhere are taken to start where the first does",
        ),
        (
            "self.boundary = loss[-1], slopes[-1] if due[-1] else None",
            "self.boundary = loss[0], slopes[0] if due[0] else None",
            "the next epoch begins at the wrong loss",
        ),
        (
            "at = m * (1 + ends.gradient.steps)",
            "at = m * ends.gradient.steps",
            "the full gradient at an epoch's end is that of its first step",
        ),
        (
            "values[m::m] = ends.loss[:-1]",
            "values[m::m] = ends.loss[1:]",
            "the full loss of an epoch's first step is an epoch late",
        ),
        (
            "ended = ((found.outcome > 0) | over) & self.live[self.members]",
            "ended = self.live[self.members]",
            "every chunk's last row is kept, not that of those that end",
        ),
        (
            "lr=rates[:, None],\n            problem",
            "lr=self.config.lr,\n            problem",
            "diagnostics see the first step size",
        ),
        (
            "w_start=self.w_start[self.members]",
            "w_start=self.w_start[: len(self.members)]",
            "after a seed ends, others take its first parameters",
        ),
        (
            "(span.first + position % span.m).astype",
            "(position % span.m).astype",
            "the batch's number within a long epoch",
        ),
        (
            "(self.epoch + 1 + position // span.m).astype",
            "(self.epoch + position // span.m).astype",
            "epochs of steps from 0",
        ),
        (
            "self.final_w[r] = trace.at(rows - failed, there)",
            "self.final_w[r] = trace.at(rows - 1, there)",
            "the last step is not in the final parameters",
        ),
        (
            "self.stop_epoch[r] = self.epoch + done + failed",
            "self.stop_epoch[r] = self.epoch + done",
            "a divergence counts for the epoch before",
        ),
        (
            "[self.members][None, :]",
            "[: len(self.members)][None, :]",
            "rows carry the seeds of others once one has ended",
        ),
        (
            "        self.sampler.retain(keep.tolist())\n",
            "        self.sampler.retain(list(range(len(keep))))\n",
            "those that go on take the orders of those that ended",
        ),
        (
            "self.boundary = loss[keep], kept",
            "self.boundary = loss[: len(keep)], kept",
            "the boundary loss of other seeds",
        ),
    ],
)

PRODUCTS = Group(
    "training/compiled/products.py",
    "products",
    [
        (
            "go_on && j < n ? c[i * ci + j * cj] : 0",
            "0",
            "a sum of many terms is that of its last block",
        ),
        (
            "b[(k + e) * bk + (j + f) * bj] : 0;",
            "b[(k + e) * bk + f * bj] : 0;",
            "every block of columns is the first",
        ),
        (
            "if constexpr (N % COLUMNS != 0)",
            "if constexpr (N % COLUMNS == 1)",
            "the last two or three columns are never written",
        ),
        (
            "return product<N, M, K>(b, bj, bk, a, ak, ai, c, cj, ci);",
            "return product<N, M, K>(b, bj, bk, a, ak, ai, c, ci, cj);",
            "a product with few columns is written as its transpose",
        ),
    ],
)

EPOCHS = Group(
    "training/epochs.py",
    "epochs train evaluate_every evaluation schedules phases sample_stream trajectory checkpoint",
    [
        (
            '"weighted_loss": sizes[:, None] * loss',
            '"weighted_loss": sizes.mean() * loss',
            "the running loss counts a short batch as a full one",
        ),
        (
            '"grad_norm": sizes[:, None] * by_epoch(trace.grad_norm)',
            '"grad_norm": sizes.mean() * by_epoch(trace.grad_norm)',
            "mean_grad_norm without weights",
        ),
        (
            '"mean_grad_norm": sums["grad_norm"] / n,',
            '"mean_grad_norm": norm(sums["grad"] / n),',
            "the norm of the mean for the mean of the norms",
        ),
        (
            'sums["loss"] / len(sizes)',
            'sums["loss"] / n',
            "the plain mean over samples, not batches",
        ),
        (
            "self._last = loss[:, -1], trace.ends",
            "self._last = loss[:, 0], trace.ends",
            "last_loss of the first batch",
        ),
        (
            "self.problem, done + 1 + np.arange(len(end_w))",
            "self.problem, done + np.arange(len(end_w))",
            "the true parameters an epoch ago; averages begin late",
        ),
        (
            "problem.true_at(self.phases.steps_before(at))",
            "problem.true_at(at)",
            "the true parameters after so many epochs, not steps",
        ),
        (
            "partial(problem.scores, w, test=True)",
            "partial(problem.scores, w)",
            "accuracy on the data trained on",
        ),
        (
            "skipped = int(self.config.average * self.phases.epochs)",
            "skipped = int((1 - self.config.average) * self.phases.epochs)",
            "the head for the tail",
        ),
        (
            "counts = (epoch > skipped)",
            "counts = (epoch >= skipped)",
            "an epoch too many is averaged",
        ),
        (
            "self.averaged = total[-1]",
            "self.averaged = total[0]",
            "the sum goes on from the wrong epoch of a chunk",
        ),
        (
            "n = (before(epoch) - before(skipped))[:, None, None]",
            "n = before(epoch)[:, None, None]",
            "divided by all epochs",
        ),
        (
            "self.averaged = self.averaged[live]",
            "self.averaged = self.averaged[: len(live)]",
            "sums of other seeds",
        ),
        (
            "name: value[:, live] for name, value in self.sums.items()",
            "name: value[:, : len(live)] for name, value in self.sums.items()",
            "the same within a long epoch",
        ),
        (
            "evaluated[name][due] = values.reshape(ends.shape[:-1])",
            "evaluated[name][: due.sum()] = values.reshape(ends.shape[:-1])",
            "what is evaluated stands at other epochs",
        ),
    ],
)

RECORDED = Group(
    "training/recorded.py",
    "recorded epochs train",
    [
        (
            "total += values[:, k] * weights[k]",
            "total += values[:, k] * weights[0]",
            "norm_mean_grad without weights, of many numbers",
        ),
        (
            "return sum_batches(values * weights[:, None, None], before)",
            "return sum_batches(values * weights[0], before)",
            "norm_mean_grad without weights, of few numbers",
        ),
        (
            "if before is None else before + values[:, 0] * weights[0]",
            "if before is None else values[:, 0] * weights[0]",
            "what came before the chunk is lost, of many numbers",
        ),
        (
            "        values = np.concatenate([before[:, None], values], axis=1)\n",
            "        pass\n",
            "a long epoch is its last chunk",
        ),
        (
            "total = values[:, 0] * weights[0] if before is None else before +",
            "total = values[:, 0] * weights[0] if before is None else",
            "the mean gradient of a long epoch is that of its last chunk",
        ),
        (
            "self.norms[1, step] = lengths(torch.sub(w, self.w, out=self.way))",
            "self.norms[1, step] = lengths(torch.sub(w, self.start, out=self.way))",
            "the length of a step is the way from the start, of large models",
        ),
        (
            "w = torch.where(self.over[:, None], self.w, w)",
            "pass",
            "a large model that diverges ends with NaN",
        ),
        (
            "self.sums[epoch].add_(gradient, alpha=self.sizes[batch])",
            "self.sums[epoch].add_(gradient)",
            "norm_mean_grad without weights, of large models",
        ),
        (
            "if ((found > TINY) & (found < torch.inf)).all():",
            "if True:",
            "a gradient of 1e25 is taken for a divergence, of large models",
        ),
        (
            "return len(self.loss) // len(self.gradient)",
            "return 1",
            "vectors of epochs are taken for those of steps",
        ),
    ],
)

STREAMS = Group(
    "training/sample_stream.py",
    "sample_stream checkpoint",
    [
        (
            "self._rest[r] = x[n:].clone(), y[n:].clone()",
            "self._rest[r] = x[:0].clone(), y[:0].clone()",
            "what is left of a block is lost",
        ),
        (
            "self.problem.stream(generator_of(seed, self.problem.draws_starts))",
            "self.problem.stream(generator_of(0, self.problem.draws_starts))",
            "all seeds see the same samples",
        ),
        (
            "self._parts = [self._parts[r] for r in live]",
            "self._parts = self._parts[: len(live)]",
            "the streams of other seeds",
        ),
        (
            "self._rest = [self._rest[r] for r in live]",
            "self._rest = self._rest[: len(live)]",
            "the rest of other seeds' blocks",
        ),
        ("            self.take(n)\n", "", "after a checkpoint a stream begins anew"),
        (
            "            taken -= n\n",
            "            taken = 0\n",
            "no more than 100,000 samples are read again",
        ),
        (
            'if config.order == "stream" and config.batch_size is not None:',
            'if config.order == "stream" and config.batch_size == 1:',
            "a stream is read one sample at a time only",
        ),
    ],
)

CHECKPOINT = Group(
    "training/checkpoint.py",
    "checkpoint",
    [
        (
            'if not np.array_equal(probe, parts["run"]["probe"].numpy(), equal_nan=True):',
            'if probe.shape != parts["run"]["probe"].shape:',
            "another model goes on",
        )
    ],
)

CHUNK = Group(
    "training/chunk.py",
    "train trajectory checkpoint orders schedules",
    [
        (
            "return np.where(bad.any(0), bad.argmax(0), len(bad))",
            "return np.where(bad.any(0), bad.argmax(0) + 1, len(bad))",
            "divergence found a step late",
        ),
        ("bad |= doubtful", "pass", "a gradient that overflows before the loss is no divergence"),
        (
            "if self.every == 1:  # in",
            "if False:  # in",
            "a gradient of 1e200, whose norm is none in float64, is a divergence",
        ),
        (
            "converged = (stopped < span.n_epochs) & (by_stop <= diverged)",
            "converged = stopped < span.n_epochs",
            "a seed that diverged before converges",
        ),
        (
            "rows = np.where(failed, diverged + 1, by_stop)",
            "rows = np.where(failed, diverged, by_stop)",
            "the row of the step that diverged is lost",
        ),
        (
            "by_stop = np.where(stopped < span.n_epochs, (stopped + 1) * m, n_steps)",
            "by_stop = np.where(stopped < span.n_epochs, stopped * m, n_steps)",
            "the epoch that stopped is lost",
        ),
    ],
)

STATE = Group(
    "training/state.py",
    "checkpoint",
    [
        (
            "for name, value in found.items():",
            'for name, value in (found | {"n_steps": run.n_steps}).items():',
            "steps taken before do not count",
        ),
        (
            'for name in ("averaged", "ema") if name in arrays}',
            'for name in ("ema",) if name in arrays}',
            "the average begins anew",
        ),
        ('"sums": epochs["sums"],\n', '"sums": {},\n', "the sums of an epoch begin anew"),
        ('"rule": rules.state_dict(run.state),\n', '"rule": {},\n', "momentum is lost"),
        (
            'at["epoch"] * run.per_epoch + int(begun.sum())',
            'at["epoch"] * run.per_epoch',
            "the order goes on at the beginning of an epoch",
        ),
        (
            '[config.seeds[r] for r in arrays["members"]]',
            'list(config.seeds)[: len(arrays["members"])]',
            "those left take the orders of others",
        ),
        (
            '"at": {"epoch": run.epoch, "batch": run.batch, "over": run.over}',
            '"at": {"epoch": run.epoch, "batch": 0, "over": run.over}',
            "goes on at the beginning of an epoch",
        ),
    ],
)

CONFIG = Group(
    "recipe/config.py",
    "train schedules bad_input orders predictions clipping drop_last phases steps",
    [
        (
            "return named and not self.clips and",
            "return named and",
            "a clipped step is taken for a plain one",
        ),
        (
            'in ("notebook", "SGD") and not self.options',
            'in ("notebook", "SGD")',
            "momentum is taken for none",
        ),
        (
            "sizes = {0: self.batch_size or d} | dict",
            "sizes = {0: self.batch_size or 1} | dict",
            "full batch by single samples",
        ),
        ("if size > problem.d:", "if size >= problem.d:", "B = d is refused"),
        (
            "for size in (self.batch_size or problem.d, *dict(self.batch_schedule).values()):",
            "for size in (self.batch_size or problem.d,):",
            "a later batch size beyond the data is let through",
        ),
        (
            "self.schedule is None and not self.batch_schedule",
            "self.schedule is None",
            "steps of a changing batch size are taken for those of one",
        ),
        (
            "if n_epochs < self.n_epochs(d):",
            "if n_epochs < self.n_epochs(d) - 1:",
            "an order of an epoch too few",
        ),
        (
            "if n_epochs < self.n_epochs(d):",
            "if n_epochs < self.epochs:",
            "an order has to go on beyond the steps",
        ),
        (
            "if self.steps > every.n_steps:",
            "if self.steps >= every.n_steps:",
            "all the steps of the epochs are too many",
        ),
        (
            "needed = self.epochs - (every.n_steps - self.steps) // last",
            "needed = self.epochs + (self.steps - every.n_steps) // last",
            "an epoch too few is named",
        ),
        (
            "if self._whole_phases(d).steps_before(epochs) != self.steps:",
            "if self._whole_phases(d).steps_before(epochs) < self.steps:",
            "theory follows an epoch that is cut short to its end",
        ),
        (
            "begun = tuple(pair for pair in self.batch_schedule if pair[0] < epochs)",
            "begun = self.batch_schedule",
            "what comes after the last epoch is refused",
        ),
        (
            'schedules.make(*given, known.epochs, "epoch")',
            'schedules.make(*given, self.epochs, "epoch")',
            "a schedule by epoch ends after the run",
        ),
        (
            "lambda v: 0 <= v < 1, allowed",
            "lambda v: 0 < v < 1, allowed",
            "averaging from the beginning is refused",
        ),
        (
            "if lowest < 0 or highest >= d:",
            "if lowest < 0 or highest > d:",
            "an index too high is let through",
        ),
    ],
)

OWN_COLUMNS = Group(
    "recipe/own_columns.py",
    "config train",
    [
        (
            "name for name in METRICS if name in known)[:MOST_METRICS]",
            "name for name in METRICS if name in known)[: MOST_METRICS + 1]",
            "nine keys",
        )
    ],
)

TRAJECTORY = Group(
    "training/trajectory.py",
    "trajectory",
    [
        (
            "self.live = self.live[live]",
            "self.live = torch.arange(len(live))",
            "the steps of other replicas",
        ),
        ("self._taken += n", "self._taken = n", "the same samples again"),
        (
            "self.indices[self._taken // size : (self._taken + n) // size, self.live]",
            "self.indices[self._taken // size : (self._taken + n) // size, :len(self.live)]",
            "samples of other replicas",
        ),
        (
            "order = self.indices.transpose(0, 1).reshape(self.n_replicas, -1, m, batch)",
            "order = self.indices.reshape(self.n_replicas, -1, m, batch)",
            "the samples of one replica stand for another's",
        ),
        (
            "if bool((order == order[:1]).all()):",
            "if bool((order == order[:1]).any()):",
            "replicas with one sample in common have one order",
        ),
        ("m = min(one_pass, self.n_steps)", "m = one_pass", "less than a pass is refused"),
        (
            "steps = slice(first - 1, first - 1 + n_epochs * len(sizes))",
            "steps = slice(first, first + n_epochs * len(sizes))",
            "losses a step late",
        ),
        (
            "loss = loss if self.losses is None else self.losses[steps, self.live]",
            "loss = loss",
            "the losses given are not used",
        ),
        (
            "every = indices.reshape(n, n_steps, -1).transpose(0, 1)",
            "every = indices.reshape(n_steps, n, -1)",
            "samples of another step",
        ),
    ],
)

STOP = Group(
    "recipe/stop.py",
    "stop train",
    [
        (
            "else values < sign * epsilon",
            "else values <= sign * epsilon",
            "stops at a loss of exactly epsilon",
        ),
        (
            "return np.where(ends.any(0), ends.argmax(0), n)",
            "return np.where(ends[0], 0, n)",
            "only the first epoch of a chunk is looked at",
        ),
        (
            "Watch(row[-1], best[-1])",
            "Watch(0 * row[-1], best[-1])",
            "patience begins anew with every chunk",
        ),
        (
            "Watch(row[-1], best[-1])",
            "Watch(row[-1], values[-1])",
            "no better than the last epoch, not than the best, from chunk to chunk",
        ),
        ("ends = row >= patience", "ends = row > patience", "an epoch too patient"),
        (
            "if row[r] >= patience else n",
            "if row[r] > patience else n",
            "a function's, an epoch too patient",
        ),
        (
            "row[r] = row[r] + 1 if found else 0",
            "row[r] = row[r] + found",
            "a function that holds now and then is enough",
        ),
        (
            "np.flatnonzero((epoch < there) & (first == n))",
            "np.flatnonzero(epoch < there)",
            "asked again after it stopped a seed, which then goes on",
        ),
        (
            "return first, before._replace(row=row)",
            "return first, before",
            "a function's patience begins anew with every chunk",
        ),
        (
            'return checks.truth(f"what {name} returns", found)',
            "return bool(found)",
            "a function that returns a loss stops at once",
        ),
        (
            "-1.0 if columns.more_is_better(column_of(rule)) else 1.0",
            "1.0",
            "an accuracy stops below epsilon",
        ),
    ],
)

DRAWS = Group(
    "recipe/draw_cache.py",
    "orders",
    [
        (
            "return self.blocks[-1][position - last :]",
            "return self.blocks[-1]",
            "read again from the block's beginning",
        ),
        (
            "return self.blocks[0][position:]",
            "return self.blocks[0]",
            "read again from the beginning",
        ),
    ],
)

PHASES = Group(
    "recipe/phases.py",
    "phases steps",
    [
        (
            "(epoch - before) * len(self.parts[-1].sizes)",
            "epoch * len(self.parts[-1].sizes)",
            "a third phase begins too late",
        ),
        (
            "if part.epoch <= epoch)",
            "if part.epoch < epoch or not part.epoch)",
            "the batch size changes an epoch late",
        ),
        ("if part.epoch > epoch)", "if part.epoch >= epoch)", "no epoch is left of a new phase"),
        (
            "return next(later, self.epochs) - epoch",
            "return self.epochs - epoch",
            "epochs of all phases are alike",
        ),
        (
            "return step + (np.asarray(epoch) - first) * m",
            "return np.asarray(epoch) * m",
            "all epochs before had as many steps",
        ),
        (
            "return first + (np.asarray(step) - start) // m",
            "return np.asarray(step) // m",
            "the same of a step's epoch",
        ),
        (
            'np.searchsorted(starts, where, side="right") - 1',
            'np.searchsorted(starts, where, side="left") - 1',
            "the first step of a phase counts with the phase before",
        ),
        (
            "np.tile(part.sizes, end - part.epoch)",
            "np.tile(part.sizes, end)",
            "too many steps after the first phase",
        ),
        (
            "sizes[whole] = self.at(whole).sizes[:rest]",
            "sizes[whole] = self.at(whole).sizes[-rest:]",
            "an epoch that is cut short has its last batches",
        ),
        ("if part.epoch < whole}", "if part.epoch <= whole}", "a phase without an epoch"),
        (
            "return Phases(sizes, whole + bool(rest))",
            "return Phases(sizes, whole + 1)",
            "an epoch too many where the steps end with one",
        ),
        (
            "np.concatenate([part.sizes for part in self.parts])",
            "np.concatenate([part.sizes[:1] for part in self.parts])",
            "no ragged batch",
        ),
    ],
)

ENGINES = Group(
    "training/engines.py",
    "engines train schedules",
    [
        ("first = ahead.first - 1", "first = ahead.first", "step sizes a step early"),
        (
            "if count < len(sizes):  # the ragged last batch",
            "if False:  # the ragged last batch",
            "the ragged batch is left out",
        ),
    ],
)

TRAIN_GRID = Group(
    "training/train_grid.py",
    "train_grid",
    [
        (
            "return [found[k] for k in range(len(configs))]",
            "return list(found.values())",
            "histories in the order in which they end",
        ),
        (
            "if found:  # what can be read once only is settled by now",
            "if False:",
            "seeds that can be read once are gone at the second combination",
        ),
        (
            'changes = {"optimizer": optimizer, "lr"',
            'changes = {"lr"',
            "a class of torch's gets the step size of a name",
        ),
        (
            "return draw_cache.shared(len(config.seeds)",
            "return draw_cache.shared(0 * len(config.seeds)",
            "orders are kept however long they are",
        ),
        (
            "if not is_worth_compiling(config, config.n_steps(problem.d)):",
            "if True:",
            "orders are drawn for every combination",
        ),
        (
            "with _orders_drawn_once(problem, configs[0]), interrupt_flag():",
            "with _orders_drawn_once(problem, configs[0]):",
            "a Ctrl-C ends one combination, and the next begins",
        ),
    ],
)

ONE_BY_ONE = Group(
    "recipe/one_by_one.py",
    "closures own_optimizer",
    [
        (
            "here = (loss, gradient) if torch.equal(w, start) else at.again(r, w)",
            "here = loss, gradient",
            "a closure repeats the loss and gradient that were before the step",
        ),
        (
            "            self._lay(here[1])",
            "            pass",
            "a closure leaves the gradient as it was",
        ),
        (
            "if finite[r] else w[r])",
            "if True else w[r])",
            "a search goes on among losses that are no numbers",
        ),
        (
            "return _told(replica) == _told(again)",
            "return True",
            "what an optimiser remembers in objects of its own from some step on is not missed",
        ),
        (
            "for kind, held in own.items():",
            "for kind, held in ():",
            "a counter of an optimiser's own is not kept",
        ),
        ("_layout([params, *own])", "[]", "tensors of a state that share memory are written apart"),
        (
            "else json.loads(json.dumps(value))",
            "else value",
            "what JSON makes of a state, as lists of tuples, is not seen",
        ),
    ],
)

TRACKING_RESUME = Group(
    "tracking/resume.py",
    "checkpoint",
    (
        (
            "            if there < n:\n",
            "            if there < 0:\n",
            "rows that are missing are not missed",
        ),
        ("self._began -= seconds", "self._began += seconds", "the time taken before is taken off"),
    ),
)

GROUPS = [
    TRAINER,
    PRODUCTS,
    EPOCHS,
    RECORDED,
    STREAMS,
    CHECKPOINT,
    STATE,
    CHUNK,
    CONFIG,
    OWN_COLUMNS,
    STOP,
    TRAJECTORY,
    DRAWS,
    ENGINES,
    TRAIN_GRID,
    PHASES,
    ONE_BY_ONE,
    TRACKING_RESUME,
]
