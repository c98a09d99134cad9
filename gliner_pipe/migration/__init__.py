"""From the configuration files and options of GLiNER, transformers, EDS-NLP and AutoTrain to those of this package."""

from gliner_pipe.migration.command import configured, convert_file
from gliner_pipe.migration.gliner import Migrated, to_config
from gliner_pipe.migration.names import translate
from gliner_pipe.migration.yaml_files import read_yaml

__all__ = ["Migrated", "configured", "convert_file", "read_yaml", "to_config", "translate"]
