"""Decides what the offsets of a file count: code points, UTF-16 code units or bytes, with an end inclusive or not.

Tools written in JavaScript or Java count UTF-16 code units, in which a character such as an emoji has two. A file shows
its unit where it states the text of its entities, or where an offset is beyond the end of a text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, NamedTuple

from gliner_pipe.data.fields import counted_number, index_value, note, shown, whole_number
from gliner_pipe.data.files import Place

Unit = Literal["codepoints", "utf16", "bytes"]

#: Names of the units in messages.
UNITS: Mapping[Unit, str] = {
    "codepoints": "Unicode code points",
    "utf16": "UTF-16 code units",
    "bytes": "bytes of UTF-8",
}
#: Bytes in a unit.
_SIZES = {"utf16": 2, "bytes": 1}
#: Whitespace, and line breaks as Label Studio writes them.
_BLANK = re.compile(r"\s+|(?:\\r|\\n)+")


@dataclass(frozen=True)
class Reading:
    """One interpretation of the offsets of a file."""

    unit: Unit = "codepoints"
    inclusive: bool = False

    def __str__(self) -> str:
        return f"{UNITS[self.unit]}{', the end inclusive' if self.inclusive else ''}"

    def length(self, text: str) -> int:
        """Return the length of `text` in this unit."""
        data = self.encoded(text)
        return len(text) if data is None else len(data) // _SIZES[self.unit]

    def encoded(self, text: str) -> bytes | None:
        """Return the text in this unit; None if each character is one unit."""
        if self.unit == "codepoints" or text.isascii():
            return None
        if self.unit == "bytes":
            return text.encode("utf-8")
        return text.encode("utf-16-le") if is_astral(text) else None

    def locate(self, text: str, start: int, end: int) -> tuple[int, int] | None:
        """Return a range in code points, the end exclusive; None if it is no range of whole characters."""
        return self.located(text, self.encoded(text), start, end)

    def located(self, text: str, data: bytes | None, start: int, end: int) -> tuple[int, int] | None:
        """Return what :meth:`locate` returns, given the text as :meth:`encoded` returns it."""
        end += self.inclusive
        if not 0 <= start < end:
            return None
        if data is not None:
            size, name = _SIZES[self.unit], "utf-8" if self.unit == "bytes" else "utf-16-le"
            if end * size > len(data):
                return None
            try:
                first = len(data[: start * size].decode(name))
                return first, first + len(data[start * size : end * size].decode(name))
            except UnicodeDecodeError:  # within a character
                return None
        return (start, end) if end <= len(text) else None


def is_astral(text: str) -> bool:
    """Whether a text has characters of two UTF-16 code units."""
    return not text.isascii() and max(text) > "\uffff"


PLAIN = Reading()


class Stated(NamedTuple):
    """Offsets of an entity as they are in the file, and its text if the file states it."""

    start: int
    end: int
    text: str | None = None


@dataclass(frozen=True)
class Decision:
    """How the offsets of a file are read.

    Attributes
    ----------
    reading
        The interpretation.
    verified
        Whether it gives the text of any entity that states its text.
    doubt
        An interpretation that fits better, without evidence that is strong enough; None if there is none.
    """

    reading: Reading = PLAIN
    verified: bool = False
    doubt: Reading | None = None


#: Of files whose offsets are code points without any doubt.
NO_DOUBT = Decision()


@dataclass
class _Tally:
    """How an interpretation fits: ranges beyond the text or within characters, other texts, parts of words."""

    beyond: int = 0
    wrong: int = 0
    ragged: int = 0
    right: int = 0
    ranges: int = 0


def same_text(stated: str, part: str) -> bool:
    """Whether two texts are equal except for their whitespace; surrounding whitespace counts."""
    return stated == part or _BLANK.sub(" ", stated) == _BLANK.sub(" ", part)


def decide_reading(
    texts: Iterable[tuple[str, Sequence[Stated]]], unit: Literal["auto"] | Unit = "auto"
) -> Decision:
    """Decide how the offsets of a file are read.

    Code points with an exclusive end are preferred. Another interpretation is taken if it is the only one that gives
    the text of all entities that state it, or, where none does, the only one that fits into all texts.

    Parameters
    ----------
    texts
        The texts of a file, each with the offsets of its entities.
    unit
        The unit, if it is known.
    """
    units: Sequence[Unit] = tuple(UNITS) if unit == "auto" else (unit,)
    readings = [Reading(one, inclusive) for inclusive, one in product((False, True), units)]
    tallies = {reading: _Tally() for reading in readings}
    stated = False
    for text, spans in texts:
        data = {one: Reading(one).encoded(text) for one in units}
        for span in spans:
            stated |= _count(text, span, _ranges(text, data, span, readings), tallies)
    plain = readings[0]
    if stated:
        fitting = [r for r in readings if not tallies[r].wrong and not tallies[r].beyond]
        chosen = plain if plain in fitting else _only(fitting, tallies) or plain
        return Decision(chosen, verified=tallies[chosen].right > 0)
    fitting = [r for r in readings if not tallies[r].beyond and not r.inclusive]
    clean = [r for r in fitting if not tallies[r].ragged]
    if plain not in fitting:
        return Decision(_only(fitting, tallies) or _only(clean, tallies) or plain)
    return Decision(plain, doubt=_only(clean, tallies) if tallies[plain].ragged else None)


def _ranges(
    text: str, data: Mapping[Unit, bytes | None], span: Stated, readings: Sequence[Reading]
) -> dict[Reading, tuple[int, int] | None]:
    """Return what each interpretation takes as the range of an entity."""
    same = {ends: Reading(inclusive=ends).locate(text, span.start, span.end) for ends in (False, True)}
    return {
        reading: same[reading.inclusive]
        if data[reading.unit] is None
        else reading.located(text, data[reading.unit], span.start, span.end)
        for reading in readings
    }


def _count(
    text: str,
    span: Stated,
    found: Mapping[Reading, tuple[int, int] | None],
    tallies: Mapping[Reading, _Tally],
) -> bool:
    """Count how each interpretation fits an entity; return whether its stated text is at one of the places."""
    right = {
        reading
        for reading, place in found.items()
        if span.text is not None and place is not None and same_text(span.text, text[slice(*place)])
    }
    if span.text is not None and not right:
        return False  # wrong however it is read
    for reading, place in found.items():
        tally = tallies[reading]
        tally.ranges = hash((tally.ranges, place))
        if span.text is not None:
            tally.right += reading in right
            tally.wrong += reading not in right
        elif place is None:
            tally.beyond += 1
        else:
            tally.ragged += _is_ragged(text, *place)
    return bool(right)


def _is_ragged(text: str, start: int, end: int) -> bool:
    """Whether a range begins or ends with a blank, or within a word."""
    if text[start].isspace() or text[end - 1].isspace():
        return True
    edges = ((start - 1, start), (end - 1, end))
    return any(
        left >= 0 and right < len(text) and text[left].isalnum() and text[right].isalnum()
        for left, right in edges
    )


def _only(fitting: Sequence[Reading], tallies: Mapping[Reading, _Tally]) -> Reading | None:
    """Return the first of the interpretations if all of them find the same ranges."""
    return fitting[0] if len({tallies[reading].ranges for reading in fitting}) == 1 else None


def is_plain(text: str, spans: Iterable[tuple[Any, Any, Any]]) -> bool:
    """Whether offsets can only be code points: all fit, give the stated texts, and do not divide words.

    A text with characters of two UTF-16 code units is never that clear.

    Parameters
    ----------
    text
        The text.
    spans
        Start, end and stated text of its entities, as in the file.
    """
    simple = text.isascii()
    if not simple and max(text) > "\uffff":
        return False
    for first, last, stated in spans:
        start, end = whole_number(first), whole_number(last)
        if start is None or end is None:
            continue  # an error that is raised elsewhere
        if not 0 <= start < end <= len(text):
            return False
        if isinstance(stated, str) and stated.strip():
            if stated != text[start:end]:
                return False
        elif not simple and _is_ragged(text, start, end):
            return False
    return True


def stated_span(start: Any, end: Any, text: Any) -> Stated | None:
    """Return offsets and text of an entity if both offsets are whole numbers; anything else is an error elsewhere."""
    if (first := whole_number(start)) is None or (last := whole_number(end)) is None:
        return None
    return Stated(first, last, text if isinstance(text, str) and text.strip() else None)


def character_range(
    place: Place,
    name: str,
    parts: tuple[str, str, str],
    given: tuple[Any, Any, Any],
    text: str,
    decision: Decision,
    report: Counter[str],
) -> tuple[int, int] | None:
    """Return the range of an entity in code points, the end exclusive.

    Parameters
    ----------
    place
        Location of the record.
    name, parts
        Name of the entity, and those of its start, its end and its label after it, in messages.
    given
        Its start, its end and, if the file states it, its text.
    text
        The text of the record.
    decision
        How offsets are read.
    report
        Counts offsets that are written as a text, and entities whose text is another.

    Returns
    -------
    tuple of int, or None
        None if the text at the offsets is not the stated one, while other entities of the file fit.

    Raises
    ------
    DataError
        An offset is no whole number or out of range, or no stated text of the file fits.
    """
    given = counted_number(given[0], report), counted_number(given[1], report), given[2]
    stated, found = stated_span(*given), None
    if stated is None or stated.text is None or not decision.verified:
        found = _checked_range(place, name, parts, given, text, decision.reading)
    else:
        found = decision.reading.locate(text, stated.start, stated.end)
    there = "" if found is None else text[slice(*found)]
    if stated is None or stated.text is None or same_text(stated.text.strip(), there.strip()):
        return found
    if not decision.verified:
        what = f"is {shown(stated.text)} but the text has {shown(there)}"
        raise place.error(f"{name}.text", what, "the text at these offsets", "Check the offsets")
    note(
        report,
        "entity whose text is not the text at its offsets (dropped)",
        f"{place} ({name}): {shown(stated.text)}, the text has {shown(there)}",
    )
    return None


def _checked_range(
    place: Place,
    name: str,
    parts: tuple[str, str, str],
    given: tuple[Any, Any, Any],
    text: str,
    reading: Reading,
) -> tuple[int, int]:
    """Return the range of an entity in code points, or raise an error that says what is wrong with it."""
    length = reading.length(text)
    counted = f"the text has {length} {'characters' if reading.unit == 'codepoints' else UNITS[reading.unit]}"
    do = "" if text.isascii() else 'Set offsets = "utf16" or "bytes" if the file counts these'
    ends = []
    for part, value, highest in (
        (parts[0], given[0], length),
        (parts[1], given[1], length - reading.inclusive),
    ):
        ends.append(index_value(place, f"{name}{part}", value, highest, counted, do))
    start, end = ends
    if start >= end + reading.inclusive:
        raise place.error(name, f"goes from {start} to {end}", "start < end, the end exclusive")
    found = reading.locate(text, start, end)
    if found is None:
        what = f"goes from {start} to {end}, which is within a character in {reading}"
        raise place.error(name, what, "offsets between characters", do)
    return found
