"""One arm over a grid of settings: planned, run on processes or a cluster, and gone on with.

Promises: each combination is a run like any other; what is finished is not run again; the order
in which workers finish changes no number.
May import: `studies` and below; not `report`.
Start reading: `plan.py` (which combinations), then `sweep.py` (running them),
`worker.py` (one of them); `results.py`, what came of it.
"""
