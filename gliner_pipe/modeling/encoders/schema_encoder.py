"""The encoder ``schema_encoder``: labels and tasks in a prompt of groups before the words, encoded in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gliner_pipe.modeling.backbones.base import Backbone
from gliner_pipe.modeling.encoders.base import (
    Encoded,
    Encoder,
    EncoderBatch,
    Query,
    QueryPrompt,
    task_vectors,
)
from gliner_pipe.modeling.layers.cache import Cache
from gliner_pipe.modeling.tasks import KINDS, Task, TaskField, choice_words
from gliner_pipe.registry import registry

#: Largest number of cached prompts.
MAX_PROMPTS = 256
#: Special tokens of the prompt.
GROUP, BETWEEN, BEFORE_TEXT = "[P]", "[SEP_STRUCT]", "[SEP_TEXT]"
DESCRIPTION, EXAMPLE, OUTPUT = "[DESCRIPTION]", "[EXAMPLE]", "[OUTPUT]"
#: Special token before each label or field, by the kind of its group.
MARKERS = {"record": "[C]", "entities": "[E]", "relation": "[R]", "classes": "[L]"}
SPECIAL_TOKENS = [BETWEEN, BEFORE_TEXT, GROUP, "[C]", "[E]", "[R]", "[L]", EXAMPLE, OUTPUT, DESCRIPTION]


@registry.encoders.register("schema_encoder")
class SchemaEncoder(Encoder):
    """Encodes ``( [P] name ( [E] label [E] label ... ) ) [SEP_STRUCT] ... [SEP_TEXT] words``, as GLiNER2 does.

    Each record, all entity labels, each relation and each classification form a group. Use it for several tasks in one
    pass: groups, labels and words attend to each other in every layer. The vector of a label, field or group is that of
    the special token before it. Values to choose from stand before the words and are encoded like words.

    Parameters
    ----------
    backbone
        Encodes prompt and words; GLiNER2 uses it with ``special_pieces = false``.

    Notes
    -----
    Source: GLiNER2 (Zaratiana et al., 2025), arXiv:2507.18546.
    """

    reads_tasks = KINDS
    reads_relations = False
    reads_descriptions = True

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.new_tokens = SPECIAL_TOKENS
        self._prompts: Cache[Query, QueryPrompt] = Cache(MAX_PROMPTS)

    def build(self) -> None:
        """Load the backbone with the special tokens."""
        self.backbone.build(self.new_tokens)
        self._prompts.forget()

    def load_assets(self, path: Path) -> None:
        """Build the modules from a saved folder."""
        self.backbone.load_assets(path / "backbone")
        self._prompts.forget()

    def prompt(self, query: Query) -> QueryPrompt:
        """Return the subword tokens of the groups of a query, from a cache of the latest prompts."""
        return self._prompts.get(query, lambda: self._make_prompt(query))

    def _make_prompt(self, query: Query) -> QueryPrompt:
        words: list[str] = []
        labels: list[int] = []  # positions of the markers
        tasks: dict[int, list[int]] = {}
        for number, group in _groups(query):
            words += [BETWEEN] if words else []
            markers = [len(words) + 4 + 2 * index for index in range(len(group.fields))]
            if number is None:
                labels = markers
            else:
                tasks[number] = [len(words) + 1, *markers]
            words += ["(", GROUP, _title(group), "("]
            for field in group.fields:
                words += [MARKERS["entities" if number is None else group.kind], field.name]
            words += [")", ")"]
        words.append(BEFORE_TEXT)
        choices = choice_words(query.tasks)
        (pieces,) = self.backbone.tokenize([[*words, *choices]])
        places = [*labels, *(place for number in sorted(tasks) for place in tasks[number])]
        firsts = np.cumsum(pieces.counts) - pieces.counts
        counts = pieces.counts[len(words) :] if choices else None
        return QueryPrompt(pieces.ids, firsts[np.array(places, np.int64)], query, word_counts=counts)

    def forward(self, batch: EncoderBatch) -> Encoded:
        """Run a batch of windows."""
        words, prompt = self.backbone.vectors(batch.windows)
        labels = prompt[:, : batch.label_mask.shape[1]] * batch.label_mask[:, :, None]
        tasks = None if batch.tasks is None else task_vectors(prompt, batch.tasks)
        return Encoded(words, labels, prompt[:, :0], tasks)


def _groups(query: Query) -> Iterable[tuple[int | None, Task]]:
    """Yield number and group of each task in the order of the prompt; the entity labels are a group without number."""
    numbered = list(enumerate(query.tasks))
    yield from ((number, task) for number, task in numbered if task.kind == "record")
    if query.entities:
        texts = query.descriptions or [None] * len(query.entities)
        labels = map(TaskField, query.entities, texts)
        yield None, Task("record", "entities", tuple(labels))
    for kind in KINDS[1:]:
        yield from ((number, task) for number, task in numbered if task.kind == kind)


def _title(group: Task) -> str:
    """Return the name of a group with all that explains it."""
    title = group.name if group.description is None else f"{group.name}: {group.description}"
    described = [field for field in group.fields if field.description]
    title += "".join(f" {DESCRIPTION} {field.name}: {field.description}" for field in described)
    return title + "".join(f" {EXAMPLE} {text} {OUTPUT} {label}" for text, label in group.examples)
