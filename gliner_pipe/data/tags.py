"""The codec of tags: the dialect and the scheme of all tags of a data set, and tags decoded to entities."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, takewhile
from typing import Literal

from gliner_pipe.data.fields import LONGEST_LABEL, Entity, count
from gliner_pipe.data.files import Place
from gliner_pipe.errors import DataError

Scheme = Literal["IO", "IOB1", "BIO", "BIOUL", "BIOES", "BMES"]

#: Scheme of tags; ``"plain"`` takes each tag as a label, ``"auto"`` infers the scheme from the data.
TagScheme = Literal["auto", "plain"] | Scheme

#: The prefixes of each scheme, besides O.
PREFIXES: dict[str, frozenset[str]] = {
    "IO": frozenset("I"),
    "IOB1": frozenset("BI"),
    "BIO": frozenset("BI"),
    "BIOUL": frozenset("BIUL"),
    "BIOES": frozenset("BIES"),
    "BMES": frozenset("BMESW"),
}

OUTSIDE = "O"

#: Returns the record of the given tag (number of the sequence, position) and the field of the tag in it.
Locate = Callable[[int, int], tuple[Place, str]]
#: Prefix (upper case) and label of a tag; the prefix of O is O.
Parts = tuple[str, str]

_SEPARATORS = "-_:./"
_LETTERS = "BIELUSMWbieluswm"
#: How prefix and label of a tag are written, in order of preference.
_DIALECTS = tuple(
    (pattern.format(mark), re.compile(pattern.format(re.escape(mark)).replace("B", f"(?P<prefix>[{_LETTERS}])")
     .replace("label", r"(?P<label>\s*\S.*)"), re.DOTALL))
    for pattern in ("B{}label", "label{}B")
    for mark in _SEPARATORS
)  # fmt: skip
_USUAL = "B-label"
#: Between the tags of one word.
BAR = "|"
#: Roles of prefixes that exclude each other: a data set writes the inside, the last and the single word in one way.
_ALTERNATIVES = ("IM", "LE", "USW")
#: Prefixes of BIOES and BMES as prefixes of BIOUL.
_AS_BIOUL = {"E": "L", "S": "U", "W": "U", "M": "I"}

#: Tags of padding and of special subword tokens.
_SPECIAL = re.compile(
    r"<(pad|unk|s|/s|bos|eos|cls|sep|start|stop|mask)>|\[(pad|unk|cls|sep|bos|eos|mask)\]", re.I
)
#: Tags that stand for O or for padding in data with prefixes.
_NO_TAG = ("-", "*", "PAD", "X")

_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?([eE][-+]?\d+)?|LABEL_\d+")
_LOOKS_PREFIXED = re.compile(r"[A-Za-z]-.*|[BI][_:./].*|[BIELUSMW]|\([A-Za-z].*|\*\)?|", re.DOTALL)


def tags_of(scheme: str, dialect: str = "") -> str:
    """Return the valid tags of `scheme`, for error messages."""
    prefixes = [prefix for prefix in "BIMULESW" if prefix in PREFIXES[scheme]]
    tags = ", ".join((dialect or _USUAL).replace("B", prefix) for prefix in prefixes)
    return f"{OUTSIDE}, {tags} (scheme {scheme})"


@dataclass(frozen=True)
class TagCodec:
    """Reads the tags of one data set.

    Attributes
    ----------
    scheme
        ``"plain"``, or one of :data:`PREFIXES`.
    dialect
        How prefix and label are written, e.g. ``"B-label"``; empty for labels without prefixes.
    parts
        Prefix and label of each tag of the data; ``("O", "")`` for tags outside of entities.
    """

    scheme: str
    dialect: str
    parts: Mapping[str, Parts]

    def entities(self, tags: Sequence[str], report: Counter[str], at: Callable[[int], Place]) -> list[Entity]:
        """Return the entities of one sequence of tags.

        Sequences that the scheme does not allow are repaired and counted in `report`: ``I-`` without ``B-`` opens an
        entity, and an entity that is never closed ends where the next one begins.

        Parameters
        ----------
        tags
            Tags that the codec was made of.
        report
            Receives the counts.
        at
            Returns the place of a tag by its position.

        Returns
        -------
        list of (int, int, str)
            First word, end (exclusive) and label of each entity.
        """
        entities: list[Entity] = []
        start, label = 0, ""
        closes = self.scheme in ("BIOUL", "BIOES", "BMES")
        parts = self.parts

        def close(end: int, proper: bool) -> None:
            nonlocal label
            if label:
                entities.append((start, end, label))
                if closes and not proper:
                    count(report, "entity without its last tag L- or E- (closed)", at(end - 1))
            label = ""

        for position, tag in enumerate(tags):
            prefix, name = parts[tag]
            if prefix == OUTSIDE:
                if label:
                    close(position, False)
                continue
            if prefix in "BUSW" or name != label:
                close(position, False)
                if prefix in "IMLE" and self.scheme not in ("IO", "IOB1", "plain"):
                    count(report, f"{prefix}- without B- before it (read as the beginning)", at(position))
                start, label = position, name
            if prefix in "ULESW":
                close(position + 1, True)
        close(len(tags), False)
        return entities


@dataclass(frozen=True)
class LayeredCodec(TagCodec):
    """Reads tags such as ``B-person|I-group``: those of several entities of one word, one of each label."""

    def entities(self, tags: Sequence[str], report: Counter[str], at: Callable[[int], Place]) -> list[Entity]:
        """Return the entities of one sequence of tags, label by label; as :meth:`TagCodec.entities`."""
        layers: dict[str, list[str]] = {}
        for position, cell in enumerate(tags):
            for tag in cell.split(BAR):
                prefix, label = self.parts[tag]
                if prefix != OUTSIDE:
                    layer = layers.setdefault(label, [OUTSIDE] * len(tags))
                    if layer[position] != OUTSIDE:
                        count(report, "second tag of one label on a word (dropped)", at(position))
                    else:
                        layer[position] = tag
        return sorted(
            one for layer in layers.values() for one in super(LayeredCodec, self).entities(layer, report, at)
        )


def find_codec(
    scheme: str,
    sequences: Sequence[Sequence[str]],
    locate: Locate,
    report: Counter[str],
    *,
    names: Iterable[str] = (),
    do: str = 'Check the column of the tags; scheme = "plain" takes tags as labels',
) -> TagCodec:
    """Return the codec of all tags of a data set.

    The tags decide together: how prefix and label are written (``B-person``, ``B_person``, ``person-B``, ...), and in
    which scheme. Anything but BIO with ``B-person`` is said in `report`. ``B-person|I-group`` are two tags of a word.

    Parameters
    ----------
    scheme
        ``"auto"``, ``"plain"`` or one of :data:`PREFIXES`.
    sequences
        The tags of each sentence.
    locate
        Returns the place of a tag.
    report
        Receives what is unusual.
    names
        All tags that the data set knows, if it names them.
    do
        What to do about tags that cannot be read.

    Raises
    ------
    DataError
        Some tags are not valid in `scheme`, or look like tags and are none; with up to three examples.
    """
    counts = Counter(chain.from_iterable(sequences))
    if long := {tag for tag in counts if len(tag) > LONGEST_LABEL}:
        i, j = next((i, j) for i, tags in enumerate(sequences) for j, tag in enumerate(tags) if tag in long)
        place, field = locate(i, j)
        allowed = f"a tag of at most {LONGEST_LABEL:,} characters"
        raise place.error(field, f"has {len(sequences[i][j]):,} characters", allowed, do)
    if scheme == "plain":
        labels = {tag: (OUTSIDE, "") if tag == OUTSIDE else ("I", tag) for tag in counts}
        return TagCodec(scheme, "", labels)
    several = [tag for tag in counts if BAR in tag]
    if several and has_prefixes({OUTSIDE, *chain.from_iterable(tag.split(BAR) for tag in several)}):
        return _layered(scheme, sequences, locate, report, names, do)
    known = {tag: None for tag in (*counts, *names) if not _means_outside(tag)}
    dialect, parts = _best_dialect(known, scheme, _is_lower(counts))
    numbers = not dialect and bool(known) and all(map(_NUMBER.fullmatch, known))
    wrong = [tag for tag in counts if tag in known and (numbers or tag not in parts)]
    written = scheme
    if scheme == "auto":
        written = _scheme_of({prefix for prefix, _ in parts.values()}, bool(dialect))
    elif not dialect and scheme != "IO":
        wrong = [tag for tag in counts if tag in known]
    else:
        wrong += [tag for tag in counts if tag in parts and parts[tag][0] not in PREFIXES[scheme]]
    if wrong:
        allowed = tags_of(written, dialect)
        if numbers:
            allowed = "tags, or ids with tag_names"
            do = f'They are numbers. Name them: tag_names = ["O", "B-person", "I-person", ...]. {do}'
        elif set(wrong) <= set(_LETTERS):
            do = f'They have no label. Name it: tag_names = {{"B": "B-person", "I": "I-person"}}. {do}'
        raise _wrong_tags(wrong, allowed, sequences, locate, do)
    read = {tag: parts.get(tag, (OUTSIDE, "")) for tag in counts}
    if scheme == "auto" and written == "BIO" and _is_iob1(sequences, read):
        written = "IOB1"
    codec = TagCodec(written, dialect, read)
    _say(codec, scheme, counts, sequences, locate, report)
    return codec


def _layered(
    scheme: str,
    sequences: Sequence[Sequence[str]],
    locate: Locate,
    report: Counter[str],
    names: Iterable[str],
    do: str,
) -> LayeredCodec:
    """Return the codec of data in which words have several tags; arguments as for :func:`find_codec`."""
    cells = [
        [(tag, position) for position, cell in enumerate(tags) for tag in cell.split(BAR)]
        for tags in sequences
    ]
    flat = [[tag for tag, _ in row] for row in cells]
    names = [tag for name in names for tag in name.split(BAR)]
    codec = find_codec(scheme, flat, lambda i, j: locate(i, cells[i][j][1]), report, names=names, do=do)
    first = next((i, j) for i, tags in enumerate(sequences) for j, tag in enumerate(tags) if BAR in tag)
    total = sum(BAR in tag for tags in sequences for tag in tags)
    count(report, "word with several tags (each is read)", locate(*first)[0], total)
    return LayeredCodec(codec.scheme, codec.dialect, {**codec.parts, OUTSIDE: (OUTSIDE, "")})


def decode_tags(tags: Sequence[str], scheme: str, report: Counter[str]) -> list[Entity]:
    """Return the entities of one sequence of tags such as ``B-person``, without inferring how they are written.

    Sequences that `scheme` does not allow are repaired as in :meth:`TagCodec.entities`; a tag without prefix counts as
    inside of an entity.

    Parameters
    ----------
    tags
        O, or any prefix with a hyphen and the label.
    scheme
        One of :data:`PREFIXES`.
    report
        Receives the counts.
    """
    parts = {tag: (OUTSIDE, "") if tag == OUTSIDE else ("I", tag) for tag in tags}
    parts |= {tag: _parts(match) for tag in parts if (match := _DIALECTS[0][1].fullmatch(tag))}
    return TagCodec(scheme, _USUAL, parts).entities(tags, report, lambda position: Place("tags"))


def _means_outside(tag: str) -> bool:
    return tag in (OUTSIDE, "o", "_") or _SPECIAL.fullmatch(tag) is not None


def _best_dialect(
    tags: Collection[str], scheme: str = "auto", lower: bool = False
) -> tuple[str, dict[str, Parts]]:
    """Return the dialect of most of `tags` and the parts of the tags that it reads; empty for bare labels.

    `lower` says that even O is in lower case.
    """
    bare: dict[str, Parts] = {tag: ("I", tag) for tag in tags if not _looks_prefixed(tag, tags)}
    best, parts = "", bare
    for name, pattern in _DIALECTS:
        matches = {tag: match for tag in tags if (match := pattern.fullmatch(tag))}
        found = {tag: _parts(match) for tag, match in matches.items()}
        for tag in tags:
            if tag in _NO_TAG:
                found.setdefault(tag, (OUTSIDE, ""))
        better = len(found) > len(parts) or (not best and len(found) == len(parts))
        if matches and better and (scheme in PREFIXES or _is_plausible(name, matches.values(), lower)):
            best, parts = name, found
    return best, parts


def has_prefixes(tags: Collection[str]) -> bool:
    """Whether `tags` are O and tags with prefixes, in one dialect."""
    known = [tag for tag in tags if not _means_outside(tag) and tag not in _NO_TAG]
    for name, pattern in _DIALECTS if known else ():
        matches = list(takewhile(bool, map(pattern.fullmatch, known)))
        if len(matches) == len(known):
            return _is_plausible(name, [match for match in matches if match], _is_lower(tags))
    return False


def _looks_prefixed(tag: str, tags: Collection[str]) -> bool:
    """Whether a label without a known prefix is rather a tag: ``X-person``, ``B``, or ``Bper`` beside ``Iper``."""
    return _LOOKS_PREFIXED.fullmatch(tag) is not None or _is_paired(tag, tags)


def _is_paired(tag: str, tags: Collection[str]) -> bool:
    """Whether `tags` has the same tag with I for B, or B for I, at the beginning or end."""
    other = {"B": "I", "I": "B"}
    head, last = other.get(tag[:1]), other.get(tag[-1:])
    return (head is not None and head + tag[1:] in tags) or (last is not None and tag[:-1] + last in tags)


def _parts(match: re.Match[str]) -> Parts:
    return match["prefix"].upper(), match["label"].strip()


def _is_lower(tags: Collection[str]) -> bool:
    return OUTSIDE.lower() in tags and OUTSIDE not in tags


def _is_plausible(dialect: str, matches: Collection[re.Match[str]], lower: bool) -> bool:
    """Whether the letters of `dialect` are prefixes of a scheme, rather than parts of labels (``e-mail``)."""
    letters = {prefix for prefix, _ in map(_parts, matches)}
    if any(len(letters & set(role)) > 1 for role in _ALTERNATIVES) or not letters & set("BIUSW"):
        return False
    written: dict[str, set[str]] = {}
    for prefix, label in map(_parts, matches):
        written.setdefault(label, set()).add(prefix)
    if any(len(prefixes) > 1 for prefixes in written.values()):
        return True
    doubtful = not lower and any(match["prefix"].islower() for match in matches)
    return not doubtful and not letters & set("LEM") and (dialect == _USUAL or bool(letters & set("BI")))


def _scheme_of(prefixes: set[str], has_prefixes: bool) -> str:
    """Return the scheme of the prefixes of a data set; ``IOB1`` has those of ``BIO``."""
    prefixes = prefixes - {OUTSIDE}
    if not has_prefixes:
        return "IO" if prefixes else "BIO"
    known = (name for name in ("IO", "BIO", "BIOUL", "BIOES", "BMES") if prefixes <= PREFIXES[name])
    return next(known, "BIOES")


def _is_iob1(sequences: Iterable[Sequence[str]], parts: Mapping[str, Parts]) -> bool:
    """Whether ``B-`` occurs only between two entities of one label, while other entities begin with ``I-``."""
    found = False
    for tags in sequences:
        before = ""
        for tag in tags:
            prefix, label = parts[tag]
            if prefix == "B" and before != label:
                return False
            found = found or (prefix == "I" and before != label)
            before = label
    return found


def _wrong_tags(
    wrong: Collection[str], allowed: str, sequences: Sequence[Sequence[str]], locate: Locate, do: str
) -> DataError:
    """Return the error about tags that cannot be read, with up to three examples."""
    examples: dict[str, tuple[Place, str]] = {}
    rest = set(wrong)
    for number, tags in enumerate(sequences):
        if rest.isdisjoint(tags):
            continue
        for position, tag in enumerate(tags):
            if tag in rest and len(examples) < 3:
                rest.discard(tag)
                examples[tag] = locate(number, position)
        if len(examples) == 3 or not rest:
            break
    (first, (place, field)), *others = examples.items()
    found = f"is {first!r}" + "".join(f", {where} ({name}) is {tag!r}" for tag, (where, name) in others)
    return place.error(field, found, allowed, do)


def _say(
    codec: TagCodec,
    scheme: str,
    counts: Counter[str],
    sequences: Sequence[Sequence[str]],
    locate: Locate,
    report: Counter[str],
) -> None:
    """Count in `report` what is not usual about the tags of a data set, with the first place of each."""

    def say(reason: str, tags: Collection[str], number: int | None = None) -> None:
        if tags:
            tags = set(tags)
            total = sum(counts[tag] for tag in tags) if number is None else number
            first = next(
                (i, j) for i, line in enumerate(sequences) for j, tag in enumerate(line) if tag in tags
            )
            count(report, reason, locate(*first)[0], total)

    inside = [tag for tag, (prefix, _) in codec.parts.items() if prefix != OUTSIDE]
    if inside and codec.dialect and (codec.dialect != _USUAL or (scheme == "auto" and codec.scheme != "BIO")):
        say(f"tag such as {inside[0]!r} (read as {codec.scheme}, written {codec.dialect})", inside)
    elif inside and scheme == "auto" and not codec.dialect:
        say("tag without prefix (adjacent words with one tag are one entity)", inside)
    known = {*inside, OUTSIDE, "o"}
    for tag in codec.parts:
        if tag not in known:
            say(f"tag {tag!r} (read as O)", [tag])
    if codec.scheme == "BIO" and not any(codec.parts[tag][0] == "I" for tag in inside):
        begins = {tag for tag in inside if codec.parts[tag][0] == "B"}
        repeated = sum(one == other and one in begins for tags in sequences for one, other in pairwise(tags))
        if repeated:
            say("B- after the same B-, in data without any I- (read as separate entities)", begins, repeated)


def split_tag_names(names: Sequence[str]) -> list[Parts | None]:
    """Return prefix and label of each tag name of a model, with the prefixes of BIOUL; None for ``O`` and padding.

    All names must share one dialect, as the tags of a data set do. Without a shared dialect, a name that has no ``B-``
    or ``I-`` is a label and counts as inside, as transformers reads it; without an ``O`` as well, each word has a label
    and the prefix is ``W``.

    Raises
    ------
    ValueError
        Names look like tags and are none.
    """
    others = {name: None for name in names if not _means_outside(name)}
    dialect, parts = _best_dialect(others, lower=_is_lower(names))
    if dialect and len(parts) == len(others):
        parts = {tag: (_AS_BIOUL.get(prefix, prefix), label) for tag, (prefix, label) in parts.items()}
    elif not any(name.upper() == OUTSIDE for name in names):
        parts = {name: ("W", name) for name in others}
    else:
        dashed = {name: re.fullmatch(r"([BI])-(.+)", name) for name in others}
        wrong = [
            name
            for name in others
            if not dashed[name] and (re.match(r"[A-Za-z]-.", name) or _is_paired(name, others))
        ]
        if wrong:
            raise ValueError(
                f"has names that look like tags and are none ({', '.join(map(repr, wrong[:3]))})"
            )
        parts = {
            name: (match[1], match[2].strip()) if match else ("I", name) for name, match in dashed.items()
        }
    found = (parts.get(name) for name in names)
    return [None if one is None or one[0] == OUTSIDE else one for one in found]
