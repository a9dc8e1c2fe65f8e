"""Takes the steps: R replicas at once, chunk by chunk, eager or compiled.

Promises: observing changes no trajectory; a seed's run does not depend on its neighbours; no
MLflow, no environment variable and no file (but the compiler's, in a temporary folder) is touched,
unless a caller hands something in to do so.
May import: `history`, `theory`, `recipe`, `quantities`, `problems` and below.
Start reading: `train.py`, `beside.py` (runs that go on together), `run.py`, `chunk.py` (whom a
chunk of steps ends); then `engines.py` (one step function, two ways), `compiled/`.
"""
