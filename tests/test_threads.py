"""One loaded pipeline called from many threads gives what one thread gets, from the first call on."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import relation_pipeline
import spacy
import tagging_pipeline
import torch
from conftest import gliner_config, make_backbone, make_causal_lm
from spacy.tokens import Doc

from gliner_pipe.checkpoints.pretrained import Pretrained, PretrainedTokenClassifier
from gliner_pipe.convert import to_gliner, to_transformers
from gliner_pipe.export import export
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.layers.cache import Cache
from gliner_pipe.pipeline.annotate import install_extensions

THREADS = 8
#: Settings that show every span.
EVERYTHING = {"threshold": 0.0, "flat_ner": False, "multi_label": True}
NAMES = ["person", "city", "company", "date", "river", "song", "colour", "language", "plant", "tool"]
WORDS = [
    "Maria",
    "met",
    "Bob",
    "in",
    "Oslo",
    ".",
    "Then",
    "they",
    "flew",
    "to",
    "Lima",
    "with",
    "Ana",
    "Silva",
    "on",
    "Monday",
]


@pytest.fixture(autouse=True)
def _hasty() -> Iterator[None]:
    """Let threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(run: Callable[[int], Any], threads: int = THREADS) -> list[Any]:
    """Run something in threads that start at once; the first error is raised."""
    barrier, results, errors = threading.Barrier(threads), [None] * threads, []

    def one(number: int) -> None:
        barrier.wait()
        try:
            results[number] = run(number)
        except Exception as error:
            errors.append(error)

    started = [threading.Thread(target=one, args=(number,)) for number in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    if errors:
        raise errors[0]
    return results


def labels_of(number: int) -> list[str]:
    """Labels of a document: some that others have too, in another order, and one of its own."""
    return [NAMES[(number + 3 * at) % len(NAMES)] for at in range(1 + number % 4)] + [f"kind {number}"]


def docs_of(nlp: Any, number: int) -> list[Doc]:
    """Documents of one thread; one holds a word that no window does."""
    docs = []
    for at in range(2):
        words = [WORDS[(number + at + place) % len(WORDS)] for place in range(3 + (5 * number + at) % 5)]
        if at and number % 4 == 0:
            words.append("b" * 400)
        doc = Doc(nlp.vocab, words=words)
        install_extensions()  # a pipeline without a gliner component has none
        doc._.gliner_labels = labels_of(2 * number + at)
        docs.append(doc)
    return docs


def answer(doc: Doc, key: str = "gliner") -> dict[Any, Any]:
    group = doc.spans[key]
    found = {
        (span.start, span.end, span.label_): float(score)
        for span, score in zip(group, group.attrs["scores"], strict=True)
    }
    found |= {
        (one.head.start, one.head.end, one.label, one.tail.start, one.tail.end): one.score
        for one in doc._.relations
    }
    for span, names in zip(group, group.attrs.get("generated_labels", ()), strict=False):
        found[(span.start, span.end, *names)] = 1.0
    return found


def answers(nlp: Any, number: int, piped: bool) -> list[dict[Any, Any]]:
    docs = docs_of(nlp, number)
    return [answer(doc) for doc in (nlp.pipe(docs) if piped else map(nlp, docs))]


def tagger(backbone: Path, decoder: str) -> Any:
    nlp = spacy.blank("en")
    nlp.add_pipe("token_classifier", config=tagging_pipeline.config(backbone, decoder))
    gold = tagging_pipeline.examples(nlp)
    nlp.initialize(lambda: gold)
    with torch.no_grad():  # so that it finds entities without training
        nlp.get_pipe("token_classifier").network.decoder.project.bias.zero_()
    return nlp


def entities(backbone: Path, **changes: Any) -> Any:
    """A pipeline with `changes` of the model; those of the component begin with an underscore."""
    config = gliner_config(backbone, **EVERYTHING)
    config |= {name[1:]: changes.pop(name) for name in list(changes) if name.startswith("_")}
    config["model"] |= changes
    config["model"]["encoder"]["backbone"]["window"] = 48
    nlp = spacy.blank("en")
    model = nlp.add_pipe("gliner", config=config).gliner
    nlp.initialize()
    with torch.no_grad():  # scores far from each other
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and name.startswith(("prompt_rep", "span_rep")):
                weight.mul_(4)
    return nlp


def bi_encoder(backbone: Path, **changes: Any) -> dict[str, Any]:
    below = {"@backbones": "transformer", "model": str(backbone)}
    return {"@encoders": "bi_encoder", "backbone": below, "label_model": str(backbone), **changes}


def relations(backbone: Path) -> Any:
    found = {"relations": ["knows", "is in"], "relation_threshold": 0.0, "adjacency_threshold": 0.5}
    config = relation_pipeline.config(backbone, "bi_encoder", **EVERYTHING, **found)
    config["model"]["span_rep"]["max_width"] = 2
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    return nlp


def writing(backbone: Path, folder: Path) -> Any:
    model = str(make_causal_lm(folder / "lm"))
    writer = {"@decoders": "generative", "model": model, "max_new_tokens": 2}
    return entities(backbone, decoder=writer, span_rep={"@span_reps": "markerV0", "max_width": 2})


CASES: dict[str, Callable[[Path, Path], Any]] = {
    "uni": lambda backbone, _: entities(backbone),
    "uni-conv": lambda backbone, _: entities(backbone, span_rep={"@span_reps": "conv_share", "max_width": 3}),
    "uni-deberta-bf16": lambda _, folder: entities(make_backbone(folder / "d", "deberta-v2"), _dtype="bf16"),
    "uni-deberta-tokens": lambda _, folder: entities(
        make_backbone(folder / "d", "deberta-v2"), span_rep={"@span_reps": "token_level"}
    ),
    "uni-int8": lambda backbone, _: entities(backbone, _quantize="int8"),
    "uni-writing": writing,
    "bi": lambda backbone, _: entities(backbone, encoder=bi_encoder(backbone)),
    "bi-tokens": lambda backbone, _: entities(
        backbone, encoder=bi_encoder(backbone), span_rep={"@span_reps": "token_level"}
    ),
    "bi-bf16-int8": lambda backbone, _: entities(
        backbone, encoder=bi_encoder(backbone), _dtype="bf16", _quantize="int8"
    ),
    "bi-on-disk": lambda backbone, folder: entities(
        backbone, encoder=bi_encoder(backbone, label_cache=str(folder / "labels"), fuse_label_layers=True)
    ),
    "bi-relations": lambda backbone, _: relations(backbone),
    "tagger-crf": lambda backbone, _: tagger(backbone, "crf"),
    "tagger-softmax": lambda backbone, _: tagger(backbone, "softmax"),
}
ON_GRAPHS = ("bi",)


@pytest.mark.parametrize(
    ("case", "onnx"), [*((case, False) for case in CASES), *((case, True) for case in ON_GRAPHS)]
)
def test_threads_get_what_one_thread_gets(case: str, onnx: bool, backbone: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = CASES[case](backbone, tmp_path)
    folder = tmp_path / "pipeline"
    if onnx:
        pytest.importorskip("onnxruntime")
        export(pipeline=made, output=folder, onnx=True)
    else:
        made.to_disk(folder)
    alone = spacy.load(folder)
    (name,) = alone.pipe_names
    for piped in (False, True):
        alone.get_pipe(name).report.clear()
        expected = [answers(alone, number, piped) for number in range(THREADS)]
        assert sum(len(one) for some in expected for one in some) > 3 * THREADS
        shared = spacy.load(folder)
        for _ in range(2):  # cold and warm
            found = in_threads(lambda number: answers(shared, number, piped))  # noqa: B023
            for mine, others in zip(found, expected, strict=True):
                # labels that were read beside others differ by rounding
                assert mine == [pytest.approx(one, abs=1e-3 if "bf16" in case else 1e-5) for one in others]
        counted = {reason: 2 * number for reason, number in alone.get_pipe(name).report.items()}
        assert shared.get_pipe(name).report == counted


def test_a_pipeline_that_was_initialized_drops_nothing_out(backbone: Path) -> None:
    """It is in training mode, as ``initialize`` leaves it, and so it stays."""
    nlp = entities(backbone, span_rep={"@span_reps": "markerV0", "dropout": 0.9})
    expected = [answers(nlp, number, False) for number in range(THREADS)]
    nlp.get_pipe("gliner").gliner.train()
    for _ in range(3):
        found = in_threads(lambda number: answers(nlp, number, False))
        assert found == [[pytest.approx(one, abs=1e-5) for one in some] for some in expected]
    assert nlp.get_pipe("gliner").gliner.training


def test_windows_of_a_prediction_are_not_those_of_a_training(backbone: Path) -> None:
    config = gliner_config(backbone, **EVERYTHING)
    config["model"]["encoder"]["backbone"] |= {"window": 16, "stride": 8, "training_stride": False}
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    model = nlp.get_pipe("gliner").gliner
    text = " ".join(WORDS * 4)
    model.train()
    found = answer(nlp(text))
    model.eval()
    assert answer(nlp(text)) == found


@pytest.mark.parametrize("kind", [Pretrained, PretrainedTokenClassifier])
def test_a_checkpoint_given_by_name_is_loaded_once(
    kind: Any, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is Pretrained:
        to_gliner(entities(backbone), tmp_path / "checkpoint")
        factory = "gliner"
    else:
        to_transformers(tagger(backbone, "softmax"), tmp_path / "checkpoint")
        factory = "token_classifier"
    loaded: list[Any] = []
    before = kind.materialize

    def materialize(self: Any) -> Any:
        loaded.append(self)
        time.sleep(0.05)
        return before(self)

    monkeypatch.setattr(kind, "materialize", materialize)
    nlp = spacy.blank("en")
    nlp.add_pipe(factory, config={"model": str(tmp_path / "checkpoint")})
    found = in_threads(lambda number: answers(nlp, number, False))
    assert len(loaded) == 1
    assert found == [
        [pytest.approx(one, abs=1e-5) for one in answers(nlp, number, False)] for number in range(THREADS)
    ]


def test_prompts_come_and_go(backbone: Path) -> None:
    encoder = entities(backbone).get_pipe("gliner").gliner.encoder

    def ask(number: int) -> None:
        for at in range(60):
            query = Query((f"label {number} {at}",))
            assert encoder.prompt(query).query is query

    in_threads(ask)


@pytest.mark.parametrize("encoder", ["uni", "bi"])
def test_a_tokenizer_belongs_to_whoever_calls_it(encoder: str, backbone: Path) -> None:
    nlp = entities(backbone, **({} if encoder == "uni" else {"encoder": bi_encoder(backbone)}))
    model = nlp.get_pipe("gliner").gliner.encoder
    expected = answers(nlp, 3, False)
    holders = [model.backbone] if encoder == "uni" else [model.backbone, model.label_encoder]
    for holder in holders:
        options = {"truncation": True, "max_length": 4, "padding": "max_length"}
        holder.tokenizer(["Maria met Bob in Oslo"], **options)
        inner = holder.tokenizer.backend_tokenizer
        before = inner.truncation, inner.padding
        doc = Doc(nlp.vocab, words=["Words", "never", "seen", "before"])
        doc._.gliner_labels = ["a label of many pieces never seen before"]
        assert answer(nlp(doc))
        assert (inner.truncation, inner.padding) == before
    assert answers(nlp, 3, False) == expected


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_what_threads_miss_is_made_once() -> None:
    cache: Cache[int, object] = Cache()
    made: Counter[int] = Counter()

    def make(keys: list[int]) -> list[object]:
        made.update(keys)
        time.sleep(0.001)
        return [object() for _ in keys]

    found = in_threads(lambda number: cache.get_all([(number + at) % 20 for at in range(20)], make))
    assert set(made.values()) == {1}
    assert len({id(one) for some in found for one in some}) == 20


def test_no_more_is_kept_than_allowed_unless_asked_for_at_once() -> None:
    cache: Cache[int, Any] = Cache(8)
    for number in range(100):
        assert cache.get_all([number, number + 1], lambda new: [2 * key for key in new])[1] == 2 * number + 2
        assert len(cache) <= 8
    assert cache.get_all(range(20), lambda new: list(new)) is not None
    assert len(cache) == 20
    in_threads(lambda number: [cache.get(number * 1000 + at, object) for at in range(300)])
    assert len(cache) <= 8


def test_weights_that_change_make_what_is_kept_old() -> None:
    cache: Cache[str, float] = Cache()
    weight = torch.ones(1)
    assert cache.get("sum", lambda: float(weight.sum()), (weight,)) == 1
    assert cache.peek("sum", (weight,)) == 1
    weight.mul_(3)
    assert cache.peek("sum", (weight,)) is None
    assert cache.get("sum", lambda: float(weight.sum()), (weight,)) == 3


def test_what_is_forgotten_while_it_is_made_does_not_come_back() -> None:
    cache: Cache[str, int] = Cache()

    def make() -> int:
        cache.forget()
        return 1

    assert cache.get("key", make) == 1
    assert len(cache) == 0


def test_a_copy_is_empty_and_works() -> None:
    cache: Cache[str, int] = Cache(3)
    cache.get("key", lambda: 1)
    for twin in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert len(twin) == 0
        assert twin.most == 3
        assert twin.get("key", lambda: 2) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_process_does_not_wait_for_a_thread_of_its_parent() -> None:
    cache: Cache[str, int] = Cache()
    started, go_on = threading.Event(), threading.Event()

    def make() -> int:
        started.set()
        go_on.wait(60)
        return 1

    thread = threading.Thread(target=cache.get, args=("slow", make))
    thread.start()
    started.wait(60)
    child = multiprocessing.get_context("fork").Process(target=cache.get, args=("key", lambda: 2))
    child.start()
    child.join(30)
    code = child.exitcode
    child.kill()
    go_on.set()
    thread.join()
    assert code == 0
