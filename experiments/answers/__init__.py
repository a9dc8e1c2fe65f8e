"""What the exercises answer, apart from how they are run: `short`, then `answer`, of each page.

Every finding is a sentence of its own, under a condition on what was measured; `None` begins a
paragraph. Translations: docs/languages.md.
"""

import sgdstudy as ss


def epochs(n):
    """Return so many epochs, in words."""
    return ss.say("{n} epoch", "{n} epochs", n=int(n))
