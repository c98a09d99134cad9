"""The contract of an adapter, and the form in which encoders with adapters are saved."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from gliner_pipe.modeling.block import Block

#: Form in which an encoder with an adapter is saved; see :class:`Adapter`.
Form = Literal["full", "adapter", "merged"]

_forced: ContextVar[Form | None] = ContextVar("gliner_pipe_saved_form", default=None)


class Adapter(Block):
    """Additional weights on a frozen encoder; only the adapter and the heads are trained.

    Use one if memory is too small for the gradients of the whole encoder, if several tasks share one encoder, or if the
    encoder must not forget its pretraining. A subclass implements a method of `peft`.

    Attributes
    ----------
    save
        Content of a saved pipeline. ``full``: the encoder and the adapter, separately, so that training can be
        continued. ``adapter``: the adapter only; loading requires the encoder it was trained on. ``merged``: a plain
        encoder, with the adapter added to its weights; it is loaded without `peft`.
    """

    family = "adapters"
    save: Form = "full"

    @abstractmethod
    def config(self, encoder: Any, where: str) -> Any:
        """Return the `peft` configuration for an encoder.

        Parameters
        ----------
        encoder
            A Hugging Face model without adapters.
        where
            Section, for errors.

        Raises
        ------
        ConfigError
            If `peft` is not installed, or the settings do not fit the encoder.
        """


@contextmanager
def saving(form: Form) -> Iterator[None]:
    """Save encoders with adapters in this form inside the context, instead of the form in their ``save``.

    ``with saving("full"): nlp.to_disk(path)`` writes a pipeline from which training can be resumed. The weights of a
    quantised encoder are never saved.

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
    """Return the form in which an encoder with this adapter is saved at present."""
    return _forced.get() or ("full" if adapter is None else adapter.save)
