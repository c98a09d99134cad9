"""The training recipe. ``Trainer.run`` is the summary; the methods below it follow in the order they are called."""

from __future__ import annotations

import json
import math
import os
import random
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from confit import Config
from rich.console import Console
from spacy.language import Language
from spacy.training import Example

from gliner_pipe.data.batching import overhead_of
from gliner_pipe.data.label_sets import label_warnings_off
from gliner_pipe.errors import ConfigError
from gliner_pipe.evaluation.evaluate import gold_span_getter
from gliner_pipe.modeling.backbones.pretrained_encoder import check_wrapped
from gliner_pipe.modeling.layers.dropout import quicken
from gliner_pipe.packaging.source import TRAIN_CONFIG
from gliner_pipe.training.arguments import Plan, TrainOptions
from gliner_pipe.training.averaging import Anchor, WeightAverage
from gliner_pipe.training.checkpoints import ModelStore, checkpoints
from gliner_pipe.training.data_loader import StepStream, prefetched
from gliner_pipe.training.datasets import (
    Dataset,
    counting_pieces,
    describe,
    describe_lost,
    documents_of,
    draws_per_epoch,
    read_data,
)
from gliner_pipe.training.distributed import (
    TrainedModels,
    agreed,
    compile_backbones,
    deterministic,
    gathered,
    make_accelerator,
)
from gliner_pipe.training.feature_cache import cached_features
from gliner_pipe.training.interrupts import Interrupts
from gliner_pipe.training.label_checks import check_labels
from gliner_pipe.training.loggers import RunInfo, TrainingLogger, make_loggers
from gliner_pipe.training.no_effect import learns_nothing, without_effect
from gliner_pipe.training.optimizers import freeze, make_optimizer, parameter_groups
from gliner_pipe.training.progress import Progress, Status
from gliner_pipe.training.protocol import trainable_components
from gliner_pipe.training.resuming import check_settings, describe_data
from gliner_pipe.training.run_folder import RunFolder, checkpoint_to_resume
from gliner_pipe.training.run_info import config_text, package_versions, print_summary
from gliner_pipe.training.schedules import Schedule, make_schedule
from gliner_pipe.training.step import DeviceFullError, Learner
from gliner_pipe.training.word_checks import describe_words
from gliner_pipe.util.console import console_note
from gliner_pipe.util.plurals import number_of

if TYPE_CHECKING:
    from accelerate import Accelerator

    from gliner_pipe.hub import HubUploader


class Trainer:
    """One training, for :func:`gliner_pipe.train.train`.

    Parameters
    ----------
    nlp
        The pipeline to train.
    options
        The options of ``[train]``.
    config
        The config that the command line read; it is saved beside the models.
    check
        Called with the pipeline once it has weights, before the first step.
    command
        The command that trains, e.g. ``"train"``; None for a training from Python.
    """

    def __init__(
        self,
        nlp: Language,
        options: TrainOptions,
        config: Config | None = None,
        check: Callable[[Language], None] | None = None,
        command: str | None = None,
    ) -> None:
        self.nlp = nlp
        self.options = options
        self.check = check
        self.command = command
        self.folder = RunFolder.of(options.output_path, options.best_path)
        self.versions = package_versions()
        self.config_text = config_text(config, dict(options), self.versions)
        self.status, self.progress = Status(), Progress()

    def run(self) -> Language:
        """Train and return the pipeline."""
        with deterministic(self.options.full_determinism):
            self._set_up()
            try:
                with cached_features(self.components, self.options.feature_cache) as caches:
                    reason = self._train()
                    for cache in caches:
                        self.note(cache.describe())
            finally:
                for parameter in self._trainable:  # a later training of this pipeline may freeze other parts
                    parameter.requires_grad_(True)
            if self.main:
                self._report(reason)
            if self.options.load_best_model_at_end and agreed(
                self.accelerator, self.status.best_score is not None
            ):
                self._load_best()
            self.accelerator.wait_for_everyone()
        return self.nlp

    # -- set-up --------------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        """Read the data, load the weights, and build everything that a step needs."""
        options = self.options
        self.components = trainable_components(self.nlp)
        for name, component in self.components.items():
            check_wrapped(component.model, f"components.{name}.model")
        note = console_note if os.environ.get("RANK", "0") == "0" else _silent
        self.loggers = make_loggers(options.loggers, note)
        schedule = make_schedule(options.schedule, options.warmup_rate, options.warmup_steps)
        self.checkpoint = checkpoint_to_resume(
            self.folder, options.resume_from_checkpoint, options.overwrite, self.config_text
        )
        self.continues = self.checkpoint is not None and self.folder.holds(self.checkpoint)
        if self.checkpoint is not None:
            check_settings(self.nlp, self.components, self.checkpoint, note)
        self._load_models()
        self.accelerator = self._make_accelerator()
        turn = self.accelerator.local_main_process_first
        datasets, self.validation = read_data(self.nlp, options, self.folder.path, note, turn)
        self.main: bool = self.accelerator.is_main_process
        self.note: Callable[[str], None] = console_note if self.main else _silent
        uploader = self._make_uploader()
        documents = documents_of(datasets)
        for component in self.components.values():
            self.note(describe(datasets, component))
            if self.main and (line := describe_words(self.nlp, component, documents)):
                self.note(line)
        new = [name for name, one in self.components.items() if not getattr(one.model, "is_built", True)]
        self._initialize(documents)
        if self.check is not None:
            self.check(self.nlp)
        datasets = counting_pieces(datasets, self.components)
        self.plan = Plan.make(options, lambda: self._steps_per_epoch(datasets))
        self.validation.predict_unseen(self.nlp, options.unseen_labels)
        check_labels(
            self.components, datasets, self.validation, options, lambda line: self.note(f"warning: {line}")
        )
        for name, component in self.components.items():
            lost = describe_lost(datasets, component, lambda line: self.note(f"warning: {line}"))
            self.status.dropped[name] = Counter(lost)
        for line in without_effect(self.nlp, self.components, options, documents):
            self.note(f"warning: {line}")
        for line in learns_nothing(self.nlp, self.components, new, self.plan.max_steps):
            self.note(f"warning: {line}")
        self._build_learner(schedule)
        if self.main:  # what is trained is saved
            self.folder.check_writable(sum(weight.nbytes for weight in self._trainable))
        self.store = ModelStore(
            nlp=self.nlp,
            learner=self.learner,
            last=self.folder.last,
            best=self.folder.best,
            checkpoints=self.folder.checkpoints,
            files={TRAIN_CONFIG: self.config_text},
            limit=options.save_total_limit,
            replaces=not self.continues,
            settings={
                **options.resume_settings(self.accelerator.num_processes),
                "train_data": [describe_data(one.documents, one.spans_key) for one in datasets],
                "val_data": describe_data(self.validation.examples, gold_span_getter(self.nlp)),
            },
            uploader=uploader,
        )
        self.stream = StepStream(
            datasets,
            self.components,
            seed=options.order_seed,
            max_tokens=options.grad_accumulation_max_tokens,
            rank=self.accelerator.process_index,
            n_processes=self.accelerator.num_processes,
            accumulation=options.gradient_accumulation_steps,
            overhead=overhead_of(self.accelerator.device.type) if options.cut_by_length else math.inf,
        )

    def _make_accelerator(self) -> Accelerator:
        accelerator = make_accelerator(self.options.mixed_precision, self.options.cpu)
        if self.options.auto_find_batch_size and accelerator.num_processes > 1:
            raise ConfigError(
                "train.auto_find_batch_size",
                f"is set, with {accelerator.num_processes} processes",
                "one process",
                "Set grad_accumulation_max_tokens: it gives the same result",
            )
        names = {None if path is None else path.name for path in gathered(accelerator, self.checkpoint)}
        if len(names) > 1:
            raise ConfigError(
                "train.resume_from_checkpoint",
                "finds different checkpoints in different processes",
                "an output_path that all machines share",
            )
        return accelerator

    def _make_uploader(self) -> HubUploader | None:
        """Return the uploader to the hub, after checking that it can upload."""
        if not self.options.push_to_hub or not self.main:
            return None
        from gliner_pipe.hub import HubUploader

        uploader = HubUploader(
            self.options.hub_model_id,
            self.folder.last,
            strategy=self.options.hub_strategy,
            private=self.options.hub_private_repo,
            always_push=self.options.hub_always_push,
        )
        uploader.start()
        return uploader

    def _seed(self) -> None:
        random.seed(self.options.seed)
        np.random.seed(self.options.seed % 2**32)
        torch.manual_seed(self.options.seed)

    def _load_models(self) -> None:
        """Load the checkpoint of a training, or the models given by name, which draw the weights of new adapters."""
        self._seed()
        for name, component in self.components.items():
            if self.checkpoint is not None:
                component.from_disk(self.checkpoint / name)
            elif hasattr(component, "network"):
                _ = component.network  # loaded on first use

    def _initialize(self, examples: Sequence[Example]) -> None:
        """Initialize the weights of a new training.

        Components that have weights keep them; other components of the pipeline are not initialized.
        """
        self._seed()
        if self.checkpoint is not None:
            return
        with self.nlp.select_pipes(enable=list(self.components)), label_warnings_off():
            self.nlp.initialize(lambda: examples)

    def _steps_per_epoch(self, datasets: Sequence[Dataset]) -> int:
        batches = self.accelerator.num_processes * self.options.gradient_accumulation_steps
        return max(1, math.ceil(draws_per_epoch(datasets, self.options.order_seed) / batches))

    def _build_learner(self, schedule: Schedule) -> None:
        """Freeze weights, and build optimizer, schedule, EMA and regularisation for the others."""
        options, accelerator = self.options, self.accelerator
        models = {name: component.model for name, component in self.components.items()}
        self._trainable = [p for model in models.values() for p in model.parameters() if p.requires_grad]
        frozen = freeze(models, options.freeze_components)
        groups = parameter_groups(
            models,
            transformer_lr=options.transformer_lr,
            task_lr=options.task_lr,
            weight_decay=options.weight_decay,
            task_weight_decay=options.task_weight_decay,
            overrides=options.param_groups,
            warn=self.note,
        )
        self.note(_describe(groups, accelerator))
        quicken(models.values())
        self.models = TrainedModels(models, accelerator.num_processes > 1, frozen)
        self.models.to(accelerator.device)
        if options.compile:
            compile_backbones(models, options.compile)
        optimizer = make_optimizer(options.optimizer, groups, models)
        scheduler = schedule.build(optimizer, self.plan.max_steps)
        trained = [parameter for group in groups for parameter in group["params"]]
        module, optimizer = accelerator.prepare(self.models, optimizer)
        self.learner = Learner(
            accelerator,
            self.components,
            module,
            optimizer,
            scheduler,
            options.max_grad_norm,
            average=None if options.ema_decay is None else WeightAverage(trained, options.ema_decay),
            anchor=Anchor(trained, options.start_decay) if options.start_decay else None,
        )

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _train(self) -> str:
        """Restore the checkpoint, if there is one, and run the remaining steps; return why the training ended."""
        options = self.options
        state = None if self.checkpoint is None else self._resume()
        done: int = 0 if state is None else state["step"]
        if self.status.finished or done >= self.plan.max_steps:
            if self.main and not self.folder.last.is_dir():
                self.store.save_last(done)
            stopped = f" ({self._why_stopped()})" if self.status.finished else ""
            return f"Training is already complete: {number_of(done, 'step')}{stopped}"
        if self.main:
            if not self.continues:
                self._make_room()
            self.folder.path.mkdir(parents=True, exist_ok=True)
            (self.folder.path / TRAIN_CONFIG).write_text(self.config_text, encoding="utf-8")
        self.models.train()
        started: list[TrainingLogger] = []
        interrupted = False
        try:
            self._start_loggers(done, started)
            if options.validate_at_start and not done:
                self._validate_at_start()
            if not options.ignore_data_skip:
                self.stream.start = done
            # dropout differs between processes
            torch.manual_seed(options.seed + self.accelerator.process_index)
            if state is not None:
                self.store.restore_random_state(state, self.note)
            with Interrupts(self.note, wanted=options.save_total_limit != 0) as self.interrupts:
                return self._run_steps(done)
        except BaseException as error:
            interrupted = not isinstance(error, Exception)  # by Ctrl-C, or another signal
            raise
        finally:
            self.models.eval()
            for logger in started:
                logger.finish()
            if self.store.uploader is not None and sys.exc_info()[0] is not None:
                self.store.uploader.finish(None)  # wait for running uploads of a training that failed
            if interrupted and self.main:
                console_note(self._how_to_resume(), whole=True)

    def _how_to_resume(self) -> str:
        """Return the newest checkpoint, and what resumes from it."""
        newest = checkpoints(self.folder.checkpoints)
        if not newest:
            return "no checkpoint was saved: this training cannot be resumed"
        if self.command is None:
            resume = 'resume_from_checkpoint = "auto"'
        else:
            config = shlex.quote(str(self.folder.path / TRAIN_CONFIG))
            resume = f"gliner-pipe {self.command} {config} --resume_from_checkpoint auto"
        return f"newest checkpoint: {newest[-1]}\nresume with: {resume}"

    def _make_room(self) -> None:
        """Move or remove an earlier training in the folder, and say so."""
        folder = self.folder
        if self.options.overwrite is None:
            if (earlier := folder.move_earlier()) is not None:
                self.note(f"note: moved an earlier training in {folder.path} to {earlier}")
        elif removed := folder.clear():
            self.note(f"note: removed of an earlier training in {folder.path}: {', '.join(removed)}")

    def _resume(self) -> dict[str, Any]:
        """Restore the state of the checkpoint, except the random generators, and return it."""
        assert self.checkpoint is not None
        state = self.store.resume(self.checkpoint, self.note)
        self.status.load_state_dict(state["supervisor"])
        self.progress.load_state_dict(state["progress"])
        if not self.continues or not self.folder.best.is_dir():
            self.status.best_score = None  # the best model of that training is not in this folder
        self.note(f"Resuming from {self.checkpoint} after step {state['step']}")
        return state

    def _start_loggers(self, done: int, started: list[TrainingLogger]) -> None:
        """Start the loggers of the main process; each one that has started is added to `started`."""
        run = RunInfo(
            self.plan.max_steps,
            self.folder.path,
            self.config_text,
            self.versions,
            name=self.options.run_name,
            resumed_step=done,
        )
        for logger in self.loggers if self.main else []:
            logger.start(run)
            started.append(logger)

    def _run_steps(self, done: int) -> str:
        """Run all steps after the first `done`; return why the training ended."""
        step, first = done, done
        while True:
            started = time.perf_counter()
            for batches in prefetched(self.stream, self.options.num_workers):
                rates = self.learner.learning_rates()
                try:
                    result = self.learner.step(step + 1, batches, self.interrupts.asked)
                except DeviceFullError as error:
                    self._use_smaller_sub_batches(error)
                    self.stream.start += step - first  # draw the batches of this step again
                    first = step
                    break
                step += 1
                self._all_stop = result.stopped
                seconds = time.perf_counter() - started
                self.progress.add(result, seconds, batches.dropped)
                self._after_step(step, result.record(step, seconds, rates))
                if self.status.finished:
                    return f"Training ended after step {step}: {self._why_stopped()}"
                if step >= self.plan.max_steps:
                    return f"Training ended after step {step}: all steps completed ({self._length()})"
                if self._stops:
                    self.interrupts.end()
                started = time.perf_counter()

    @property
    def _stops(self) -> bool:
        """Whether Ctrl-C ends the training after this step, which is the same one in all processes."""
        return self._all_stop if self.accelerator.num_processes > 1 else self.interrupts.asked

    def _length(self) -> str:
        epochs = self.options.max_epochs
        return f"max_steps = {self.plan.max_steps}" if epochs is None else f"max_epochs = {epochs:g}"

    def _why_stopped(self) -> str:
        """Say why the training was stopped early."""
        more = self.options.patience_threshold
        by = f", patience_threshold = {more:g}" if more else ""
        since = number_of(self.status.validations_since_best, "validation")
        return f"{self.validation.metric} did not improve in {since} (patience = {self.options.patience}{by})"

    def _use_smaller_sub_batches(self, error: DeviceFullError) -> None:
        """Halve the sub-batches, which does not change the result; raise the error if that is not possible."""
        if not self.options.auto_find_batch_size or error.documents == 1:
            raise error
        limit = self.stream.halve(error.tokens)
        self.note(
            f"note: Out of memory: splitting batches into sub-batches of at most {limit} subword tokens"
        )

    def _after_step(self, step: int, record: Mapping[str, Any]) -> None:
        """Log a step, and validate and save when it is time."""
        last = step == self.plan.max_steps
        if self.main and (last or step == 1 or step % self.options.logging_interval == 0):
            for logger in self.loggers:
                logger.step(record)
        validate = last or step % self.plan.validation_interval == 0
        if validate:
            if self.main:
                self._validate(step, record["lr"])
            self.progress.reset()
            patience = self.options.patience
            stop = patience is not None and self.status.validations_since_best >= patience
            self.status.finished = agreed(self.accelerator, stop)
        if self.status.finished or last or self._stops or step % self.plan.checkpoint_interval == 0:
            if self.main and not validate:
                self.models.eval()
                self.store.save_last(step)
                self.models.train()
            self.store.save_checkpoint(
                step, {"supervisor": self.status.state_dict(), "progress": self.progress.state_dict()}
            )
            self.accelerator.wait_for_everyone()

    # -- validation ----------------------------------------------------------------------------------------------------

    def _validate_at_start(self) -> None:
        """Score the initial weights, which are the best model until others are better."""
        if self.main:
            self.models.eval()
            record: dict[str, Any] = {"step": 0, "loss": None, "lr": {}, "best": False}
            record |= {"loss_per_example": None, "scores": {}}
            self._compare(record, 0)
            self._log_validation(record)
            self.models.train()
        self.accelerator.wait_for_everyone()

    def _validate(self, step: int, rates: Mapping[str, float]) -> None:
        """Score the pipeline, save it as the last and, if it is better, as the best model, and log the scores."""
        self.models.eval()
        record = self.progress.record(step, rates)
        self._compare(record, step)
        self.store.save_last(step)
        self._log_validation(record)
        for component, reason, number in self.status.newly_dropped(self.progress.dropped):
            self.note(
                f"warning: [components.{component}] {number_of(number, 'gold annotation')} cannot be learned: {reason}"
            )
        self.models.train()

    def _compare(self, record: dict[str, Any], step: int) -> None:
        """Score the pipeline, and save it as the best model if it is."""
        score = self._score(record)
        if score is not None:
            record["best"] = self.status.add(score, step, self.options.patience_threshold)
            if record["best"]:
                self.store.save_best(step)

    def _score(self, record: dict[str, Any]) -> float | None:
        """Add the scores to the record of a validation; return the best metric, or None without validation data."""
        if not self.validation.examples:
            return None
        with self.store.averaged():
            scores, facts = self.validation(self.nlp)
        score = self.validation.main_score(scores)
        record["scores"] = scores
        record["validation"] = {
            name: facts[name] for name in ("docs", "words", "docs_per_second", "words_per_second")
        }
        shown = self.validation.shown(score)
        self.nlp.meta["performance"] = {**scores, self.validation.metric: shown}
        return score

    def _log_validation(self, record: dict[str, Any]) -> None:
        for logger in self.loggers:
            logger.validation(record)
        if self.options.on_validation_callback is not None:
            self.options.on_validation_callback(record)

    # -- end -----------------------------------------------------------------------------------------------------------

    def _report(self, reason: str) -> None:
        """Finish the upload, and print why the training ended, and where the models are."""
        best = self.folder.best if self.status.best_score is not None else None
        if self.store.uploader is not None:
            wanted = best if self.options.load_best_model_at_end else None
            self.store.uploader.finish(wanted or self.folder.last)
        print_summary(
            Console(highlight=False),
            reason,
            self.folder.last,
            best,
            self.validation.metric,
            self.validation.shown(self.status.best_score),
            self.status.best_step,
            self.options.sample_texts,
        )

    def export(self, folder: Path) -> None:
        """Write the model card of a folder with the trained tagger for `transformers`, and push it to the hub, too."""
        from gliner_pipe.hub.push import push_transformers, write_card
        from gliner_pipe.util.hub_client import explain

        best = self.options.load_best_model_at_end and self.status.best_score is not None
        pipeline = self.folder.best if best else self.folder.last
        write_card(folder, pipeline)
        self.note(f"exported for transformers: {folder}")
        if self.store.uploader is None:
            return
        try:
            url = push_transformers(self.nlp, pipeline, self.store.uploader.repo_id)
        except Exception as error:  # the training itself has not failed
            self.note(
                f"warning: [train.push_to_hub] the files for transformers were not pushed: {explain(error)[0]}"
            )
        else:
            self.note(f"pushed for transformers: {url}")

    def _load_best(self) -> None:
        """Load the weights and the scores of the best model."""
        for name, component in self.components.items():
            component.from_disk(self.folder.best / name)
        meta = json.loads((self.folder.best / "meta.json").read_text(encoding="utf8"))
        self.nlp.meta["performance"] = meta.get("performance", {})


def _describe(groups: Sequence[Mapping[str, Any]], accelerator: Accelerator) -> str:
    sizes = [
        f"{group['name']} {sum(parameter.numel() for parameter in group['params']):,} (lr {group['lr']:g})"
        for group in groups
    ]
    processes = f", {accelerator.num_processes} processes" if accelerator.num_processes > 1 else ""
    return f"Training on {accelerator.device}{processes}; parameters: {', '.join(sizes)}"


def _silent(_: str) -> None:
    """Print nothing, in processes other than the main one."""
