"""Faults of what a run is made of: data, losses, orders, rules, step sizes."""

from fault import Group

NAMED_ORDERS = Group(
    "recipe/named_orders.py",
    "orders train checkpoint",
    [
        (
            "yield torch.arange(d - 1, -1, -1)",
            "yield torch.arange(d - 1, 0, -1)",
            "sample 0 never comes",
        ),
        (
            "m = -(-d // batch_size)",
            "m = d // batch_size",
            "strided with a stride too short where B does not divide d",
        ),
        (
            "[torch.arange(b, d, m) for b in range(m)]",
            "[torch.arange(b, d, m) for b in reversed(range(m))]",
            "strided the wrong way",
        ),
        (
            "        unused_seed.random_(generator=generator)\n",
            "",
            "not the permutations of a DataLoader",
        ),
        (
            "unused_permutation = torch.empty(d - 1, dtype=torch.int32)",
            "unused_permutation = torch.empty(d, dtype=torch.int32)",
            "the second epoch is not that of a DataLoader",
        ),
        (
            "    permutation = torch.randperm(d, generator=generator)\n"
            "    while True:\n        yield permutation",
            "    while True:\n        yield torch.randperm(d, generator=generator)",
            "shuffled in every epoch, not once",
        ),
        (
            "yield torch.randint(d, (4096,), generator=generator)",
            "yield torch.randint(d - 1, (4096,), generator=generator)",
            "the last sample never comes",
        ),
        ("flatten(), rest])", "flatten().sort().values, rest])", "blocks in their order"),
        (
            "yield torch.cat([permutation, permutation.flip(0)])",
            "yield torch.cat([permutation, permutation])",
            "no flip",
        ),
        (
            "front[b] = (total * centred).sum(1) <= 0",
            "front[b] = (total * centred).sum(1) >= 0",
            "the running sum is made long",
        ),
        (
            "centred = gradient - mean",
            "centred = gradient",
            "GraB without the mean of the epoch before",
        ),
        (
            "full - (~front).cumsum(0))",
            "full - 1 - (~front)[::-1].cumsum(0)[::-1] + 1)",
            "those with -1 come as they came, not in reverse",
        ),
    ],
)

ORDERS = Group(
    "recipe/orders.py",
    "orders train checkpoint",
    [
        (
            "return order[[list(every).index(seed) for seed in some]]",
            "return order[: len(some)]",
            "some seeds have the first ones' arrays",
        ),
        (
            "order if is_by_seed(order) else",
            "order[:1].expand(len(seeds), -1, -1, -1) if is_by_seed(order) else",
            "all seeds have the first one's array",
        ),
        (
            "return [batch_size] * full + ([rest] if rest and not drop_last else [])",
            "return [batch_size] * full",
            "the ragged batch is dropped",
        ),
        (
            "[generator_of(seed, apart) for seed in seeds]",
            "[generator_of(seeds[0], apart) for seed in seeds]",
            "every seed has the first one's order",
        ),
        (
            "keys = [(order, seed, d, batch_size) for seed in seeds]",
            "keys = [(order, d, batch_size) for seed in seeds]",
            "shared draws are those of another seed",
        ),
        (
            "keys = [(order, seed, d, batch_size) for seed in seeds]",
            "keys = [(order, seed, d) for seed in seeds]",
            "shared draws are those of another batch size",
        ),
        (
            "self._taken, self._gradients, self._before = [], [], seen",
            "self._taken, self._gradients, self._before = [], [], None",
            "the epoch before is forgotten",
        ),
        (
            "self._rest = [self._rest[r] for r in live]",
            "self._rest = self._rest[: len(live)]",
            "what is left of other seeds' permutations",
        ),
        (
            'held = {"rest": torch.stack(self._rest)}',
            'held = {"rest": torch.stack(self._rest) * 0}',
            "the rest of a permutation is not kept",
        ),
        (
            "generator.set_state(numbers.clone())",
            "numbers.clone()",
            "the generators are not restored",
        ),
        (
            'self._before = state.get("before")',
            "self._before = None",
            "the gradients of the epoch before are not restored",
        ),
        (
            "missing -= len(part)\n                part = next(stream)",
            "part = next(stream)\n                missing -= len(part)",
            "skips to another place in the stream",
        ),
    ],
)

RULES = Group(
    "recipe/rules.py",
    "train schedules own_optimizer",
    [
        (
            "not one_by_one.attributes(one) and not one_by_one.step_hooks(one)",
            "not one_by_one.attributes(one)",
            "a hook of an optimiser's steps mixes replicas",
        ),
        (
            "together = TorchOptimizer(lambda params: kind(params, **settings), own=True)",
            "together = TorchOptimizer(alone.factory, own=True)",
            "a factory decides by the size of all replicas",
        ),
        (
            "return w - (self.lr if at.lr is None else at.lr) * at.gradient, None",
            "return w - self.lr * at.gradient, None",
            "the notebook's rule ignores a schedule",
        ),
        (
            'POLYAK = {"least_loss": 0.0, "c": 1.0}',
            'POLYAK = {"least_loss": 0.0, "c": 0.5}',
            "another default",
        ),
        (
            "size = (at.loss - self.least_loss) / (self.c * square)",
            "size = at.loss / (self.c * square)",
            "the least loss is taken for 0",
        ),
        (
            "size = (at.loss - self.least_loss) / (self.c * square)",
            "size = (at.loss - self.least_loss) / (self.c * square.sqrt())",
            "the norm, not squared",
        ),
        (
            "size = size.clamp(0.0, self.lr if at.lr is None else at.lr)",
            "size = size.clamp(0.0)",
            "no largest step",
        ),
        (
            "square = (at.gradient * at.gradient).sum(1)",
            "square = (at.gradient * at.gradient).sum(1).mean()[None]",
            "all replicas take one step size",
        ),
        (
            '            state.param_groups[0]["lr"] = at.lr\n',
            "            pass\n",
            "a torch optimiser ignores the schedule",
        ),
        (
            "other.state[new][key] = value[live] if rows else value",
            "other.state[new][key] = value[: len(live)] if rows else value",
            "momentum of other seeds",
        ),
        (
            "        other.param_groups[0].update(options)\n",
            "",
            "options are lost when a seed ends",
        ),
        (
            "return Polyak(lr, **polyak_options(options))",
            "return Polyak(lr)",
            "options of polyak do nothing",
        ),
        (
            "return kind(params, lr=lr, **arguments)",
            "return kind(params, lr=lr)",
            "options of an optimiser do nothing",
        ),
    ],
)

SCHEDULES = Group(
    "recipe/schedules.py",
    "schedules train",
    [
        ("lambda t: 1 / (1 + t)", "lambda t: 1 / (2 + t)", "one step late"),
        ("lambda t: 1 / np.sqrt(1 + t)", "lambda t: 1 / (1 + np.sqrt(t))", "another law"),
        (
            "lambda steps: lr * OURS[name](decay * np.asarray(steps, dtype=float))",
            "lambda steps: lr * OURS[name](np.asarray(steps, dtype=float))",
            "the decay does nothing",
        ),
        (
            "{k: n_steps for k in LENGTHS if k in allowed}",
            "{k: n_steps - 1 for k in LENGTHS if k in allowed}",
            "ends a step early",
        ),
        ("**{**defaults, **options}", "**{**options, **defaults}", "the length given is ignored"),
        ("self.optimizer = probe(lr)", "self.optimizer = probe(1.0)", "starts from 1"),
        (
            "if any(one.rate != rate for one in self.driven):",
            "if False:",
            "a schedule that reads the parameters reads those that it is tried on",
        ),
        (
            '"the parameters": _numbers(group["params"]),',
            "",
            "a schedule that changes the parameters changes none",
        ),
        (
            "if len(steps) and steps.max() >= len(self.rates):",
            "if len(steps) and steps.max() > len(self.rates):",
            "the block's last step is not there",
        ),
        (
            "self.rates = np.concatenate([self.rates, found])",
            "self.rates = np.concatenate([self.rates, found])[: BLOCK]",
            "nothing beyond a block",
        ),
    ],
)

LEAST_SQUARES = Group(
    "problems/least_squares.py",
    "problem train quantities",
    [
        (
            "return 2 * self.root.T @ self.root",
            "return self.root.T @ self.root",
            "half the Hessian",
        ),
        ("self.root.T) ** 2).sum(-1)", "self.root.T) ** 2).mean(-1)", "a mean over directions"),
        ("return self.least_loss + self", "return self", "the least loss is forgotten"),
        (
            "residual = features @ w_star - target",
            "residual = target - features @ w_star",
            "the residual has the wrong sign",
        ),
        (
            "root = s[:, None] * vt / np.sqrt(len(target))",
            "root = s[:, None] * vt / np.sqrt(len(s))",
            "divided by p, not by N",
        ),
        (
            "keep = s > s.max(initial=0) * _rounding(features.shape)",
            "keep = s > 0",
            "rank-deficient features: a minimiser of huge numbers",
        ),
        ("float(np.mean(residual**2))", "float(np.sum(residual**2))", "a sum for a mean"),
        (
            "keep = s > s.max(initial=0) * _rounding(self.features.shape)",
            "keep = s > 0",
            "directions of rounding count as moving",
        ),
        ("return 2 * s[keep][::-1] ** 2", "return s[keep][::-1] ** 2", "half the eigenvalues"),
    ],
)

PROBLEM = Group(
    "problems/problem.py",
    "problem train sample_stream quantities iteration_cost",
    [
        (
            "found = np.asarray(self._drift(np.asarray(steps)), dtype=float)",
            "found = np.asarray(self._drift(np.asarray(steps) + 1), dtype=float)",
            "the true parameters a step ahead",
        ),
        (
            "return data.digest((self.x, self.y))",
            "return data.digest((self.x,))",
            "the digest does not see the targets",
        ),
        (
            '"w_true": self.w_true if self._drift is None else self._drift,',
            '"w_true": self.w_true,',
            "a changed problem does not drift",
        ),
        (
            '"stream": self.stream,\n            "name"',
            '"stream": None,\n            "name"',
            "a changed problem has no stream",
        ),
        (
            "other.x, other.y = move(self.x), move(self.y)",
            "other.x, other.y = move(self.x), self.y",
            "targets in the old dtype",
        ),
        (
            'for cached in ("least_squares", "digest"):',
            'for cached in ("digest",):',
            "moments of other data",
        ),
        (
            "values = self.w_init(torch.Generator().manual_seed(seed))",
            "values = self.w_init(torch.Generator().manual_seed(0))",
            "every seed starts from the first parameters",
        ),
    ],
)

EVALUATION = Group(
    "problems/evaluation.py",
    "problem train sample_stream quantities iteration_cost evaluation",
    [
        (
            "return self.model(w.unsqueeze(-1).unbind(1), x)",
            "return self.model(w[:1].unsqueeze(-1).unbind(1), x)",
            "all replicas at the first one's parameters",
        ),
        (
            "(gradient,) = torch.autograd.grad(loss, w, torch.ones_like(loss))",
            "(gradient,) = torch.autograd.grad(loss.mean(), w)",
            "gradients divided by the number of replicas",
        ),
        (
            "total = [a + b for a, b in zip(total, some, strict=True)] if total else some",
            "total = some",
            "the last block only",
        ),
        (
            "some = [share * part.double() for part in some]",
            "some = [part.double() for part in some]",
            "blocks are added up without weights",
        ),
        ("right[part] += share * self", "right[part] += self", "an accuracy above 1"),
        (
            "x, y = self.test if test and self.test is not None else (self.x, self.y)",
            "x, y = self.test if self.test is not None else (self.x, self.y)",
            "accuracy always of the test data",
        ),
        (
            "(prediction.argmax(2) == y).double()",
            "(prediction.argmin(2) == y).double()",
            "the least logit",
        ),
        (
            "return trial.adds_up(self, self.x, self.y)",
            "return True",
            "a norm of all residuals is added up by blocks",
        ),
        (
            "                return why\n",
            '                return ""\n',
            "whatever runs together is taken for right",
        ),
    ],
)

TOGETHER = Group(
    "problems/together.py",
    "together linearity mixing",
    [
        (
            'return "" if near(found_slope, slope) else',
            'return "" if True else',
            "gradients are not compared",
        ),
        (
            "(by_size[-half:], by_size[:half]),",
            "(by_value[-half:], by_value[:half]),",
            "a largest size may be that of both replicas",
        ),
        (
            "rows.append(kinds[:: -(-len(kinds) // KINDS)])",
            "pass",
            "an embedding's padding is not among the samples",
        ),
    ],
)

LOSSES = Group(
    "problems/losses.py",
    "problem train quantities",
    [
        (
            "return (residual * residual).flatten(1).mean(1)",
            "return (residual * residual).flatten(1).sum(1)",
            "a sum for a mean",
        ),
        ("return residual.abs().mean(1)", "return residual.abs().sum(1)", "a sum for a mean"),
        (
            "torch.linalg.vector_norm(residual.flatten(2), dim=2).mean(1)",
            "residual.abs().flatten(1).mean(1)",
            "outputs one by one: not the norm of a sample",
        ),
        (
            "return torch.linalg.vector_norm((prediction - y).flatten(1), dim=1)",
            "return torch.linalg.vector_norm((prediction - y).flatten(1), dim=1) ** 2",
            "squared",
        ),
        (
            "/ residual.shape[1] ** 0.5",
            "/ len(prediction[0]) ** 0.5",
            "divided by samples, not by values",
        ),
        (
            'reduction="none").mean(1)',
            'reduction="none", label_smoothing=0.1).mean(1)',
            "smoothed labels",
        ),
        ("return values.mean(1)\n", "return values.sum(1)\n", "a user's loss is summed"),
    ],
)

PROBLEMS_LINEARITY = Group(
    "problems/linearity.py",
    "problem linearity train quantities squares",
    (
        (
            "return (offset, features) if (error <= 1e-9 * largest).all() else None",
            "return (offset, features) if (error <= 1e-3 * largest).all() else None",
            "a weakly non-linear model is taken for linear",
        ),
        (
            "target = y.flatten() - offset",
            "target = y.flatten()",
            "the offset of the model is forgotten",
        ),
        (
            "features = (values[1 : p + 1] - offset).T",
            "features = values[1 : p + 1].T",
            "features with the offset in them",
        ),
        (", len(target) // len(x))", ")", "several outputs count as one"),
        (
            "(y[0].numel() * every.flatten())",
            "every.flatten()",
            "several outputs of a weighted loss count as one",
        ),
        (
            "1e6, 1e12, 1e30, 1e100)",
            "1e6)",
            "a loss that grows in proportion to large errors is taken for a square",
        ),
    ),
)

PROBLEMS_DATA = Group(
    "problems/data.py",
    "data",
    (
        (
            "    return tensor.clone()\n",
            "    return tensor\n",
            "the problem shares its data with the caller",
        ),
        ("2**24 if", "2**25 if", "whole numbers are rounded to float32"),
        ("if given.dtype == torch.uint64:", "if False:", "the largest whole numbers turn negative"),
        (
            "beyond] & 1).any",
            "beyond] & 0).any",
            "the largest odd whole numbers lose their last bit",
        ),
        ("block & -block", "block & 1", "even whole numbers that a float holds are refused"),
        (
            "len(kinds) == 1 and None",
            "None",
            "items of a Dataset that are tensors of two kinds are rounded",
        ),
        (
            "any(_is_masked(v) for",
            "any(np.ma.is_masked(v) for",
            "values under a mask deep in a list are data",
        ),
    ),
)

PROBLEMS_STATE = Group(
    "problems/torch_state.py",
    "torch_state",
    (
        (
            "if torch.is_autocast_enabled(kind):",
            "if False:",
            "the caller's autocast changes the numbers",
        ),
        ("stack.callback(set_, theirs)", "pass", "the caller's default dtype is lost"),
        (
            "for module in (modules, optimizers)",
            "for module in (modules,)",
            "hooks on all optimisers change the numbers",
        ),
    ),
)

RECIPE_GROUPS = Group(
    "recipe/groups.py",
    "groups",
    [
        (
            '{**own, "lr": rate} if "lr" in own else dict(own)',
            '{**own, "lr": rate}',
            "a group without a step size of its own is written with one",
        ),
        (
            "given = {**options, **own}",
            "given = {**own}",
            "a group is checked without the options of all",
        ),
        (
            'given = {**options, "lr": lr, **own}',
            'given = {"lr": lr, **own}',
            "a group forgets the options of all parameters",
        ),
        (
            'given = {**options, "lr": lr, **own}',
            'given = {**options, **own, "lr": lr}',
            "a group's own step size is lost",
        ),
        (
            "zip(columns(groups, problem), (*groups.values(), {}), strict=True)",
            "zip(columns(groups, problem), (*reversed(groups.values()), {}), strict=True)",
            "each group has another's settings",
        ),
        (
            'owners += matching or [""]',
            'owners += matching[:1] if matching and not owners else [""]',
            "only the first parameter is ever in a group",
        ),
        ("if len(matching) > 1:", "if len(matching) > 2:", "two groups own a parameter"),
        ("if pattern not in owners:", "if not owners:", "a pattern that matches nothing passes"),
        (
            "lr = None if at.lr is None else at.lr[i]",
            "lr = None if at.lr is None else at.lr[-1]",
            "a schedule moves every group by the step size of those in none",
        ),
        (
            "own = at._replace(gradient=at.gradient[:, here], lr=lr)",
            "own = at._replace(gradient=at.gradient[:, here])",
            "schedules give a group the step sizes of all",
        ),
        (
            "moved[:, here], new = rule.update(w[:, here], old, own)",
            "moved[:, here], new = rule.update(w[:, here], rule.init(w[:, here]), own)",
            "a group's momentum starts anew at every step",
        ),
        (
            "return [rule.select(w[:, here], old, live) for (here, rule), old in pairs]",
            "return [old for (here, rule), old in pairs]",
            "seeds that ended leave their state to others",
        ),
    ],
)

BINDINGS = Group(
    "problems/bindings.py",
    "bindings late",
    [
        ("        if place in found.stored:\n            continue\n", "", "a counter is refused"),
        (
            "parts = {} if place in found.grown else _parts(variable, uses)",
            "parts = _parts(variable, uses)",
            "a log that is appended to is refused",
        ),
        (
            "if variable.name and not _is_still(variable.held, now):",
            "if not variable.name and not _is_still(variable.held, now):",
            "a variable of a loop is taken with its last value",
        ),
        (
            "for part, then, now in _changed(variable, uses):",
            "for part, then, now in ():",
            "an attribute that changed is not seen",
        ),
        (
            "for part, *_ in _changed(variable, uses)\n    }",
            "for part, *_ in ()\n    }",
            "what functions count by themselves is refused at the second run",
        ),
        (
            "return now is then or (then is not None and _alike(then, now))",
            "return now is then",
            "the same code made again is refused",
        ),
        (
            "return now is then or (then is not None and _alike(then, now))",
            "return then is not None",
            "another function in its place passes",
        ),
        ("return held.number == id(now)", "return True", "a value without references may change"),
        (
            "return type(held) is type(now) and (held == now or held != held)",
            "return type(held) is type(now)",
            "another number in its place passes",
        ),
        (
            "if part in found and not _is_still(held, found[part]):",
            "if part not in found:",
            "only what is gone counts as changed",
        ),
        (
            "alive = [(variable.holder(), variable, uses) for variable, uses in _living(owner)]",
            "alive = [(None, variable, uses) for variable, uses in _living(owner)]",
            "a function may be garbage by the time that its variable is looked at",
        ),
        (
            "while fresh := [item for value in self._holders for item in self._held(value)]:",
            "while fresh := []:",
            "functions that objects hold are not looked at",
        ),
        (
            "        for _, default in _defaults(function):\n            self.add(default)\n",
            "",
            "functions in defaults are not looked at",
        ),
        (
            "return name not in SETTERS",
            "return True",
            "what a method sets from outside counts as changed by functions",
        ),
        (
            "if function not in self._methods or self._is_called(*self._methods[function]):",
            "if True:",
            "what a setter changes counts as changed by functions",
        ),
        ("DEEPEST = 4", "DEEPEST = 1", "what lies in an object of an object may change"),
        (
            "        for name, default in _defaults(value):\n"
            "            if name not in grown:\n"
            "                add(name, default, 1)\n",
            "",
            "defaults put in place are not seen",
        ),
        (
            "if names & OUTSIDE else ():",
            "if False else ():",
            "variables of the environment are not looked at",
        ),
        (
            "return repr((value.dtype, value.tolist())).encode()",
            "return repr((value.dtype, value.shape)).encode()",
            "an array changed in place is not seen",
        ),
        ('yield ".get()", value.get()', "pass", "context variables are not looked at"),
        (
            'value, way = value.keywords, ".keywords[{!r}]"',
            'value, way = {}, ".keywords[{!r}]"',
            "keywords of a partial may change",
        ),
        (
            "for key in known if key not in uses.changed)",
            "for key in known)",
            "an object that counts is refused",
        ),
        (
            "return vars(value) if is_own_module(value) else {}",
            "return {}",
            "attributes of the user's modules may change",
        ),
        (
            "found |= {name: getattr(value, name) for name in slots} "
            '| getattr(value, "__dict__", {})',
            'found |= getattr(value, "__dict__", {})',
            "slots may change",
        ),
        (
            'found.pop("training", None)',
            'found.get("training", None)',
            "a module put into evaluation mode is refused",
        ),
        (
            "names = code.co_varnames[: code.co_argcount][code.co_argcount - len(values) :]",
            "names = code.co_varnames[: code.co_argcount][: len(values)]",
            "defaults go by the names of other arguments",
        ),
        (
            "            self.add(value.__func__)\n            self.add(value.__self__)",
            "            self.add(value.__func__)",
            "the object of a method is not looked at",
        ),
        (
            "        self._object(function)  # its defaults\n",
            "",
            "defaults and attributes of a function are not looked at",
        ),
        (
            "                self.add(value)\n"
            "                if isinstance(value, types.ModuleType):\n",
            "                if isinstance(value, types.ModuleType):\n",
            "what a function reads through another is not looked at",
        ),
    ],
)

BYTECODE = Group(
    "problems/bytecode.py",
    "late bindings fingerprint",
    [
        (
            'OUTER = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", ',
            'OUTER = ("LOAD_GLOBAL", "LOAD_NAME", ',
            "variables of the function around are not looked at",
        ),
        (
            "    for inner in _inside(code):\n        found |= set(used(inner))\n",
            "",
            "what a lambda within a function reads is not looked at",
        ),
        (
            "            changed |= parts\n",
            "",
            "an object's own list that it appends to counts as changed from outside",
        ),
        (
            "changed |= set() if code.co_name in MAKES else {step.argval}",
            "changed |= {step.argval}",
            "what __init__ sets may change from outside",
        ),
        (
            'GROWS = frozenset({"append", "appendleft", "extend", "add"})',
            "GROWS = frozenset()",
            "a log is part of what a run is",
        ),
        (
            "return frozenset(grown - read)",
            "return frozenset(grown)",
            "a list that is read and appended to is no part of what a run is",
        ),
    ],
)

GROUPS = [
    NAMED_ORDERS,
    ORDERS,
    RULES,
    SCHEDULES,
    LEAST_SQUARES,
    PROBLEM,
    EVALUATION,
    TOGETHER,
    LOSSES,
    PROBLEMS_LINEARITY,
    PROBLEMS_DATA,
    PROBLEMS_STATE,
    RECIPE_GROUPS,
    BINDINGS,
    BYTECODE,
]
