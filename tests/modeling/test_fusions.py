import pytest
import torch

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.encoders.uni_encoder import UniEncoder
from gliner_pipe.modeling.fusions import CrossAttention
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.inference import TokenBudget, predict_spans
from gliner_pipe.modeling.span_reps.marker import MarkerV0

PATTERNS = ["l2t", "t2l", "l2l-l2t", "l2t-t2l", "l2l-t2t-l2t-t2l"]


def built(pattern, n_layers=1):
    torch.manual_seed(0)
    fusion = CrossAttention(pattern, n_layers=n_layers, n_heads=4)
    fusion.build(16)
    return fusion.eval()


def inputs():
    torch.manual_seed(1)
    word_mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    label_mask = torch.tensor([[True, True, False], [True] * 3])
    return torch.randn(2, 7, 16), torch.randn(2, 3, 16), word_mask, label_mask


@pytest.mark.parametrize("pattern", PATTERNS)
def test_padding_has_no_effect(pattern):
    fusion, (words, labels, word_mask, label_mask) = built(pattern, 2), inputs()
    together = fusion(words, labels, word_mask, label_mask)
    alone = fusion(words[1:, :4], labels[1:], word_mask[1:, :4], label_mask[1:])
    torch.testing.assert_close(together[0][1, :4], alone[0][0])
    torch.testing.assert_close(together[1][1], alone[1][0])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_same_results_as_gliner(pattern):
    layers = pytest.importorskip("gliner.modeling.layers")
    fusion, (words, labels, word_mask, label_mask) = built(pattern, 2), inputs()
    theirs = layers.CrossFuser(16, 16, num_heads=4, num_layers=2, schema=pattern).eval()
    state = {}
    for name, tensor in fusion.state_dict().items():
        own = pattern.split("-")[int(name.split(".")[2])] in ("l2l", "t2t")
        attention = "self_attn" if own else "cross_attn"
        inner = name.split(".")[3] in ("query_layer", "key_layer", "value_layer")
        parts = name.split(".")
        state[".".join([*parts[:3], attention, *parts[3:]] if inner else parts)] = tensor
    theirs.load_state_dict(state)
    their_labels, their_words = theirs(labels, words, label_mask.long(), word_mask.long())
    our_words, our_labels = fusion(words, labels, word_mask, label_mask)
    torch.testing.assert_close(our_words[word_mask], their_words[word_mask], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(our_labels[label_mask], their_labels[label_mask], rtol=1e-5, atol=1e-5)


def test_invalid_settings_are_rejected():
    with pytest.raises(ConfigError) as error:
        CrossAttention("l2t-x2y")
    assert error.value.where == "components.*.model.fusion.pattern" and "x2y" in error.value.found
    with pytest.raises(ConfigError) as error:
        CrossAttention(n_heads=5).build(16)
    assert error.value.where == "components.*.model.fusion.n_heads"


def test_it_composes_with_a_uni_encoder(backbone):
    torch.manual_seed(0)
    model = GLiNER(UniEncoder(Transformer(str(backbone))), MarkerV0(3), fusion=CrossAttention(n_heads=4))
    model.build()
    model.eval()
    texts = [["Maria", "met", "Bob"], ["Hi"] * 9]

    def scores(some):
        windows = model.encoder.prepare(some, [Query(("person",))] * len(some), 6)
        return [
            {c[:3]: c.score for c in text.candidates}
            for text in predict_spans(model, windows, [[0.0]] * len(some), TokenBudget(500))
        ]

    together, alone = scores(texts), [scores([text])[0] for text in texts]
    for ours, theirs in zip(together, alone, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
        assert ours
