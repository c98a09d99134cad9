import pytest
import torch

from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.encoders.uni_encoder import MAX_PROMPTS, UniEncoder

LABELS = ["person", "work of art", "città"]
WORDS = ["Maria", "read", "\u200b", "Solaris", "."]


def build(folder, **settings):
    torch.manual_seed(0)
    encoder = UniEncoder(Transformer(str(folder)), **settings)
    encoder.build()
    return encoder.eval()


def test_windows_match_the_tokenized_prompt_and_words(backbone):
    encoder = build(backbone, embed_ent_token=True)
    (window,) = encoder.prepare([WORDS], [Query(tuple(LABELS))], 4)
    batch = encoder.collate([window]).windows
    joint = [token for label in LABELS for token in ("<<ENT>>", label)] + ["<<SEP>>", *WORDS]
    expected = encoder.backbone.tokenizer(joint, is_split_into_words=True)
    assert batch.input_ids[0].tolist() == expected["input_ids"]
    marker = encoder.backbone.tokenizer.convert_tokens_to_ids("<<ENT>>")
    assert batch.input_ids[0, batch.prompt_positions[0]].tolist() == [marker] * 3


def test_a_special_token_in_the_text_is_not_a_label(backbone):
    encoder = build(backbone)
    (window,) = encoder.prepare([["<<ENT>>", "Oslo"]], [Query(("city",))], 4)
    with torch.no_grad():
        assert encoder(encoder.collate([window])).labels.shape[1] == 1


def test_without_embed_ent_token_the_label_itself_is_used(backbone):
    encoder = build(backbone)
    (window,) = encoder.prepare([WORDS], [Query(("person", "person"))], 4)
    batch = encoder.collate([window]).windows
    first = encoder.backbone.tokenizer("person", add_special_tokens=False)["input_ids"][0]
    assert batch.input_ids[0, batch.prompt_positions[0]].tolist() == [first, first]


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_other_texts_in_the_batch_change_nothing(backbone, layers):
    encoder = build(backbone, rnn_layers=layers)
    texts, labels = [WORDS, WORDS * 8, ["Hi"]], [Query(tuple(LABELS)), Query(("x",)), Query(("y", "z"))]
    with torch.no_grad():
        together = encoder(encoder.collate(encoder.prepare(texts, labels, 4)))
        alone = encoder(encoder.collate(encoder.prepare(texts[:1], labels[:1], 4)))
    torch.testing.assert_close(together.words[0, : len(WORDS)], alone.words[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(together.labels[0], alone.labels[0], rtol=0, atol=1e-5)


def test_the_cache_of_prompts_is_bounded(backbone):
    encoder = build(backbone)
    for index in range(MAX_PROMPTS + 20):
        encoder.prepare([["a"]], [Query((f"label {index}",))], 4)
    assert MAX_PROMPTS // 2 <= len(encoder._prompts) <= MAX_PROMPTS
