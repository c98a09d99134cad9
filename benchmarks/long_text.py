"""Does a passage keep its entities wherever it stands in a long document?

A passage that fits into one window is set into other text at many places of a document of 20,000 words, window borders
among them; its entities there are compared with those found in it alone. Also measured: the peak of memory for documents
of growing length.

    python benchmarks/long_text.py --pipeline PATH --texts PATH/test.jsonl --output benchmarks/results/long_text.json

`--texts` holds sentences in GLiNER's format.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import spacy
from spacy.tokens import Doc


def read(path: Path) -> list[list[str]]:
    return [json.loads(line)["tokenized_text"] for line in path.read_text(encoding="utf8").splitlines()]


def entities(doc: Doc, start: int = 0, stop: int | None = None) -> set[tuple[int, int, str]]:
    stop = len(doc) if stop is None else stop
    return {
        (span.start - start, span.end - start, span.label_)
        for span in doc.spans["gliner"]
        if start <= span.start and span.end <= stop
    }


def run(args: argparse.Namespace) -> dict:
    rng = random.Random(args.seed)
    nlp = spacy.load(args.pipeline)
    component = nlp.get_pipe("gliner")
    sentences = read(args.texts)
    docs = list(nlp.pipe(Doc(nlp.vocab, words=words) for words in sentences))
    rich = sorted(range(len(docs)), key=lambda index: -len(docs[index].spans["gliner"]))[: args.sentences]
    passage = [word for index in rich for word in sentences[index]]
    backbone = component.gliner.encoder.backbone
    n_pieces = len(backbone.tokenize([passage])[0].ids)
    if n_pieces > backbone.window:
        sys.exit(f"the passage has {n_pieces} pieces, a window {backbone.window}: take fewer --sentences")
    alone = entities(nlp(Doc(nlp.vocab, words=passage)))
    others = [sentences[index] for index in range(len(sentences)) if index not in set(rich)]
    filler: list[str] = []
    while len(filler) < args.words:
        filler += rng.choice(others)
    windows = component.gliner.encoder.prepare([filler], [[i.text for i in component.label_items]], 24)
    borders = [window.own_stop for window in windows[:-1]]
    places = [rng.choice(borders) for _ in range(args.places // 2)]
    places += [rng.randrange(args.words) for _ in range(args.places - len(places))]
    rows = []
    for place in sorted(places):
        words = filler[:place] + passage + filler[place:]
        found = entities(nlp(Doc(nlp.vocab, words=words)), place, place + len(passage))
        rows.append(
            {
                "place": place,
                "at_border": place in borders,
                "kept": len(found & alone),
                "new": len(found - alone),
            }
        )
    kept = [row["kept"] / len(alone) for row in rows]
    return {
        "passage_words": len(passage),
        "passage_pieces": n_pieces,
        "window": backbone.window,
        "entities_alone": len(alone),
        "document_words": args.words + len(passage),
        "kept_mean": sum(kept) / len(kept),
        "kept_worst": min(kept),
        "kept_at_borders": sum(k for k, r in zip(kept, rows, strict=True) if r["at_border"])
        / max(1, sum(r["at_border"] for r in rows)),
        "places": rows,
    }


def memory(args: argparse.Namespace) -> dict:
    nlp = spacy.load(args.pipeline)
    sentences = read(args.texts)
    words = [word for words in sentences for word in words]
    words = (words * (1 + args.memory_of // len(words)))[: args.memory_of]
    nlp(Doc(nlp.vocab, words=words[:2000]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    nlp(Doc(nlp.vocab, words=words))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "words": len(words),
        "peak_mb": peak // 1024,
        "above_2000_words_mb": (peak - before) // 1024,
        "cpu_seconds": time.process_time() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--words", type=int, default=20000)
    parser.add_argument("--places", type=int, default=20)
    parser.add_argument("--sentences", type=int, default=3, help="sentences in the passage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    parser.add_argument(
        "--memory-of", type=int, help="measure one document of so many words, in this process"
    )
    args = parser.parse_args()
    if args.memory_of:
        print(json.dumps(memory(args)))
        return
    results = run(args)
    results["memory"] = [
        json.loads(
            subprocess.run(
                [
                    sys.executable,
                    __file__,
                    "--pipeline",
                    args.pipeline,
                    "--texts",
                    args.texts,
                    "--memory-of",
                    str(n),
                ],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for n in (5000, 20000, 80000)
    ]
    print(json.dumps({key: value for key, value in results.items() if key != "places"}, indent=1))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
