"""What is minimised: data, model, loss, a start, and the exact moments where the model is linear.

Promises: a `Problem` never changes, knows nothing of how it is trained, and gives losses and
gradients for R parameter vectors at once, none of which sees another. The problems of the notebook
and of the studies stand ready (`ss.problems.curve()`, `get("curve")`).
May import: `checks`, `language`, `errors`, `text` and below.
Start reading: `problem.py`; then `least_squares.py`, which is why full losses cost nothing here;
`fingerprint.py` and `bindings.py` tell what a function of the user's is, and whether it changed.
"""

from sgdstudy.problems.by_name import get
from sgdstudy.problems.ready_made import (
    affine,
    chebyshev,
    curve,
    diabetes,
    digits,
    drifting_parabola,
    even_parabola,
    ill_conditioned,
    legendre,
    legendre_parabola,
    linear,
    mapped_parabola,
    parabola,
    staircase,
    tanh_network,
)

__all__ = [
    "affine",
    "chebyshev",
    "curve",
    "diabetes",
    "digits",
    "drifting_parabola",
    "even_parabola",
    "get",
    "ill_conditioned",
    "legendre",
    "legendre_parabola",
    "linear",
    "mapped_parabola",
    "parabola",
    "staircase",
    "tanh_network",
]
