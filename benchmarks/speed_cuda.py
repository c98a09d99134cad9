"""Inference on a GPU side by side: this project, the `gliner` package in its several ways, and the bare encoder.

The same weights and texts, in turns, by the clock, with the device's work waited for; what the host computes for each text is
measured as process CPU time beside it. `gliner` runs in fp16 with its best batch size of `--batch-sizes`: plain, with
inference packing, with torch.compile, and with flashdeberta where that is installed; this project in fp32, fp16 and bf16. Beside
them stand the encoder alone over sorted rows, and the peak of the device's products in bf16.

    python benchmarks/speed_cuda.py --data wnut17/test.jsonl --output benchmarks/results/speed_cuda.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import torch
from speed_parts.cases import SAMPLE, Case, label_names, sentences, texts_of
from speed_parts.limits import encoder_operations, head_operations
from speed_parts.models import Bare, checkpoint, fitting_threshold, pipeline, set_max_len

Run = Callable[[], Any]


def timed(run: Run) -> tuple[float, float]:
    """Seconds of a call by the clock, and of the processor in this process."""
    _wait()
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    _wait()
    return time.perf_counter() - wall, time.process_time() - cpu


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak(device: str, size: int = 8192) -> float:
    """Operations a second of a large product in bf16."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    return 2 * size**3 * 10 / timed(lambda: [a @ b for _ in range(10)])[0]


def peers(case: Case, folder: Path, threshold: float, device: str, packed: int) -> dict[str, Any]:
    """Ways to run `gliner`: each takes texts and a batch size."""
    from gliner import GLiNER, InferencePackingConfig

    labels = label_names(case.labels)
    set_max_len(folder, 2048)

    def asked(**options: Any) -> Any:
        settings = {"map_location": device} | ({"dtype": torch.float16} if device != "cpu" else {})
        model = GLiNER.from_pretrained(str(folder), **settings, **options).eval()

        def run(texts: Sequence[str], batch_size: int, **more: Any) -> Any:
            with torch.inference_mode():
                return model.inference(
                    list(texts), labels, threshold=threshold, batch_size=batch_size, **more
                )

        return run

    plain = asked()
    packing = InferencePackingConfig(max_length=packed, streams_per_batch=16)
    ways = {
        "gliner": lambda: plain,
        "gliner, packing": lambda: lambda texts, size: plain(texts, size, packing_config=packing),
    }
    if device != "cpu":
        ways["gliner, compile"] = lambda: asked(compile_torch_model=True)
        if case.backbone.startswith("deberta"):
            ways["gliner, flashdeberta"] = lambda: _with_flash(asked)
    return ways


def _with_flash(asked: Any) -> Any:
    import flashdeberta  # noqa: F401

    os.environ["USE_FLASHDEBERTA"] = "1"
    try:
        return asked()
    finally:
        del os.environ["USE_FLASHDEBERTA"]


def measure(
    case: Case, texts: list[str], given: argparse.Namespace, work: Path, limit: float
) -> dict[str, Any]:
    """Measure one case."""
    folder, device = checkpoint(case, work), given.device
    nlp = pipeline(case, folder, device=device)
    threshold = fitting_threshold(nlp, texts[:6])
    sides: dict[str, Run] = {}
    notes: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for name, make in peers(case, folder, threshold, device, 1024).items():
        try:
            way = make()
            found = {size: _seconds(way, texts, size) for size in given.batch_sizes}
        except Exception as error:
            notes[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            continue
        sizes[name] = min(found, key=lambda size: found[size])
        sides[name] = lambda way=way, size=sizes[name]: way(texts, size)
    for precision in given.precisions:
        ours = pipeline(case, folder, threshold, device=device, dtype=precision.split("+")[0],
                        compile=precision.endswith("+compile"))  # fmt: skip
        for _ in range(2):  # the first call compiles and learns how much memory a piece takes
            list(ours.pipe(texts))
        sides[f"gliner_pipe, {precision}"] = lambda ours=ours: list(ours.pipe(texts))
    bare = Bare(case, work, pipeline(Case(case.backbone, case.architecture, case.text, case.labels), folder, device="cpu"),
                texts, given.rows, padded=True)  # fmt: skip
    bare.to(device, torch.float16 if device != "cpu" else torch.float32)
    sides["encoder alone"] = bare
    bare()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(given.rounds):
        for name, run in sides.items():
            times[name].append(timed(run))
    size = nlp.get_pipe("gliner").gliner.encoder.output_size
    work_done = encoder_operations(bare.model.config, bare.lengths)
    work_done += head_operations(case.architecture, size, bare.n_words, case.labels, len(texts))
    result = {
        **asdict(case), "texts": len(texts), "words": bare.n_words, "batch_size": sizes, "notes": notes, "sides": {},
    }  # fmt: skip
    for name, pairs in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*pairs, strict=True))
        result["sides"][name] = {
            "texts_per_second": round(len(texts) / wall, 1),
            "host_us_per_text": round(1e6 * cpu / len(texts), 1),
            "share_of_peak": round(work_done / wall / limit, 4),
        }
    return result


def _seconds(way: Any, texts: list[str], size: int) -> float:
    way(texts[:256], size)
    return timed(lambda: way(texts[:512], size))[0]


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown."""
    lines = [
        "| encoder | texts | side | texts/s | host, µs a text | share of bf16 peak |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        for name, found in row["sides"].items():
            lines.append(
                f"| {row['backbone']} | {row['text']} | {name} | {found['texts_per_second']:.0f} | "
                f"{found['host_us_per_text']:.0f} | {found['share_of_peak']:.3f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=SAMPLE)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backbones", nargs="+", default=["deberta-v3-small", "deberta-v3-base", "minilm"])
    parser.add_argument(
        "--texts", nargs="+", default=["sentences", "long"], help="sentences, short, mixed, long"
    )
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16", "bf16"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[8, 64, 256])
    parser.add_argument("--number", type=int, default=2048, help="texts of a case")
    parser.add_argument("--rows", type=int, default=32768, help="pieces that the bare encoder gets at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    source = sentences(given.data)
    on_gpu = given.device != "cpu"
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "torch": torch.__version__,
        "peak_tflops_bf16": round(peak(given.device, 8192 if on_gpu else 1024) / 1e12, 3),
        "cases": [],
    }
    print(report, flush=True)
    with tempfile.TemporaryDirectory() as work:
        for backbone in given.backbones:
            for kind in given.texts:
                number = given.number if kind != "long" else given.number // 8
                if kind == "sentences":
                    texts = [" ".join(source[at % len(source)]) for at in range(number)]
                else:
                    texts = texts_of(kind, number, source)
                case = Case(backbone=backbone, text=kind)
                row = measure(case, texts, given, Path(work), report["peak_tflops_bf16"] * 1e12)
                report["cases"].append(row)
                print(table([row]), row["batch_size"], row["notes"], flush=True)
                if given.output:
                    given.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
