"""Tells what the components of a pipeline left out or changed while a command ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from spacy.language import Language


@contextmanager
def reporting(nlp: Language, tell: Callable[[str], None]) -> Iterator[None]:
    """Tell at the end what was added to ``component.report`` in the block; worker processes have reports of their own.

    Parameters
    ----------
    nlp
        The pipeline.
    tell
        Takes a line for each component with something to report.
    """
    before = {name: Counter(pipe.report) for name, pipe in nlp.pipeline if _reports(pipe)}
    yield
    for name, pipe in nlp.pipeline:
        if name in before and (added := pipe.report - before[name]):
            counts = ", ".join(f"{number:,} x {reason}" for reason, number in added.most_common())
            tell(f"note: {name} left out or changed: {counts}")


def _reports(pipe: object) -> bool:
    return isinstance(getattr(pipe, "report", None), Counter)
