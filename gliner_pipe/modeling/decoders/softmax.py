"""The tag decoder ``softmax``: a distribution over the tags for each word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.decoders.linear_chain import Scores, best_path
from gliner_pipe.modeling.decoders.tags import UNKNOWN, WHERE, Scheme, TagDecoder, TaggedSpans, as_float
from gliner_pipe.modeling.losses.base import Loss
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
    loss
        A block that takes the place of cross-entropy, such as ``gliner_pipe.focal`` for rare entities. It is applied to
        the probability of the gold tag: with ``focal`` it is ``-alpha (1 - p)^gamma log p``.
    class_weights
        Factor of the loss of words by their gold label, such as ``{"person": 2.0, "O": 0.5}``; 1 for other labels.
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
        loss: Loss | None = None,
        class_weights: dict[str, NonNegativeFloat] | None = None,
    ) -> None:
        super().__init__(scheme, constrained, dropout)
        self.mode = mode
        self.label_smoothing = label_smoothing
        self.all_pieces = all_pieces
        self.tag_names = tag_names
        self.criterion = loss
        self.class_weights = class_weights
        _check_loss(loss, label_smoothing)

    @property
    def chain_per_label(self) -> bool:
        """Whether each label has its own chain."""
        return self.mode == "independent"

    tag_weights: Tensor

    def build(self, hidden_size: int, labels: Sequence[str]) -> None:
        """Create the layer that scores tags, and the weight of each tag in the loss.

        Raises
        ------
        ConfigError
            If `class_weights` names a label that is not among the labels.
        """
        super().build(hidden_size, labels)
        stated = self.class_weights or {}
        unknown = [name for name in stated if name not in (*labels, "O")]
        if unknown:
            where, allowed = f"{WHERE}.class_weights", ", ".join(("O", *labels))
            raise ConfigError(where, f"names {unknown[0]!r}, which is no label", allowed)
        weights = torch.tensor([*(stated.get(label, 1.0) for label in labels), stated.get("O", 1.0)])
        self.register_buffer("tag_weights", weights[self.tables.labels], persistent=False)  # O is -1

    def loss(self, emissions: Tensor, gold: Tensor, mask: Tensor) -> Tensor:
        """Return the cross-entropy, summed over words and chains; words without a known tag are skipped.

        With `loss` and `class_weights`, their loss in its place.
        """
        if self.criterion is None and not self.class_weights:
            return self.word_loss(emissions, gold, mask, self.label_smoothing)
        with torch.autocast(emissions.device.type, enabled=False):
            known = mask[:, :, None] & (gold != UNKNOWN)
            scores, tags, chains = as_float(emissions)[known], gold[known], known.nonzero()[:, 2]
            if self.criterion is None:
                losses = F.cross_entropy(scores, tags, reduction="none", label_smoothing=self.label_smoothing)
            else:
                others = scores.scatter(-1, tags[:, None], -torch.inf).logsumexp(-1)
                log_odds = scores.gather(-1, tags[:, None]).squeeze(-1) - others
                losses = self.criterion.elements(log_odds, torch.ones_like(log_odds))
            return (losses * self.tag_weights.to(losses)[chains, tags]).sum()

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


def _check_loss(loss: Loss | None, label_smoothing: float) -> None:
    """Refuse options of a loss that have no effect on the gold tag of a word."""
    if loss is None:
        return
    unused = {
        "masking": "none",
        "negatives": 1.0,
        "label_smoothing": 0.0,
        "width_weight": False,
        "wrong_label_weight": 1.0,
    }
    for name, default in unused.items():
        if getattr(loss, name) != default:
            found = f"found {getattr(loss, name)!r}, which has no effect on the tags of words"
            raise ConfigError(f"{WHERE}.loss.{name}", found, str(default))
    if label_smoothing:
        raise ConfigError(f"{WHERE}.label_smoothing", f"found {label_smoothing} with another loss", "0.0")
