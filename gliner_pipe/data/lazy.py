"""Sequences of examples that are made when they are read: parts of other sequences, and several as one."""

from __future__ import annotations

import random
from abc import abstractmethod
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt
from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter
from gliner_pipe.data.checks import CountedExamples, CountRules, GoldCounts
from gliner_pipe.util.processes import in_order

#: Number of examples that one process counts at once.
BLOCK = 2000

#: Divides examples into their parts; the random numbers come from the second argument, counts go to the third.
Splitter = Callable[[Iterable[Example], random.Random, Counter[str]], Iterable[Example]]


class LazyExamples(CountedExamples):
    """Base class of sequences that make an example when it is read.

    Parameters
    ----------
    rules
        What is counted over all of them.
    lengths
        Number of tokens of each.
    """

    def __init__(self, rules: CountRules, lengths: npt.NDArray[np.int32]) -> None:
        self.rules = rules
        self.lengths = lengths
        self._counts: dict[str, GoldCounts] = {}

    @abstractmethod
    def example(self, index: int) -> Example:
        """Return the example at an index from 0 on."""

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        places = range(len(self))[index]
        return self.example(places) if isinstance(places, int) else Subset(self, places)

    def __iter__(self) -> Iterator[Example]:
        return map(self.example, range(len(self)))

    def gold_counts(self, spans_key: SpanSetter | None = None, *max_width: int | None) -> GoldCounts:
        """Return the counts of gold entities in one place; with another maximum width, of those that are not wider."""
        rules = self.rules if spans_key is None else self.rules._replace(spans_key=spans_key)
        rules = rules._replace(max_width=max_width[0]) if max_width else rules
        key = repr(rules)
        if key not in self._counts:

            def counted(examples: Iterable[Example]) -> GoldCounts:
                counts = GoldCounts(rules)
                for example in examples:
                    counts.add(example)
                return counts

            self._counts[key] = GoldCounts.merge(rules, self.in_blocks(counted, "counting annotations"))
        return self._counts[key]

    def in_blocks(self, function: Callable[[Sequence[Example]], Any], title: str) -> Iterator[Any]:
        """Yield what a function returns for the consecutive blocks of the examples; several processes call it.

        Parameters
        ----------
        function
            Gets the examples of one block.
        title
            What the function does, for the display of the progress.
        """
        blocks = [range(at, min(at + BLOCK, len(self))) for at in range(0, len(self), BLOCK)]
        return in_order(lambda block: function(Subset(self, block)), blocks, title, len(blocks))


class Subset(LazyExamples):
    """Some of the examples of a sequence, in any order.

    Parameters
    ----------
    examples
        All examples.
    places
        Indices of those to take.
    """

    def __init__(self, examples: LazyExamples, places: Sequence[int]) -> None:
        super().__init__(examples.rules, examples.lengths[places])
        self.examples, self.places = examples, places

    def example(self, index: int) -> Example:
        """Return one of the examples."""
        return self.examples.example(self.places[index])


class Changed(LazyExamples):
    """Examples that a function changes, without a change of their tokens.

    Parameters
    ----------
    examples
        The examples.
    function
        Returns the example to use in place of an example.
    """

    def __init__(self, examples: LazyExamples, function: Callable[[Example], Example]) -> None:
        super().__init__(examples.rules, examples.lengths)
        self.examples, self.function = examples, function

    def example(self, index: int) -> Example:
        """Return a changed example."""
        return self.function(self.examples.example(index))


class Joined(CountedExamples):
    """The examples of several sequences, one after the other, some of which are lazy."""

    def __init__(self, parts: Sequence[Sequence[Example]]) -> None:
        self.parts = parts
        self.ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        places = range(len(self))[index]
        if not isinstance(places, int):
            return [self[place] for place in places]
        part = bisect_right(self.ends, places)
        return self.parts[part][places - self.ends[part]]

    def __iter__(self) -> Iterator[Example]:
        return (example for part in self.parts for example in part)

    def gold_counts(self, spans_key: SpanSetter | None = None) -> GoldCounts:
        """Return the sums of the counts of the sequences; there is no checksum of all."""
        rules = next(part.rules for part in self.parts if isinstance(part, LazyExamples))
        rules = rules if spans_key is None else rules._replace(spans_key=spans_key)

        def counts() -> Iterator[GoldCounts]:
            for part in self.parts:
                if isinstance(part, LazyExamples):
                    yield part.gold_counts(spans_key)
                else:
                    found = GoldCounts(rules)
                    for example in part:
                        found.add(example)
                    yield found

        return replace(GoldCounts.merge(rules, counts()), checksum="")


def joined(parts: Sequence[Sequence[Example]]) -> Sequence[Example]:
    """Return the examples of several sequences as one; a list if none of them is lazy."""
    if any(isinstance(part, CountedExamples) for part in parts):
        return parts[0] if len(parts) == 1 else Joined(parts)
    return [example for part in parts for example in part]


# -- splits ------------------------------------------------------------------------------------------------------------


class _Random(Protocol):
    def randint(self, a: int, b: int) -> int: ...


class _Recorded:
    """Random numbers that are written down."""

    def __init__(self, rng: _Random) -> None:
        self.rng = rng
        self.drawn = array("l")

    def randint(self, a: int, b: int) -> int:
        """Return a random number from `a` to `b`."""
        self.drawn.append(self.rng.randint(a, b))
        return self.drawn[-1]


class _Replayed:
    """The random numbers that were written down."""

    def __init__(self, drawn: Sequence[int]) -> None:
        self.drawn = iter(drawn)

    def randint(self, a: int, b: int) -> int:
        """Return the next number."""
        return next(self.drawn)


class Parts(LazyExamples):
    """Documents of which the long ones are split into parts, which are cut again when they are read.

    All long documents are split once, in their order, since the random numbers of each follow those of the one before;
    only their lengths and these numbers are kept.

    Parameters
    ----------
    documents
        The documents.
    split
        Splits them.
    rng, report
        Its other arguments.

    Attributes
    ----------
    long
        Indices of the documents that may have several parts.
    """

    def __init__(
        self, documents: LazyExamples, split: Splitter, rng: random.Random, report: Counter[str]
    ) -> None:
        whole = documents.rules.whole
        self.documents, self.split = documents, split
        self.long = np.flatnonzero(documents.lengths > whole) if whole is not None else np.arange(0)
        self.drawn: dict[int, array[int]] = {}
        numbers = np.ones(len(documents), dtype=np.int64)
        lengths: list[npt.NDArray[np.int32]] = []
        last = 0
        for place in self.long.tolist():
            recorded = _Recorded(rng)
            parts = list(split([documents.example(place)], recorded, report))  # type: ignore[arg-type]
            numbers[place], self.drawn[place] = len(parts), recorded.drawn
            lengths += [
                documents.lengths[last:place],
                np.array([len(part.predicted) for part in parts], np.int32),
            ]
            last = place + 1
        lengths.append(documents.lengths[last:])
        super().__init__(documents.rules, np.concatenate(lengths).astype(np.int32, copy=False))
        self.owners = np.repeat(np.arange(len(documents), dtype=np.int32), numbers)
        self.firsts = np.cumsum(numbers) - numbers

    def example(self, index: int) -> Example:
        """Return a part."""
        place = int(self.owners[index])
        if place not in self.drawn:
            return self.documents.example(place)
        return self.parts_of(place)[index - int(self.firsts[place])]

    def parts_of_long(self) -> Iterator[Example]:
        """Yield the parts of all long documents."""
        return (part for place in self.drawn for part in self.parts_of(place))

    def parts_of(self, place: int) -> list[Example]:
        """Return the parts of a long document."""
        drawn: Any = _Replayed(self.drawn[place])
        return list(self.split([self.documents.example(place)], drawn, Counter()))
