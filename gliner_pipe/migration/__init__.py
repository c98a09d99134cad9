"""Converts configurations of GLiNER, gliner-spacy, transformers, EDS-NLP and AutoTrain to those of this package."""

from gliner_pipe.migration.command import configured, convert_file, to_config
from gliner_pipe.migration.gliner_spacy import from_gliner_spacy
from gliner_pipe.migration.migrated import Migrated
from gliner_pipe.migration.train_options import translate
from gliner_pipe.migration.yaml_files import read_yaml

__all__ = [
    "Migrated",
    "configured",
    "convert_file",
    "from_gliner_spacy",
    "read_yaml",
    "to_config",
    "translate",
]
