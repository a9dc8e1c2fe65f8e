"""What a student's function raised, and how to mend it, in one line."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable
from typing import Any

from sgdstudy.errors import message
from sgdstudy.language import say, to_say

NO_GRADIENT = to_say(
    "there is no gradient here: w.grad is None until backward() has been called on a loss of "
    "f(w, x), and in a w that was rebound"
)
LEAF = to_say(
    "torch follows w, so it must not be changed just so: update it under `with torch.no_grad():`, "
    "or change w.data"
)
NOT_FOLLOWED = to_say(
    "torch does not know how this loss depends on w: call f(w, x) outside of torch.no_grad(), and "
    "call backward() before .item(), .data, .detach() or .numpy()"
)
UNPACKED = to_say("a batch is one table with a row for each sample: x, y = data[:, 0], data[:, 1]")
MENDS = {
    r"leaf Variable that requires grad": LEAF,
    r"'NoneType'": NO_GRADIENT,
    r"does not require grad|have been used in the graph": NOT_FOLLOWED,
    r"backward through the graph a second time": to_say(
        "backward() goes back through losses of earlier steps: compute the loss anew in each step, "
        "and add up loss.item(), a number, not loss"
    ),
    r"only for scalar outputs": to_say(
        "the loss is one number for each sample: take their mean before backward()"
    ),
    r"'(float|int|numpy\.\w+|ndarray)' object has no attribute 'backward'": to_say(
        "backward() is called on a plain number: call it on the loss that torch computed, before "
        ".item()"
    ),
    r"modified by an inplace operation": to_say(
        "w was changed between the loss and its backward(): update it after backward()"
    ),
    r"'Tensor' object has no attribute 'zero_grad'": to_say(
        "only an optimizer has zero_grad(); a tensor's gradient is zeroed by w.grad.zero_()"
    ),
    r"too many values to unpack|not enough values to unpack": UNPACKED,
    r"Can't call numpy\(\) on Tensor that requires grad": to_say(
        "a number that torch follows is read by loss.item(), or by loss.detach() first"
    ),
    r"size of tensor a \(\d+\) must match": to_say(
        "two tensors of different length meet: compare f(w, x) with the y of the same batch"
    ),
    r"__call__\(\) (takes|missing)": to_say("f takes two arguments: f(w, x)"),
    r"'_Model' object|'Tensor' object is not callable": to_say(
        "the arguments are in another order than those of the exercise, f, w, t, and so on"
    ),
}
OF_NO_GRADIENT = (NO_GRADIENT, NOT_FOLLOWED)  # what becomes of a w that was rebound


def mend_of(error: BaseException) -> str:
    """Return how to mend what was raised, in English; "" where that is not known.

    >>> mend_of(AttributeError("'NoneType' object has no attribute 'zero_'"))[:28]
    'there is no gradient here: w'
    """
    said = message(error)
    return next((mend for pattern, mend in MENDS.items() if re.search(pattern, said)), "")


def describe(function: Callable[..., Any], error: BaseException) -> str:
    """Return in one line where a function raised an error, and how to mend it.

    Where no mend is known: what the error says.
    """
    where, mend = place(function, error), mend_of(error)
    if mend:
        return say("{where}: {what}", where=where, what=say(mend)) if where else say(mend)
    said = (message(error).strip().splitlines() or [say("no message")])[0]
    told = {"kind": type(error).__name__, "message": said}
    if not where:
        return say("it raises {kind}: {message}", **told)
    return say("{where}: it raises {kind}: {message}", where=where, **told)


def place(function: Callable[..., Any], error: BaseException) -> str:
    """Return the last line of the function's own file that an error went through, or ""."""
    inner = inspect.unwrap(function)
    code = getattr(inner, "__code__", getattr(type(inner).__call__, "__code__", None))
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if code and frame.filename == code.co_filename
    ]
    if not own:
        return ""
    line, text = own[-1].lineno, (own[-1].line or "").strip()
    return say("line {line}, `{code}`", line=line, code=text) if text else say("line {n}", n=line)
