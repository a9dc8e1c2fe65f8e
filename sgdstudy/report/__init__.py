"""One HTML page of a store: answers, claims and figures, in one file that works offline.

Promises: no text of a user acts in the page; nothing is loaded from elsewhere.
May import: `studies`, `tracking` and below; not `sweep`.
Start reading: `report.py`, then `sections.py` and `templates/`; `landing.py` is the first page of
`sgdstudy ui`.
"""
