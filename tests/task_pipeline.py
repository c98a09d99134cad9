"""Six texts with entities, relations, classes and records, and a component that learns all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import spacy
from spacy.training import Example

from gliner_pipe.data.readers import gliner2_json, jsonl

#: No augmentation: every step reads the same prompts.
PLAIN = {"drop_tasks": 0.0, "drop_fields": 0.0, "drop_labels": 0.0, "shuffle": False, "swap_ends": 0.0}
STATES = ["new", "used"]


def record(text: str, people: Any, firms: Any, tone: str, topics: Any, products: Any, works: Any) -> Any:
    """A text in the training format of GLiNER2, annotated with all tasks."""
    output = {
        "entities": {"person": people, "company": firms},
        "classifications": [
            {"task": "tone", "labels": ["good", "bad", "neutral"], "true_label": [tone]},
            {
                "task": "topics",
                "labels": ["work", "prices", "travel"],
                "true_label": topics,
                "multi_label": True,
            },
        ],
        "json_structures": [
            {"product": {"name": name, "price": price, "state": {"value": state, "choices": STATES}}}
            for name, price, state in products
        ],
        "relations": [{"works for": {"head": head, "tail": tail}} for head, tail in works],
    }
    return {"input": text, "output": output}


DATA = [
    record("Ann works for Acme in Oslo.", ["Ann"], ["Acme"], "neutral", ["work"], [], [("Ann", "Acme")]),
    record(
        "The new Fox costs 5 dollars, fine.", [], [], "good", ["prices"], [("Fox", "5 dollars", "new")], []
    ),
    record(
        "Bob hates the used Owl for 9 dollars.",
        ["Bob"],
        [],
        "bad",
        ["prices"],
        [("Owl", "9 dollars", "used")],
        [],
    ),
    record(
        "Eve works for Globex, Bob for Acme.",
        ["Eve", "Bob"],
        ["Globex", "Acme"],
        "neutral",
        ["work"],
        [],
        [("Eve", "Globex"), ("Bob", "Acme")],
    ),
    record(
        "A used Fox is 2 dollars and a new Owl 7 dollars.",
        [],
        [],
        "neutral",
        ["prices"],
        [("Fox", "2 dollars", "used"), ("Owl", "7 dollars", "new")],
        [],
    ),
    record("Tom flew to Rome with Acme and loved it.", ["Tom"], ["Acme"], "good", ["travel", "work"], [], []),
]


#: Sizes of small span representations that propose spans.
BOUNDARY_SIZES = {"boundary_dim": 32, "pair_dim": 32, "dropout": 0.0, "candidate_states": True}
PROPOSED = {
    "boundary": {"start_top_k": 6, "end_top_k": 6, "ends_per_start": 3, "starts_per_end": 3},
    "boundary_pool": {"pool_boundary_top_k": 12, "pool_size": 24, "min_pool_per_query": 3},
}


def boundary_blocks(kind: str, **options: Any) -> dict[str, Any]:
    """Blocks of a model that proposes spans, ``boundary`` or ``boundary_pool``, in place of those with slots."""
    pairs = {
        "relation_heads_per_type": 8,
        "relation_tails_per_type": 8,
        "relation_pair_cap": 24,
        "dropout": 0.0,
    }
    return {
        "span_rep": {"@span_reps": kind, **BOUNDARY_SIZES, **PROPOSED[kind], **options},
        "counter": None,
        "relation_finder": {"@relation_finders": "boundary_pairs", **pairs},
        "record_finder": {
            "@record_finders": "boundary_records",
            "record_dim": 32,
            "record_instance_queries": 6,
        },
        "decoder": {"@decoders": "per_label"},
    }


def component_config(
    backbone: Path,
    window: int = 256,
    encoder: dict[str, Any] | None = None,
    blocks: dict[str, Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Configuration of a component that learns all tasks over a tiny backbone; `blocks` replace those of the model."""
    text_encoder = {
        "@backbones": "transformer",
        "model": str(backbone),
        "window": window,
        "stride": window // 2,
    }
    model = {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "encoder": {"@encoders": "schema_encoder", **(encoder or {}), "backbone": text_encoder},
        "span_rep": {"@span_reps": "markerV0", "max_width": 4, "dropout": 0.1},
        "counter": {"@counters": "count_lstm"},
        "classifier": {"@classifiers": "label_mlp"},
        "relation_finder": {"@relation_finders": "slots"},
        "record_finder": {"@record_finders": "slots"},
        "loss": {"@losses": "gliner_pipe.bce"},
        **(blocks or {}),
    }
    sampling = {"all_labels": True, "shuffle": False}
    return {"device": "cpu", "model": model, "task_sampling": PLAIN, "label_sampling": sampling, **settings}


def made(backbone: Path, data: Any = DATA, **settings: Any) -> tuple[Any, Any, list[Example]]:
    """Pipeline, component and examples of some texts, initialized."""
    nlp = spacy.blank("en")
    component = nlp.add_pipe("gliner", config=component_config(backbone, **settings))
    reader = gliner2_json if "input" in data[0] else jsonl
    examples = list(reader(data)(nlp))
    nlp.initialize(lambda: examples)
    return nlp, component, examples
