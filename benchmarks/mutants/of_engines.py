"""Faults of the engines and what they are given: C++ steps, clipping, identities, problems."""

from fault import Group

COMPILED_RULES = Group(
    "training/compiled/rules.py",
    "compiled clipping",
    [
        (
            "step = np.arange(first, first + n_steps, dtype=float)",
            "step = np.arange(1, 1 + n_steps, dtype=float)",
            "every chunk counts its steps anew",
        ),
        (
            "lambda step: np.where(step == 1, 1.0, share)",
            "lambda step: np.where(step == 0, 1.0, share)",
            "the first gradient is dampened, too",
        ),
        (
            "w = w + minus_size * s0 / (v_sqrt(s1) / root + eps);",
            "w = w + minus_size * s0 * root / (v_sqrt(s1) + eps);",
            "Adam's eps is corrected for the start as well",
        ),
        (
            "one = f\"V d = g[j]; {' '.join(lines)} square += d * d;\"",
            'one = "V d = g[j]; square += d * d;"',
            "the norm that is clipped is that before values are",
        ),
    ],
)

COMPILED_STEPS = Group(
    "training/compiled/steps.py",
    "compiled schedules sample_stream groups evaluation",
    [
        (
            "loss += (d - done) * rest.loss",
            "loss += rest.loss",
            "the samples of the last block count as one",
        ),
        (
            "if size in known and known[size].notes == trace.notes:",
            "if size in known:",
            "a step is not recorded again where the model has another constant",
        ),
        (
            "if n == problem.d or (problem.adds_up and n < problem.d)",
            "if n <= problem.d",
            "a norm of all residuals is added up by blocks",
        ),
        (
            "lambda step: self.rates(step.astype(int) - 1)",
            "lambda step: self.rates(step.astype(int))",
            "step sizes a step ahead of their schedule",
        ),
        (
            "samples = self.data if data is None else _values(*data, self.problem.dtype)",
            "samples = self.data",
            "a stream's samples are looked for among the stored ones",
        ),
        (
            "    if config.groups:\n"
            '        raise Unsupported(say("groups of parameters have settings of their own"))\n',
            "",
            "groups are compiled with the settings of the others",
        ),
        ("TOLERANCE = 1e-3", "TOLERANCE = 1e3", "the self-check agrees to values that were frozen"),
    ],
)

OPERATIONS = Group(
    "training/compiled/operations.py",
    "compiled products penalties own_losses convolutions evaluation",
    [
        (
            '"where", rest, (hit, 0, left)',
            '"where", rest, (hit, left, left)',
            "of equal pixels in a window each gets the gradient",
        ),
        (
            'self._pointwise("fill", out, (out, fill), {})',
            'self._pointwise("fill", out, (out, 1), {})',
            "images are padded by ones",
        ),
        (
            "            if kept <= 0:  # all of it is cut off\n                return\n",
            "",
            "where all of a tensor is cut off something is written all the same",
        ),
        (
            "value = value.narrow(-1 - k, max(-before, 0), kept)",
            "value = value.narrow(-1 - k, 0, kept)",
            "what is cut off at the front is cut off at the end",
        ),
        (
            'self._pointwise("clone", out.diagonal(*which), (gradient,), {})',
            'self._pointwise("clone", out.diagonal(), (gradient,), {})',
            "the gradient of any diagonal goes to the main one",
        ),
        (
            '"threshold_backward": "({1} <= {2} ? V0 : {0})"',
            '"threshold_backward": "({1} < {2} ? V0 : {0})"',
            "where a unit is off its gradient goes on",
        ),
        (
            '"sgn": "({0} > V0 ? V1 : ({0} < V0 ? -V1 : {0}))"',
            '"sgn": "({0} > V0 ? V1 : -V1)"',
            "the slope of |w| at 0 is -1",
        ),
        (
            "count = value.numel() // max(1, out.numel())",
            "count = value.numel()",
            "a mean over some dimensions is divided by all",
        ),
        ('self._pointwise("add", out, (out, bias), {})', "pass", "a layer without its bias"),
    ],
)

CONVOLUTIONS = Group(
    "training/compiled/convolutions.py",
    "convolutions",
    [
        (
            "n + 2 * p - d * (k - 1) - 1) // s + 1",
            "n + p - d * (k - 1) - 1) // s + 1",
            "padded on one side only",
        ),
        ("place.add_(part)", "place.copy_(part)", "a pixel's gradient is that of its last window"),
        (
            "(address(x), x.storage_offset(), x.shape, x.stride(), str(ways))",
            "(address(x), x.shape, x.stride(), str(ways))",
            "two halves of one image are taken for one",
        ),
        (
            "(address(x), x.storage_offset(), x.shape, x.stride(), str(ways))",
            "(address(x), x.storage_offset(), x.shape, x.stride())",
            "two ways to look at an image are taken for one",
        ),
        (
            "(shape[1] - 1) * stride[1] + 1, stride[1])",
            "(shape[1] - 1) * stride[0] + 1, stride[0])",
            "columns are taken at the step of rows",
        ),
        (
            "of_bias = flat.sum(1)",
            "of_bias = flat.mean(1)",
            "the gradient of the offset is a mean over samples and pixels",
        ),
    ],
)

PROGRAM = Group(
    "training/compiled/program.py",
    "compiled evaluation",
    [
        (
            "sum[j * L + l] += size * (double)AT(g[j]);",
            "sum[j * L + l] += BLOCK * (double)AT(g[j]);",
            "a smaller last block weighs as much as the others",
        ),
        (
            "const auto better = (v > m) | ((v != v) & (m == m));",
            "const auto better = v >= m;",
            "of equal logits the last, and none that is NaN",
        ),
        (
            "for (Int i = vecs * W; i < n; i++) last += p[i];",
            "for (Int i = vecs * W; i < n - 1; i++) last += p[i];",
            "the last sample of an uneven batch is left out of sums",
        ),
        (
            "AT(y[b * M + j]) = data[i * (F + M) + F + j];",
            "AT(y[b * M + j]) = data[i * (F + M) + M + j];",
            "inputs for targets where a sample has several",
        ),
        (
            "if ((unsigned long long)i >= (unsigned long long)D) return false;",
            "if (i >= D) return false;",
            "a negative index reads what lies before the data",
        ),
        (
            "add_squares<true>(now + first, old, last - first, squares[1]);",
            "add_squares<true>(now + first, start + first, last - first, squares[1]);",
            "the length of a step is the way from the start",
        ),
        (
            "total[j] += WIDER(g[j]) * samples;",
            "total[j] += WIDER(g[j]);",
            "the mean gradient without weights",
        ),
        (
            "AT(now[j]) = AT(old[j - first]);",
            "AT(now[j]) = AT(old[j]);",
            "a replica that diverged stands at other parameters",
        ),
        (
            "for (int k = 1; k < SUMS; k++) (P",
            "for (int k = 1; k < SUMS - 1; k++) (P",
            "every eighth parameter is left out of norms",
        ),
        (
            "lit((T)scalars[s * C + c])",
            "lit((T)scalars[c])",
            "every step has the numbers of a chunk's first",
        ),
    ],
)

LOOPS = Group(
    "training/compiled/loops.py",
    "compiled",
    [
        (
            "if any(one.array in self.written for one in outer):",
            "if any(one.array in self.reads for one in outer):",
            "loops read elements that they have yet to write",
        ),
        (
            "found[-1] == tuple(n * stride for stride in own)",
            "found[-1][0] == n * own[0]",
            "loops are merged where one of their arrays lets them",
        ),
        ('return f"(T){value.hex()}"', 'return f"(T){value:.7g}"', "constants have seven digits"),
    ],
)

RECORDER = Group(
    "training/compiled/recorder.py",
    "compiled own_losses convolutions",
    [
        (
            "        if func._schema.is_mutable:\n            self._convolutions.forget(tensors)\n",
            "",
            "an image that was written into is seen as it was",
        ),
        (
            "if name in READS and args and self._varies(args[0]):",
            "if False and self._varies(args[0]):",
            "values that leave torch are those of the first step for ever",
        ),
        (
            " or func._schema.is_mutable  # `prims.copy_to` has no underscore",
            "",
            "what is copied into a part of a tensor is a constant",
        ),
        (
            "if not all(tensor.numel() for tensor in [*tensors, values]):",
            "if False:",
            "tensors without elements are written",
        ),
        (
            "given = self.told(args), self.told(tuple(kwargs.items()))",
            "given = self.told(args[:1]), self.told(tuple(kwargs.items()))",
            "a step with another constant is taken for the one before",
        ),
        (
            "numbers = torch.arange(value.shape[1])",
            "numbers = torch.arange(1, value.shape[1] + 1)",
            "classes are counted from 1",
        ),
        (
            "torch.where(_one_hot(value, classes), -gradient.unsqueeze(1), 0.0)",
            "torch.where(_one_hot(value, classes), gradient.unsqueeze(1), 0.0)",
            "cross entropy climbs",
        ),
    ],
)

CLIPPING = Group(
    "recipe/clipping.py",
    "clipping",
    [
        (".sum(1, keepdim=True)", ".sum()", "the norm of all replicas' gradients together"),
        (
            "(norm / (length + TINY)).clamp(max=1.0)",
            "(norm / (length + TINY))",
            "short gradients are made as long as the bound",
        ),
    ],
)

OWN_OPTIMIZER = Group(
    "recipe/own_optimizer.py",
    "own_optimizer closures",
    [
        (
            "wanted = DEFAULT_LR if lr is None else lr",
            "wanted = DEFAULT_LR",
            "the step size that is given is not used",
        ),
        (
            "if _same_number(lr_of(_called(factory, [_trial_parameter()], options)), lr):",
            "if False:",
            "of a step size read off the parameters it is said that lr is given too",
        ),
        (
            "return without is None",
            "return given is None",
            "an optimiser that needs a closure gets none",
        ),
        (
            "return _equal(without, start) and not _equal(given, start)",
            "return not _equal(without, given)",
            "a closure undoes what a step did to the gradients",
        ),
        (
            "return _equal(without, start) and not _equal(given, start)",
            "return False",
            "an optimiser that does nothing without a closure gets none",
        ),
    ],
)

IDENTITY = Group(
    "recipe/identity.py",
    "differs late",
    [
        (
            "if setting.name in LATER and getattr(config, setting.name) == LATER[setting.name]:",
            "if setting.name in LATER:",
            "runs that differ in newer settings are taken for one",
        ),
        (
            'return "" if self.unseen else hashlib.sha256(text.encode()).hexdigest()[:16]',
            "return hashlib.sha256(text.encode()).hexdigest()[:16]",
            "all that cannot be told apart are one run",
        ),
    ],
)

REPLAY = Group(
    "recipe/replay.py",
    "replay",
    [
        (
            "    while True:\n        number.random_(generator=generator)\n",
            "    while True:\n",
            "the number drawn for workers is not skipped",
        ),
        (
            "if before is not None and torch.equal(generator.get_state(), fresh):",
            "if before is not None:",
            "what a script draws once is drawn in every epoch",
        ),
    ],
)

PENALTIES = Group(
    "problems/penalties.py",
    "penalties",
    [
        (
            '"l2": lambda w: (w * w).sum(1)',
            '"l2": lambda w: (w * w).sum()',
            "each replica pays for the parameters of all",
        ),
        (
            "return of_each(w)",
            "return of_one(w[0]).expand(len(w))",
            "all replicas have the penalty of the first",
        ),
    ],
)

FINGERPRINT = Group(
    "problems/fingerprint.py",
    "fingerprint late",
    [
        (
            "self._write(str(value.dtype), str(tuple(value.shape)))",
            "self._write(str(value.dtype))",
            "arrays of other shapes with the same numbers are one",
        ),
        (
            "for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):",
            "for names in (code.co_varnames, code.co_freevars, code.co_cellvars):",
            "functions that call other methods are one",
        ),
        (
            "return type(value) in LOGS and name in bytecode.only_grown(code)",
            "return type(value) in LOGS",
            "lists that a function reads are not looked at",
        ),
        (
            "    return attributes | found\n",
            "    return attributes\n",
            "a module with hooks is another each time it is made",
        ),
    ],
)

TRIAL = Group(
    "problems/trial.py",
    "torch_state own_losses bad_input",
    [
        (
            "    _require_ungraded(what, called)\n",
            "",
            "a loss that cannot be evaluated is refused by torch, in the run",
        ),
        (
            '        if not value.requires_grad:\n            raise InputError(f"{what} returns',
            '        if False:\n            raise InputError(f"{what} returns',
            "a loss without a gradient is told of by torch",
        ),
        (
            "own = [value.detach().clone().requires_grad_(",
            "own = [value.detach().requires_grad_(",
            "a model that changes its input changes what it is compared with",
        ),
        (
            "y, shape = all_y[[0, other, other, 0]], prediction.shape[1:]",
            "y, shape = all_y[[0, 1, 1, 0]], prediction.shape[1:]",
            "where the first two targets are the same a loss that mixes samples is taken",
        ),
        (
            "if f.numel() != y.numel():",
            "if False:",
            "a loss that sees other samples is refused where nothing broadcasts",
        ),
    ],
)

TORCH_MODULE = Group(
    "problems/torch_module.py",
    "torch_module frozen torch_state saved",
    [
        (
            "    if not torch.equal(after, before):\n",
            "    if False:\n",
            "parameters that a lambda of the module reads are never trained",
        ),
        (
            "self._source, self._module = module, _apart(module)",
            "self._source, self._module = module, module",
            "what a module keeps of its calls is in the user's problem, which cannot be copied",
        ),
        (
            "for name, value in module.named_parameters() if value.requires_grad}",
            "for name, value in module.named_parameters()}",
            "frozen parameters are trained",
        ),
        (
            "torch.default_generator.manual_seed(generator.initial_seed())",
            "torch.default_generator.manual_seed(0)",
            "layers start from the same draws for every seed",
        ),
        (
            "moved = (w + moves * (1 + w.abs())).requires_grad_()",
            "moved = (w + 0 * moves).requires_grad_()",
            "parameters that are not read by name stay where they are, unseen",
        ),
    ],
)

READY_MADE = Group(
    "problems/ready_made.py",
    "ready_made sample_stream",
    [
        (
            "true(np.arange(first, first + BLOCK))",
            "true(np.arange(BLOCK))",
            "the true parameters go back with every block of a stream",
        ),
        (
            "np.sort(drawn[: d // 5])",
            "np.sort(drawn[-(d // 5) :])",
            "the samples held out are trained on as well",
        ),
        (
            "weights / inputs**0.5",
            "weights / outputs**0.5",
            "weights are scaled by what comes out of a layer",
        ),
        (
            "np.cos(degree * np.arccos(x))",
            "np.cos(degree * x)",
            "a cosine for the Chebyshev polynomial",
        ),
    ],
)

BY_NAME = Group(
    "problems/by_name.py",
    "by_name",
    [
        ("return value.clone()", "return value", "a caller changes the problem of a name"),
        (
            "copy.deepcopy(value) if isinstance(value, LeastSquares) else value",
            "value",
            "and its moments",
        ),
        ("return tuple(map(_own, value))", "return value", "and its test data"),
    ],
)

GROUPS = [
    COMPILED_RULES,
    COMPILED_STEPS,
    OPERATIONS,
    CONVOLUTIONS,
    PROGRAM,
    LOOPS,
    RECORDER,
    CLIPPING,
    OWN_OPTIMIZER,
    IDENTITY,
    REPLAY,
    PENALTIES,
    FINGERPRINT,
    TRIAL,
    TORCH_MODULE,
    READY_MADE,
    BY_NAME,
]
