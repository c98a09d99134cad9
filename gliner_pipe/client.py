"""A client of ``gliner_pipe.serve``; it needs neither torch nor spaCy."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar, overload

from pydantic import BaseModel, ValidationError

from gliner_pipe.errors import ConfigError, GlinerPipeError
from gliner_pipe.serving.messages import Info, Prediction, PredictResponse, Problem
from gliner_pipe.util.optional import library

#: Answers after which a request is sent again.
_AGAIN = (429, 503)
_URL = "http://HOST:PORT"
#: Longest time to wait, in seconds.
_LONGEST = 1_000_000
_Answer = TypeVar("_Answer", bound=BaseModel)


class ServerError(GlinerPipeError):
    """The server refused a request or failed; ``status`` is that of its answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """Predicts texts on a server.

    Parameters
    ----------
    url
        Address of the server.
    token
        Its token; by default the environment variable GLINER_PIPE_TOKEN.
    pipeline
        Name of the pipeline; the server's first one by default.
    timeout
        Seconds to wait for an answer.
    retries
        How often a request is sent again if the server is full or cannot be reached.

    Raises
    ------
    ConfigError
        If a value is not allowed.

    Examples
    --------
    ::

        with Client("http://127.0.0.1:8000") as client:
            for entity in client.predict("Ada met Charles in London.", labels=["person"]).entities:
                print(entity.text, entity.label, entity.score)
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        token: str | None = None,
        pipeline: str | None = None,
        timeout: float = 60.0,
        retries: int = 5,
    ) -> None:
        self._httpx = library("httpx", "client", "serve", "the client")
        token = token or os.environ.get("GLINER_PIPE_TOKEN")
        for name, value, right, allowed in (
            ("url", url, isinstance(url, str), _URL),
            ("pipeline", pipeline, pipeline is None or isinstance(pipeline, str), "a name, or None"),
            (
                "timeout",
                timeout,
                _is_number(timeout) and 0 < timeout <= _LONGEST,
                f"seconds up to {_LONGEST:,}",
            ),
            ("retries", retries, type(retries) is int and retries >= 0, "a whole number"),
        ):
            if not right:
                raise ConfigError(f"client.{name}", f"found {value!r}", allowed)
        if token and not (isinstance(token, str) and token.isascii() and token.isprintable()):
            raise ConfigError(
                "client.token", "is no token of printable ASCII characters", "that of the server"
            )
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            self._http = self._httpx.Client(base_url=url, headers=headers, timeout=timeout)
        except (self._httpx.InvalidURL, UnicodeError) as error:
            raise ConfigError("client.url", f"found {url!r} ({error})", _URL) from error
        self.pipeline, self.retries = pipeline, retries

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @overload
    def predict(self, texts: str, **settings: Any) -> Prediction: ...

    @overload
    def predict(self, texts: Sequence[str | dict[str, Any]], **settings: Any) -> list[Prediction]: ...

    def predict(
        self, texts: str | Sequence[str | dict[str, Any]], **settings: Any
    ) -> Prediction | list[Prediction]:
        """Predict one text or several.

        Parameters
        ----------
        texts
            A text, or a list of texts or of mappings with a ``text`` and settings of its own.
        **settings
            ``labels``, ``threshold``, ``relations``, ``relation_threshold``, ``classes``, ``records``: those of the
            pipeline where not given.

        Returns
        -------
        Prediction or list of Prediction
            One a text.

        Raises
        ------
        ServerError
            If the server refuses the request, fails, cannot be reached, or its answer is not one of this server.
        ConfigError
            If texts or settings cannot be written as JSON.
        """
        one = isinstance(texts, str)
        some = [texts] if one else list(_some(texts))
        body = _json({"texts": some, "pipeline": self.pipeline, **settings})
        headers = {"Content-Type": "application/json"}
        found = self._send(PredictResponse, "POST", "/predict", content=body, headers=headers).predictions
        if len(found) != len(some):
            raise ServerError(200, f"the server answered {len(found)} of {len(some)} texts")
        return found[0] if one else found

    def stream(self, texts: Iterable[str | dict[str, Any]], **settings: Any) -> Iterator[Prediction]:
        """Predict any number of texts over one connection; parameters as for `predict`.

        Yields
        ------
        Prediction
            One a text, in order, while later texts are sent.

        Raises
        ------
        ServerError
            If the server refuses a text, fails, or cannot be reached. The texts before it are yielded first.
        """
        sent = received = 0

        def lines() -> Iterator[bytes]:
            nonlocal sent
            for text in _some(texts):
                item = {"text": text} if isinstance(text, str) else text
                if not isinstance(item, Mapping):
                    raise ConfigError("texts", f"found {text!r}", "strings, or mappings with a text")
                line = _json({**settings, **item}) + b"\n"
                sent += 1
                yield line

        query = {"pipeline": self.pipeline} if self.pipeline else {}
        try:
            with self._http.stream("POST", "/predict/stream", params=query, content=lines()) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise ServerError(answer.status_code, _message(answer))
                for line in answer.iter_lines():
                    yield _line(line)
                    received += 1
        except self._httpx.RequestError as error:
            raise ServerError(0, f"the server cannot be reached: {error}") from error
        if received < sent:
            raise ServerError(0, f"the server ended its answer after {received} of {sent} texts")

    def info(self) -> Info:
        """Return the pipelines and limits of the server."""
        return self._send(Info, "GET", "/info")

    def is_ready(self) -> bool:
        """Whether the server answers requests."""
        try:
            return bool(self._http.get("/ready").status_code == 200)
        except self._httpx.RequestError:
            return False

    def _send(self, kind: type[_Answer], method: str, path: str, **content: Any) -> _Answer:
        for attempt in range(self.retries + 1):
            try:
                answer = self._http.request(method, path, **content)
            except self._httpx.InvalidURL as error:
                raise ConfigError("client.url", f"found {self._http.base_url}", _URL) from error
            except (self._httpx.ConnectError, self._httpx.RemoteProtocolError) as error:
                if attempt == self.retries:
                    raise ServerError(0, f"the server cannot be reached: {error}") from error
                time.sleep(min(2.0**attempt / 10, 5.0))
                continue
            except self._httpx.RequestError as error:
                reason = str(error) or type(error).__name__
                raise ServerError(0, f"the server gave no answer: {reason}") from error
            if answer.status_code in _AGAIN and attempt < self.retries:
                time.sleep(_pause(answer.headers.get("Retry-After")))
                continue
            if answer.status_code != 200:
                raise ServerError(answer.status_code, _message(answer))
            return _read(kind, answer.content)
        raise AssertionError


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _some(texts: Any) -> Iterable[Any]:
    if not isinstance(texts, Iterable) or isinstance(texts, (str, bytes, Mapping)):
        raise ConfigError("texts", f"found {texts!r}", "a list of texts")
    return texts


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            "texts", f"or a setting cannot be written as JSON ({error})", "JSON values"
        ) from error


def _pause(seconds: str | None) -> float:
    """Return the seconds of ``Retry-After``, a minute at most; a second for a date or none."""
    match = re.fullmatch(r"\d{1,9}(\.\d+)?", seconds or "")
    return min(float(match[0]), 60.0) if match else 1.0


def _read(kind: type[_Answer], content: str | bytes) -> _Answer:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, one['loc']))} {one['msg']}" for one in error.errors()[:2])
        raise ServerError(
            200, f"the answer is not one of gliner_pipe.serve ({found}). Check the url"
        ) from None


def _line(line: str) -> Prediction:
    """Return the answer to a text of a stream."""
    try:
        problem = Problem.model_validate_json(line) if '"error"' in line else None
    except ValidationError:
        problem = None
    if problem is not None:
        raise ServerError(422, problem.error)
    return _read(Prediction, line)


def _message(answer: Any) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {answer.status_code}"
