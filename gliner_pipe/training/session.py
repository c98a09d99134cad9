"""A training from beginning to end: read, check, initialize, learn, tell."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from confit import Config
from rich.console import Console
from rich.text import Text
from spacy.language import Language
from spacy.training import Example

from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.evaluation import gold_span_getter
from gliner_pipe.metrics.getters import prediction_getter
from gliner_pipe.metrics.spans import METRICS
from gliner_pipe.training.accelerator import TrainedModels, make_accelerator
from gliner_pipe.training.datasets import Dataset, describe, read_training, read_validation
from gliner_pipe.training.loggers import RunInfo, TrainingLogger, make_loggers
from gliner_pipe.training.loop import Learner, train_steps
from gliner_pipe.training.optimizer import make_optimizer, parameter_groups
from gliner_pipe.training.options import intervals
from gliner_pipe.training.protocol import TrainableByLoop
from gliner_pipe.training.run_config import FILE_NAME, config_text, package_versions
from gliner_pipe.training.schedules import make_schedule
from gliner_pipe.training.sections import Section
from gliner_pipe.training.steps import StepStream, prefetched
from gliner_pipe.training.summary import print_summary
from gliner_pipe.training.validation import Scorer, Supervisor, Validation, choose_metric

if TYPE_CHECKING:
    from accelerate import Accelerator


def console_note(text: str) -> None:
    """Print a line for the user."""
    Console().print(Text(text), soft_wrap=True)


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
            'a pipeline with a component of the factory "gliner"',
            'Add a section with @factory = "gliner", or train the others with spacy train',
        )
    return found


def make_scorers(scorer: Any, nlp: Language) -> dict[str, Scorer]:
    """Return the scorers that the option `scorer` of a training stands for.

    Parameters
    ----------
    scorer
        Scorers by name, one scorer, or None for exact spans; a scorer is a function or one of the names
        ``exact``, ``overlap`` and ``token``.
    nlp
        The pipeline, which tells where gold and predicted spans stand.
    """
    if scorer is None:
        scorer = {"ner": "exact"}
    elif not isinstance(scorer, Mapping):
        scorer = {"ner": scorer}
    scorers: dict[str, Scorer] = {}
    for name, item in scorer.items():
        if isinstance(item, str) and item in METRICS:
            item = METRICS[item](span_getter=gold_span_getter(nlp), predicted_getter=prediction_getter(nlp))
        if not callable(item):
            allowed = f'a block, e.g. @scorers = "gliner_pipe.ner_exact", or one of {", ".join(METRICS)}'
            raise ConfigError(f"train.scorer.{name}", f"is {item!r}", allowed)
        scorers[name] = item
    return scorers


def set_seed(seed: int) -> None:
    """Seed the generators that new weights and dropout draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


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
        self.max_steps: int = options["max_steps"]
        self.output_path: Path = options["output_path"]
        self.best_path: Path = options["best_path"]
        self.seed: int = options["seed"]
        self.versions = package_versions()
        self.config_text = config_text(config, options, self.versions)

    def run(self) -> Language:
        """Train and return the pipeline."""
        components = trainable_components(self.nlp)
        loggers = make_loggers(self.options["loggers"])
        schedule = make_schedule(self.options["schedule"], self.options["warmup_rate"])
        datasets = read_training(self.nlp, self.options["train_data"], self.options["batch_size"])
        validation = self._read_validation()
        accelerator = make_accelerator(self.options["mixed_precision"], self.options["cpu"])
        note = console_note if accelerator.is_main_process else _silent
        for component in components.values():
            note(describe(datasets, component))
        self._initialize(components, datasets)
        groups = parameter_groups(
            {name: component.model for name, component in components.items()},
            transformer_lr=self.options["transformer_lr"],
            task_lr=self.options["task_lr"],
            weight_decay=self.options["weight_decay"],
            overrides=self.options["param_groups"],
        )
        note(_describe(groups, accelerator))
        models = TrainedModels(
            {name: component.model for name, component in components.items()}, accelerator.num_processes > 1
        )
        models.to(accelerator.device)
        optimizer = make_optimizer(self.options["optimizer"], groups)
        scheduler = schedule.build(optimizer, self.max_steps)
        module, optimizer = accelerator.prepare(models, optimizer)
        learner = Learner(
            accelerator, components, module, optimizer, scheduler, self.options["max_grad_norm"]
        )
        supervisor = self._supervisor(accelerator, models, validation, loggers, note)
        # each process drops out other numbers
        torch.manual_seed(self.seed + accelerator.process_index)
        self._train(learner, supervisor, self._stream(datasets, components, accelerator))
        if accelerator.is_main_process:
            self._summarize(supervisor)
        return self.nlp

    def _read_validation(self) -> Validation:
        sections: Sequence[Section] | None = self.options["val_data"]
        if sections is None:
            for name in ("best_metric", "patience"):
                if self.options[name] is not None:
                    raise ConfigError(
                        f"train.{name}", "is set, but there is no val_data", do="Add [train.val_data]"
                    )
            return Validation([], {})
        scorers = make_scorers(self.options["scorer"], self.nlp)
        examples, labels = read_validation(self.nlp, sections)
        return Validation(
            examples, scorers, choose_metric(self.options["best_metric"], scorers, examples), labels
        )

    def _initialize(self, components: Mapping[str, TrainableByLoop], datasets: Sequence[Dataset]) -> None:
        """Make the weights; those that a component has already are kept, other components are left alone."""
        examples: list[Example] = [example for dataset in datasets for example in dataset.documents]
        set_seed(self.seed)
        with self.nlp.select_pipes(enable=list(components)):
            self.nlp.initialize(lambda: examples)

    def _stream(
        self, datasets: Sequence[Dataset], components: Mapping[str, TrainableByLoop], accelerator: Accelerator
    ) -> StepStream:
        data_seed = self.options["data_seed"]
        return StepStream(
            datasets,
            components,
            seed=self.seed if data_seed is None else data_seed,
            max_tokens=self.options["grad_accumulation_max_tokens"],
            rank=accelerator.process_index,
            n_processes=accelerator.num_processes,
        )

    def _supervisor(
        self,
        accelerator: Accelerator,
        models: TrainedModels,
        validation: Validation,
        loggers: list[TrainingLogger],
        note: Callable[[str], None],
    ) -> Supervisor:
        interval, checkpoint_interval = intervals(
            self.max_steps, self.options["validation_interval"], self.options["checkpoint_interval"]
        )
        return Supervisor(
            accelerator=accelerator,
            nlp=self.nlp,
            module=models,
            validation=validation,
            max_steps=self.max_steps,
            validation_interval=interval,
            checkpoint_interval=checkpoint_interval,
            patience=self.options["patience"],
            output_path=self.output_path,
            best_path=self.best_path,
            files={FILE_NAME: self.config_text},
            loggers=loggers,
            callback=self.options["on_validation_callback"],
            note=note,
        )

    def _train(self, learner: Learner, supervisor: Supervisor, stream: StepStream) -> None:
        loggers = supervisor.loggers if learner.accelerator.is_main_process else []
        run = RunInfo(self.max_steps, self.output_path.parent, self.config_text, self.versions)
        if learner.accelerator.is_main_process:
            run.folder.mkdir(parents=True, exist_ok=True)
            (run.folder / FILE_NAME).write_text(self.config_text, encoding="utf-8")
        supervisor.module.train()
        started: list[TrainingLogger] = []
        try:
            for logger in loggers:
                logger.start(run)
                started.append(logger)
            train_steps(learner, prefetched(stream, self.options["num_workers"]), self.max_steps, supervisor)
        finally:
            supervisor.module.eval()
            for logger in started:
                logger.finish()

    def _summarize(self, supervisor: Supervisor) -> None:
        print_summary(
            Console(highlight=False),
            self.output_path,
            self.best_path if supervisor.best_score is not None else None,
            supervisor.validation.metric,
            supervisor.best_score,
            supervisor.best_step,
            self.options["sample_texts"],
        )


def _describe(groups: Sequence[Mapping[str, Any]], accelerator: Accelerator) -> str:
    sizes = [
        f"{group['name']} {sum(parameter.numel() for parameter in group['params']):,} (lr {group['lr']:g})"
        for group in groups
    ]
    processes = f", {accelerator.num_processes} processes" if accelerator.num_processes > 1 else ""
    return f"training on {accelerator.device}{processes}; parameters: {', '.join(sizes)}"


def _silent(_: str) -> None:
    """Print nothing: only the main process does."""
