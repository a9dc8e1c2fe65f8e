"""The store: the only folder that knows MLflow.

Promises: what was recorded is not lost, whatever dies (a run has a journal on local disk until the
store has it); stores of earlier versions load; MLflow gets no more points than it draws.
May import: `training`, `history`, `figures`, `theory`, `recipe` and below; not `studies`.
Start reading: `store.py` (where), `invocation.py` (one call of a study), `load.py` (to pandas).
"""
