"""The options of ``[train]``: their types and ranges, and the number of steps that they amount to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from gliner_pipe.data.batching import parse_size
from gliner_pipe.errors import ConfigError
from gliner_pipe.training.feature_cache import parse_bytes
from gliner_pipe.util.options import checked
from gliner_pipe.util.ranges import Amount, Count, NonNegative, OpenShare, Positive, Seed, Share

#: Length of a training in steps when neither ``max_steps`` nor ``max_epochs`` is set.
DEFAULT_STEPS = 2000


def _not_blank(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("the path of a folder")
    return value


#: A folder; an empty text would be the working directory.
Folder = Annotated[Path, BeforeValidator(_not_blank)]
#: Zero counts as 1: ``${train.max_steps//10}`` is 0 in a short training.
Interval = Amount


class TrainOptions(BaseModel):
    """All options of a training, validated; :func:`gliner_pipe.train.train` documents each and sets the defaults."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    train_data: Any
    val_data: Any
    validation_split: OpenShare | None
    unseen_labels: list[str]
    max_steps: Count | None
    max_epochs: Positive | None
    batch_size: Count | str
    gradient_accumulation_steps: Count
    grad_accumulation_max_tokens: Count | None
    auto_find_batch_size: bool
    cut_by_length: bool
    feature_cache: bool | str | None
    transformer_lr: NonNegative
    task_lr: NonNegative
    weight_decay: NonNegative
    task_weight_decay: NonNegative | None
    param_groups: list[dict[str, Any]]
    freeze_components: list[str]
    warmup_rate: Share
    warmup_steps: Amount | None
    schedule: Any
    optimizer: Any
    max_grad_norm: Positive | None
    ema_decay: OpenShare | None
    start_decay: NonNegative
    validation_interval: Interval | Literal["epoch"] | None
    validate_at_start: bool
    scorer: Any
    best_metric: str | None
    patience: Count | None
    patience_threshold: NonNegative
    load_best_model_at_end: bool
    seed: Seed
    data_seed: Seed | None
    full_determinism: bool
    output_path: Folder
    best_path: Folder | None
    overwrite: bool | None
    checkpoint_interval: Interval | Literal["epoch"] | None
    save_total_limit: Amount | None
    resume_from_checkpoint: str | bool | None
    ignore_data_skip: bool
    loggers: Any
    logging_interval: Count
    run_name: str | None
    sample_texts: list[str]
    mixed_precision: Literal["no", "fp16", "bf16"]
    compile: bool | str
    cpu: bool
    num_workers: Amount
    push_to_hub: bool
    hub_model_id: str | None
    hub_strategy: Literal["end", "every_save", "checkpoint", "all_checkpoints"]
    hub_private_repo: bool
    hub_always_push: bool
    on_validation_callback: Any

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> TrainOptions:
        """Return the options, checked one by one and together.

        Raises
        ------
        ConfigError
            At the first invalid option.
        """
        options = cls.typed(given)
        options._check_combinations()
        return options

    @classmethod
    def typed(cls, given: Mapping[str, Any]) -> TrainOptions:
        """Return the options, checked one by one only.

        Raises
        ------
        ConfigError
            At the first invalid option.
        """
        given = dict(given)
        for name in ("unseen_labels", "param_groups", "freeze_components", "sample_texts"):
            given[name] = [] if given[name] is None else given[name]
        return checked(cls, given, "train")

    def _check_combinations(self) -> None:
        if self.max_steps is not None and self.max_epochs is not None:
            raise ConfigError(
                "train.max_epochs",
                f"is {self.max_epochs:g}, and max_steps is {self.max_steps}",
                "one of the two",
                "Set the other to null",
            )
        try:
            parse_size(self.batch_size)
        except ConfigError as error:
            raise ConfigError("train.batch_size", error.found, error.allowed, error.do) from None
        if isinstance(self.feature_cache, str):
            parse_bytes(self.feature_cache)
        if self.validation_split is not None and self.val_data is not None:
            raise ConfigError(
                "train.validation_split", "is set together with val_data", "one of the two", "Remove one"
            )
        if self.validation_split is None and self.val_data is None:
            for name in ("best_metric", "patience", "load_best_model_at_end", "validate_at_start"):
                if getattr(self, name) not in (None, False):
                    raise ConfigError(
                        f"train.{name}",
                        "is set, but there is no validation data",
                        do="Add [train.val_data], or set validation_split",
                    )

    @property
    def order_seed(self) -> int:
        """Seed of the order of the data: ``data_seed``, or ``seed`` when that is not set."""
        return self.seed if self.data_seed is None else self.data_seed

    def resume_settings(self, processes: int) -> dict[str, Any]:
        """Return the settings that change the steps; a checkpoint stores them, so that a resumed training compares.

        Parameters
        ----------
        processes
            Number of training processes.
        """
        schedule = self.schedule
        optimizer = str(getattr(self.optimizer, "optimizer_class", self.optimizer or "adamw"))
        return {
            **{name: getattr(self, name) for name in _STORED},
            "optimizer": optimizer,
            "schedule": schedule
            if schedule is None or isinstance(schedule, str)
            else type(schedule).__name__,
            "data_seed": self.order_seed,
            "processes": processes,
        }


#: Options in ``TrainOptions.resume_settings``.
_STORED = (
    *("seed", "batch_size", "gradient_accumulation_steps", "grad_accumulation_max_tokens", "cut_by_length"),
    *("max_steps", "max_epochs", "transformer_lr", "task_lr", "weight_decay", "task_weight_decay"),
    *("freeze_components", "param_groups", "unseen_labels"),
    *("warmup_rate", "warmup_steps", "max_grad_norm", "ema_decay", "start_decay", "mixed_precision"),
)


@dataclass(frozen=True)
class Plan:
    """The number of steps of a training, and when it validates and saves.

    Parameters
    ----------
    max_steps
        Total number of steps.
    validation_interval, checkpoint_interval
        Steps between two validations and between two checkpoints, both at least 1.
    """

    max_steps: int
    validation_interval: int
    checkpoint_interval: int

    @classmethod
    def make(cls, options: TrainOptions, steps_per_epoch: Callable[[], int]) -> Plan:
        """Convert epochs to steps and fill in the default intervals.

        Parameters
        ----------
        options
            Of the training.
        steps_per_epoch
            Counts the steps of an epoch; called only if an option is given in epochs.
        """
        if options.max_epochs is not None:
            max_steps = max(1, math.ceil(options.max_epochs * steps_per_epoch()))
        else:
            max_steps = options.max_steps or DEFAULT_STEPS

        def steps(value: int | str | None, default: int) -> int:
            if isinstance(value, str):
                value = steps_per_epoch()
            return max(1, default if value is None else value)

        validation = steps(options.validation_interval, max_steps // 10)
        return cls(max_steps, validation, steps(options.checkpoint_interval, validation))
