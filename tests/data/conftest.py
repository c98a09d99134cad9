"""Fixtures of the data tests: a bare pipeline, and short ways to write files and examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import set_supervision
from gliner_pipe.errors import ConfigError, DataError


@pytest.fixture(scope="session")
def nlp() -> Language:
    return spacy.blank("en")


@pytest.fixture(scope="session")
def fails() -> Callable[
    [type[ConfigError | DataError], str], AbstractContextManager[pytest.ExceptionInfo[Any]]
]:
    """Expect an error of a class whose location (``where``) ends in the given text."""

    @contextmanager
    def expect(kind: type[ConfigError | DataError], where: str) -> Iterator[pytest.ExceptionInfo[Any]]:
        with pytest.raises(kind) as caught:
            yield caught
        assert caught.value.where.endswith(where)

    return expect


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Write a file: text as it is, bytes as they are, a list of records as JSON lines."""

    def write_file(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(record) + "\n" for record in content)
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        return path

    return write_file


@pytest.fixture(scope="session")
def example(nlp: Language) -> Callable[..., Example]:
    """Make an example from words, entities (start, end exclusive, label) and supervision."""

    def make(
        words: str | list[str],
        entities: list[tuple[int, int, str]] | None = None,
        starts: list[int] | None = None,
        **fields: Any,
    ) -> Example:
        words = words.split() if isinstance(words, str) else words
        predicted = Doc(nlp.vocab, words=words)
        sent_starts = None if starts is None else [i in starts for i in range(len(words))]
        reference = Doc(nlp.vocab, words=words, sent_starts=sent_starts)
        reference.spans["gliner"] = [Span(reference, s, e, label=label) for s, e, label in entities or []]
        set_supervision(reference, **fields)
        return Example(predicted, reference)

    return make
