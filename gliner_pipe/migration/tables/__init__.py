"""All names of other systems, for look-up."""

from __future__ import annotations

from collections.abc import Mapping

from gliner_pipe.migration.names import Name
from gliner_pipe.migration.tables.autotrain import AUTOTRAIN
from gliner_pipe.migration.tables.model import DATA, MODEL, PEFT
from gliner_pipe.migration.tables.training import TRAINING

#: Sections of a GLiNER file, and their keys.
SECTIONS: Mapping[str, Mapping[str, Name]] = {
    section: {name.name: name for name in names}
    for section, names in (("model", MODEL), ("peft", PEFT), ("data", DATA), ("training", TRAINING))
}

#: Parameters of AutoTrain.
PARAMETERS: Mapping[str, Name] = {name.name: name for name in AUTOTRAIN}

_USERNAME = Name(
    "username",
    ("AutoTrain",),
    "",
    "It is part of the model's name on the hub.",
    fate="refused",
    do='Give hub_model_id = "user/model"',
)

#: What can be given to ``train()`` under the name of another system, and what is told where to go.
OPTIONS: Mapping[str, Name] = {
    **PARAMETERS,
    **{key: name for section in ("data", "model", "training") for key, name in SECTIONS[section].items()},
    "username": _USERNAME,
}
