"""Requests of many clients to a server of gliner_pipe, against a plain FastAPI application with GLiNER, on the same weights.

Each request is one text with labels of its own. For ours every answer is compared with that of `nlp(text)`. The servers
are processes on this machine that share its CPUs with the clients. At the end ours is stopped by SIGTERM in the middle of
requests: all that it had accepted must be answered.

    python benchmarks/serving.py --checkpoint PATH --texts PATH/test.jsonl --output benchmarks/results/serving.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
from common import records

LABELS = ["person", "location", "organization", "date", "product", "event", "group", "work of art"]

PLAIN = """
import sys
from fastapi import FastAPI
from pydantic import BaseModel
import uvicorn
from gliner import GLiNER

model = GLiNER.from_pretrained(sys.argv[1])
model.eval()
app = FastAPI()

class Request(BaseModel):
    text: str
    labels: list[str]

@app.get("/ready")
def ready():
    return {}

@app.post("/predict")
def predict(request: Request):
    return model.predict_entities(request.text, request.labels, threshold=0.5)

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(command: list[str], port: int) -> subprocess.Popen:
    process = subprocess.Popen(command)
    for _ in range(600):
        try:
            if httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
                return process
        except httpx.TransportError:
            pass
        if process.poll() is not None:
            raise SystemExit(f"the server ended: {command}")
        time.sleep(0.2)
    raise SystemExit(f"the server does not answer: {command}")


def asked(texts: list[str], number: int) -> list[tuple[str, list[str]]]:
    rng = random.Random(0)
    return [(texts[i % len(texts)], rng.sample(LABELS, rng.randint(2, 5))) for i in range(number)]


def ours(text: str, labels: list[str]) -> dict:
    return {"texts": [text], "labels": labels, "threshold": 0.5}


def theirs(text: str, labels: list[str]) -> dict:
    return {"text": text, "labels": labels}


async def ask(
    port: int, requests: list, clients: int, body, keep: bool = True
) -> tuple[list, list[float], float]:
    """Return status and answer of each request, its seconds, and the seconds of all."""
    answers: list = [None] * len(requests)
    seconds: list[float] = []
    todo = iter(range(len(requests)))

    async def client(http: httpx.AsyncClient) -> None:
        async with http:
            for place in todo:
                started = time.perf_counter()
                try:
                    answer = await http.post(f"http://127.0.0.1:{port}/predict", json=body(*requests[place]))
                    answers[place] = (answer.status_code, answer.json())
                except httpx.TransportError as error:
                    answers[place] = (0, type(error).__name__)
                seconds.append(time.perf_counter() - started)

    limits = httpx.Limits(max_keepalive_connections=None if keep else 0)
    # made before the clock starts, and without certificates, whose loading would cost as much as three texts
    made = [httpx.AsyncClient(timeout=300, limits=limits, verify=False) for _ in range(clients)]
    started = time.perf_counter()
    await asyncio.gather(*map(client, made))
    return answers, seconds, time.perf_counter() - started


def measure(
    name: str, process: subprocess.Popen, port: int, requests: list, clients: int, body
) -> tuple[dict, list]:
    watched = psutil.Process(process.pid)
    before, cpu = watched.memory_info().rss, sum(watched.cpu_times()[:2])
    answers, seconds, whole = asyncio.run(ask(port, requests, clients, body))
    row = {
        "server": name,
        "clients": clients,
        "requests": len(requests),
        "failed": sum(status != 200 for status, _ in answers),
        "texts_per_second": round(len(requests) / whole, 1),
        "texts_per_cpu_second": round(len(requests) / (sum(watched.cpu_times()[:2]) - cpu), 1),
        "p50_ms": round(1000 * statistics.median(seconds)),
        "p95_ms": round(1000 * statistics.quantiles(seconds, n=20)[-1]),
        "memory_before_mb": before >> 20,
        "memory_after_mb": watched.memory_info().rss >> 20,
    }
    print(json.dumps(row), flush=True)
    return row, answers


def serial(pipeline: Path, requests: list) -> list:
    """Return what `nlp(text)` finds, in the form of the answers."""
    import gliner_pipe
    from gliner_pipe.metrics.alignment import prediction_getter
    from gliner_pipe.pipeline.records import entities_of

    nlp = gliner_pipe.load(pipeline)
    found = []
    for text, labels in requests:
        doc = nlp.make_doc(text)
        doc._.gliner_labels = [{"label": label, "threshold": 0.5} for label in labels]
        entities = entities_of(nlp(doc), prediction_getter(nlp))
        found.append([{**entity, "score": round(entity["score"], 4)} for entity in entities])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="of GLiNER")
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--peer_requests", type=int, default=300, help="fewer, as it is slower")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    texts = [" ".join(record["tokenized_text"]) for record in records(args.texts)][:500]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Path(folder) / "pipeline"
        convert = [sys.executable, "-m", "gliner_pipe.convert", str(args.checkpoint), str(pipeline)]
        subprocess.run([*convert, "--labels", *LABELS], check=True)
        port = free_port()
        process = start([sys.executable, "-m", "gliner_pipe.serve", str(pipeline), "--port", str(port)], port)
        requests = asked(texts, args.requests)
        row, answers = measure("gliner_pipe", process, port, requests, args.clients, ours)
        expected = serial(pipeline, requests)
        row["equal"] = sum(
            status == 200 and answer["predictions"][0]["entities"] == one
            for (status, answer), one in zip(answers, expected, strict=True)
        )
        print(f"{row['equal']} of {len(requests)} answers are those of nlp(text)")
        rows += [row, measure("gliner_pipe", process, port, requests[: args.peer_requests], 1, ours)[0]]

        async def stopped() -> list:
            running = asyncio.create_task(ask(port, requests[:400], args.clients, ours, False))
            await asyncio.sleep(1)
            process.send_signal(signal.SIGTERM)
            return (await running)[0]

        answers = asyncio.run(stopped())
        # of a request that was not accepted, the connection is refused or reset
        refused = ("ConnectError", "ReadError")
        lost = sum(status != 200 and answer not in refused for status, answer in answers)
        answered = sum(status == 200 for status, _ in answers)
        rows.append(
            {"server": "gliner_pipe, stopped", "answered": answered, "lost": lost, "exit": process.wait(60)}
        )
        print(json.dumps(rows[-1]))

        script, port = Path(folder) / "plain.py", free_port()
        script.write_text(PLAIN)
        process = start([sys.executable, str(script), str(args.checkpoint), str(port)], port)
        requests = requests[: args.peer_requests]
        rows.append(measure("FastAPI and gliner", process, port, requests, args.clients, theirs)[0])
        rows.append(measure("FastAPI and gliner", process, port, requests, 1, theirs)[0])
        process.kill()
    if args.output:
        args.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
