"""From spaCy examples to a training batch of the tagger, with targets for words or for every subword token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from spacy.tokens import Doc
from spacy.training import Example
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gliner_pipe.data.annotations import SpanSetter, gold_spans, trimmed
from gliner_pipe.data.token_targets import SPANS, read_values
from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.stacked import Dense, Stacked
from gliner_pipe.modeling.backbones.windows import IntArray, Window
from gliner_pipe.modeling.batch import Drawn
from gliner_pipe.modeling.decoders.tags import UNKNOWN, TagDecoder
from gliner_pipe.modeling.token_classifier import TaggingBatch, TokenClassifier
from gliner_pipe.pipeline.gliner.collate import NO_PIECES, UNALIGNED
from gliner_pipe.pipeline.word_splitters import NO_WORD, ReadWords, Words, WordSplitter, read_words


def by_pieces(
    model: TokenClassifier, windows: Sequence[Window], gold: Sequence[Tensor]
) -> tuple[list[Window], list[Tensor]]:
    """Make a word of each piece: the first has the tag of the word, the others are inside of what the word is in.

    Parameters
    ----------
    model
        With weights.
    windows
        Of the texts.
    gold
        Tags of the words of each text, ``(words, chains)``.

    Raises
    ------
    ConfigError
        If the backbone lets words see one another once more: they must be words then.
    """
    backbone = model.encoder.backbone
    if isinstance(backbone, Stacked) and not isinstance(backbone, Dense):
        raise ConfigError(
            "components.*.model.decoder.all_pieces",
            f"found True over {type(backbone).__name__}, which reads whole words",
            "False, or a transformer alone",
        )
    units = [np.ones(len(tags), np.int64) for tags in gold]
    for window in windows:  # a word without pieces keeps its place
        own = slice(window.own_start - window.start, window.own_stop - window.start)
        units[window.text][window.own_start : window.own_stop] = np.maximum(window.counts[own], 1)
    made = []
    for window in windows:
        firsts = np.concatenate([[0], np.cumsum(units[window.text])])
        counts = np.repeat(np.minimum(window.counts, 1), np.maximum(window.counts, 1))
        start, stop, own_start, own_stop = (
            int(firsts[word]) for word in (window.start, window.stop, window.own_start, window.own_stop)
        )
        made.append(
            replace(window, start=start, stop=stop, own_start=own_start, own_stop=own_stop, counts=counts)
        )
    return made, [_spread(model.decoder, tags, some) for tags, some in zip(gold, units, strict=True)]


def _spread(decoder: TagDecoder, tags: Tensor, units: IntArray) -> Tensor:
    """Return the tags of pieces."""
    times = torch.from_numpy(units)
    spread = tags.repeat_interleave(times, 0)
    inside = torch.arange(len(decoder.tags))
    for place, prefix in enumerate(decoder.tables.prefixes):
        if prefix == "B":  # in all schemes with B, the I of a label comes next
            inside[place] = place + 1
    later = torch.ones(len(spread), dtype=torch.bool)
    later[times.cumsum(0) - times] = False
    known = spread >= 0
    return torch.where(later[:, None] & known, inside[spread.clamp(min=0)], spread)


STRANGE = "label that is not among the labels"
LOST = "entity that the tags cannot hold beside another"

#: Words of a chain in training. Longer texts are cut; at a cut, the neighbouring word stands with its tag unknown.
MAX_CHAIN = 512


@dataclass
class DrawnTags(Drawn):
    """Examples with the tags of their words.

    Attributes
    ----------
    model
        Lays words out.
    tags
        Gold tags of the words of each text, or of their pieces, ``(words, chains)``.
    lengths
        Words of each text.
    """

    model: TokenClassifier
    tags: Sequence[Tensor]
    lengths: Sequence[int]

    def lay_out(self, texts: Sequence[int]) -> TaggingBatch:
        """Make the batch of some of the texts, on the CPU."""
        model, gold = self.model, [self.tags[i] for i in texts]
        windows = self.rows_of(texts)
        inputs = model.encoder.collate(windows)
        width = inputs.windows.word_mask.shape[1]
        found: list[list[Tensor]] = [[] for _ in texts]
        for row, window in enumerate(windows):
            shift = row * width - window.start
            found[window.text].append(torch.arange(shift + window.own_start, shift + window.own_stop))
        rows = [
            chain
            for parts, tags in zip(found, gold, strict=True)
            if parts
            for chain in _chains(torch.cat(parts), tags)
        ]
        tags = pad_sequence([known for _, known in rows], batch_first=True, padding_value=UNKNOWN)
        lengths = torch.tensor([len(known) for _, known in rows])
        mask = torch.arange(tags.shape[1]) < lengths[:, None]
        return TaggingBatch(
            inputs=inputs,
            places=pad_sequence([where for where, _ in rows], batch_first=True),
            gold=tags,
            mask=mask,
            n_words=sum(self.lengths[i] for i in texts),
            n_pieces=int(inputs.windows.input_ids.numel()),
            count=model.decoder.count(mask, tags),
        )


def draw(
    model: TokenClassifier,
    examples: Sequence[Example],
    *,
    target: str,
    getter: SpanSetter,
    splitter: WordSplitter,
) -> DrawnTags:
    """Find the gold tags of the words of examples, and cut these into windows.

    Parameters
    ----------
    model
        With weights.
    examples
        With gold annotations in ``reference``.
    target
        ``"spans"``, or an attribute of tokens.
    getter
        Where gold spans stand.
    splitter
        What the words are.
    """
    dropped: Counter[str] = Counter()
    docs = [example.reference for example in examples]
    split = [splitter.split(doc) for doc in docs]
    places = {label: index for index, label in enumerate(model.labels)}
    read, pieces = read_words(model.encoder.backbone, split, fill=True)
    gold = [
        _span_tags(model, doc, words, some, getter, places, dropped)
        if target == SPANS
        else _word_tags(model, _of_read(read_values(doc, target, getter), some), places, dropped)
        for doc, words, some in zip(docs, split, read, strict=True)
    ]
    windows = model.prepare([words.texts for words in read], dropped, pieces)
    lengths = list(map(len, gold))
    if model.decoder.all_pieces:
        windows, gold = by_pieces(model, windows, gold)
    return DrawnTags(windows, len(docs), model.encoder.backbone.n_specials, +dropped, model, gold, lengths)


def _span_tags(
    model: TokenClassifier,
    doc: Doc,
    words: Words,
    read: ReadWords,
    getter: SpanSetter,
    places: Mapping[str, int],
    dropped: Counter[str],
) -> Tensor:
    spans = gold_spans(doc, getter)
    found = []
    for span, place in zip(spans, words.locate(spans), strict=True):
        within = None if place is None else read.within(*place)
        if within is None:
            dropped[UNALIGNED if place is None and trimmed(span) else NO_PIECES] += 1
        elif span.label_ not in places:
            dropped[STRANGE] += 1
        else:
            found.append((*within, places[span.label_]))
    tags, lost = model.decoder.encode(found, len(read.texts))
    dropped[LOST] += lost
    if read.numbers == [NO_WORD]:
        tags[:] = UNKNOWN
    return tags


def _of_read(values: Sequence[str | None], read: ReadWords) -> Sequence[str | None]:
    """Return the values of the words that are read."""
    if read.numbers is None:
        return values
    return [None if number == NO_WORD else values[number] for number in read.numbers]


def _word_tags(
    model: TokenClassifier,
    values: Sequence[str | None],
    places: Mapping[str, int],
    dropped: Counter[str],
) -> Tensor:
    spans = []
    for word, value in enumerate(values):
        if value is not None and value in places:
            spans.append((word, word, places[value]))
        else:
            dropped[STRANGE] += value is not None
    tags, _ = model.decoder.encode(spans, len(values))
    unknown = [value not in places for value in values]
    tags[torch.tensor(unknown, dtype=torch.bool)] = UNKNOWN
    return tags


def _chains(places: Tensor, tags: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Cut a text into chains; a word beyond a cut comes along with its tag unknown, so that any tag may precede."""
    rows = []
    for start in range(0, len(places), MAX_CHAIN):
        stop = min(start + MAX_CHAIN, len(places))
        first, last = max(start - 1, 0), min(stop + 1, len(places))
        known = tags[first:last].clone()
        if first < start:
            known[0] = UNKNOWN
        if last > stop:
            known[-1] = UNKNOWN
        rows.append((places[first:last], known))
    return rows
