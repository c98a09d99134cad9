"""Runs the application on Ray Serve: several processes, on one machine or many."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

from spacy.language import Language

from gliner_pipe.errors import ConfigError
from gliner_pipe.prediction.cluster import wants_gpu
from gliner_pipe.serving.app import create_app
from gliner_pipe.util.console import ConsoleHandler
from gliner_pipe.util.optional import library

logger = logging.getLogger("gliner_pipe.serve")

#: Name of the application in Ray Serve, beside which others may run.
NAME = "gliner_pipe"
#: Requests that a process has at once before Ray starts another: with more of them, a batch gets only longer.
REQUESTS = 8


def run(
    load: Callable[[], Mapping[str, Language]],
    options: Mapping[str, Any],
    host: str,
    port: int,
    replicas: int | None,
) -> None:
    """Start the application and wait for a signal; then answer the requests that were accepted, and stop.

    Parameters
    ----------
    load
        Loads the pipelines; called in each process, and once here to check them.
    options
        Arguments of ``create_app``.
    host, port
        Address to listen on.
    replicas
        Number of processes; None for as many as the load needs, up to the number of CPUs of the cluster, or of GPUs if
        a model runs on one.
    """
    ray = library("ray", "serve.engine", "ray-serve", "the engine ray")
    serve = library("ray.serve", "serve.engine", "ray-serve", "the engine ray")
    pipelines = load()
    create_app(pipelines, **options)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ray.init(include_dashboard=False, logging_level="ERROR")
    try:
        for number, handler in handlers.items():  # those of Ray end the process at once
            signal.signal(number, handler)
        resources = ray.cluster_resources()
        gpus = int(any(wants_gpu(nlp, resources) for nlp in pipelines.values()))
        del pipelines
        most = max(1, int(resources.get("GPU" if gpus else "CPU", 1)))
        logs = {"log_level": "WARNING", "enable_access_log": False}
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(http_options={"host": host, "port": port}, logging_config=logs)
        if NAME in serve.status().applications:
            do = f"Stop it: ray.serve.delete({NAME!r})"
            raise ConfigError("serve.engine", f"this Ray cluster has an application {NAME!r}", do=do)
        try:
            serve.run(_application(load, options, replicas, most, gpus), name=NAME, logging_config=logs)
            logger.info("http://%s:%d", f"[{host}]" if ":" in host else host, port)
            threading.Event().wait()
        finally:
            serve.delete(NAME)
            if not serve.status().applications:
                serve.shutdown()
    finally:
        ray.shutdown()


def _application(
    load: Callable[[], Mapping[str, Language]],
    options: Mapping[str, Any],
    replicas: int | None,
    most: int,
    gpus: int,
) -> Any:
    """Return the Ray Serve application."""
    from ray import serve

    def build() -> Any:
        logs = logging.getLogger("gliner_pipe")
        logs.setLevel(logging.INFO)
        logs.addHandler(ConsoleHandler(stderr=False))
        return create_app(load(), **options)

    limits = options["limits"]
    scale: dict[str, Any] = {"num_replicas": replicas}
    if replicas is None:
        scaling = {"min_replicas": 1, "max_replicas": most, "target_ongoing_requests": REQUESTS}
        scale = {"autoscaling_config": scaling}
    deployed = serve.deployment(
        name="pipelines",
        max_ongoing_requests=limits.queue,
        graceful_shutdown_timeout_s=limits.seconds + 1,
        ray_actor_options={"num_cpus": 1, "num_gpus": gpus},
        **scale,
    )
    return deployed(serve.ingress(build)()).bind()
