"""The spaCy component ``token_classifier``: a tagger with a closed label set."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.vocab import Vocab
from torch import Tensor

from gliner_pipe.checkpoints.pretrained import PretrainedTokenClassifier
from gliner_pipe.data import scores
from gliner_pipe.data.annotations import SpanSetter, primary_key, span_places
from gliner_pipe.data.checks import count_labels, refuse_no_gold
from gliner_pipe.data.label_sets import LabelSets, warn_of_labels
from gliner_pipe.data.token_targets import (
    SPANS,
    describe,
    gold_labels,
    install_extension,
    read_values,
    write_value,
)
from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.spans import METRICS, score_ents
from gliner_pipe.metrics.token_tags import TokenTagScorer
from gliner_pipe.modeling.backbones.base import Window
from gliner_pipe.modeling.decoders.crf import CRFTags
from gliner_pipe.modeling.decoders.span import Candidate, SpanDecoder
from gliner_pipe.modeling.layers.cache import evaluating
from gliner_pipe.modeling.token_classifier import TokenClassifier, check_tagger
from gliner_pipe.pipeline.annotate import Entity, align, set_ents, set_group, write_scores
from gliner_pipe.pipeline.base import TorchPipe
from gliner_pipe.pipeline.component_settings import takes_settings
from gliner_pipe.pipeline.labels import parse_labels, refuse_references
from gliner_pipe.pipeline.token_classifier.build_model import bottom_section, make_model
from gliner_pipe.pipeline.token_classifier.settings import DEFAULT_CONFIG, TaggerSettings, full_setter
from gliner_pipe.pipeline.token_classifier.training_batch import (
    NOT_REPRESENTABLE,
    DrawnTags,
    count_lost,
    draw,
)
from gliner_pipe.pipeline.word_splitters import ReadWords, SpacyWords, Words, WordSplitter, read_words
from gliner_pipe.util.consent import PipeConfigs

#: spaCy's names of the accuracy of token attributes.
ACCURACIES = {"tag_": "tag_acc", "pos_": "pos_acc"}


@Language.factory(
    "token_classifier",
    default_config=DEFAULT_CONFIG,
    assigns=["doc.ents", "doc.spans", "token.tag"],
    default_score_weights={"tags_f": 1.0, "tags_p": 0.0, "tags_r": 0.0, "tags_per_type": None},
)
@takes_settings(TaggerSettings)
def make_token_classifier(
    nlp: Language,
    name: str,
    model: Any,
    embedding: Any,
    decoder: Any,
    mode: Any,
    scheme: Any,
    chains: Any,
    labels: Any,
    word_splitter: Any,
    scorer: Callable[..., Any] | None,
    **settings: Any,
) -> TokenTagger:
    """Construct the component; see :class:`TokenTagger`."""
    where = f"components.{name}"
    PipeConfigs.watch(nlp)
    refuse_references(labels, f"{where}.labels")
    words = settings["target"] != SPANS
    tokens = isinstance(word_splitter, SpacyWords) and word_splitter.language is None
    if words and not (word_splitter is None or tokens):
        found = f"is set with target = {settings['target']!r}, an attribute of tokens"
        raise ConfigError(f"{where}.word_splitter", found, "null")
    if isinstance(model, str):
        model = PretrainedTokenClassifier(name=model)
    built_here = model is None
    parts = {"embedding": embedding, "decoder": decoder, "mode": mode, "scheme": scheme, "chains": chains}
    if built_here:
        model = make_model(where, words=words, **parts)
    for part, value in parts.items():
        if value is not None and not built_here:
            found = "is set together with model"
            raise ConfigError(f"{where}.{part}", found, "null", "Write it into the model")
    check_tagger(model, f"{where}.model")
    tagger = TokenTagger(
        nlp.vocab, name, model, labels=labels, word_splitter=word_splitter, scorer=scorer, **settings
    )
    tagger.built_from_parts = built_here
    return tagger


class Prepared(NamedTuple):
    """Windows of several documents, the words that the model reads, and counts of what was cut."""

    windows: list[Window]
    read: list[ReadWords]
    report: Counter[str]


class TokenTagger(TorchPipe):
    """Finds the entities of a closed label set, or tags each token.

    It is faster than ``gliner``, which reads its labels with every text, and needs more training data. Use it where the
    label set is fixed.

    Parameters
    ----------
    vocab
        Vocabulary of the pipeline.
    name
        Name of the component in the pipeline.
    model
        The blocks, or the name of a token classification model.
    labels
        The label set; ``initialize`` takes it from the data if empty.
    word_splitter
        Splits a document into the words that the model reads; the document's tokens when None.
    scorer
        Scorer for ``nlp.evaluate``; None for exact spans, or token tags.
    **settings
        See ``TaggerSettings``.
    """

    factory = "token_classifier"
    settings_type = TaggerSettings
    network_type = TokenClassifier
    #: Whether the config has ``embedding`` and ``decoder`` in place of ``model``.
    built_from_parts = False

    def __init__(
        self,
        vocab: Vocab,
        name: str = "token_classifier",
        model: Any = None,
        *,
        labels: Iterable[Any] = (),
        word_splitter: WordSplitter | None = None,
        scorer: Callable[..., Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(vocab, name, model, scorer, word_splitter=word_splitter, settings=settings)
        self._labels = self._parsed(labels)
        self.configured = self.current_settings()
        install_extension(self.target)
        scores.install_extension()

    # -- labels and other settings -------------------------------------------------------------------------

    @property
    def labels(self) -> tuple[str, ...]:
        """The closed label set; empty until it is taken from the data."""
        if isinstance(self.model, TokenClassifier) and self.model.is_built:
            return self.model.labels
        return self._labels

    @property
    def label_data(self) -> list[str]:
        """The labels in the form of a config."""
        return list(self.labels)

    def add_label(self, label: str) -> int:
        """Add a label before the weights exist; returns 1 if it is new, 0 if it exists."""
        if label in self.labels:
            return 0
        if self.network.is_built:
            raise ConfigError(
                f"{self._where}.labels",
                f"cannot add {label!r}: the weights are trained for {list(self.labels)}",
                do="Initialize again with all labels: initialize(get_examples, labels=[...])",
            )
        self._labels = (*self._labels, *self._parsed([label]))
        return 1

    def _parsed(self, labels: Iterable[Any]) -> tuple[str, ...]:
        return tuple(item.label for item in parse_labels(labels, f"{self._where}.labels"))

    def _check_labels(self, model: TokenClassifier, *, ordered: bool) -> None:
        """Refuse weights trained for other labels than those of the config; their order counts if `ordered`."""
        own = self._labels
        same = own == model.labels if ordered else set(own) == set(model.labels)
        if own and not same:
            raise ConfigError(
                f"{self._where}.labels",
                f"found {list(own)}, but the weights are trained for {list(model.labels)}",
                "the labels of the training, or none",
                "For other labels train again: nlp.get_pipe(...).initialize(get_examples, labels=[...])",
            )

    @property
    def target(self) -> str:
        """What the tagger learns: ``"spans"``, or an attribute of tokens."""
        return str(self.cfg["target"])

    @property
    def setter(self) -> SpanSetter:
        """Where spans are written to, including inferred groups."""
        return full_setter(self.cfg)

    @property
    def gold_spans_key(self) -> SpanSetter:
        """Span groups of the gold spans, each with its labels if restricted."""
        getter: SpanSetter = self.cfg["target_span_getter"]
        places = span_places(getter)
        return next(iter(places)) if len(places) == 1 and not any(places.values()) else getter

    @property
    def spans_key(self) -> str:
        """One place that holds all predicted spans: the gold group, another group, or ``"ents"``."""
        places = [place for place, labels in cast(dict[str, Any], self.setter).items() if labels is True]
        groups = [place for place in places if place not in ("ents", "*")]
        gold = primary_key(self.cfg["target_span_getter"])
        return next((place for place in [gold, *groups, "ents", *places] if place in places), "*")

    @property
    def spans_keys(self) -> list[str]:
        """The places that together hold all predicted spans: those of the gold spans, if they are written to."""
        gold = list(span_places(self.cfg["target_span_getter"]))
        return gold if set(gold) <= set(span_places(self.setter)) else [self.spans_key]

    def current_settings(self) -> dict[str, Any]:
        """Return the current settings, labels included, as JSON values."""
        return {"labels": self.label_data, **self.cfg}

    def restore_settings(self, values: Mapping[str, Any]) -> None:
        """Set what ``current_settings`` returned."""
        self._labels = self._parsed(values["labels"])
        self.cfg = {key: value for key, value in values.items() if key != "labels"}
        install_extension(self.target)

    # -- model ---------------------------------------------------------------------------------------------

    def replace_model(self, model: TokenClassifier) -> None:
        """Use another model, and reset the optimizer and the memory budget.

        Raises
        ------
        ConfigError
            If the component is configured for other labels than the weights.
        """
        if model.is_built:
            self._check_labels(model, ordered=True)
        super().replace_model(model)

    def _built(self) -> TokenClassifier:
        model: TokenClassifier = super()._built()
        self._check_labels(model, ordered=False)
        if model.blocks is not None and model.decoder.scheme == "word" and self.target == SPANS:
            raise ConfigError(
                f"{self._where}.target",
                f"found {SPANS!r} for a model with a label for each word ({', '.join(model.labels[:3])} ...)",
                'an attribute of tokens: tag_, pos_, "_.name"',
                'Write target = "tag_"',
            )
        return model

    # -- prediction ----------------------------------------------------------------------------------------

    def prepare(self, docs: Sequence[Doc]) -> Prepared:
        """Split documents into windows."""
        model: TokenClassifier = self._ready()
        install_extension(self.target)  # a spawned process has none
        scores.install_extension()
        splitter = self.word_splitter
        report = Counter[str]()
        with self.placed(), evaluating(model):
            read, pieces = read_words(model.encoder.backbone, [splitter.split(doc) for doc in docs])
            return Prepared(model.prepare([words.texts for words in read], report, pieces), read, report)

    def run(self, prepared: Prepared) -> list[list[Entity]]:
        """Return the entities of prepared documents, or one entity per tagged word, for ``set_annotations``."""
        model: TokenClassifier = self.network
        with evaluating(model):
            tag_scores = model.score(prepared.windows, len(prepared.read), self.token_budget)
            self.add_to_report(prepared.report)
            if self.target != SPANS:
                found = [_tagged_words(model, *one) for one in model.decoder.decode_words(tag_scores)]
            else:
                found = [
                    [Entity(start, end, model.labels[label], score) for start, end, label, score in one]
                    for one in model.decoder.decode(tag_scores)
                ]
        return [
            [one._replace(start=words.number(one.start), end=words.number(one.end)) for one in entities]
            if words.numbers is not None
            else entities
            for entities, words in zip(found, prepared.read, strict=True)
        ]

    def set_annotations(self, docs: Iterable[Doc], predictions: Iterable[Sequence[Entity]]) -> None:
        """Write entities where ``span_setter`` says, groups with ``attrs["scores"]``; or labels to tokens.

        The score of each entity is also ``span._.score``.
        """
        splitter, places, report = self.word_splitter, span_places(self.setter), Counter[str]()
        apart = self.target == SPANS and self.network.decoder.chain_per_label

        def decode(candidates: list[Candidate]) -> list[Candidate]:
            return _flat(candidates, apart=apart)

        for doc, entities in zip(docs, predictions, strict=True):
            if self.target != SPANS:
                for entity in entities:
                    for token in doc[entity.start : entity.end + 1]:
                        write_value(token, self.target, entity.label)
                continue
            kept = [entity for entity in entities if entity.score >= self.threshold]
            words = splitter.split(doc) if kept else Words([])
            aligned = align(doc, kept, words, self.cfg["alignment_mode"], decode, report)
            found = [(span, kept[at].score) for at, span in aligned.kept()]
            for place, labels in places.items():
                chosen = [item for item in found if labels is None or item[0].label_ in labels]
                if place == "ents":
                    set_ents(doc, *_columns(chosen), self.cfg["overwrite_ents"], report)
                    write_scores(doc, *_columns(chosen), report)
                elif place == "*":
                    for label in self.labels:
                        if labels is None or label in labels:
                            some = [one for one in chosen if one[0].label_ == label]
                            set_group(doc, label, *_columns(some), report)
                else:
                    set_group(doc, place, *_columns(chosen), report)
        self.add_to_report(report)
        self.tell_alignment(report)

    # -- training ------------------------------------------------------------------------------------------

    def _choose_labels(
        self, get_examples: Callable[[], Iterable[Example]], labels: list[Any] | None
    ) -> tuple[str, ...]:
        model, getter = self.network, self.cfg["target_span_getter"]
        wanted = self._labels if labels is None else self._parsed(labels)
        if not wanted and model.keeps_labels:
            wanted = model.labels
        several = not isinstance(getter, str) and self.target == SPANS
        if not wanted or several:
            found, groups = gold_labels(get_examples(), self.target, getter)
            if not found and self.target == SPANS:
                refuse_no_gold(self._where, getter, get_examples())
            wanted = wanted or tuple(found)
            if several:
                setter = full_setter(self.cfg, groups)
                self.cfg = {**self.cfg, "span_setter": setter, "infer_span_setter": False}
        warn_of_labels(self.label_sets(get_examples(), labels=wanted))
        return wanted

    def _build(self, labels: Sequence[str]) -> None:
        model: TokenClassifier = self.network
        if not model.is_built:
            model.build(labels)
        elif model.labels != labels:
            model.remake(labels)
            self._optimizer = None
        self._labels = model.labels

    def count_labels(self, examples: Iterable[Example]) -> Counter[str]:
        """Return the number of gold entities, or of tagged tokens, by label."""
        getter = self.cfg["target_span_getter"]
        if self.target == SPANS:
            return count_labels(examples, getter)
        values = (value for one in examples for value in read_values(one.reference, self.target, getter))
        return Counter(value for value in values if value is not None)

    def label_sets(
        self,
        train: Iterable[Example],
        dev: Iterable[Example] = (),
        asked: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
    ) -> list[LabelSets]:
        """Return the component's labels next to those of the data, to check one against the other.

        Parameters
        ----------
        train, dev
            Training and evaluation examples.
        asked
            Labels that are scored; the component's own when None.
        labels
            Used in place of the component's own.
        """
        own = self.labels if labels is None else labels
        counts = self.count_labels(train), self.count_labels(dev)
        noun = "entities" if self.target == SPANS else "tokens"
        where = f"{self._where}.labels"
        return [LabelSets(where, own, *counts, asked=asked, learns_others=False, noun=noun)]

    @property
    def repeats_prompts(self) -> bool:
        """Whether every pass over the training data reads the same windows: a tagger has no prompt."""
        return True

    def draw(self, examples: Sequence[Example], rng: random.Random | None = None) -> DrawnTags:
        """Read the tags of examples, and split them into windows; the training loop pads them in parts.

        Parameters
        ----------
        examples
            Examples with gold spans under ``target_span_getter``, or the token attribute.
        rng
            Not used: nothing is random.
        """
        with self.placed():
            return draw(
                self._built(),
                examples,
                target=self.target,
                getter=self.cfg["target_span_getter"],
                splitter=self.word_splitter,
            )

    def describe_lost(self, examples: Sequence[Example]) -> tuple[Counter[str], str]:
        """Count the gold annotations that cannot be learned, before the first step.

        Parameters
        ----------
        examples
            The training data.

        Returns
        -------
        tuple
            The number by reason, and a sentence for the user; empty if there are none.
        """
        settings: dict[str, Any] = {"target": self.target, "getter": self.cfg["target_span_getter"]}
        with self.placed():
            lost = count_lost(self._built(), examples, splitter=self.word_splitter, **settings)
        if not lost:
            return lost, ""
        total = sum(self.count_labels(examples).values())
        reasons = ", ".join(f"{number} {reason}" for reason, number in lost.most_common())
        text = f"{sum(lost.values())} of {total} gold annotations cannot be learned: {reasons}"
        if NOT_REPRESENTABLE in lost:
            decoder = self.network.decoder
            option = 'chains = "per_label"' if isinstance(decoder, CRFTags) else 'mode = "independent"'
            text += ". " + (
                "Overlapping entities of one label need the component gliner"
                if decoder.chain_per_label
                else f"Set {option} to learn overlapping entities of different labels"
            )
        return lost, text

    def describe_data(self, examples: Sequence[Example]) -> str | None:
        """Return the number of tagged tokens as text, shown when training starts; None for spans.

        Raises
        ------
        DataError
            If no token has a tag.
        """
        if self.target == SPANS:
            return None
        return describe(examples, self.target, self.cfg["target_span_getter"])

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """Return the scores for ``nlp.evaluate``: ``tags_p``, ``tags_r``, ``tags_f`` and ``tags_per_type``.

        For ``spacy evaluate``, which prints spaCy's own names only, they are joined by ``ents_p`` and so on where the
        component writes to ``doc.ents``, and by ``tag_acc`` or ``pos_acc`` for such a target.
        """
        examples = list(examples)
        if self.scorer is not None:
            return super().score(examples, **kwargs)
        rows = self.default_scorer()(examples)
        micro = rows["micro"]
        summary = ("micro", "macro", "accuracy")
        per_type = {label: row for label, row in rows.items() if label not in summary}
        scores = {**{f"tags_{key}": micro[key] for key in "prf"}, "tags_per_type": per_type}
        if self.target in ACCURACIES:
            scores[ACCURACIES[self.target]] = rows["accuracy"]
        if self.target == SPANS and "ents" in span_places(self.setter):
            scores |= score_ents(examples, self.gold_spans_key)
        return scores

    def default_scorer(self) -> Callable[..., dict[str, Any]]:
        """Return the scorer of exact spans, or of token tags."""
        if self.target != SPANS:
            return TokenTagScorer(self.target, self.cfg["target_span_getter"])
        return METRICS["exact"](span_getter=self.gold_spans_key, predicted_getter=self.spans_keys)

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Replace the sections in errors that blocks raise by the sections that the config has."""
        try:
            with super().placed():
                yield
        except ConfigError as error:
            where = error.where
            if self.built_from_parts:
                where = where.replace(".model.encoder.backbone", bottom_section(self.model)).replace(
                    ".model.decoder", ".decoder"
                )
            if where == error.where:
                raise
            raise ConfigError(where, error.found, error.allowed, error.do) from error


def _tagged_words(model: TokenClassifier, tags: Tensor, scores: Tensor) -> list[Entity]:
    """Return the best label of each word that has one, as an entity of one word."""
    owners = model.decoder.tables.labels.tolist()
    found = []
    for word, (row, probabilities) in enumerate(zip(tags.tolist(), scores.tolist(), strict=True)):
        labels = [owners[chain][tag] for chain, tag in enumerate(row)]
        named = [pair for pair in zip(probabilities, labels, strict=True) if pair[1] >= 0]
        if named:
            score, label = max(named)
            found.append(Entity(word, word, model.labels[label], score))
    return found


def _columns(found: Sequence[tuple[Span, float]]) -> tuple[list[Span], list[float]]:
    return [span for span, _ in found], [score for _, score in found]


def _flat(candidates: Sequence[Candidate], *, apart: bool) -> list[Candidate]:
    """Return the best candidates that do not overlap, each label for itself if `apart`."""
    decoder = SpanDecoder()
    names = {one.label for one in candidates} if apart else (None,)
    return [
        kept
        for name in names
        for kept in decoder.decode(
            [one for one in candidates if name is None or one.label == name], flat=True, multi_label=False
        )
    ]
