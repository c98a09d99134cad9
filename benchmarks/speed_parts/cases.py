"""What is measured: one model, one kind of text, a number of labels, one precision, texts together or one by one."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

from common import records

SAMPLE = Path(__file__).parents[2] / "data" / "sample" / "train_docs.jsonl"
ARCHITECTURES = ("uni_span", "uni_token", "bi_span", "bi_token")
#: Words of a text: mean and deviation of the logarithm, least and most.
LENGTHS = {
    "short": (8, 0.3, 4, 12),
    "mixed": (22, 0.6, 4, 80),
    "long": (150, 0.1, 120, 180),
    "book": (2000, 0, 2000, 2000),
    "library": (8000, 0, 8000, 8000),
    "stream": (22, 0.6, 4, 80),
}
#: Texts of a case, so that each takes some seconds.
N_TEXTS = {"short": 64, "mixed": 32, "long": 8}

_THINGS = [
    "person",
    "place",
    "city",
    "river",
    "company",
    "product",
    "song",
    "film",
    "book",
    "event",
    "date",
    "money",
    "law",
    "animal",
    "plant",
    "food",
    "drug",
    "disease",
    "sport",
    "team",
    "school",
    "road",
    "bridge",
    "ship",
    "train",
    "weapon",
    "tool",
    "planet",
    "language",
    "award",
    "museum",
    "hotel",
    "bank",
    "court",
    "party",
    "army",
    "church",
    "island",
    "lake",
    "mountain",
    "street",
    "hospital",
    "color",
    "metal",
    "game",
]


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    backbone: str = "deberta-v3-small"
    architecture: str = "uni_span"
    text: str = "mixed"
    labels: int = 5
    precision: str = "fp32"
    one_by_one: bool = False

    @property
    def name(self) -> str:
        name = f"{self.backbone} {self.architecture} {self.text} {self.labels} {self.precision}"
        return name + " one by one" * self.one_by_one

    @property
    def settings(self) -> dict[str, str]:
        """Settings of the component."""
        if self.precision == "int8":
            return {"quantize": "int8"}
        return {} if self.precision == "fp32" else {"dtype": self.precision}


def label_names(number: int) -> list[str]:
    """Labels of one or two words."""
    pairs = [f"{a} {b}" for a in _THINGS[:10] for b in _THINGS if a != b]
    return (_THINGS + pairs)[:number]


def suite(name: str) -> list[Case]:
    """Cases of the suite ``quick`` or ``full``."""
    base, mini = Case(), Case(backbone="minilm")
    quick = [base, mini, replace(base, precision="bf16"), replace(mini, text="long")]
    if name == "quick":
        return quick
    grid = [
        replace(mini, text=text, labels=labels)
        for text in ("short", "mixed", "long")
        for labels in (5, 25, 100)
    ]
    rows = [
        base,
        *(replace(base, text=text) for text in ("short", "long")),
        *(replace(base, labels=labels) for labels in (25, 100)),
        *(replace(base, precision=precision) for precision in ("bf16", "int8")),
        *(replace(mini, precision=precision) for precision in ("bf16", "int8")),
        *(replace(base, architecture=architecture) for architecture in ARCHITECTURES[1:]),
        *(replace(mini, architecture=architecture) for architecture in ARCHITECTURES[1:]),
        *(replace(mini, architecture=architecture, labels=100) for architecture in ARCHITECTURES[1:]),
        *(replace(case, text=text, one_by_one=True) for case in (base, mini) for text in ("short", "mixed")),
        *(Case(backbone="modernbert-base", precision=precision) for precision in ("fp32", "bf16")),
        *(Case(backbone="deberta-v3-base", precision=precision) for precision in ("fp32", "bf16")),
    ]
    return list(dict.fromkeys([*rows, *grid]))


def sentences(path: Path) -> list[list[str]]:
    """Words of the sentences of a file in GLiNER's format."""
    return [record["tokenized_text"] for record in records(path)]


def texts_of(kind: str, number: int, source: list[list[str]], seed: int = 0) -> list[str]:
    """Texts of running sentences, cut to lengths drawn at random."""
    mean, spread, least, most = LENGTHS[kind]
    rng = random.Random(seed)
    stream = [word for sentence in source for word in sentence]
    texts, at = [], 0
    for _ in range(number):
        length = min(most, max(least, round(mean * rng.lognormvariate(0, spread))))
        words = [stream[(at + place) % len(stream)] for place in range(length)]
        at = (at + length) % len(stream)
        texts.append(" ".join(words))
    return texts
