"""The configuration that the files of every other system become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from confit import Config
from confit.utils.xjson import Reference


@dataclass
class Migrated:
    """A configuration made from that of another system.

    Parameters
    ----------
    config
        Complete: it can be saved as a cfg file and trained from.
    source
        Where it came from.
    notes
        Lines for the user: names that were read as others, and options that were not used.
    """

    config: Config
    source: str
    notes: list[str] = field(default_factory=list)

    def to_cfg(self) -> str:
        """Return the text of the cfg file, with the notes as comments at the top."""
        head = [f"# Made from {self.source}", *(f"# - {' '.join(note.split())}" for note in self.notes)]
        return "\n".join(head) + "\n\n" + str(self.config.to_cfg_str()).rstrip() + "\n"


def assemble(
    component: Mapping[str, Any],
    scorers: Mapping[str, Any],
    train: Mapping[str, Any],
    factory: str = "gliner",
) -> Config:
    """Return a complete configuration with one component, named like its factory."""
    return Config(
        {
            "nlp": {"lang": "en", "pipeline": [factory], "components": Reference("components")},
            "components": {factory: {"@factory": factory, **component}},
            "scorer": dict(scorers),
            "train": {"nlp": Reference("nlp"), "scorer": Reference("scorer"), **train},
        }
    )


def pretrained_config(
    name: str, notes: list[str], settings: Mapping[str, Any] | None = None
) -> tuple[Any, Any]:
    """Return the configuration and the tokenizer of an encoder; None for both, with a note, if they are unavailable.

    `settings` are used in place of the model's own configuration.
    """
    from transformers import AutoConfig, AutoTokenizer

    from gliner_pipe.modeling.backbones import hf

    config = None if settings is None else hf.config_of(settings, "encoder_config")
    for local_only in (True, False):  # the hub is not contacted if the cache has them
        try:
            source = hf.source_of(name, "model_name", "config.json" if settings is None else None)
            if settings is None:
                config = AutoConfig.from_pretrained(source, local_files_only=local_only)
            return config, AutoTokenizer.from_pretrained(source, local_files_only=local_only)
        except (OSError, ValueError, ImportError):
            continue
    if settings is not None:
        return config, None
    notes.append(
        f"the configuration of {name} is unavailable: the window is not limited to what the encoder takes. If training "
        "reports that this is fewer subword tokens, set a smaller window"
    )
    return None, None
