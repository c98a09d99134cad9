"""Writes a label for each entity with a language model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError, NotInitializedError
from gliner_pipe.modeling.backbones import hf
from gliner_pipe.modeling.backbones.base import PretrainedModule
from gliner_pipe.modeling.decoders import causal_lm
from gliner_pipe.modeling.decoders.causal_lm import LabelTrie
from gliner_pipe.modeling.decoders.span import SpanDecoder
from gliner_pipe.modeling.layers.eval_mode import evaluating
from gliner_pipe.modeling.layers.linear import projection
from gliner_pipe.registry import registry

WHERE = "components.*.model.decoder"
#: Padded pieces, those to be written included, that are run at once when labels are written.
CHUNK_PIECES = 4096
_NOT_A_TARGET = -100


@registry.decoders.register("generative")
class GenerativeDecoder(SpanDecoder, PretrainedModule):
    """Chooses entities as ``span`` does, and writes a label for each with a causal language model.

    Use it where the labels are not known beforehand: spans are found with broad labels (or with none but
    ``"entity"``), and the language model, which reads the vector of each, says in words of its own what they are.

    This class asks for vectors and knows nothing of where they come from; the architecture gives them:

    - mode ``span``: the vector of each chosen span, from the span representation, in training that of each gold span;
      with ``full_context`` also the words of the span. The label written is that of the span.
    - mode ``prompt``: the vector of each entity token of the prompt, after the label projection, that is the vector
      that spans are scored against; and no words. The prompt holds as many bare entity tokens as labels are wanted,
      without label words. The label written is that of the slot, and all spans found for the slot bear it. In
      training the labels are those of the slots, in their order.

    Parameters
    ----------
    model
        Hub id, folder, or installed package that holds a causal language model.
    mode
        What a label is written for: ``span`` or ``prompt``.
    full_context
        The language model reads the words of a span after its vector; ``span`` mode only.
    blank_entity_prob
        Share of training batches in which all labels of the prompt are replaced by ``"entity"``, so that spans are
        found without labels, too. It is used by what makes the batches.
    max_new_tokens
        Pieces of the longest label that is written.
    n_sequences
        Labels written for each vector, the best first; as many beams are searched.
    sample
        Draw pieces at random instead of taking the best: results differ from call to call and between batches.
    temperature
        Above 1 more random, below 1 less; used when ``sample`` is true.
    dropout
        Of the projection between the widths of vectors and language model.
    freeze
        Keep the weights of the language model as they are; gradients still flow through it.
    trust_remote_code
        Run code that comes with the model when it is first read. It is not saved: whoever loads the pipeline consents
        anew.

    Notes
    -----
    Source: GLiNER's ``labels_decoder`` (``UniEncoderSpanDecoderModel``), whose weights fit: ``decoder.decoder_layer.
    model.*`` are those of ``decoder.*`` here, and ``_enc2dec_proj.*`` those of ``projection.*``. There, zeros that
    shorter contexts are padded with are read as if they were words, labels are trained on their padding, and end
    only if they were padded; here, padding is never read, and each label ends with the end-of-sequence token.
    What is written is returned without surrounding blanks.
    """

    def __init__(
        self,
        model: str,
        mode: Literal["span", "prompt"] = "span",
        full_context: bool = True,
        blank_entity_prob: float = 0.1,
        max_new_tokens: int = 15,
        n_sequences: int = 1,
        sample: bool = False,
        temperature: float = 1.0,
        dropout: float = 0.4,
        freeze: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        _check("blank_entity_prob", blank_entity_prob, 0 <= blank_entity_prob <= 1, "0 to 1")
        _check("max_new_tokens", max_new_tokens, max_new_tokens > 0, "1 or more")
        _check("n_sequences", n_sequences, n_sequences > 0, "1 or more")
        _check("temperature", temperature, temperature > 0, "more than 0")
        _check("dropout", dropout, 0 <= dropout < 1, "0 to below 1")
        self.model_name = model
        self.mode = mode
        self.full_context = full_context
        self.blank_entity_prob = blank_entity_prob
        self.max_new_tokens = max_new_tokens
        self.n_sequences = n_sequences
        self.sample = sample
        self.temperature = temperature
        self.dropout = dropout
        self.freeze = freeze
        self.trust_remote_code = trust_remote_code
        self.decoder: Any = None
        self.tokenizer: Any = None
        self.projection: nn.Module | None = None

    # -- making it -------------------------------------------------------------------------------------------------

    @property
    def is_built(self) -> bool:
        """Whether there are weights."""
        return self.decoder is not None

    @property
    def takes_context(self) -> bool:
        """Whether the words of each span are read."""
        return self.mode == "span" and self.full_context

    def build(self, hidden_size: int) -> None:
        """Load the language model from the hub, a folder or a package.

        Parameters
        ----------
        hidden_size
            Width of the vectors.
        """
        found = causal_lm.load_pretrained(self.model_name, f"{WHERE}.model", self.trust_remote_code)
        self._finish(*found, hidden_size)

    def save_assets(self, path: Path) -> None:
        """Write configuration and tokenizer of the language model."""
        self._built().config.save_pretrained(path)
        self.tokenizer.save_pretrained(path)

    def load_assets(self, path: Path, hidden_size: int) -> None:
        """Make the language model from what ``save_assets`` wrote, without its weights and without network."""
        found = causal_lm.load_saved(path, f"{WHERE}.model", self.trust_remote_code)
        self._finish(*found, hidden_size)

    def _finish(self, decoder: Any, tokenizer: Any, hidden_size: int) -> None:
        self.end = causal_lm.end_of_label(decoder, tokenizer, f"{WHERE}.model")
        self.limit = hf.max_positions(decoder.config, tokenizer)
        if self.limit is not None and self.max_new_tokens >= self.limit:
            raise ConfigError(
                f"{WHERE}.max_new_tokens",
                f"found {self.max_new_tokens} with the {self.limit} positions of {self.model_name!r}",
                f"1 to {self.limit - 1}",
            )
        width = decoder.get_input_embeddings().weight.shape[1]
        self.decoder, self.tokenizer = decoder, tokenizer
        self.projection = projection(hidden_size, width, self.dropout) if width != hidden_size else None
        if self.freeze:
            decoder.requires_grad_(False)
        self.train(self.training)

    def pretrained_modules(self) -> list[nn.Module]:
        """The language model; the projection before it is new."""
        return [] if self.decoder is None else [self.decoder]

    def _built(self) -> Any:
        if self.decoder is None:
            raise NotInitializedError(
                f"The language model {self.model_name!r} has no weights yet. Call nlp.initialize(), train, or load a "
                "trained pipeline first."
            )
        return self.decoder

    def train(self, mode: bool = True) -> GenerativeDecoder:
        """Set the training mode; a frozen language model stays without dropout."""
        super().train(mode)
        if self.freeze and self.decoder is not None:
            self.decoder.eval()
        return self

    # -- learning to write -----------------------------------------------------------------------------------------

    def loss(self, vectors: Tensor, contexts: Sequence[Sequence[str]], labels: Sequence[str]) -> Tensor:
        """Sum, over all pieces of all labels and their ends, of what it costs to write them.

        Parameters
        ----------
        vectors
            Of what the labels belong to, ``(rows, hidden)``; there may be no rows.
        contexts
            Words of each row; not looked at unless ``takes_context``.
        labels
            One for each row.

        Returns
        -------
        Tensor
            A scalar.
        """
        self._built()
        if len(vectors) != len(labels):
            raise ValueError(f"{len(vectors)} vectors for {len(labels)} labels")
        written = [[*pieces, self.end] for pieces in self._pieces(labels)]
        if self.limit is not None:
            written = [pieces[: self.limit - 1] for pieces in written]
        read = self._context_pieces(contexts, [len(pieces) for pieces in written])
        if not read:  # a loss of zero that can still be differentiated
            return self._projected(vectors).sum() + self._embeddings.weight[:0].sum()
        rows = self._rows(vectors, [[*first, *last[:-1]] for first, last in zip(read, written, strict=True)])
        # padded on the right: nothing looks at what comes after it, and positions need no shift
        inputs = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.zeros(inputs.shape[:2], dtype=torch.long)
        targets = torch.full_like(mask, _NOT_A_TARGET)
        for row, (first, last) in enumerate(zip(read, written, strict=True)):
            mask[row, : len(first) + len(last)] = 1
            targets[row, len(first) : len(first) + len(last)] = torch.tensor(last)
        mask, targets = mask.to(inputs.device), targets.to(inputs.device)
        logits = self._built()(inputs_embeds=inputs, attention_mask=mask, use_cache=False).logits
        at = targets != _NOT_A_TARGET
        return F.cross_entropy(logits[at].float(), targets[at], reduction="sum")

    # -- writing ---------------------------------------------------------------------------------------------------

    def generate(
        self,
        vectors: Tensor,
        contexts: Sequence[Sequence[str]],
        constraints: Sequence[str] | None = None,
        n_sequences: int | None = None,
    ) -> list[list[str]]:
        """Write labels.

        The same vector and words give the same labels in any batch, unless ``sample`` is true.

        Parameters
        ----------
        vectors
            Of what to write labels for, ``(rows, hidden)``.
        contexts
            Words of each row; not looked at unless ``takes_context``.
        constraints
            The only labels that may be written, of any length; all may, when there are none.
        n_sequences
            Labels for each row, in place of the parameter of the block.

        Returns
        -------
        list of list of str
            `n_sequences` labels for each row, the best first; fewer when there are fewer constraints.
        """
        self._built()
        n_labels = self.n_sequences if n_sequences is None else n_sequences
        if n_labels < 1:
            raise ValueError(f"n_sequences is {n_labels}; allowed: 1 or more")
        trie, n_new = None, self.max_new_tokens
        if constraints:
            trie = LabelTrie(zip(constraints, self._pieces(constraints), strict=True), self.end)
            n_labels, n_new = min(n_labels, len(trie)), trie.depth
        read = self._context_pieces(contexts, [n_new] * len(vectors))
        found: list[list[str]] = [[] for _ in read]
        with evaluating(self), torch.inference_mode():
            sizes = [1 + len(pieces) + n_new for pieces in read]
            for chunk in causal_lm.chunks(sizes, CHUNK_PIECES // n_labels):
                rows = self._rows(vectors[chunk], [read[row] for row in chunk])
                for row, labels in zip(chunk, self._write(rows, n_labels, n_new, trie), strict=True):
                    found[row] = labels
        return found

    def _write(
        self, rows: Sequence[Tensor], n_labels: int, n_new: int, trie: LabelTrie | None
    ) -> list[list[str]]:
        """Write the labels of one chunk."""
        from transformers import GenerationConfig

        width = max(map(len, rows))
        inputs = torch.stack([F.pad(row, (0, 0, width - len(row), 0)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows], device=inputs.device)
        mask = (torch.arange(width, device=inputs.device) >= width - lengths[:, None]).long()
        settings = {"temperature": self.temperature} if self.sample else {}
        ids = self._built().generate(
            inputs_embeds=inputs,
            attention_mask=mask,
            generation_config=GenerationConfig(
                max_new_tokens=n_new,
                do_sample=self.sample,
                num_beams=n_labels,
                num_return_sequences=n_labels,
                eos_token_id=self.end,
                pad_token_id=self.end,
                **settings,
            ),
            prefix_allowed_tokens_fn=None
            if trie is None
            else lambda _, prefix: trie.allowed(prefix.tolist()),
        )
        labels = [self._text(pieces, trie) for pieces in ids.tolist()]
        return [labels[first : first + n_labels] for first in range(0, len(labels), n_labels)]

    def _text(self, pieces: list[int], trie: LabelTrie | None) -> str:
        if self.end in pieces:
            pieces = pieces[: pieces.index(self.end)]
        label = trie.label(pieces) if trie is not None else None
        if label is None:
            label = self.tokenizer.decode(pieces, skip_special_tokens=True).strip()
        return label

    # -- what the language model reads -----------------------------------------------------------------------------

    @property
    def _embeddings(self) -> Any:
        return self._built().get_input_embeddings()

    def _projected(self, vectors: Tensor) -> Tensor:
        if self.projection is not None:
            vectors = self.projection(vectors)
        return vectors.to(self._embeddings.weight.dtype)

    def _rows(self, vectors: Tensor, pieces: Sequence[Sequence[int]]) -> list[Tensor]:
        """Each vector in the width of the language model, followed by the embeddings of its pieces."""
        flat = torch.tensor(
            [piece for row in pieces for piece in row], dtype=torch.long, device=vectors.device
        )
        embedded = self._embeddings(flat).split([len(row) for row in pieces])
        projected = self._projected(vectors).unsqueeze(1)
        return [torch.cat(row) for row in zip(projected, embedded, strict=True)]

    def _context_pieces(self, contexts: Sequence[Sequence[str]], n_written: Sequence[int]) -> list[list[int]]:
        """Pieces of the words of each row; what leaves no room for the label is cut off."""
        if not self.takes_context:
            return [[] for _ in n_written]
        if len(contexts) != len(n_written):
            raise ValueError(f"the words of {len(contexts)} spans for {len(n_written)} vectors")
        # a word reads as it does within a text, wherever it stands
        words = dict.fromkeys(f" {word}" for context in contexts for word in context)
        pieces = dict(zip(words, self._pieces(list(words)), strict=True))
        rows = []
        for context, n_new in zip(contexts, n_written, strict=True):
            row = [piece for word in context for piece in pieces[f" {word}"]]
            rows.append(row if self.limit is None else row[: max(0, self.limit - 1 - n_new)])
        return rows

    def _pieces(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        return found


def _check(name: str, value: float, right: bool, allowed: str) -> None:
    if not right:
        raise ConfigError(f"{WHERE}.{name}", f"found {value}", allowed)
