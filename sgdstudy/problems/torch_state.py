"""The state of torch that numbers may not depend on: set on the way in, given back on the way out.

What a caller has set for its own work (a default dtype, `no_grad`, autocast, ...) would change a
run of the same settings, without a word in its record.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

SMALLEST = float.fromhex("0x1p-1074")  # 0 where numbers near 0 are flushed
AUTOCAST = ("cpu", "cuda")


@contextmanager
def own_state() -> Iterator[None]:
    """Compute as in a fresh process, on one thread; the caller's state comes back at the end.

    Default dtype float32, default device cpu, gradients on, no inference mode, no autocast, no
    anomaly mode, float32 products in full, numbers near 0 kept, numpy raises nothing. One
    thread is as fast here, and sums do not depend on the machine's cores. Whether algorithms must
    be deterministic is left to the caller: where they are, the numbers are the same.

    Also a decorator: `@own_state()`.
    """
    with ExitStack() as stack:
        _set_globals(stack)
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        for kind in AUTOCAST:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if "raise" in np.geterr().values():
            stack.enter_context(np.errstate(all="warn", under="ignore"))
        yield


def _set_globals(stack: ExitStack) -> None:
    """Set what is one value for the whole process, or this thread."""
    if (dtype := torch.get_default_dtype()) != torch.float32:
        torch.set_default_dtype(torch.float32)
        stack.callback(torch.set_default_dtype, dtype)
    if (threads := torch.get_num_threads()) != 1:
        torch.set_num_threads(1)
        stack.callback(torch.set_num_threads, threads)
    if torch.is_anomaly_enabled():
        stack.callback(torch.set_anomaly_enabled, True, torch.is_anomaly_check_nan_enabled())
        torch.set_anomaly_enabled(False)
    _set_precision(stack)
    if SMALLEST * float(len("1")) == 0 and torch.set_flush_denormal(False):
        stack.callback(torch.set_flush_denormal, True)


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
