"""How a problem is trained: the order of the samples, the rule, its step sizes, one frozen config.

Promises: a `TrainConfig` is checked once, when it is made, and never changes; an order is a pure
function of a seed; what a seed draws depends on no other seed.
May import: `quantities`, `problems` and below.
Start reading: `config.py`; then `named_orders.py` and `orders.py` (which samples, when),
`rules.py` (what a step does) and `columns.py` (what is recorded).
"""
