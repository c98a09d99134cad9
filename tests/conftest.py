"""Fixtures shared by all tests: tiny random backbones, no network."""

from __future__ import annotations

import functools
import json
import os
import shutil
import string
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from spacy.lang.en import English
from spacy.lang.tokenizer_exceptions import BASE_EXCEPTIONS

# Models are tiny: a second thread costs more than it gives, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

# A busy machine is no failure.
settings.register_profile("tests", deadline=None, max_examples=40, derandomize=True)
# Many inputs, and others each time: pytest tests/fuzz --hypothesis-profile nightly
settings.register_profile(
    "nightly", deadline=None, max_examples=2000, suppress_health_check=list(HealthCheck), print_blob=True
)
# This file is imported again as a module of the tests, when --hypothesis-profile has chosen a profile already.
if settings.get_current_profile_name() not in ("tests", "nightly"):
    settings.load_profile("tests")

#: Words that English cuts, or leaves whole, by exception; of some 1,300, those that texts of tests hold. To load all of
#: them is half of the time of making or loading a pipeline.
EXCEPTIONS = (
    *("cannot", "can't", "Can't", "don't", "it's", "won't", "i'll", "we're", "he's", "'s", "o'clock"),
    *("a.m.", "p.m.", "e.g.", "i.e."),
)
_of_english = English.Defaults.tokenizer_exceptions
English.Defaults.tokenizer_exceptions = BASE_EXCEPTIONS | {word: _of_english[word] for word in EXCEPTIONS}

SAMPLE = Path(__file__).parent.parent / "data" / "sample"
#: Sentences that the tokenizers of the tests are made from: fixed, so that random models stay as they are when the
#: sample grows at its end.
VOCABULARY_SENTENCES = 704


@pytest.fixture(autouse=True)
def _quiet_and_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    torch.manual_seed(0)


def built_in(family: str) -> list[str]:
    """Names in a family whose functions are of this package."""
    from gliner_pipe.registry import registry

    view = getattr(registry, family)
    return [name for name in view.get_available() if view.get(name).__module__.split(".")[0] == "gliner_pipe"]


@functools.cache
def word_pieces() -> Any:
    """A word-piece tokenizer of the sample's frequent words; rarer ones are cut into endings and letters.

    Its vocabulary is counted here, since that of ``WordPieceTrainer`` differs from run to run.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    lines = (SAMPLE / "train.jsonl").read_text(encoding="utf8").splitlines()[:VOCABULARY_SENTENCES]
    texts = (" ".join(json.loads(line)["tokenized_text"]) for line in lines)
    words = Counter(word for t in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(t)))
    endings = Counter(f"##{word[-n:]}" for word in words for n in (2, 3) if len(word) > n)
    letters = sorted({*"".join(words), *string.ascii_lowercase, *string.digits})
    frequent = [sorted(count, key=lambda key: (-count[key], key)) for count in (words, endings)]
    pieces = [*specials, *letters, *(f"##{one}" for one in letters), *frequent[0][:700], *frequent[1][:300]]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def make_backbone(folder: Path, kind: str = "bert", hidden_size: int = 32, n_layers: int = 2) -> Path:
    """Write a random model with a word-piece tokenizer."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    fast = word_pieces()
    sizes: dict[str, Any] = {
        "vocab_size": len(fast),
        "hidden_size": hidden_size,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * hidden_size,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    }
    if kind == "deberta-v2":
        sizes |= {
            "relative_attention": True,
            "position_buckets": 32,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "max_relative_positions": -1,
            "position_biased_input": False,
            "type_vocab_size": 0,
        }
    elif kind == "modernbert":
        sizes |= {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    AutoModel.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random BERT."""
    return make_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def browser() -> Any:
    """A browser without a window: the system's Chromium, or that of Playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as running:
        try:
            found = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error:
            pytest.skip("there is no Chromium")
        yield found
        found.close()


def kept_in(cache: Any) -> list[Any]:
    """What a cache holds, whatever it was made of."""
    return list(cache._state.items.values())


def gliner_config(backbone: Path, **changes: Any) -> dict[str, Any]:
    """Configuration of a component over a tiny backbone."""
    config: dict[str, Any] = {
        "model": {
            "@architectures": "gliner_pipe.GLiNER.v1",
            "encoder": {
                "@encoders": "uni_encoder",
                "backbone": {"@backbones": "transformer", "model": str(backbone)},
            },
            "span_rep": {"@span_reps": "markerV0", "max_width": 6},
        },
        "labels": ["person", "city"],
    }
    return {**config, **changes}


@pytest.fixture
def nlp(backbone: Path) -> Any:
    """Pipeline with an initialized, untrained component over a tiny backbone."""
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(backbone))
    nlp.initialize()
    return nlp


def make_causal_lm(folder: Path, hidden_size: int = 32, kind: str = "gpt2") -> Path:
    """Write a random two-layer language model with a byte-level tokenizer of its own, trained on the sample."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, GPT2TokenizerFast

    torch.manual_seed(0)
    end = "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = (SAMPLE / "train.jsonl").read_text(encoding="utf8").splitlines()[:VOCABULARY_SENTENCES]
    tokenizer.train_from_iterator((" ".join(json.loads(line)["tokenized_text"]) for line in lines), trainer)
    fast = GPT2TokenizerFast(tokenizer_object=tokenizer, eos_token=end, bos_token=end, unk_token=end)
    sizes: dict[str, Any] = {
        "vocab_size": len(fast),
        "hidden_size": hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "initializer_range": 0.3,  # far from uniform: what is read decides what is written
    }
    if kind == "gpt2":
        sizes = {
            AutoConfig.for_model(kind).attribute_map.get(key, key): value for key, value in sizes.items()
        }
    else:
        sizes |= {"intermediate_size": 2 * hidden_size, "num_key_value_heads": 2}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
