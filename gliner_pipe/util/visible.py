"""Shows characters that control a terminal as symbols: escape sequences in names and texts then have no effect."""

from __future__ import annotations

import re

#: C0 and C1 control characters other than tab and newline, replaced by a symbol, so that no text controls the
#: terminal or is invalid in HTML.
VISIBLE = {
    code: (0x2400 + code if code < 32 else 0xFFFD)
    for code in (*range(32), *range(127, 160))
    if code not in (9, 10)
}
#: Surrogates, which stand for bytes of file names that are not UTF-8, and cannot be written.
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def visible(text: str) -> str:
    """Return a text with control characters, other than tab and line ends, as symbols; surrogates are escaped."""
    text = text.replace("\r\n", "\n").translate(VISIBLE)
    return _SURROGATE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", text)


def one_line(text: str, most: int | None = None) -> str:
    """Return a visible text as one line of at most so many characters; what is left out of its middle is counted."""
    text = " ".join(visible(text).split())
    if most is None or len(text) <= most:
        return text
    head, tail = most * 3 // 4, most // 8
    return f"{text[:head]} ... ({len(text) - head - tail:,} characters) ... {text[-tail:]}"
