"""A training from beginning to end: read, check, initialize, learn, tell."""

from __future__ import annotations

import json
import math
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from confit import Config
from rich.console import Console
from spacy.language import Language
from spacy.training import Example

from gliner_pipe.data.label_sets import label_warnings_off
from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.layers.dropout import quicken
from gliner_pipe.packaging.source import TRAIN_CONFIG
from gliner_pipe.training.arguments import Plan
from gliner_pipe.training.averaging import Anchor, WeightAverage
from gliner_pipe.training.checkpoints import FOLDER, ModelStore, checkpoints, find_checkpoint, remove
from gliner_pipe.training.data_loader import OVERHEAD, StepStream
from gliner_pipe.training.datasets import Dataset, counting_pieces, describe, draws_per_epoch
from gliner_pipe.training.distributed import (
    TrainedModels,
    agreed,
    compile_backbones,
    deterministic,
    gathered,
    make_accelerator,
)
from gliner_pipe.training.feature_cache import cached_features
from gliner_pipe.training.label_checks import check_labels
from gliner_pipe.training.loggers import RunInfo, TrainingLogger, make_loggers
from gliner_pipe.training.loop import Learner, Progress, train_steps
from gliner_pipe.training.optimizers import freeze, make_optimizer, parameter_groups
from gliner_pipe.training.protocol import TrainableByLoop
from gliner_pipe.training.run_info import config_text, package_versions, print_summary
from gliner_pipe.training.schedules import Schedule, make_schedule
from gliner_pipe.training.setup import ask_unseen, read_data
from gliner_pipe.training.validation import Supervisor
from gliner_pipe.util.console import console_note

if TYPE_CHECKING:
    from accelerate import Accelerator

    from gliner_pipe.hub import HubUploader


def trainable_components(nlp: Language) -> dict[str, TrainableByLoop]:
    """Return the enabled components that the loop can train, by name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    found = {name: pipe for name, pipe in nlp.pipeline if isinstance(pipe, TrainableByLoop)}
    if not found:
        names = ", ".join(map(repr, nlp.pipe_names)) or "no component at all"
        raise ConfigError(
            "train.nlp",
            f"has nothing to train: it has {names}",
            'a pipeline with a component of the factory "gliner" or "token_classifier"',
            "Add a section with one of these, or train the others with spacy train",
        )
    return found


def set_seed(seed: int) -> None:
    """Seed the generators that new weights and dropout draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


#: Options that a training which goes on should have as before: it is told where they differ.
_TOLD = (
    *("seed", "batch_size", "gradient_accumulation_steps", "grad_accumulation_max_tokens", "cut_by_length"),
    *(
        "max_steps",
        "max_epochs",
        "transformer_lr",
        "task_lr",
        "weight_decay",
        "task_weight_decay",
        "warmup_rate",
    ),
    *("warmup_steps", "max_grad_norm", "ema_decay", "start_decay", "mixed_precision"),
)


class Session:
    """One training; the options are those of ``gliner_pipe.train.train``.

    Parameters
    ----------
    nlp
        The pipeline.
    config
        What the command line read, written beside the models.
    options
        The other options, checked.
    """

    def __init__(self, *, nlp: Language, config: Config | None = None, **options: Any) -> None:
        self.nlp = nlp
        self.options = options
        self.output_path: Path = options["output_path"]
        self.best_path: Path = options["best_path"]
        self.checkpoints = self.output_path.parent / FOLDER
        self.seed: int = options["seed"]
        self.data_seed: int = self.seed if options["data_seed"] is None else options["data_seed"]
        self.versions = package_versions()
        self.config_text = config_text(config, options, self.versions)
        self._learning: list[torch.nn.Parameter] = []

    def run(self) -> Language:
        """Train and return the pipeline."""
        with deterministic(self.options["full_determinism"]):
            return self._run()

    def _run(self) -> Language:
        options = self.options
        components = trainable_components(self.nlp)
        speak = console_note if os.environ.get("RANK", "0") == "0" else _silent
        loggers = make_loggers(options["loggers"], speak)
        schedule = make_schedule(options["schedule"], options["warmup_rate"], options["warmup_steps"])
        checkpoint = self._find_checkpoint()
        datasets, validation = read_data(self.nlp, options, self.data_seed, speak)
        accelerator = make_accelerator(options["mixed_precision"], options["cpu"])
        if options["auto_find_batch_size"] and accelerator.num_processes > 1:
            raise ConfigError(
                "train.auto_find_batch_size",
                f"is set, with {accelerator.num_processes} processes",
                "one process",
                "Set grad_accumulation_max_tokens: it gives the same result",
            )
        if len({None if path is None else path.name for path in gathered(accelerator, checkpoint)}) > 1:
            raise ConfigError(
                "train.resume_from_checkpoint",
                "finds other checkpoints in other processes",
                "an output_path that all machines share",
            )
        note = console_note if accelerator.is_main_process else _silent
        uploader = self._uploader(accelerator)
        for component in components.values():
            note(describe(datasets, component))
        self._initialize(components, datasets, checkpoint)
        datasets = counting_pieces(datasets, components)
        plan = self._plan(datasets, accelerator)
        ask_unseen(self.nlp, validation, options["unseen_labels"])
        check_labels(components, datasets, validation, options, lambda line: note(f"warning: {line}"))
        learner, models = self._learner(components, accelerator, schedule, plan, note)
        supervisor = Supervisor(
            accelerator=accelerator,
            nlp=self.nlp,
            module=models,
            validation=validation,
            plan=plan,
            patience=options["patience"],
            patience_threshold=options["patience_threshold"],
            logging_interval=options["logging_interval"],
            store=self._store(learner, uploader),
            callback=options["on_validation_callback"],
            note=note,
        )
        stream = self._stream(datasets, components, accelerator)
        try:
            with cached_features(components, options["feature_cache"]) as caches:
                self._train(supervisor, loggers, stream, checkpoint)
                for cache in caches:
                    note(cache.describe())
        finally:
            for parameter in self._learning:  # a later training of this pipeline freezes what it wants
                parameter.requires_grad_(True)
        if accelerator.is_main_process:
            self._end(supervisor)
        if options["load_best_model_at_end"] and agreed(accelerator, supervisor.best_score is not None):
            self._load_best(components)
        accelerator.wait_for_everyone()
        return self.nlp

    def _load_best(self, components: Mapping[str, TrainableByLoop]) -> None:
        """Take the weights of the best model, and its scores."""
        for name, component in components.items():
            component.from_disk(self.best_path / name)
        meta = json.loads((self.best_path / "meta.json").read_text(encoding="utf8"))
        self.nlp.meta["performance"] = meta.get("performance", {})

    # -- before the first step ---------------------------------------------------------------------------------

    def _find_checkpoint(self) -> Path | None:
        """Find what to go on from, and refuse to write over a model that is not to be replaced."""
        checkpoint = find_checkpoint(self.options["resume_from_checkpoint"], self.checkpoints)
        if not self.options["overwrite"] and checkpoint is None:
            for path in (self.output_path, self.best_path):
                if path.exists():
                    raise ConfigError(
                        "train.overwrite",
                        f"is false, and {path} is there already",
                        "a new output_path",
                        "There is no checkpoint to go on from: set overwrite = true"
                        if self.options["resume_from_checkpoint"] in (True, "auto")
                        else 'Set overwrite = true, or resume_from_checkpoint = "auto" to go on',
                    )
        return checkpoint

    def _plan(self, datasets: Sequence[Dataset], accelerator: Accelerator) -> Plan:
        batches = accelerator.num_processes * self.options["gradient_accumulation_steps"]
        return Plan.make(
            self.options, lambda: max(1, math.ceil(draws_per_epoch(datasets, self.data_seed) / batches))
        )

    def _uploader(self, accelerator: Accelerator) -> HubUploader | None:
        """Return what puts models on the hub, after a look at whether it can."""
        if not self.options["push_to_hub"] or not accelerator.is_main_process:
            return None
        from gliner_pipe.hub import HubUploader

        uploader = HubUploader(
            self.options["hub_model_id"],
            self.output_path,
            strategy=self.options["hub_strategy"],
            private=self.options["hub_private_repo"],
            always_push=self.options["hub_always_push"],
        )
        uploader.start()
        return uploader

    def _store(self, learner: Learner, uploader: HubUploader | None) -> ModelStore:
        return ModelStore(
            nlp=self.nlp,
            learner=learner,
            last=self.output_path,
            best=self.best_path,
            checkpoints=self.checkpoints,
            files={TRAIN_CONFIG: self.config_text},
            limit=self.options["save_total_limit"],
            settings=self._settings(learner.accelerator),
            uploader=uploader,
        )

    def _settings(self, accelerator: Accelerator) -> dict[str, Any]:
        plain = {name: self.options[name] for name in _TOLD}
        chosen = self.options["optimizer"]
        plain["optimizer"] = str(getattr(chosen, "optimizer_class", chosen or "adamw"))
        return {**plain, "data_seed": self.data_seed, "processes": accelerator.num_processes}

    def _initialize(
        self,
        components: Mapping[str, TrainableByLoop],
        datasets: Sequence[Dataset],
        checkpoint: Path | None,
    ) -> None:
        """Make the weights, or take those of a checkpoint.

        Weights that a component has already are kept, other components of the pipeline are left alone.
        """
        set_seed(self.seed)
        if checkpoint is not None:
            for name, component in components.items():
                component.from_disk(checkpoint / name)
            return
        examples: list[Example] = [example for dataset in datasets for example in dataset.documents]
        with self.nlp.select_pipes(enable=list(components)), label_warnings_off():
            self.nlp.initialize(lambda: examples)

    def _learner(
        self,
        components: Mapping[str, TrainableByLoop],
        accelerator: Accelerator,
        schedule: Schedule,
        plan: Plan,
        note: Callable[[str], None],
    ) -> tuple[Learner, TrainedModels]:
        options = self.options
        by_name = {name: component.model for name, component in components.items()}
        self._learning = [p for model in by_name.values() for p in model.parameters() if p.requires_grad]
        frozen = freeze(by_name, options["freeze_components"])
        groups = parameter_groups(
            by_name,
            transformer_lr=options["transformer_lr"],
            task_lr=options["task_lr"],
            weight_decay=options["weight_decay"],
            task_weight_decay=options["task_weight_decay"],
            overrides=options["param_groups"],
            warn=note,
        )
        note(_describe(groups, accelerator))
        quicken(by_name.values())
        models = TrainedModels(by_name, accelerator.num_processes > 1, frozen)
        models.to(accelerator.device)
        if options["compile"]:
            compile_backbones(by_name, options["compile"])
        optimizer = make_optimizer(options["optimizer"], groups)
        scheduler = schedule.build(optimizer, plan.max_steps)
        learning = [parameter for group in groups for parameter in group["params"]]
        module, optimizer = accelerator.prepare(models, optimizer)
        learner = Learner(
            accelerator,
            components,
            module,
            optimizer,
            scheduler,
            options["max_grad_norm"],
            average=None if options["ema_decay"] is None else WeightAverage(learning, options["ema_decay"]),
            anchor=Anchor(learning, options["start_decay"]) if options["start_decay"] else None,
        )
        return learner, models

    def _stream(
        self, datasets: Sequence[Dataset], components: Mapping[str, TrainableByLoop], accelerator: Accelerator
    ) -> StepStream:
        return StepStream(
            datasets,
            components,
            seed=self.data_seed,
            max_tokens=self.options["grad_accumulation_max_tokens"],
            rank=accelerator.process_index,
            n_processes=accelerator.num_processes,
            accumulation=self.options["gradient_accumulation_steps"],
            overhead=self._overhead(accelerator),
        )

    def _overhead(self, accelerator: Accelerator) -> float:
        """What a part of a batch costs beyond its pieces, as a number of pieces."""
        if not self.options["cut_by_length"]:
            return math.inf
        return OVERHEAD.get(accelerator.device.type, OVERHEAD["cuda"])

    # -- the steps, and what comes after them --------------------------------------------------------------------

    def _train(
        self,
        supervisor: Supervisor,
        loggers: list[TrainingLogger],
        stream: StepStream,
        checkpoint: Path | None,
    ) -> None:
        store, note = supervisor.store, supervisor.note
        learner, progress, done = store.learner, Progress(), 0
        state: dict[str, Any] = {}
        if checkpoint is not None:
            state = store.resume(checkpoint, note)
            supervisor.load_state_dict(state["supervisor"])
            elsewhere = checkpoint.resolve().parent != self.checkpoints.resolve()
            if elsewhere or not self.best_path.is_dir():
                supervisor.best_score = None  # that training's best model is not here
            progress.load_state_dict(state["progress"])
            done = state["step"]
            note(f"going on from {checkpoint} after step {done}")
        if supervisor.finished or done >= supervisor.plan.max_steps:
            note("nothing is left to do: this training has ended")
            if learner.accelerator.is_main_process and not self.output_path.is_dir():
                store.save_last(done)
            return
        main = learner.accelerator.is_main_process
        run = RunInfo(
            supervisor.plan.max_steps,
            self.output_path.parent,
            self.config_text,
            self.versions,
            name=self.options["run_name"],
            resumed_step=done,
        )
        if main:
            if checkpoint is None and self.options["save_total_limit"]:
                remove(checkpoints(self.checkpoints))  # of a training that this one replaces
            run.folder.mkdir(parents=True, exist_ok=True)
            (run.folder / TRAIN_CONFIG).write_text(self.config_text, encoding="utf-8")
        supervisor.module.train()
        try:
            for logger in loggers if main else []:
                logger.start(run)
                supervisor.loggers.append(logger)
            if self.options["validate_at_start"] and not done:
                supervisor.before_first_step()
            if not self.options["ignore_data_skip"]:
                stream.start = done
            # each process drops out other numbers
            torch.manual_seed(self.seed + learner.accelerator.process_index)
            if state:
                store.restore_chance(state, note)
            train_steps(
                learner,
                stream,
                supervisor.plan.max_steps,
                supervisor,
                done=done,
                num_workers=self.options["num_workers"],
                progress=progress,
                shrink=_tell_smaller(note) if self.options["auto_find_batch_size"] else None,
            )
        finally:
            supervisor.module.eval()
            for logger in supervisor.loggers:
                logger.finish()
            if store.uploader is not None and sys.exc_info()[0] is not None:
                store.uploader.finish(None)  # a training that failed waits for what is under way

    def _end(self, supervisor: Supervisor) -> None:
        """Say what there is, and have the hub hold it."""
        best = self.best_path if supervisor.best_score is not None else None
        if supervisor.store.uploader is not None:
            wanted = best if self.options["load_best_model_at_end"] else None
            supervisor.store.uploader.finish(wanted or self.output_path)
        print_summary(
            Console(highlight=False),
            self.output_path,
            best,
            supervisor.validation.metric,
            supervisor.best_score,
            supervisor.best_step,
            self.options["sample_texts"],
        )


def _tell_smaller(note: Callable[[str], None]) -> Callable[[int], None]:
    def tell(pieces: int) -> None:
        note(
            f"note: the memory is full; steps are cut into parts of at most {pieces} word pieces from here on"
        )

    return tell


def _describe(groups: Sequence[Mapping[str, Any]], accelerator: Accelerator) -> str:
    sizes = [
        f"{group['name']} {sum(parameter.numel() for parameter in group['params']):,} (lr {group['lr']:g})"
        for group in groups
    ]
    processes = f", {accelerator.num_processes} processes" if accelerator.num_processes > 1 else ""
    return f"training on {accelerator.device}{processes}; parameters: {', '.join(sizes)}"


def _silent(_: str) -> None:
    """Print nothing: only the main process does."""
