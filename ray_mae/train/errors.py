"""Errors that end a run for good."""


class FatalError(RuntimeError):
    """Starting the workers again would not help: the message says what does."""
