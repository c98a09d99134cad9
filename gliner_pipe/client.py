"""A client of ``gliner_pipe.serve``; it needs neither torch nor spaCy."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, overload

from gliner_pipe.errors import ConfigError, GlinerPipeError
from gliner_pipe.serving.messages import Info, Prediction
from gliner_pipe.util.optional import library

#: Answers after which a request is sent again.
_AGAIN = (429, 503)


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
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = self._httpx.Client(base_url=url, headers=headers, timeout=timeout)
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
            If the server refuses the request, fails, or cannot be reached.
        """
        one = isinstance(texts, str)
        body = {"texts": [texts] if one else list(texts), "pipeline": self.pipeline, **settings}
        answer = self._send("POST", "/predict", json=body)
        found = [Prediction(**prediction) for prediction in answer["predictions"]]
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

        def lines() -> Iterator[bytes]:
            for text in texts:
                item = {"text": text} if isinstance(text, str) else text
                yield json.dumps({**settings, **item}).encode() + b"\n"

        query = {"pipeline": self.pipeline} if self.pipeline else {}
        try:
            with self._http.stream("POST", "/predict/stream", params=query, content=lines()) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise ServerError(answer.status_code, _message(answer))
                for line in answer.iter_lines():
                    found = json.loads(line)
                    if "error" in found:
                        raise ServerError(422, found["error"])
                    yield Prediction(**found)
        except self._httpx.TransportError as error:
            raise ServerError(0, f"the server cannot be reached: {error}") from error

    def info(self) -> Info:
        """Return the pipelines and limits of the server."""
        return Info(**self._send("GET", "/info"))

    def is_ready(self) -> bool:
        """Whether the server answers requests."""
        try:
            return bool(self._http.get("/ready").status_code == 200)
        except self._httpx.TransportError:
            return False

    def _send(self, method: str, path: str, **content: Any) -> Any:
        for attempt in range(self.retries + 1):
            try:
                answer = self._http.request(method, path, **content)
            except self._httpx.InvalidURL as error:
                raise ConfigError("client.url", f"found {self._http.base_url}", "http://HOST:PORT") from error
            except (self._httpx.ConnectError, self._httpx.RemoteProtocolError) as error:
                if attempt == self.retries:
                    raise ServerError(0, f"the server cannot be reached: {error}") from error
                time.sleep(min(2.0**attempt / 10, 5.0))
                continue
            except self._httpx.TransportError as error:
                raise ServerError(0, f"the server gave no answer: {error or type(error).__name__}") from error
            if answer.status_code in _AGAIN and attempt < self.retries:
                time.sleep(float(answer.headers.get("Retry-After", 1)))
                continue
            if answer.status_code != 200:
                raise ServerError(answer.status_code, _message(answer))
            return answer.json()
        raise AssertionError


def _message(answer: Any) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {answer.status_code}"
