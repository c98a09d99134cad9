"""The spaCy component ``gliner``."""

from __future__ import annotations

import random
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
from gliner_pipe.data.relation_sampling import RelationSampling
from gliner_pipe.data.sampling import LabelSampling
from gliner_pipe.defaults import DEFAULT_CONFIG, SETTINGS
from gliner_pipe.encoders.base import Query
from gliner_pipe.errors import ConfigError
from gliner_pipe.labels import refuse_references
from gliner_pipe.model.batch import TrainingBatch
from gliner_pipe.model.gliner import GLiNER, check_architecture
from gliner_pipe.model.pretrained import Pretrained
from gliner_pipe.precision.running import full_precision
from gliner_pipe.predictor import Prepared, compress_prompt, prepare, run
from gliner_pipe.registry import registry
from gliner_pipe.settings import Adjustable
from gliner_pipe.supervise import DrawnSpans, count_pieces, draw, gold_labels, gold_relations
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
        self._named_splitter: tuple[str, WordSplitter] | None = None
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
        if isinstance(self.model, Pretrained):
            with self.placed():
                self.model = self.model.materialize()
            self._move(self.model)
        assert isinstance(self.model, GLiNER)
        return self.model

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
        if self._named_splitter is None or self._named_splitter[0] != named:
            self._named_splitter = named, registry.word_splitters.get(named)()
        return self._named_splitter[1]

    # -- prediction ----------------------------------------------------------------------------------------

    def prepare(self, docs: Sequence[Doc]) -> Prepared:
        """Cut documents into windows, each with the labels it is asked for."""
        self._ready()
        return prepare(self, docs)

    def run(self, prepared: Prepared) -> list[annotate.Prediction]:
        """Find the entities and relations of prepared documents, in words; see ``set_annotations``."""
        return run(self, prepared)

    def set_annotations(self, docs: Iterable[Doc], predictions: Iterable[annotate.Prediction]) -> None:
        """Write entities to ``doc.spans[spans_key]`` with ``attrs["scores"]`` (and, where labels are written,
        ``attrs["generated_labels"]``) and to ``doc.ents``, relations to ``doc._.relations``.
        """
        splitter = self.word_splitter
        for doc, prediction in zip(docs, predictions, strict=True):
            annotate.annotate(doc, prediction, splitter, self.cfg, self.report)

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
        """
        validate_get_examples(get_examples, f"{type(self).__name__}.initialize")
        if labels is not None:
            self.labels = labels
        if not self._labels:
            self.labels = gold_labels(get_examples(), self.gold_spans_key)
        if not self._relations and self.gliner.relation_layer is not None:
            self.relations = gold_relations(get_examples())
        self._rng = random.Random(random.getrandbits(64))  # spaCy seeds the global generator
        with self.placed():
            if not self.gliner.is_built:
                self.gliner.build()
        self._move(self.gliner)

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
