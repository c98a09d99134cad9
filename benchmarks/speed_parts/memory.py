"""What the work of each side takes in memory: each case and side in a process of its own, in turns.

Measured is the peak of the resident memory while texts are read, above what it was when the model was loaded, one short
text read, and everything freed given back; and beside it the peak of the whole process, libraries and weights included.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .cases import Case, sentences, texts_of
from .models import Peer, checkpoint, pipeline

BACKBONES = ("minilm", "deberta-v3-small")
LABELS = (5, 25, 100)
#: Texts of a case. Those of 2,000 words `gliner` cuts off at its `max_len` of 384, which is raised: it reads them whole
#: with DeBERTa, and in pieces of 150 words, which are cut for it, with MiniLM of 512 positions. We read windows. Those of
#: 8,000 words, and the stream, are for us alone.
TEXTS = {"mixed": 64, "long": 16, "book": 1, "library": 1, "stream": 5000}
OURS_ALONE = ("library", "stream")
#: Above it no span is found, so that what is measured are the models and not what they find.
THRESHOLD = 0.99


def measure_all(source: Path, work: Path, only: str = "") -> list[dict[str, Any]]:
    """Measure all cases whose names hold `only`, one row each."""
    rows = []
    for case in _cases():
        if only not in case.name:
            continue
        folder = checkpoint(case, work)
        sides = ("gliner_pipe",) if case.text in OURS_ALONE else ("gliner", "gliner_pipe")
        measured = {side: _apart(case, side, folder, source) for side in sides}
        row: dict[str, Any] = {**asdict(case), "texts": TEXTS[case.text]}
        for name in ("work_mb", "process_mb"):
            row[name] = {side: found[name] for side, found in measured.items()}
        rows.append(row)
        print(case.name, row["work_mb"], row["process_mb"], flush=True)
    return rows


def _cases() -> list[Case]:
    cases = [
        Case(backbone, text=text, labels=labels)
        for backbone in BACKBONES
        for text in ("mixed", "long", "book")
        for labels in LABELS
    ]
    return cases + [Case(backbone, text=text) for backbone in BACKBONES for text in OURS_ALONE]


def _apart(case: Case, side: str, folder: Path, source: Path) -> dict[str, int]:
    command = [sys.executable, "-W", "ignore", "-m", __name__, json.dumps(asdict(case)), side, folder, source]
    here = Path(__file__).parent.parent
    done = subprocess.run(list(map(str, command)), cwd=here, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(case: Case, side: str, folder: Path, source: Path) -> dict[str, int]:
    """Run one side of a case in this process; MB."""
    texts = texts_of(case.text, TEXTS[case.text], sentences(source))
    if side == "gliner":
        peer = Peer(case, folder, THRESHOLD)
        run = lambda some: peer(_pieces(some) if case.backbone == "minilm" else some)  # noqa: E731
    else:
        nlp = pipeline(case, folder, THRESHOLD)

        def run(some: list[str]) -> None:
            for _ in nlp.pipe(some):
                pass

    run(["Maria flew to Lima ."])
    loading = _status("VmHWM")
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    run(texts)
    peak = _status("VmHWM")
    return {
        "work_mb": (peak - before) >> 10,
        "process_mb": max(peak, loading) >> 10,
        "loading_mb": loading >> 10,
    }


def _status(name: str) -> int:
    """A line of the process's status, in KiB; unlike getrusage, without what the parent process had."""
    found = re.search(rf"^{name}:\s+(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def _pieces(texts: list[str], n_words: int = 150) -> list[str]:
    words = [text.split() for text in texts]
    return [" ".join(one[at : at + n_words]) for one in words for at in range(0, len(one), n_words)]


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown: memory of the work, and of the whole process."""
    lines = [
        "| case | work: `gliner` | `gliner_pipe` | part | process: `gliner` | `gliner_pipe` |",
        "|" + "---|" * 6,
    ]
    for row in rows:
        (theirs, ours), (all_theirs, all_ours) = (
            (row[name].get("gliner"), row[name]["gliner_pipe"]) for name in ("work_mb", "process_mb")
        )
        part = f"{ours / max(theirs, 1):.2f}" if theirs is not None else "-"
        name = f"{row['backbone']}, {row['text']}, {row['labels']} labels"
        lines.append(f"| {name} | {theirs or '-'} | {ours} | {part} | {all_theirs or '-'} | {all_ours} |")
    return "\n".join(lines)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    given = sys.argv[1:]
    print(json.dumps(measure(Case(**json.loads(given[0])), given[1], Path(given[2]), Path(given[3]))))
