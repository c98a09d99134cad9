"""Serve pipelines over HTTP: ``python -m gliner_pipe.serve artifacts/model-best``."""

if __name__ == "__main__":  # before the imports below, which --help does not need
    from gliner_pipe.cli.commands import start

    start("serve")

import errno
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from gliner_pipe.cli.application import Cli
from gliner_pipe.cli.options import command_line
from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.build import pipeline_of
from gliner_pipe.pipeline.labels import split_labels
from gliner_pipe.pipeline.overrides import override
from gliner_pipe.registry import registry
from gliner_pipe.serving.limits import Limits
from gliner_pipe.serving.sharing import SharedWeights
from gliner_pipe.util.optional import library

logger = logging.getLogger("gliner_pipe.serve")
app = Cli()

#: Environment variable with the token that clients must send.
TOKEN = "GLINER_PIPE_TOKEN"
#: Words that spaCy keeps, some 60 MB.
KEEP_WORDS = 50_000
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@app.command(name="serve", registry=registry)
def serve(
    *,
    pipeline: str | list[Any],
    labels: str | list[Any] | None = None,
    relations: str | list[Any] | None = None,
    classes: str | dict[str, Any] | list[Any] | None = None,
    records: str | dict[str, Any] | list[Any] | None = None,
    threshold: float | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    max_body_bytes: int = 4_000_000,
    max_texts: int = 1_000,
    max_characters: int = 1_000_000,
    max_labels: int = 1_000,
    max_queue: int = 4_000,
    max_seconds: float = 60.0,
    log_texts: bool = False,
    engine: Literal["local", "ray"] = "local",
    replicas: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    quantize: str | None = None,
    compile: bool | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Serve pipelines over HTTP, with a page to try them at ``/`` and an API whose requests share batches.

    Parameters
    ----------
    pipeline
        Folder, package or hub id of a spaCy pipeline. Several are written with names, ``news=models/news
        drugs=models/drugs``; requests that name none use the first.
    labels
        Labels that replace the component's own: ``person,organization``, or a JSON list if a label contains a comma.
        Requests may name others.
    relations
        Relation labels that replace the component's own, in the same form.
    classes
        Classifications that replace the component's own, as in its config: ``{"tone": ["good", "bad"]}``; or names of
        some of its own, ``tone,topics``.
    records
        Records that replace the component's own, likewise: ``{"product": ["name", "price"]}``.
    threshold
        Minimum score of an entity, from 0 to 1.
    host
        Address to listen on. By default only programs on this machine can reach the server; ``0.0.0.0`` is all
        addresses.
    port
        Port to listen on; 0 for a free one.
    token
        Token that clients must send (``Authorization: Bearer TOKEN``). Better set the environment variable
        GLINER_PIPE_TOKEN, as other users of the machine see command lines.
    max_body_bytes
        Largest body of a request, in bytes.
    max_texts
        Largest number of texts of a request.
    max_characters
        Largest number of characters of all texts of a request.
    max_labels
        Largest number of labels of a request.
    max_queue
        Largest number of waiting texts. Requests that find no room are answered with 503.
    max_seconds
        Time in which a request must be answered.
    log_texts
        Whether texts of requests are logged.
    engine
        ``local``, or ``ray`` for several processes or machines with Ray Serve.
    replicas
        For Ray: number of processes with the pipelines. By default between 1 and the number of CPUs, as the load needs.
    device
        Device of the model, e.g. ``cpu`` or ``cuda:0``.
    dtype
        Precision of the model: ``fp32``, ``bf16`` or ``fp16``.
    quantize
        ``int8`` for 8-bit linear layers in the text encoder, ``none`` for none.
    compile
        Whether to compile the text encoder with ``torch.compile``.
    trust_remote_code
        Consent to run Python code that comes with the pipeline's models. Read that code first.
    """
    uvicorn = library("uvicorn", "serve", "serve", "the server")
    library("fastapi", "serve", "serve", "the server")
    library("prometheus_client", "serve", "serve", "the server")
    if not 0 <= port <= 65535:
        raise ConfigError("serve.port", f"found {port}", "0 to 65535")
    limits = Limits(
        body_bytes=max_body_bytes,
        texts=min(max_texts, max_queue),
        characters=max_characters,
        labels=max_labels,
        queue=max_queue,
        seconds=max_seconds,
    )
    token = token or os.environ.get(TOKEN) or None
    if token is None and host not in _LOOPBACK:
        logger.warning("Everybody who reaches %s can use this server: set %s to a secret.", host, TOKEN)
    # one compiled kernel for each layer and number of words is kept; torch would keep 1,024 of them, some 300 MB
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    names = _named(pipeline)
    settings: dict[str, Any] = {
        "labels": split_labels(labels),
        "relations": split_labels(relations),
        "classes": classes,
        "records": records,
        "threshold": threshold,
        "device": device,
        "dtype": dtype,
        "quantize": quantize,
        "compile": compile,
    }

    def loaded() -> dict[str, Any]:
        found, weights = {}, SharedWeights()
        for name, one in names.items():
            found[name] = pipeline_of(one, trust_remote_code)
            override(found[name], **settings)
            weights.add(found[name])
        return found

    options: dict[str, Any] = {
        "limits": limits,
        "token": token,
        "log_texts": log_texts,
        "keep_words": KEEP_WORDS,
    }
    if engine == "ray":
        from gliner_pipe.serving.on_ray import run

        with _listening(host, port) as free:  # says what is wrong with the address, and finds a free port
            port = free.getsockname()[1]
        run(loaded, options, host, port, replicas)
        return
    if replicas is not None:
        raise ConfigError("serve.replicas", f"found {replicas} without Ray", do="Add --engine ray")
    from gliner_pipe.serving.app import create_app

    application = create_app(loaded(), **options)
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, int(max_seconds) + 1),
        )
    )
    with _listening(host, port) as listening:
        address = f"[{host}]" if ":" in host else host
        logger.info("http://%s:%d", address, listening.getsockname()[1])
        server.run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Raises
    ------
    ConfigError
        If it is not free or not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        do = "Choose another --port" if error.errno == errno.EADDRINUSE else "Check --host and --port"
        raise ConfigError(
            "serve.port", f"found {host}:{port}: {error.strerror or error}", "a free one", do
        ) from None
    listening.listen(2048)
    return listening


def _named(pipeline: str | list[Any]) -> dict[str, Any]:
    """Return the pipelines by name."""
    named: dict[str, Any] = {}
    for one in pipeline.split(",") if isinstance(pipeline, str) else pipeline:
        name, equals, path = one.partition("=") if isinstance(one, str) else ("", "", "")
        if not (equals and name.replace("-", "_").isidentifier()):
            name, path = ("default" if not named else f"pipeline{len(named) + 1}"), one
        if name in named:
            raise ConfigError("serve.pipeline", f"names {name!r} twice", "different names")
        local = isinstance(path, str) and Path(path).exists()
        named[name] = (
            str(Path(path).resolve()) if local else path
        )  # processes of Ray have another current folder
    return named


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; the pipeline may be positional."""
    command_line("serve", app, serve, argv, logs=True)
