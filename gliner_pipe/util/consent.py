"""Consent to run Python code that comes with a model: given by the user who loads it, never by the model itself.

A hub repository or a folder may contain code (``modeling_x.py``, named by ``auto_map`` in its ``config.json``). Consent
is an argument of a function, an option of a command, or the environment variable ``GLINER_PIPE_TRUST_REMOTE_CODE``. A
config that the user writes may give it for the models that are built from it. A saved pipeline cannot give it:
``trust_remote_code`` is removed when a config is saved, and overridden when one is loaded.
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
#: Advice for a refusal.
HOW = (
    "Read that code first. To consent, load it with gliner_pipe.load(..., trust_remote_code=True), add "
    f"--trust-remote-code to the command, or set {VARIABLE}=1; a saved pipeline cannot give consent"
)

_given: ContextVar[bool] = ContextVar("trust_remote_code", default=False)


def is_given() -> bool:
    """Return whether the caller consents: by an argument or option in force, or by the environment variable.

    Raises
    ------
    ConfigError
        If the environment variable has an invalid value.
    """
    value = os.environ.get(VARIABLE, "").strip().lower()
    if value not in ("", "0", "1", "false", "true", "no", "yes"):
        raise ConfigError(VARIABLE, f"is {value!r}", "1, true, yes, 0, false, no", "Set or unset it")
    return _given.get() or value in ("1", "true", "yes")


@contextmanager
def trusting(consent: bool = True) -> Iterator[None]:
    """Give consent inside the block; False does not withdraw consent that was given otherwise."""
    token = _given.set(_given.get() or consent)
    try:
        yield
    finally:
        _given.reset(token)


def overrule(model: Any) -> None:
    """Set ``trust_remote_code`` of the blocks of a saved pipeline to the consent of the caller."""
    for block in _blocks(model):
        setattr(block, OPTION, is_given())


def is_stated(nlp: Language) -> bool:
    """Return whether a block of a pipeline that the user composed has ``trust_remote_code = true``."""
    return any(
        getattr(block, OPTION) for _, pipe in nlp.pipeline for block in _blocks(getattr(pipe, "model", None))
    )


def _blocks(model: Any) -> list[Any]:
    modules = getattr(model, "modules", None)  # a model of thinc has none
    return [block for block in modules() if hasattr(block, OPTION)] if modules else []


def refuse(error: Exception, name: object, where: str) -> None:
    """Raise a clear error if `transformers` raised `error` because a model contains code.

    Raises
    ------
    ConfigError
        In that case.
    """
    if OPTION in str(error) and not isinstance(error, ConfigError):
        found = f"{str(name)!r} contains Python code, which needs your consent. None of it was run"
        raise ConfigError(where, found, "models without code, or your consent", HOW) from None


def unstated(config: Any) -> Any:
    """Return a config, or a section, without ``trust_remote_code``; the types of sections are kept.

    Block objects become their sections.
    """
    if hasattr(config, "toDict"):
        config = config.toDict()
    if isinstance(config, Mapping):
        section: Any = type(config)
        return section({key: unstated(value) for key, value in config.items() if key != OPTION})
    if isinstance(config, list):
        return [unstated(value) for value in config]
    return config


class PipeConfigs(dict[str, Any]):
    """The configs of a pipeline's components, as ``nlp.config`` and ``nlp.to_disk`` save them: without consent."""

    def __setitem__(self, name: str, config: Any) -> None:
        super().__setitem__(name, unstated(config))

    @classmethod
    def watch(cls, nlp: Language) -> None:
        """Make a pipeline store the configs of its components without consent."""
        if not isinstance(nlp._pipe_configs, cls):
            nlp._pipe_configs = cls(nlp._pipe_configs)
