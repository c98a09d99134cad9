"""Runs the application on Ray Serve: several processes, on one machine or many."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from spacy.language import Language

from gliner_pipe.util.optional import library


def deployment(
    load: Callable[[], Mapping[str, Language]], options: Mapping[str, Any], replicas: int | None
) -> Any:
    """Return the Ray Serve application.

    Parameters
    ----------
    load
        Loads the pipelines; called in each process.
    options
        Arguments of ``create_app``.
    replicas
        Number of processes; None for as many as the load needs, up to the number of CPUs.
    """
    serve = library("ray.serve", "serve.engine", "serve,ray", "the engine ray")
    scale: dict[str, Any] = {"num_replicas": replicas}
    if replicas is None:
        scale = {"autoscaling_config": {"min_replicas": 1, "max_replicas": os.cpu_count() or 1}}

    def build() -> Any:
        from gliner_pipe.serving.app import create_app

        return create_app(load(), **options)

    made: Any

    @serve.deployment(max_ongoing_requests=options["limits"].queue, **scale)
    @serve.ingress(build)
    class Pipelines:
        """The application in a process of its own."""

    made = Pipelines
    return made.bind()


def run(
    load: Callable[[], Mapping[str, Language]],
    options: Mapping[str, Any],
    host: str,
    port: int,
    replicas: int | None,
) -> None:
    """Start the application, and wait until it is stopped."""
    serve = library("ray.serve", "serve.engine", "serve,ray", "the engine ray")
    serve.start(http_options={"host": host, "port": port})
    serve.run(deployment(load, options, replicas), blocking=True)
