"""Reads the standoff format of brat: texts in .txt files, annotations in the .ann files next to them."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from gliner_pipe.data.fields import LONGEST_LABEL, Entity, Relation, shown
from gliner_pipe.data.files import BOM, Place, read_lines, read_text
from gliner_pipe.data.offsets import Reading
from gliner_pipe.data.readers.base import Reader, Record, reader
from gliner_pipe.errors import DataError

#: An offset of more digits is beyond any text.
_OFFSET = "[0-9]{1,18}"
_ENTITY = re.compile(rf"(T\S*)\t(\S+) ({_OFFSET} {_OFFSET}(?:;{_OFFSET} {_OFFSET})*)\t(.*)")
_RELATION = re.compile(r"(R\S*)\t(\S+) \S+?:(\S+) \S+?:(\S+)\s*")
_EVENT = re.compile(r"(E\S*)\t\S+?:(\S+)(?: .*)?\s*")
_IGNORED = {
    "A": "attribute",
    "M": "attribute",
    "N": "normalization",
    "#": "note",
    "*": "equivalence of entities",
}
_LINE_KINDS = "lines that begin with T, R, E, A, M, N, # or *"


@dataclass
class _Mention:
    """A T line: label, character ranges and covered text of an entity."""

    place: Place
    name: str
    label: str
    ranges: list[tuple[int, int]]
    text: str


@dataclass
class _Annotations:
    """The lines of one .ann file."""

    mentions: dict[str, _Mention] = field(default_factory=dict)
    triggers: dict[str, str] = field(default_factory=dict)
    relations: dict[str, tuple[Place, str, str, str]] = field(default_factory=dict)


@reader("standoff")
class StandoffReader(Reader):
    """Reads the standoff format of brat: texts in .txt files, entities and relations in the .ann files next to them.

    Events, attributes, normalizations and notes are counted and left out; a relation to an event becomes a relation
    to its trigger. The tokenizer of the pipeline splits the text.

    Parameters
    ----------
    path
        Folder (with its subfolders), file, pattern such as ``"corpus/*.txt"``, or a list of these.
    converter
        Schema of the files; this reader supports this one only.
    discontinuous
        How an entity with several ranges is handled: ``"cover"`` takes everything from its first to its last
        character, ``"drop"`` leaves it out. Both are counted.
    require_gold
        Treat a text without .ann file as an error; otherwise it has no entities.
    options
        Options of all readers, see :class:`Reader`.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".ann")

    def __init__(
        self,
        path: Any,
        *,
        converter: Literal["standoff"] = "standoff",
        discontinuous: Literal["cover", "drop"] = "cover",
        require_gold: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        self.discontinuous = discontinuous
        self.require_gold = require_gold

    def files(self) -> list[Path]:
        """Return the text files; an .ann file is replaced by the text next to it."""
        texts = [file.with_suffix(".txt") if file.suffix == ".ann" else file for file in super().files()]
        for text in dict.fromkeys(texts):
            if not text.exists():
                raise DataError(str(text), "does not exist", "the text next to its .ann file", "Add the file")
        return list(dict.fromkeys(texts))

    def records(self, file: Path, report: Counter[str]) -> Iterator[Record]:
        """Yield the document of a text file; nothing if the text is empty."""
        text = read_text(file, keep_bom=True)
        if not text.removeprefix(BOM):
            report["empty text (skipped)"] += 1
            return
        annotations = self._annotations(file.with_suffix(".ann"), report)
        text = _fitting_text(text, annotations, report)
        entities: list[Entity] = []
        positions: dict[str, int] = {}
        for mention in annotations.mentions.values():
            _check_mention(mention, text)
            entity = self._entity(mention, text, report)
            if entity is not None:
                positions[mention.name] = len(entities)
                entities.append(entity)
        relations = _relations(annotations, positions, report)
        place = Place(str(file))
        yield Record(place, text=text, entities=entities, relations=relations or None, id=file.stem)

    def _annotations(self, file: Path, report: Counter[str]) -> _Annotations:
        found = _Annotations()
        if not file.exists():
            if self.require_gold:
                do = "Write an empty one for a text without entities, or set require_gold = false"
                raise DataError(str(file), "does not exist", "an .ann file next to each .txt file", do)
            report["text without .ann file (no entities)"] += 1
            return found
        for number, line in read_lines(file):
            if line.strip():
                _read_line(Place(str(file), number), line, found, report)
        return found

    def _entity(self, mention: _Mention, text: str, report: Counter[str]) -> Entity | None:
        ranges = sorted(mention.ranges)
        gaps = [text[left[1] : right[0]] for left, right in itertools.pairwise(ranges)]
        if any(gap.strip() for gap in gaps):
            if self.discontinuous == "drop":
                report["discontinuous entity (dropped)"] += 1
                return None
            report["discontinuous entity (extended from its first to its last character)"] += 1
        return ranges[0][0], max(end for _, end in ranges), mention.label


def _read_line(place: Place, line: str, found: _Annotations, report: Counter[str]) -> None:
    kind = line[0]
    if kind == "T":
        mention = _mention(place, line)
        _check_new(place, mention.name, found)
        found.mentions[mention.name] = mention
    elif kind == "R":
        match = _RELATION.fullmatch(line)
        if match is None:
            raise place.error("relation", f"is {shown(line)}", "R1<tab>label Arg1:T1 Arg2:T2")
        _check_new(place, match[1], found)
        found.relations[match[1]] = (place, match[2], match[3], match[4])
    elif kind == "E":
        match = _EVENT.fullmatch(line)
        if match is None:
            raise place.error("event", f"is {shown(line)}", "E1<tab>label:T1 role:T2 ...")
        _check_new(place, match[1], found)
        found.triggers[match[1]] = match[2]
        report["event (ignored)"] += 1
    elif kind in _IGNORED:
        report[f"{_IGNORED[kind]} (ignored)"] += 1
    else:
        raise place.error("", f"is {shown(line)}", _LINE_KINDS, "Check that this is an .ann file of brat")


def _check_new(place: Place, name: str, found: _Annotations) -> None:
    if name in found.mentions or name in found.triggers or name in found.relations:
        raise place.error(name, "occurs twice", "each identifier once", "Renumber the annotations")


def _mention(place: Place, line: str) -> _Mention:
    match = _ENTITY.fullmatch(line)
    if match is None:
        found = f"is {shown(line)}"
        raise place.error(
            "entity", found, "T1<tab>label start end<tab>text", "Remove blanks from labels, and use two tabs"
        )
    if len(match[2]) > LONGEST_LABEL:
        allowed = f"a label of at most {LONGEST_LABEL:,} characters"
        raise place.error(match[1], f"has a label of {len(match[2]):,} characters", allowed, "Shorten it")
    ranges = []
    for part in match[3].split(";"):
        start, end = (int(number) for number in part.split())
        if start >= end:
            raise place.error(match[1], f"goes from {start} to {end}", "start < end, the end exclusive")
        ranges.append((start, end))
    for left, right in itertools.pairwise(sorted(ranges)):
        if left[1] > right[0]:
            found = f"has the ranges {left[0]} {left[1]} and {right[0]} {right[1]}, which overlap"
            raise place.error(match[1], found, "ranges apart from each other", "Write each character once")
    return _Mention(place, match[1], match[2], ranges, match[4])


def _fitting_text(text: str, annotations: _Annotations, report: Counter[str]) -> str:
    """Return the variant of the text that fits the offsets: tools count line breaks, BOMs and emoji differently."""
    plain = text.removeprefix(BOM)
    readings = {"": plain}
    if "\r\n" in text:
        readings["line break \\r\\n counted as one character (carriage returns removed)"] = plain.replace(
            "\r\n", "\n"
        )
    for reason, reading in readings.items():
        if _fits(reading, annotations):
            if reason:
                report[reason] += 1
            return reading
    if text != plain and _fits(text, annotations):
        report["byte order mark counted as a character (offsets shifted)"] += 1
        for mention in annotations.mentions.values():
            mention.ranges = [(start - 1, end - 1) for start, end in mention.ranges]
        return plain
    for unit in (Reading("utf16"), Reading("bytes")):
        if (moved := _converted(plain, annotations, unit)) is not None:
            report[f"text whose offsets count {unit} (converted)"] += 1
            annotations.mentions = moved.mentions
            break
    return plain


def _converted(text: str, annotations: _Annotations, reading: Reading) -> _Annotations | None:
    """Return the annotations with offsets in code points, if they fit the text when read in another unit."""
    data = reading.encoded(text)
    if data is None:
        return None
    moved = {}
    for name, mention in annotations.mentions.items():
        ranges = [reading.located(text, data, start, end) for start, end in mention.ranges]
        found = [place for place in ranges if place is not None]
        if len(found) < len(ranges):
            return None
        moved[name] = replace(mention, ranges=found)
    converted = replace(annotations, mentions=moved)
    return converted if _fits(text, converted) else None


def _fits(text: str, annotations: _Annotations) -> bool:
    return all(
        mention.ranges[-1][1] <= len(text) and _same(_slice(mention, text), mention.text)
        for mention in annotations.mentions.values()
    )


def _check_mention(mention: _Mention, text: str) -> None:
    last = max(end for _, end in mention.ranges)
    if last > len(text):
        found = f"ends at character {last}, beyond the text"
        raise mention.place.error(
            mention.name, found, f"at most {len(text)}", "Check that text and .ann belong together"
        )
    there = _slice(mention, text)
    if not _same(there, mention.text):
        found = f"is {shown(mention.text)} but the text has {shown(there)}"
        raise mention.place.error(mention.name, found, "the text at these offsets", "Check the offsets")


def _slice(mention: _Mention, text: str) -> str:
    return " ".join(text[start:end] for start, end in mention.ranges)


def _same(left: str, right: str) -> bool:
    return left == right or left.split() == right.split()


def _relations(annotations: _Annotations, positions: dict[str, int], report: Counter[str]) -> list[Relation]:
    relations: list[Relation] = []
    for place, label, *ends in annotations.relations.values():
        names = [annotations.triggers.get(name, name) for name in ends]
        unknown = [name for name in names if name not in annotations.mentions]
        if unknown:
            raise place.error("relation", f"names {unknown[0]}, which does not exist", "the T of an entity")
        if all(name in positions for name in names):
            relations.append((positions[names[0]], positions[names[1]], label))
        else:
            report["relation without its entity (dropped)"] += 1
    return relations


standoff = StandoffReader
