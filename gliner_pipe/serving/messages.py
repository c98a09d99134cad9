"""Requests and answers of the server, as its OpenAPI document describes them; the client reads the same ones."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gliner_pipe.serving.limits import encodable
from gliner_pipe.util.ranges import Share

#: A label: its name, or a mapping as in the config of the component.
LabelLike = str | dict[str, Any]

_EXAMPLE: Any = {
    "texts": ["Ada Lovelace worked with Charles Babbage in London."],
    "labels": ["person", {"label": "city", "description": "name of a town or city", "threshold": 0.4}],
    "threshold": 0.5,
}


class Asked(BaseModel):
    """What is looked for in a text; each field replaces that of the pipeline.

    ``labels`` and ``relations`` are names, or mappings as in the config of the component. ``threshold`` and
    ``relation_threshold`` hold for labels and relations without a threshold of their own. ``classes`` and ``records``
    need a model that predicts them.
    """

    model_config = ConfigDict(extra="forbid")

    labels: list[LabelLike] | None = None
    threshold: Share | None = None
    relations: list[LabelLike] | None = None
    relation_threshold: Share | None = None
    classes: dict[str, Any] | None = None
    records: dict[str, Any] | None = None


class TextItem(Asked):
    """A text with settings of its own, which replace those of the request."""

    text: str
    id: Annotated[str, AfterValidator(encodable)] | int | None = None


class PredictRequest(Asked):
    """One text or several."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    texts: Annotated[list[str | TextItem], Field(min_length=1)]
    pipeline: str | None = None


class Entity(BaseModel):
    """An entity: character offsets (Unicode code points, the end exclusive), label, score in [0, 1] and text."""

    model_config = ConfigDict(extra="allow")

    start: int
    end: int
    label: str
    score: float | None = None
    text: str


class Relation(BaseModel):
    """A relation between two entities; an end that is no entity has the label ``head`` or ``tail`` and no score."""

    head: Entity
    tail: Entity
    relation: str
    score: float


class Classification(BaseModel):
    """The chosen label of a task, a list of them if it may have several, and the scores of all its labels."""

    chosen: str | list[str] | None
    scores: dict[str, float]


class Place(BaseModel):
    """A part of the text, in characters, the end exclusive."""

    start: int
    end: int
    text: str


class Record(BaseModel):
    """A record: each field has a place in the text, a choice, a list of these, or nothing."""

    name: str
    score: float
    fields: dict[str, Place | str | list[Place | str] | None]


class Prediction(BaseModel):
    """What was found in a text; `relations`, `classes` and `records` are null where the model predicts none."""

    id: str | int | None = None
    entities: list[Entity]
    relations: list[Relation] | None = None
    classes: dict[str, Classification] | None = None
    records: list[Record] | None = None


class PredictResponse(BaseModel):
    """One prediction a text, in the order of the request."""

    predictions: list[Prediction]


class PipelineInfo(BaseModel):
    """A pipeline: its name, description and components, and labels and settings of those that find entities."""

    name: str
    meta: dict[str, Any]
    components: list[str]
    labels: dict[str, list[LabelLike]]
    relations: dict[str, list[LabelLike]]
    thresholds: dict[str, float]


class Info(BaseModel):
    """The pipelines of the server, the first of which is the default, its limits and its version."""

    version: str
    pipelines: list[PipelineInfo]
    limits: dict[str, float]


class Problem(BaseModel):
    """An error: one line that says where, what was found, what is allowed and what to do."""

    error: str
