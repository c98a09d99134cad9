"""Trains gliner_pipe and GLiNER from the same backbone on the same texts, over several seeds, and compares test scores.

Entities, or with --relations entities and relations. For each seed there are three runs: both sides for --steps steps, and
ours for the steps that fit into the CPU time of GLiNER's run. A run is a process of its own; its scores and the CPU time
of its steps are one line of the results file. Runs that are in the file are skipped, so the command can be stopped and
repeated. Without --data the command prints the means of the file.

    python benchmarks/learning.py --data PATH/wnut17 --seeds 1,2,3,4,5 --results results.jsonl
    python benchmarks/learning.py --results results.jsonl

PATH is a folder with train.jsonl and test.jsonl in GLiNER's format, or one such file, whose last fifth is the test. Words
are those of GLiNER on both sides. Longer texts are cut at sentence ends (--words).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import minilm, records

ROOT = Path(__file__).parent.parent
THRESHOLD = 0.5
#: The first stands for the table: the others show what another threshold would have given.
RELATION_THRESHOLDS = (0.5, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9)
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


def texts_of(
    record: dict, limit: int, width: int, labels: Sequence[str], relation_labels: Sequence[str]
) -> list[dict]:
    """Texts of a document with the entities and relations that lie within one of them."""
    words, entities = rewrite(record)
    spans = {item[:2]: place for place, item in reversed(list(enumerate(entities)))}  # one label a span
    made = []
    for start, end in cut(words, entities, limit):
        kept: dict[int, int] = {}
        ner = []
        for place, (first, last, label) in enumerate(entities):
            fits = start <= first <= last < end and last - first < width
            if fits and label in labels and spans[first, last] == place:
                kept[place] = len(ner)
                ner.append([first - start, last - start, label])
        text = {"tokenized_text": words[start:end], "ner": ner, "ner_labels": list(labels)}
        if relation_labels:
            text["relations"] = [
                [kept[head], kept[tail], label]
                for head, tail, label in record.get("relations", [])
                if label in relation_labels and head in kept and tail in kept and head != tail
            ]
            text["rel_labels"] = list(relation_labels)
        made.append(text)
    return made


def read(args: argparse.Namespace) -> tuple[list[dict], list[dict], list[str], list[str]]:
    """Training texts, test texts, labels of entities and of relations."""
    if args.data.is_dir():
        parts = [records(args.data / name) for name in ("train.jsonl", "test.jsonl")]
    else:
        whole = [record for record in records(args.data) if args.source in (None, record.get("source"))]
        parts = [whole[: len(whole) * 4 // 5], whole[len(whole) * 4 // 5 :]]
    seen = Counter(label for part in parts for record in part for _, _, label in record["ner"])
    labels = [label for label, _ in seen.most_common(args.labels)]
    seen = Counter(label for part in parts for record in part for _, _, label in record.get("relations", []))
    relation_labels = [label for label, _ in seen.most_common(args.labels)] if args.relations else []
    train, test = (
        [
            text
            for record in part
            for text in texts_of(record, args.words, args.max_width, labels, relation_labels)
        ]
        for part in parts
    )
    random.Random(0).shuffle(test)
    return train, test[: args.test_texts], labels, relation_labels


# -- scores: one function for both -------------------------------------------------------------------------------------


def score(gold: Sequence[dict], found: Sequence[Found]) -> dict[str, Any]:
    """Micro scores of exact entities and of strict relations, in per cent."""
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
    if "relations" in gold[0]:
        of_thresholds = {}
        for threshold in RELATION_THRESHOLDS:
            documents = [
                ({mention(record["ner"], *item) for item in record["relations"]},
                 {mention(entities, *item) for *item, value in relations if value > threshold})
                for record, (entities, relations) in zip(gold, found, strict=True)
            ]  # fmt: skip
            of_thresholds[threshold] = row(score_relations(documents, strict=True))
        best = max(of_thresholds, key=lambda threshold: of_thresholds[threshold]["f"])
        scores["relations"] = of_thresholds[THRESHOLD]
        scores["best_relations"] = {"threshold": best, **of_thresholds[best]}
    return scores


def renamed(texts: Sequence[dict], names: dict[str, str]) -> list[dict]:
    """The same texts with other names for the labels."""
    return [
        {**text, "ner": [[first, last, names.get(label, label)] for first, last, label in text["ner"]]}
        for text in texts
    ]


class Stopwatch:
    """CPU time of the steps, without that of saving and measuring between them."""

    def __init__(self) -> None:
        self.cpu, self.mark = 0.0, 0.0
        self.losses: list[float] = []

    def start(self, run: Any = None) -> None:
        self.mark = time.process_time()

    def step(self, record: Any = None) -> None:
        now = time.process_time()
        self.cpu, self.mark = self.cpu + now - self.mark, now
        if record is not None:
            self.losses.append(record["loss"])

    def validation(self, record: Any) -> None: ...

    def finish(self) -> None: ...


# -- the two sides -----------------------------------------------------------------------------------------------------


def train_gliner(args: argparse.Namespace, work: Path) -> dict:
    import torch
    from gliner import GLiNER
    from gliner.training import Trainer
    from transformers import TrainerCallback

    torch.manual_seed(args.seed)
    train, test, labels, relation_labels = read(args)
    relations = {
        "relations_layer": "mlp",
        "triples_layer": None,
        "embed_rel_token": False,
        "augment_data_prob": 0.0,
    }
    model = GLiNER.from_config(
        {
            "model_name": str(minilm()),
            "hidden_size": 384,
            "span_mode": "markerV0",
            "max_width": args.max_width,
            "dropout": args.dropout,
            "num_rnn_layers": args.rnn_layers,
            "embed_ent_token": False,
            **(relations if relation_labels else {}),
            **args.their_model,
        },
        backbone_from_pretrained=True,
    )
    watch = Stopwatch()

    class Callback(TrainerCallback):
        def on_step_begin(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 0:
                watch.start()

        def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            watch.step()

    # what GLiNER.train_model does, which takes no callbacks
    settings = {
        "learning_rate": args.lr[0],
        "others_lr": args.lr[1],
        "weight_decay": 0.01,
        "others_weight_decay": 0.01,
        "focal_loss_alpha": 0.75,
        "focal_loss_gamma": 2.0,
        "lr_scheduler_type": "linear",
        "warmup_ratio": 0.1,
        **args.theirs,
    }
    arguments = model.create_training_args(
        work / "gliner", per_device_train_batch_size=args.batch, max_steps=args.trained, save_strategy="no",
        seed=args.seed, dataloader_num_workers=0, use_cpu=True, logging_steps=args.trained, **settings,
    )  # fmt: skip
    trainer = Trainer(
        model=model,
        args=arguments,
        # its bi-encoders read the label set from another key than its uni-encoders
        train_dataset=[{**text, "ner_label": labels} for text in train],
        eval_dataset=train[: args.batch],
        data_collator=model._create_data_collator(),
        processing_class=model.data_processor.transformer_tokenizer,
        callbacks=[Callback()],
    )
    trainer.train()

    def measure(gold: Sequence[dict], labels: list[str]) -> dict:
        texts = [" ".join(record["tokenized_text"]) for record in gold]
        settings = {"flat_ner": True, "threshold": THRESHOLD}
        if relation_labels:
            entities, ties = model.inference(
                texts, labels, relations=relation_labels, adjacency_threshold=THRESHOLD,
                relation_threshold=min(RELATION_THRESHOLDS), **settings,
            )  # fmt: skip
        else:
            entities = model.inference(texts, labels, **settings)
            ties = [[] for _ in texts]
        return score(gold, [_in_words(*item) for item in zip(texts, entities, ties, strict=True)])

    result = {"cpu": round(watch.cpu, 1), **measure(test, labels)}
    if args.renames:
        names = [args.renames.get(label, label) for label in reversed(labels)]
        result["renamed"] = measure(renamed(test, args.renames), names)["ner"]
    return result


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


def our_config(args: argparse.Namespace, data: Path, labels: list[str], relation_labels: list[str]) -> Any:
    """The shipped configuration with the data, steps and rates of this comparison."""
    from confit import Config

    name = "uni_encoder_span_relex" if relation_labels else "config"
    config: Any = Config.from_disk(ROOT / "configs" / f"{name}.cfg")
    component = config["components"]["gliner"]
    component |= {
        "labels": labels,
        "threshold": THRESHOLD,
        "word_splitter": {"@word_splitters": "whitespace"},
        "label_sampling": {"all_labels": True},
    }
    model = component["model"]
    model["dropout"] = args.dropout
    model["span_rep"] |= {"dropout": args.dropout, "max_width": args.max_width}
    model["encoder"] |= {"rnn_layers": args.rnn_layers, "embed_ent_token": False}
    if relation_labels:
        component |= {
            "relations": relation_labels,
            "adjacency_threshold": THRESHOLD,
            "relation_threshold": min(RELATION_THRESHOLDS),
            "relation_sampling": {"vary": 0.0},
        }
        model["encoder"]["embed_rel_token"] = False
        model["relation_layer"] = {"@relation_layers": "mlp"}
        model["loss"] = {"@losses": "gliner_pipe.focal", "alpha": 0.75, "gamma": 2.0}
        del model["triple"]
    config["train"]["train_data"] = {
        "randomize": True,
        "reader": {"@readers": "gliner_json", "path": str(data), "labels": labels},
    }
    config["train"] |= {
        "max_steps": args.trained,
        "batch_size": f"{args.batch} samples",
        "transformer_lr": args.lr[0],
        "task_lr": args.lr[1],
        "seed": args.seed,
        "validation_interval": args.trained,
        "sample_texts": [],
        "val_data": None,
        "best_metric": None,
        "save_total_limit": 0,
    }
    for place, value in args.changes.items():
        *sections, key = place.split(".")
        section = config
        for part in sections:
            section = section.setdefault(part, {})
        section[key] = value
    return config


def train_gliner_pipe(args: argparse.Namespace, work: Path) -> dict:
    import spacy
    from confit import Config
    from spacy.tokens import Doc

    from gliner_pipe.data.relations import get_relations
    from gliner_pipe.registry import registry
    from gliner_pipe.train import train

    texts, test, labels, relation_labels = read(args)
    path, output = work / "train.jsonl", work / "ours"
    path.write_text("".join(json.dumps(record) + "\n" for record in texts), encoding="utf8")
    config = our_config(args, path, labels, relation_labels)
    watch = Stopwatch()
    options = Config(config["train"]).resolve(registry=registry, root=config)
    train(**options | {"output_path": output, "loggers": [watch]})
    nlp = spacy.load(output / "model-last")

    def measure(gold: Sequence[dict], labels: list[str]) -> dict:
        nlp.get_pipe("gliner").labels = labels
        found = []
        for doc in nlp.pipe([Doc(nlp.vocab, words=record["tokenized_text"]) for record in gold]):
            entities = [(span.start, span.end - 1, span.label_) for span in doc.spans["gliner"]]
            places = {item: place for place, item in enumerate(entities)}
            ties = []
            for tie in get_relations(doc) if relation_labels else ():
                ends = [places[end.start, end.end - 1, end.label_] for end in (tie.head, tie.tail)]
                ties.append((*ends, tie.label, tie.score))
            found.append((entities, ties))
        return score(gold, found)

    result = {"cpu": round(watch.cpu, 1), **measure(test, labels)}
    if args.renames:
        names = [args.renames.get(label, label) for label in reversed(labels)]
        result["renamed"] = measure(renamed(test, args.renames), names)["ner"]
    return result


SIDES = {"gliner": train_gliner, "gliner_pipe": train_gliner_pipe}
#: The runs of a seed: a side, and what is equal.
RUNS = (("gliner", "steps"), ("gliner_pipe", "steps"), ("gliner_pipe", "time"))


# -- runs --------------------------------------------------------------------------------------------------------------


def find(known: Sequence[dict], wanted: dict[str, Any]) -> dict | None:
    """The line of a run with these settings."""
    return next(
        (line for line in known if all(line.get(key) == value for key, value in wanted.items())), None
    )


def run_seed(args: argparse.Namespace, seed: int) -> None:
    """Run what the results lack of a seed."""
    common = ("steps", "batch", "lr", "dropout", "rnn_layers", "max_width", "words", "test_texts")
    shared = {"data": args.name, "seed": seed, **{key: getattr(args, key) for key in common}}
    for side, at in RUNS:
        theirs = {"theirs": args.theirs, "their_model": args.their_model}
        own = theirs if side == "gliner" else {"changes": args.changes}
        wanted = {**shared, **own, "side": side, "at": at}
        known = records(args.results) if args.results.exists() else []
        if side not in args.sides or find(known, wanted):
            continue
        trained = args.steps
        if at == "time":
            peer = find(known, {**shared, **theirs, "side": "gliner", "at": "steps"})
            ours = find(known, {**wanted, "at": "steps"})
            if peer is None or ours is None:
                continue
            trained = round(args.steps * peer["cpu"] / ours["cpu"])
        command = [sys.executable, *sys.argv, "--run", json.dumps({**wanted, "trained": trained})]
        subprocess.run(command, check=True, env=os.environ)


def run_one(args: argparse.Namespace, line: dict[str, Any]) -> None:
    """Run one training in this process, and add its line to the results."""
    for key in ("seed", "trained"):
        setattr(args, key, line[key])
    with tempfile.TemporaryDirectory() as work:
        line |= SIDES[line["side"]](args, Path(work))
    args.results.parent.mkdir(parents=True, exist_ok=True)
    with args.results.open("a", encoding="utf8") as file:
        file.write(json.dumps(line) + "\n")


def table(lines: Sequence[dict]) -> None:
    """Print mean and standard deviation of the F1 over the seeds."""
    hidden = ("seed", "cpu", "trained", "ner", "relations", "best_relations", "renamed")
    groups: dict[str, list[dict]] = {}
    for line in lines:
        settings = {key: value for key, value in line.items() if key not in hidden}
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(line)

    def mean(values: list[float]) -> str:
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.1f}{spread}" if values else ""

    print(
        "| data | side | equal | steps | seeds | F1 | relation F1 | F1, labels renamed | CPU seconds | options |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for settings, group in sorted(groups.items()):
        first = json.loads(settings)
        scores = [
            mean([line[key]["f"] for line in group if key in line]) for key in ("ner", "relations", "renamed")
        ]
        trained = f"{statistics.mean(line['trained'] for line in group):.0f}"
        row = [first["data"], first["side"], first["at"], trained, str(len(group)), *scores]
        options = json.dumps(first.get("changes", first.get("theirs")))
        print("|", " | ".join([*row, mean([line["cpu"] for line in group]), f"`{options}`"]), "|")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def numbers(text: str) -> list[float]:
        return [float(part) for part in text.split(",")]

    parser.add_argument("--data", type=Path)
    parser.add_argument("--name", help="of the data in the results; by default that of the file or folder")
    parser.add_argument("--source", help="use only the records of this source")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--seeds", type=numbers, default=[1, 2, 3, 4, 5])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--lr", type=numbers, default=[2e-4, 1e-3], help="of the backbone, and of all that is new"
    )
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--rnn_layers", type=int, default=0)
    parser.add_argument("--max_width", type=int, default=12)
    parser.add_argument("--relations", action="store_true")
    parser.add_argument("--labels", type=int, help="use the most frequent ones only")
    parser.add_argument("--words", type=int, default=48)
    parser.add_argument("--test_texts", type=int, default=1000)
    parser.add_argument(
        "--renames", type=json.loads, help="JSON: other names of labels, which are scored as well"
    )
    parser.add_argument(
        "--changes", type=json.loads, default={}, help="JSON: options of our config by their full names"
    )
    parser.add_argument("--theirs", type=json.loads, default={}, help="JSON: options of GLiNER's training")
    parser.add_argument(
        "--their_model", type=json.loads, default={}, help="JSON: options of GLiNER's configuration"
    )
    parser.add_argument("--run", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.data is None:
        table(records(args.results))
        return
    args.name = args.name or args.data.stem
    if args.run:
        run_one(args, args.run)
        return
    for seed in args.seeds:
        run_seed(args, int(seed))


if __name__ == "__main__":
    main()
