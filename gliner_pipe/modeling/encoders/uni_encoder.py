"""The encoder ``uni_encoder``: labels in a prompt before the words, encoded in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import Backbone
from gliner_pipe.modeling.encoders.base import (
    Encoded,
    Encoder,
    EncoderBatch,
    Query,
    QueryPrompt,
    task_vectors,
)
from gliner_pipe.modeling.encoders.label_table import PromptTable, lay_out
from gliner_pipe.modeling.layers.cache import Cache, evaluating
from gliner_pipe.modeling.lstm import BiLSTM, make_rnn
from gliner_pipe.modeling.tasks import choice_words
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Layers

#: Largest number of cached prompts.
MAX_PROMPTS = 256


@registry.encoders.register("uni_encoder")
class UniEncoder(Encoder):
    """Encodes ``<<ENT>> label <<ENT>> label ... <<SEP>> words``, as most GLiNER models do.

    Use it for up to some 30 labels: words and labels attend to each other in every layer, and every label takes room in
    the window. For hundreds of labels use ``bi_encoder``.

    Parameters
    ----------
    backbone
        Encodes prompt and words.
    rnn_layers
        Number of layers of a bidirectional LSTM over the words; 0 for none.
    embed_ent_token
        False: the vector of a label is that of its first subword token, which is pretrained, so a new model learns from
        few steps. True: that of the ``<<ENT>>`` before it, as in most published GLiNER checkpoints; a new model learns
        to use it slowly (on WNUT 17, not at all within 400 steps with shuffled labels).
    ent_token, sep_token
        The special tokens of the prompt.
    rel_token
        Special token before each relation label, ``<<REL>>`` in GLiNER; ``<<REL>> label ... <<SEP>>`` then follows the
        entity labels. None for a model without relations.
    embed_rel_token
        As `embed_ent_token`, for relation labels.
    class_token, field_token
        Special tokens before each label of a classification, and before each field of a record or end of a relation
        that is read as a task. Tasks follow the labels: ``tone <<CLASS>> good <<CLASS>> bad <<SEP>>``. Which vector a
        label or field has is as for `embed_ent_token`; a task has that of the first subword token of its name. None for
        a model without such tasks.
    new_tokens
        Special tokens to add to the vocabulary; those above by default.

    Notes
    -----
    Source: GLiNER (Zaratiana et al., 2024), ``UniEncoderSpanModel``.
    """

    def __init__(
        self,
        backbone: Backbone,
        rnn_layers: Layers = 1,
        embed_ent_token: bool = False,
        ent_token: str = "<<ENT>>",
        sep_token: str = "<<SEP>>",
        rel_token: str | None = None,
        embed_rel_token: bool = False,
        new_tokens: list[str] | None = None,
        class_token: str | None = None,
        field_token: str | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.rnn_layers = rnn_layers
        self.embed_ent_token = embed_ent_token
        self.ent_token, self.sep_token = ent_token, sep_token
        self.rel_token, self.embed_rel_token = rel_token, embed_rel_token
        self.reads_relations = rel_token is not None
        self.reads_bare_labels = embed_ent_token  # an empty label has the vector of its special token
        self.task_tokens = {"record": field_token, "relation": field_token, "classes": class_token}
        self.reads_tasks = tuple(kind for kind, token in self.task_tokens.items() if token is not None)
        tokens = (ent_token, sep_token, rel_token, class_token, field_token)
        special = [token for token in tokens if token is not None]
        self.new_tokens = special if new_tokens is None else new_tokens
        self.rnn: BiLSTM | None = None
        self.table: PromptTable | None = None
        self._prompts: Cache[Query, QueryPrompt] = Cache(MAX_PROMPTS)

    def build(self) -> None:
        """Load the backbone with the special tokens and create the LSTM."""
        self.backbone.build(self.new_tokens)
        self._make()

    def load_assets(self, path: Path) -> None:
        """Build the modules from a saved folder."""
        self.backbone.load_assets(path / "backbone")
        self.table = PromptTable.load_assets(path)
        self._make()

    def _make(self) -> None:
        self._prompts.forget()
        self.rnn = make_rnn(self.output_size, self.rnn_layers)

    @property
    def label_mark(self) -> Tensor | None:
        """The vectors of a compressed prompt."""
        return None if self.table is None else self.table.entities

    def prompt(self, query: Query) -> QueryPrompt:
        """Return the subword tokens of ``<<ENT>> label ... <<SEP>>``, from a cache of the latest prompts."""
        if self.table is not None:
            self.table.check("entity", query.entities)
            self.table.check("relation", query.relations)
            if query.tasks:
                raise ConfigError(
                    "components.*.model.encoder",
                    f"has a compressed prompt, which holds no tasks, and {query.tasks[0].name!r} is asked for",
                    "labels and relations",
                    "Use the model before compression",
                )
            return QueryPrompt(
                self.backbone.tokenize([[self.sep_token]])[0].ids, np.zeros(0, np.int64), query
            )
        return self._prompts.get(query, lambda: self._make_prompt(query))

    def _make_prompt(self, query: Query) -> QueryPrompt:
        words: list[str] = []
        starts: list[int] = []
        for token, labels in ((self.ent_token, query.entities), (self.rel_token, query.relations)):
            if token is None:
                continue
            for label in labels:
                starts.append(len(words))
                words += [token, label] if label else [token]
            words.append(self.sep_token)
        n_labels = len(starts)
        of_tasks = self._add_tasks(query, words, starts)
        n_words, choices = len(words), choice_words(query.tasks)
        (pieces,) = self.backbone.tokenize([[*words, *choices]])
        firsts = np.cumsum(pieces.counts) - pieces.counts
        shift = np.ones(len(starts), np.int64)  # to the first subword token of the label
        shift[: len(query.entities)] -= self.embed_ent_token
        shift[len(query.entities) : n_labels] -= self.embed_rel_token
        shift[n_labels:] -= self.embed_ent_token
        shift[of_tasks] = 0
        counts = pieces.counts[n_words:] if choices else None
        return QueryPrompt(pieces.ids, firsts[starts] + shift, query, word_counts=counts)

    def _add_tasks(self, query: Query, words: list[str], starts: list[int]) -> list[int]:
        """Add the tasks to the words of a prompt, and where their names and fields start; return which are names."""
        names: list[int] = []
        for task in query.tasks:
            names.append(len(starts))
            starts.append(len(words))
            words.append(task.name if task.description is None else f"{task.name}: {task.description}")
            words += [word for text, label in task.examples for word in (text, f"({label})")]
            for field in task.fields:
                starts.append(len(words))
                words += [self.task_tokens[task.kind] or "", field.description or field.name]
            words.append(self.sep_token)
        return names

    def forward(self, batch: EncoderBatch) -> Encoded:
        """Run a batch of windows."""
        words, prompt = self.backbone.vectors(batch.windows)
        if self.rnn is not None:
            words = self.rnn(words, batch.windows.word_mask)
        if self.table is not None:
            return self._looked_up(words, batch, self.table)
        n_labels = batch.label_mask.sum(1, keepdim=True)
        labels = prompt[:, : batch.label_mask.shape[1]] * batch.label_mask[:, :, None]
        places = n_labels + torch.arange(batch.relation_mask.shape[1], device=prompt.device)
        places = places.clamp(max=max(prompt.shape[1] - 1, 0))[:, :, None].expand(-1, -1, prompt.shape[2])
        relations = prompt.gather(1, places) * batch.relation_mask[:, :, None]
        tasks = None if batch.tasks is None else task_vectors(prompt, batch.tasks)
        return Encoded(words, labels, relations, tasks)

    # -- the compressed prompt -------------------------------------------------------------------------------------

    def compress(self, texts: Sequence[Sequence[str]], query: Query, rows: int = 8) -> None:
        """Replace the prompt by the mean of its label vectors over texts.

        Labels then take no room in the window and no time, and only those of `query` can be predicted. As label vectors
        no longer depend on the text, accuracy drops: measure it.

        Parameters
        ----------
        texts
            Words of texts similar to those of later predictions, each not empty.
        query
            The labels.
        rows
            Number of windows in a batch.
        """
        self.table = None
        windows = self.prepare(texts, [query] * len(texts), 0)
        if not windows:
            raise ValueError(
                "compress() needs at least one text; pass some hundred similar to those of later predictions."
            )
        table = PromptTable(query.entities, query.relations, self.output_size)
        sums = [torch.zeros_like(table.entities), torch.zeros_like(table.relations)]
        with evaluating(self), torch.no_grad():
            device = next(self.parameters()).device
            for at in range(0, len(windows), rows):
                encoded = self(self.collate(windows[at : at + rows]).to(device))
                sums[0] += encoded.labels.sum(0).cpu()
                sums[1] += encoded.relations.sum(0).cpu()
            table.entities.copy_(sums[0] / len(windows))
            table.relations.copy_(sums[1] / len(windows))
        self.table = table.to(device)

    def _looked_up(self, words: Tensor, batch: EncoderBatch, table: PromptTable) -> Encoded:
        entities = [query.entities for query in batch.queries]
        relations = [query.relations for query in batch.queries]
        size = words.shape[2]
        return Encoded(
            words,
            lay_out(table.vectors("entity"), entities, batch.label_mask, size),
            lay_out(table.vectors("relation"), relations, batch.relation_mask, size),
        )

    def save_assets(self, path: Path) -> None:
        """Write the files of the backbone, and the labels of a compressed prompt."""
        super().save_assets(path)
        if self.table is not None:
            self.table.save_assets(path)
