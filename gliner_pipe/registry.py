"""The registries of blocks: the only file that knows both confit's and spaCy's.

A registry is a confit view on a catalogue namespace. Published on ``spacy.registry``, the same entry answers
``@encoders = "uni_encoder"`` in a confit file and in ``nlp.add_pipe("gliner", config={...})``. Third parties add
blocks through the entry point group ``gliner_pipe_<family>`` (``thinc_losses``, ``spacy_readers`` and
``spacy_scorers`` for the three families that live in namespaces which thinc and spaCy own).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import catalogue
import confit
import spacy
from confit import Config
from spacy.language import Language


class SharedRegistry(confit.Registry):  # type: ignore[misc]
    """A view on a namespace that spaCy or thinc own, filled before it is read."""

    def get(self, name: str) -> Any:
        """Return the entry called `name`, spaCy's own entries included."""
        spacy.registry.ensure_populated()
        return super().get(name)


class ComponentRegistry(confit.Registry):  # type: ignore[misc]
    """``@factory = "gliner"``: the plain configuration of a spaCy component."""

    def get(self, name: str) -> Callable[..., dict[str, Any]]:
        """Return a function that turns a section into what ``nlp.add_pipe`` takes."""
        if not Language.has_factory(name):
            spacy.blank("xx")  # imports the spacy_factories entry points
        if not Language.has_factory(name):
            names = ", ".join(sorted(spacy.registry.get_registry_names() and Language.factories))
            raise catalogue.RegistryError(f"Can't find {name!r} in the spaCy factories. Available names: {names}")

        def component(**block: Any) -> dict[str, Any]:
            return {"factory": name, **Config.serialize(block)}

        return component


class registry(confit.RegistryCollection):  # type: ignore[misc]
    """All registries by family name; ``@metrics`` is another name for ``@scorers``."""

    backbones = confit.Registry(("gliner_pipe", "backbones"), entry_points=True)
    encoders = confit.Registry(("gliner_pipe", "encoders"), entry_points=True)
    fusions = confit.Registry(("gliner_pipe", "fusions"), entry_points=True)
    span_reps = confit.Registry(("gliner_pipe", "span_reps"), entry_points=True)
    decoders = confit.Registry(("gliner_pipe", "decoders"), entry_points=True)
    relation_layers = confit.Registry(("gliner_pipe", "relation_layers"), entry_points=True)
    triples = confit.Registry(("gliner_pipe", "triples"), entry_points=True)
    word_splitters = confit.Registry(("gliner_pipe", "word_splitters"), entry_points=True)

    architectures = SharedRegistry(("spacy", "architectures"), entry_points=True)
    losses = SharedRegistry(("thinc", "losses"), entry_points=True)
    readers = SharedRegistry(("spacy", "readers"), entry_points=True)
    scorers = SharedRegistry(("spacy", "scorers"), entry_points=True)
    metrics = scorers

    # Training only: thinc's families of the same names have other contracts, so these stay off spacy.registry.
    schedules = confit.Registry(("gliner_pipe", "schedules"), entry_points=True)
    optimizers = confit.Registry(("gliner_pipe", "optimizers"), entry_points=True)
    loggers = confit.Registry(("gliner_pipe", "loggers"), entry_points=True)

    core = confit.Registry(("gliner_pipe", "core"), entry_points=True)
    factory = ComponentRegistry(("gliner_pipe", "factory"))


#: Families whose blocks stand inside a component's configuration.
BLOCK_FAMILIES = (
    "backbones",
    "encoders",
    "fusions",
    "span_reps",
    "decoders",
    "relation_layers",
    "triples",
    "word_splitters",
)

for _family in BLOCK_FAMILIES:
    setattr(spacy.registry, _family, getattr(registry, _family))
