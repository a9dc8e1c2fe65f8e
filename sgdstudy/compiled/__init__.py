"""Steps compiled to machine code: one step recorded, written out as C++, and looped there.

A step of a small model costs torch 100 us of Python and dispatch for a few ns of arithmetic. So
one step of one replica is run for real while `recorder` notes every operation; `writer` and
`loops` turn the operations into C++ loops; `rules` adds the update; `cpp` puts a loop over
steps and replicas around it; `steps` builds, checks and calls the result. What cannot be
compiled raises `Unsupported`, and the caller goes on in eager mode.
"""

from sgdstudy.compiled.steps import CompiledSteps, compile_steps
from sgdstudy.compiled.unsupported import Unsupported

__all__ = ["CompiledSteps", "Unsupported", "compile_steps"]
