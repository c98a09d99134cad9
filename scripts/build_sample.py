"""Build the sample corpus from its hand-annotated source.

The source, ``data/sample/sentences.txt``, holds one sentence a line, with
entities marked inline, nested where needed, and relations below it::

    # doc news_oslo train
    [Maria Lopez|person] joined [[Oslo|city] University|organization].
    > Maria Lopez | works_at | Oslo University

A line that begins with ``>`` is a relation of the sentence above it, head
first, between entities that lie in no other one. A document opens with
``# doc NAME SPLIT`` (``SPLIT`` is ``train`` or ``dev``) and ends at a blank
line. The script writes, next to the source,

- ``train.jsonl`` and ``dev.jsonl``: GLiNER JSON, one sentence a line;
- ``train_docs.jsonl`` and ``dev_docs.jsonl``: the same, one document a line;
- ``train_names.jsonl``: the training documents again, each with other names
  for some of its labels, from ``label_names.json`` beside the source;
- ``brat/train`` and ``brat/dev``: brat standoff, a ``.txt`` and an ``.ann``
  file for each document, one sentence a line in the text;

and prints the counts of both splits. Text that is not well formed is refused
with the file and the line number.

Usage
-----
``python scripts/build_sample.py [--source PATH] [--names PATH] [--output FOLDER]``
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LABELS = (
    "person",
    "organization",
    "city",
    "country",
    "date",
    "time",
    "money",
    "product",
    "event",
    "profession",
    "disease",
    "work of art",
)
RELATIONS = ("has_profession", "works_at", "lives_in", "located_in", "held_on", "creator_of")
SPLITS = ("train", "dev")
#: Of the documents with other names for their labels: share of the labels that keep their own, and number of names.
OWN_NAME_SHARE, ASKED = 0.3, (7, 11)
MAX_TOKENS = 12
TOKEN = re.compile(r"\w+(?:[-_]\w+)*|\S")
RELATION = re.compile(r"> (?P<head>.+) \| (?P<label>\w+) \| (?P<tail>.+)")
HEADER = re.compile(r"# doc (?P<name>\w+) (?P<split>\w+)")
SAMPLE_DIR = Path(__file__).resolve().parent.parent / "data" / "sample"


class SourceError(ValueError):
    """The annotated source is malformed."""


@dataclass(frozen=True, order=True)
class Entity:
    """A labelled span of characters; the end is exclusive."""

    start: int
    end: int
    label: str


@dataclass
class Sentence:
    """Plain text of one sentence, its tokens' offsets, its entities and its relations.

    A relation is head, tail and label; head and tail count in the entities.
    """

    text: str
    tokens: list[tuple[int, int]]
    entities: list[Entity]
    relations: list[tuple[int, int, str]] = field(default_factory=list)

    def to_gliner(self) -> dict[str, list[Any]]:
        """Return the sentence in the GLiNER JSON form."""
        first = {start: i for i, (start, _) in enumerate(self.tokens)}
        last = {end: i for i, (_, end) in enumerate(self.tokens)}
        return {
            "tokenized_text": [self.text[start:end] for start, end in self.tokens],
            "ner": [[first[e.start], last[e.end], e.label] for e in self.entities],
            "relations": [list(relation) for relation in self.relations],
        }

    def is_nested(self, entity: Entity) -> bool:
        """Return whether an entity lies inside another one."""
        return any(o.start <= entity.start and entity.end <= o.end for o in self.entities if o is not entity)

    def count_nested(self) -> int:
        """Count the entities that lie inside another entity."""
        return sum(map(self.is_nested, self.entities))

    def add_relation(self, line: str) -> None:
        """Add the relation that a line of the source states.

        Raises
        ------
        SourceError
            If the line is malformed, its label is unknown, an end is not the text of exactly one entity
            that lies in no other one, or the relation stands there twice.
        """
        match = RELATION.fullmatch(line)
        if match is None:
            raise SourceError("expected '> HEAD | label | TAIL'")
        if match["label"] not in RELATIONS:
            raise SourceError(f"unknown relation {match['label']!r}")
        relation = (self._outermost(match["head"]), self._outermost(match["tail"]), match["label"])
        if relation[0] == relation[1] or relation in self.relations:
            raise SourceError(f"{line!r} goes from an entity to itself or is stated twice")
        self.relations.append(relation)

    def _outermost(self, surface: str) -> int:
        found = [
            i
            for i, e in enumerate(self.entities)
            if self.text[e.start : e.end] == surface and not self.is_nested(e)
        ]
        if len(found) != 1:
            raise SourceError(f"{len(found)} entities outside of others read {surface!r}")
        return found[0]


@dataclass
class Document:
    """A named document of one split."""

    name: str
    split: str
    sentences: list[Sentence] = field(default_factory=list)


def parse_sentence(line: str) -> Sentence:
    """Parse one sentence with inline markup.

    Parameters
    ----------
    line : str
        Text with entities written ``[text|label]``, nested at will.

    Returns
    -------
    Sentence
        The text without markup, with entities ordered by start, longest first.

    Raises
    ------
    SourceError
        If brackets do not balance, a label is unknown, or an entity is empty,
        is marked twice, is too long, or does not fall on token borders.
    """
    text = ""
    open_starts: list[int] = []
    entities: list[Entity] = []
    position = 0
    while position < len(line):
        char = line[position]
        position += 1
        if char == "[":
            open_starts.append(len(text))
        elif char == "|":
            close = line.find("]", position)
            if not open_starts:
                raise SourceError("unbalanced brackets: '|' outside an entity")
            if close < 0:
                raise SourceError("unbalanced brackets: '|' without ']'")
            label = line[position:close]
            if label not in LABELS:
                raise SourceError(f"unknown label {label!r}")
            entities.append(Entity(open_starts.pop(), len(text), label))
            position = close + 1
        elif char == "]":
            raise SourceError("unbalanced brackets: ']' without '|label'")
        else:
            text += char
    if open_starts:
        raise SourceError("unbalanced brackets: '[' is never closed")

    tokens = [match.span() for match in TOKEN.finditer(text)]
    starts = {start for start, _ in tokens}
    ends = {end for _, end in tokens}
    for entity in entities:
        surface = text[entity.start : entity.end]
        if entity.start not in starts or entity.end not in ends:
            raise SourceError(f"entity {surface!r} does not fall on token borders")
        if sum(entity.start <= start < entity.end for start, _ in tokens) > MAX_TOKENS:
            raise SourceError(f"entity {surface!r} has more than {MAX_TOKENS} tokens")
    if len({(e.start, e.end) for e in entities}) != len(entities):
        raise SourceError("the same span is marked twice")
    entities.sort(key=lambda e: (e.start, -e.end))
    return Sentence(text, tokens, entities)


def parse_source(path: Path) -> list[Document]:
    """Read all documents of the annotated source.

    Parameters
    ----------
    path : Path
        The annotated source.

    Returns
    -------
    list[Document]
        The documents, in the order of the file.

    Raises
    ------
    SourceError
        If a header or a sentence is malformed; the message names file and line.
    """
    documents: list[Document] = []
    names: set[str] = set()
    current: Document | None = None
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = raw.strip()
        try:
            if not line:
                current = None
            elif line.startswith("#"):
                header = HEADER.fullmatch(line)
                if header is None or header["split"] not in SPLITS:
                    raise SourceError("expected '# doc NAME train' or '# doc NAME dev'")
                if header["name"] in names:
                    raise SourceError(f"document {header['name']!r} appears twice")
                names.add(header["name"])
                current = Document(header["name"], header["split"])
                documents.append(current)
            elif current is None:
                raise SourceError("sentence outside a document")
            elif line.startswith(">"):
                if not current.sentences:
                    raise SourceError("relation before the first sentence")
                current.sentences[-1].add_relation(line)
            else:
                current.sentences.append(parse_sentence(line))
        except SourceError as error:
            raise SourceError(f"{path}:{number}: {error}") from None
    return documents


def join_gliner(document: Document) -> dict[str, list[Any]]:
    """Return a whole document as a GLiNER record."""
    tokens: list[str] = []
    entities: list[list[Any]] = []
    relations: list[list[Any]] = []
    for sentence in document.sentences:
        record = sentence.to_gliner()
        relations += [
            [head + len(entities), tail + len(entities), label] for head, tail, label in record["relations"]
        ]
        entities += [[start + len(tokens), end + len(tokens), label] for start, end, label in record["ner"]]
        tokens += record["tokenized_text"]
    return {"tokenized_text": tokens, "ner": entities, "relations": relations}


def rename_labels(document: Document, concepts: list[dict[str, Any]], rng: random.Random) -> dict[str, Any]:
    """Return a document as a GLiNER record that asks for some of its entities under other names.

    Parameters
    ----------
    document
        The document.
    concepts
        What a label may be called: ``names``, for the ``labels`` that they cover together, and for those of their
        entities only that match ``pattern`` as a whole and do not contain ``except``.
    rng
        Source of randomness.

    Returns
    -------
    dict
        The record, without relations. ``ner_labels`` are the names asked for: any entity that has none of them is
        annotated as nothing. No two of them cover the same label.
    """
    asked: list[tuple[str, dict[str, Any]]] = []
    covered: set[str] = set()
    for concept in rng.sample(concepts, len(concepts)):
        if covered.isdisjoint(concept["labels"]):
            covered.update(concept["labels"])
            plain = len(concept["labels"]) == 1 and not {"pattern", "except"} & concept.keys()
            own_name = plain and rng.random() < OWN_NAME_SHARE
            asked.append((concept["labels"][0] if own_name else rng.choice(concept["names"]), concept))
    asked = rng.sample(asked, min(rng.randint(*ASKED), len(asked)))
    record = join_gliner(document)
    entities = []
    for start, end, label in record["ner"]:
        surface = " ".join(record["tokenized_text"][start : end + 1])
        entities += [[start, end, name] for name, concept in asked if covers(concept, label, surface)]
    names = [name for name, _ in asked]
    row = {"tokenized_text": record["tokenized_text"], "ner": entities, "ner_labels": names}
    return {**row, "adds_labels": False}


def covers(concept: dict[str, Any], label: str, surface: str) -> bool:
    """Return whether the names of a concept fit an entity."""
    return (
        label in concept["labels"]
        and re.fullmatch(concept.get("pattern", ".*"), surface) is not None
        and ("except" not in concept or re.search(concept["except"], surface) is None)
    )


def format_brat(document: Document) -> tuple[str, str]:
    """Return the text and the annotations of a document as brat standoff."""
    text = ""
    lines: list[str] = []
    relations: list[str] = []
    for sentence in document.sentences:
        for head, tail, label in sentence.relations:
            ends = f"Arg1:T{len(lines) + head + 1} Arg2:T{len(lines) + tail + 1}"
            relations.append(f"R{len(relations) + 1}\t{label} {ends}\n")
        for entity in sentence.entities:
            start, end = len(text) + entity.start, len(text) + entity.end
            surface = sentence.text[entity.start : entity.end]
            label = entity.label.replace(" ", "_")
            lines.append(f"T{len(lines) + 1}\t{label} {start} {end}\t{surface}\n")
        text += sentence.text + "\n"
    return text, "".join(lines + relations)


def write_file(path: Path, text: str) -> None:
    """Write UTF-8 text with plain newlines on every platform."""
    path.write_text(text, encoding="utf-8", newline="\n")


def write_names(documents: list[Document], names: Path, output: Path) -> None:
    """Write the training documents with other names for their labels, the same ones each time."""
    concepts = json.loads(names.read_text(encoding="utf-8"))
    rows = [
        json.dumps(rename_labels(document, concepts, random.Random(document.name)), ensure_ascii=False)
        for document in documents
        if document.split == "train"
    ]
    write_file(output / "train_names.jsonl", "".join(row + "\n" for row in rows))


def write_split(documents: list[Document], split: str, output: Path) -> None:
    """Write the GLiNER and brat files of one split, replacing old ones."""
    rows = [
        json.dumps(sentence.to_gliner(), ensure_ascii=False)
        for document in documents
        for sentence in document.sentences
    ]
    write_file(output / f"{split}.jsonl", "".join(row + "\n" for row in rows))
    whole = [json.dumps(join_gliner(document), ensure_ascii=False) for document in documents]
    write_file(output / f"{split}_docs.jsonl", "".join(row + "\n" for row in whole))

    folder = output / "brat" / split
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("*.txt", "*.ann"):
        for old in folder.glob(pattern):
            old.unlink()
    for document in documents:
        text, annotations = format_brat(document)
        write_file(folder / f"{document.name}.txt", text)
        write_file(folder / f"{document.name}.ann", annotations)


def format_counts(documents: list[Document]) -> str:
    """Return a table of the counts of both splits."""
    columns: dict[str, Counter[str]] = {}
    for split in SPLITS:
        chosen = [document for document in documents if document.split == split]
        sentences = [sentence for document in chosen for sentence in document.sentences]
        counts = Counter(entity.label for s in sentences for entity in s.entities)
        counts["entities"] = counts.total()
        found = Counter(label for s in sentences for _, _, label in s.relations)
        counts["relations"] = found.total()
        counts.update(found)
        counts["documents"] = len(chosen)
        counts["sentences"] = len(sentences)
        counts["without entities"] = sum(not s.entities for s in sentences)
        counts["tokens"] = sum(len(s.tokens) for s in sentences)
        counts["nested"] = sum(s.count_nested() for s in sentences)
        columns[split] = counts
    summary = ("documents", "sentences", "without entities", "tokens", "entities", "nested")
    rows = [f"{'':<18}{'train':>7}{'dev':>7}"]
    rows += [f"{key:<18}{columns['train'][key]:>7}{columns['dev'][key]:>7}" for key in summary]
    keys = (*LABELS, "relations", *RELATIONS)
    rows += [f"{key:<18}{columns['train'][key]:>7}{columns['dev'][key]:>7}" for key in keys]
    return "\n".join(rows)


def main(argv: list[str] | None = None) -> int:
    """Build the corpus and print its counts; return the exit status."""
    parser = argparse.ArgumentParser(description="Build the sample corpus.")
    parser.add_argument("--source", type=Path, default=SAMPLE_DIR / "sentences.txt")
    parser.add_argument("--names", type=Path, default=SAMPLE_DIR / "label_names.json")
    parser.add_argument("--output", type=Path, default=SAMPLE_DIR)
    args = parser.parse_args(argv)
    try:
        documents = parse_source(args.source)
    except (OSError, SourceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    args.output.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        write_split([d for d in documents if d.split == split], split, args.output)
    write_names(documents, args.names, args.output)
    print(format_counts(documents))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
