"""The tag decoder ``crf``: a linear-chain conditional random field."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.decoders import linear_chain
from gliner_pipe.modeling.decoders.linear_chain import Scores
from gliner_pipe.modeling.decoders.tags import ILLEGAL, UNKNOWN, Scheme, TagDecoder, TaggedSpans, as_float
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Share

#: File in a saved model that tells whether each label has its own chain; earlier versions did not write it.
CHAINS = "chains.json"


@registry.decoders.register("crf")
class CRFTags(TagDecoder):
    """Scores whole tag sequences, with learned transitions from tag to tag.

    Use it if entity boundaries are hard to predict word by word. The score of an entity is the probability, over all
    sequences, that exactly these words have this label.

    Parameters
    ----------
    scheme, dropout
        As in every tag decoder.
    mode
        Training objective. ``joint``: likelihood of the whole sequence. ``marginal``: probability of each word's tag
        over all sequences. ``independent``: cross-entropy of each word's tag, so that the chain is only used in
        prediction.
    chains
        ``per_label``: a chain for each label, so that entities of different labels may overlap, as in EDS-NLP's
        ``ner_crf``. ``one``: a chain for all labels, so that a word has one label. By default ``per_label``, and
        ``one`` with the scheme ``word``.
    constrained
        Restrict training and prediction to sequences that the scheme allows.
    learnable_transitions
        Learn a score for each transition and for the first and last tag (except in mode ``independent``). False: all
        allowed transitions have the same score.

    Notes
    -----
    Unknown gold tags are summed over, so sequences may be partially annotated. Gold tags that violate the scheme cost
    10,000 each.
    """

    def __init__(
        self,
        scheme: Scheme = "bioul",
        mode: Literal["joint", "independent", "marginal"] = "joint",
        chains: Literal["one", "per_label"] | None = None,
        constrained: bool = True,
        learnable_transitions: bool = True,
        dropout: Share = 0.1,
    ) -> None:
        super().__init__(scheme, constrained, dropout)
        self.mode = mode
        self.chains = chains
        self.learnable_transitions = learnable_transitions

    @property
    def chain_per_label(self) -> bool:
        """Whether each label has its own chain."""
        return self.scheme != "word" if self.chains is None else self.chains == "per_label"

    def save_assets(self, path: Path) -> None:
        """Save whether each label has its own chain to the folder `path`."""
        (path / CHAINS).write_text(
            json.dumps("per_label" if self.chain_per_label else "one"), encoding="utf8"
        )

    def load_assets(self, path: Path) -> None:
        """Use the chains of the saved weights, unless `chains` is set.

        In earlier versions they followed from `mode`.
        """
        if self.chains is not None:
            return
        if (path / CHAINS).is_file():
            self.chains = json.loads((path / CHAINS).read_text(encoding="utf8"))
        else:
            self.chains = "one" if self.mode == "joint" else "per_label"

    def build(self, hidden_size: int, labels: Sequence[str]) -> None:
        """Create the layer that scores tags, and the transition scores, initially 0."""
        super().build(hidden_size, labels)
        n_tags = len(self.tags)
        self.steps: nn.ParameterDict | None = None
        if self.learnable_transitions and self.mode != "independent":
            self.steps = nn.ParameterDict(
                {
                    "between": torch.zeros(self.n_chains, n_tags, n_tags),
                    **{place: torch.zeros(self.n_chains, n_tags) for place in ("start", "end")},
                }
            )

    def scores(self, emissions: Tensor, mask: Tensor, cost: float = ILLEGAL) -> Scores:
        """Return the scores of paths; `cost` is added for each violation of the scheme."""
        between, first, last = (part.to(emissions.dtype) for part in self.penalties(emissions.device, cost))
        between = between.expand(self.n_chains, -1, -1)
        if self.steps is not None:
            between = between + self.steps["between"]
            first, last = first + self.steps["start"], last + self.steps["end"]
        return Scores.make(emissions, between, first, last, mask)

    def loss(self, emissions: Tensor, gold: Tensor, mask: Tensor) -> Tensor:
        """Return the loss of the mode, summed over words and chains."""
        if self.mode == "independent" or not emissions.numel():
            return self.word_loss(emissions, gold, mask)
        with torch.autocast(emissions.device.type, enabled=False):
            gold = gold.masked_fill(~mask[:, :, None], UNKNOWN)
            emissions, gold, mask = _packed(as_float(emissions), gold, mask)
            scores = self.scores(emissions, mask)
            gold = gold.transpose(0, 1)
            if self.mode == "joint":
                return -linear_chain.log_likelihood(scores, gold).sum()
            log_probs = linear_chain.log_marginals(scores)
            return F.nll_loss(log_probs.flatten(0, -2), gold.flatten(), ignore_index=UNKNOWN, reduction="sum")

    def best(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Return the best sequence of tags."""
        return linear_chain.best_path(self.scores(emissions, mask, -torch.inf)).transpose(0, 1)

    def word_scores(self, emissions: Tensor, mask: Tensor, tags: Tensor) -> Tensor:
        """Return the probability of each of `tags` over all sequences."""
        log_probs = linear_chain.log_marginals(self.scores(emissions, mask)).transpose(0, 1)
        return log_probs.gather(-1, tags[..., None]).squeeze(-1).exp()

    def span_scores(self, emissions: Tensor, mask: Tensor, tags: Tensor, spans: TaggedSpans) -> Tensor:
        """Return the probability over all sequences of each entity, with exactly these boundaries."""
        scores = self.scores(emissions, mask)
        prefixes, (suffixes, shifts) = linear_chain.prefixes(scores)[0], linear_chain.suffixes(scores)
        before, after = torch.stack(prefixes), torch.stack(suffixes)
        tags = tags.transpose(0, 1)
        rows, chains, starts, ends, of_word = spans
        if not len(rows):
            return emissions.new_zeros(0)
        joined = self.tables.joined.to(tags.device)
        # probability of the first tag, then of each tag given the one before it
        first = tags[starts, rows, chains]
        opening = (before + after)[starts, rows, chains].log_softmax(-1)
        log_probs = opening.gather(-1, first[:, None]).squeeze(-1)
        rest = after.gather(-1, tags[..., None]).squeeze(-1)
        steps = linear_chain.path_scores(scores, tags)[1:] + rest[1:]
        steps = (steps - (rest + shifts)[:-1]).permute(1, 2, 0)
        within = (of_word[..., 1:] >= 0) & (of_word[..., 1:] == of_word[..., :-1])
        log_probs = log_probs.index_add(0, of_word[..., 1:][within], steps[within])
        # probability that the entity does not extend to the left ...
        left = before[(starts - 1).clamp(min=0), rows, chains] + scores.transitions[chains, :, first]
        bounded = 1.0 - torch.where(starts > 0, (left.softmax(-1) * joined.T[first]).sum(-1), 0.0)
        # ... nor to the right
        last, following = tags[ends, rows, chains], (ends + 1).clamp(max=len(tags) - 1)
        right = scores.transitions[chains, last] + (scores.emissions + after)[following, rows, chains]
        more = (ends + 1 < len(tags)) & scores.mask[following, rows]
        bounded *= 1.0 - torch.where(more, (right.softmax(-1) * joined[last]).sum(-1), 0.0)
        return log_probs.exp() * bounded


def _packed(emissions: Tensor, gold: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move padding to the end of each row, and keep the order of words."""
    order = (~mask).long().argsort(dim=1, stable=True)
    rows = torch.arange(len(mask), device=mask.device)[:, None]
    return emissions[rows, order], gold[rows, order], mask[rows, order]
