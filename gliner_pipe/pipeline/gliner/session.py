"""A session: text that arrives piece by piece, and its entities as they become certain."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.modeling.decoders.span import Candidate
from gliner_pipe.modeling.encoders.causal_encoder import CausalEncoder
from gliner_pipe.modeling.sessions import SpanSession
from gliner_pipe.pipeline import annotate
from gliner_pipe.pipeline.gliner import restrictions
from gliner_pipe.pipeline.records import Entity, entities_of
from gliner_pipe.pipeline.word_splitters import ReadWords, Words, read_words

#: A text up to its last whitespace.
_COMPLETE = re.compile(r".*\s", re.DOTALL)


class Session:
    """Finds the entities of a text that is fed piece by piece; made by ``component.session()``.

    A piece may end inside a word. A word is read once whitespace follows it, and then once only: the keys and values of
    the language model are kept. All offsets count the characters of the whole text fed so far.

    An entity is returned once it is certain, that is, once nothing that may follow changes it. Two things can:

    - Its score, where that depends on later words (``markerV2``, or an LSTM): it is computed once its last word is
      read, and again with each piece, until `right_context` words follow it (an option of the encoder, by default the
      maximum width of an entity). The last word of the piece is its context on the right, so that scores depend on
      where pieces end. A text fed in one piece, with whitespace at its end, has the entities that ``nlp`` finds.
    - A better entity that overlaps it, and begins at most the maximum width after it.

    So an entity that overlaps no other is returned once that many words follow it: `right_context`, if its score
    depends on later words, plus the maximum width less one. Where a word changes the scores of all words before it (a
    context encoder in both directions), ``finish`` returns all entities.

    The text may have any length: once the positions of the language model (or ``max_session_tokens``) are used up, it
    reads the latest words again after the prompt, and goes on.

    Parameters
    ----------
    component
        A component with the labels and settings of this session, which must not change.

    Raises
    ------
    ConfigError
        If the model does not read from left to right, or has a setting that sessions lack.
    """

    def __init__(self, component: Any) -> None:
        _check(component)
        self._component = component
        component.cfg["candidate_threshold"] = None  # not among the results
        splitter = component.word_splitter
        with component.placed():
            component._ready()
            self._request = component._request(component.make_doc(""), splitter, None, {})
            self._spans = SpanSession(
                component.gliner,
                self._request.query,
                self._request.limits,
                class_scores=component.cfg["class_scores"],
            )
        self._tail: list[str] = []  # an incomplete word
        self._text = ""  # complete words whose entities were not returned, and where they start
        self._start = 0
        self._offsets: list[tuple[int, int]] = []  # of these words
        self._places: list[int] = []  # numbers of words after which the text may be cut
        self._done = 0
        self._finished = False

    def feed(self, text: str) -> list[Entity]:
        """Read a piece of the text, and return the entities that it made certain, sorted by start.

        Parameters
        ----------
        text
            The next characters.

        Returns
        -------
        list of Entity
            As from ``predict_entities``. Each entity is returned once, after all that start before it.

        Raises
        ------
        DataError
            If it is no string, or the session is finished.
        """
        if self._finished:
            raise DataError("feed", "was called on a finished session", "a new session")
        if not isinstance(text, str):
            raise DataError("feed", f"found {type(text).__name__}", "a string")
        complete = _COMPLETE.match(text)
        if complete is None:
            self._tail.append(text)
            return []
        part = "".join([*self._tail, complete.group()])
        self._tail = [text[complete.end() :]]
        return self._read(part)

    def finish(self) -> list[Entity]:
        """End the text, and return the remaining entities; none if the session is finished already.

        ``close`` is the same method. The memory of the session is freed.
        """
        if self._finished:
            return []
        found = self._read("".join(self._tail), last=True)
        self._finished = True
        del self._spans
        return found

    close = finish

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read(self, part: str, last: bool = False) -> list[Entity]:
        """Read words that are complete, and return the entities that became certain, or all with `last`."""
        component, report = self._component, Counter[str]()
        if self._request.labels and part:
            doc = component.make_doc(part)
            words = component.word_splitter.split(doc)
            offsets = words.offsets or [(token.idx, token.idx + len(token)) for token in doc]
            (read,), (pieces,) = read_words(component.gliner.encoder.backbone, [words])
            shift = self._start + len(self._text)
            for place in range(len(read.texts)):
                start, end = offsets[read.number(place)]
                self._offsets.append((start + shift, end + shift))
                if end == len(part) or part[end].isspace():
                    self._places.append(self._done + len(self._offsets))
            with component.placed():
                self._spans.append(pieces, report)
        self._text += part
        component.add_to_report(report)
        if last:
            return self._entities(self._done + len(self._offsets))
        settled = self._spans.settled(self._places)
        return [] if settled is None else self._entities(settled)

    def _entities(self, place: int) -> list[Entity]:
        """Return the entities of the words before `place`, and forget these words."""
        count = place - self._done
        if not count:
            return []
        classes = self._spans.class_scores
        candidates, offsets = self._spans.take(place), self._offsets[:count]
        length = offsets[-1][1] - self._start
        text, start, done = self._text[:length], self._start, self._done
        self._text, self._start = self._text[length:], start + length
        self._offsets, self._done = self._offsets[count:], place
        self._places = [one for one in self._places if one > place]
        if not candidates:
            return []
        offsets = [(first - start, last - start) for first, last in offsets]
        words = Words([text[first:last] for first, last in offsets], offsets)
        found = self._decoded(text, words, candidates, done, classes)
        return [{**one, "start": one["start"] + start, "end": one["end"] + start} for one in found]

    def _decoded(
        self,
        text: str,
        words: Words,
        candidates: list[Candidate],
        done: int,
        classes: dict[tuple[int, int], list[float]] | None,
    ) -> list[Entity]:
        """Select among the candidates of a text, in words after `done`, and write them as ``nlp`` would."""
        component, request, report = self._component, self._request, Counter[str]()
        doc = component.make_doc(text)
        local = [one._replace(start=one.start - done, end=one.end - done) for one in candidates]
        if request.patterns:
            check = request.labels, request.patterns, doc, words, ReadWords(words.texts), report
            local = restrictions.matching(local, *check)
        names = [item.label for item in request.labels]
        entities = []
        for start, end, label, score in component.gliner.decoder.decode(local, **component.decoding):
            scores = None
            if classes is not None:
                row = zip(names, classes[start + done, end + done], strict=True)
                scores = dict(sorted(row, key=lambda pair: -pair[1]))
            entities.append(annotate.Entity(start, end, names[label], score, (), scores))
        prediction = annotate.Prediction(entities, words=words, patterns=request.patterns)
        component.add_to_report(report)
        component.set_annotations([doc], [prediction])
        return entities_of(doc, component.spans_key)


def _check(component: Any) -> None:
    """Refuse a model, or a setting, for which there are no sessions."""
    model = component.gliner
    if not isinstance(model.encoder, CausalEncoder):
        raise ConfigError(
            f"{component._where}.model.encoder",
            f"found {type(model.encoder).__name__}, in which each word changes all words before it, so that nothing "
            "is certain before a text ends",
            "causal_encoder, as in GLiNER's streaming models",
            "Wait for the whole text, or sentence by sentence, and call predict_entities",
        )
    if model.label_generator is not None:
        allowed = "a decoder that generates no labels"
        raise ConfigError(f"{component._where}.model.decoder", "generates labels in a session", allowed)
    if component.compile:
        raise ConfigError(f"{component._where}.compile", "found true in a session", "false")
