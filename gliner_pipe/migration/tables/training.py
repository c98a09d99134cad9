"""Training options of GLiNER, transformers and EDS-NLP, and the option of this project that replaces each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gliner_pipe.migration.joining import OPTIMIZERS, SCHEDULES
from gliner_pipe.migration.names import Name
from gliner_pipe.migration.values import (
    MASKINGS,
    STRATEGIES,
    TOKEN,
    any_number,
    anything,
    choice,
    clipping,
    flag,
    greater,
    interval,
    logging_steps,
    metric,
    model_last,
    number,
    placeholder,
    resume,
    samples,
    smoothing,
    steps_or_endless,
    text,
    texts,
    tokens,
    trackers,
    warmup,
    whole,
)

HF = ("GLiNER", "transformers")


def _ignored(name: str, meaning: str, read: Any = anything) -> Name:
    return Name(name, HF, "", meaning, read, "ignored")


def _refused(name: str, meaning: str, do: str) -> Name:
    return Name(name, HF, "", meaning, fate="refused", do=do)


def _others() -> Iterator[Name]:
    yield _ignored("hub_token", f"{TOKEN}; a real token is refused.", placeholder)
    yield _ignored(
        "group_by_length", "Batches are drawn evenly: those of texts of like length are no fair sample.", flag
    )
    yield _ignored(
        "train_sampling_strategy",
        "Batches are drawn evenly: those of texts of like length are no fair sample.",
        choice(("random", "group_by_length")),
    )
    yield _ignored("length_column_name", "The length of a text is the number of its words.", text)
    yield _ignored("greater_is_better", "Scores of entities are the better the higher they are.", greater)
    yield _ignored("label_smoothing_factor", "GLiNER's loss reads label_smoothing.", smoothing)
    yield _ignored("average_tokens_across_devices", "Losses are summed over all devices without it.", flag)
    for name in ("tf32", "fp16_full_eval", "bf16_full_eval"):
        yield _ignored(name, "Precision is set by mixed_precision alone.")
    for name in (
        "logging_first_step",
        "logging_dir",
        "log_level",
        "log_level_replica",
        "log_on_each_node",
        "logging_nan_inf_filter",
        "disable_tqdm",
        "include_num_input_tokens_seen",
    ):
        yield _ignored(name, "Logs go beside the models, and loggers say what they log.")
    for name in (
        "do_train",
        "do_eval",
        "do_predict",
        "remove_unused_columns",
        "label_names",
        "past_index",
        "prediction_loss_only",
        "include_for_metrics",
        "include_inputs_for_metrics",
        "batch_eval_metrics",
        "eval_do_concat_batches",
        "eval_use_gather_object",
        "eval_accumulation_steps",
        "eval_delay",
        "skip_memory_metrics",
        "torch_empty_cache_steps",
        "cache_dir",
        "use_cache",
    ):
        yield _ignored(
            name, "It tells the Trainer of transformers how to work, and nothing about the training."
        )
    for name in (
        "dataloader_pin_memory",
        "dataloader_persistent_workers",
        "dataloader_prefetch_factor",
        "dataloader_in_order",
        "dataloader_multiprocessing_context",
    ):
        yield _ignored(name, "It makes loading faster or slower, with the same batches.")
    for name in ("save_safetensors", "save_on_each_node", "restore_callback_states_from_checkpoint"):
        yield _ignored(name, "Models are always written as safetensors, with all that goes with them.")
    block = 'Write it as a block: [train.schedule] @schedules = "cosine"'
    yield _refused("lr_scheduler_kwargs", "Settings of a schedule stand in its block.", block)
    yield _refused(
        "optim_args",
        "Settings of an optimizer stand in its block.",
        'Write it as a block: [train.optimizer] @optimizers = "adamw"',
    )
    yield _refused(
        "optim_target_modules",
        "Parameters with settings of their own stand in a list.",
        'Write [train] param_groups = [{"selector": "...", "lr": 1e-5}]',
    )
    yield _refused("gradient_checkpointing_kwargs", "Only the usual kind is there.", "Leave it out")
    yield _refused("dataloader_drop_last", "No example is left out.", "Leave it out")
    yield _refused(
        "save_only_model",
        "Checkpoints hold what a training needs to go on.",
        "Set checkpoint_interval to a large number to have none",
    )
    yield _refused("hub_revision", "Models are uploaded to the main branch.", "Leave it out")
    yield _refused("neftune_noise_alpha", "There is no noise on embeddings.", "Leave it out")
    launch = "Several machines are the matter of accelerate."
    for name in (
        "fsdp",
        "fsdp_config",
        "deepspeed",
        "parallelism_config",
        "accelerator_config",
        "ddp_backend",
        "ddp_timeout",
        "ddp_find_unused_parameters",
        "ddp_bucket_cap_mb",
        "ddp_broadcast_buffers",
        "ddp_static_graph",
        "local_rank",
    ):
        yield _refused(name, launch, "Start with: accelerate launch -m gliner_pipe.train --config ...")
    for name in (
        "use_liger_kernel",
        "liger_kernel_config",
        "torch_compile_backend",
        "torch_compile_mode",
        "enable_jit_checkpoint",
        "debug",
    ):
        yield _refused(name, "There is nothing like it here.", "Leave it out")
    for name in ("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"):
        yield _refused(
            name,
            "Settings of a tracker stand in its block.",
            'Write it as a block: [train.loggers.trackio] @loggers = "trackio"',
        )


#: In the order of the documentation.
OTHERS: tuple[Name, ...] = tuple(_others())


GLINER, OLDER, HF, EDS = ("GLiNER",), ("GLiNER (older)",), ("GLiNER", "transformers"), ("EDS-NLP",)
LOSS = "components.gliner.model.loss"
RELATION_LOSS = "components.gliner.model.relation_loss"
BACKBONE = "components.gliner.model.encoder.backbone"


def _options() -> Iterator[Name]:
    yield Name("learning_rate", HF, "train.transformer_lr", "Highest learning rate of the encoder.", number())
    yield Name(
        "others_lr",
        GLINER,
        "train.task_lr",
        "Highest learning rate of everything else; the same as that of the encoder when not given.",
        number(),
    )
    yield Name("weight_decay", HF, "train.weight_decay", "Weight decay of the encoder.", number())
    yield Name(
        "others_weight_decay", GLINER, "train.task_weight_decay", "Weight decay of everything else.", number()
    )
    yield Name(
        "optim",
        HF,
        "train.optimizer",
        "adamw (all of transformers' plain variants), sgd or adafactor.",
        choice(OPTIMIZERS),
        part="optim",
    )
    yield Name(
        "adam_beta1",
        HF,
        "train.optimizer.beta1",
        "Decay of the running mean of the gradient.",
        number(0, 1),
        part="beta1",
    )
    yield Name(
        "adam_beta2",
        HF,
        "train.optimizer.beta2",
        "Decay of the running mean of its square.",
        number(0, 1),
        part="beta2",
    )
    yield Name(
        "adam_epsilon",
        HF,
        "train.optimizer.eps",
        "Added to Adam's denominator.",
        number(0, above=True),
        part="eps",
    )
    yield Name(
        "lr_scheduler_type",
        HF,
        "train.schedule",
        "How the learning rates fall.",
        choice(SCHEDULES),
        part="schedule",
    )
    yield Name(
        "warmup_ratio",
        HF,
        "train.warmup_rate",
        "Share of the steps in which the learning rates climb.",
        number(0, 1),
    )
    yield Name(
        "warmup_steps",
        HF,
        "train.warmup_steps",
        "Steps in which the learning rates climb; 0 leaves it to the share, a number below 1 is a share.",
        warmup,
        part="warmup_steps",
    )
    yield Name(
        "max_grad_norm",
        HF,
        "train.max_grad_norm",
        "Gradients are scaled down to this norm; 0 leaves them.",
        clipping,
        null=True,
    )
    yield Name(
        "num_train_epochs",
        HF,
        "train.max_epochs",
        "Passes over the data, unless max_steps is above 0.",
        number(0, above=True),
    )
    yield Name(
        "max_steps", HF, "train.max_steps", "Number of steps; -1 leaves it to the epochs.", steps_or_endless
    )
    yield Name(
        "per_device_train_batch_size",
        HF,
        "train.batch_size",
        "Examples in a batch; batch_size can also count words.",
        samples,
    )
    yield Name(
        "per_device_eval_batch_size",
        HF,
        "components.gliner.batch_size",
        "Documents that the component reads at once.",
        whole(),
    )
    yield Name(
        "gradient_accumulation_steps", HF, "train.gradient_accumulation_steps", "Batches in a step.", whole()
    )
    yield Name(
        "auto_find_batch_size",
        HF,
        "train.auto_find_batch_size",
        "Cut batches smaller where memory runs out; the result is the same.",
        flag,
    )
    yield Name("bf16", HF, "train.mixed_precision", "Compute in bfloat16.", flag, part="bf16")
    yield Name("fp16", HF, "train.mixed_precision", "Compute in float16.", flag, part="fp16")
    yield Name(
        "gradient_checkpointing", HF, f"{BACKBONE}.gradient_checkpointing", "Less memory and more time.", flag
    )
    yield Name("seed", HF, "train.seed", "Decides new weights, dropout and the order of the data.", whole(0))
    yield Name("data_seed", HF, "train.data_seed", "Decides the order of the data by itself.", whole(0))
    yield Name(
        "full_determinism", HF, "train.full_determinism", "Only operations that repeat to the bit.", flag
    )
    yield Name(
        "report_to",
        HF,
        "train.loggers",
        "Trackers besides the console and the files.",
        trackers,
        part="loggers",
    )
    yield Name("run_name", HF, "train.run_name", "Name of the run in trackers.", text)
    yield Name(
        "logging_steps",
        HF,
        "train.logging_interval",
        "Steps between two lines of the log; -1 logs each.",
        logging_steps,
        part="logging_steps",
    )
    yield Name(
        "logging_strategy",
        HF,
        "train.logging_interval",
        "no, steps.",
        choice(("no", "steps")),
        part="logging_strategy",
    )
    for name in ("eval_strategy", "evaluation_strategy"):
        yield Name(
            name,
            HF,
            "train.validation_interval",
            "no (once, after the last step), steps or epoch.",
            choice(STRATEGIES),
            part="eval_strategy",
        )
    yield Name(
        "eval_steps",
        HF,
        "train.validation_interval",
        "Steps between two validations; below 1 a share of all steps.",
        interval,
        part="eval_steps",
    )
    yield Name("eval_on_start", HF, "train.validate_at_start", "Validate before the first step.", flag)
    yield Name(
        "save_strategy",
        HF,
        "train.checkpoint_interval",
        "no, steps, epoch or best.",
        choice((*STRATEGIES, "best")),
        part="save_strategy",
    )
    yield Name(
        "save_steps",
        HF,
        "train.checkpoint_interval",
        "Steps between two savings; below 1 a share of all steps.",
        interval,
        part="save_steps",
    )
    yield Name(
        "save_total_limit",
        HF,
        "train.save_total_limit",
        "Checkpoints that are kept; null keeps all.",
        whole(),
        null=True,
    )
    yield Name(
        "load_best_model_at_end",
        HF,
        "train.load_best_model_at_end",
        "Return the best model, not the last; both are on disk.",
        flag,
    )
    yield Name(
        "metric_for_best_model",
        HF,
        "train.best_metric",
        "f1, precision, recall, or a score by its full name.",
        metric,
    )
    yield Name(
        "early_stopping_patience",
        ("transformers", "AutoTrain"),
        "train.patience",
        "Validations without a better score after which the training ends.",
        whole(),
    )
    yield Name(
        "early_stopping_threshold",
        ("transformers", "AutoTrain"),
        "train.patience_threshold",
        "By how much a score must be better to count.",
        number(),
    )
    yield Name("push_to_hub", HF, "train.push_to_hub", "Upload the model to the Hugging Face hub.", flag)
    yield Name("hub_model_id", HF, "train.hub_model_id", "Its name there, user/model.", text)
    yield Name(
        "hub_strategy",
        HF,
        "train.hub_strategy",
        "When it is uploaded.",
        choice(("end", "every_save", "checkpoint", "all_checkpoints")),
    )
    yield Name("hub_private_repo", HF, "train.hub_private_repo", "Whether only you can see it there.", flag)
    yield Name(
        "hub_always_push",
        HF,
        "train.hub_always_push",
        "Push every saving, also while another is uploaded.",
        flag,
    )
    yield Name(
        "resume_from_checkpoint",
        HF,
        "train.resume_from_checkpoint",
        "Go on from a checkpoint: its folder, or true for the last one.",
        resume,
    )
    yield Name(
        "ignore_data_skip", HF, "train.ignore_data_skip", "Begin the data anew when a training goes on.", flag
    )
    yield Name(
        "output_dir",
        (*HF, "EDS-NLP"),
        "train.output_path",
        "The models are written into this folder.",
        model_last,
    )
    yield Name(
        "overwrite_output_dir", HF, "train.overwrite", "Whether the folder may hold a model already.", flag
    )
    yield Name(
        "freeze_components",
        GLINER,
        "train.freeze_components",
        "Blocks that do not learn: text_encoder, labels_encoder, decoder.",
        texts,
    )
    for name in ("compile_model", "torch_compile"):
        yield Name(
            name, GLINER if name == "compile_model" else HF, "train.compile", "Compile the model.", flag
        )
    for name in ("use_cpu", "no_cuda"):
        yield Name(name, HF, "train.cpu", "Train on the CPU even where there is a GPU.", flag)
    yield Name(
        "dataloader_num_workers", HF, "train.num_workers", "Processes that prepare batches ahead.", whole(0)
    )


def _losses() -> Iterator[Name]:
    yield Name(
        "loss_type",
        GLINER,
        f"{LOSS}.@losses",
        "focal, bce or dice.",
        choice({name: f"gliner_pipe.{name}" for name in ("focal", "bce", "dice")}),
    )
    yield Name(
        "focal_loss_alpha", GLINER, f"{LOSS}.alpha", "Weight of positives; below 0 for none.", any_number
    )
    yield Name(
        "focal_loss_gamma", GLINER, f"{LOSS}.gamma", "How strongly easy elements are played down.", number()
    )
    yield Name(
        "focal_loss_prob_margin",
        GLINER,
        f"{LOSS}.prob_margin",
        "Negatives below this probability cost nothing.",
        number(0, 1),
    )
    yield Name(
        "rel_focal_loss_alpha", GLINER, f"{RELATION_LOSS}.alpha", "The same for relations.", any_number
    )
    yield Name("rel_focal_loss_gamma", GLINER, f"{RELATION_LOSS}.gamma", "The same for relations.", number())
    yield Name(
        "dice_gamma", GLINER, f"{LOSS}.gamma", "Exponent of the Dice loss.", number(), part="dice_gamma"
    )
    yield Name(
        "label_smoothing", GLINER, f"{LOSS}.label_smoothing", "Moves targets towards one half.", number(0, 1)
    )
    yield Name("loss_reduction", GLINER, f"{LOSS}.reduction", "sum or mean.", choice(("sum", "mean")))
    yield Name(
        "negatives", GLINER, f"{LOSS}.negatives", "Share of the masked negatives that is kept.", number(0, 1)
    )
    yield Name(
        "masking",
        GLINER,
        f"{LOSS}.masking",
        "Which negatives may be left out.",
        choice(MASKINGS),
        literal=True,
    )
    yield Name("use_span_width_weight", GLINER, f"{LOSS}.width_weight", "Wider entities weigh more.", flag)
    yield Name("loss_alpha", OLDER, f"{LOSS}.alpha", "As focal_loss_alpha.", any_number)
    yield Name("loss_gamma", OLDER, f"{LOSS}.gamma", "As focal_loss_gamma.", number())
    yield Name("loss_prob_margin", OLDER, f"{LOSS}.prob_margin", "As focal_loss_prob_margin.", number(0, 1))


def _older() -> Iterator[Name]:
    yield Name("lr_encoder", OLDER, "train.transformer_lr", "As learning_rate.", number())
    yield Name("lr_others", OLDER, "train.task_lr", "As others_lr.", number())
    yield Name("weight_decay_encoder", OLDER, "train.weight_decay", "As weight_decay.", number())
    for name in ("weight_decay_other", "weight_decay_others"):
        yield Name(name, OLDER, "train.task_weight_decay", "As others_weight_decay.", number())
    yield Name("num_steps", OLDER, "train.max_steps", "As max_steps.", steps_or_endless)
    yield Name("train_batch_size", OLDER, "train.batch_size", "As per_device_train_batch_size.", samples)
    yield Name(
        "eval_batch_size", OLDER, "components.gliner.batch_size", "As per_device_eval_batch_size.", whole()
    )
    yield Name(
        "eval_every",
        OLDER,
        "train.validation_interval",
        "Steps between two validations and savings.",
        whole(),
    )
    yield Name(
        "scheduler_type", OLDER, "train.schedule", "As lr_scheduler_type.", choice(SCHEDULES), part="schedule"
    )
    yield Name("freeze_token_rep", OLDER, f"{BACKBONE}.freeze", "Keep the encoder as it is.", flag)


def _eds() -> Iterator[Name]:
    yield Name("grad_max_norm", EDS, "train.max_grad_norm", "As max_grad_norm.", clipping)
    yield Name("output_model_dir", EDS, "train.output_path", "Folder of the last model.", Path)
    yield Name("sub_batch_size", EDS, "train.grad_accumulation_max_tokens", 'Written "1000 tokens".', tokens)
    yield Name("logger", EDS, "train.loggers", "Names of loggers, or blocks.", anything)


#: All of them, in the order of the documentation.
TRAINING: tuple[Name, ...] = (*_options(), *_losses(), *_older(), *_eds(), *OTHERS)
