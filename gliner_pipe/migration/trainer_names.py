"""The training options of transformers that change nothing here, or have no like here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gliner_pipe.migration.names import Name
from gliner_pipe.migration.option_values import TOKEN, greater, placeholder, smoothing
from gliner_pipe.migration.values import anything, choice, flag, text

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
