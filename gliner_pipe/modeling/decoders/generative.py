"""The decoder ``generative``: generates a label for each entity with a causal language model."""

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
from gliner_pipe.modeling.layers.cache import evaluating
from gliner_pipe.modeling.layers.linear import projection
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Count, Positive, Rate, Share

WHERE = "components.*.model.decoder"
#: Prompt label that stands for entities of any kind.
BLANK_LABEL = "entity"
#: Maximum number of padded tokens generated at once, including those to be generated.
CHUNK_TOKENS = 4096
_NOT_A_TARGET = -100


@registry.decoders.register("generative")
class GenerativeDecoder(SpanDecoder, PretrainedModule):
    """Selects entities as ``span`` does, and generates a label for each with a causal language model.

    Use it if the labels are not known in advance: spans are found with broad labels (or only ``"entity"``), and the
    language model generates the label of each from its vector.

    The architecture provides the vectors:

    - mode ``span``: the vector of each selected span, in training of each gold span; with ``full_context`` also the
      words of the span. The generated label is that of the span.
    - mode ``prompt``: the vector of each entity token of the prompt, after the label projection, against which spans
      are scored; no words. The prompt holds bare entity tokens ("slots") without label words, one for each label to
      generate. The generated label is that of the slot and of all spans found for it. In training the labels are those
      of the slots, in order.

    Parameters
    ----------
    model
        Hub id, folder, or installed package that holds a causal language model.
    mode
        What a label is generated for: ``span`` or ``prompt``.
    full_context
        Whether the words of a span follow its vector in the language model's input; ``span`` mode only.
    blank_entity_prob
        Share of training batches in which all labels of the prompt are replaced by ``"entity"``, so that the model also
        learns to find spans without labels. Applied when batches are built.
    max_new_tokens
        Maximum length of a generated label in tokens.
    n_sequences
        Number of labels generated for each vector, the best first; also the number of beams.
    sample
        Sample tokens instead of taking the best: results differ from call to call and between batches.
    temperature
        Sampling temperature: above 1 more random, below 1 less; only used with ``sample``.
    dropout
        Dropout rate of the projection from vectors to the language model's width.
    freeze
        Do not train the weights of the language model; gradients still flow through it.
    trust_remote_code
        Allow code that comes with the model to run when it is first loaded. It is not saved: whoever loads the pipeline
        has to consent again.
    config
        Configuration of the language model (the content of a ``config.json``) in place of that of `model`, which then
        only provides weights and tokenizer.

    Notes
    -----
    Source: GLiNER's ``labels_decoder`` (``UniEncoderSpanDecoderModel``), whose weights are compatible:
    ``decoder.decoder_layer.model.*`` is ``decoder.*`` here, and ``_enc2dec_proj.*`` is ``projection.*``. There, the
    zeros that pad shorter contexts are read like words, labels are trained on their padding, and end only if they were
    padded; here, padding is masked, and each label ends with the end-of-sequence token. Generated labels are returned
    without surrounding whitespace.
    """

    def __init__(
        self,
        model: str,
        mode: Literal["span", "prompt"] = "span",
        full_context: bool = True,
        blank_entity_prob: Share = 0.1,
        max_new_tokens: Count = 15,
        n_sequences: Count = 1,
        sample: bool = False,
        temperature: Positive = 1.0,
        dropout: Rate = 0.4,
        freeze: bool = False,
        trust_remote_code: bool = False,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
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
        self.config = config
        self.decoder: Any = None
        self.tokenizer: Any = None
        self.projection: nn.Module | None = None

    # -- building, saving, loading -----------------------------------------------------------------------------------

    @property
    def is_built(self) -> bool:
        """Whether the language model has been loaded."""
        return self.decoder is not None

    def bare_prompt(self, n_slots: int) -> tuple[str, ...] | None:
        """Return the prompt of mode ``prompt``: entity tokens without labels; None if the prompt holds labels."""
        return ("",) * n_slots if self.mode == "prompt" else None

    @property
    def takes_context(self) -> bool:
        """Whether the words of each span are part of the input."""
        return self.mode == "span" and self.full_context

    def build(self, hidden_size: int) -> None:
        """Load the language model from the hub, a folder or a package, for vectors of this width."""
        loaded = causal_lm.load_pretrained(
            self.model_name, f"{WHERE}.model", self.trust_remote_code, self.config
        )
        self._set_model(*loaded, hidden_size)

    def save_assets(self, path: Path) -> None:
        """Save configuration and tokenizer of the language model."""
        self._built().config.save_pretrained(path)
        self.tokenizer.save_pretrained(path)

    def load_assets(self, path: Path, hidden_size: int) -> None:
        """Load the language model from what ``save_assets`` wrote, without weights and without network access."""
        loaded = causal_lm.load_saved(path, f"{WHERE}.model", self.trust_remote_code)
        self._set_model(*loaded, hidden_size)

    def _set_model(self, decoder: Any, tokenizer: Any, hidden_size: int) -> None:
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
        """Return the language model; the projection before it is not pretrained."""
        return [] if self.decoder is None else [self.decoder]

    def _built(self) -> Any:
        if self.decoder is None:
            raise NotInitializedError(
                f"The language model {self.model_name!r} has no weights yet. Call nlp.initialize(), train, or load a "
                "trained pipeline first."
            )
        return self.decoder

    def train(self, mode: bool = True) -> GenerativeDecoder:
        """Set the training mode; a frozen language model stays in evaluation mode."""
        super().train(mode)
        if self.freeze and self.decoder is not None:
            self.decoder.eval()
        return self

    # -- training ----------------------------------------------------------------------------------------------------

    def loss(self, vectors: Tensor, contexts: Sequence[Sequence[str]], labels: Sequence[str]) -> Tensor:
        """Return the cross-entropy, summed over all tokens of all labels and their end-of-sequence tokens.

        Parameters
        ----------
        vectors
            Vector of each span or slot, ``(rows, hidden)``; there may be no rows.
        contexts
            Words of each row; ignored unless ``takes_context``.
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
        outputs = [[*tokens, self.end] for tokens in self._tokens(labels)]
        if self.limit is not None:
            outputs = [tokens[: self.limit - 1] for tokens in outputs]
        prompts = self._context_tokens(contexts, [len(tokens) for tokens in outputs])
        if not prompts:  # a zero loss that can still be differentiated
            return self._projected(vectors).sum() + self._embeddings.weight[:0].sum()
        rows = self._rows(
            vectors, [[*first, *last[:-1]] for first, last in zip(prompts, outputs, strict=True)]
        )
        # padded on the right: causal attention never sees later positions, and positions need no shift
        inputs = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.zeros(inputs.shape[:2], dtype=torch.long)
        targets = torch.full_like(mask, _NOT_A_TARGET)
        for row, (first, last) in enumerate(zip(prompts, outputs, strict=True)):
            mask[row, : len(first) + len(last)] = 1
            targets[row, len(first) : len(first) + len(last)] = torch.tensor(last)
        mask, targets = mask.to(inputs.device), targets.to(inputs.device)
        logits = self._built()(inputs_embeds=inputs, attention_mask=mask, use_cache=False).logits
        at = targets != _NOT_A_TARGET
        return F.cross_entropy(logits[at].float(), targets[at], reduction="sum")

    # -- generation --------------------------------------------------------------------------------------------------

    def generate(
        self,
        vectors: Tensor,
        contexts: Sequence[Sequence[str]],
        constraints: Sequence[str] | None = None,
        n_sequences: int | None = None,
    ) -> list[list[str]]:
        """Generate labels.

        The same vector and words give the same labels in any batch, unless ``sample`` is true.

        Parameters
        ----------
        vectors
            Vector of each span or slot, ``(rows, hidden)``.
        contexts
            Words of each row; ignored unless ``takes_context``.
        constraints
            The only labels that may be generated, of any length; no restriction if empty.
        n_sequences
            Number of labels for each row; the block's parameter by default.

        Returns
        -------
        list of list of str
            `n_sequences` labels for each row, the best first; fewer if there are fewer constraints.
        """
        self._built()
        n_labels = self.n_sequences if n_sequences is None else n_sequences
        if n_labels < 1:
            raise ValueError(f"n_sequences is {n_labels}; allowed: 1 or more")
        trie, n_new = None, self.max_new_tokens
        if constraints:
            trie = LabelTrie(zip(constraints, self._tokens(constraints), strict=True), self.end)
            n_labels, n_new = min(n_labels, len(trie)), trie.depth
        prompts = self._context_tokens(contexts, [n_new] * len(vectors))
        generated: list[list[str]] = [[] for _ in prompts]
        with evaluating(self), torch.inference_mode():
            sizes = [1 + len(tokens) + n_new for tokens in prompts]
            for chunk in causal_lm.chunks(sizes, CHUNK_TOKENS // n_labels):
                rows = self._rows(vectors[chunk], [prompts[row] for row in chunk])
                for row, labels in zip(chunk, self._generate(rows, n_labels, n_new, trie), strict=True):
                    generated[row] = labels
        return generated

    def _generate(
        self, rows: Sequence[Tensor], n_labels: int, n_new: int, trie: LabelTrie | None
    ) -> list[list[str]]:
        """Generate the labels of one chunk."""
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
        labels = [self._text(tokens, trie) for tokens in ids.tolist()]
        return [labels[first : first + n_labels] for first in range(0, len(labels), n_labels)]

    def _text(self, tokens: list[int], trie: LabelTrie | None) -> str:
        if self.end in tokens:
            tokens = tokens[: tokens.index(self.end)]
        label = trie.label(tokens) if trie is not None else None
        if label is None:
            label = self.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        return label

    # -- input of the language model ---------------------------------------------------------------------------------

    @property
    def _embeddings(self) -> Any:
        return self._built().get_input_embeddings()

    def _projected(self, vectors: Tensor) -> Tensor:
        if self.projection is not None:
            vectors = self.projection(vectors)
        return vectors.to(self._embeddings.weight.dtype)

    def _rows(self, vectors: Tensor, tokens: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return each vector, projected to the language model's width, followed by the embeddings of its tokens."""
        flat = torch.tensor(
            [token for row in tokens for token in row], dtype=torch.long, device=vectors.device
        )
        embedded = self._embeddings(flat).split([len(row) for row in tokens])
        projected = self._projected(vectors).unsqueeze(1)
        return [torch.cat(row) for row in zip(projected, embedded, strict=True)]

    def _context_tokens(
        self, contexts: Sequence[Sequence[str]], n_reserved: Sequence[int]
    ) -> list[list[int]]:
        """Return the tokens of the words of each row, truncated so that the label has room."""
        if not self.takes_context:
            return [[] for _ in n_reserved]
        if len(contexts) != len(n_reserved):
            raise ValueError(f"words of {len(contexts)} spans for {len(n_reserved)} vectors")
        # a leading space tokenizes every word as inside a text
        words = dict.fromkeys(f" {word}" for context in contexts for word in context)
        tokens = dict(zip(words, self._tokens(list(words)), strict=True))
        rows = []
        for context, n_new in zip(contexts, n_reserved, strict=True):
            row = [token for word in context for token in tokens[f" {word}"]]
            rows.append(row if self.limit is None else row[: max(0, self.limit - 1 - n_new)])
        return rows

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        tokens: list[list[int]] = self.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        return tokens
