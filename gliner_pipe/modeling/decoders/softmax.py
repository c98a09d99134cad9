"""The tag decoder ``softmax``: a distribution over the tags for each word."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gliner_pipe.modeling.decoders.linear_chain import Scores, best_path
from gliner_pipe.modeling.decoders.tags import Scheme, TagDecoder, TaggedSpans
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Share


@registry.decoders.register("softmax")
class SoftmaxTags(TagDecoder):
    """Each word has its own distribution over the tags, as in ``AutoModelForTokenClassification``.

    Use it for speed, and for models exchanged with Hugging Face. The score of an entity is the mean probability of the
    tags of its words.

    Parameters
    ----------
    scheme, dropout
        As in every tag decoder.
    mode
        ``joint``: one chain of tags, so that a word has one label. ``independent``: a chain for each label, so that
        entities of different labels may overlap.
    constrained
        Predict the most probable sequence that the scheme allows. False: the most probable tag of each word.
    label_smoothing
        Share of the gold tag's probability that is spread over all tags.
    all_pieces
        Train on all subword tokens of a word, those after the first as inside tags, as AutoTrain does. Predictions here
        still use the first one; Hugging Face's pipelines need it, with ``aggregation_strategy = "simple"``.
    tag_names
        Names of the tags in the order of their ids in exported models, such as ``["O", "I-city", "B-city"]``. By
        default the order of the labels.
    """

    def __init__(
        self,
        scheme: Scheme = "bio",
        mode: Literal["joint", "independent"] = "joint",
        constrained: bool = True,
        label_smoothing: Share = 0.0,
        dropout: Share = 0.1,
        all_pieces: bool = False,
        tag_names: list[str] | None = None,
    ) -> None:
        super().__init__(scheme, constrained, dropout)
        self.mode = mode
        self.label_smoothing = label_smoothing
        self.all_pieces = all_pieces
        self.tag_names = tag_names

    @property
    def chain_per_label(self) -> bool:
        """Whether each label has its own chain."""
        return self.mode == "independent"

    def loss(self, emissions: Tensor, gold: Tensor, mask: Tensor) -> Tensor:
        """Return the cross-entropy, summed over words and chains; words without a known tag are skipped."""
        return self.word_loss(emissions, gold, mask, self.label_smoothing)

    def best(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Return the best tags; runs Viterbi only on rows where the best tags of the words violate the scheme."""
        tags = emissions.argmax(-1).masked_fill(~mask[:, :, None], 0)
        if not self.constrained:
            return tags
        tables = self.tables
        device = tags.device
        follows = mask[:, 1:, None]
        last = mask[:, :, None] & ~torch.cat([follows, torch.zeros_like(mask[:, :1, None])], 1)
        broken = (~tables.allowed.to(device)[tags[:, :-1], tags[:, 1:]] & follows).any(1)
        broken |= ~tables.opening.to(device)[tags[:, 0]]
        broken |= (~tables.closing.to(device)[tags] & last).any(1)
        rows, chains = broken.nonzero().unbind(1)
        if len(rows):
            legal, first, final = self.penalties(device, -torch.inf)
            selected = emissions[rows, :, chains].unsqueeze(2)
            scores = Scores.make(selected, legal[None], first[None], final[None], mask[rows])
            tags[rows, :, chains] = best_path(scores).squeeze(-1).T
        return tags

    def word_scores(self, emissions: Tensor, mask: Tensor, tags: Tensor) -> Tensor:
        """Return the probability of each of `tags`."""
        return emissions.softmax(-1).gather(-1, tags[..., None]).squeeze(-1)

    def span_scores(self, emissions: Tensor, mask: Tensor, tags: Tensor, spans: TaggedSpans) -> Tensor:
        """Return the mean probability of the tags of each entity's words."""
        scores = self.word_scores(emissions, mask, tags).transpose(1, 2)
        inside = spans.of_word >= 0
        sums = scores.new_zeros(len(spans.rows)).index_add(0, spans.of_word[inside], scores[inside])
        return sums / (spans.ends - spans.starts + 1)
