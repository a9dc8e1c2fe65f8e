"""The one exception of this package."""


class Unsupported(Exception):
    """A step that cannot be compiled; the message says why, in one line."""
