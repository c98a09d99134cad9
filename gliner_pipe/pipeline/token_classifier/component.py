"""The spaCy component ``token_classifier``: a tagger with a closed label set."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example, validate_get_examples
from spacy.vocab import Vocab

from gliner_pipe.checkpoints.pretrained import PretrainedTokenClassifier
from gliner_pipe.data.annotations import SpanSetter, primary_key, span_places
from gliner_pipe.data.checks import count_labels, refuse_no_gold
from gliner_pipe.data.label_sets import LabelSets, warn_of_labels
from gliner_pipe.data.token_targets import SPANS, describe, gold_labels, install_extension, read_values
from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.spans import METRICS
from gliner_pipe.metrics.token_tags import TokenTagScorer
from gliner_pipe.modeling.backbones.windows import Window
from gliner_pipe.modeling.layers.eval_mode import evaluating
from gliner_pipe.modeling.token_classifier import TaggingBatch, TokenClassifier, check_tagger
from gliner_pipe.pipeline.annotate import Entity
from gliner_pipe.pipeline.base import TorchPipe
from gliner_pipe.pipeline.gliner.collate import count_pieces
from gliner_pipe.pipeline.labels import parse_labels, refuse_references
from gliner_pipe.pipeline.token_classifier.annotate import find, write_spans, write_words
from gliner_pipe.pipeline.token_classifier.build_model import bottom_section, make_model
from gliner_pipe.pipeline.token_classifier.collate import DrawnTags, draw
from gliner_pipe.pipeline.token_classifier.settings import (
    DEFAULT_CONFIG,
    SETTINGS,
    check_settings,
    full_setter,
)
from gliner_pipe.pipeline.word_splitters import ReadWords, SpacyWords, WordSplitter, read_words
from gliner_pipe.registry import registry
from gliner_pipe.util.consent import PipeConfigs


def check_labels(stated: Sequence[str], model: TokenClassifier, where: str, *, ordered: bool) -> None:
    """Refuse weights for other labels than those of the config, if it has any.

    Parameters
    ----------
    stated
        Labels of the config.
    model
        With weights.
    where
        Section of the component.
    ordered
        Whether their order matters too.
    """
    same = tuple(stated) == model.labels if ordered else set(stated) == set(model.labels)
    if stated and not same:
        raise ConfigError(
            f"{where}.labels",
            f"found {list(stated)}, but the weights are those of {list(model.labels)}",
            "the labels of the training, or none",
            "For other labels train again: nlp.get_pipe(...).initialize(get_examples, labels=[...])",
        )


def check_target_of(model: TokenClassifier, target: str, where: str) -> None:
    """Refuse a checkpoint that has a label for each word where spans are to be found."""
    if model.blocks is not None and model.decoder.scheme == "word" and target == SPANS:
        raise ConfigError(
            f"{where}.target",
            f"found {SPANS!r} for a model that has a label for each word ({', '.join(model.labels[:3])} ...)",
            'an attribute of tokens: tag_, pos_, "_.name"',
            'Write target = "tag_"',
        )


_TOKENS = SpacyWords()


@Language.factory(
    "token_classifier",
    default_config=DEFAULT_CONFIG,
    assigns=["doc.ents", "doc.spans", "token.tag"],
    default_score_weights={"tags_f": 1.0, "tags_p": 0.0, "tags_r": 0.0, "tags_per_type": None},
)
def make_token_classifier(
    nlp: Language,
    name: str,
    model: Any,
    embedding: Any,
    decoder: Any,
    mode: Any,
    scheme: Any,
    labels: Any,
    target: Any,
    target_span_getter: Any,
    span_setter: Any,
    infer_span_setter: Any,
    threshold: Any,
    overwrite_ents: Any,
    alignment_mode: Any,
    batch_size: Any,
    device: Any,
    dtype: Any,
    quantize: Any,
    compile: Any,
    task_lr_ratio: Any,
    word_splitter: Any,
    scorer: Callable[..., Any] | None,
) -> TokenTagger:
    """Make the component; see :class:`TokenTagger` for the settings.

    They are annotated as anything, for ``check_settings`` refuses what cannot be with the name of the section
    and of what is allowed.
    """
    settings = {setting: value for setting, value in locals().items() if setting in SETTINGS}
    where = f"components.{name}"
    PipeConfigs.watch(nlp)
    refuse_references(labels, f"{where}.labels")
    if not (word_splitter is None or isinstance(word_splitter, WordSplitter)):
        raise ConfigError(f"{where}.word_splitter", f"found {word_splitter!r}", "a block of @word_splitters")
    words = target != SPANS
    if words and not (word_splitter is None or isinstance(word_splitter, SpacyWords)):
        raise ConfigError(
            f"{where}.word_splitter", f"is set with target = {target!r}, an attribute of tokens", "null"
        )
    if isinstance(model, str):
        model = PretrainedTokenClassifier(name=model)
    made_here = model is None
    if made_here:
        model = make_model(where, words=words, embedding=embedding, decoder=decoder, mode=mode, scheme=scheme)
    else:
        parts = {"embedding": embedding, "decoder": decoder, "mode": mode, "scheme": scheme}
        for part, value in parts.items():
            if value is not None:
                raise ConfigError(f"{where}.{part}", "is set beside model", "null", "Write it into the model")
    check_tagger(model, f"{where}.model")
    tagger = TokenTagger(
        nlp.vocab, name, model, labels=labels, word_splitter=word_splitter, scorer=scorer, **settings
    )
    tagger.made_of_parts = made_here
    return tagger


class Prepared(NamedTuple):
    """Windows of several documents, the words that are read, and what was cut off."""

    windows: list[Window]
    read: list[ReadWords]
    report: Counter[str]


class TokenTagger(TorchPipe):
    """Finds the entities of a closed label set, or tags each token, as it was trained to.

    Use it where the labels are known once and for all: it is faster than ``gliner``, which reads its labels with every
    text, and wants more training data.

    Parameters
    ----------
    vocab
        Of the pipeline.
    name
        Name of the component in the pipeline.
    model
        The blocks, or the name of a token classification model.
    labels
        The label set; learned from the data by ``initialize`` when empty.
    word_splitter
        What the model reads as words; the document's tokens when not given.
    scorer
        For ``nlp.evaluate``; spans, or tags of tokens, when not given.
    **settings
        See ``SETTINGS`` in ``tagging/settings.py``.
    """

    factory = "token_classifier"
    #: Whether the config has ``embedding`` and ``decoder`` in place of ``model``.
    made_of_parts = False

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
        super().__init__(vocab, name, model, scorer)
        self.cfg = check_settings({**SETTINGS, **settings}, self._where)
        self._labels = self._parsed(labels)
        self._word_splitter = word_splitter
        self._configured = self._current()
        install_extension(self.target)

    # -- model and settings --------------------------------------------------------------------------------

    @property
    def network(self) -> TokenClassifier:
        """The blocks; a checkpoint given by name is loaded on first use."""
        model = self.model if isinstance(self.model, TokenClassifier) else self._opened(TokenClassifier)
        assert isinstance(model, TokenClassifier)
        return model

    def replace_model(self, model: TokenClassifier) -> None:
        """Take another model.

        Raises
        ------
        ConfigError
            If the component is configured for other labels than those that the weights know.
        """
        if model.is_built:
            check_labels(self._labels, model, self._where, ordered=True)
        super().replace_model(model)

    @property
    def labels(self) -> tuple[str, ...]:
        """The closed label set; empty as long as it is to be learned."""
        if isinstance(self.model, TokenClassifier) and self.model.is_built:
            return self.model.labels
        return self._labels

    @property
    def label_data(self) -> list[str]:
        """The labels as they stand in a config."""
        return list(self.labels)

    def add_label(self, label: str) -> int:
        """Add a label before there are weights; 1 if it is new, 0 if it was there."""
        if label in self.labels:
            return 0
        if self.network.is_built:
            raise ConfigError(
                f"{self._where}.labels",
                f"cannot take {label!r}: the weights are those of {list(self.labels)}",
                do="Initialize anew with all labels: initialize(get_examples, labels=[...])",
            )
        self._labels = (*self._labels, *self._parsed([label]))
        return 1

    @property
    def target(self) -> str:
        """What is learned: ``"spans"``, or an attribute of tokens."""
        return str(self.cfg["target"])

    @property
    def setter(self) -> SpanSetter:
        """Where spans are written to, with what is inferred."""
        return full_setter(self.cfg)

    @property
    def gold_spans_key(self) -> SpanSetter:
        """Where gold spans stand: all places, with the labels that count there."""
        getter: SpanSetter = self.cfg["target_span_getter"]
        places = span_places(getter)
        return next(iter(places)) if len(places) == 1 and not any(places.values()) else getter

    @property
    def spans_key(self) -> str:
        """The one place where all predicted spans can be read: the gold group, another one, or ``"ents"``."""
        places = [place for place, labels in cast(dict[str, Any], self.setter).items() if labels is True]
        groups = [place for place in places if place not in ("ents", "*")]
        gold = primary_key(self.cfg["target_span_getter"])
        return next((place for place in [gold, *groups, "ents", *places] if place in places), "*")

    @property
    def spans_keys(self) -> list[str]:
        """The places that hold all predicted spans together: those of the gold spans, if they are written to."""
        gold = list(span_places(self.cfg["target_span_getter"]))
        return gold if set(gold) <= set(span_places(self.setter)) else [self.spans_key]

    @property
    def threshold(self) -> float:
        """Score that a span needs."""
        return float(self.cfg["threshold"])

    @threshold.setter
    def threshold(self, value: float) -> None:
        self.cfg = check_settings({**self.cfg, "threshold": value}, self._where)

    @property
    def word_splitter(self) -> WordSplitter:
        """What the words are: as configured, else as the checkpoint says, else the document's tokens."""
        if self._word_splitter is not None:
            return self._word_splitter
        named = self.network.word_splitter
        return registry.word_splitters.get(named)() if named else _TOKENS

    def _ready(self) -> Any:
        model: TokenClassifier = super()._ready()
        check_labels(self._labels, model, self._where, ordered=False)
        check_target_of(model, self.target, self._where)
        return model

    # -- prediction ----------------------------------------------------------------------------------------

    def prepare(self, docs: Sequence[Doc]) -> Prepared:
        """Cut documents into windows."""
        model: TokenClassifier = self._ready()
        install_extension(self.target)  # a spawned process has none
        splitter = self.word_splitter
        report = Counter[str]()
        with self.placed(), evaluating(model):
            read, pieces = read_words(model.encoder.backbone, [splitter.split(doc) for doc in docs])
            return Prepared(model.prepare([words.texts for words in read], report, pieces), read, report)

    def run(self, prepared: Prepared) -> list[list[Entity]]:
        """Find the entities, or the label of each word, of prepared documents, in words; see ``set_annotations``."""
        with evaluating(self.network):
            emissions = self.network.score(prepared.windows, len(prepared.read), self.token_budget)
            self.add_to_report(prepared.report)
            found = find(self.network, emissions, words=self.target != SPANS)
        return [
            [one._replace(start=words.number(one.start), end=words.number(one.end)) for one in entities]
            if words.numbers is not None
            else entities
            for entities, words in zip(found, prepared.read, strict=True)
        ]

    def set_annotations(self, docs: Iterable[Doc], predictions: Iterable[Sequence[Entity]]) -> None:
        """Write entities to where ``span_setter`` says, with ``attrs["scores"]`` of groups; labels to tokens."""
        splitter, setter, report = self.word_splitter, self.setter, Counter[str]()
        for doc, entities in zip(docs, predictions, strict=True):
            if self.target != SPANS:
                write_words(doc, entities, self.target)
                continue
            write_spans(
                doc,
                [entity for entity in entities if entity.score >= self.threshold],
                setter=setter,
                labels=self.labels,
                splitter=splitter,
                settings=self.cfg,
                report=report,
            )
        self.add_to_report(report)

    # -- training ------------------------------------------------------------------------------------------

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: list[Any] | None = None,
    ) -> None:
        """Load the pretrained weights, and learn the labels if none are set; weights already there are kept.

        Parameters
        ----------
        get_examples
            Returns examples; their labels are taken when neither `labels` nor the component's own are given, and the
            groups that their spans stand in where ``span_setter`` is inferred.
        nlp
            Not needed.
        labels
            The label set. If there are weights for another one, those of the decoder are made anew.

        Raises
        ------
        ConfigError
            If the component has labels, and the examples have none of them.
        DataError
            If the component has no labels, and the entities of the examples stand elsewhere.
        """
        validate_get_examples(get_examples, f"{type(self).__name__}.initialize")
        model = self.network
        getter = self.cfg["target_span_getter"]
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
        self._rng = random.Random(random.getrandbits(64))  # spaCy seeds the global generator
        with self.placed():
            if not model.is_built:
                model.build(wanted)
            elif model.labels != wanted:
                model.remake(wanted)
                self._bridge = None
        self._labels = model.labels
        self._move(model)

    def count_labels(self, examples: Iterable[Example]) -> Counter[str]:
        """Count the gold entities of examples, or the tokens with a tag, by label."""
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
        """Return the labels beside those of examples.

        Parameters
        ----------
        train, dev
            What is learned from and what is measured on.
        asked
            Labels that are scored there; the component's own when not given.
        labels
            Taken in place of the component's own.
        """
        own = self.labels if labels is None else labels
        counts = self.count_labels(train), self.count_labels(dev)
        noun = "entities" if self.target == SPANS else "tokens"
        where = f"{self._where}.labels"
        return [LabelSets(where, own, *counts, asked=asked, learns_others=False, noun=noun)]

    def collate(self, examples: Sequence[Example], rng: random.Random | None = None) -> TaggingBatch:
        """Make a training batch on the CPU.

        Parameters
        ----------
        examples
            With gold spans where ``target_span_getter`` says, or with the attribute of tokens.
        rng
            Not needed: nothing is left to chance.
        """
        batch: TaggingBatch = self.draw(examples, rng).whole()
        return batch

    @property
    def repeats_prompts(self) -> bool:
        """Whether the model reads the same windows in every pass over the training data: there is no prompt."""
        return True

    def draw(self, examples: Sequence[Example], rng: random.Random | None = None) -> DrawnTags:
        """Find the tags of examples, and cut these into windows; the training loop lays them out in parts.

        Parameters
        ----------
        examples, rng
            As for ``collate``.
        """
        return draw(
            self._ready(),
            examples,
            target=self.target,
            getter=self.cfg["target_span_getter"],
            splitter=self.word_splitter,
        )

    def count_pieces(self, examples: Iterable[Example]) -> list[int]:
        """Pieces of the text of each example, by which the training loop measures batches where it is asked to."""
        return count_pieces(self._ready().encoder.backbone, examples, self.word_splitter)

    def describe_data(self, examples: Sequence[Example]) -> str | None:
        """Say how many tokens have a tag, for the beginning of a training; None where spans are learned.

        Raises
        ------
        DataError
            If no token has one.
        """
        if self.target == SPANS:
            return None
        return describe(examples, self.target, self.cfg["target_span_getter"])

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """Score predictions for ``nlp.evaluate``: ``tags_p``, ``tags_r``, ``tags_f`` and ``tags_per_type``."""
        if self.scorer is not None:
            scored: dict[str, Any] = super().score(examples, **kwargs)
            return scored
        rows = self.default_scorer()(list(examples))
        micro = rows["micro"]
        summary = ("micro", "macro", "accuracy")
        per_type = {label: row for label, row in rows.items() if label not in summary}
        return {**{f"tags_{key}": micro[key] for key in "prf"}, "tags_per_type": per_type}

    def default_scorer(self) -> Callable[..., dict[str, Any]]:
        """Return what counts exact spans, or right tags of tokens."""
        if self.target != SPANS:
            return TokenTagScorer(self.target, self.cfg["target_span_getter"])
        return METRICS["exact"](span_getter=self.gold_spans_key, predicted_getter=self.spans_keys)

    # -- saving, and errors --------------------------------------------------------------------------------

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Put the sections that the config has into errors of blocks."""
        try:
            with super().placed():
                yield
        except ConfigError as error:
            where = error.where
            if self.made_of_parts:
                where = where.replace(".model.encoder.backbone", bottom_section(self.model)).replace(
                    ".model.decoder", ".decoder"
                )
            if where == error.where:
                raise
            raise ConfigError(where, error.found, error.allowed, error.do) from error

    def _parsed(self, labels: Iterable[Any]) -> tuple[str, ...]:
        return tuple(item.label for item in parse_labels(labels, f"{self._where}.labels"))

    def _current(self) -> dict[str, Any]:
        return {"labels": self.label_data, **self.cfg}

    def _restore(self, values: Mapping[str, Any]) -> None:
        self._labels = self._parsed(values["labels"])
        settings = {key: value for key, value in values.items() if key != "labels"}
        self.cfg = check_settings(settings, self._where)
        install_extension(self.target)
