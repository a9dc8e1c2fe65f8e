"""The command line: words in, lines out.

Promises: bad input is one line and exit code 2; only this folder prints.
May import: everything.
Start reading: `main.py`, which `start.py` imports, then `commands.py`; `upkeep.py` and
`teaching.py` are more of them; `catalogue.py` keeps the file of a language.
"""
