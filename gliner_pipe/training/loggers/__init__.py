"""Loggers of a training, registered by name: ``rich``, ``jsonl`` and ``csv``."""

from gliner_pipe.training.loggers.base import RunInfo, TrainingLogger, make_loggers
from gliner_pipe.training.loggers.csv import CsvLogger
from gliner_pipe.training.loggers.jsonl import JsonlLogger
from gliner_pipe.training.loggers.rich import RichLogger

__all__ = ["CsvLogger", "JsonlLogger", "RichLogger", "RunInfo", "TrainingLogger", "make_loggers"]
