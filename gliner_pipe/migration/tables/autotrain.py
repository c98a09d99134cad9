"""The parameters of AutoTrain's token classification, and what each becomes here."""

from __future__ import annotations

from gliner_pipe.migration.joining import OPTIMIZERS, SCHEDULES
from gliner_pipe.migration.names import Name
from gliner_pipe.migration.values import (
    STRATEGIES,
    TOKEN,
    TRACKERS,
    choice,
    clipping,
    flag,
    logging_steps,
    model_last,
    number,
    placeholder,
    samples,
    text,
    texts,
    whole,
)

A = ("AutoTrain",)
BACKBONE = "components.token_classifier.embedding"

#: In the order of AutoTrain's documentation.
AUTOTRAIN: tuple[Name, ...] = (
    Name("data_path", A, "train.train_data.reader.path", "File, folder, or data set of the hub.", text),
    Name(
        "model",
        A,
        f"{BACKBONE}.model",
        "The encoder; a token classification model of transformers, or a GLiNER model, is gone on with.",
        text,
    ),
    Name(
        "project_name",
        A,
        "train.output_path",
        "Folder of the trained model, for transformers; the pipelines are in model-last and model-best in it.",
        model_last,
    ),
    Name("tokens_column", A, "train.train_data.reader.tokens_column", "Column of the words.", text),
    Name("tags_column", A, "train.train_data.reader.tags_column", "Column of their tags.", text),
    Name(
        "tag_names",
        A,
        "train.train_data.reader.tag_names",
        "The tags by their numbers, where the data does not name them (AutoTrain has no such parameter).",
        texts,
    ),
    Name("train_split", A, "train.train_data.reader.split", "Part of the data to learn from.", text),
    Name(
        "valid_split",
        A,
        "train.val_data.reader.split",
        "Part to measure on; without it a fifth of local data is held out.",
        text,
    ),
    Name(
        "max_samples",
        A,
        "train.train_data.reader.max_samples",
        "Rows to take, spread evenly; a fifth as many to measure on.",
        whole(),
    ),
    Name(
        "lr",
        A,
        "train.transformer_lr",
        "Highest learning rate.",
        number(),
    ),
    Name("epochs", A, "train.max_epochs", "Passes over the data.", number(0, above=True)),
    Name("batch_size", A, "train.batch_size", "Examples in a batch.", samples),
    Name(
        "max_seq_length",
        A,
        f"{BACKBONE}.window",
        "Pieces in a window; longer texts are read in several, none is cut.",
        whole(16),
    ),
    Name(
        "warmup_ratio",
        A,
        "train.warmup_rate",
        "Share of the steps in which the learning rates climb.",
        number(0, 1),
    ),
    Name("gradient_accumulation", A, "train.gradient_accumulation_steps", "Batches in a step.", whole()),
    Name(
        "optimizer",
        A,
        "train.optimizer",
        "adamw_torch, adamw_hf, sgd or adafactor.",
        choice(OPTIMIZERS),
        part="optim",
    ),
    Name(
        "scheduler",
        A,
        "train.schedule",
        "linear, cosine, constant or polynomial.",
        choice(SCHEDULES),
        part="schedule",
    ),
    Name("weight_decay", A, "train.weight_decay", "Weight decay.", number()),
    Name(
        "max_grad_norm",
        A,
        "train.max_grad_norm",
        "Gradients are scaled down to this norm; 0 leaves them.",
        clipping,
        null=True,
    ),
    Name(
        "seed",
        A,
        "train.seed",
        "Decides new weights and the order of the data (AutoTrain never reads it).",
        whole(0),
    ),
    Name(
        "mixed_precision",
        A,
        "train.mixed_precision",
        "fp16, bf16 or none.",
        choice(("fp16", "bf16", "no")),
        part="mixed_precision",
    ),
    Name(
        "auto_find_batch_size",
        A,
        "train.auto_find_batch_size",
        "Cut batches smaller where memory runs out; the result is the same.",
        flag,
    ),
    Name(
        "logging_steps",
        A,
        "train.logging_interval",
        "Steps between two lines of the log; -1 logs each.",
        logging_steps,
        part="logging_steps",
    ),
    Name(
        "eval_strategy",
        A,
        "train.validation_interval",
        "When to measure and to save: no (once, after the last step), steps or epoch.",
        choice(STRATEGIES),
        part="eval_strategy",
    ),
    Name(
        "early_stopping_patience",
        A,
        "train.patience",
        "Validations without a better F1 after which the training ends.",
        whole(),
    ),
    Name(
        "early_stopping_threshold",
        A,
        "train.patience_threshold",
        "By how much F1 must be better to count.",
        number(),
    ),
    Name("push_to_hub", A, "train.push_to_hub", "Upload the model to the Hugging Face hub.", flag),
    Name(
        "username", A, "train.hub_model_id", "Whose model it is there; its name is that of the project.", text
    ),
    Name("token", A, "", f"{TOKEN}; a real token in a file is refused.", placeholder, "ignored"),
    Name("save_total_limit", A, "train.save_total_limit", "Checkpoints that are kept.", whole()),
    Name(
        "log",
        A,
        "train.loggers",
        "Tracker besides the console and the files.",
        choice({"none": [], **{name: [name] for name in TRACKERS}}),
        part="loggers",
    ),
)
