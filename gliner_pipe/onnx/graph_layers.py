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
    """The ONNX operator ``LSTM``, which reads each row up to its length, as a packed sequence does.

    Parameters
    ----------
    lstm
        The layer with its weights.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Map ``(rows, words, width)`` to ``(rows, words, directions * hidden)``; zero at padding."""
        lstm = self.lstm
        sides = ["", "_reverse"] if lstm.bidirectional else [""]
        rows, length, _ = words.shape
        lengths = mask.sum(1).to(torch.int32)
        attributes: dict[str, Any] = {
            "hidden_size": lstm.hidden_size,
            "direction": "bidirectional" if lstm.bidirectional else "forward",
        }
        hidden = words.transpose(0, 1)
        for layer in range(lstm.num_layers):
            inputs, recurrent, bias = (
                torch.stack([self._weights(kinds, f"l{layer}{side}") for side in sides])
                for kinds in (["weight_ih"], ["weight_hh"], ["bias_ih", "bias_hh"])
            )
            (hidden,) = torch.onnx.ops.symbolic_multi_out(
                "LSTM",
                (hidden, inputs, recurrent, bias, lengths),
                attributes,
                dtypes=(words.dtype,),
                shapes=((length, len(sides), rows, lstm.hidden_size),),
            )
            hidden = hidden.transpose(1, 2).flatten(2)
        return hidden.transpose(0, 1)

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
