"""The settings of the component ``gliner``: types, ranges and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from gliner_pipe.data.label_sampling import LabelSampling
from gliner_pipe.data.relation_sampling import RelationSampling
from gliner_pipe.data.task_sampling import TaskSampling
from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.inference import Aggregation
from gliner_pipe.pipeline.component_settings import Settings
from gliner_pipe.pipeline.labels import TEXT, is_text
from gliner_pipe.util.options import checked
from gliner_pipe.util.ranges import Amount, Count, Share


def _sampling(kind: type[object], options: Mapping[str, Any]) -> Mapping[str, Any]:
    checked(kind, options, "")
    return options


def _not_blank(labels: list[Any] | None) -> list[Any] | None:
    for label in labels or ():
        if not is_text(label):
            raise ConfigError("", f"found {label!r}", TEXT)
    return labels


class GlinerSettings(Settings):
    """Settings of ``gliner``; see the page on configuration.

    ``prefer``: which of two conflicting entities stays, the one with the better score or the longest.
    ``partial_overlaps``: two entities may overlap if neither lies inside the other. ``candidate_threshold``: spans from
    this score up to their threshold are written to the span group ``<spans_key>_candidates``; null for none.
    ``class_scores``: write the scores of all labels for each entity to ``attrs["class_scores"]`` of its group.
    ``input_spans_key``: span group, or ``"ents"``, whose spans are the only ones to be scored; null for all spans.
    ``relation_threshold``: minimum score of a relation; null for ``threshold``. ``adjacency_threshold``: minimum
    adjacency score before a pair's relation is classified. ``relation_reach``: maximum distance between the windows of
    two related entities. ``joint``: entities and relations are chosen together, so that a relation can bring back an
    entity below its threshold. ``label_sampling``, ``relation_sampling``, ``task_sampling``: how training samples
    labels, pairs, and records and classes, see ``LabelSampling``, ``RelationSampling`` and ``TaskSampling``.
    ``class_rules``: what the labels of classifications must have in common, see ``parse_rules``.
    ``class_aggregation``: how the logits of a class in several windows become one.
    ``generate_constraints``: the only labels that the label generator may produce; null for any. ``n_sequences``:
    labels generated per entity; null for the value of its block. ``use_generated_labels``: the best generated label is
    the label of the entity. ``prompt_slots``: maximum number of labels, for a model whose prompt holds no labels.
    """

    threshold: Share = 0.5
    relation_threshold: Share | None = None
    adjacency_threshold: Share = 0.5
    relation_reach: Amount = 1
    flat_ner: bool = True
    multi_label: bool = False
    prefer: Literal["score", "longest"] = "score"
    partial_overlaps: bool = False
    candidate_threshold: Share | None = None
    class_scores: bool = False
    input_spans_key: Annotated[str, Field(min_length=1)] | None = None
    spans_key: str = "gliner"
    gold_spans_key: str | None = None
    annotate_ents: bool = True
    label_sampling: Annotated[dict[str, Any], AfterValidator(partial(_sampling, LabelSampling))] = Field(
        default={}
    )
    relation_sampling: Annotated[dict[str, Any], AfterValidator(partial(_sampling, RelationSampling))] = (
        Field(default={})
    )
    task_sampling: Annotated[dict[str, Any], AfterValidator(partial(_sampling, TaskSampling))] = Field(
        default={}
    )
    generate_constraints: Annotated[list[Any] | None, AfterValidator(_not_blank)] = None
    n_sequences: Count | None = None
    use_generated_labels: bool = False
    prompt_slots: Count = 8
    joint: bool = False
    class_rules: list[Any] = Field(default=[])
    class_aggregation: Aggregation = "mean"


#: The default configuration: MiniLM, markerV0, focal loss.
DEFAULT_CONFIG: dict[str, Any] = {
    **GlinerSettings().model_dump(),
    "labels": [],
    "relations": [],
    "classes": {},
    "records": {},
    "word_splitter": None,
    "scorer": {"@scorers": "gliner_pipe.spans_scorer.v1", "spans_key": "gliner"},
    "model": {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "encoder": {
            "@encoders": "uni_encoder",
            "backbone": {"@backbones": "transformer"},
        },
        "span_rep": {"@span_reps": "markerV0"},
        "loss": {"@losses": "gliner_pipe.focal"},
        "decoder": {"@decoders": "span"},
    },
}
