"""Middleware: measures requests, and refuses bodies that are too large before they are in memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any


class Measured:
    """ASGI middleware that reports method, route, status and seconds of each request.

    Parameters
    ----------
    app
        The application.
    report
        Called at the end of each answer.
    """

    def __init__(self, app: Any, report: Callable[[str, str, int, float], None]) -> None:
        self.app, self.report = app, report

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Run the application on a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # the server leaves the body out
        started, status = time.perf_counter(), 500

        async def seen(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, seen)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.report(scope["method"], route, status, time.perf_counter() - started)


class BodyLimit:
    """ASGI middleware that answers 413 to a body of more bytes than allowed.

    Parameters
    ----------
    app
        The application.
    most
        Maximum number of bytes.
    unlimited
        Paths of streams, which are read a line at a time.
    """

    def __init__(self, app: Any, most: int, unlimited: Sequence[str] = ()) -> None:
        self.app, self.most, self.unlimited = app, most, unlimited

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Run the application on a request."""
        if scope["type"] != "http" or scope["path"] in self.unlimited:
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 18 or int(length) > self.most:
            await self._refuse(send)
            return
        read, refused = 0, False

        async def counted() -> Any:
            nonlocal read, refused
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.most:
                refused = True
                return {"type": "http.disconnect"}
            return message

        async def answered(message: Any) -> None:
            if not refused:
                await send(message)

        try:
            await self.app(scope, counted, answered)
        except Exception:
            if not refused:
                raise
        if refused:
            await self._refuse(send)

    async def _refuse(self, send: Any) -> None:
        body = json.dumps({"error": f"[body] has more than {self.most} bytes"}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body})
