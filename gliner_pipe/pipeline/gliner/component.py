"""The spaCy component ``gliner``: settings that may change at run time, prediction and training."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example, validate_get_examples
from spacy.vocab import Vocab

from gliner_pipe.checkpoints.pretrained import Pretrained
from gliner_pipe.data.checks import count_labels, count_relations, refuse_no_gold
from gliner_pipe.data.label_sampling import LabelSampling
from gliner_pipe.data.label_sets import LabelSets, warn_of_labels
from gliner_pipe.data.relation_sampling import RelationSampling
from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.batch import TrainingBatch
from gliner_pipe.modeling.block import available, described
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.gliner import GLiNER, check_architecture
from gliner_pipe.modeling.label_generation import bare_slots
from gliner_pipe.modeling.layers.cache import Cache
from gliner_pipe.modeling.layers.eval_mode import evaluating
from gliner_pipe.modeling.precision import full_precision
from gliner_pipe.pipeline import annotate
from gliner_pipe.pipeline.base import TorchPipe
from gliner_pipe.pipeline.gliner.collate import DrawnSpans, count_pieces, draw
from gliner_pipe.pipeline.gliner.collate_heads import RelationTeaching
from gliner_pipe.pipeline.gliner.predict import Prepared, compress_prompt, prepare, run
from gliner_pipe.pipeline.gliner.settings import DEFAULT_CONFIG, SETTINGS, check_settings
from gliner_pipe.pipeline.labels import (
    LabelItem,
    RelationItem,
    parse_labels,
    parse_relations,
    refuse_references,
)
from gliner_pipe.pipeline.word_splitters import SpacyWords, WordSplitter
from gliner_pipe.registry import registry
from gliner_pipe.util.consent import PipeConfigs


class Adjustable(TorchPipe):
    """A pipe with labels and live settings; base of the component.

    Parameters
    ----------
    vocab, name, model, scorer
        See ``TorchPipe``.
    labels, relations
        What to find.
    settings
        Those of ``SETTINGS`` that are not at their default.

    Attributes
    ----------
    cfg
        The live settings; a change counts from the next document on, and is saved with the pipeline.
    """

    def __init__(
        self,
        vocab: Vocab,
        name: str,
        model: Any,
        scorer: Callable[..., Any] | None,
        labels: Iterable[Any],
        relations: Iterable[Any],
        settings: Mapping[str, Any],
    ) -> None:
        super().__init__(vocab, name, model, scorer)
        self._labels = parse_labels(labels, f"{self._where}.labels")
        self._relations = self._parse_relations(relations, f"{self._where}.relations")
        self.cfg = check_settings({**SETTINGS, **settings}, self._where)
        self._configured = self._current()
        self._warned = False

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels."""
        return tuple(item.label for item in self._labels)

    @labels.setter
    def labels(self, labels: Iterable[Any]) -> None:
        self._labels = parse_labels(labels, f"{self._where}.labels")

    @property
    def label_items(self) -> tuple[LabelItem, ...]:
        """The labels with descriptions and thresholds."""
        return self._labels

    @property
    def label_data(self) -> list[str | dict[str, Any]]:
        """The labels as they stand in a config."""
        return [item.to_config() for item in self._labels]

    def add_label(self, label: str, description: str | None = None, threshold: float | None = None) -> int:
        """Add a label; 1 if it is new, 0 if it was there."""
        if label in self.labels:
            return 0
        item = {"label": label, "description": description, "threshold": threshold}
        self._labels += parse_labels([item], f"{self._where}.labels")
        return 1

    @property
    def relations(self) -> tuple[str, ...]:
        """Names of the relations."""
        return tuple(item.label for item in self._relations)

    @relations.setter
    def relations(self, relations: Iterable[Any]) -> None:
        self._relations = self._parse_relations(relations, f"{self._where}.relations")

    @property
    def relation_items(self) -> tuple[RelationItem, ...]:
        """The relations with descriptions, thresholds and the labels of their ends."""
        return self._relations

    @property
    def relation_data(self) -> list[str | dict[str, Any]]:
        """The relations as they stand in a config."""
        return [item.to_config() for item in self._relations]

    @property
    def finds_relations(self) -> bool:
        """Whether the model has what finds relations; True as long as that is not known."""
        return True

    @property
    def threshold(self) -> float:
        """Score that an entity needs."""
        return float(self.cfg["threshold"])

    @threshold.setter
    def threshold(self, value: float) -> None:
        self.cfg = check_settings({**self.cfg, "threshold": value}, self._where)

    @property
    def relation_threshold(self) -> float:
        """Score that a relation needs; that of an entity where nothing else is set."""
        value = self.cfg["relation_threshold"]
        return self.threshold if value is None else float(value)

    @relation_threshold.setter
    def relation_threshold(self, value: float | None) -> None:
        self.cfg = check_settings({**self.cfg, "relation_threshold": value}, self._where)

    @property
    def adjacency_threshold(self) -> float:
        """How strongly two entities must be tied before they are asked how."""
        return float(self.cfg["adjacency_threshold"])

    @adjacency_threshold.setter
    def adjacency_threshold(self, value: float) -> None:
        self.cfg = check_settings({**self.cfg, "adjacency_threshold": value}, self._where)

    @property
    def spans_key(self) -> str:
        """Span group that entities are written to."""
        return str(self.cfg["spans_key"])

    @property
    def gold_spans_key(self) -> str:
        """Span group that gold entities are read from; ``doc.ents`` where a document has no such group."""
        return str(self.cfg["gold_spans_key"] or self.spans_key)

    def labels_of(self, doc: Doc) -> tuple[LabelItem, ...]:
        """Labels that `doc` is asked for: its own, else those of the component."""
        own = doc._.gliner_labels
        if own is not None:
            return parse_labels(own, "doc._.gliner_labels")
        if not self._labels and not self._warned:
            self._warned = True
            warnings.warn(
                f"The component {self.name!r} has no labels, so it finds nothing. Set labels in the config, "
                f"by nlp.get_pipe({self.name!r}).labels = [...] or by doc._.gliner_labels = [...].",
                stacklevel=4,
            )
        return self._labels

    def relations_of(self, doc: Doc) -> tuple[RelationItem, ...]:
        """Relations that `doc` is asked for: its own, else those of the component."""
        own = doc._.gliner_relations
        if own is not None:
            return self._parse_relations(own, "doc._.gliner_relations")
        return self._parse_relations(self._relations, f"{self._where}.relations")

    def limit(self, item: LabelItem) -> float:
        """Score that an entity of this label, or a relation, needs."""
        if item.threshold is not None:
            return item.threshold
        own = self.cfg["relation_threshold"] if isinstance(item, RelationItem) else None
        return self.threshold if own is None else float(own)

    def _parse_relations(self, relations: Iterable[Any], where: str) -> tuple[RelationItem, ...]:
        items = parse_relations(relations, where)
        if items and not self.finds_relations:
            raise ConfigError(
                where,
                f"asks for {items[0].label!r} of a model that has no relation_layer",
                "an empty list, or a model with one",
                "Add a relation_layer to the model and train it",
            )
        return items

    def _current(self) -> dict[str, Any]:
        return {"labels": self.label_data, "relations": self.relation_data, **self.cfg}

    def _restore(self, values: Mapping[str, Any]) -> None:
        self.labels, self.relations = values["labels"], values["relations"]
        settings = {key: value for key, value in values.items() if key not in ("labels", "relations")}
        self.cfg = check_settings(settings, self._where)


_TOKENS = SpacyWords()


@Language.factory(
    "gliner",
    default_config=DEFAULT_CONFIG,
    assigns=["doc.ents", "doc.spans", "doc._.relations"],
    default_score_weights={
        "spans_gliner_f": 1.0,
        "spans_gliner_p": 0.0,
        "spans_gliner_r": 0.0,
        "spans_gliner_per_type": None,
    },
)
def make_gliner(
    nlp: Language,
    name: str,
    model: Any,
    labels: Any,
    relations: Any,
    threshold: Any,
    relation_threshold: Any,
    adjacency_threshold: Any,
    relation_reach: Any,
    flat_ner: Any,
    multi_label: Any,
    spans_key: Any,
    gold_spans_key: Any,
    annotate_ents: Any,
    overwrite_ents: Any,
    alignment_mode: Any,
    batch_size: Any,
    device: Any,
    dtype: Any,
    quantize: Any,
    compile: Any,
    word_splitter: Any,
    label_sampling: Any,
    relation_sampling: Any,
    task_lr_ratio: Any,
    generate_constraints: Any,
    n_sequences: Any,
    use_generated_labels: Any,
    prompt_slots: Any,
    scorer: Callable[..., Any] | None,
) -> Gliner:
    """Make the component; see :class:`Gliner` for the settings.

    They are annotated as anything, for ``check_settings`` refuses what cannot be with the name of the section
    and of what is allowed.
    """
    settings = {setting: value for setting, value in locals().items() if setting in SETTINGS}
    where = f"components.{name}"
    PipeConfigs.watch(nlp)
    if isinstance(model, str):
        model = Pretrained(name=model)
    check_architecture(model, f"{where}.model")
    if getattr(model, "is_tagger", False):
        allowed = "gliner_pipe.GLiNER.v1, gliner_pipe.Pretrained.v1"
        do = 'For a closed label set take @factory = "token_classifier"'
        raise ConfigError(f"{where}.model", f"found {type(model).__name__}", allowed, do)
    refuse_references(labels, f"{where}.labels")
    refuse_references(relations, f"{where}.relations")
    if not (word_splitter is None or isinstance(word_splitter, WordSplitter)):
        allowed = f"@word_splitters = {', '.join(available('word_splitters'))}"
        raise ConfigError(f"{where}.word_splitter", f"found {described(word_splitter)}", allowed)
    return Gliner(
        nlp.vocab,
        name,
        model,
        labels=labels,
        relations=relations,
        word_splitter=word_splitter,
        scorer=scorer,
        **settings,
    )


class Gliner(Adjustable):
    """Finds the entities and relations whose labels it is told, at run time.

    Parameters
    ----------
    vocab
        Of the pipeline.
    name
        Name of the component in the pipeline.
    model
        The blocks, or the name of a checkpoint.
    labels
        What to find: strings, or mappings with ``label``, ``description`` and ``threshold``. May be changed
        at any time (``nlp.get_pipe("gliner").labels = [...]``), for one document too (``doc._.gliner_labels =
        [...]``).
    relations
        What may tie two entities: as `labels`, perhaps with ``head`` and ``tail``, lists of the labels that its two
        entities may have. Needs a model with a relation layer; ``doc._.gliner_relations`` for one document.
    word_splitter
        What the model reads as words; the document's tokens when not given.
    scorer
        For ``nlp.evaluate``.
    **settings
        See the page on configuration, and ``SETTINGS`` in ``defaults.py``.

    Attributes
    ----------
    report
        What was left out, with numbers: entities that align with no tokens, words cut at the window.
    """

    factory = "gliner"

    def __init__(
        self,
        vocab: Vocab,
        name: str = "gliner",
        model: Any = None,
        *,
        labels: Iterable[Any] = (),
        relations: Iterable[Any] = (),
        word_splitter: WordSplitter | None = None,
        scorer: Callable[..., Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(vocab, name, model, scorer, labels, relations, settings)
        self._word_splitter = word_splitter
        self._named_splitter: Cache[str, WordSplitter] = Cache(1)
        annotate.install_extensions()

    # -- model and settings --------------------------------------------------------------------------------

    @property
    def max_width(self) -> int | None:
        """Words in the widest entity that can be found; None where there is no limit."""
        return self.gliner.max_width

    @property
    def finds_relations(self) -> bool:
        """Whether the model has what finds relations; True as long as a checkpoint given by name is not loaded."""
        return not isinstance(self.model, GLiNER) or self.model.relation_layer is not None

    @property
    def gliner(self) -> GLiNER:
        """The blocks; a checkpoint given by name is loaded on first use."""
        model = self.model if isinstance(self.model, GLiNER) else self._opened(GLiNER)
        assert isinstance(model, GLiNER)
        return model

    @property
    def network(self) -> GLiNER:
        """The same, under the name that all components have for it."""
        return self.gliner

    @property
    def word_splitter(self) -> WordSplitter:
        """What the words are: as configured, else as the checkpoint says, else the document's tokens."""
        if self._word_splitter is not None:
            return self._word_splitter
        named = self.gliner.word_splitter
        if named is None:
            return _TOKENS
        return self._named_splitter.get(named, lambda: registry.word_splitters.get(named)())

    # -- prediction ----------------------------------------------------------------------------------------

    def prepare(self, docs: Sequence[Doc]) -> Prepared:
        """Cut documents into windows, each with the labels it is asked for."""
        with evaluating(self._ready()):
            return prepare(self, docs)

    def run(self, prepared: Prepared) -> list[annotate.Prediction]:
        """Find the entities and relations of prepared documents, in words; see ``set_annotations``."""
        with evaluating(self.gliner):
            return run(self, prepared)

    def set_annotations(self, docs: Iterable[Doc], predictions: Iterable[annotate.Prediction]) -> None:
        """Write entities to ``doc.spans[spans_key]`` with ``attrs["scores"]`` (and, where labels are written,
        ``attrs["generated_labels"]``) and to ``doc.ents``, relations to ``doc._.relations``.
        """
        splitter, report = self.word_splitter, Counter[str]()
        for doc, prediction in zip(docs, predictions, strict=True):
            annotate.annotate(doc, prediction, splitter, self.cfg, report)
        self.add_to_report(report)

    def compress_prompt(self, docs: Iterable[Doc]) -> None:
        """Read the prompt once, over `docs`, and never again: only the labels of now can be asked for then."""
        self._ready()
        with full_precision(self.gliner):  # the vectors become weights
            compress_prompt(self, list(docs))

    # -- training ------------------------------------------------------------------------------------------

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: list[Any] | None = None,
    ) -> None:
        """Load the pretrained weights, and learn labels and relations if none are set; weights already there are kept.

        Parameters
        ----------
        get_examples
            Returns examples; their labels are taken when neither `labels` nor the component's own are given, and
            their relations when the component has none and its model finds some.
        nlp
            Not needed.
        labels
            The label set.

        Raises
        ------
        ConfigError
            If the component has labels, asks every text for all of them, and the examples have none of them.
        DataError
            If the component has no labels, and the entities of the examples stand elsewhere.
        """
        validate_get_examples(get_examples, f"{type(self).__name__}.initialize")
        if labels is not None:
            self.labels = labels
        if not self._labels:
            self.labels = sorted(self.count_labels(get_examples()))
            if not self._labels:
                refuse_no_gold(self._where, self.gold_spans_key, get_examples())
        if not self._relations and self.gliner.relation_layer is not None:
            self.relations = sorted(count_relations(get_examples()))
        warn_of_labels(self.label_sets(get_examples()))
        self._rng = random.Random(random.getrandbits(64))  # spaCy seeds the global generator
        with self.placed():
            if not self.gliner.is_built:
                self.gliner.build()
        self._move(self.gliner)

    def count_labels(self, examples: Iterable[Example]) -> Counter[str]:
        """Count the gold entities of examples by label."""
        return count_labels(examples, self.gold_spans_key)

    def label_sets(
        self, train: Iterable[Example], dev: Iterable[Example] = (), asked: Sequence[str] | None = None
    ) -> list[LabelSets]:
        """Return the labels of entities, and of relations, beside those of examples.

        Parameters
        ----------
        train, dev
            What is learned from and what is measured on.
        asked
            Labels that are asked for there; the component's own when not given.
        """
        train, dev = list(train), list(dev)
        model, sets = self.gliner, []
        closed = LabelSampling(**self.cfg["label_sampling"]).all_labels
        writes = self.cfg["use_generated_labels"] or bare_slots(
            model.label_generator, self.cfg["prompt_slots"]
        )
        if not writes:  # else what it finds does not depend on its labels
            counts = self.count_labels(train), self.count_labels(dev)
            sets.append(LabelSets(f"{self._where}.labels", self.labels, *counts, asked=asked, closed=closed))
        if model.relation_layer is not None:
            counts, where = (count_relations(train), count_relations(dev)), f"{self._where}.relations"
            sets.append(LabelSets(where, self.relations, *counts, closed=closed, noun="relations"))
        return sets

    def collate(self, examples: Sequence[Example], rng: random.Random | None = None) -> TrainingBatch:
        """Make a training batch on the CPU.

        Parameters
        ----------
        examples
            With gold entities in the span group ``gold_spans_key``, or in ``doc.ents``.
        rng
            Draws the labels; the component's own generator when not given.
        """
        batch: TrainingBatch = self.draw(examples, rng or self._rng).whole()
        return batch

    @property
    def repeats_prompts(self) -> bool:
        """Whether the model reads the same windows in every pass over the training data."""
        sampling = LabelSampling(**self.cfg["label_sampling"])
        same = sampling.all_labels and not sampling.shuffle and self._ready().label_generator is None
        return same or not len(self._ready().encoder.prompt(Query(("label",))).ids)

    def draw(self, examples: Sequence[Example], rng: random.Random) -> DrawnSpans:
        """Draw labels for examples, and cut them into windows; the training loop lays them out in parts.

        Parameters
        ----------
        examples
            As for ``collate``.
        rng
            Draws the labels.
        """
        return draw(
            self._ready(),
            examples,
            spans_key=self.gold_spans_key,
            splitter=self.word_splitter,
            labels=self.labels,
            definitions={item.label: item.text for item in self._labels},
            sampling=LabelSampling(**self.cfg["label_sampling"]),
            rng=rng,
            relations=RelationTeaching(
                self.relations,
                {item.label: item.text for item in self._relations},
                RelationSampling(**self.cfg["relation_sampling"]),
            ),
            prompt_slots=self.cfg["prompt_slots"],
        )

    def count_pieces(self, examples: Iterable[Example]) -> list[int]:
        """Pieces of the text of each example, by which the training loop measures batches where it is asked to."""
        return count_pieces(self._ready().encoder.backbone, examples, self.word_splitter)
