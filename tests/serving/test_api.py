"""The server: what it answers, whom, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import spacy
from conftest import gliner_config
from fastapi.testclient import TestClient
from spacy.language import Language
from spacy.tokens import Doc

from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.alignment import prediction_getter
from gliner_pipe.pipeline.records import entities_of
from gliner_pipe.serving.app import create_app
from gliner_pipe.serving.batcher import BATCH_TEXTS, Batcher, Job, QueueFullError
from gliner_pipe.serving.limits import Limits

TEXTS = [
    "Ada met Charles in London.",
    "Nobody was there.",
    "The   queen\nof Spain met Charles, and Ada left for London with Babbage.",
    "",
    "é 🙂 Ada",
]


@pytest.fixture(scope="module")
def pipeline(backbone: Path) -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(backbone, labels=["person", "city"], threshold=0.3))
    nlp.initialize()
    return nlp


@pytest.fixture(scope="module")
def client(pipeline: Language) -> Any:
    limits = Limits(
        body_bytes=20_000, texts=100, characters=10_000, labels=50, label_characters=500, queue=200
    )
    with TestClient(create_app({"first": pipeline, "second": pipeline}, limits=limits)) as client:
        yield client


def expected(nlp: Language, doc: Doc) -> list[dict[str, Any]]:
    found = entities_of(doc, prediction_getter(nlp))
    return [{**entity, "score": round(entity["score"], 4)} for entity in found]


def predicted(client: Any, **body: Any) -> Any:
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def test_the_answer_is_that_of_the_pipeline(client: Any, pipeline: Language) -> None:
    found = [one["entities"] for one in predicted(client, texts=TEXTS)]
    assert found == [expected(pipeline, pipeline(text)) for text in TEXTS]
    assert sum(map(len, found)) > 3
    assert [TEXTS[4][e["start"] : e["end"]] for e in found[4]] == [e["text"] for e in found[4]]


def test_labels_and_thresholds_of_a_request_and_of_a_text(client: Any, pipeline: Language) -> None:
    labels = ["animal", {"label": "person", "description": "a name", "threshold": 0.9}]
    texts = [TEXTS[0], {"text": TEXTS[0], "id": 7, "labels": ["city"], "threshold": 0.2}]
    plain, own = predicted(client, texts=texts, labels=labels, threshold=0.1)
    doc = pipeline.make_doc(TEXTS[0])
    doc._.gliner_labels = [{"label": "animal", "threshold": 0.1}, labels[1]]
    assert plain["entities"] == expected(pipeline, pipeline(doc))
    doc = pipeline.make_doc(TEXTS[0])
    doc._.gliner_labels = [{"label": "city", "threshold": 0.2}]
    assert own["entities"] == expected(pipeline, pipeline(doc))
    assert own["id"] == 7


def test_many_clients_get_what_one_gets(client: Any, pipeline: Language) -> None:
    names = ["person", "city", "queen", "country"]
    asked = [(TEXTS[n % 3], [names[n % 4], names[(n + 1) % 4]]) for n in range(24)]
    answers: dict[int, Any] = {}

    def ask(number: int) -> None:
        text, labels = asked[number]
        answers[number] = predicted(client, texts=[text], labels=labels, threshold=0.3)[0]["entities"]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, (text, labels) in enumerate(asked):
        doc = pipeline.make_doc(text)
        doc._.gliner_labels = [{"label": label, "threshold": 0.3} for label in labels]
        assert answers[number] == expected(pipeline, pipeline(doc))


@pytest.mark.parametrize(
    ("body", "status", "where"),
    [
        ("{", 400, "body"),
        ('{"texts": ["a"], "labels": "person"}', 422, "labels"),
        ('{"texts": []}', 422, "texts"),
        ('{"texts": ["a"], "label": ["x"]}', 422, "label"),
        ('{"texts": ["a"], "labels": [""]}', 422, "labels"),
        ('{"texts": ["a"], "labels": [{"label": "x", "pattern": "(a+)+$"}]}', 422, "labels"),
        ('{"texts": ["a"], "labels": [{"label": "x", "threshold": 2}]}', 422, "labels"),
        ('{"texts": ["a"], "threshold": -1}', 422, "threshold"),
        ('{"texts": ["a"], "threshold": NaN}', 422, "threshold"),
        ('{"texts": ["a"], "relations": ["knows"]}', 422, "relations"),
        ('{"texts": ["a\\ud800"]}', 422, "texts[0]"),
        ('{"texts": ["a"], "labels": ["\\ud800"]}', 422, "labels"),
        ('{"texts": ["a"], "labels": [{"label": "a", "\\ud800": 1}]}', 422, "labels"),
        ('{"texts": [{"text": "a", "id": "\\ud800"}]}', 422, "texts.0.id] Value"),
        ('{"texts": [{"text": "a", "threshold": "x"}]}', 422, "texts.0.threshold]"),
        ('{"texts": [1]}', 422, "texts.0]"),
        ('{"texts": ["a"], "labels": [{"label": "a", "threshold": %s}]}' % ("9" * 3000), 422, "labels"),
        ('{"texts": ["a"], "pipeline": "third"}', 404, "pipeline"),
        (json.dumps({"texts": ["a"] * 101}), 413, "texts"),
        (json.dumps({"texts": ["a" * 10_001]}), 413, "texts"),
        (json.dumps({"texts": ["a"], "labels": [str(n) for n in range(51)]}), 413, "labels"),
        (json.dumps({"texts": ["a"], "labels": ["a" * 501]}), 413, "labels"),
        (json.dumps({"texts": ["a" * 20_001]}), 413, "body"),
        ("[" * 5_000, 400, "body"),
    ],
)
def test_what_is_refused(client: Any, body: str, status: int, where: str) -> None:
    answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    (message,) = answer.json().values()
    assert message.removeprefix("[").startswith(where)
    assert "\n" not in message and len(message) <= 500


def test_what_is_asked_in_another_way(client: Any) -> None:
    body = '{"texts": ["a"]}'
    for kind in ({}, {"Content-Type": "text/plain"}):
        answer = client.post("/predict", content=body, headers=kind)
        assert (answer.status_code, answer.json()["error"].startswith("[Content-Type]")) == (415, True)
    for path in ("/", "/health", "/ready", "/info"):
        assert client.head(path).status_code == 200
    assert client.head("/predict").status_code == 405
    assert client.post("/predict/", json={}, follow_redirects=False).status_code == 404


def test_a_body_without_a_length_is_cut_off(client: Any) -> None:
    answer = client.post("/predict", content=(b"x" * 1_000 for _ in range(30)))
    assert answer.status_code == 413


def test_a_stream_goes_on_after_an_invalid_line(client: Any, pipeline: Language) -> None:
    lines = [
        '{"text": "Ada met Charles.", "id": 1}',
        "{",
        "",
        '{"text": "Ada", "labels": [""]}',
        '{"text": "London"}',
    ]
    lines.append(json.dumps({"text": "a" * 20_001}))
    answer = client.post("/predict/stream", content="\n".join(lines))
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert [sorted(one) for one in found] == [
        ["entities", "id"],
        ["error"],
        ["error"],
        ["entities"],
        ["error"],
    ]
    assert found[0]["entities"] == expected(pipeline, pipeline("Ada met Charles."))


def test_information_and_metrics(client: Any) -> None:
    info = client.get("/info").json()
    assert [one["name"] for one in info["pipelines"]] == ["first", "second"]
    assert info["pipelines"][0]["labels"] == {"gliner": ["person", "city"]}
    assert client.get("/health").status_code == client.get("/ready").status_code == 200
    predicted(client, texts=["a", "b"], pipeline="second")
    metrics = client.get("/metrics").text
    assert 'gliner_pipe_texts_total{pipeline="second"} 2.0' in metrics
    assert 'gliner_pipe_requests_total{route="/predict",status="200"}' in metrics


def test_the_page_loads_nothing_from_elsewhere(client: Any) -> None:
    answer = client.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    outside = {
        line for line in answer.text.splitlines() if "http" in line and "www.w3.org/2000/svg" not in line
    }
    assert outside == set()


def test_the_openapi_document_has_examples(client: Any) -> None:
    document = client.get("/openapi.json").json()
    example = document["components"]["schemas"]["PredictRequest"]["examples"][0]
    assert predicted(client, **example)


def test_a_token_guards_everything_but_the_state(pipeline: Language) -> None:
    with TestClient(create_app({"one": pipeline}, token="söcret")) as client:
        for path in ("/info", "/metrics"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer söcret".encode()}).status_code == 200
        assert client.post("/predict", json={"texts": ["a"]}).status_code == 401
        assert client.post("/predict/stream", content='{"text": "a"}').status_code == 401
        assert client.get("/health").status_code == client.get("/ready").status_code == 200


def test_labels_of_a_tagger_are_fixed(tagger: Language) -> None:
    with TestClient(create_app({"one": tagger})) as client:
        answer = client.post("/predict", json={"texts": ["Ada"], "labels": ["person"]})
        assert (answer.status_code, answer.json()["error"].startswith("[labels]")) == (422, True)
        assert predicted(client, texts=["Ada met Charles."])


@pytest.fixture
def tagger() -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "person", "pattern": "Ada"}])
    return nlp


def test_the_limits_fit_each_other(pipeline: Language) -> None:
    with pytest.raises(ConfigError, match="max_texts"):
        create_app({"one": pipeline}, limits=Limits(texts=10, queue=5))
    for seconds in (0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="max_seconds"):
            Limits(seconds=seconds)


# -- the queue ---------------------------------------------------------------------------------------------------------


class Slow:
    """A pipeline that waits for a signal with each batch, and remembers its batches."""

    def __init__(self) -> None:
        self.nlp = spacy.blank("en")
        self.batches: list[list[str]] = []
        self.open = threading.Event()
        slow = self

        name = f"slow {id(self)}"

        @Language.component(name)
        def component(doc: Doc) -> Doc:
            slow.open.wait(20)
            slow.batches[-1].append(doc.text)
            if doc.text == "bad":
                raise ValueError("bad text")
            return doc

        self.nlp.add_pipe(name)

    def batcher(self, room: int = 1_000) -> Batcher:
        return Batcher(self.nlp, lambda doc: doc.text, room, lambda _: self.batches.append([]))

    def job(self, *texts: str) -> Job:
        return Job(
            [lambda text=text: self.nlp.make_doc(text) for text in texts], [len(text) for text in texts]
        )


@pytest.fixture
def slow() -> Any:
    one = Slow()
    yield one
    one.open.set()


def test_requests_take_turns_and_share_batches(slow: Slow) -> None:
    batcher = slow.batcher()
    first, long = slow.job("first"), slow.job(*[f"long {n}" for n in range(2 * BATCH_TEXTS)])
    batcher.submit(first)
    while not slow.batches:
        time.sleep(0.01)
    batcher.submit(long)
    short = slow.job("short")
    batcher.submit(short)
    slow.open.set()
    batcher.close()
    assert [one.result() for one in long.results] == [f"long {n}" for n in range(2 * BATCH_TEXTS)]
    assert slow.batches[0] == ["first"]
    assert slow.batches[1][:3] == ["long 0", "short", "long 1"]
    assert len(slow.batches[1]) == BATCH_TEXTS
    assert len(slow.batches) == 4


def test_a_full_queue_refuses_and_cancelled_texts_leave_it(slow: Slow) -> None:
    batcher = slow.batcher(room=3)
    batcher.submit(slow.job("first"))
    while not slow.batches:
        time.sleep(0.01)
    given_up = slow.job("a", "b", "c")
    batcher.submit(given_up)
    with pytest.raises(QueueFullError):
        batcher.submit(slow.job("d"))
    for result in given_up.results:
        result.cancel()
    slow.open.set()
    while batcher.waiting:
        time.sleep(0.01)
    after = slow.job("d")
    batcher.submit(after)
    batcher.close()
    assert after.results[0].result() == "d"
    assert [text for batch in slow.batches for text in batch] == ["first", "d"]
    with pytest.raises(QueueFullError):
        batcher.submit(slow.job("e"))


def test_a_text_that_fails_does_not_affect_others(slow: Slow) -> None:
    slow.open.set()
    batcher = slow.batcher()
    job = slow.job("good", "bad", "fine")
    batcher.submit(job)
    batcher.close()
    assert [job.results[0].result(), job.results[2].result()] == ["good", "fine"]
    with pytest.raises(ValueError, match="bad text"):
        job.results[1].result()


def test_a_request_that_takes_too_long_is_given_up(slow: Slow) -> None:
    threading.Timer(1.5, slow.open.set).start()
    app = create_app({"one": spacy.blank("en")}, limits=Limits(seconds=0.3))
    with TestClient(app) as client:
        served = app.state.served["one"]
        served.batcher.nlp = slow.nlp
        slow.batches.append([])
        assert client.post("/predict", json={"texts": ["a"]}).status_code == 504
        served.batcher.room = 0
        answer = client.post("/predict", json={"texts": ["a"]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_new_words_and_labels_are_forgotten(nlp: Language) -> None:
    asked = [(f"Ada met word{n} in town{n}.", f"label{n}") for n in range(6)]
    found = []
    with TestClient(create_app({"one": nlp}, keep_words=1)) as client:
        known = set(nlp.vocab.strings), {lexeme.text for lexeme in nlp.vocab}
        for text, label in asked:
            found.append(predicted(client, texts=[text], labels=[label], threshold=0.0)[0]["entities"])
    assert (set(nlp.vocab.strings), {lexeme.text for lexeme in nlp.vocab}) == known
    for (text, label), entities in zip(asked, found, strict=True):
        doc = nlp.make_doc(text)
        doc._.gliner_labels = [{"label": label, "threshold": 0.0}]
        assert entities == expected(nlp, nlp(doc)) != []
    with pytest.raises(ConfigError, match="keep_words"):
        create_app({"one": nlp, "two": nlp}, keep_words=1)


def test_texts_of_a_client_that_goes_away_leave_the_queue(slow: Slow) -> None:
    app = create_app({"one": spacy.blank("en")})

    async def go_away() -> None:
        async with app.router.lifespan_context(app):
            batcher = app.state.served["one"].batcher
            batcher.nlp = slow.nlp
            slow.batches.append([])
            batcher.submit(slow.job("first"))
            messages = [{"type": "http.request", "body": b'{"texts": ["a", "b"]}', "more_body": False}]
            gone = asyncio.Event()

            async def receive() -> dict[str, Any]:
                if messages:
                    return messages.pop()
                await gone.wait()
                return {"type": "http.disconnect"}

            sent: list[Any] = []

            async def send(message: Any) -> None:
                sent.append(message)

            headers = [(b"content-type", b"application/json")]
            scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b""}
            request = asyncio.create_task(app({**scope, "headers": headers}, receive, send))
            while batcher.waiting < 2:
                await asyncio.sleep(0.01)
            gone.set()
            await request
            slow.open.set()

    asyncio.run(go_away())
    assert [text for batch in slow.batches for text in batch] == ["first"]


def test_accepted_requests_are_answered_when_the_server_stops(slow: Slow) -> None:
    async def stop_in_the_middle() -> list[str]:
        batcher = slow.batcher()
        job = slow.job(*"abc")
        batcher.submit(job)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        slow.open.set()
        await closing
        return [one.result(timeout=0) for one in job.results]

    assert asyncio.run(stop_in_the_middle()) == list("abc")
