"""Converts between pipelines and checkpoints of GLiNER or Hugging Face token classification."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import spacy

from gliner_pipe.checkpoints import gliner2_write
from gliner_pipe.checkpoints.gliner_names import WORD_SPLITTERS
from gliner_pipe.checkpoints.gliner_write import write_checkpoint
from gliner_pipe.checkpoints.hf_write import check_model, check_parts, write_model
from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.token_classifier import TokenClassifier
from gliner_pipe.pipeline.build import blank
from gliner_pipe.pipeline.gliner.component import Gliner
from gliner_pipe.pipeline.load import load_saved
from gliner_pipe.pipeline.token_classifier.component import TokenTagger
from gliner_pipe.pipeline.word_splitters import Gliner2Words, SpacyWords
from gliner_pipe.registry import registry

logger = logging.getLogger("gliner_pipe.convert")


def from_gliner(
    source: str, labels: Sequence[Any] = (), relations: Sequence[Any] = (), lang: str = "en"
) -> spacy.language.Language:
    """Return a pipeline with the weights of a GLiNER checkpoint."""
    nlp = blank(lang)
    config: dict[str, Any] = {"model": source, "labels": list(labels)}
    if relations:
        config["relations"] = list(relations)
    component: Any = nlp.add_pipe("gliner", config=config)
    assert component.gliner.is_built
    return nlp


def from_transformers(source: str, lang: str = "en") -> spacy.language.Language:
    """Return a pipeline with the weights of a token classification model.

    A model without the tag ``O`` has a label for each word, which is written to ``token.tag_``.
    """
    nlp = blank(lang)
    component: Any = nlp.add_pipe("token_classifier", config={"model": source})
    if component.network.decoder.scheme == "word":
        logger.info("%s has a label for each word, written to token.tag_", source)
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
        Output folder. In a folder that holds pipelines, such as that of a training, the files are added to it.
    component
        Name of the component; required only if the pipeline has several taggers.
    drop_transitions
        Write a CRF without its transition scores, so entities may differ. A CRF is refused otherwise.

    Raises
    ------
    ConfigError
        If transformers has no equivalent layer; nothing is written then.
    """
    nlp = load_saved(source) if isinstance(source, str) else source
    tagger: Any = component_of(nlp, TokenTagger, component)
    with tagger.placed():
        return write_model(tagger._ready(), Path(target), drop_transitions=drop_transitions)


def check_tagger_of(nlp: spacy.language.Language) -> None:
    """Refuse a pipeline whose tagger ``to_transformers`` could not write after training.

    Raises
    ------
    ConfigError
        If the pipeline does not have exactly one tagger, or transformers has no equivalent layer.
    """
    tagger: Any = component_of(nlp, TokenTagger, None)
    if isinstance(tagger.model, TokenClassifier):
        with tagger.placed():
            (check_model if tagger.model.is_built else check_parts)(tagger.model)


def to_gliner(source: str | spacy.language.Language, target: Path, component: str | None = None) -> Path:
    """Write the component of a pipeline as a GLiNER checkpoint, or as one of GLiNER2 if it reads its prompts.

    Parameters
    ----------
    source
        A pipeline, its folder, or its name.
    target
        Output folder.
    component
        Name of the component; required only if the pipeline has several.

    Raises
    ------
    ConfigError
        If GLiNER lacks a block or the word splitter; nothing is written then.
    """
    nlp = load_saved(source) if isinstance(source, str) else source
    pipe: Any = component_of(nlp, Gliner, component)
    if gliner2_write.is_gliner2(pipe.gliner):
        if not isinstance(pipe.word_splitter, Gliner2Words):
            raise ConfigError(
                f"components.{pipe.name}.word_splitter",
                f"found {_splitter_name(pipe)}, which GLiNER2 does not have",
                "gliner2",
                'Train with word_splitter = {"@word_splitters": "gliner2"}',
            )
        with pipe.placed():
            return gliner2_write.write_checkpoint(pipe.gliner, target)
    return write_checkpoint(pipe.gliner, target, gliner_words(nlp, pipe))


def _splitter_name(pipe: Any) -> str:
    """Return the registered name of the word splitter of a component, or that of its class."""
    kind = type(pipe.word_splitter)
    names = [name for name, made in registry.word_splitters.get_all().items() if made is kind]
    return names[0] if names else kind.__name__


def gliner_words(nlp: spacy.language.Language, pipe: Any) -> str:
    """Return GLiNER's name of the word splitter of a component.

    Raises
    ------
    ConfigError
        If GLiNER does not have it.
    """
    words, splitter = _splitter_name(pipe), pipe.word_splitter
    if words not in WORD_SPLITTERS:
        raise ConfigError(
            f"components.{pipe.name}.word_splitter",
            f"found {words}, which GLiNER does not have",
            ", ".join(WORD_SPLITTERS),
            "Keep the pipeline in spaCy's format, which supports all blocks",
        )
    language = splitter.language or nlp.lang if isinstance(splitter, SpacyWords) else "en"
    if language != "en":
        logger.warning(
            "GLiNER splits words with English spaCy rules; the words of this pipeline are those of the language %r, so "
            "they may differ.",
            language,
        )
    return words


def component_of(nlp: spacy.language.Language, kind: Any, component: str | None) -> Any:
    """Return the component of a class with this name, or the only one."""
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
