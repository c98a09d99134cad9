"""Tiny tokenizers of all kinds, trained on the sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conftest import SAMPLE, make_backbone
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LINES = [
    " ".join(json.loads(line)["tokenized_text"])
    for line in (SAMPLE / "train.jsonl").read_text(encoding="utf8").splitlines()
][:200]
BYTES = pre_tokenizers.ByteLevel.alphabet()
#: The split of newer byte-level tokenizers, which precedes the mapping of bytes.
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"


def byte_level(prefix: bool) -> Tokenizer:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    return _trained(inner, initial_alphabet=BYTES)


def _split_and_bytes() -> Tokenizer:
    inner = Tokenizer(models.BPE())
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    inner.normalizer = normalizers.NFC()
    return _trained(inner, initial_alphabet=BYTES)


def _metaspace(scheme: str, model: Any = models.Unigram) -> Tokenizer:
    inner = Tokenizer(model())
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    _trained(inner)
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return inner


def _xlm_roberta() -> Tokenizer:
    inner = _metaspace("always")
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    return inner


def gemma() -> Tokenizer:
    """Spaces become part of the text; the split that follows finds none."""
    inner = _metaspace("always", lambda: models.BPE(unk_token="<unk>", fuse_unk=True))
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    inner.decoder = decoders.Replace("▁", " ")
    return inner


def _llama() -> Tokenizer:
    inner = gemma()
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.pre_tokenizer = None
    return inner


def _word_piece() -> Tokenizer:
    inner = Tokenizer(models.WordPiece(unk_token="<unk>"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _trained(inner)


def _trained(inner: Tokenizer, **options: Any) -> Tokenizer:
    kinds: dict[Any, Any] = {models.Unigram: trainers.UnigramTrainer, models.BPE: trainers.BpeTrainer}
    specials = ["<pad>", "<unk>", "<s>", "</s>"]
    kind = kinds.get(type(inner.model), trainers.WordPieceTrainer)
    if kind is trainers.UnigramTrainer:
        options["unk_token"] = "<unk>"
    trainer = kind(vocab_size=500, special_tokens=specials, show_progress=False, **options)
    inner.train_from_iterator(LINES, trainer)
    return inner


#: Tokenizers, and whether they are changed.
KINDS: dict[str, tuple[Any, bool]] = {
    "byte level": (lambda: byte_level(False), True),
    "byte level with space": (lambda: byte_level(True), False),
    "split and bytes": (_split_and_bytes, True),
    "metaspace always": (lambda: _metaspace("always"), False),
    "metaspace first": (lambda: _metaspace("first"), False),
    "metaspace never": (lambda: _metaspace("never"), True),
    "xlm-roberta": (_xlm_roberta, False),
    "gemma": (gemma, True),
    "llama": (_llama, False),
    "word piece": (_word_piece, False),
}


def make(folder: Path, inner: Tokenizer) -> Path:
    """Write a random ModernBERT with a tokenizer."""
    make_backbone(folder, "modernbert")
    return replace(folder, inner)


def replace(folder: Path, inner: Tokenizer) -> Path:
    """Give the model in a folder another tokenizer."""
    from transformers import PreTrainedTokenizerFast

    ids = [(token, inner.token_to_id(token)) for token in ("<s>", "</s>")]
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
    )
    fast.save_pretrained(folder)
    return folder
