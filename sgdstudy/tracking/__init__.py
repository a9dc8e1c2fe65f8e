"""The store: the only folder that knows MLflow.

Promises: what was recorded is not lost, whatever dies (a run has a journal on local disk until the
store has it); stores of earlier versions load; MLflow gets no more points than it draws.
May import: `training`, `history`, `figures`, `theory`, `recipe` and below; not `studies`.
Start reading: `store.py` (where), `invocation.py` (one call of a study), `journal.py` (a run's own
folder), `sink.py` (its rows); then `runs.py` (finding runs) and `load.py` (to pandas).
"""
