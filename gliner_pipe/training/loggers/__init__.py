"""Loggers of a training, registered by name: on the console, into files, as a picture, and into trackers."""

from gliner_pipe.training.loggers.base import DEFAULT_LOGGERS, RunInfo, TrainingLogger, make_loggers
from gliner_pipe.training.loggers.csv import CsvLogger
from gliner_pipe.training.loggers.jsonl import JsonlLogger
from gliner_pipe.training.loggers.mlflow import MlflowLogger
from gliner_pipe.training.loggers.plot import PlotLogger
from gliner_pipe.training.loggers.rich import RichLogger
from gliner_pipe.training.loggers.tensorboard import TensorBoardLogger
from gliner_pipe.training.loggers.tracker import AccelerateLogger
from gliner_pipe.training.loggers.trackio import TrackioLogger
from gliner_pipe.training.loggers.wandb import WandbLogger

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
