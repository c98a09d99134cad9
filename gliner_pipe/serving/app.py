"""The HTTP application: routes, access, errors."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import textwrap
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.resources import files
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from pydantic import ValidationError
from spacy.language import Language
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from gliner_pipe import __version__
from gliner_pipe.errors import ConfigError, DataError, GlinerPipeError, PredictionError
from gliner_pipe.prediction.view import with_view
from gliner_pipe.serving.asked import texts_of
from gliner_pipe.serving.batcher import QueueFullError
from gliner_pipe.serving.limits import Limits, TooLargeError, check_size
from gliner_pipe.serving.messages import (
    Asked,
    Info,
    Prediction,
    PredictRequest,
    PredictResponse,
    Problem,
    TextItem,
)
from gliner_pipe.serving.middleware import BodyLimit, Measured
from gliner_pipe.serving.served import Served

logger = logging.getLogger("gliner_pipe.serve")

#: Seconds after which a client may try again when the queue is full.
RETRY_AFTER = 1
#: What pydantic names beside fields in the place of an error.
_NO_FIELD = re.compile(r"body|str|int|TextItem|.*\[.*\]")
#: Most characters of an error, which may quote the request.
_LONGEST = 500
#: Texts of one stream that wait at the same time.
STREAM_AHEAD = 128
#: Status in logs and metrics of requests whose client has gone; nobody receives it.
_GONE = 499
#: Routes that are asked again and again, and not logged.
_STATE = ("/health", "/ready", "/metrics")
_Result = TypeVar("_Result")
_BEARER = HTTPBearer(auto_error=False)
#: Answers to requests that fail, for the OpenAPI document.
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "The body is not JSON",
        401: "The token is missing or wrong",
        404: "There is no such pipeline",
        413: "The request exceeds a limit",
        415: "The content type is not that of JSON",
        422: "A value is not allowed",
        500: "The pipeline failed on a text",
        503: "Too many texts wait: try again later",
        504: "It took too long",
    }.items()
}


class Metrics:
    """What ``/metrics`` reports."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        to: Any = {"registry": self.registry}
        self.requests = Counter(
            "gliner_pipe_requests", "Requests by route and status", ["route", "status"], **to
        )
        self.seconds = Histogram("gliner_pipe_request_seconds", "Duration of requests", ["route"], **to)
        self.texts = Counter("gliner_pipe_texts", "Predicted texts", ["pipeline"], **to)
        self.batch = Histogram(
            "gliner_pipe_batch_texts", "Texts of a batch", buckets=(1, 2, 4, 8, 16, 32, 64), **to
        )
        self.waiting = Gauge("gliner_pipe_waiting_texts", "Texts that wait", ["pipeline"], **to)

    def report(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request, and log it if it is no question about the state of the server."""
        self.requests.labels(route, status).inc()
        self.seconds.labels(route).observe(seconds)
        if route not in _STATE:
            with suppress(OSError):  # a full disk must not fail requests
                logger.info("%s %s %d %.0f ms", method, route, status, 1000 * seconds)


def create_app(
    pipelines: Mapping[str, Language],
    *,
    limits: Limits | None = None,
    token: str | None = None,
    log_texts: bool = False,
    keep_words: int | None = None,
) -> FastAPI:
    """Return the ASGI application that serves pipelines.

    Parameters
    ----------
    pipelines
        The pipelines by name; the first is used where a request names none.
    limits
        Limits on requests.
    token
        Bearer token that requests must have; None for none.
    log_texts
        Whether texts of requests are logged.
    keep_words
        Number of words that spaCy's vocabulary of each pipeline may keep, some 1.2 kB each. None for any number: then
        memory grows with each new word, but other code may use the pipelines meanwhile.
    """
    limits = limits or Limits()
    if limits.texts > limits.queue:
        raise ConfigError("serve.max_texts", f"found {limits.texts}", f"at most max_queue, {limits.queue}")
    for nlp in pipelines.values():
        list(nlp.pipe(["."]))  # loads what is loaded on first use, and says what is wrong
    if keep_words is not None and len({id(nlp.vocab) for nlp in pipelines.values()}) < len(pipelines):
        raise ConfigError("serve.keep_words", "is set, but pipelines share a vocabulary", "one for each")
    metrics = Metrics()
    served: dict[str, Served] = {}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for name, nlp in pipelines.items():
            one = served[name] = Served(name, nlp, limits, metrics.batch.observe, keep_words)
            metrics.waiting.labels(name).set_function(partial(getattr, one.batcher, "waiting"))
        app.state.ready = True
        yield
        app.state.ready = False
        for one in served.values():
            await asyncio.to_thread(one.batcher.close)

    app = FastAPI(
        title="gliner_pipe",
        version=__version__,
        description="Finds entities and relations in texts.",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from another server
        redoc_url=None,
        redirect_slashes=False,  # another address comes from the header Host, which clients choose
    )
    app.state.ready = False
    app.state.served = served
    app.add_middleware(BodyLimit, most=limits.body_bytes, unlimited=("/predict/stream",))
    app.add_middleware(Measured, report=metrics.report)
    _add_errors(app)

    def allowed(found: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
        given = found.credentials if found else ""
        if not secrets.compare_digest(given.encode("latin-1"), (token or "").encode()):
            raise HTTPException(
                401, "[Authorization] the token is missing or wrong", {"WWW-Authenticate": "Bearer"}
            )

    guards = [] if token is None else [Depends(allowed)]

    def pipeline_of(name: str | None) -> Served:
        if name is not None and name not in served:
            raise HTTPException(404, f"[pipeline] found {name!r}; allowed: {', '.join(served)}")
        return next(iter(served.values())) if name is None else served[name]

    async def run(texts: Sequence[str], asked: Sequence[Asked], name: str | None) -> list[dict[str, Any]]:
        one = pipeline_of(name)
        check_size(
            list(texts), [[a.labels, a.relations, a.classes, a.records] for a in _distinct(asked)], limits
        )
        if log_texts:
            for text in texts:
                logger.info("text %s", json.dumps(text, ensure_ascii=True))
        found = await one.predict(texts, asked)
        metrics.texts.labels(one.name).inc(len(texts))
        return found

    @app.post("/predict", dependencies=guards, responses=_PROBLEMS)
    async def predict(request: PredictRequest, connection: Request) -> PredictResponse:
        """Predict one text or several, each with settings of its own if needed."""
        texts, ids, asked = zip(*texts_of(request), strict=True)
        found = await _while_connected(run(texts, asked, request.pipeline), connection)
        predictions = [
            Prediction(**{**one, **({} if given is None else {"id": given})})
            for one, given in zip(found, ids, strict=True)
        ]
        return PredictResponse(predictions=predictions)

    @app.post(
        "/predict/stream",
        dependencies=guards,
        response_class=StreamingResponse,
        responses={
            200: {"content": {"application/x-ndjson": {}}, "description": "One prediction a line"},
            **_PROBLEMS,
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    kind: {"schema": {"type": "string"}} for kind in ("application/x-ndjson", "text/plain")
                },
            }
        },
    )
    async def stream(request: Request, pipeline: str | None = None) -> StreamingResponse:
        """Predict a stream of texts: JSON objects with a ``text``, one a line, are answered one a line, in order.

        An invalid line is answered with an ``error``, and the stream goes on.
        """
        pipeline_of(pipeline)

        async def one(line: bytes | TooLargeError) -> dict[str, Any]:
            try:
                if isinstance(line, TooLargeError):
                    raise line
                item = TextItem.model_validate_json(line)
            except (ValidationError, TooLargeError) as error:
                return {"error": _line(error)}
            known = {} if item.id is None else {"id": item.id}
            try:
                while True:
                    try:
                        return {**known, **(await run([item.text], [item], pipeline))[0]}
                    except QueueFullError:
                        await asyncio.sleep(RETRY_AFTER / 10)
            except (GlinerPipeError, TooLargeError, TimeoutError) as error:
                return {**known, "error": _line(error)}
            except Exception:
                logger.exception("prediction failed")
                return {**known, "error": "the pipeline failed on this text"}

        async def answers() -> AsyncIterator[bytes]:
            running: deque[asyncio.Task[dict[str, Any]]] = deque()
            try:
                async for line in _lines(request, limits.body_bytes):
                    running.append(asyncio.create_task(one(line)))
                    while running and (running[0].done() or len(running) >= STREAM_AHEAD):
                        yield _json_line(await running.popleft())
                while running:
                    yield _json_line(await running.popleft())
            finally:
                for task in running:
                    task.cancel()

        return _Answers(answers(), media_type="application/x-ndjson")

    @app.get("/info", dependencies=guards, responses={401: _PROBLEMS[401]})
    async def info() -> Info:
        """Describe the pipelines: labels, thresholds, version; and the limits of the server."""
        return Info(
            version=__version__,
            pipelines=[one.info() for one in served.values()],
            limits={name: float(value) for name, value in vars(limits).items()},
        )

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the server runs."""
        return {"status": "ok"}

    @app.get("/ready", responses={503: {"model": Problem, "description": "The pipelines are not loaded yet"}})
    async def ready() -> dict[str, str]:
        """Say whether the server answers requests."""
        if not app.state.ready:
            raise HTTPException(503, "the pipelines are not loaded yet")
        return {"status": "ready"}

    @app.get(
        "/metrics",
        dependencies=guards,
        responses={401: _PROBLEMS[401]},
        response_class=PlainTextResponse,
    )
    async def report() -> Response:
        """Report counts and durations in the format of Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        html = files("gliner_pipe.serving").joinpath("page/index.html").read_text("utf-8")
        return HTMLResponse(with_view(html), headers=_PAGE)

    return app


#: The page has its scripts and styles inside and loads nothing else.
_PAGE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class _Answers(StreamingResponse):
    """A response that is sent while the request is still read; its base class would read the request, too."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send all parts."""
        with suppress(ClientDisconnect):
            await self.stream_response(send)


async def _while_connected(work: Coroutine[Any, Any, _Result], request: Request) -> _Result:
    """Return the result of work that is given up when the client goes away.

    Raises
    ------
    ClientDisconnect
        If the client has gone.
    """
    running = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # the body is read: nothing else can come
    try:
        await asyncio.wait((running, gone), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            raise ClientDisconnect
        return running.result()
    finally:
        running.cancel()
        gone.cancel()
        await asyncio.wait((running, gone))


def _distinct(asked: Sequence[Asked]) -> list[Asked]:
    return list({id(one): one for one in asked}.values())


def _json_line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


async def _lines(request: Request, most: int) -> AsyncIterator[bytes | TooLargeError]:
    """Yield the lines of the body that are not blank; a longer one than `most` bytes as an error, without its end."""
    rest, skipping = b"", False
    async for part in request.stream():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if skipping:
                skipping = False
            elif len(line) > most:
                yield _too_long(most)
            elif line.strip():
                yield line
        if len(rest) > most:
            if not skipping:
                yield _too_long(most)
            rest, skipping = b"", True
    if rest.strip() and not skipping:
        yield rest


def _too_long(most: int) -> TooLargeError:
    return TooLargeError(f"[line] has more than {most} bytes")


# -- errors ------------------------------------------------------------------------------------------------------------


def _add_errors(app: FastAPI) -> None:
    """Answer each error with one line as ``error``."""

    def handler(status: int, headers: dict[str, str] | None = None) -> Any:
        async def answer(_: Request, error: Exception) -> JSONResponse:
            return JSONResponse({"error": _line(error)}, status, headers)

        return answer

    async def http_error(_: Request, error: Any) -> JSONResponse:
        detail = "[body] cannot be read as JSON" if error.status_code == 400 else str(error.detail)
        return JSONResponse({"error": detail}, error.status_code, error.headers)

    async def invalid(request: Request, error: Any) -> JSONResponse:
        kind = request.headers.get("content-type", "").partition(";")[0]
        if error.errors()[0]["loc"] == ("body",) and not kind.endswith("json"):
            return JSONResponse({"error": f"[Content-Type] found {kind!r}; allowed: application/json"}, 415)
        is_json = any(one["type"] == "json_invalid" for one in error.errors())
        return JSONResponse({"error": _line(error)}, 400 if is_json else 422)

    async def gone(_: Request, error: Exception) -> Response:
        return Response(status_code=_GONE)

    async def failed(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "the pipeline failed on a text; the log of the server says why"}, 500)

    app.add_exception_handler(StarletteHTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(TooLargeError, handler(413))
    app.add_exception_handler(DataError, handler(422))
    app.add_exception_handler(ConfigError, handler(422))
    app.add_exception_handler(PredictionError, handler(500))
    app.add_exception_handler(TimeoutError, handler(504))
    app.add_exception_handler(QueueFullError, handler(503, {"Retry-After": str(RETRY_AFTER)}))
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, failed)


def _line(error: Exception) -> str:
    """Return an error as one line."""
    if isinstance(error, QueueFullError):
        return f"{error.waiting} texts wait; try again later"
    if isinstance(error, TimeoutError):
        return "the prediction took too long; send fewer or shorter texts, or try again later"
    if isinstance(error, (RequestValidationError, ValidationError)):
        first = max(
            error.errors(), key=lambda one: len(one["loc"])
        )  # of several types, the one that fits best
        if first["type"] == "json_invalid":
            return f"[body] is not JSON: {first.get('ctx', {}).get('error', first['msg'])}"
        place = [str(part) for part in first["loc"] if not _NO_FIELD.fullmatch(str(part))]
        return f"[{'.'.join(place) or 'body'}] {first['msg']}"
    return textwrap.shorten(str(error), _LONGEST, placeholder=" ...")
