"""The registries of blocks, the only module that uses both confit's and spaCy's registries.

A registry is a confit view on a catalogue namespace. Published on ``spacy.registry``, the same entry answers
``@encoders = "uni_encoder"`` in a confit file and in ``nlp.add_pipe("gliner", config={...})``. Third parties
add blocks through the entry point group ``gliner_pipe_<family>`` (``thinc_losses``, ``spacy_readers``,
``spacy_scorers`` and ``spacy_architectures`` for the families in namespaces that thinc and spaCy own).
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

import catalogue
import confit
import spacy
from confit import Config
from spacy.language import Language

from gliner_pipe.util.arguments import own_errors


class Registry(confit.Registry):  # type: ignore[misc]
    """A registry that loads the built-in blocks on first use and refuses two functions with the same name.

    Parameters
    ----------
    namespace
        Namespace in the catalogue.
    builtin
        Module whose import registers the built-in blocks, or a package and ``.*`` for all its modules; imported on
        first use. Without it, entry points provide them.
    """

    def __init__(self, namespace: Sequence[str], builtin: str | None = None) -> None:
        super().__init__(namespace, entry_points=True)
        self.builtin = builtin
        self._imported = False

    def __contains__(self, name: object) -> bool:
        self._populate()
        return bool(super().__contains__(name))

    def get(self, name: str) -> Any:
        """Return the entry called `name`."""
        self._populate()
        return super().get(name)

    def get_available(self) -> list[str]:
        """Return the names of all entries, including those of other packages."""
        self._populate()
        return list(super().get_available())

    def get_all(self) -> dict[str, Any]:
        """Return all entries by name; this imports the packages that provide them."""
        self._populate()
        return dict(super().get_all())

    def get_entry_points(self) -> dict[str, Any]:
        """Return the entries of other packages by name, in the form that catalogue expects."""
        return {point.name: point.load() for point in self._get_entry_points()}

    def register(self, name: str, *, func: Any = None, **options: Any) -> Any:
        """Register a function or class.

        Raises
        ------
        catalogue.RegistryError
            If another function has this name.
        """

        def checked(new: Any) -> Any:
            path = (*self.namespace, name)
            if catalogue.check_exists(*path):
                there = catalogue._get(path)
                if _source(there) != _source(new):
                    raise catalogue.RegistryError(
                        f"@{self.namespace[-1]} = {name!r} is taken by {_place(there)}, so {_place(new)} "
                        "cannot have it. Choose another name."
                    )
            made = super(Registry, self).register(name, func=new, **options)
            where = f"{self.namespace[-1]}.{name}"
            if isinstance(made, type):
                made.__init__ = own_errors(made.__init__, where)  # type: ignore[misc]
                return made
            return catalogue.Registry.register(self, name, func=own_errors(made, where))

        return checked if func is None else checked(func)

    def _populate(self) -> None:
        if self._imported or self.builtin is None:
            return
        name = self.builtin.removesuffix(".*")
        package = importlib.import_module(name)
        if name != self.builtin:
            for module in pkgutil.iter_modules(package.__path__, f"{name}."):
                importlib.import_module(module.name)
        self._imported = True


class SharedRegistry(Registry):
    """A view on a namespace that spaCy or thinc owns; it is populated before it is read."""

    def _populate(self) -> None:
        spacy.registry.ensure_populated()
        super()._populate()


class ComponentRegistry(confit.Registry):  # type: ignore[misc]
    """Resolves ``@factory = "gliner"`` to the plain config of a spaCy component."""

    def get(self, name: str) -> Callable[..., dict[str, Any]]:
        """Return a function that converts a section to the config of ``nlp.add_pipe``."""
        if not Language.has_factory(name) and name not in self.get_available():
            names = ", ".join(self.get_available())
            raise catalogue.RegistryError(
                f"Can't find {name!r} in the spaCy factories. Available names: {names}"
            )

        def component(**block: Any) -> dict[str, Any]:
            return {"factory": name, **Config.serialize(block)}

        return component

    def get_available(self) -> list[str]:
        """Return the names of all factories that are available for every language."""
        spacy.blank("xx")  # imports the spacy_factories entry points
        names = spacy.registry.factories.get_all()
        return sorted(name for name in names if Language.has_factory(name))


class registry(confit.RegistryCollection):  # type: ignore[misc]
    """All registries by family name; ``@metrics`` is another name for ``@scorers``."""

    backbones = Registry(("gliner_pipe", "backbones"), "gliner_pipe.modeling.backbones.*")
    adapters = Registry(("gliner_pipe", "adapters"), "gliner_pipe.modeling.adapters")
    encoders = Registry(("gliner_pipe", "encoders"), "gliner_pipe.modeling.encoders.*")
    fusions = Registry(("gliner_pipe", "fusions"), "gliner_pipe.modeling.fusions")
    context_encoders = Registry(("gliner_pipe", "context_encoders"), "gliner_pipe.modeling.context_encoders")
    span_reps = Registry(("gliner_pipe", "span_reps"), "gliner_pipe.modeling.span_reps.*")
    decoders = Registry(("gliner_pipe", "decoders"), "gliner_pipe.modeling.decoders.*")
    relation_layers = Registry(("gliner_pipe", "relation_layers"), "gliner_pipe.modeling.relation_layers.*")
    triples = Registry(("gliner_pipe", "triples"), "gliner_pipe.modeling.triples.*")
    counters = Registry(("gliner_pipe", "counters"), "gliner_pipe.modeling.counters.*")
    classifiers = Registry(("gliner_pipe", "classifiers"), "gliner_pipe.modeling.classifiers.*")
    relation_finders = Registry(
        ("gliner_pipe", "relation_finders"), "gliner_pipe.modeling.relation_finders.*"
    )
    record_finders = Registry(("gliner_pipe", "record_finders"), "gliner_pipe.modeling.record_finders.*")
    word_splitters = Registry(("gliner_pipe", "word_splitters"), "gliner_pipe.pipeline.language_splitters")

    architectures = SharedRegistry(("spacy", "architectures"))
    losses = SharedRegistry(("thinc", "losses"), "gliner_pipe.modeling.losses.*")
    readers = SharedRegistry(("spacy", "readers"), "gliner_pipe.data.readers.*")
    scorers = SharedRegistry(("spacy", "scorers"), "gliner_pipe.metrics.*")
    metrics = scorers

    # Training only: thinc's families of the same names have other contracts; these stay off spacy.registry.
    schedules = Registry(("gliner_pipe", "schedules"), "gliner_pipe.training.schedules")
    optimizers = Registry(("gliner_pipe", "optimizers"), "gliner_pipe.training.optimizers")
    loggers = Registry(("gliner_pipe", "loggers"), "gliner_pipe.training.loggers.*")

    core = Registry(("gliner_pipe", "core"), "gliner_pipe.pipeline.build")
    factory = ComponentRegistry(("gliner_pipe", "factory"))


#: Families whose blocks are part of a component's config.
BLOCK_FAMILIES = (
    "backbones",
    "adapters",
    "encoders",
    "fusions",
    "context_encoders",
    "span_reps",
    "decoders",
    "relation_layers",
    "triples",
    "counters",
    "classifiers",
    "relation_finders",
    "record_finders",
    "word_splitters",
)

for _family in BLOCK_FAMILIES:
    setattr(spacy.registry, _family, getattr(registry, _family))


def _place(function: Any) -> str:
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def _source(function: Any) -> tuple[Any, str]:
    """Return file and name, which are equal for a module that is loaded twice, e.g. as ``__main__``."""
    module = sys.modules.get(function.__module__)
    return getattr(module, "__file__", None), _place(function).removeprefix(function.__module__)
