"""DeBERTa encoders with random weights: the attention of `transformers` against the fast one.

Both run in turns in one process, one thread, and process CPU time is what counts. Beside it stands the share of the
machine's peak (of a product of two matrices of 2048 x 2048) that the floating point operations that are needed make up.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from pathlib import Path

import torch
from common import DEBERTA_V3
from transformers import DebertaV2Config, DebertaV2Model

from gliner_pipe.modeling.layers.deberta import replace_attention

#: Hidden size, layers, heads and width of the feed-forward layers.
ENCODERS = {
    "xsmall": (384, 12, 6, 1536),
    "small": (768, 6, 12, 3072),
    "base": (768, 12, 12, 3072),
}
SHAPES = [(1, 48), (8, 64), (4, 192)]
TRAINING_SHAPE = (16, 64)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def make(name: str) -> DebertaV2Model:
    hidden, layers, heads, width = ENCODERS[name]
    config = DebertaV2Config(
        vocab_size=1000,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=width,
        **DEBERTA_V3,
    )
    return DebertaV2Model(config)


def batch(rows: int, length: int) -> dict[str, torch.Tensor]:
    mask = torch.ones(rows, length, dtype=torch.long)
    if rows > 1:
        mask[0, -3:] = 0
    return {"input_ids": torch.randint(1, 1000, (rows, length)), "attention_mask": mask}


def run(model: DebertaV2Model, inputs: dict[str, torch.Tensor], training: bool) -> float:
    start = time.process_time()
    if training:
        model(**inputs).last_hidden_state.square().mean().backward()
        model.zero_grad()
    else:
        with torch.inference_mode():
            model(**inputs)
    return time.process_time() - start


def needed(name: str, rows: int, length: int, training: bool) -> float:
    """Floating point operations of an encoder that computes nothing twice."""
    hidden, layers, _, width = ENCODERS[name]
    forward = rows * length * layers * (2 * (4 * hidden**2 + 2 * hidden * width) + 8 * length * hidden)
    return 3 * forward if training else forward


def peak(dtype: torch.dtype) -> float:
    a, b = torch.randn(2048, 2048, dtype=dtype), torch.randn(2048, 2048, dtype=dtype)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        a @ b
        seconds.append(time.process_time() - start)
    return 2 * 2048**3 / min(seconds)


def compare(name: str, dtype: str, shape: tuple[int, int], training: bool, repeats: int) -> dict[str, object]:
    torch.manual_seed(0)
    theirs = make(name).to(DTYPES[dtype]).train(training)
    ours = copy.deepcopy(theirs)
    assert replace_attention(ours) == 1
    inputs = batch(*shape)
    if not training:
        with torch.inference_mode():
            found, expected = ours(**inputs).last_hidden_state, theirs(**inputs).last_hidden_state
        difference = float((found - expected).abs().max() / expected.abs().max())
    seconds: dict[str, list[float]] = {"transformers": [], "gliner_pipe": []}
    run(theirs, inputs, training), run(ours, inputs, training)
    for _ in range(repeats):
        seconds["transformers"].append(run(theirs, inputs, training))
        seconds["gliner_pipe"].append(run(ours, inputs, training))
    medians = {who: statistics.median(times) for who, times in seconds.items()}
    result: dict[str, object] = {
        "encoder": name,
        "dtype": dtype,
        "rows x pieces": "x".join(map(str, shape)),
        "what": "training step" if training else "inference",
        **{f"{who}: ms": round(1000 * value, 1) for who, value in medians.items()},
        "times faster": round(medians["transformers"] / medians["gliner_pipe"], 2),
        "share of peak": round(
            needed(name, *shape, training) / medians["gliner_pipe"] / peak(DTYPES[dtype]), 2
        ),
    }
    if not training:
        result["largest difference"] = float(f"{difference:.1e}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoders", nargs="+", choices=sorted(ENCODERS), default=list(ENCODERS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, help="JSON; what it holds already is not measured again")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    if args.output and args.output.is_file():
        rows = json.loads(args.output.read_text(encoding="utf8"))["results"]
    done = [[row[key] for key in ("encoder", "dtype", "rows x pieces", "what")] for row in rows]
    for name in args.encoders:
        cases = [(dtype, shape, False) for shape in SHAPES for dtype in DTYPES]
        for dtype, shape, training in [*cases, ("fp32", TRAINING_SHAPE, True)]:
            if [name, dtype, "x".join(map(str, shape)), "training step" if training else "inference"] in done:
                continue
            rows.append(compare(name, dtype, shape, training, args.repeats))
            print(json.dumps(rows[-1]), flush=True)
            if args.output:
                content = {"torch": torch.__version__, "threads": 1, "repeats": args.repeats, "results": rows}
                args.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
