"""The server on Ray Serve: two processes on this machine, in the middle of whose work a signal comes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gliner_pipe.client import Client, ServerError
from gliner_pipe.metrics.alignment import prediction_getter
from gliner_pipe.pipeline.records import entities_of

TEXTS = ["Ada met Charles in London.", "Nobody was there.", "The queen of Spain met Ada."]
LABELS = [["person"], ["city", "person"], ["animal", "queen", "city"]]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_processes_of_ray_answer_as_the_pipeline_and_lose_no_request(nlp: Any, tmp_path: Path) -> None:
    pytest.importorskip("ray.serve")
    nlp.to_disk(tmp_path / "pipeline")

    def expected(number: int) -> list[dict[str, Any]]:
        doc = nlp.make_doc(TEXTS[number % 3])
        doc._.gliner_labels = [{"label": label, "threshold": 0.0} for label in LABELS[number % 2]]
        return [
            {**one, "score": round(one["score"], 4)} for one in entities_of(nlp(doc), prediction_getter(nlp))
        ]

    command = [sys.executable, "-m", "gliner_pipe.serve", "pipeline", "--port", "0", "--engine", "ray"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    env |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    with (
        (tmp_path / "log").open("w+") as log,
        subprocess.Popen(
            [*command, "--replicas", "2"],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            line = next((line for line in process.stdout if "http://" in line), "")
            assert line, (tmp_path / "log").read_text()
            (url,) = re.findall(r"http://127\.0\.0\.1:[1-9]\d*", line)
            reader = threading.Thread(target=process.stdout.read)  # a full pipe would stop the server
            reader.start()

            def asked(number: int) -> Any:
                with Client(url, retries=0) as client:
                    return client.predict(
                        TEXTS[number % 3], labels=LABELS[number % 2], threshold=0.0
                    ).entities

            with ThreadPoolExecutor(8) as pool:
                for number, found in enumerate(pool.map(asked, range(24))):
                    assert [one.model_dump() for one in found] == expected(number)
                running = [pool.submit(asked, number) for number in range(200)]
                running[8].result()
                sent = [one for one in running if one.running() or one.done()]
                process.send_signal(signal.SIGTERM)
            lost = [error for one in sent if (error := one.exception()) is not None]
            # a request that comes after the signal finds no application
            assert all(isinstance(error, ServerError) and error.status == 404 for error in lost), lost
            assert sum(one.exception() is None for one in running) < len(running)
            reader.join()
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 128 + signal.SIGTERM
