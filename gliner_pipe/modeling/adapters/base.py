"""The contract of an adapter: which new weights an encoder gets, and how they are saved."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from gliner_pipe.modeling.block import Block

#: How an encoder with an adapter is saved; see :class:`Adapter`.
Form = Literal["full", "adapter", "merged"]

_forced: ContextVar[Form | None] = ContextVar("gliner_pipe_saved_form", default=None)


class Adapter(Block):
    """New weights beside those of a frozen encoder: only they learn, and the heads.

    Use one where the memory does not hold the gradients of the whole encoder, where several tasks share one encoder,
    or where what the encoder knows must not be forgotten. A subclass says which method of `peft` it is.

    Attributes
    ----------
    save
        What a saved pipeline holds. ``full``: the encoder and the adapter, each for itself, so that training can go
        on. ``adapter``: the adapter alone; loading needs the very encoder it was trained on. ``merged``: an encoder
        like any other, with the adapter added to its weights; it loads without `peft`.
    """

    family = "adapters"
    save: Form = "full"

    @abstractmethod
    def config(self, encoder: Any, where: str) -> Any:
        """Return the configuration of `peft` for an encoder.

        Parameters
        ----------
        encoder
            A Hugging Face model without adapters.
        where
            Section that errors name.

        Raises
        ------
        ConfigError
            When `peft` is not installed, or the settings do not fit the encoder.
        """


@contextmanager
def saving(form: Form) -> Iterator[None]:
    """Save every encoder with an adapter in this form meanwhile, whatever its ``save`` says.

    ``with saving("full"): nlp.to_disk(path)`` writes what a training can be resumed from. The base of a quantised
    encoder is left out all the same.

    Parameters
    ----------
    form
        ``full``, ``adapter`` or ``merged``.
    """
    before = _forced.set(form)
    try:
        yield
    finally:
        _forced.reset(before)


def saved_form(adapter: Adapter | None) -> Form:
    """How an encoder with this adapter is saved now."""
    return _forced.get() or ("full" if adapter is None else adapter.save)
