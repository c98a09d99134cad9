"""Layers in a form that can be exported, with the same weights and the same results."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.context_encoders import Lstm as LstmContext
from gliner_pipe.modeling.layers.cache import as_kind
from gliner_pipe.modeling.lstm import BiLSTM
from gliner_pipe.modeling.merging import merged, replaced
from gliner_pipe.modeling.span_reps.token_level import TokenScorer


class GraphLSTM(nn.Module):
    """The ONNX operator ``LSTM``, where each row is read up to its length, as a packed sequence is.

    Parameters
    ----------
    lstm
        The layer with its weights.

    Notes
    -----
    The backward direction reads reversed rows in an operator of its own: OpenVINO ignores the lengths of rows in a
    bidirectional operator.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Map ``(rows, words, width)`` to ``(rows, words, directions * hidden)``; zero at padding."""
        lengths, at = mask.sum(1, keepdim=True), torch.arange(words.shape[1], device=words.device)
        mirrored = torch.where(at < lengths, lengths - 1 - at, at)[:, :, None]
        sides = ["", "_reverse"] if self.lstm.bidirectional else [""]
        for layer in range(self.lstm.num_layers):
            words = torch.cat([self._direction(words, mirrored, f"l{layer}{side}") for side in sides], 2)
        return words * mask[:, :, None]

    def _direction(self, words: Tensor, mirrored: Tensor, name: str) -> Tensor:
        """Run one direction of a layer."""
        is_backward, hidden = name.endswith("_reverse"), self.lstm.hidden_size
        if is_backward:
            words = words.gather(1, mirrored.expand_as(words))
        inputs, recurrent, bias = (
            self._weights(kinds, name)[None]
            for kinds in (["weight_ih"], ["weight_hh"], ["bias_ih", "bias_hh"])
        )
        (made,) = torch.onnx.ops.symbolic_multi_out(
            "LSTM",
            (words.transpose(0, 1), inputs, recurrent, bias),
            {"hidden_size": hidden},
            dtypes=(words.dtype,),
            shapes=((words.shape[1], 1, words.shape[0], hidden),),
        )
        made = made[:, 0].transpose(0, 1)
        return made.gather(1, mirrored.expand(-1, -1, hidden)) if is_backward else made

    def _weights(self, kinds: list[str], name: str) -> Tensor:
        """Return the weights of one direction; torch orders the gates i, f, c, o, ONNX i, o, f, c."""
        parts = []
        for kind in kinds:
            first, forget, cell, out = getattr(self.lstm, f"{kind}_{name}").chunk(4)
            parts += [first, out, forget, cell]
        return torch.cat(parts)


class GraphBiLSTM(BiLSTM):
    """``BiLSTM`` without packed sequences."""

    def __init__(self, module: BiLSTM) -> None:
        nn.Module.__init__(self)
        self.graph = GraphLSTM(module.lstm)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Read each row up to its length."""
        return self.graph(words, mask)


class GraphLstmContext(LstmContext):
    """The context encoder ``lstm`` without packed sequences."""

    def __init__(self, module: LstmContext) -> None:
        nn.Module.__init__(self)
        self.input_projection, self.output_projection = module.input_projection, module.output_projection
        self.graph = GraphLSTM(module.encoder)

    def encode(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Run the layers."""
        return self.graph(words, word_mask)


class GraphTokenScorer(TokenScorer):
    """``TokenScorer`` for all labels at once; the caller limits the number of labels."""

    def __init__(self, module: TokenScorer) -> None:
        nn.Module.__init__(self)
        self.proj_token, self.proj_label, self.out_mlp = module.proj_token, module.proj_label, module.out_mlp

    def forward(self, words: Tensor, labels: Tensor, word_mask: Tensor | None = None) -> Tensor:
        """Return logits of start, end and inside, ``(rows, words, labels, 3)``."""
        (by_word, word_mix), (by_label, label_mix) = self._of_words(words), self._of_labels(labels)
        mixed = F.linear(word_mix[:, :, None] * label_mix[:, None], self._mix())
        scores: Tensor = self._layers()[1]((mixed + by_word[:, :, None] + by_label[:, None]).relu())
        return scores


_REPLACEMENTS: tuple[tuple[type[nn.Module], Callable[[Any], nn.Module]], ...] = (
    (BiLSTM, GraphBiLSTM),
    (LstmContext, GraphLstmContext),
    (TokenScorer, GraphTokenScorer),
)


def for_graphs(model: nn.Module) -> nn.Module:
    """Return the model with merged adapters and layers that can be exported; all other weights are shared."""
    model = merged(model)
    made: dict[int, nn.Module] = {}
    for module in model.modules():
        for kind, replacement in _REPLACEMENTS:
            if type(module) is kind:
                made[id(module)] = replacement(module)
    if "gliner_pipe.modeling.layers.deberta" in sys.modules:
        made |= _plain_deberta(model)
    return (replaced(model, made) if made else model).eval()


def _plain_deberta(model: nn.Module) -> dict[int, nn.Module]:
    """Return encoders with the attention of `transformers`, which can be traced for any length."""
    from transformers.models.deberta_v2 import modeling_deberta_v2 as hf

    from gliner_pipe.modeling.layers import deberta

    made: dict[int, nn.Module] = {}
    for encoder in model.modules():
        if type(encoder) is deberta.DisentangledEncoder:
            attentions = {
                id(part): as_kind(hf.DisentangledSelfAttention, part)
                for part in encoder.modules()
                if type(part) is deberta.DisentangledAttention
            }
            made[id(encoder)] = as_kind(hf.DebertaV2Encoder, replaced(encoder, attentions))
    return made
