"""Prints messages on the console."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from gliner_pipe.util.secrets import redacted_text


def console_note(text: str) -> None:
    """Print a message for the user, with secrets redacted."""
    Console().print(Text(redacted_text(text)), soft_wrap=True)
