"""For the class: the notebook's own `sgd`, the check of code written by hand, and the notebooks.

Promises: a student's function is run as it is, on data where each common fault shows, and each
fault found is said in one line.
May import: `training` and below; not `tracking`.
Start reading: `sgd.py`, then `check.py` and `judge.py`; `grade.py`; `notebooks.py` and `cells.py`.
"""
