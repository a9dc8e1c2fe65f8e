"""The state of torch that numbers may not depend on: set on the way in, given back on the way out.

What a caller has set for its own work (a default dtype, `no_grad`, a mode that rewrites operations,
...) would change a run of the same settings, without a word in its record.

Names of torch that are not documented: the stacks of modes and of hooks, `torch._C._functorch`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import overrides
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers
from torch.utils._device import DeviceContext

from sgdstudy.errors import InputError

SMALLEST = float.fromhex("0x1p-1074")  # 0 where numbers near 0 are flushed
AUTOCAST = ("cpu", "cuda")
# what every module calls, and every step of an optimiser
HOOKS = [
    hooks
    for module in (modules, optimizers)
    for name, hooks in vars(module).items()
    if name.startswith("_global_") and name.endswith("hooks")
]

# one value for the whole process, or this thread: how to read it and set it, and what it is here
Setting = tuple[Callable[[], Any], Callable[[Any], Any], Any]
SETTINGS: tuple[Setting, ...] = (
    (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    (torch.get_num_threads, torch.set_num_threads, 1),
    (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled, True),
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp, True),
    (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp, True),
    (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled, True),
)


@contextmanager
def own_state() -> Iterator[None]:
    """Compute as in a fresh process, on one thread; the caller's state comes back at the end.

    Default dtype float32, default device cpu, gradients on, no inference mode, no autocast, no
    anomaly mode, float32 products in full, torch's own ways of computing them, numbers near 0
    kept; no mode that sees or replaces operations (a counter sees none of ours), no hooks on saved
    tensors, on all modules or on all optimisers; numpy raises nothing. One thread is as fast here,
    and sums do not depend on the machine's cores. Whether algorithms must be deterministic is left
    to the caller: where they are, the numbers are the same.

    Also a decorator: `@own_state()`.

    Raises:
        InputError: within a transform of `torch.func`, which would see nothing of what is done.
    """
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise InputError(
            "torch.func's transforms (grad, vmap, jvp, ...) see nothing of what sgdstudy computes, "
            "and would take it for a constant: call it outside of them"
        )
    with ExitStack() as stack:
        _drop_modes(stack)
        _set_globals(stack)
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        for kind in AUTOCAST:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if "raise" in np.geterr().values():
            stack.enter_context(np.errstate(all="warn", under="ignore"))
        yield


def _drop_modes(stack: ExitStack) -> None:
    """Take down what the caller has put before every operation."""
    if torch._C._len_torch_dispatch_stack():
        from torch.utils._python_dispatch import _disable_current_modes  # late: it imports much

        stack.enter_context(_disable_current_modes())
    # a default device is a mode too
    if overrides._get_current_function_mode_stack() and torch.get_default_device().type != "cpu":
        stack.enter_context(torch.device("cpu"))
    others = [
        mode
        for mode in overrides._get_current_function_mode_stack()
        # set by `set_default_device`; it lies at the bottom of the stack
        if not isinstance(mode, DeviceContext)
    ]
    for _ in others:
        stack.enter_context(overrides._pop_mode_temporarily())
    saving: Any = torch._C._autograd
    while (hooks := saving._top_saved_tensors_default_hooks(True)) is not None:
        saving._pop_saved_tensors_default_hooks()
        stack.callback(saving._push_saved_tensors_default_hooks, *hooks)
    for theirs in filter(None, HOOKS):
        stack.callback(theirs.update, dict(theirs))
        theirs.clear()


def _set_globals(stack: ExitStack) -> None:
    """Set what is one value for the whole process, or this thread."""
    for get, set_, ours in SETTINGS:
        if (theirs := get()) != ours:
            set_(ours)
            stack.callback(set_, theirs)
    for part, name, ours in _attributes():
        if (theirs := getattr(part, name)) != ours:
            setattr(part, name, ours)
            stack.callback(setattr, part, name, theirs)
    if torch.is_anomaly_enabled():
        stack.callback(torch.set_anomaly_enabled, True, torch.is_anomaly_check_nan_enabled())
        torch.set_anomaly_enabled(False)
    _set_precision(stack)
    if SMALLEST * float(len("1")) == 0 and torch.set_flush_denormal(False):
        stack.callback(torch.set_flush_denormal, True)


def _attributes() -> Iterator[tuple[Any, str, Any]]:
    """Yield further settings: of what, the name, what it is here."""
    if torch.backends.opt_einsum.is_available():
        yield torch.backends.opt_einsum, "enabled", True
        yield torch.backends.opt_einsum, "strategy", "auto"
    if parametrize := sys.modules.get("torch.nn.utils.parametrize"):  # else nothing is cached
        yield parametrize, "_cache_enabled", 0


def _set_precision(stack: ExitStack) -> None:
    """Let products of float32 be products of float32."""
    backends = torch.backends
    if not hasattr(backends, "fp32_precision"):  # before torch 2.9
        if (precision := torch.get_float32_matmul_precision()) != "highest":
            torch.set_float32_matmul_precision("highest")
            stack.callback(torch.set_float32_matmul_precision, precision)
        return
    mkldnn: Any = backends.mkldnn
    for part in (mkldnn.matmul, mkldnn.conv, backends.cuda.matmul):
        if (precision := part.fp32_precision) not in ("none", "ieee"):
            part.fp32_precision = "ieee"
            stack.callback(setattr, part, "fp32_precision", precision)
