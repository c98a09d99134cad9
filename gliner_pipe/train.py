"""Train a pipeline: ``python -m gliner_pipe.train --config configs/config.cfg``, or ``train(...)``."""

# Annotations are objects here, not text: ``--help`` shows them.
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from confit import Cli
from spacy.language import Language

from gliner_pipe.cli.app import run
from gliner_pipe.migration import configured, translate
from gliner_pipe.pipeline.build import pipeline_of
from gliner_pipe.pipeline.convert import check_tagger_of, to_transformers
from gliner_pipe.registry import registry
from gliner_pipe.training.arguments import check_options, only_training, output_paths
from gliner_pipe.training.data_sections import TrainData, ValidationData
from gliner_pipe.training.trainer import Session
from gliner_pipe.util.consent import is_stated, trusting
from gliner_pipe.util.console import console_note
from gliner_pipe.util.secrets import marked

app = Cli(pretty_exceptions_enable=False)


@app.command(name="train", registry=registry)
def train(
    nlp: Any,
    train_data: TrainData,
    val_data: ValidationData | None = None,
    *,
    validation_split: float | None = None,
    unseen_labels: list[str] = [],  # noqa: B006 (never changed)
    max_steps: int | None = None,
    max_epochs: float | None = None,
    batch_size: int | str = "2000 words",
    gradient_accumulation_steps: int = 1,
    grad_accumulation_max_tokens: int | None = None,
    auto_find_batch_size: bool = False,
    cut_by_length: bool = True,
    feature_cache: bool | str | None = None,
    transformer_lr: float = 5e-5,
    task_lr: float = 1e-4,
    weight_decay: float = 0.01,
    task_weight_decay: float | None = None,
    param_groups: list[dict[str, Any]] = [],  # noqa: B006 (never changed)
    freeze_components: list[str] = [],  # noqa: B006 (never changed)
    warmup_rate: float = 0.1,
    warmup_steps: int | None = None,
    schedule: Any = None,
    optimizer: Any = None,
    max_grad_norm: float | None = 1.0,
    ema_decay: float | None = None,
    start_decay: float = 0.0,
    validation_interval: int | str | None = None,
    validate_at_start: bool = False,
    scorer: Any = None,
    best_metric: str | None = None,
    patience: int | None = None,
    patience_threshold: float = 0.0,
    load_best_model_at_end: bool = False,
    seed: int = 42,
    data_seed: int | None = None,
    full_determinism: bool = False,
    output_path: str | Path = "artifacts/model-last",
    best_path: str | Path | None = None,
    transformers_path: str | Path | None = None,
    overwrite: bool = True,
    checkpoint_interval: int | str | None = None,
    save_total_limit: int | None = 1,
    resume_from_checkpoint: str | bool | None = None,
    ignore_data_skip: bool = False,
    loggers: Any = "default",
    logging_interval: int = 1,
    run_name: str | None = None,
    sample_texts: list[str] = [],  # noqa: B006 (never changed)
    mixed_precision: str = "no",
    compile: bool | str = False,
    cpu: bool = False,
    num_workers: int = 0,
    push_to_hub: bool = False,
    hub_model_id: str | None = None,
    hub_strategy: Literal["end", "every_save", "checkpoint", "all_checkpoints"] = "every_save",
    hub_private_repo: bool = True,
    hub_always_push: bool = False,
    on_validation_callback: Callable[[dict[str, Any]], Any] | None = None,
    trust_remote_code: bool = False,
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
        a reader, a list of examples or of records, or a list of these, each of which gives a batch in every
        step.
    val_data
        What to measure on, given likewise; without it there are no scores and no best model.
    validation_split
        Share of the training documents to measure on instead, drawn with data_seed.
    unseen_labels
        Labels to keep out of the training and to measure apart: what the model makes of labels it never saw.
    max_steps
        Number of steps; 2000 when neither this nor max_epochs is given.
    max_epochs
        Length of the training in passes over the (largest) training data, instead of max_steps.
    batch_size
        What is learned from at a time, for each process: ``"2000 words"``, ``"16 samples"``, ``"4096 pieces"``
        (as the tokenizer cuts them), ``"50 spans"``.
    gradient_accumulation_steps
        Number of such batches that make a step.
    grad_accumulation_max_tokens
        Cut a batch into parts of at most so many word pieces to save memory; the result is the same.
    auto_find_batch_size
        When the memory is full, cut batches into smaller parts and take the step again; the result is the
        same.
    cut_by_length
        Cut a batch into parts of like length where that saves more padding than the parts cost; the result is the
        same.
    feature_cache
        Keep what a frozen backbone makes of each window, so that a text is read once and the heads train alone: true,
        or the memory for it (``"2 GB"``; a quarter of what is free by default). By default, where texts are asked the
        same in every pass; false never does.
    transformer_lr
        Highest learning rate of the pretrained transformers.
    task_lr
        Highest learning rate of everything else.
    weight_decay
        Weight decay; biases and normalisation layers have none.
    task_weight_decay
        That of everything but the pretrained transformers; weight_decay by default.
    param_groups
        Exceptions by regular expression, e.g. ``[{"selector": "embeddings", "freeze": true}]``; keys:
        selector, lr, weight_decay, freeze.
    freeze_components
        Parts that keep their weights: ``text_encoder``, ``labels_encoder``, ``decoder``, a dotted path of
        blocks such as ``span_rep``, or a component of the pipeline.
    warmup_rate
        Share of the steps in which the learning rates climb from 0.
    warmup_steps
        The same as a number of steps, instead of warmup_rate.
    schedule
        How they go on: ``linear`` (to 0, the default), ``cosine``, ``cosine_with_restarts``, ``constant``,
        ``polynomial``, ``inverse_sqrt``, or a block with its own warm-up: ``[train.schedule] @schedules =
        "cosine"``.
    optimizer
        ``adamw`` (the default), ``sgd``, ``adafactor``, a class of torch.optim such as ``NAdam``, or a block:
        ``[train.optimizer] @optimizers = "adamw", beta2 = 0.98``.
    max_grad_norm
        Gradients are scaled down to this norm; null leaves them as they are.
    ema_decay
        Keep a running mean of the weights, which is what is measured and saved: 0.999 is usual.
    start_decay
        Pull the weights towards where they start from, so that fine-tuning moves less: 100 and more.
    validation_interval
        Steps between two validations, or ``"epoch"``; a tenth of max_steps by default. There is always one
        after the last step.
    validate_at_start
        Measure once before the first step, too.
    scorer
        Scorers by name, e.g. ``[scorer.ner] @scorers = "gliner_pipe.ner_exact"``; exact spans by default.
    best_metric
        Score that decides which model is the best, e.g. ``ner.micro.f``; by default the micro F1 of the first
        scorer.
    patience
        Validations without a better score after which the training ends.
    patience_threshold
        By how much a score must be better for that.
    load_best_model_at_end
        Return the pipeline with the best weights, not the last ones.
    seed
        Decides the new weights, dropout and, without data_seed, the order of the data.
    data_seed
        Decides the order of the data and the sampling of labels.
    full_determinism
        Have torch take no kernel whose result may differ from run to run; slower on a GPU.
    output_path
        Folder of the last model; logs and ``train_config.cfg`` go beside it. Replaced all at once at each
        saving.
    best_path
        Folder of the best model; ``model-best`` beside the last one by default.
    transformers_path
        Folder into which the trained tagger is written for ``AutoModelForTokenClassification`` as well, beside what
        is there: with the best weights where load_best_model_at_end is set, the last ones otherwise.
    overwrite
        Whether models that are there already may be replaced.
    checkpoint_interval
        Steps between two savings of the last model and a checkpoint, or ``"epoch"``; validation_interval by
        default.
    save_total_limit
        Checkpoints to keep in ``checkpoints``; null keeps all, 0 writes none.
    resume_from_checkpoint
        ``"auto"`` goes on from the newest checkpoint, if there is one; or the path of one.
    ignore_data_skip
        Having gone on, draw the data from its beginning instead of from where the checkpoint was.
    loggers
        ``default`` (that is ``rich`` on the console, ``jsonl``, ``csv`` and ``plot``), ``tensorboard``,
        ``wandb``, ``mlflow``, ``trackio``, or blocks: ``[train.loggers.console] @loggers = "rich"``.
    logging_interval
        Steps between two that the loggers are told about.
    run_name
        Name of this training for the trackers.
    sample_texts
        Texts in which the trained pipeline, loaded from disk, shows at the end what it finds.
    mixed_precision
        ``no``, ``bf16`` or ``fp16``.
    compile
        Have torch compile the pretrained transformers; a text names the backend.
    cpu
        Train on the CPU even where there is a GPU.
    num_workers
        Processes that prepare batches ahead; worth it where a fast GPU waits for the CPU.
    push_to_hub
        Upload what is saved to the Hugging Face hub, with the login of this machine or ``HF_TOKEN``.
    hub_model_id
        Repository, ``user/name``; by default the name of the folder of the models, under one's own name.
    hub_strategy
        ``end``, ``every_save``, ``checkpoint`` (also what is needed to go on) or ``all_checkpoints``.
    hub_private_repo
        Whether a new repository is private.
    hub_always_push
        Push every saving, also while the upload of an earlier one is under way.
    on_validation_callback
        Called with the record of every validation (Python only).
    trust_remote_code
        Consent to run Python code that comes with the models of the pipeline, for this training; as ``trust_remote_code
        = true`` of a block in the ``[nlp]`` section. The trained pipelines do not keep it.
    config_meta
        Filled by the command line.
    aliases
        Names that GLiNER, EDS-NLP, transformers and AutoTrain have for these options; see the documentation
        on migrating.

    Returns
    -------
    Language
        The pipeline as it is after the last step; the best one is on disk.

    Raises
    ------
    ConfigError
        If an option cannot work.
    DataError
        If the data cannot be read, or another process trains in the folder.
    TrainingError
        If the loss is no number, or runs away, or the memory is full.
    """
    nlp = pipeline_of(nlp, trust_remote_code)
    given = dict(locals())
    for name in ("aliases", "config_meta", "transformers_path", "trust_remote_code"):
        given.pop(name)
    for name, off in (("max_steps", -1), ("max_grad_norm", 0)):  # as transformers has it
        given[name] = None if given[name] == off else given[name]
    if "warmup_ratio" in aliases and given["warmup_steps"] == 0:
        given["warmup_steps"] = None
    given.update(translate(aliases, list(given), console_note))
    check_options(given)
    given["output_path"], given["best_path"] = output_paths(given["output_path"], given["best_path"])
    if transformers_path is not None:
        check_tagger_of(nlp)
    written = given if config_meta is None else config_meta.get("unresolved_config") or {}
    if (names := list(dict.fromkeys(marked(written)))) and os.environ.get("RANK", "0") == "0":
        console_note(
            f"warning: redacted in the config, and read as it stands there: {', '.join(names)}. Give the secret on the "
            "command line (--section.name VALUE), or by the environment variable of the service"
        )
    with only_training(given["output_path"], given["best_path"]):
        # checkpoints and the best model that the training writes and reads back need the same consent
        with trusting(trust_remote_code or is_stated(nlp)):
            trained = Session(config=(config_meta or {}).get("unresolved_config"), **given).run()
        if transformers_path is not None and os.environ.get("RANK", "0") == "0":
            to_transformers(trained, Path(transformers_path))
            console_note(f"for transformers: {transformers_path}")
    return trained


def main() -> None:
    """Run the command line; ``--config`` takes a ``.cfg`` file, or the YAML of GLiNER and AutoTrain."""
    arguments = sys.argv[1:]

    def command() -> None:
        arguments[:] = configured(arguments)
        app(arguments)

    run(command, arguments)


if __name__ == "__main__":
    main()
