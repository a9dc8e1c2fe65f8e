"""Steps compiled to machine code: one step recorded, written out as C++, and looped there.

A step of a small model costs torch 100 us of Python and dispatch for a few ns of arithmetic. So
one step of one replica is run for real while `recorder` notes every operation; `operations`,
`loops` and `products` turn the operations into C++ loops; `rules` adds the update; `program` puts a
loop over steps and replicas around it; `steps` builds, checks and calls the result. What cannot be
compiled raises `Unsupported`, and the caller goes on in eager mode.

Promises: the numbers are those of the eager engine, to a stated rounding, whatever R is.
May import: what `training` may.
Start reading: `steps.py`, then `operations.py`.
"""

from sgdstudy.errors import Unsupported
from sgdstudy.training.compiled.steps import CompiledSteps, compile_steps

__all__ = ["CompiledSteps", "Unsupported", "compile_steps"]
