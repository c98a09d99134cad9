"""The spaCy component ``gliner``."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example, validate_get_examples
from spacy.vocab import Vocab

import gliner_pipe.builtin  # noqa: F401 (registers the blocks)
from gliner_pipe import annotate
from gliner_pipe.blocks import available, described
from gliner_pipe.consent import PipeConfigs
from gliner_pipe.data.label_sets import (
    LabelSets,
    count_labels,
    count_relations,
    refuse_no_gold,
    warn_of_labels,
)
from gliner_pipe.data.relation_sampling import RelationSampling
from gliner_pipe.data.sampling import LabelSampling
from gliner_pipe.defaults import DEFAULT_CONFIG, SETTINGS
from gliner_pipe.encoders.base import Query
from gliner_pipe.errors import ConfigError
from gliner_pipe.labels import refuse_references
from gliner_pipe.model.batch import TrainingBatch
from gliner_pipe.model.cache import Cache
from gliner_pipe.model.gliner import GLiNER, check_architecture
from gliner_pipe.model.modes import evaluating
from gliner_pipe.model.pretrained import Pretrained
from gliner_pipe.model.writing import bare_slots
from gliner_pipe.precision.running import full_precision
from gliner_pipe.predictor import Prepared, compress_prompt, prepare, run
from gliner_pipe.registry import registry
from gliner_pipe.settings import Adjustable
from gliner_pipe.supervise import DrawnSpans, count_pieces, draw
from gliner_pipe.supervise_heads import RelationTeaching
from gliner_pipe.word_splitters.base import WordSplitter
from gliner_pipe.word_splitters.spacy import SpacyWords

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
        writes = self.cfg["use_generated_labels"] or bare_slots(model.writer, self.cfg["prompt_slots"])
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
        same = sampling.all_labels and not sampling.shuffle and self._ready().writer is None
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
