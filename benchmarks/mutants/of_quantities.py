"""Faults of the quantities: what is computed from recorded steps."""

from fault import Group

QUANTITIES = Group(
    "quantities/__init__.py",
    "quantities train",
    [
        (
            'cheap = preset and item.startswith("full_")',
            'cheap = item.startswith("full_")',
            "what is asked for by name is left out too",
        ),
        (
            'values |= {f"{name}_{k}": value[..., k] for k in range(value.shape[2])}',
            'values |= {f"{name}_{k}": value[..., 0] for k in range(value.shape[2])}',
            "all columns of a quantity are its first",
        ),
    ],
)

CHUNK = Group(
    "quantities/chunk.py",
    "quantities train",
    [
        ("every = 1 if exact else EVERY", "every = 1", "the costly ones at every step"),
        (
            "step = np.arange(len(self.size)) if self.step is None else self.step",
            "step = np.arange(len(self.size))",
            "the schedule begins anew in every chunk",
        ),
        (
            "on = step % every == 0",
            "on = step % every == every - 1",
            "the last step of every stretch, not the first",
        ),
        (
            "return on if self.kept is None else on & self.kept",
            "return on if self.kept is None else on & ~self.kept",
            "the mask inverted",
        ),
        (
            "starts = np.cumsum(self.size) - self.size",
            "starts = np.cumsum(self.size)",
            "the samples of the next step",
        ),
        ("return np.sqrt(found, out=found)", "return found", "norms squared"),
        (
            "rest = None if other is None else other[at : at + by]",
            "rest = None if other is None else other[: len(part)]",
            "vectors are compared with those of the first part",
        ),
        (
            "found[self.steps] = values",
            "found[self.steps[0] :: self.n_steps] = values[:1]",
            "only the first step that is known has a full gradient",
        ),
        (
            "return values[self.steps // (self.n_steps // len(values))]",
            "return values[: len(self.steps)]",
            "the batches' gradients are those of other steps",
        ),
        (
            "return self.path[1:].astype(float)",
            "return self.path[:-1].astype(float)",
            "nothing moves",
        ),
    ],
)

EIGEN = Group(
    "quantities/eigen.py",
    "quantities",
    [
        (
            "return (a + c) / 2 + np.hypot((a - c) / 2, b)",
            "return (a + c) / 2 + np.hypot(a - c, b)",
            "2 x 2: the half is forgotten",
        ),
        (
            "+ 2 * (d * d + e * e + f * f)) / 6)",
            "+ (d * d + e * e + f * f)) / 6)",
            "3 x 3: off the diagonal counts once",
        ),
        (
            'np.linalg.eigvalsh(stacked, UPLO="U")[:, -1]',
            'np.abs(np.linalg.eigvalsh(stacked, UPLO="U")).max(1)',
            "the largest in size",
        ),
        (
            'np.linalg.eigvalsh(stacked, UPLO="U")',
            'np.linalg.eigvalsh(stacked, UPLO="L")',
            "the lower triangle, which holds nothing",
        ),
        (
            "close = (x < NEARLY_EQUAL) &",
            "close = (x > -NEARLY_EQUAL) &",
            "LAPACK where the two least coincide, not the largest",
        ),
    ],
)

FORMULAS = Group(
    "quantities/formulas.py",
    "quantities train",
    [
        (
            "return norm(chunk.path[:-1], chunk.w_true)",
            "return norm(chunk.path[1:], chunk.w_true)",
            "the distance after the step",
        ),
        (
            "return norm(chunk.path[:-1], chunk.w_start)",
            "return norm(chunk.path[:-1], chunk.path[0])",
            "from the chunk's first parameters",
        ),
        (
            "return full.put(product / (norm(slopes) * full.of(chunk.full_grad_norm)))",
            "return full.put(product / full.of(chunk.full_grad_norm) ** 2)",
            "no cosine",
        ),
        (
            'return ratio(chunk.statistics["scatter"], _size(chunk) - 1)',
            'return ratio(chunk.statistics["scatter"], _size(chunk))',
            "a biased variance",
        ),
        (
            'signal = chunk.statistics["square"] - noise / _size(chunk)',
            'signal = chunk.statistics["square"] + noise / _size(chunk)',
            "the bias added, not taken off",
        ),
        (
            "return ratio(noise, np.where(signal > 0, signal, np.nan))",
            "return ratio(noise, np.abs(signal))",
            "no gradient to see, and a number all the same",
        ),
        (
            'ratio(trace_sigma(chunk) / _size(chunk), chunk.statistics["square"])',
            'ratio(trace_sigma(chunk), chunk.statistics["square"])',
            "the norm test without B",
        ),
        (
            'ratio(chunk.statistics["along"], _size(chunk) * (_size(chunk) - 1))',
            'ratio(chunk.statistics["along"], _size(chunk) ** 2)',
            "B^2 for B (B - 1)",
        ),
        (
            'across = ratio(chunk.statistics["across"], _size(chunk) * (_size(chunk) - 1))',
            'across = ratio(chunk.statistics["across"], _size(chunk) - 1)',
            "the orthogonality test without B",
        ),
        (
            '1 - (_size(chunk) - 1) * chunk.statistics["snr"]',
            '1 - _size(chunk) * chunk.statistics["snr"]',
            "the variance over B, not B - 1",
        ),
        (
            "return ratio(chunk.lr * trace_sigma(chunk), chunk.loss)",
            "return ratio(trace_sigma(chunk), chunk.loss)",
            "CABS without the step size",
        ),
        (
            'return chunk.lr * chunk.statistics["hess_max_eig"]',
            'return chunk.lr * chunk.statistics["hess_max_eig"] / 2',
            "1 for 2 at the edge",
        ),
        (
            'return ratio(trace_sigma(chunk), chunk.statistics["hess_trace"])',
            'return ratio(chunk.statistics["hess_trace"], trace_sigma(chunk))',
            "TIC upside down",
        ),
        (
            'return ratio(chunk.statistics["full_trace_sigma"], chunk.statistics["full_square"])',
            'return ratio(chunk.statistics["full_trace_sigma"], '
            'np.sqrt(chunk.statistics["full_square"]))',
            "the norm, not squared",
        ),
    ],
)

STATISTICS = Group(
    "quantities/statistics.py",
    "quantities train",
    [
        (
            'if n.startswith("full_") == of_all}',
            "if True}",
            "what is of all the data is asked of the batches",
        )
    ],
)

SPREAD = Group(
    "quantities/spread.py",
    "quantities",
    [
        ("    return first + mean\n", "    return mean\n", "the mean without the first sample"),
        ("mean /= gradients.shape[1]", "mean /= gradients.shape[1] - 1", "divided by B - 1"),
        ("share /= square(mean)", "share /= np.sqrt(square(mean))", "the norm, not squared"),
        (
            "np.multiply(share, mean[:, None], out=work)\n",
            "np.multiply(share, mean[:, :1, None].mean(1)[:, None], out=work)\n",
            "the mean of the first row for all rows",
        ),
        (
            "ratio = mean * mean / by_parameter",
            "ratio = np.abs(mean) / by_parameter",
            "the signal is not squared",
        ),
        (
            "dead = (by_parameter == 0) & (mean == 0)",
            "dead = by_parameter == 0",
            "parameters without variance count as dead",
        ),
        (
            "count = len(mean) - dead.sum(0)",
            "count = len(mean)",
            "dead parameters count in the mean",
        ),
        (
            "snr = size * np.add.reduce(ratio, axis=0) / count",
            "snr = np.add.reduce(ratio, axis=0) / count",
            "the variance is a sum",
        ),
        (
            "np.count_nonzero(gradients < edge, axis=(0, 1))",
            "np.count_nonzero(gradients <= edge, axis=(0, 1))",
            "a bin holds its upper edge",
        ),
    ],
)

LINEAR = Group(
    "quantities/linear.py",
    "quantities",
    [
        (
            "self.curvature = 2 * (by_sample**2).sum((1, 2)) / self.outputs",
            "self.curvature = 2 * (by_sample**2).sum((1, 2))",
            "traces of Hessians without the mean over outputs",
        ),
        (
            "self.residual = np.ascontiguousarray(ls.residual.reshape(d, self.outputs).T)",
            "self.residual = np.ascontiguousarray(ls.residual.reshape(self.outputs, d))",
            "residuals of other samples",
        ),
        (
            "found[name][place] = value[:count].reshape(target.shape)",
            "found[name][place] = value[:count].reshape(target.shape[::-1]).T",
            "steps and replicas change places",
        ),
        (
            "index = samples[place[1], steps].transpose(2, 1, 0)",
            "index = samples[place[1], steps].transpose(2, 0, 1)",
            "samples of another replica",
        ),
        (
            "for first in range(0, n, rows):\n"
            "                yield steps, (where, slice(first, first + rows))",
            "for first in range(0, n, rows):\n"
            "                yield steps, (where, slice(first, first + rows - 1))",
            "a replica is left out of every block",
        ),
        (
            'values["hess_max_eig"] = _top_of_gram(phi) * 2 / (size * m)',
            'values["hess_max_eig"] = _top_of_gram(phi) * 2 / size',
            "no mean over outputs",
        ),
        (
            "                error[o] *= 2 / m\n",
            "                error[o] *= 2\n",
            "gradients without the mean over outputs",
        ),
        (
            "if self.p * (self.p + 1) ** 2 < 2 * self.d:",
            "if True:",
            "stand-ins where there are fewer samples",
            "it only decides which of two exact ways is quicker",
        ),
        ("_inner(mean, s)) - 1\n", "_inner(mean, s)) + 1\n", "alpha of full batches, 2 too high"),
        (
            "sums = spread.sums(centred, mean, wanted)\n"
            "                values |= spread.statistics(sums, mean, self.d, wanted)",
            "sums = spread.sums(centred, mean, wanted)\n"
            "                values |= spread.statistics(sums, mean, self.p, wanted)",
            "full batches take p for their size",
        ),
        (
            "value = spread.square(terms) / self.d",
            "value = spread.square(terms) / (self.d - 1)",
            "full_trace_sigma unbiased, where it is said to be over d",
        ),
        (
            '"hess_max_eig": float(eigenvalues[-1])',
            '"hess_max_eig": float(eigenvalues[0])',
            "the least eigenvalue",
        ),
        (
            "            yield maps(block) - first - mean\n",
            "            yield maps(block) - first\n",
            "maps that are not centred",
        ),
        (
            "return -1 - ratio(curved, slope)",
            "return -1 + ratio(curved, slope)",
            "alpha with the wrong sign",
        ),
        (
            "if m * size < p:\n        vectors = vectors.transpose(1, 0, 2)",
            "if m * size > p:\n        vectors = vectors.transpose(1, 0, 2)",
            "the larger Gram matrix",
            "both Gram matrices have the same top eigenvalue: only slower",
        ),
        (
            "        operations += 2 * len(block) * width**2\n",
            "        operations += 1e12\n",
            "never by QR",
            "the root of the same sum, rounded less well",
        ),
        (
            "np.sqrt(np.maximum(values, 0))[:, None] * vectors.T * scale",
            "np.maximum(values, 0)[:, None] * vectors.T * scale",
            "eigenvalues without the root, where the data are many",
        ),
    ],
)

AUTOGRAD = Group(
    "quantities/autograd.py",
    "quantities",
    [
        (
            "index = samples.transpose(1, 0, 2).reshape(len(rows[0]), -1)",
            "index = samples.reshape(len(rows[0]), -1)",
            "samples of another replica",
        ),
        (
            "ours.follows, plain.follows = True, False",
            "ours.follows, plain.follows = True, True",
            "what torch.func gives is compared with itself",
        ),
        (
            'wanted -= SPREAD | {"histogram"}',
            'wanted -= {"histogram"}',
            "a norm of all residuals has gradients of samples",
        ),
        (
            'found["scatter"] /= self.problem.d',
            'found["scatter"] /= self.problem.d - 1',
            "full_trace_sigma unbiased, where it is said to be over d",
        ),
        (
            "                gradients -= mean[:, None]\n",
            "                pass\n",
            "many samples are not centred",
        ),
        (
            "total[name] = total.get(name, 0.0) + value",
            "total[name] = value",
            "the last part of a batch for all of it",
        ),
        (
            "                counts += spread.histogram(gradients)\n",
            "                counts = spread.histogram(gradients)\n",
            "the same of the histogram",
        ),
        (
            "return torch.where(before == 0, torch.nan, -after / before).numpy()",
            "return torch.where(before == 0, torch.nan, after / before).numpy()",
            "alpha with the wrong sign",
        ),
        (
            "np.trace(matrices, axis1=0, axis2=2)",
            "np.trace(matrices, axis1=0, axis2=2) / p",
            "a mean for the trace",
        ),
        (".to(batch[0]) * 2 - 1", ".to(batch[0]) * 2", "probes of 0 and 2, not of -1 and 1"),
        (
            'values["hess_trace"] = (products * signs).sum(2).mean(0)',
            'values["hess_trace"] = (products * signs).mean(2).mean(0)',
            "a mean for the trace of many parameters",
        ),
        (
            "after = (self._gradients((w_next, x, y)) * update).sum(1)",
            "after = (self._gradients((w, x, y)) * update).sum(1)",
            "the slope before for the slope after",
        ),
        (
            "v = v - (other * v).sum(1, keepdim=True) * other",
            "v = v - (other * v).sum() * other",
            "directions of all replicas mixed",
        ),
        (
            "small[i, i + 1] = beside[i].double().numpy()",
            "small[i, i + 1] = 0",
            "the small matrix is diagonal",
        ),
    ],
)

QUANTITIES_SOURCES = Group(
    "quantities/sources.py",
    "quantities train",
    (
        (
            "if problem.least_squares is not None:\n            _sources",
            "if problem.least_squares is None:\n            _sources",
            "closed forms where there are none",
        ),
    ),
)

GROUPS = [
    QUANTITIES,
    CHUNK,
    EIGEN,
    FORMULAS,
    STATISTICS,
    SPREAD,
    LINEAR,
    AUTOGRAD,
    QUANTITIES_SOURCES,
]
