"""What a run recorded, and what can be said of it without looking at a store.

A function of a `run` takes it wherever its rows lie (`figures.style.Run`); a `History` is one.

Promises: rows are raw and complete, in steps and in epochs; nothing here takes a step or knows
where rows are kept; statistics are of the seeds, with their uncertainty.
May import: `figures`, `theory`, `recipe` and below.
Start reading: `history.py`, what was recorded; then what is measured of it, `growth.py` first;
`rows.py` (blocks of rows; `stream.py` and `files.py` are where they lie) and `compare.py`.
"""
