"""Conversion between pipelines and checkpoints of GLiNER or Hugging Face token classification."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import spacy

from gliner_pipe.checkpoints.gliner_write import write_checkpoint
from gliner_pipe.checkpoints.hf_write import check_parts, write_model
from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.token_classifier import TokenClassifier
from gliner_pipe.pipeline.gliner.component import Gliner
from gliner_pipe.pipeline.token_classifier.component import TokenTagger
from gliner_pipe.pipeline.word_splitters import WhitespaceWords

logger = logging.getLogger("gliner_pipe.convert")


def from_gliner(
    source: str, labels: Sequence[Any] = (), relations: Sequence[Any] = (), lang: str = "en"
) -> spacy.language.Language:
    """Make a pipeline of a GLiNER checkpoint, with its weights."""
    nlp = spacy.blank(lang)
    config: dict[str, Any] = {"model": source, "labels": list(labels)}
    if relations:
        config["relations"] = list(relations)
    component: Any = nlp.add_pipe("gliner", config=config)
    assert component.gliner.is_built
    return nlp


def from_transformers(source: str, lang: str = "en") -> spacy.language.Language:
    """Make a pipeline of a token classification model, with its weights.

    A model without ``O`` has a label for each word, which goes to ``token.tag_``.
    """
    nlp = spacy.blank(lang)
    component: Any = nlp.add_pipe("token_classifier", config={"model": source})
    if component.network.decoder.scheme == "word":
        logger.info("%s has a label for each word: they are written to token.tag_", source)
        model = component.network
        nlp.remove_pipe("token_classifier")
        component = nlp.add_pipe("token_classifier", config={"model": source, "target": "tag_"})
        component.replace_model(model)
    return nlp


def to_transformers(
    source: str | spacy.language.Language,
    target: Path,
    component: str | None = None,
    *,
    drop_transitions: bool = False,
) -> Path:
    """Write the tagger of a pipeline as a folder that ``AutoModelForTokenClassification`` reads.

    Parameters
    ----------
    source
        A pipeline, its folder, or its name.
    target
        Folder. In one that holds pipelines, as the folder of a training, the files are put beside these.
    component
        Its name; needed only where a pipeline has several.
    drop_transitions
        Write a CRF without what it knows of sequences: entities may be others then. It is refused otherwise.

    Raises
    ------
    ConfigError
        Where transformers has no such layer; nothing has been written then.
    """
    nlp = spacy.load(source) if isinstance(source, str) else source
    tagger: Any = component_of(nlp, TokenTagger, component)
    with tagger.placed():
        return write_model(tagger._ready(), Path(target), drop_transitions=drop_transitions)


def check_tagger_of(nlp: spacy.language.Language) -> None:
    """Refuse a pipeline whose tagger ``to_transformers`` could not write once it is trained.

    Raises
    ------
    ConfigError
        If there is no tagger, there are several, or transformers has no such blocks.
    """
    tagger: Any = component_of(nlp, TokenTagger, None)
    if isinstance(tagger.model, TokenClassifier):
        with tagger.placed():
            check_parts(tagger.model)


def to_gliner(source: str | spacy.language.Language, target: Path, component: str | None = None) -> Path:
    """Write the component of a pipeline as a GLiNER checkpoint.

    Parameters
    ----------
    source
        A pipeline, its folder, or its name.
    target
        Folder.
    component
        Its name; needed only where a pipeline has several.
    """
    nlp = spacy.load(source) if isinstance(source, str) else source
    pipe: Any = component_of(nlp, Gliner, component)
    words = "whitespace" if isinstance(pipe.word_splitter, WhitespaceWords) else "spacy"
    if words == "spacy" and nlp.lang != "en":
        logger.warning(
            "GLiNER's own spaCy words are English; this pipeline is %r: words may differ.", nlp.lang
        )
    return write_checkpoint(pipe.gliner, target, words)


def component_of(nlp: spacy.language.Language, kind: Any, component: str | None) -> Any:
    """Return the component of a class that is named, or the only one."""
    found = {name: pipe for name, pipe in nlp.pipeline if isinstance(pipe, kind)}
    if component is None and len(found) == 1:
        component = next(iter(found))
    if component not in found:
        named = (
            f"found {component!r}" if component else f"the pipeline has {len(found)} components of this kind"
        )
        none = f"no component: the pipeline has no {kind.factory}"
        raise ConfigError("component", named, ", ".join(found) or none)
    return found[component]
