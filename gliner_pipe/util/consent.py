"""Consent to run Python code that comes with a model: given by whoever loads it, never by the model itself.

A hub id or a folder may bring code (``modeling_x.py``, named by ``auto_map`` in its ``config.json``). Consent is an
argument of whoever loads, an option of a command, or the environment variable ``GLINER_PIPE_TRUST_REMOTE_CODE``. A
config that the user writes may give it for the models that are built from it. What stands in a saved pipeline counts
for nothing: ``trust_remote_code`` is left out when a config is saved, and overruled when one is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from spacy.language import Language

from gliner_pipe.errors import ConfigError

OPTION = "trust_remote_code"
VARIABLE = "GLINER_PIPE_TRUST_REMOTE_CODE"
#: What to do about a refusal.
HOW = (
    "Read that code first. To consent, load it with gliner_pipe.load(..., trust_remote_code=True), give "
    f"--trust-remote-code to the command, or set {VARIABLE}=1; what a saved pipeline says about it is not read"
)

_given: ContextVar[bool] = ContextVar("trust_remote_code", default=False)


def is_given() -> bool:
    """Tell whether the caller consents: by the argument or option that is in force, or by the environment.

    Raises
    ------
    ConfigError
        If the environment variable is neither yes nor no.
    """
    value = os.environ.get(VARIABLE, "").strip().lower()
    if value not in ("", "0", "1", "false", "true", "no", "yes"):
        raise ConfigError(VARIABLE, f"is {value!r}", "1, true, yes, 0, false, no", "Set or unset it")
    return _given.get() or value in ("1", "true", "yes")


@contextmanager
def trusting(consent: bool = True) -> Iterator[None]:
    """Have an argument hold meanwhile; False takes back nothing that was given otherwise."""
    token = _given.set(_given.get() or consent)
    try:
        yield
    finally:
        _given.reset(token)


def overrule(model: Any) -> None:
    """Replace what the blocks of a saved pipeline say by what the caller says now."""
    for block in _blocks(model):
        setattr(block, OPTION, is_given())


def is_stated(nlp: Language) -> bool:
    """Tell whether a block of a pipeline that its user composed says ``trust_remote_code = true``."""
    return any(
        getattr(block, OPTION) for _, pipe in nlp.pipeline for block in _blocks(getattr(pipe, "model", None))
    )


def _blocks(model: Any) -> list[Any]:
    modules = getattr(model, "modules", None)  # a model of thinc has none
    return [block for block in modules() if hasattr(block, OPTION)] if modules else []


def refuse(error: Exception, name: object, where: str) -> None:
    """Raise what a user understands if `transformers` raised `error` because a model brings code of its own.

    Raises
    ------
    ConfigError
        If it did.
    """
    if OPTION in str(error) and not isinstance(error, ConfigError):
        found = f"{str(name)!r} brings Python code of its own, which runs with consent only. Nothing of it was run"
        raise ConfigError(where, found, "models without code, or your consent", HOW) from None


def unstated(config: Any) -> Any:
    """Return a config, or a part of one, without ``trust_remote_code``; the types of sections stay."""
    if isinstance(config, Mapping):
        section: Any = type(config)
        return section({key: unstated(value) for key, value in config.items() if key != OPTION})
    if isinstance(config, list):
        return [unstated(value) for value in config]
    return config


class PipeConfigs(dict[str, Any]):
    """The configs of a pipeline's components, as ``nlp.config`` and ``nlp.to_disk`` write them: without consent."""

    def __setitem__(self, name: str, config: Any) -> None:
        super().__setitem__(name, unstated(config))

    @classmethod
    def watch(cls, nlp: Language) -> None:
        """Have a pipeline keep its configs so from here on."""
        if not isinstance(nlp._pipe_configs, cls):
            nlp._pipe_configs = cls(nlp._pipe_configs)
