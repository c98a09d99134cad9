"""Both trainers take the same steps from the same weights over the same batches, where nothing is drawn at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
from checkpoint_parity import LABELS, make_peer, make_streaming_peer, save
from torch import nn

from gliner_pipe.train import train
from gliner_pipe.training.loggers.base import RunInfo

trainers = pytest.importorskip("gliner.training")
STEPS = 20
RATES = (1e-3, 3e-3)
TEXTS = [
    {
        "tokenized_text": ["Maria", "Lindqvist", "joined", "Oslo", "in", "March"],
        "ner": [[0, 1, "person"], [3, 3, "big city"]],
    },
    {
        "tokenized_text": ["The", "baker", "from", "Lima", "had", "measles"],
        "ner": [[0, 1, "person"], [3, 3, "big city"]],
    },
    {
        "tokenized_text": ["On", "3", "March", "2019", "it", "rained"],
        "ner": [[1, 3, "date"]],
    },
]


def without_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


class Losses:
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.all: list[float] = []

    def start(self, run: RunInfo) -> None: ...

    def step(self, record: Any) -> None:
        self.all.append(record["loss"])

    def validation(self, record: Any) -> None: ...

    def finish(self) -> None: ...


@pytest.mark.parametrize("streaming", [False, True])
def test_the_same_steps(tmp_path: Path, streaming: bool) -> None:
    """Every batch holds all texts, so the order of drawing does not matter; there is no dropout and no warm-up."""
    records = [{**text, "ner_labels": LABELS} for text in TEXTS]
    if streaming:
        peer = make_streaming_peer("gpt2", dropout=0.0)  # GLiNER decays the norms of Qwen2
    else:
        peer = make_peer(dropout=0.0, num_rnn_layers=0, embed_ent_token=False)
    without_dropout(peer)
    folder = save(peer, tmp_path / "start")
    arguments = peer.create_training_args(
        tmp_path / "theirs",
        learning_rate=RATES[0],
        others_lr=RATES[1],
        weight_decay=0.01,
        others_weight_decay=0.01,
        focal_loss_alpha=0.75,
        focal_loss_gamma=2.0,
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        per_device_train_batch_size=len(TEXTS),
        max_steps=STEPS,
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        dataloader_num_workers=0,
        use_cpu=True,
    )
    trainer = trainers.Trainer(
        model=peer,
        args=arguments,
        train_dataset=records,
        data_collator=peer._create_data_collator(),
        processing_class=peer.data_processor.transformer_tokenizer,
    )
    trainer.train()
    theirs = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    nlp = spacy.blank("en")
    component = nlp.add_pipe(
        "gliner",
        config={
            "model": str(folder),
            "labels": LABELS,
            "device": "cpu",
            "word_splitter": {"@word_splitters": "whitespace"},
            "label_sampling": {"all_labels": True, "shuffle": False},
        },
    )
    without_dropout(component.gliner)
    losses = Losses()
    train(
        nlp,
        train_data={"reader": records},
        max_steps=STEPS,
        batch_size=f"{len(TEXTS)} samples",
        transformer_lr=RATES[0],
        task_lr=RATES[1],
        weight_decay=0.01,
        schedule="constant",
        warmup_rate=0.0,
        max_grad_norm=1.0,
        output_path=tmp_path / "ours",
        loggers=[losses],
        save_total_limit=0,
    )
    assert losses.all[-1] < losses.all[0] / 2
    assert losses.all == pytest.approx(theirs, rel=1e-4)  # 1e-6 until it is a thousandth of the first
