"""For the class: the notebook's own `sgd`, and the check of a gradient descent written by hand.

Promises: a student's function is run as it is, on data where each common fault shows, and each
fault found is said in one line.
May import: `training` and below; not `tracking`.
Start reading: `sgd.py`, then `check.py` and `judge.py`.
"""
