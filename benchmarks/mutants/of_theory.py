"""Faults of `theory`: what is expected before anything runs."""

from fault import Group

DESCENT = Group(
    "theory/descent.py",
    "theory theory_kinds",
    [
        (
            "return float(2 / ls.modes[0][-1])",
            "return float(1 / ls.modes[0][-1])",
            "half the limit",
        ),
        (
            "return float(2 / (spectrum[0] + spectrum[-1]))",
            "return float(1 / spectrum[-1])",
            "the best rate's step is 1 / lambda_max",
        ),
        (
            "((1 - lr * ls.modes[0][there]) ** 2) **",
            "np.abs(1 - lr * ls.modes[0][there]) **",
            "the loss falls as the error",
        ),
        (
            "return spectrum / 2 * ((np.asarray",
            "return spectrum * ((np.asarray",
            "the half is forgotten",
        ),
        ("(1 - lr * spectrum) ** k * c)", "(1 - lr * spectrum) ** (k + 1) * c)", "a step more"),
        ("return float(high + 1)", "return float(high)", "epochs counted from 0"),
        (
            "(low, middle) if after >= before else (middle, high)",
            "(middle, high) if after >= before else (low, middle)",
            "away from the valley",
        ),
        ("(1 - lr * ls.modes[0][-1]) ** 2", "abs(1 - lr * ls.modes[0][-1])", "not squared"),
        ("(8 * lr**2 * spectrum[0])", "(8 * lr**2 * spectrum[-1])", "along the steepest direction"),
        ("middle, k)[1] > 0", "middle, k)[1] < 0", "the step size goes away from the least loss"),
        (
            "target = np.log(epsilon - ls.least_loss)",
            "target = np.log(epsilon)",
            "the least loss is not taken off the target",
        ),
        (
            "end + start - vectors @ (vectors.T @ start)",
            "end + start",
            "what the start has in moving directions stays",
        ),
    ],
)

ORDER_BATCHES = Group(
    "theory/order_batches.py",
    "theory theory_kinds",
    [
        ("epoch - 1, None))", "epoch, None))", "the batches of the epoch after"),
        ("losses.append((error**2).sum(1) / n)", "losses.append((error**2).sum(1))", "a sum"),
        ("hessians.append(2 / n *", "hessians.append(1 / n *", "half the Hessian"),
    ],
)

FIXED_ORDER = Group(
    "theory/fixed_order.py",
    "theory theory_kinds",
    [
        (
            "matrix, offset = factor @ matrix, factor @ offset - lr * gradient",
            "matrix, offset = matrix @ factor, factor @ offset - lr * gradient",
            "the factors the wrong way round",
        ),
        (
            "return self.batch @ (self.sizes / self.sizes.sum())",
            "return self.batch.mean(1)",
            "a short batch counts as a full one",
        ),
        (
            "z = z - lr * (h @ z + g)\n",
            "z = z - lr * (h @ z)\n",
            "the gradients at the minimum are forgotten",
        ),
        (
            "b.hessians / 2, path[:-1]) + b.gradients",
            "b.hessians / 2, path[1:]) + b.gradients",
            "the loss of a batch half after its step",
        ),
        ("form += weight * ahead.T", "form += ahead.T / len(share)", "no weight by size"),
        ("[[h / 2, g[:, None] / 2], [g[None] / 2,", "[[h / 2, g[:, None]], [g[None],", "twice g"),
        (
            "np.linalg.solve(np.eye(len(offset)) - matrix, offset)",
            "np.linalg.solve(np.eye(len(offset)) + matrix, offset)",
            "I + M for I - M",
        ),
        ("float((z.T * hessian * z)[0]) / 2", "float((z.T * hessian * z)[0])", "no half"),
        (
            "start = max(0, j + 1 - len(b.hessians))",
            "start = max(0, j + 2 - len(b.hessians))",
            "stretches of m batches are left out",
        ),
        (
            "start = max(0, j + 1 - len(b.hessians))  #",
            "start = max(0, j - len(b.hessians))  #",
            "a stretch of m + 1 batches, more than an epoch, counts",
        ),
        ("one = int(norms[:, 0].argmax())", "one = 0", "no single factor but the first is tried"),
        (
            "largest * np.finfo(float).eps < 1e-6",
            "largest * np.finfo(float).eps < 1e6",
            "in float64 where the product cancels (growth over 1e10)",
        ),
        (
            "np.abs(np.linalg.eigvals(matrix)).max())",
            "np.linalg.eigvals(matrix).real.max())",
            "the largest, not the largest in size",
        ),
        (
            "(middle, high) if exact_radius(b, middle) < 1 else (low, middle)",
            "(low, middle) if exact_radius(b, middle) < 1 else (middle, high)",
            "bisection goes the wrong way",
        ),
        ("good = fixed_point_loss(ls, b, middle) < epsilon", "good = True", "the upper end"),
    ],
)

RANDOM_STEP = Group(
    "theory/random_step.py",
    "theory batch_size step_sizes tuning theory_kinds stationary_covariance fastest",
    [
        (
            "return 1 / batch_size if replacement else finite_share(d, batch_size)",
            "return 1 / batch_size",
            "drawn with replacement, whatever was asked",
        ),
        ("each = 2 / phi.shape[1] * np.einsum", "each = 2 * np.einsum", "no mean over outputs"),
        (
            ".reshape(p * p, p * p) - np.kron(h, h)",
            ".reshape(p * p, p * p)",
            "a raw second moment for a covariance",
        ),
        (
            "cross = (one.pair + one.pair.transpose(1, 0, 2))",
            "cross = (2 * one.pair)",
            "the cross term is not made symmetric",
        ),
        (
            "share * np.kron(push, push)",
            "np.kron(push, push)",
            "the noise of single samples, whatever the batch",
        ),
        (
            "[[1.0, -lr * by_v], [0.0, momentum]]",
            "[[1.0, lr * by_v], [0.0, momentum]]",
            "momentum pushes back",
        ),
        (
            "(momentum**2, 1 + momentum) if nesterov",
            "(momentum, 1 + momentum) if nesterov",
            "Nesterov's velocity moves twice",
        ),
    ],
)

STATIONARY = Group(
    "theory/stationary.py",
    "theory batch_size step_sizes tuning theory_kinds stationary_covariance fastest",
    [
        (
            "np.linalg.eigvalsh(_pull(one, lr, share))[0])",
            "np.linalg.eigvalsh(_pull(one, lr, share))[-1])",
            "the fastest mode for the slowest",
        ),
        ("(ls.hessian * c).sum() / 2)", "(ls.hessian * c).sum())", "the half is forgotten"),
        (
            "(steps[size].second @ c.ravel() + steps[size].noise)",
            "(steps[sizes[0]].second @ c.ravel() + steps[sizes[0]].noise)",
            "a ragged batch is taken for a whole one",
        ),
        (
            "noise / (values[:, None] + values)",
            "noise / (2 * values[:, None])",
            "two modes have the curvature of the first",
        ),
        ("scale = max(radius, 1e-3)", "scale = 1.0", "the power of many steps overflows"),
        ("epoch = last / scale @", "epoch = step / scale @", "the last batch is as large"),
        ("* 4 / outputs**2 / d", "* 4 / outputs / d", "the square of a mean over outputs"),
        (
            "share * random + (1 - share) * np.outer",
            "share * random + np.outer",
            "E[H]^2 counts in full",
        ),
        (
            "epoch)).max() ** (1 / len(sizes)))",
            "epoch)).max())",
            "the radius of an epoch, not of a step",
        ),
        (
            "np.kron(h, h) + share * one.covariance",
            "np.kron(h, h) + one.covariance",
            "the noise of single samples",
        ),
        (
            "noise = q @ (sums * added) + power @ noise",
            "noise = q @ (sums * added) + noise",
            "noise of before does not contract",
        ),
    ],
)

RANDOM_ORDER = Group(
    "theory/random_order.py",
    "theory batch_size step_sizes tuning theory_kinds stationary_covariance fastest",
    [
        (
            "square[:n, :n] = unit.second - np.eye(n) + linear[:n, :n]",
            "square[:n, :n] = unit.second - np.eye(n)",
            "the part linear in lr counts twice",
        ),
        (
            "square = squares[size]",
            "square = squares[int(sizes[0])]",
            "the short last batch is taken for a full one",
        ),
        (
            "linear @ found[t] - lr * (square @ found[t])",
            "linear @ found[t] + lr * (square @ found[t])",
            "the square term has the wrong sign",
        ),
        ("once[-1, :n] = size * h / 2", "once[-1, :n] = h / 2", "weights of the running loss"),
        (
            "np.linalg.matrix_power(once, sizes.count(size)) @ epoch_map",
            "epoch_map @ np.linalg.matrix_power(once, sizes.count(size))",
            "the short batch comes first",
        ),
        ("        state[-1] = 0.0\n", "", "the running loss sums over all epochs"),
        ("losses < epsilon)\n", "losses <= epsilon)\n", "reached at equality"),
        (
            "return float(below[0] + 1) if len(below)",
            "return float(below[0]) if len(below)",
            "from 0",
        ),
        (
            "half = np.abs(np.asarray(x, dtype=float)) / 2",
            "half = np.abs(np.asarray(x, dtype=float))",
            "x for x / 2",
        ),
        ("1 - np.tanh(safe) / safe)", "np.tanh(safe) / safe)", "the share removed"),
        (
            "np.divide(1 + a, 1 - a,",
            "np.divide(np.ones_like(a), 1 - a,",
            "half the factor for small steps",
        ),
        ("half**2 / 3 - 2", "half**2 / 6 - 2", "half the series"),
    ],
)

PATHS = Group(
    "theory/paths.py",
    "theory theory_kinds tuning",
    [
        ("return step + 1.0", "return float(step)", "steps from 0"),
        ("gradient = 2 / len(error) * phi.T", "gradient = 1 / len(error) * phi.T", "half a step"),
        ("slope = 2 / rows.shape[1] *", "slope = 1 / rows.shape[1] *", "half the gradient"),
        (
            "if epoch >= burn else 0.0",
            "if epoch > burn else 0.0",
            "an epoch is left out, and divided by",
        ),
        (
            "moved = momentum * moved - lr * slope",
            "moved = momentum * moved - (1 - momentum) * lr * slope",
            "dampened momentum",
        ),
        (
            "return total / (measured * len(sizes))",
            "return total / measured",
            "the exponent of an epoch, not of a step",
        ),
        (
            "torch.finfo(problem.dtype if dtype is None else getattr(torch, dtype)).max",
            "torch.finfo(torch.float32).max",
            "the limit of float32, whatever the run's dtype",
        ),
        ("grown + momentum) / 2", "grown + momentum)", "the roots of another polynomial"),
        (
            "replacement=replacement) < 0",
            "replacement=replacement) > 0",
            "bisection goes the wrong way",
        ),
    ],
)

RATES = Group(
    "theory/rates.py",
    "rates theory_kinds",
    [
        ("h, unit = ls.hessian, time / d\n", "h, unit = ls.hessian, time\n", "lr d K for lr K"),
        (
            "bias = float(np.sum(np.linalg.solve(h, unit / d * mean) ** 2))",
            "bias = float(np.sum(np.linalg.solve(h, unit * mean) ** 2))",
            "the bias d^2 times too large",
        ),
        (
            "pairs + np.outer(mean, mean)).T",
            "pairs).T",
            "the mean of the sum over pairs is forgotten",
        ),
        ("reversed_ = 4 / 45 *", "reversed_ = 4 / 9 *", "the constant of flip-flop"),
        ("unit**5 / (2 * d) *", "unit**5 / d *", "flip-flop counts its epochs one by one"),
        (
            "before = np.cumsum(g[order], axis=0) - g[order]",
            "before = np.cumsum(g[order], axis=0)",
            "a sample comes before itself",
        ),
        ("time / len(order) ** 2 * pairs", "time / len(order) * pairs", "d times too large"),
        (
            "return np.tensordot(centred, np.log(y), 1)",
            "return np.tensordot(centred, y, 1)",
            "no log",
        ),
        (
            "[(1 - confidence) / 2, (1 + confidence) / 2]",
            "[(1 - confidence), confidence]",
            "an interval of 90 % for one of 95 %",
        ),
        (
            "np.full(n, 1 / n), draws) / n",
            "np.full(n, 1 / n), (len(x), draws)).mean(0) / n",
            "the seeds' weights averaged: an interval far too short",
        ),
        ("a = moved - moved.swapaxes(0, 1)", "a = moved + moved.swapaxes(0, 1)", "wrong sign"),
        ('"ijp,ijq->pq", a, a) / 24', '"ijp,ijq->pq", a, a) / 12', "every pair counts twice"),
        ("(turned) / (2 * values))", "(turned) / values)", "HC = Q for HC + CH = Q"),
    ],
)

BATCH_SIZE = Group(
    "theory/batch_size.py",
    "batch_size theory_kinds",
    [
        (
            "return self.terms[0] / self.terms[1]",
            "return self.terms[2] / self.terms[1]",
            "tr(H Sigma) for tr(Sigma)",
        ),
        (
            "a, b = np.maximum(over[:-1], over[1:]), np.minimum(over[:-1], over[1:])",
            "a, b = over[:-1], over[1:]",
            "a curve that rises through the target counts as none",
        ),
        (
            "below = np.flatnonzero(second @ h / 2 < target)",
            "below = np.flatnonzero(second @ h < target)",
            "2x",
        ),
        ("end = below[0] + 1 if", "end = below[0] if", "the path ends before the target is met"),
        (
            "spread = one.second - np.kron(one.mean, one.mean)",
            "spread = one.second",
            "no mean is taken off the second moment",
        ),
        (
            "sigma = c @ spread.T + z @ one.cross.T + one.noise",
            "sigma = c @ spread.T + one.noise",
            "the cross term is forgotten",
        ),
        (
            "return 1 - excess / stationary",
            "return excess / stationary",
            "the sign and the 1 are forgotten",
        ),
        ("(lr_limit(ls) / lr - 1)", "(lr_limit(ls) / lr)", "the 1 is forgotten"),
        (
            "rows = np.stack([1 / taken, 1 / (size * taken)], 1)\n"
            "    least, samples = np.linalg.lstsq(rows, np.ones(len(taken)), rcond=None)[0]",
            "rows = np.stack([np.ones(len(size)), 1 / size], 1)\n"
            "    least, samples = np.linalg.lstsq(rows, taken, rcond=None)[0]",
            "absolute errors are made least, not relative ones",
        ),
        ("float(samples / least)", "float(samples)", "E_min for B_c"),
    ],
)

BATCH_VS_FULL = Group(
    "theory/batch_vs_full.py",
    "theory theory_kinds",
    [
        (
            "share = size / size.sum()\n",
            "share = np.full(len(size), 1 / len(size))\n",
            "no weights",
        ),
        ("(share @ (full_loss - full_end))", "(share @ (full_end - full_loss))", "the wrong sign"),
        ("float(loss.mean() - share @ loss)", "float(share @ loss - loss.mean())", "wrong sign"),
        ("return norm, np.sqrt(m) * norm", "return norm, m * norm", "m for sqrt(m)"),
        ("size.min() / size.sum()", "size.max() / size.sum()", "the largest batch, not the least"),
        ("rows = 2 * error[:, None]", "rows = error[:, None]", "half the gradients"),
        ("gradients(ls, w, d).var(0).sum())", "gradients(ls, w, d).var(0, ddof=1).sum())", "ddof"),
        (
            "(d - batch_size) / (batch_size * max(d - 1, 1))",
            "(d - batch_size) / (batch_size * d)",
            "d",
        ),
        ("return -trace_sigma(ls, w, d) /", "return trace_sigma(ls, w, d) /", "the wrong sign"),
    ],
)

STABILITY = Group(
    "theory/stability.py",
    "stability theory_kinds",
    [
        ("return (2 + 2 * momentum) /", "return (2 - 2 * momentum) /", "momentum lowers the limit"),
        ("(1 + 2 * momentum if nesterov else 1)", "(1 + momentum if nesterov else 1)", "Nesterov"),
        (
            "keep = s > FLAT * s.max(initial=0)",
            "keep = s > 0.1 * s.max(initial=0)",
            "too much flat",
        ),
        (
            "error = (exact.y - exact.model(at, exact.x))",
            "error = (exact.model(at, exact.x) - exact.y)",
            "the residual has the wrong sign",
        ),
    ],
)

STEP_SIZES = Group(
    "theory/step_sizes.py",
    "step_sizes theory_kinds phases",
    [
        (
            'return np.resize(batch_sizes("shuffle", d, batch_size), n)',
            "return np.full(n, batch_size)",
            "the short last batch is taken for a full one",
        ),
        ("second @ ls.hessian.ravel() / 2", "second @ ls.hessian.ravel()", "no half"),
        (
            "moved = with_sum - rates[t] * h @ with_sum",
            "moved = with_sum - rates[t] * with_sum",
            "no H",
        ),
        ("of_sum = of_sum + moved + moved.T + here", "of_sum = of_sum + moved + here", "one side"),
        ("(2 * (t + 1 - first) ** 2)", "(2 * (t + 1) ** 2)", "steps skipped are divided by"),
        (
            "found, first = second @ h.ravel() / 2, skipped or 0",
            "found, first = second @ h.ravel() / 2, 0",
            "all count",
        ),
        ("g.T @ g / d)) / (2 * n))", "g.T @ g / d)) / n)", "the half is forgotten"),
        (
            "rows @ ls.w_star - scale * ls.residual",
            "rows @ ls.w_star + scale * ls.residual",
            "sign",
        ),
        ("mean @ h @ shift + shift", "shift", "the mean's part is forgotten"),
    ],
)

RESHUFFLING = Group(
    "theory/reshuffling.py",
    "reshuffling phases",
    [
        (
            "state = epochs[size, lr] @ state",
            "state = next(iter(epochs.values())) @ state",
            "every epoch has the batches and the step of the first",
        ),
        (
            "if (size, lr) not in epochs:",
            "if not any(size == known for known, _ in epochs):",
            "a step that changed while the batch size stayed",
        ),
        (
            "found[k] = ls.least_loss + h @ state / 2",
            "found[k] = ls.least_loss + h @ state",
            "no half",
        ),
    ],
)

TRACKING = Group(
    "theory/drift.py",
    "drift theory_kinds",
    [
        (
            "return SampleLaw(hessian, products, 2 * deviation**2 * hessian)",
            "return SampleLaw(hessian, products, 4 * deviation**2 * hessian)",
            "noise 2x",
        ),
        ("lag = -np.linalg.solve(lr * h, v)", "lag = np.linalg.solve(lr * h, v)", "runs ahead"),
        ("moved = lag - lr * h @ lag", "moved = lag", "the lag before the step, not after"),
        ("np.outer(v, v) + (0 if walk is None else walk)", "np.outer(v, v)", "no random walk"),
        (
            "c = c - lr * (linear @ c) + lr**2 * (square @ c + noise)",
            "c = c - lr * (linear @ c) + lr**2 * noise",
            "no lr^2",
        ),
        (
            "c += (np.outer(v, v) - cross - cross.T).ravel()",
            "c += (np.outer(v, v) + cross + cross.T).ravel()",
            "sign",
        ),
        (
            "float(np.trace(law.noise)) / (4 * batch_size)",
            "float(np.trace(law.noise)) / (2 * batch_size)",
            "2x",
        ),
        (
            "lag = np.asarray(velocity) @ np.linalg.solve(law.hessian, velocity) / (2 * lr**2)",
            "lag = np.asarray(velocity) @ np.linalg.solve(law.hessian, velocity) / (2 * lr)",
            "lr for lr^2",
        ),
        (
            "bounds = (np.log(low), np.log(limit * (1 - 1e-6)))",
            "bounds = (np.log(low), np.log(limit / 100))",
            "search ends early",
        ),
        (
            "np.kron(h, h) + (law.products - np.kron(h, h)) / batch_size",
            "np.kron(h, h) + law.products - np.kron(h, h)",
            "the noise of single samples, whatever the batch",
        ),
        ("eigvals_only=True)[-1])", "eigvals_only=True)[0])", "the least eigenvalue"),
    ],
)

ARGUMENTS = Group(
    "theory/checked.py",
    "bad_input theory theory_kinds",
    [
        (
            'd = given["problem"].d if "problem" in given else d',
            'd = None if "problem" in given else d',
            "B > d is let through",
        ),
        ("if array.shape != (p,):", "if array.ndim != 1:", "parameters of another length"),
    ],
)

FASTEST = Group(
    "theory/fastest.py",
    "fastest theory_kinds",
    [
        (
            'given = (lr, replacement, momentum, rule == "Nesterov")',
            "given = (lr, replacement, momentum, False)",
            "Nesterov's momentum is taken for heavy ball",
        ),
        (
            "return float(np.exp(at[0]) / top)",
            "return float(np.exp(at[0]) * top)",
            "the step grows with the curvature",
        ),
        ("for _ in range(ROUNDS):", "for _ in range(0):", "the best of a coarse grid"),
    ],
)

GROUPS = [
    DESCENT,
    ORDER_BATCHES,
    FIXED_ORDER,
    RANDOM_STEP,
    STATIONARY,
    RANDOM_ORDER,
    FASTEST,
    PATHS,
    RATES,
    BATCH_SIZE,
    BATCH_VS_FULL,
    STABILITY,
    STEP_SIZES,
    RESHUFFLING,
    TRACKING,
    ARGUMENTS,
]
