"""Prints messages on the console."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from gliner_pipe.util.secrets import redacted_text

#: C0 and C1 control characters other than tab and newline, replaced by a symbol, so that no text controls the
#: terminal or is invalid in HTML.
VISIBLE = {
    code: (0x2400 + code if code < 32 else 0xFFFD)
    for code in (*range(32), *range(127, 160))
    if code not in (9, 10)
}


def console_note(text: str) -> None:
    """Print a message for the user, with secrets redacted."""
    Console().print(Text(redacted_text(text)), soft_wrap=True)
