"""Train a pipeline: ``python -m gliner_pipe.train --config configs/config.cfg``, or ``train(...)``."""

if __name__ == "__main__":  # before the imports below, which --help does not need
    from gliner_pipe.cli.commands import start

    start("train")

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from spacy.language import Language

from gliner_pipe.cli.config_cli import ConfigCli
from gliner_pipe.cli.options import command_line
from gliner_pipe.errors import ConfigError
from gliner_pipe.migration import translate
from gliner_pipe.pipeline.build import pipeline_of
from gliner_pipe.pipeline.convert import check_tagger_of, to_transformers
from gliner_pipe.registry import registry
from gliner_pipe.training.arguments import TrainOptions
from gliner_pipe.training.data_sections import TrainData, ValidationData
from gliner_pipe.training.run_folder import RunFolder, check_export, only_training
from gliner_pipe.training.trainer import Trainer
from gliner_pipe.util.consent import is_stated, trusting
from gliner_pipe.util.console import console_note
from gliner_pipe.util.ranges import Integer, Number
from gliner_pipe.util.secrets import marked

app = ConfigCli()

#: Arguments of :func:`train` that are no options of the trainer.
NOT_OF_TRAINER = ("aliases", "config_meta", "transformers_path", "trust_remote_code")


@app.command(name="train", registry=registry)
def train(
    nlp: Any,
    train_data: TrainData | None = None,
    val_data: ValidationData | None = None,
    *,
    validation_split: Number | None = None,
    unseen_labels: list[str] | None = None,
    max_steps: Integer | None = None,
    max_epochs: Number | None = None,
    batch_size: Integer | str = "2000 words",
    gradient_accumulation_steps: Integer = 1,
    grad_accumulation_max_tokens: Integer | None = None,
    auto_find_batch_size: bool = False,
    cut_by_length: bool = True,
    feature_cache: bool | str | None = None,
    transformer_lr: Number = 5e-5,
    task_lr: Number = 1e-4,
    weight_decay: Number = 0.01,
    task_weight_decay: Number | None = None,
    param_groups: list[dict[str, Any]] | None = None,
    freeze_components: list[str] | None = None,
    warmup_rate: Number = 0.1,
    warmup_steps: Integer | None = None,
    schedule: Any = None,
    optimizer: Any = None,
    max_grad_norm: Number | None = 1.0,
    ema_decay: Number | None = None,
    start_decay: Number = 0.0,
    validation_interval: Integer | str | None = None,
    validate_at_start: bool = False,
    scorer: Any = None,
    best_metric: str | None = None,
    patience: Integer | None = None,
    patience_threshold: Number = 0.0,
    load_best_model_at_end: bool = False,
    seed: Integer = 42,
    data_seed: Integer | None = None,
    full_determinism: bool = False,
    output_path: str | Path = "artifacts",
    best_path: str | Path | None = None,
    transformers_path: str | Path | None = None,
    overwrite: bool | None = None,
    checkpoint_interval: Integer | str | None = None,
    save_total_limit: Integer | None = 1,
    resume_from_checkpoint: str | bool | None = None,
    ignore_data_skip: bool = False,
    loggers: Any = "default",
    logging_interval: Integer = 1,
    run_name: str | None = None,
    sample_texts: list[str] | None = None,
    mixed_precision: str = "no",
    compile: bool | str = False,
    cpu: bool = False,
    num_workers: Integer = 0,
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
    """Train the ``gliner`` and ``token_classifier`` components of a pipeline.

    The options are those of the ``[train]`` section of a config file. Any option of the file can be set on
    the command line: ``--max_steps 50``, ``--vars.train other.jsonl``, ``--components.gliner.threshold 0.4``.
    The same options and the same seed give the same weights from the command line and from Python. For
    several GPUs, start with ``accelerate launch -m gliner_pipe.train --config configs/config.cfg``.

    Parameters
    ----------
    nlp
        The pipeline: an ``[nlp]`` section, the path or package name of a saved pipeline to train further, or a
        pipeline.
    train_data
        Training data: a section with a ``reader`` (see the documentation for its other options), a path, a reader,
        a list of examples or of records, or a list of these, of which each step draws one batch each. Also
        ``train_dataset``.
    val_data
        Validation data, in the same forms; without it there are no scores and no best model. Also ``eval_dataset``.
    validation_split
        Share of the training documents to hold out for validation instead, drawn with data_seed.
    unseen_labels
        Labels to hold out of the training and to score apart: zero-shot scores on labels the model never saw.
    max_steps
        Number of steps; 2000 when neither this nor max_epochs is given.
    max_epochs
        Length of the training in passes over the (largest) training data, instead of max_steps.
    batch_size
        Size of a batch, for each process: ``"2000 words"``, ``"16 samples"``, ``"4096 pieces"`` (subword tokens),
        ``"50 spans"``.
    gradient_accumulation_steps
        Number of batches in a step.
    grad_accumulation_max_tokens
        Split a batch into sub-batches of at most this many subword tokens to save memory; the result does not change.
    auto_find_batch_size
        When out of memory, split batches into smaller sub-batches and repeat the step; the result does not change.
    cut_by_length
        Split a batch into sub-batches of similar length if that saves more padding than it costs; the result does not
        change.
    feature_cache
        Cache the output of a frozen backbone for each window, so that each text is encoded once: true (a quarter of
        the free memory), a size (``"2 GB"``) or false. By default on if windows are the same in every pass.
    transformer_lr
        Peak learning rate of the pretrained transformers.
    task_lr
        Peak learning rate of all other weights.
    weight_decay
        Weight decay; biases and normalisation layers have none.
    task_weight_decay
        Weight decay of all but the pretrained transformers; weight_decay by default.
    param_groups
        Exceptions by regular expression, e.g. ``[{"selector": "embeddings", "freeze": true}]``; keys:
        selector, lr, weight_decay, freeze.
    freeze_components
        Parts whose weights are not trained: ``text_encoder``, ``labels_encoder``, ``decoder``, a dotted path of
        blocks such as ``span_rep``, or a component of the pipeline.
    warmup_rate
        Share of the steps in which the learning rates rise from 0.
    warmup_steps
        The same as a number of steps, instead of warmup_rate.
    schedule
        Learning rates after the warm-up: ``linear`` (to 0, the default), ``cosine``, ``cosine_with_restarts``,
        ``constant``, ``polynomial``, ``inverse_sqrt``, or a block with its own warm-up: ``[train.schedule] @schedules =
        "cosine"``.
    optimizer
        ``adamw`` (the default), ``sgd``, ``adafactor``, a class of torch.optim such as ``NAdam``, or a block:
        ``[train.optimizer] @optimizers = "adamw", beta2 = 0.98``.
    max_grad_norm
        Gradients are clipped to this norm; null does not clip.
    ema_decay
        Validate and save an exponential moving average (EMA) of the weights: 0.999 is usual.
    start_decay
        Pull the weights towards their initial values (L2-SP), so that fine-tuning forgets less: 100 and more.
    validation_interval
        Steps between two validations, or ``"epoch"``; a tenth of max_steps by default. The last step is always
        validated.
    validate_at_start
        Validate before the first step, too; the initial weights are the best model until others are better.
    scorer
        Scorers by name, e.g. ``[scorer.ner] @scorers = "gliner_pipe.ner_exact"``; exact spans by default.
    best_metric
        Score that selects the best model, e.g. ``ner.micro.f``; by default the micro F1 of the first scorer.
        ``val_loss``: the lowest loss on the validation data.
    patience
        Number of validations without a better score after which the training ends.
    patience_threshold
        Minimum improvement of the score for patience.
    load_best_model_at_end
        Return the pipeline with the best weights instead of the last ones.
    seed
        Seed of new weights, dropout and, without data_seed, the order of the data.
    data_seed
        Seed of the order of the data and the sampling of labels.
    full_determinism
        Use only deterministic kernels of torch; slower on a GPU.
    output_path
        Folder of this training: ``model-last`` and ``model-best``, each replaced atomically at each saving,
        ``checkpoints``, logs and ``train_config.cfg``. ``NAME/model-last`` means the folder ``NAME``.
    best_path
        Folder of the best model; ``model-best`` in the folder of the training by default.
    transformers_path
        Folder to which the trained tagger is also exported for ``AutoModelForTokenClassification``; other files there
        are kept. The best weights if load_best_model_at_end is set, else the last ones.
    overwrite
        What happens to the models, checkpoints and logs of an earlier training in the folder: null moves them to
        ``earlier/<date and time>`` in the folder, true replaces them, false refuses the training.
    checkpoint_interval
        Steps between two savings of the last model and a checkpoint, or ``"epoch"``; validation_interval by
        default.
    save_total_limit
        Checkpoints to keep in ``checkpoints``; null keeps all, 0 writes none.
    resume_from_checkpoint
        ``"auto"`` resumes from the newest checkpoint, if there is one; or the path of a checkpoint.
    ignore_data_skip
        After resuming, draw the data from the beginning instead of from the position of the checkpoint.
    loggers
        ``default`` (``rich`` on the console, ``jsonl``, ``csv`` and ``plot``), ``tensorboard``,
        ``wandb``, ``mlflow``, ``trackio``, or blocks: ``[train.loggers.console] @loggers = "rich"``.
    logging_interval
        Steps between two logged steps.
    run_name
        Name of this training for the trackers; by default the name of its folder with the date.
    sample_texts
        Texts whose entities are printed at the end, as found by the trained pipeline loaded from disk.
    mixed_precision
        ``no``, ``bf16`` or ``fp16``.
    compile
        Compile the pretrained transformers with torch; a text names the backend.
    cpu
        Train on the CPU even if there is a GPU.
    num_workers
        Number of processes that prefetch batches; useful if a fast GPU waits for the CPU.
    push_to_hub
        Upload what is saved to the Hugging Face hub, with the login of this machine or ``HF_TOKEN``.
    hub_model_id
        Repository, ``user/name``; by default the name of the folder of the training, in your own namespace.
    hub_strategy
        When to upload: ``end``, ``every_save``, ``checkpoint`` (also what is needed to resume) or
        ``all_checkpoints``.
    hub_private_repo
        Whether a new repository is private.
    hub_always_push
        Upload every saving, even if an earlier upload is still running.
    on_validation_callback
        Called with the record of every validation (Python only).
    trust_remote_code
        Consent to run Python code that comes with the models of the pipeline, for this training only; as
        ``trust_remote_code = true`` of a block in the ``[nlp]`` section. Trained pipelines do not contain it.
    config_meta
        Set by the command line.
    aliases
        Names of these options in GLiNER, EDS-NLP, transformers and AutoTrain; see the documentation on migrating.

    Returns
    -------
    Language
        The pipeline after the last step; the best one is on disk.

    Raises
    ------
    ConfigError
        If an option is invalid.
    DataError
        If the data cannot be read, or another process trains in the folder.
    TrainingError
        If the loss is not finite or diverges, or memory is full.
    """
    nlp = pipeline_of(nlp, trust_remote_code, "train.nlp")
    given = dict(locals())
    for name in NOT_OF_TRAINER:
        given.pop(name)
    _take_data_sets(given, aliases)
    given = translated(given, aliases, console_note)
    main = os.environ.get("RANK", "0") == "0"
    nlp = given.pop("nlp")
    options = TrainOptions.of(given)
    if transformers_path is not None:
        check_tagger_of(nlp)
        check_export(Path(transformers_path), options)
    config = None if config_meta is None else config_meta.get("unresolved_config")
    written = {"nlp": nlp, **given} if config_meta is None else config or {}
    if (names := list(dict.fromkeys(marked(written)))) and main:
        console_note(
            f"warning: The config contains redacted secrets, which are used as they are: {', '.join(names)}. Set them "
            "on the command line (--section.name VALUE), or in the environment variable of the service"
        )
    folder = RunFolder.of(options.output_path, options.best_path)
    if main:
        folder.check_writable()
    with only_training(folder):
        # checkpoints and the best model that the training writes and reads back need the same consent
        with trusting(trust_remote_code or is_stated(nlp)):
            check = None if transformers_path is None else check_tagger_of
            command = None if config_meta is None else config_meta.get("command", "train")
            trainer = Trainer(nlp, options, config, check, command)
            trained = trainer.run()
        if transformers_path is not None and main:
            trainer.export(to_transformers(trained, Path(transformers_path)))
    return trained


def translated(
    given: Mapping[str, Any], aliases: Mapping[str, Any], note: Callable[[str], None]
) -> dict[str, Any]:
    """Return the options of a training under their own names.

    Parameters
    ----------
    given
        The options by name, and the pipeline.
    aliases
        Options by their names in other libraries, see :func:`train`.
    note
        Takes a line for the user.

    Raises
    ------
    ConfigError
        If an alias is unknown, or its value is not allowed.
    """
    options = dict(given)
    for name, off in (("max_steps", -1), ("max_grad_norm", 0)):  # the off values of transformers
        options[name] = None if options[name] == off else options[name]
    if "warmup_ratio" in aliases and options["warmup_steps"] == 0:
        options["warmup_steps"] = None
    return options | translate(aliases, list(options), note)


def _take_data_sets(given: dict[str, Any], aliases: dict[str, Any]) -> None:
    """Move the data sets from `aliases`, where they have the names of transformers' trainer, to `given`."""
    for name, alias, form in (
        ("train_data", "train_dataset", TrainData),
        ("val_data", "eval_dataset", ValidationData),
    ):
        if alias in aliases:
            if given[name] is not None:
                raise ConfigError(f"train.{alias}", f"is given together with {name}", "one of the two")
            given[name] = form.validate(aliases.pop(alias))
    if given["train_data"] is None:
        raise ConfigError(
            "train.train_data", "is missing", "data to train on", "Add a section [train.train_data]"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; its config is a ``.cfg`` file, or the YAML of GLiNER and AutoTrain."""
    command_line("train", app, None, argv)
