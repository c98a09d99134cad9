"""Time to the first step, peak memory and speed of trainings on many records: on disk against in memory.

The records of a file are repeated under new ids until there are enough. Each training is a process of its own, the first
of each size reads the data and the second finds them on disk, as a resumed training does. Of memory, what the process
itself occupies in the end and at most, and the most of any process that reads the data with it, are measured.

    python benchmarks/big_data.py --data PATH/mix/train_permissive.jsonl --output benchmarks/results/big_data.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import minilm

#: Records from which on nothing is held in memory: a record needs 21 KB.
MOST_IN_MEMORY = 100_000
WARM_UP = 3


def repeated(source: Path, number: int, target: Path) -> None:
    """Write so many records, the same ones again and again with other ids."""
    records = [json.loads(line) for line in source.read_text(encoding="utf8").splitlines()]
    with target.open("w", encoding="utf8") as stream:
        for i in range(number):
            record = {**records[i % len(records)], "id": f"{i}"}
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")


class Ticking:
    """A logger that takes the time and counts the words of each step."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float, int]] = []

    def start(self, run) -> None: ...

    def step(self, record) -> None:
        self.steps.append((time.perf_counter(), time.process_time(), record["words"]))

    def validation(self, record) -> None: ...

    def finish(self) -> None: ...


def one(data: Path, in_memory: bool, steps: int, work: Path, started: float) -> dict:
    """Train for some steps and return what was measured; `started` is when the process was started."""
    from gliner_pipe.train import train

    ticking = Ticking()
    backbone = {"@backbones": "transformer", "model": str(minilm())}
    model = {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "encoder": {"@encoders": "uni_encoder", "backbone": backbone},
    }
    train(
        {"lang": "en", "components": {"gliner": {"@factory": "gliner", "model": model}}},
        train_data={"reader": str(data), "keep_in_memory": in_memory},
        max_steps=steps,
        batch_size="16 samples",
        loggers=[ticking],
        save_total_limit=0,
        cpu=True,
        output_path=work,
        overwrite=True,
    )
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    (wall, cpu, _), (last_wall, last_cpu, _) = ticking.steps[WARM_UP - 1], ticking.steps[-1]
    words = sum(number for _, _, number in ticking.steps[WARM_UP:])
    first_wall, first_cpu, _ = ticking.steps[0]
    disk = sum(file.stat().st_size for file in work.glob("data-cache/*"))
    return {
        "first_step_s": round(first_wall + time.time() - time.perf_counter() - started, 1),
        "first_step_cpu_s": round(first_cpu + others.ru_utime + others.ru_stime, 1),
        "peak_mb": own.ru_maxrss // 1024,
        "peak_reading_process_mb": others.ru_maxrss // 1024,
        "words_per_second": round(words / (last_wall - wall)),
        "words_per_cpu_second": round(words / (last_cpu - cpu)),
        "disk_mb": disk // 10**6,
        "load": round(os.getloadavg()[0], 1),
    }


def measured(data: Path, in_memory: bool, steps: int, work: Path) -> dict:
    """Train in a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--one",
        "--data",
        str(data),
        "--steps",
        str(steps),
        "--work",
        str(work),
    ]
    command += ["--in_memory"] if in_memory else []
    run = subprocess.run(
        [*command, "--started", str(time.time())], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="records in GLiNER's format, as JSON Lines")
    parser.add_argument("--output", type=Path, help="file of the results")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--work", type=Path, help="folder with room for the records; temporary by default")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--in_memory", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        found = one(args.data, args.in_memory, args.steps, args.work, args.started)
        print(json.dumps(found))
        return
    results = []
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        for size in args.sizes:
            data = Path(work) / f"{size}.jsonl"
            repeated(args.data, size, data)
            kinds = [("disk, first time", False), ("disk, found again", False)]
            kinds += [("memory", True)] if size <= MOST_IN_MEMORY else []
            for kind, in_memory in kinds:
                folder = Path(work) / f"{size}-{in_memory}"
                folder.mkdir(exist_ok=True)
                found = measured(data, in_memory, args.steps, folder)
                results.append({"records": size, "kind": kind, **found})
                print(json.dumps(results[-1]), flush=True)
            data.unlink()
    facts = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "steps": args.steps}
    if args.output:
        args.output.write_text(json.dumps({**facts, "results": results}, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
