"""A study: the declaration that a script makes, and running it.

Promises: a `Study` and its `Arm`s only say what is asked, what differs, and what is expected;
running them is `workers` and `scripts`; a claim that fails is shown, never hidden.
May import: `tracking`, `course`, `training` and below.
Start reading: `study.py`; then `claims.py` (what is judged, and how).

(The folder's name is plural because `ss.study` is a function.)
"""
