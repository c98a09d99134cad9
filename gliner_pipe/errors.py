"""Errors shown to users: each says where, what was found, what is allowed and what to do."""

from __future__ import annotations

import re

from gliner_pipe.util.secrets import redacted_message, redacted_text


class GlinerPipeError(Exception):
    """Base class of errors in the input. The message is one sentence with secrets redacted."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(redacted_text(item) if isinstance(item, str) else item for item in args))


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
        self.where, self.found, self.allowed, self.do = where, redacted_message(where, found), allowed, do
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
        self.where, self.found, self.allowed, self.do = where, redacted_text(found), allowed, do
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


def _sentence(where: str, found: str, allowed: str, do: str) -> str:
    text = f"{where} {found}"
    if allowed:
        text += f"; allowed: {allowed}"
    if do:
        text += f". {do}"
    return text if text.endswith((".", "!", "?")) else text + "."
