"""Inference side by side: this project, the `gliner` package, and the bare encoder, with the same weights.

Each case is measured in turns, several rounds in one process with one thread, as process CPU time: `gliner` with its
documented call (8 texts a batch, label vectors of a bi-encoder made beforehand), `nlp.pipe` over raw text, and the encoder
alone in transformers over the same pieces without any padding. Beside them stands the peak of the machine's matrix products
and the share of it that the work, counted without padding, amounts to. The suite ``memory`` measures the peak of the
resident memory, in a process of its own for each case and side.

    python benchmarks/speed.py --suite full --output benchmarks/results/speed.json --plot docs/assets/speed.png
    python benchmarks/speed.py --suite growth --output benchmarks/results/speed_growth.json
    python benchmarks/speed.py --suite memory --output benchmarks/results/speed_memory.json

Texts are those of the sample, cut to lengths; `--data PATH/test.jsonl` takes others, in GLiNER's format.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from speed_parts import memory
from speed_parts.cases import N_TEXTS, SAMPLE, Case, sentences, suite, texts_of
from speed_parts.limits import encoder_operations, head_operations, peak
from speed_parts.models import PIECES_AT_ONCE, Bare, Peer, checkpoint, fitting_threshold, pipeline


def timed(run: Callable[[], Any]) -> float:
    """CPU seconds of a call."""
    gc.collect()
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(
    case: Case, source: list[list[str]], rounds: int, work: Path, limits: dict[str, float], scale: int = 1
) -> dict[str, Any]:
    """Measure one case."""
    texts = texts_of(case.text, scale * N_TEXTS[case.text], source)
    folder = checkpoint(case, work)
    plain = Case(case.backbone, case.architecture, case.text, case.labels)
    threshold = fitting_threshold(pipeline(plain, folder), texts[:6])
    nlp = pipeline(case, folder, threshold)
    gliner = Peer(case, folder, threshold, 1 if case.one_by_one else 8)
    bare = Bare(case, work, pipeline(plain, folder), texts, 1 if case.one_by_one else PIECES_AT_ONCE)
    sides: dict[str, Callable[[], Any]] = {
        "gliner": (lambda: [gliner([text]) for text in texts]) if case.one_by_one else lambda: gliner(texts),
        "gliner_pipe": lambda: [nlp(text) for text in texts] if case.one_by_one else list(nlp.pipe(texts)),
        "encoder": bare,
    }
    if case.precision == "int8":
        del sides["encoder"]  # transformers has none
    theirs, ours = gliner(texts[:32]), list(nlp.pipe(texts[:32]))
    for run in sides.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            times[name].append(timed(run))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    config = bare.model.config
    size = nlp.get_pipe("gliner").gliner.encoder.output_size
    work_done = encoder_operations(config, bare.lengths)
    work_done += head_operations(case.architecture, size, bare.n_words, case.labels, len(texts))
    return {
        **asdict(case),
        "texts": len(texts),
        "words": bare.n_words,
        "texts_per_cpu_second": {name: round(len(texts) / value, 2) for name, value in seconds.items()},
        "times_faster": round(
            statistics.median(a / b for a, b in zip(times["gliner"], times["gliner_pipe"], strict=True)), 2
        ),
        "share_of_peak": {
            name: round(work_done / value / limits[case.precision], 3)
            for name, value in seconds.items()
            if name != "encoder"
        },
        "entities": sum(map(len, theirs)),
        "same_entities": round(_agreement(theirs, ours), 4),
    }


def _agreement(theirs: list[list[dict[str, Any]]], ours: list[Any]) -> float:
    """F1 of our entities against those of `gliner`."""
    common = total = 0
    for expected, doc in zip(theirs, ours, strict=True):
        a = {(one["start"], one["end"], one["label"]) for one in expected}
        b = {(span.start_char, span.end_char, span.label_) for span in doc.spans["gliner"]}
        common += 2 * len(a & b)
        total += len(a) + len(b)
    return common / total if total else 1.0


# -- growth ------------------------------------------------------------------------------------------------------------


def growth(source: list[list[str]], rounds: int, work: Path, only: str = "") -> list[dict[str, Any]]:
    """CPU seconds of 1000 words by length of the text, number of labels, and size of the batch."""
    rows: list[dict[str, Any]] = []
    words = [word for sentence in source for word in sentence]

    def add(
        what: str, at: int, case: Case, texts: list[str], batch: int = 64, with_peer: bool = True
    ) -> None:
        if only not in f"{what} {at}":
            return
        folder = checkpoint(case, work)
        threshold = fitting_threshold(pipeline(case, folder), texts[:2])
        nlp = pipeline(case, folder, threshold, batch_size=batch)
        sides: dict[str, Callable[[], Any]] = {"gliner_pipe": lambda: list(nlp.pipe(texts))}
        if with_peer:
            peer = Peer(case, folder, threshold, min(batch, 64))
            sides["gliner"] = lambda: peer(texts)
        times: dict[str, list[float]] = {name: [] for name in sides}
        for run in sides.values():
            run()
        for _ in range(rounds):
            for name, run in sides.items():
                times[name].append(timed(run))
        n_words = sum(len(text.split()) for text in texts) / 1000
        found = {name: round(statistics.median(values) / n_words, 3) for name, values in times.items()}
        rows.append({"by": what, "at": at, "cpu_seconds_per_1000_words": found})
        print(rows[-1], flush=True)

    for length in (8, 32, 128, 512, 2048, 8192):
        n_texts = max(1, 1024 // length)
        texts = [
            " ".join(words[(at * length + k) % len(words)] for k in range(length)) for at in range(n_texts)
        ]
        add("words of a text", length, Case(), texts, batch=8, with_peer=length <= 1024)
    mixed = texts_of("mixed", 32, source)
    for labels in (1, 5, 25, 100):
        add("labels, uni_span", labels, Case(backbone="minilm", labels=labels), mixed, batch=8)
    for labels in (5, 25, 100, 400):
        add("labels, bi_span", labels, Case("minilm", "bi_span", labels=labels), mixed, batch=8)
    for batch in (1, 4, 16, 64):
        add("texts of a batch", batch, Case(backbone="minilm"), texts_of("mixed", 64, source), batch=batch)
    return rows


# -- the table -----------------------------------------------------------------------------------------------------------


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown."""
    head = "| case | `gliner` | `gliner_pipe` | times faster | bare encoder | share of peak |"
    lines = [head, "|" + "---|" * 6]
    for row in rows:
        text = row["text"] + ", one by one" * row["one_by_one"]
        name = f"{row['backbone']}, {row['architecture']}, {text}, {row['labels']} labels, {row['precision']}"
        speed, share = row["texts_per_cpu_second"], row["share_of_peak"]
        lines.append(
            f"| {name} | {speed['gliner']:.1f} | {speed['gliner_pipe']:.1f} | **{row['times_faster']:.2f}** | "
            f"{speed.get('encoder', float('nan')):.1f} | {share['gliner']:.2f} / {share['gliner_pipe']:.2f} |"
        )
    return "\n".join(lines)


def _write(report: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", choices=("quick", "full", "growth", "memory"), default="quick")
    parser.add_argument("--data", type=Path, default=SAMPLE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=int, default=1, help="how many times as many texts")
    parser.add_argument("--only", help="run only what has this in its name")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    source = sentences(given.data)
    report: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "threads": 1}
    with tempfile.TemporaryDirectory() as work:
        if given.suite == "growth":
            report["growth"] = growth(source, given.rounds, Path(work), given.only or "")
        elif given.suite == "memory":
            report["memory"] = memory.measure_all(given.data.resolve(), Path(work), given.only or "")
            print(memory.table(report["memory"]))
        else:
            cases = [case for case in suite(given.suite) if not given.only or given.only in case.name]
            limits = {
                precision: peak(precision) for precision in {case.precision for case in cases} | {"fp32"}
            }
            report["peak_gflops"] = {name: round(value / 1e9, 1) for name, value in limits.items()}
            report["cases"] = []
            for case in cases:
                row = measure(case, source, given.rounds, Path(work), limits, given.scale)
                report["cases"].append(row)
                print(case.name, row, flush=True)
                _write(report, given.output)
            print(report["peak_gflops"])
            print(table(report["cases"]))
    _write(report, given.output)
    if given.plot:
        from speed_parts.plot import draw

        draw(report, given.plot)


if __name__ == "__main__":
    main()
