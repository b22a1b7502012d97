"""The terminal that a person sees: one console for all that prints."""

from rich.console import Console

console = Console(highlight=False, soft_wrap=True)
