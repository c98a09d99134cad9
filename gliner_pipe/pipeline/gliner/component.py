"""The spaCy component ``gliner``: entities and relations of labels given at run time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.vocab import Vocab

from gliner_pipe.checkpoints.pretrained import Pretrained
from gliner_pipe.data.checks import count_labels, count_relations, refuse_no_gold
from gliner_pipe.data.classes import write_classes
from gliner_pipe.data.label_sampling import LabelSampling
from gliner_pipe.data.label_sets import LabelSets, warn_of_labels
from gliner_pipe.data.relation_sampling import RelationSampling
from gliner_pipe.data.task_sampling import TaskSampling
from gliner_pipe.data.task_sets import found_tasks
from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import Window
from gliner_pipe.modeling.decoders.generative import BLANK_LABEL
from gliner_pipe.modeling.decoders.span import Candidate
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.encoders.uni_encoder import UniEncoder
from gliner_pipe.modeling.gliner import GLiNER, check_architecture
from gliner_pipe.modeling.inference import GivenSpans, SpanPredictions, predict_spans
from gliner_pipe.modeling.instances import Instance, find_instances
from gliner_pipe.modeling.label_generation import generate_labels
from gliner_pipe.modeling.layers.cache import Cache, evaluating
from gliner_pipe.modeling.mentions import joined
from gliner_pipe.modeling.precision import full_precision
from gliner_pipe.modeling.relations import find_relations
from gliner_pipe.modeling.tasks import Task
from gliner_pipe.pipeline import annotate
from gliner_pipe.pipeline.component_settings import takes_settings
from gliner_pipe.pipeline.gliner import restrictions
from gliner_pipe.pipeline.gliner.classification import all_classified
from gliner_pipe.pipeline.gliner.joint import LEAST_END, Together, choose_together, obeying
from gliner_pipe.pipeline.gliner.label_parser import MANY, LabelParser, ParsedLabels
from gliner_pipe.pipeline.gliner.labelled import LabelledPipe
from gliner_pipe.pipeline.gliner.relation_rules import overlaps
from gliner_pipe.pipeline.gliner.requests import Asked, Prepared, Request
from gliner_pipe.pipeline.gliner.settings import DEFAULT_CONFIG, GlinerSettings
from gliner_pipe.pipeline.gliner.task_results import (
    field_limits,
    found_records,
    pattern_check,
    relation_links,
    value_places,
)
from gliner_pipe.pipeline.gliner.task_settings import (
    FieldItem,
    refuse_keys,
)
from gliner_pipe.pipeline.gliner.task_targets import TaughtTasks, reads_tasks
from gliner_pipe.pipeline.gliner.texts import TextPredictions
from gliner_pipe.pipeline.gliner.training_batch import DrawnSpans, draw
from gliner_pipe.pipeline.gliner.training_targets import TaughtRelations
from gliner_pipe.pipeline.labels import (
    LabelItem,
    RelationItem,
    refuse_references,
)
from gliner_pipe.pipeline.word_splitters import ReadWords, Words, WordSplitter, read_words
from gliner_pipe.util.consent import PipeConfigs


@Language.factory(
    "gliner",
    default_config=DEFAULT_CONFIG,
    assigns=["doc.ents", "doc.spans", "doc.cats", "doc._.relations", "doc._.classes", "doc._.records"],
    default_score_weights={
        "spans_gliner_f": 1.0,
        "spans_gliner_p": 0.0,
        "spans_gliner_r": 0.0,
        "spans_gliner_per_type": None,
    },
)
@takes_settings(GlinerSettings)
def make_gliner(
    nlp: Language,
    name: str,
    model: Any,
    labels: Any,
    relations: Any,
    classes: Any,
    records: Any,
    word_splitter: Any,
    scorer: Callable[..., Any] | None,
    **settings: Any,
) -> Gliner:
    """Construct the component; see :class:`Gliner`."""
    where = f"components.{name}"
    PipeConfigs.watch(nlp)
    if isinstance(model, str):
        model = Pretrained(name=model)
    check_architecture(model, f"{where}.model")
    if getattr(model, "is_tagger", False):
        allowed = "gliner_pipe.GLiNER.v1, gliner_pipe.Pretrained.v1"
        do = 'For a closed label set use @factory = "token_classifier"'
        raise ConfigError(f"{where}.model", f"found {type(model).__name__}", allowed, do)
    refuse_references(labels, f"{where}.labels")
    refuse_references(relations, f"{where}.relations")
    for option, tasks in (("classes", classes), ("records", records)):
        refuse_references(tasks, f"{where}.{option}")
        refuse_keys(tasks, f"{where}.{option}")
    component = Gliner(
        nlp.vocab,
        name,
        model,
        labels=labels,
        relations=relations,
        classes=classes,
        records=records,
        word_splitter=word_splitter,
        scorer=scorer,
        **settings,
    )
    return component.belong_to(nlp)


class Gliner(TextPredictions, LabelledPipe):
    """Finds entities and relations of labels given at run time.

    Parameters
    ----------
    vocab
        Vocabulary of the pipeline.
    name
        Name of the component in the pipeline.
    model
        The blocks, or the name of a checkpoint.
    labels
        Entity labels: strings, or mappings with ``label``, ``description``, ``threshold`` and ``pattern``. They can be
        changed at any time (``nlp.get_pipe("gliner").labels = [...]``), also for one document
        (``doc._.gliner_labels = [...]``).
    relations
        Relation labels, likewise; a mapping may also hold ``head`` and ``tail``, lists of the entity labels allowed at
        either end. Requires a model with a relation layer or finder; ``doc._.gliner_relations`` for one document.
    classes
        Classifications of the text: a mapping from each task to its labels, or to ``labels``, ``description``,
        ``multi_label``, ``threshold`` and others, see ``ClassesItem``. Requires a model with a classifier;
        ``doc._.gliner_classes`` for one document.
    records
        Records, which are groups of values: a mapping from each name to its fields, or to ``fields``, ``description``,
        ``mode`` and ``anchor``. Requires a model with a record finder; ``doc._.gliner_records`` for one document.
    word_splitter
        Splits a document into the words that the model reads; the document's tokens when None.
    scorer
        Scorer for ``nlp.evaluate``.
    **settings
        See the page on configuration, and ``GlinerSettings``.

    Attributes
    ----------
    report
        Counts of what was left out or changed, by reason: entities that do not align with tokens or do not match their
        pattern, given spans that cannot be scored, words cut at the window.
    """

    factory = "gliner"
    settings_type = GlinerSettings
    network_type = GLiNER

    def __init__(
        self,
        vocab: Vocab,
        name: str = "gliner",
        model: Any = None,
        *,
        labels: Iterable[Any] = (),
        relations: Iterable[Any] = (),
        classes: Any = (),
        records: Any = (),
        word_splitter: WordSplitter | None = None,
        scorer: Callable[..., Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(vocab, name, model, scorer, word_splitter=word_splitter, settings=settings)
        self._parser = LabelParser()
        self._choices = Cache(16)
        self._warned = False
        self.labels, self.relations, self.classes, self.records = labels, relations, classes, records
        self.check_class_rules()
        self.configured = self.current_settings()
        annotate.install_extensions()
        restrictions.install_extension()

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        annotate.install_extensions()  # a spawned process has none
        restrictions.install_extension()

    # -- prediction ----------------------------------------------------------------------------------------

    def prepare(self, docs: Sequence[Doc]) -> Prepared:
        """Split documents into windows, each with the prompt of its labels.

        Raises
        ------
        ConfigError
            If a setting or label requires a block that the model does not have.
        """
        with evaluating(self._ready()):
            self._check_generation()
            self._check_scoring()
            model, report = self.gliner, Counter[str]()
            generator = model.label_generator
            slots = None if generator is None else generator.bare_prompt(self.cfg["prompt_slots"])
            splitter = self.word_splitter
            known: dict[Any, Asked] = {}
            with self.placed():
                requests = [self._request(doc, splitter, slots, known) for doc in docs]
                read, pieces = read_words(model.encoder.backbone, [one.words for one in requests])
                texts, queries = [words.texts for words in read], [one.query for one in requests]
                windows = model.encoder.prepare(texts, queries, model.min_overlap, report, pieces)
            given = self._given(docs, requests, read, report)
            return Prepared(requests, read, windows, report, given)

    def _given(
        self,
        docs: Sequence[Doc],
        requests: Sequence[Request],
        read: Sequence[ReadWords],
        report: Counter[str],
    ) -> list[GivenSpans] | None:
        """Return the only spans of each document to score, in words that are read; None if no document has any."""
        key, width = self.cfg["input_spans_key"], self.max_width
        if key is None and not any(restrictions.INPUT_SPANS_KEY in doc.user_data for doc in docs):
            return None
        places = [restrictions.given_spans(doc, key, report) for doc in docs]
        return [
            None if some is None else restrictions.in_words(doc, one.words, words, some, width, report)
            for doc, one, words, some in zip(docs, requests, read, places, strict=True)
        ]

    def _check_scoring(self) -> None:
        """Refuse settings that need scores which the model does not have."""
        model = self.gliner
        if self.cfg["candidate_threshold"] is not None and getattr(model.span_rep, "represent_spans", False):
            raise ConfigError(
                f"{self._where}.candidate_threshold",
                f"found {self.cfg['candidate_threshold']} for a model with represent_spans = true, whose entities "
                "depend on the lowest threshold",
                "null",
                "Lower threshold instead, and select by span._.score",
            )
        if self.cfg["joint"] and model.relation_finder is None:
            found = "found true for a model without relation_finder"
            raise ConfigError(f"{self._where}.joint", found, "false, or a model with one")
        generator = model.label_generator
        if self.cfg["class_scores"] and generator is not None and generator.mode == "prompt":
            raise ConfigError(
                f"{self._where}.class_scores", "found true for a model whose prompt holds no labels", "false"
            )

    def _check_generation(self) -> None:
        if self.gliner.label_generator is not None:
            return
        for name in ("use_generated_labels", "generate_constraints", "n_sequences"):
            if self.cfg[name]:
                raise ConfigError(
                    f"{self._where}.{name}",
                    f"found {self.cfg[name]!r} for a model whose decoder generates no labels",
                    "false" if name == "use_generated_labels" else "null",
                    'Use @decoders = "generative"',
                )

    def _request(
        self,
        doc: Doc,
        splitter: WordSplitter,
        slots: tuple[str, ...] | None,
        known: dict[Any, Asked],
    ) -> Request:
        """Return words, labels and prompt of a document; documents with the same labels share one prompt."""
        labels = self.labels_of(doc) if slots is None else (LabelItem(BLANK_LABEL),) * len(slots)
        records, classes = self.records_of(doc), self.classes_of(doc)
        as_tasks = self.gliner.relation_finder is not None
        relations = self.relations_of(doc) if labels or as_tasks else ()
        # many labels, or the component's, are one object and compared by identity; a few of a document by value
        key = (
            id(labels) if labels is self._labels or len(labels) >= MANY else labels,
            relations,
            id(records) if records is self._records else records,
            id(classes) if classes is self._classes else classes,
        )
        if key not in known:
            asked = self._parser.of(labels)
            known[key] = (
                self._query(
                    asked, slots, relations, self.tasks_of(doc) if as_tasks or records or classes else ()
                ),
                asked.limits(self.threshold),
                [self.limit(item) for item in relations],
                asked.patterns,
                field_limits(records, relations if as_tasks else (), self._field_limit),
                self.choice_of(classes),
            )
        words = splitter.split(doc) if labels or known[key][0].tasks else Words([])
        return Request(doc, words, labels, relations, records, classes, *known[key])

    def _field_limit(self, item: FieldItem | RelationItem) -> float:
        """Return the minimum score of a value of a field, or of an end of a relation."""
        limit, finder = self.limit(item), self.gliner.relation_finder
        if (
            self.cfg["joint"]
            and isinstance(item, RelationItem)
            and finder is not None
            and not finder.scores_pairs
        ):
            return min(limit, LEAST_END)  # one good end can make up for the other
        return limit

    def _query(
        self,
        labels: ParsedLabels,
        slots: tuple[str, ...] | None,
        relations: Sequence[RelationItem],
        tasks: tuple[Task, ...],
    ) -> Query:
        """Return what the model reads of labels, of relations that it does not read as tasks, and of tasks."""
        model = self.gliner
        pairs = () if model.relation_layer is None else tuple(item.text for item in relations)
        if not model.encoder.reads_descriptions:
            return Query(labels.texts if slots is None else slots, pairs, tasks)
        names = tuple(item.label for item in labels.items)
        described = any(item.description for item in labels.items)
        texts = tuple(item.description for item in labels.items) if described else ()
        return Query(names, pairs, tasks, texts)

    def run(self, prepared: Prepared) -> list[annotate.Prediction]:
        """Return entities and relations of prepared documents, in words, for ``set_annotations``."""
        requests, read, windows, report, given = prepared
        model, cfg = self.gliner, self.cfg
        with evaluating(model):
            found = predict_spans(
                model,
                windows,
                [request.limits for request in requests],
                self.token_budget,
                lower=cfg["candidate_threshold"],
                given=given,
                class_scores=cfg["class_scores"],
                score_values=cfg["joint"],
                field_limits=[request.field_limits for request in requests],
                class_aggregation=cfg["class_aggregation"],
            )
            for one, request, words in zip(found, requests, read, strict=True):
                if request.patterns:
                    check = request.labels, request.patterns, request.doc, request.words, words
                    one.candidates = restrictions.matching(one.candidates, *check, report)
                    one.below = restrictions.matching(one.below, *check)
            options = self.decoding
            together: list[Together | None] = [None] * len(requests)
            if cfg["joint"]:
                names = "flat_ner", "multi_label", "partial_overlaps"
                conflict = overlaps(**{name: cfg[name] for name in names})
                where = f"{self._where}.relations"
                together = choose_together(prepared, found, model.relation_finder, conflict, where)
            kept = [
                model.decoder.decode(one.candidates, **options) if chosen is None else chosen[0]
                for one, chosen in zip(found, together, strict=True)
            ]
            generated: list[list[tuple[str, ...]]] = [[()] * len(entities) for entities in kept]
            if model.label_generator is not None:
                generated = generate_labels(
                    model.label_generator,
                    kept,
                    [one.windows for one in found],
                    [words.texts for words in read],
                    cfg["generate_constraints"],
                    cfg["n_sequences"],
                )
            instances = [
                self._instances(*row, windows, report) for row in zip(requests, read, found, strict=True)
            ]
            rows = zip(requests, read, found, kept, generated, instances, together, strict=True)
            predictions = [self._prediction(report, *row) for row in rows]
        self.add_to_report(report)
        return predictions

    def _instances(
        self,
        request: Request,
        read: ReadWords,
        found: SpanPredictions,
        windows: Sequence[Window],
        report: Counter[str],
    ) -> list[Instance]:
        """Return the records and relations of a document that the model reads as tasks."""
        if found.values is None:
            return []
        matches = pattern_check(request.records, request.doc, request.words, read, report)
        tasks, values = request.query.tasks, found.values
        if self.cfg["joint"]:  # relations are chosen with the entities
            values = values[:, values[1] < len(request.records)]
        instances = find_instances(values, windows, tasks, self._decode, matches)
        finder = self.gliner.relation_finder
        if finder is not None and finder.joins_mentions:
            places = value_places(request.doc, request.words, read)
            relations = [number for number, task in enumerate(tasks) if task.kind == "relation"]
            return joined(instances, relations, places, request.doc.text)
        return instances

    def _decode(self, candidates: list[Candidate]) -> list[Candidate]:
        return self.gliner.decoder.decode(candidates, **self.decoding)

    def _prediction(
        self,
        report: Counter[str],
        request: Request,
        read: ReadWords,
        found: SpanPredictions,
        kept: Sequence[Candidate],
        generated: Sequence[tuple[str, ...]],
        instances: Sequence[Instance],
        together: Together | None,
    ) -> annotate.Prediction:
        """Name the entities of a document, and find the relations between them."""
        generator = self.gliner.label_generator
        use_generated = generator is not None and (
            generator.mode == "prompt" or self.cfg["use_generated_labels"]
        )
        entities = []
        for (start, end, index, score), labels in zip(kept, generated, strict=True):
            label = labels[0] if use_generated and labels and labels[0] else request.labels[index].label
            classes = (
                _by_label(request.labels, found.class_scores[start, end]) if found.class_scores else None
            )
            entities.append(
                annotate.Entity(read.number(start), read.number(end), label, score, labels, classes)
            )
        links = self._links(request, found, kept) if request.query.relations else None
        others: list[annotate.Entity] = []
        if together is not None:
            links = together[1]
        elif links is None and request.relations:
            links, others = relation_links(
                instances, request.relations, len(request.records), entities, read, report
            )
        if links and together is None and any(item.has_rules for item in request.relations):
            ends = [one[:2] for one in (*entities, *others)]
            asked = request.relations, request.relation_limits
            links = obeying(links, ends, *asked, f"{self._where}.relations", report)
        records = found_records(instances, request.records, read) if request.records else None
        of_text = all_classified(request, found, report) if request.classes else None
        below = None
        if self.cfg["candidate_threshold"] is not None:
            below = [
                annotate.Entity(read.number(start), read.number(end), request.labels[index].label, score)
                for start, end, index, score in found.below
            ]
        has_generated = generator is not None
        return annotate.Prediction(
            entities,
            links,
            has_generated,
            request.words,
            below,
            request.patterns,
            of_text,
            records,
            others,
        )

    def _links(
        self, request: Request, found: SpanPredictions, kept: Sequence[Candidate]
    ) -> list[annotate.Link]:
        """Return relations between kept entities; of several labels on one span, the first that the relation allows."""
        positions: dict[tuple[int, int], list[int]] = {}
        for position, candidate in enumerate(kept):
            positions.setdefault((candidate.start, candidate.end), []).append(position)
        limits, cfg = request.relation_limits, self.cfg
        links = []
        for pair in find_relations(
            self.gliner, found.windows, limits, cfg["adjacency_threshold"], cfg["relation_reach"]
        ):
            item = request.relations[pair.label]
            ends = []
            for span, allowed in ((pair.head, item.head), (pair.tail, item.tail)):
                names = (
                    (place, request.labels[kept[place].label].label) for place in positions.get(span, ())
                )
                ends.append(
                    next((place for place, name in names if allowed is None or name in allowed), None)
                )
            head, tail = ends
            if head is not None and tail is not None:
                links.append(annotate.Link(head, tail, item.label, pair.score))
        return links

    def set_annotations(self, docs: Iterable[Doc], predictions: Iterable[annotate.Prediction]) -> None:
        """Write predictions to the documents.

        Entities go to ``doc.spans[spans_key]`` with ``attrs["scores"]`` (and ``attrs["generated_labels"]`` and
        ``attrs["class_scores"]``), and the best of them to ``doc.ents``; relations to ``doc._.relations``; records to
        ``doc._.records``; spans from ``candidate_threshold`` up to their thresholds to
        ``doc.spans[f"{spans_key}_candidates"]``. The score of each is also ``span._.score``.
        """
        splitter, report, cfg = self.word_splitter, Counter[str](), self.cfg
        mode, options = cfg["alignment_mode"], self.decoding

        def decode(candidates: list[Candidate]) -> list[Candidate]:
            return self.gliner.decoder.decode(candidates, **options)

        for doc, prediction in zip(docs, predictions, strict=True):
            entities, words = prediction.entities, prediction.words
            if words is None:
                needed = entities or prediction.below or prediction.records or prediction.other_ends
                words = splitter.split(doc) if needed else Words([])
            aligned = annotate.align(doc, entities, words, mode, decode, report, prediction.patterns)
            kept = aligned.kept()
            spans, scores = [span for _, span in kept], [entities[at].score for at, _ in kept]
            attrs: dict[str, Any] = {}
            if prediction.has_generated:
                attrs["generated_labels"] = [list(entities[at].generated) for at, _ in kept]
            if cfg["class_scores"]:
                attrs["class_scores"] = [dict(entities[at].class_scores or {}) for at, _ in kept]
            annotate.set_group(doc, cfg["spans_key"], spans, scores, report, **attrs)
            if prediction.below is not None:
                below = annotate.align_below(
                    doc, prediction.below, words, mode, spans, report, prediction.patterns
                )
                annotate.set_group(doc, f"{cfg['spans_key']}_candidates", *below, report)
            if prediction.relations is not None:
                text = doc.text if prediction.other_ends else ""
                others = [words.span(doc, *end[:3], mode, text) for end in prediction.other_ends]
                annotate.set_relations(doc, prediction.relations, [*aligned.ends(), *others], report)
            if prediction.records is not None:
                annotate.set_records(doc, prediction.records, words, mode, report)
            if prediction.classes is not None:
                write_classes(doc, prediction.classes)
            if cfg["annotate_ents"]:
                annotate.set_ents(doc, spans, scores, cfg["overwrite_ents"], report, cfg["prefer"])
        self.add_to_report(report)
        self.tell_alignment(report)

    def compress_prompt(self, docs: Iterable[Doc]) -> None:
        """Replace the prompt of a uni-encoder by its mean label vectors over `docs`; the labels are fixed afterwards.

        Raises
        ------
        ConfigError
            If the encoder has no prompt, or the component no labels.
        ValueError
            If `docs` hold no text.
        """
        self._ready()
        encoder = self.gliner.encoder
        if not isinstance(encoder, UniEncoder):
            found = f"found {type(encoder).__name__}, which has no prompt that could be compressed"
            raise ConfigError(f"{self._where}.model.encoder", found, "uni_encoder")
        if not self._labels:
            raise ConfigError(f"{self._where}.labels", "is empty", "the labels to keep")
        for option in ("classes", "records"):
            if found := getattr(self, option):
                do = "Remove them: a compressed prompt holds labels and relations only"
                raise ConfigError(f"{self._where}.{option}", f"names {found[0]!r}", "an empty mapping", do)
        relations = self._relations if self.finds_relations else ()
        query = Query(tuple(item.text for item in self._labels), tuple(item.text for item in relations))
        with full_precision(self.gliner):  # the vectors become weights
            read, _ = read_words(encoder.backbone, [self.word_splitter.split(doc) for doc in docs])
            texts = [words.texts for words in read if words.texts]
            if not texts:
                raise ValueError(
                    "compress_prompt() found no text. Give some hundred representative documents."
                )
            encoder.compress(texts, query)

    # -- training ------------------------------------------------------------------------------------------

    def _choose_labels(
        self, get_examples: Callable[[], Iterable[Example]], labels: list[Any] | None
    ) -> tuple[str, ...]:
        if labels is not None:
            self.labels = labels
        if not self._labels:
            self.labels = sorted(self.count_labels(get_examples()))
            if not self._labels:
                refuse_no_gold(self._where, self.gold_spans_key, get_examples())
        model = self.gliner
        if not self._relations and not (model.relation_layer is None and model.relation_finder is None):
            self.relations = sorted(count_relations(get_examples()))
        if (model.classifier is not None and not self._classes) or (
            model.record_finder is not None and not self._records
        ):
            classes, records = found_tasks(get_examples())
            if model.classifier is not None and not self._classes:
                self.classes = classes
                self.check_class_rules()
            if model.record_finder is not None and not self._records:
                self.records = records
        warn_of_labels(self.label_sets(get_examples()))
        return self.labels

    def _build(self, labels: Sequence[str]) -> None:
        if not self.gliner.is_built:
            self.gliner.build()

    def count_labels(self, examples: Iterable[Example]) -> Counter[str]:
        """Return the number of gold entities by label."""
        return count_labels(examples, self.gold_spans_key)

    def label_sets(
        self, train: Iterable[Example], dev: Iterable[Example] = (), asked: Sequence[str] | None = None
    ) -> list[LabelSets]:
        """Return the component's labels and relations next to those of the data, to check one against the other.

        Parameters
        ----------
        train, dev
            Training and evaluation examples.
        asked
            Labels used in evaluation; the component's own when None.
        """
        train, dev = (one if isinstance(one, Sequence) else list(one) for one in (train, dev))
        model, sets = self.gliner, []
        closed = LabelSampling(**self.cfg["label_sampling"]).all_labels
        generator = model.label_generator
        generates = self.cfg["use_generated_labels"] or (generator is not None and generator.mode == "prompt")
        if not generates:  # otherwise its predictions do not depend on its labels
            counts = self.count_labels(train), self.count_labels(dev)
            sets.append(LabelSets(f"{self._where}.labels", self.labels, *counts, asked=asked, closed=closed))
        if not (model.relation_layer is None and model.relation_finder is None):
            counts, where = (count_relations(train), count_relations(dev)), f"{self._where}.relations"
            # a relation finder comes with models of which relations are one task among others
            if model.relation_layer is not None or self._relations or counts[0]:
                sets.append(LabelSets(where, self.relations, *counts, closed=closed, noun="relations"))
        return sets

    @property
    def repeats_prompts(self) -> bool:
        """Whether every pass over the training data reads the same windows, so that they can be cached."""
        sampling = LabelSampling(**self.cfg["label_sampling"])
        same = sampling.all_labels and not sampling.shuffle and self._built().label_generator is None
        same = same and not reads_tasks(self._built())
        return same or not len(self._built().encoder.prompt(Query(("label",))).ids)

    def draw(self, examples: Sequence[Example], rng: random.Random) -> DrawnSpans:
        """Sample labels for examples and split them into windows; the training loop pads them in parts.

        Parameters
        ----------
        examples
            Examples with gold entities in the span group ``gold_spans_key``, or in ``doc.ents``.
        rng
            Samples the labels.
        """
        with self.placed():
            return draw(
                self._built(),
                examples,
                spans_key=self.gold_spans_key,
                splitter=self.word_splitter,
                labels=self.labels,
                definitions={item.label: item.text for item in self._labels},
                tasks=TaughtTasks(self._classes, self._records, TaskSampling(**self.cfg["task_sampling"])),
                sampling=LabelSampling(**self.cfg["label_sampling"]),
                rng=rng,
                relations=TaughtRelations(
                    self.relations,
                    {item.label: item.text for item in self._relations},
                    RelationSampling(**self.cfg["relation_sampling"]),
                ),
                prompt_slots=self.cfg["prompt_slots"],
            )


def _by_label(labels: Sequence[LabelItem], scores: Sequence[float]) -> dict[str, float]:
    """Return scores by label, the best first."""
    ranked = sorted(zip(labels, scores, strict=True), key=lambda pair: -pair[1])
    return {item.label: score for item, score in ranked}
