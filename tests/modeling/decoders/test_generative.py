"""Labels written by a language model: contract, and what the peer writes with the same weights."""

import json
import warnings

import pytest
import torch
from conftest import make_backbone, make_causal_lm
from safetensors.torch import load_model, save_model

from gliner_pipe.errors import ConfigError, NotInitializedError
from gliner_pipe.modeling.backbones.base import pretrained_parameters
from gliner_pipe.modeling.decoders import generative
from gliner_pipe.modeling.decoders.causal_lm import LabelTrie, chunks
from gliner_pipe.modeling.decoders.generative import GenerativeDecoder
from gliner_pipe.modeling.decoders.span import Candidate, SpanDecoder
from gliner_pipe.registry import registry

WORDS = [["Oslo"], ["Maria", "Lindqvist"], ["a", "well-known", "old", "painting"], ["x"], ["New", "York"], []]
LABELS = ["city", "person", "work of art", "letter", "city", ""]
HIDDEN = 24  # not the width of the language model: there is a projection


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return make_causal_lm(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_causal_lm(tmp_path_factory.mktemp("llama"), kind="llama")


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def any_lm(request):
    return request.getfixturevalue(request.param)


def made(folder, hidden_size=HIDDEN, **arguments):
    torch.manual_seed(1)
    decoder = GenerativeDecoder(str(folder), **arguments)
    decoder.build(hidden_size)
    return decoder.eval()


def vectors(n=6, hidden_size=HIDDEN):
    return torch.randn(n, hidden_size, generator=torch.Generator().manual_seed(3)) * 3


# -- choosing ----------------------------------------------------------------------------------------------------------


def test_chooses_as_the_span_decoder():
    found = [
        Candidate(0, 1, 0, 0.6),
        Candidate(1, 2, 1, 0.9),
        Candidate(4, 4, 0, 0.7),
        Candidate(4, 4, 1, 0.8),
    ]
    for flat, multi_label in [(True, False), (False, True)]:
        rules = {"flat": flat, "multi_label": multi_label}
        assert GenerativeDecoder("any").decode(found, **rules) == SpanDecoder().decode(found, **rules)


# -- the tree of labels and the chunks ---------------------------------------------------------------------------------


def test_trie():
    trie = LabelTrie([("a b", [5, 6]), ("a", [5]), ("c", [7]), ("A", [5])], end=0)
    assert len(trie) == 3
    assert trie.depth == 3
    assert sorted(trie.allowed([])) == [5, 7]
    assert sorted(trie.allowed([5])) == [0, 6]
    assert trie.allowed([5, 6]) == [0]
    assert trie.allowed([5, 6, 0, 0]) == [0]
    assert trie.label([5]) == "a"
    assert trie.label([6]) is None


def test_chunks_stay_within_the_budget():
    sizes = [5, 1, 9, 2, 2, 40, 3]
    found = list(chunks(sizes, 10))
    assert sorted(row for chunk in found for row in chunk) == list(range(7))
    assert all(len(chunk) == 1 or len(chunk) * max(sizes[row] for row in chunk) <= 10 for chunk in found)
    assert [5] in found
    assert list(chunks([], 10)) == []


# -- writing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("constraints", [None, ["person", "personal name", "city", "work of art", "x"]])
def test_other_rows_have_no_effect(any_lm, monkeypatch, n, constraints):
    decoder = made(any_lm)
    alone = [
        decoder.generate(vector[None], [words], constraints, n)[0]
        for vector, words in zip(vectors(), WORDS, strict=True)
    ]
    assert decoder.generate(vectors(), WORDS, constraints, n) == alone
    assert all(len(labels) == n for labels in alone)
    assert len({tuple(labels) for labels in alone}) > 1
    monkeypatch.setattr(generative, "CHUNK_TOKENS", 60)
    assert decoder.generate(vectors(), WORDS, constraints, n) == alone


def test_vector_and_words_are_read(any_lm):
    decoder = made(any_lm)
    same = vectors(1).expand(2, -1)
    first, second = decoder.generate(same, [["Oslo"], ["Maria"]])
    assert first != second
    first, second = decoder.generate(vectors(2), [["Oslo"], ["Oslo"]])
    assert first != second


@pytest.mark.parametrize("arguments", [{"mode": "prompt"}, {"full_context": False}])
def test_without_words(gpt2, arguments):
    decoder = made(gpt2, **arguments)
    assert not decoder.takes_context
    without = [[]] * len(WORDS)
    assert decoder.generate(vectors(), WORDS) == decoder.generate(vectors(), without)
    assert decoder.generate(vectors(), []) == made(gpt2).generate(vectors(), without)
    assert torch.equal(decoder.loss(vectors(), [], LABELS), made(gpt2).loss(vectors(), without, LABELS))


def test_repeated_calls_agree(gpt2):
    decoder = made(gpt2).train()
    first = decoder.generate(vectors(), WORDS, n_sequences=2)
    torch.manual_seed(77)
    assert decoder.generate(vectors(), WORDS, n_sequences=2) == first
    assert decoder.training
    assert decoder.decoder.training


def test_sampling_follows_the_seed(gpt2):
    decoder = made(gpt2, sample=True, temperature=2.0)
    torch.manual_seed(5)
    first = decoder.generate(vectors(), WORDS)
    assert decoder.generate(vectors(), WORDS) != first
    torch.manual_seed(5)
    assert decoder.generate(vectors(), WORDS) == first


def test_generation_settings_of_the_checkpoint_are_ignored(gpt2, tmp_path):
    from transformers import GenerationConfig

    folder = make_causal_lm(tmp_path)
    GenerationConfig(do_sample=True, temperature=3.0, repetition_penalty=5.0, max_length=3).save_pretrained(
        folder
    )
    assert made(folder).generate(vectors(), WORDS) == made(gpt2).generate(vectors(), WORDS)


def test_only_the_constraints_are_generated(any_lm):
    decoder = made(any_lm, max_new_tokens=2)
    allowed = ["Person", "person of  royal descent, long dead and buried", "city", "big city", "personal"]
    best = decoder.generate(vectors(), WORDS, allowed)
    assert all(len(labels) == 1 and labels[0] in allowed for labels in best)
    ranked = decoder.generate(vectors(), WORDS, allowed, n_sequences=9)
    assert all(sorted(labels) == sorted(allowed) for labels in ranked)
    assert decoder.generate(vectors(), WORDS, ["city"], 4) == [["city"]] * len(WORDS)
    assert decoder.generate(vectors(), WORDS, []) == decoder.generate(vectors(), WORDS)


def test_beams_are_ranked_and_differ(any_lm):
    decoder = made(any_lm, n_sequences=4, max_new_tokens=3)
    ids = []
    text = decoder._text
    decoder._text = lambda pieces, trie: ids.append(pieces) or text(pieces, trie)
    found = decoder.generate(vectors(3), WORDS[:3])
    assert [len(labels) for labels in found] == [4] * 3
    for row in range(3):
        beams = ids[4 * row : 4 * row + 4]
        assert len({tuple(beam) for beam in beams}) == 4
    greedy = decoder.generate(vectors(3), WORDS[:3], n_sequences=1)
    assert [len(labels) for labels in greedy] == [1] * 3


def test_best_of_the_constraints_is_the_cheapest(gpt2):
    """Labels of one length: the order of the beams is that of the loss."""
    decoder = made(gpt2)
    allowed = ["city", "name", "date", "work", "time", "note", "team"]
    sizes = {label: len(tokens) for label, tokens in zip(allowed, decoder._tokens(allowed), strict=True)}
    size = max(sizes.values(), key=list(sizes.values()).count)
    allowed = [label for label in allowed if sizes[label] == size]
    assert len(allowed) > 2
    for vector, words in zip(vectors(), WORDS, strict=True):
        cost = {label: decoder.loss(vector[None], [words], [label]).item() for label in allowed}
        found = decoder.generate(vector[None], [words], allowed, len(allowed))[0]
        assert found == sorted(allowed, key=cost.__getitem__)


def test_no_rows(gpt2):
    decoder = made(gpt2)
    assert decoder.generate(torch.zeros(0, HIDDEN), []) == []


def test_words_that_leave_no_room_are_truncated(gpt2):
    decoder = made(gpt2)
    long = ["painting"] * 300
    assert len(decoder.generate(vectors(1), [long])) == 1
    assert decoder.loss(vectors(1), [long], ["work of art"]).isfinite()
    assert decoder.loss(vectors(1), [["x"]], ["very " * 300]).isfinite()


# -- learning ----------------------------------------------------------------------------------------------------------


def test_padding_is_not_trained_on(any_lm):
    decoder = made(any_lm)
    alone = [
        decoder.loss(vector[None], [words], [label])
        for vector, words, label in zip(vectors(), WORDS, LABELS, strict=True)
    ]
    together = decoder.loss(vectors(), WORDS, LABELS)
    torch.testing.assert_close(together, torch.stack(alone).sum(), rtol=1e-5, atol=1e-4)


def test_the_end_is_trained(gpt2):
    decoder = made(gpt2)
    logits = decoder.decoder(inputs_embeds=decoder._projected(vectors(1))[None]).logits[0, 0]
    expected = -logits.log_softmax(0)[decoder.end]
    torch.testing.assert_close(decoder.loss(vectors(1), [[]], [""]), expected)


def test_no_labels_no_loss(gpt2):
    decoder = made(gpt2)
    none = torch.zeros(0, HIDDEN, requires_grad=True)
    loss = decoder.loss(none, [], [])
    assert loss.item() == 0
    loss.backward()
    assert none.grad.shape == (0, HIDDEN)
    assert all(not p.grad.any() for p in decoder.projection.parameters())


def test_rows_must_match(gpt2):
    decoder = made(gpt2)
    for call in (
        lambda: decoder.loss(vectors(2), [["x"]], ["city"]),
        lambda: decoder.loss(vectors(2), [["x"]], ["city", "city"]),
        lambda: decoder.generate(vectors(2), [["x"]]),
    ):
        with pytest.raises(ValueError, match="2 vectors"):
            call()


@pytest.mark.parametrize("freeze", [False, True])
def test_learns_labels(gpt2, freeze):
    decoder = made(gpt2, freeze=freeze, dropout=0.0).train()
    before = {name: weight.clone() for name, weight in decoder.decoder.state_dict().items()}
    data = vectors(3), WORDS[:3], LABELS[:3]
    optimizer = torch.optim.Adam([p for p in decoder.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = decoder.loss(*data)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < (0.8 if freeze else 0.1) * losses[0], losses
    after = decoder.decoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before) == freeze
    assert decoder.decoder.training != freeze
    if not freeze:
        assert decoder.generate(*data[:2]) == [[label] for label in data[2]]


# -- saving ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden_size", [HIDDEN, 32])
def test_round_trip(any_lm, tmp_path, hidden_size):
    decoder = made(any_lm, hidden_size)
    assert (decoder.projection is None) == (hidden_size == 32)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    decoder.save_assets(tmp_path / "assets")
    save_model(decoder, str(tmp_path / "model.safetensors"))
    assert not [path for path in (tmp_path / "assets").iterdir() if path.stat().st_size > 200_000]
    expected = decoder.generate(vectors(hidden_size=hidden_size), WORDS)
    for how in ("safetensors", "state_dict"):
        again = GenerativeDecoder("no/such-model")
        again.load_assets(tmp_path / "assets", hidden_size)
        if how == "safetensors":
            load_model(again, str(tmp_path / "model.safetensors"), strict=True)
        else:
            again.load_state_dict(decoder.state_dict())
        again.eval()
        model = again.decoder
        tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
        assert tied == ("gpt2" in type(model).__name__.lower())
        for name, weight in decoder.state_dict().items():
            assert torch.equal(weight, again.state_dict()[name])
        assert again.generate(vectors(hidden_size=hidden_size), WORDS) == expected


# -- refusing ----------------------------------------------------------------------------------------------------------


def test_not_built():
    decoder = GenerativeDecoder("any")
    assert not decoder.is_built
    for call in (
        lambda: decoder.generate(vectors(), WORDS),
        lambda: decoder.loss(vectors(), WORDS, LABELS),
        lambda: decoder.save_assets(None),
    ):
        with pytest.raises(NotInitializedError):
            call()


def test_created_from_a_config_section():
    from confit import Config

    text = "[decoder]\n@decoders = 'generative'\nmodel = 'any'\nmode = {}\n"
    decoder = Config.from_str(text.format("'prompt'")).resolve(registry=registry)["decoder"]
    assert isinstance(decoder, GenerativeDecoder)
    assert decoder.mode == "prompt"
    assert Config.serialize({"decoder": decoder})["decoder"]["model"] == "any"
    with pytest.raises(Exception, match="'span' or 'prompt'"):
        Config.from_str(text.format("'word'")).resolve(registry=registry)


def test_unusable_models_are_rejected(gpt2, tmp_path, monkeypatch):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read on import
    untrained = make_backbone(tmp_path / "bert")
    AutoModelForMaskedLM.from_pretrained(untrained).save_pretrained(tmp_path / "bidirectional")
    AutoTokenizer.from_pretrained(untrained).save_pretrained(tmp_path / "bidirectional")
    names = [str(tmp_path), "/no/such/folder", "someone/model-that-is-not-here", str(untrained)]
    for name in (*names, str(tmp_path / "bidirectional")):
        with pytest.raises(ConfigError) as error:
            made(name)
        assert error.value.where == "components.*.model.decoder.model" and name in str(error.value)
    assert "bidirectional" in error.value.found
    with pytest.raises(ConfigError) as error:
        made(gpt2, max_new_tokens=128)
    assert error.value.where == "components.*.model.decoder.max_new_tokens"
    with pytest.raises(ConfigError) as error:
        GenerativeDecoder("any").load_assets(tmp_path / "missing", HIDDEN)
    assert "config.json" in error.value.found
    with pytest.raises(ValueError, match="n_sequences"):
        made(gpt2).generate(vectors(), WORDS, n_sequences=0)


def test_a_tokenizer_without_end_of_sequence_is_rejected(tmp_path):
    folder = make_causal_lm(tmp_path)
    for file, keys in [
        ("config.json", ["eos_token_id"]),
        ("tokenizer_config.json", ["eos_token"]),
    ]:
        content = json.loads((folder / file).read_text())
        content |= dict.fromkeys(keys)
        (folder / file).write_text(json.dumps(content))
    with pytest.raises(ConfigError) as error:
        made(folder)
    assert "end-of-sequence" in error.value.found


# -- the peer ----------------------------------------------------------------------------------------------------------

TOKENS = [
    ["Maria", "Lindqvist", "joined", "Oslo", "University", "."],
    ["A", "well-known", "painting", "from", "Berlin"],
]


@pytest.fixture(scope="module")
def peer(gpt2, tmp_path_factory):
    """A random model of the peer, what it computes for a batch, and our decoder with its weights."""
    gliner = pytest.importorskip("gliner")
    folder = make_backbone(tmp_path_factory.mktemp("peer"), hidden_size=32)
    config = {
        "model_name": str(folder),
        "encoder_config": json.loads((folder / "config.json").read_text()),
        "hidden_size": HIDDEN,
        "span_mode": "markerV0",
        "max_width": 3,
        "labels_decoder": str(gpt2),
        "labels_decoder_config": json.loads((gpt2 / "config.json").read_text()),
        "decoder_mode": "span",
        "full_decoder_context": True,
    }
    torch.manual_seed(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = gliner.GLiNER.from_config(config, backbone_from_pretrained=False).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
        ours = GenerativeDecoder(str(gpt2))
        ours.build(HIDDEN)
        state = {}
        for name, weight in model.model.state_dict().items():
            for theirs, here in [
                ("decoder.decoder_layer.model.", "decoder."),
                ("_enc2dec_proj.", "projection."),
            ]:
                if name.startswith(theirs):
                    state[here + name.removeprefix(theirs)] = weight
        ours.load_state_dict(state)
        batch = [{"tokenized_text": tokens, "ner": []} for tokens in TOKENS]
        collator = model.data_collator_class(
            model.config, data_processor=model.data_processor, return_tokens=True, prepare_labels=False
        )
        inputs = collator(batch, entity_types=["person", "place"])
        with torch.no_grad():
            output = model.model(
                **{key: value for key, value in inputs.items() if isinstance(value, torch.Tensor)},
                threshold=0.0,
                return_embeddings=True,
            )
    return model, output, ours.eval()


def spans_of(output, max_width=3):
    """Each span the peer writes a label for: its vector, words, and what the peer's language model reads, unpadded."""
    for text in range(len(TOKENS)):
        flat = output.span_embeddings[text].flatten(0, 1)
        for slot, span in enumerate(output.decoder_span_idx[text].tolist()):
            mask = output.decoder_embedding_mask[text, slot]
            start, width = divmod(span, max_width)
            if not mask.any() or start + width >= len(TOKENS[text]):
                continue
            read = output.decoder_embedding[text, slot][mask]
            yield flat[span], TOKENS[text][start : start + width + 1], read


@pytest.mark.filterwarnings("ignore")
def test_same_input_as_gliner(peer):
    _, output, ours = peer
    found = list(spans_of(output))
    assert len(found) > 20
    read = ours._context_tokens([words for _, words, _ in found], [15] * len(found))
    rows = ours._rows(torch.stack([vector for vector, _, _ in found]), read)
    assert len({len(row) for row in rows}) > 4
    for row, (_, _, expected) in zip(rows, found, strict=True):
        torch.testing.assert_close(row, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("constraints", [None, ["person", "place", "place name", "date"]])
def test_same_labels_as_gliner(peer, n, constraints):
    model, output, ours = peer
    found = list(spans_of(output))
    written = ours.generate(
        torch.stack([vector for vector, _, _ in found]), [words for _, words, _ in found], constraints, n
    )
    trie = model.set_labels_trie(constraints) if constraints else None
    seen = set()
    for labels, (_, _, read) in zip(written, found, strict=True):
        # one by one: in a batch the peer reads the zeros that it pads with
        ids = model.model.decoder.generate_from_embeds(
            read[None],
            max_new_tokens=15,
            eos_token_id=model.data_processor.decoder_tokenizer.eos_token_id,
            pad_token_id=model.data_processor.decoder_tokenizer.pad_token_id,
            num_return_sequences=n,
            labels_trie=trie,
        )
        theirs = model.data_processor.decoder_tokenizer.batch_decode(ids, skip_special_tokens=True)
        assert labels == [label.strip() for label in theirs]
        seen.add(tuple(labels))
    assert len(seen) > (2 if constraints else 10)


@pytest.mark.filterwarnings("ignore")
def test_same_loss_as_gliner(peer):
    model, output, ours = peer
    found = list(spans_of(output))[:8]
    tokenizer = model.data_processor.decoder_tokenizer
    label = "work of art"
    ids = torch.tensor([[*tokenizer(label)["input_ids"], tokenizer.eos_token_id]])
    total = 0.0
    for vector, words, read in found:
        theirs, logits = model.model.decode_labels(
            read[None, None], torch.ones(1, 1, len(read), dtype=torch.bool), ids, torch.ones_like(ids), ids
        )
        mine = ours.loss(vector[None], [words], [label])
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-4)
        assert logits.shape[1] == len(read) + ids.shape[1] - 1
        total += theirs.item()
    together = ours.loss(
        torch.stack([vector for vector, _, _ in found]),
        [words for _, words, _ in found],
        [label] * len(found),
    )
    assert together.item() == pytest.approx(total, rel=1e-5)


def test_only_the_language_model_counts_as_pretrained(gpt2):
    decoder = made(gpt2)
    assert decoder.projection is not None
    pretrained = set(map(id, pretrained_parameters(decoder)))
    assert pretrained == set(map(id, decoder.decoder.parameters()))
    assert not pretrained & set(map(id, decoder.projection.parameters()))
