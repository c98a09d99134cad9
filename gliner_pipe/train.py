"""Train a pipeline: ``python -m gliner_pipe.train --config configs/config.cfg``, or ``train(...)``."""

# Annotations are objects here, not text: ``--help`` shows them.
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confit import Cli
from spacy.language import Language

import gliner_pipe.builtin  # noqa: F401 (registers the blocks)
from gliner_pipe.cli import run
from gliner_pipe.pipeline import PipelineArg
from gliner_pipe.registry import registry
from gliner_pipe.training.options import check_numbers, output_paths, translate
from gliner_pipe.training.sections import TrainData, ValidationData
from gliner_pipe.training.session import Session, console_note

app = Cli(pretty_exceptions_enable=False)


@app.command(name="train", registry=registry)
def train(
    nlp: PipelineArg,
    train_data: TrainData,
    val_data: ValidationData | None = None,
    *,
    max_steps: int = 2000,
    batch_size: int | str = "2000 words",
    grad_accumulation_max_tokens: int | None = None,
    transformer_lr: float = 5e-5,
    task_lr: float = 1e-4,
    weight_decay: float = 0.01,
    param_groups: list[dict[str, Any]] = [],  # noqa: B006 (never changed)
    warmup_rate: float = 0.1,
    schedule: Any = None,
    optimizer: Any = None,
    max_grad_norm: float | None = 1.0,
    validation_interval: int | None = None,
    checkpoint_interval: int | None = None,
    scorer: Any = None,
    best_metric: str | None = None,
    patience: int | None = None,
    seed: int = 42,
    data_seed: int | None = None,
    output_path: str | Path = "artifacts/model-last",
    best_path: str | Path | None = None,
    loggers: Any = ("rich", "jsonl", "csv"),
    sample_texts: list[str] = [],  # noqa: B006 (never changed)
    mixed_precision: str = "no",
    cpu: bool = False,
    num_workers: int = 0,
    on_validation_callback: Callable[[dict[str, Any]], Any] | None = None,
    config_meta: dict[str, Any] | None = None,
    **aliases: Any,
) -> Language:
    """Train the ``gliner`` components of a pipeline.

    Every option stands in the ``[train]`` section of a config file, and any option of the file can be set on
    the command line: ``--max_steps 50``, ``--vars.train other.jsonl``, ``--components.gliner.threshold 0.4``.
    The same options and the same seed give the same weights from the command line and from Python. For
    several GPUs, start with ``accelerate launch -m gliner_pipe.train --config configs/config.cfg``.

    Parameters
    ----------
    nlp
        The pipeline: an ``[nlp]`` section, the path or package name of a saved pipeline to go on from, or a
        pipeline.
    train_data
        What to learn from: a section with a ``reader`` (see the documentation for its other options), a path,
        a reader, a list of examples, or a list of these, each of which gives a batch in every step.
    val_data
        What to measure on, given likewise; without it there are no scores and no best model.
    max_steps
        Number of steps.
    batch_size
        What is learned from in a step, for each process: ``"2000 words"``, ``"16 samples"``, ``"50 spans"``.
    grad_accumulation_max_tokens
        Cut a batch into parts of at most so many word pieces to save memory; the result is the same.
    transformer_lr
        Highest learning rate of the pretrained transformers.
    task_lr
        Highest learning rate of everything else.
    weight_decay
        Weight decay; biases and normalisation layers have none.
    param_groups
        Exceptions by regular expression, e.g. ``[{"selector": "embeddings", "freeze": true}]``; keys:
        selector, lr, weight_decay, freeze.
    warmup_rate
        Share of the steps in which the learning rates climb from 0.
    schedule
        How they go on: ``linear`` (to 0, the default), ``cosine``, ``constant``, ``polynomial``, or a block
        with its own warm-up: ``[train.schedule] @schedules = "cosine"``.
    optimizer
        ``adamw`` (the default), ``sgd``, or a block: ``[train.optimizer] @optimizers = "torch", name =
        "NAdam"``.
    max_grad_norm
        Gradients are scaled down to this norm; null leaves them as they are.
    validation_interval
        Steps between two validations; a tenth of max_steps by default. There is always one after the last
        step.
    checkpoint_interval
        Steps between two savings of the last model; validation_interval by default.
    scorer
        Scorers by name, e.g. ``[scorer.ner] @scorers = "gliner_pipe.ner_exact"``; exact spans by default.
    best_metric
        Score that decides which model is the best, e.g. ``ner.micro.f``; by default the micro F1 of the first
        scorer.
    patience
        Validations without a better score after which the training ends.
    seed
        Decides the new weights, dropout and, without data_seed, the order of the data.
    data_seed
        Decides the order of the data and the sampling of labels.
    output_path
        Folder of the last model; logs and ``train_config.cfg`` go beside it. Replaced all at once at each
        saving.
    best_path
        Folder of the best model; ``model-best`` beside the last one by default.
    loggers
        ``rich`` (the console), ``jsonl``, ``csv``, or blocks: ``[train.loggers.console] @loggers = "rich"``.
    sample_texts
        Texts in which the trained pipeline, loaded from disk, shows at the end what it finds.
    mixed_precision
        ``no``, ``bf16`` or ``fp16``.
    cpu
        Train on the CPU even where there is a GPU.
    num_workers
        Processes that prepare batches ahead; worth it where a fast GPU waits for the CPU.
    on_validation_callback
        Called with the record of every validation (Python only).
    config_meta
        Filled by the command line.
    aliases
        Names that EDS-NLP has for these options: grad_max_norm, output_dir, output_model_dir, sub_batch_size,
        logger.

    Returns
    -------
    Language
        The pipeline as it is after the last step; the best one is on disk.

    Raises
    ------
    ConfigError
        If an option cannot work.
    DataError
        If the data cannot be read.
    TrainingError
        If the loss is no number, or runs away.
    """
    given = dict(locals())
    for name in ("aliases", "config_meta"):
        given.pop(name)
    given.update(translate(aliases, list(given), console_note))
    check_numbers(given)
    given["output_path"], given["best_path"] = output_paths(given["output_path"], given["best_path"])
    return Session(config=(config_meta or {}).get("unresolved_config"), **given).run()


if __name__ == "__main__":
    run(app)
