from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gliner_pipe.data.tags import decode_tags
from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.decoders import tags as tags_base
from gliner_pipe.modeling.decoders.crf import CRFTags
from gliner_pipe.modeling.decoders.softmax import SoftmaxTags
from gliner_pipe.modeling.decoders.tags import UNKNOWN, TagDecoder
from gliner_pipe.registry import registry

LABELS = ["a", "b"]
DATA_SCHEMES = {"io": "IO", "bio": "BIO", "bioul": "BIOUL"}


def made(scheme: Any, per_label: bool = False, **settings: Any) -> TagDecoder:
    decoder = SoftmaxTags(scheme, "independent" if per_label else "joint", **settings)
    decoder.build(4, LABELS)
    return decoder


def names(decoder: TagDecoder, tags: torch.Tensor, chain: int = 0) -> str:
    return " ".join("?" if tag == UNKNOWN else decoder.tags[tag] for tag in tags[:, chain].tolist())


def read_back(decoder: TagDecoder, tags: torch.Tensor) -> list[tuple[int, int, int]]:
    """The entities that a decoder finds when it is sure of these tags."""
    emissions = torch.nn.functional.one_hot(tags.clamp(min=0), len(decoder.tags)) * 50.0
    return [candidate[:3] for candidate in decoder.decode([emissions])[0]]


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("io", "I-a I-a I-a O I-b I-a"),
        ("bio", "B-a I-a I-a O B-b B-a"),
        ("bioul", "B-a I-a L-a O U-b U-a"),
        ("biolu", "B-a I-a L-a O U-b U-a"),
        ("word", "a a a ? b a"),
    ],
)
def test_tags_of_a_chain_of_all_labels(scheme: Any, expected: str) -> None:
    decoder = made(scheme)
    tags, n_lost = decoder.encode([(0, 2, 0), (4, 4, 1), (5, 5, 0)], 6)
    assert names(decoder, tags) == expected
    assert n_lost == (scheme == "word")
    assert decoder.n_chains == 1 and decoder.n_labels == 2


def test_tags_of_a_chain_for_each_label() -> None:
    decoder = made("bioul", per_label=True)
    assert decoder.tags == ["O", "B", "I", "L", "U"] and decoder.n_chains == 2
    tags, n_lost = decoder.encode([(0, 3, 0), (1, 1, 1), (2, 4, 1)], 5)
    assert (names(decoder, tags), names(decoder, tags, 1)) == ("B I I L O", "O U B I L")
    assert n_lost == 0


def test_conflicting_spans_are_counted() -> None:
    spans = [(0, 2, 0), (0, 2, 0), (1, 5, 1), (2, 2, 0), (7, 8, 0), (7, 8, 1)]
    one = made("bio")
    tags, n_lost = one.encode(spans, 9)
    assert names(one, tags) == "O B-b I-b I-b I-b I-b O B-a I-a"  # the longest, then the first
    assert n_lost == 3
    assert made("bio", per_label=True).encode(spans, 9)[1] == 1  # one lies in another of its label
    # neighbours of one label run together in io
    assert made("io").encode([(0, 0, 0), (1, 1, 0), (2, 2, 1)], 3)[1] == 2


@pytest.mark.parametrize("span", [(0, 3, 0), (-1, 0, 0), (2, 1, 0), (0, 0, 2)])
def test_spans_beyond_the_document_are_rejected(span: Any) -> None:
    with pytest.raises(ValueError, match=r"3 words"):
        made("bio").encode([span], 3)


@pytest.mark.parametrize(
    ("scheme", "per_label"),
    [(scheme, per_label) for scheme in ("io", "bio", "bioul") for per_label in (False, True)]
    + [("word", False)],
)
def test_random_spans_come_back(scheme: Any, per_label: bool) -> None:
    generator = random.Random(0)
    decoder = made(scheme, per_label)
    for n_words in [0, 1, *[12] * 60]:
        spans = []
        for _ in range(generator.randint(0, 6) if n_words else 0):
            start = generator.randrange(n_words)
            spans.append((start, min(n_words - 1, start + generator.randint(0, 3)), generator.randrange(2)))
        tags, n_lost = decoder.encode(spans, n_words)
        back = read_back(decoder, tags) if n_words else []
        assert tags.shape == (n_words, decoder.n_chains)
        if scheme == "word":
            back = [each for each in back if tags[each[0], 0] != UNKNOWN]
        assert len(set(spans) - set(back)) == n_lost
        if scheme != "io" and scheme != "word":
            assert set(back) <= set(spans)


@pytest.mark.parametrize("scheme", ["io", "bio", "bioul"])
def test_tags_that_break_the_scheme_are_read_as_in_files(scheme: Any) -> None:
    decoder = made(scheme, constrained=False)
    for _ in range(100):
        tags = torch.randint(len(decoder.tags), (8, 1))
        spelled = [decoder.tags[tag] for tag in tags[:, 0].tolist()]
        expected = decode_tags(spelled, DATA_SCHEMES[scheme], Counter())
        assert read_back(decoder, tags) == [
            (start, end - 1, LABELS.index(label)) for start, end, label in expected
        ]


@pytest.mark.parametrize("kind", [SoftmaxTags, CRFTags])
def test_documents_of_all_lengths_at_once_or_alone(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = kind(scheme="bioul")
    decoder.build(4, LABELS)
    documents = [torch.randn(length, 1, len(decoder.tags)) * 3 for length in (5, 0, 30, 1, 12, 30, 2)]
    alone = [decoder.decode([document])[0] for document in documents]
    words_alone = [decoder.decode_words([document])[0] for document in documents]
    for limit in (1 << 22, 500, 1):
        monkeypatch.setattr(tags_base, "EMISSIONS_AT_ONCE", limit)
        for found, expected in zip(decoder.decode(documents), alone, strict=True):
            assert [each[:3] for each in found] == [each[:3] for each in expected]
            assert [each.score for each in found] == pytest.approx(
                [each.score for each in expected], abs=1e-6
            )
        for (tags, probs), (wanted, wanted_probs) in zip(
            decoder.decode_words(documents), words_alone, strict=True
        ):
            assert torch.equal(tags, wanted) and torch.allclose(probs, wanted_probs, atol=1e-6)
    assert decoder.decode([]) == [] and decoder.decode_words([]) == []


@pytest.mark.parametrize("labels", [[], ["a", "b", "a"]])
def test_labels_are_checked(labels: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        SoftmaxTags().build(4, labels)
    assert error.value.where == "components.*.labels"


def test_the_word_scheme_rejects_a_chain_per_label() -> None:
    with pytest.raises(ConfigError) as error:
        SoftmaxTags("word", "independent").build(4, LABELS)
    assert error.value.where == "components.*.model.decoder.mode"


@pytest.mark.parametrize("name", ["softmax", "crf"])
def test_weights_are_saved_and_loaded(name: str) -> None:
    first, second = (registry.decoders.get(name)(scheme="bio") for _ in range(2))
    for decoder in (first, second):
        decoder.build(4, LABELS)
        for weights in decoder.parameters():
            torch.nn.init.normal_(weights)
    second.load_state_dict(first.state_dict())
    document = torch.randn(1, 9, 4)
    first.eval(), second.eval()
    assert first.decode(list(first.emissions(document))) == second.decode(list(second.emissions(document)))


KINDS: list[tuple[type[TagDecoder], dict[str, Any]]] = [
    (SoftmaxTags, {"mode": "joint"}),
    (SoftmaxTags, {"mode": "independent"}),
    (CRFTags, {"mode": "joint"}),
    (CRFTags, {"mode": "marginal"}),
    (CRFTags, {"mode": "independent"}),
]


def untrained(kind: type[TagDecoder], n_labels: int, **settings: Any) -> TagDecoder:
    torch.manual_seed(0)
    decoder = kind(**settings)  # type: ignore[call-arg]
    decoder.build(16, [f"label {index}" for index in range(n_labels)])
    return decoder.eval()


@pytest.mark.parametrize(("kind", "settings"), KINDS[1:])
@pytest.mark.parametrize("scheme", ["io", "bio", "bioul"])
def test_an_untrained_chain_for_a_label_expects_few_entities(kind: Any, settings: Any, scheme: Any) -> None:
    decoder = untrained(kind, 3, scheme=scheme, **settings)
    emissions = decoder.emissions(torch.zeros(1, 30, 16))
    assert emissions.softmax(-1)[..., 0].sub(0.98).abs().max() < 0.01
    tags = torch.zeros(1, 30, 3, dtype=torch.long)
    outside = decoder.word_scores(emissions, torch.ones(1, 30, dtype=torch.bool), tags).detach()
    assert float(outside.min()) > 0.97 and float(outside.max()) < 1.0  # of sequences, for the CRF


@pytest.mark.parametrize(("kind", "settings"), KINDS[1:])
def test_more_labels_do_not_drown_the_entities(kind: Any, settings: Any) -> None:
    """The loss and its gradient come from the words of entities, however many labels a text does not have."""
    sizes = []
    for n_labels in (1, 12):
        decoder = untrained(kind, n_labels, **settings)
        gold = decoder.encode([(3, 5, 0), (9, 9, 0)], 20)[0][None]
        emissions = decoder.emissions(torch.zeros(1, 20, 16))
        loss = decoder.loss(emissions, gold, torch.ones(1, 20, dtype=torch.bool))
        bias = torch.autograd.grad(loss, decoder.project.bias)[0].view(n_labels, -1)
        sizes.append((float(loss.detach()), float(bias.norm())))
    (few, few_grad), (many, many_grad) = sizes
    assert few < many < 1.5 * few
    assert many_grad == pytest.approx(few_grad, rel=0.1)


def ready(kind: type[TagDecoder], n_labels: int, **settings: Any) -> TagDecoder:
    decoder = untrained(kind, n_labels, scheme="bio", **settings)
    for weights in decoder.parameters():
        torch.nn.init.normal_(weights)
    return decoder


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_weights_in_half_precision(kind: Any, settings: dict[str, Any], dtype: torch.dtype) -> None:
    # the numbers of half precision, but computed with in full
    decoder = ready(kind, 3, **settings).to(dtype)
    words = torch.randn(4, 800, 16)
    mask = torch.ones(4, 800, dtype=torch.bool)
    mask[1, 500:] = False
    gold = torch.zeros(4, 800, decoder.n_chains, dtype=torch.long)
    emissions = decoder.emissions(words)
    assert emissions.dtype == dtype
    loss = decoder.loss(emissions, gold, mask)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    assert all(
        torch.isfinite(weights.grad).all() for weights in decoder.parameters() if weights.grad is not None
    )
    found = decoder.decode(
        [one[: int(number)] for one, number in zip(emissions.detach(), mask.sum(1), strict=True)]
    )
    whole = decoder.float()
    assert torch.allclose(loss, whole.loss(emissions.float(), gold, mask), rtol=1e-6)
    full = [one[: int(number)].float() for one, number in zip(emissions.detach(), mask.sum(1), strict=True)]
    assert found == whole.decode(full) and sum(map(len, found)) > 100


class Counting(TorchDispatchMode):
    """Counts the operations that run inside of it."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("n_rows", [1, 5])
@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_operations_do_not_grow_with_tags_or_rows(kind: Any, settings: dict[str, Any], n_rows: int) -> None:
    def operations(n_labels: int, n_rows: int) -> int:
        decoder = ready(kind, n_labels, **settings)
        emissions = decoder.emissions(torch.randn(n_rows, 30, 16))
        mask = torch.ones(n_rows, 30, dtype=torch.bool)
        gold = torch.zeros(n_rows, 30, decoder.n_chains, dtype=torch.long)
        with Counting() as counting:
            decoder.loss(emissions, gold, mask).backward()
            with torch.no_grad():
                tags = decoder.best(emissions, mask)
                decoder.word_scores(emissions, mask, tags)
                decoder.span_scores(emissions, mask, tags, decoder.spans_of(tags, mask))
        return counting.number

    # a copy more or less may be made; a loop over labels or rows would be hundreds
    assert operations(12, n_rows) == pytest.approx(operations(2, 1), abs=10)
