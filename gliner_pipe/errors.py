"""Errors shown to users: each says where, what was found, what is allowed and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from gliner_pipe.util.secrets import redacted_message, redacted_text
from gliner_pipe.util.visible import one_line

#: Most characters of a message, and of each of its parts; what a user gave may be longer.
_MOST, _MOST_OF_PART = 3000, 1200


class GlinerPipeError(Exception):
    """Base class of errors in the input.

    The message is one line with secrets redacted and control characters visible; what is very long is shortened.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(
            *(one_line(redacted_text(one), _MOST) if isinstance(one, str) else one for one in args)
        )


class _FourParts:
    """Base of errors with four parts; they can be pickled and so cross process boundaries."""

    where: str
    found: str
    allowed: str
    do: str

    def __reduce__(self) -> tuple[type, tuple[str, str, str, str]]:
        return type(self), (self.where, self.found, self.allowed, self.do)


class ConfigError(_FourParts, GlinerPipeError, ValueError):
    """A configuration that cannot work.

    Parameters
    ----------
    where
        Section or setting, e.g. ``"components.gliner.model.encoder"``.
    found
        What was found there.
    allowed
        What is allowed there.
    do
        What to do about it.
    """

    def __init__(self, where: str, found: str, allowed: str = "", do: str = "") -> None:
        self.where, self.found, self.allowed, self.do = where, _found(found, where), allowed, do
        super().__init__(_sentence(f"[{where}]", self.found, allowed, do))


class DataError(_FourParts, GlinerPipeError, ValueError):
    """Input data that cannot be used.

    Parameters
    ----------
    where
        File with line or document, and the field, e.g. ``"train.jsonl:12 (ner[3])"``.
    found
        What was found there.
    allowed
        What is allowed there.
    do
        What to do about it.
    """

    def __init__(self, where: str, found: str, allowed: str = "", do: str = "") -> None:
        self.where, self.found, self.allowed, self.do = where, _found(found), allowed, do
        super().__init__(_sentence(where, self.found, allowed, do))


class PredictionError(DataError, RuntimeError):
    """A text that the pipeline failed on; its parts are those of ``DataError``."""


class WorkerError(GlinerPipeError, RuntimeError):
    """A worker process died."""


class NotInitializedError(GlinerPipeError, RuntimeError):
    """A component without weights was called."""


class CheckpointError(GlinerPipeError, ValueError):
    """A model folder that cannot be loaded."""


class TrainingError(GlinerPipeError, RuntimeError):
    """Training cannot continue: the loss is not a number, or it diverges."""


@contextmanager
def unreadable(where: object) -> Iterator[None]:
    """Turn errors of other libraries about the files of a model into a ``CheckpointError``.

    Parameters
    ----------
    where
        Folder of the model.
    """
    try:
        yield
    except GlinerPipeError:
        raise
    except Exception as error:
        reason = reason_of(error) or type(error).__name__
        raise CheckpointError(
            f"{where}: cannot be loaded ({reason}). Check its configuration, or download or save it again."
        ) from error


def reason_of(error: BaseException, most: int = 300) -> str:
    """Return the message of another library's error as one line of at most this many characters.

    A longer message ends after a sentence, or else after a word.
    """
    return shortened(str(error), most)


def shortened(text: str, most: int = 300) -> str:
    """Return a text as one line, without the sentences or words at its end that are too many."""
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    sentences = [match.end() for match in re.finditer(r"[.!?](?= [A-Z])", text[:most])]
    return text[: sentences[-1]] if sentences else f"{text[:most].rpartition(' ')[0]} ..."


def _found(text: str, setting: str = "") -> str:
    text = one_line(text, 10 * _MOST_OF_PART)  # redacting a text of some MB would take minutes
    return one_line(redacted_message(setting, text) if setting else redacted_text(text), _MOST_OF_PART)


def _sentence(where: str, found: str, allowed: str, do: str) -> str:
    where, allowed, do = (one_line(one, _MOST_OF_PART) for one in (where, allowed, do))
    text = f"{where} {found}"
    if allowed:
        text += f"; allowed: {allowed}"
    if do:
        text += f". {do}"
    return text if text.endswith((".", "!", "?")) else text + "."
