"""A study: the declaration that a script makes, and running it.

Promises: a `Study` and its `Arm`s only say what is asked, what differs, and what is expected;
running them is `runner` and `train_arms`; a claim that fails is shown, never hidden.
May import: `tracking`, `course`, `training` and below.
Start reading: `study.py` and `arm.py`; `claims.py` (what is judged, and how); then `runner.py`.

(The folder's name is plural because `ss.study` is a function.)
"""
