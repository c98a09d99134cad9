"""Loggers of a training, registered by name: on the console, into files, as a picture, and into trackers."""

from gliner_pipe.training.loggers.base import DEFAULT_LOGGERS, RunInfo, TrainingLogger, make_loggers
from gliner_pipe.training.loggers.console import RichLogger
from gliner_pipe.training.loggers.files import CsvLogger, JsonlLogger
from gliner_pipe.training.loggers.plot import PlotLogger
from gliner_pipe.training.loggers.trackers import (
    AccelerateLogger,
    MlflowLogger,
    TensorBoardLogger,
    TrackioLogger,
    WandbLogger,
)

__all__ = [
    "DEFAULT_LOGGERS",
    "AccelerateLogger",
    "CsvLogger",
    "JsonlLogger",
    "MlflowLogger",
    "PlotLogger",
    "RichLogger",
    "RunInfo",
    "TensorBoardLogger",
    "TrackioLogger",
    "TrainingLogger",
    "WandbLogger",
    "make_loggers",
]
