"""CPU time of text encoders in several precisions, in turns, on the same pieces.

Weights are random, as they make no difference to the time; what precision does to scores is measured with a trained
pipeline by ``python -m gliner_pipe.evaluate --dtype bf16 --compare fp32``.

    python benchmarks/precision.py --output benchmarks/results/precision.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import DEBERTA_V3
from transformers import AutoConfig, AutoModel

from gliner_pipe.modeling.precision import Precision, reduced_copy

#: Hidden size, layers, heads, inner size.
SHAPES = {
    "minilm": (384, 6, 12, 1536),
    "deberta-v3-small": (768, 6, 12, 3072),
    "deberta-v3-base": (768, 12, 12, 3072),
}
#: Rows and pieces: one text, a batch of sentences, a batch of long texts.
BATCHES = ((1, 32), (16, 64), (8, 192))


def encoder(name: str) -> Any:
    hidden, layers, heads, inner = SHAPES[name]
    kind = "bert" if name == "minilm" else "deberta-v2"
    config = AutoConfig.for_model(
        kind,
        vocab_size=8000,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        **(DEBERTA_V3 if kind == "deberta-v2" else {}),
    )
    model = AutoModel.from_config(config).eval()
    if kind == "deberta-v2":
        from gliner_pipe.modeling.layers.deberta import replace_attention

        replace_attention(model)
    return model


def measure(name: str, precisions: list[str], rounds: int, seconds: float) -> list[dict[str, Any]]:
    model = encoder(name)
    with torch.no_grad():
        runs = {text: reduced_copy(model, Precision.parse(text, "precision"), "") for text in precisions}
    rows = []
    with torch.inference_mode():
        for batch in BATCHES:
            inputs = {
                "input_ids": torch.randint(5, 8000, batch),
                "attention_mask": torch.ones(batch, dtype=torch.long),
            }
            inputs["attention_mask"][: batch[0] // 2, -4:] = 0
            first, taken = {}, {text: [] for text in runs}
            for text, run in runs.items():
                start = time.process_time()
                run(**inputs)
                first[text] = time.process_time() - start
            for _ in range(rounds):
                for text, run in runs.items():
                    start, n = time.process_time(), 0
                    while time.process_time() - start < seconds:
                        run(**inputs)
                        n += 1
                    taken[text].append((time.process_time() - start) / n)
            for text, times in taken.items():
                ratios = [full / one for full, one in zip(taken["fp32"], times, strict=True)]
                row = {"encoder": name, "rows": batch[0], "pieces": batch[1], "precision": text}
                row |= {
                    "seconds": median(times),
                    "speedup": median(ratios),
                    "first_call_seconds": first[text],
                }
                print(
                    " ".join(
                        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
                        for key, value in row.items()
                    ),
                    flush=True,
                )
                rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", default=",".join(SHAPES))
    parser.add_argument("--precisions", default="fp32,bf16,int8,bf16+int8", help="fp32 must be among them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="least time of one measurement")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.encoders.split(","):
        rows += measure(name, options.precisions.split(","), options.rounds, options.seconds)
    if options.output:
        facts = {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability(), "rows": rows}
        options.output.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
