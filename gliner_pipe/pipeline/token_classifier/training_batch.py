"""Turns spaCy examples into a training batch of the tagger, with a target for each word or each subword token."""

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

from gliner_pipe.data.annotations import SpanSetter, annotated_labels, gold_spans, unknown_tokens
from gliner_pipe.data.token_targets import SPANS, read_values
from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import IntArray, Pieces, Window
from gliner_pipe.modeling.backbones.stacked import Dense, Stacked
from gliner_pipe.modeling.batch import Drawn
from gliner_pipe.modeling.decoders.tags import UNKNOWN, TagDecoder
from gliner_pipe.modeling.token_classifier import TaggingBatch, TokenClassifier
from gliner_pipe.pipeline.word_splitters import (
    NO_WORD,
    ReadWords,
    Words,
    WordSplitter,
    locate_gold,
    read_words,
    words_of_tokens,
)

UNKNOWN_LABEL = "label outside the label set"
NOT_REPRESENTABLE = "entity that the tag scheme cannot represent together with another"

#: Maximum number of words in a training sequence. A longer text is split; the neighbouring word at a split is included
#: with an unknown tag.
MAX_CHAIN = 512
#: Number of documents that are read together to count what a training does not learn.
COUNTED_AT_ONCE = 256


@dataclass
class DrawnTags(Drawn):
    """Examples with the tags of their words.

    Attributes
    ----------
    model
        Pads windows.
    tags
        Gold tags of the words (or subword tokens) of each text, ``(words, chains)``.
    lengths
        Number of words of each text.
    """

    model: TokenClassifier
    tags: Sequence[Tensor]
    lengths: Sequence[int]

    def lay_out(self, texts: Sequence[int]) -> TaggingBatch:
        """Return the batch of some of the texts, on the CPU."""
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
    """Read the gold tags of examples, and split their words into windows.

    Parameters
    ----------
    model
        The blocks, with weights.
    examples
        Examples with gold annotations in ``reference``.
    target
        ``"spans"``, or a token attribute.
    getter
        Span groups of the gold spans.
    splitter
        The word splitter.
    """
    dropped: Counter[str] = Counter()
    docs = [example.reference for example in examples]
    read, pieces, gold = _read_gold(model, docs, target, getter, splitter, dropped)
    windows = model.prepare([words.texts for words in read], dropped, pieces, training=True)
    lengths = list(map(len, gold))
    if model.decoder.all_pieces:
        windows, gold = _by_subword(model, windows, gold)
    return DrawnTags(windows, len(docs), model.encoder.backbone.n_specials, +dropped, model, gold, lengths)


def count_lost(
    model: TokenClassifier,
    examples: Sequence[Example],
    *,
    target: str,
    getter: SpanSetter,
    splitter: WordSplitter,
) -> Counter[str]:
    """Return the number of gold annotations that a training does not learn, by reason; parameters as for `draw`."""
    dropped: Counter[str] = Counter()
    for at in range(0, len(examples), COUNTED_AT_ONCE):
        docs = [example.reference for example in examples[at : at + COUNTED_AT_ONCE]]
        _read_gold(model, docs, target, getter, splitter, dropped)
    return +dropped


def _read_gold(
    model: TokenClassifier,
    docs: Sequence[Doc],
    target: str,
    getter: SpanSetter,
    splitter: WordSplitter,
    dropped: Counter[str],
) -> tuple[list[ReadWords], list[Pieces], list[Tensor]]:
    """Return the words of documents that the model reads, their subword tokens, and their gold tags."""
    split = [splitter.split(doc) for doc in docs]
    places = {label: index for index, label in enumerate(model.labels)}
    read, pieces = read_words(model.encoder.backbone, split, fill=True)
    gold = [
        _span_tags(model, doc, words, some, getter, places, dropped)
        if target == SPANS
        else _word_tags(model, _values_read(read_values(doc, target, getter), some), places, dropped)
        for doc, words, some in zip(docs, split, read, strict=True)
    ]
    return read, pieces, gold


def _span_tags(
    model: TokenClassifier,
    doc: Doc,
    words: Words,
    read: ReadWords,
    getter: SpanSetter,
    places: Mapping[str, int],
    dropped: Counter[str],
) -> Tensor:
    """Return the tags of the words of a document with gold spans, ``(words, chains)``."""
    spans = gold_spans(doc, getter)
    found = []
    for span, within in zip(spans, locate_gold(spans, words, read, dropped), strict=True):
        if within is not None and span.label_ in places:
            found.append((*within, places[span.label_]))
        elif within is not None:
            dropped[UNKNOWN_LABEL] += 1
    tags, lost = model.decoder.encode(found, len(read.texts))
    dropped[NOT_REPRESENTABLE] += lost
    _hide_unknown(model, tags, doc)
    missing = unknown_tokens(doc, getter)
    if missing is not None:
        tags[words_of_tokens(missing, doc, words, read)] = UNKNOWN
    if read.numbers == [NO_WORD]:
        tags[:] = UNKNOWN
    return tags


def _hide_unknown(model: TokenClassifier, tags: Tensor, doc: Doc) -> None:
    """Set the tag ``O`` to unknown in chains with a label that the annotators of a document did not look for."""
    known = annotated_labels(doc, model.labels)
    if len(known) == len(model.labels):
        return
    unknown = torch.tensor([place for place, label in enumerate(model.labels) if label not in known])
    partial = torch.isin(model.decoder.tables.labels.cpu(), unknown).any(1)  # (chains,)
    tags[(tags == 0) & partial & ("O" in model.decoder.tables.prefixes)] = UNKNOWN


def _values_read(values: Sequence[str | None], read: ReadWords) -> Sequence[str | None]:
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
    """Return the tags of words with a label each, ``(words, chains)``; unknown where there is no known label."""
    spans = []
    for word, value in enumerate(values):
        if value is not None and value in places:
            spans.append((word, word, places[value]))
        else:
            dropped[UNKNOWN_LABEL] += value is not None
    tags, _ = model.decoder.encode(spans, len(values))
    unknown = [value not in places for value in values]
    tags[torch.tensor(unknown, dtype=torch.bool)] = UNKNOWN
    return tags


def _by_subword(
    model: TokenClassifier, windows: Sequence[Window], gold: Sequence[Tensor]
) -> tuple[list[Window], list[Tensor]]:
    """Return windows and tags with one word per subword token.

    The first subword token of a word has the tag of the word; the others have the "inside" tag of its entity.

    Parameters
    ----------
    model
        The blocks, with weights.
    windows
        Windows of the texts.
    gold
        Tags of the words of each text, ``(words, chains)``.

    Raises
    ------
    ConfigError
        If a second encoder runs over the word vectors: it requires whole words.
    """
    backbone = model.encoder.backbone
    if isinstance(backbone, Stacked) and not isinstance(backbone, Dense):
        raise ConfigError(
            "components.*.model.decoder.all_pieces",
            f"found True over {type(backbone).__name__}, which reads whole words",
            "False, or a transformer alone",
        )
    units = [np.ones(len(tags), np.int64) for tags in gold]
    for window in windows:  # a word without subword tokens counts as one
        own = slice(window.own_start - window.start, window.own_stop - window.start)
        units[window.text][window.own_start : window.own_stop] = np.maximum(window.counts[own], 1)
    split = []
    for window in windows:
        firsts = np.concatenate([[0], np.cumsum(units[window.text])])
        counts = np.repeat(np.minimum(window.counts, 1), np.maximum(window.counts, 1))
        start, stop, own_start, own_stop = (
            int(firsts[word]) for word in (window.start, window.stop, window.own_start, window.own_stop)
        )
        split.append(
            replace(window, start=start, stop=stop, own_start=own_start, own_stop=own_stop, counts=counts)
        )
    return split, [_subword_tags(model.decoder, tags, some) for tags, some in zip(gold, units, strict=True)]


def _subword_tags(decoder: TagDecoder, tags: Tensor, units: IntArray) -> Tensor:
    """Return the tags of the subword tokens of words with `tags`."""
    times = torch.from_numpy(units)
    spread = tags.repeat_interleave(times, 0)
    inside = torch.arange(len(decoder.tags))
    for place, prefix in enumerate(decoder.tables.prefixes):
        if prefix == "B":  # in every scheme with B, the I of the label is the next tag
            inside[place] = place + 1
    later = torch.ones(len(spread), dtype=torch.bool)
    later[times.cumsum(0) - times] = False
    known = spread >= 0
    return torch.where(later[:, None] & known, inside[spread.clamp(min=0)], spread)


def _chains(places: Tensor, tags: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Split a text into sequences; the word beyond a split is included with an unknown tag, so any tag may precede."""
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
