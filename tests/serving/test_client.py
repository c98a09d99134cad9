"""The client: what it sends, and servers that answer something else."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gliner_pipe.client import Client, ServerError, _pause
from gliner_pipe.errors import ConfigError

pytest.importorskip("httpx")

FOUND = json.dumps({"entities": []}).encode()
PREDICTIONS = b'{"predictions": [%s]}' % FOUND
ODD = [
    b"",
    b"<html>",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"[" * 100_000,
    b"1" * 6000,
    b'{"predictions": 5}',
    b'{"predictions": []}',
    b'{"predictions": [null]}',
    b'{"predictions": [{"entities": [{"start": "x"}]}]}',
    b'{"error": 5}',
]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, headers, body = self.server.answers.pop(0)  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *given: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """A server that gives the answers of a list."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.url, server.answers = f"http://127.0.0.1:{server.server_address[1]}", []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("body", ODD, ids=range(len(ODD)))
def test_answers_of_other_servers(server: Any, body: bytes) -> None:
    with Client(server.url) as client:
        for ask in (lambda: client.predict("a"), client.info, lambda: list(client.stream(["a"]))):
            server.answers = [(200, {}, body)]
            with pytest.raises(ServerError):
                ask()
    assert server.answers == []


def test_a_stream_that_ends_early(server: Any) -> None:
    server.answers = [(200, {}, FOUND + b"\n")]
    with Client(server.url) as client:
        answers = client.stream(["a", "b"])
        assert next(answers).entities == []
        with pytest.raises(ServerError, match="1 of 2"):
            next(answers)


@pytest.mark.parametrize("headers", [{"Retry-After": "0"}, {"Retry-After": "0.0"}])
def test_a_full_server_is_asked_again(server: Any, headers: dict[str, str]) -> None:
    server.answers = [(503, headers, b""), (429, headers, b""), (200, {}, PREDICTIONS)]
    with Client(server.url) as client:
        assert client.predict("a").entities == []


def test_a_compressed_answer_that_is_none(server: Any) -> None:
    server.answers = [(200, {"Content-Encoding": "gzip"}, b"x")] * 2
    with Client(server.url) as client:
        for ask in (lambda: client.predict("a"), lambda: list(client.stream(["a"]))):
            with pytest.raises(ServerError):
                ask()


def test_the_error_of_a_text(server: Any) -> None:
    server.answers = [(200, {}, FOUND + b'\n{"id": 7, "error": "[labels] found 5"}\n')]
    with Client(server.url) as client:
        answers = client.stream(["a", "b"])
        assert next(answers).entities == []
        with pytest.raises(ServerError, match="labels") as raised:
            next(answers)
    assert raised.value.status == 422


def test_how_long_it_waits() -> None:
    seconds = ("5", "0.5", "99999", "-1", "nan", "Wed, 21 Oct 2026 07:28:00 GMT", None)
    assert [_pause(one) for one in seconds] == [5, 0.5, 60, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(
            ("url", one)
            for one in (None, 5, "http://x:abc", "http://x\n", "http://\udcff", "http://" + "x" * 70_000)
        ),
        *(("token", one) for one in ("é", "a\nb", 5)),
        *(("timeout", one) for one in ("a", -1, 0, float("nan"), float("inf"), None)),
        *(("retries", one) for one in (-1, "a", 1.5)),
        ("pipeline", b"x"),
    ],
)
def test_wrong_options(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^\[client\.{option}\]"):
        Client(**{option: value})


@pytest.mark.parametrize(
    ("texts", "settings"),
    [
        (5, {}),
        (None, {}),
        (b"a", {}),
        ({"text": "a"}, {}),
        ([object()], {}),
        (["a"], {"labels": {"a"}}),
        (["a"], {"threshold": float("nan")}),
    ],
)
def test_what_cannot_be_sent(texts: Any, settings: Any) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Client(f"http://127.0.0.1:{silent.getsockname()[1]}") as client,
    ):
        for ask in (client.predict, lambda *given, **more: list(client.stream(*given, **more))):
            with pytest.raises(ConfigError, match=r"^\[texts\]"):
                ask(texts, **settings)
