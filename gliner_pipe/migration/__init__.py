"""Converts configuration files and options of GLiNER, transformers, EDS-NLP and AutoTrain to those of this package."""

from gliner_pipe.migration.command import configured, convert_file, to_config
from gliner_pipe.migration.migrated import Migrated
from gliner_pipe.migration.train_options import translate
from gliner_pipe.migration.yaml_files import read_yaml

__all__ = ["Migrated", "configured", "convert_file", "read_yaml", "to_config", "translate"]
