"""Builds a spaCy pipeline from an [nlp] section, a path, a hub id or a pipeline."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import spacy
from confit import Config
from confit.errors import ConfitValidationError
from confit.typing import Validatable
from spacy.language import Language

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.config_errors import MIGRATION, did_you_mean, find_mistake, flat
from gliner_pipe.registry import registry
from gliner_pipe.util.consent import trusting
from gliner_pipe.util.console import console_note
from gliner_pipe.util.listing import advice_on
from gliner_pipe.util.ranges import Count


@registry.core.register("pipeline")
def make_pipeline(
    lang: str = "en",
    pipeline: list[str] | None = None,
    components: dict[str, Any] = {},  # noqa: B006 (confit reads the default; nothing mutates it)
    batch_size: Count = 64,
    tokenizer: dict[str, Any] | None = None,
) -> Any:
    """Build a spaCy pipeline from the ``[nlp]`` section of a config.

    Parameters
    ----------
    lang
        Language code of the tokenizer, as for ``spacy.blank``.
    pipeline
        Names of the components in order; all of `components` when not given.
    components
        One mapping per component, with its ``@factory`` and settings.
    batch_size
        Documents that ``nlp.pipe`` passes to a component at once.
    tokenizer
        A ``[nlp.tokenizer]`` section of spaCy's, e.g. ``{"@tokenizers": "spacy.Tokenizer.v1"}``.

    Returns
    -------
    Language
        The pipeline, not yet initialized: no weights are loaded here.
    """
    config: dict[str, Any] = {"nlp": {"tokenizer": tokenizer}} if tokenizer else {}
    nlp = blank(lang, "nlp.lang", config)
    nlp.batch_size = batch_size
    names = list(components) if pipeline is None else pipeline
    _check_components(components, names)
    for name in names:
        if name not in components:
            raise ConfigError(
                "nlp.pipeline",
                f"names a component {name!r} that has no section",
                ", ".join(map(repr, components)) or "nothing, as there is no [components.*] section",
                f"Add a section [components.{name}] or remove the name",
            )
        block = dict(Config.serialize(components[name]))
        factory = block.pop("factory", None) or block.pop("@factory", None)
        if factory is None:
            raise ConfigError(f"components.{name}", "has no factory", '@factory = "gliner"', "Add that line")
        try:
            nlp.add_pipe(factory, name=name, config=block)
        except ValueError as error:  # of all libraries that read the section
            mistake = find_mistake({**block, "factory": factory}, f"components.{name}")
            if mistake is None:
                raise
            raise mistake from error
    left_out = [name for name in components if name not in names]
    if left_out and os.environ.get("RANK", "0") == "0":
        console_note(f"note: not in nlp.pipeline, and not built: {', '.join(left_out)}")
    return nlp


def _check_components(components: Mapping[str, Any], pipeline: Sequence[str]) -> None:
    """Check that each is a section; one outside the pipeline and without a factory has a mistyped name."""
    for name, block in components.items():
        if not isinstance(block, Mapping):
            raise ConfigError(f"components.{name}", f"is {block!r}", 'a section with a @factory, as "gliner"')
        if name not in pipeline and not {"factory", "@factory"} & {*block}:
            raise ConfigError(
                f"components.{name}",
                "is not in the pipeline, and has no factory",
                ", ".join(pipeline),
                did_you_mean(name, pipeline),
            )


class PipelineArg(Validatable):  # type: ignore[misc]
    """Annotation of an argument that accepts a pipeline, a path, package name or hub id, or an ``[nlp]`` section."""

    @classmethod
    def validate(cls, value: Any, config: Any = None) -> Language:
        """Return the pipeline that `value` denotes."""
        if isinstance(value, Language):
            return value
        if isinstance(value, (str, Path)):
            from gliner_pipe.pipeline.load import load

            return load(value)
        if isinstance(value, Mapping):
            return _from_section(value)
        raise TypeError(
            f"found {type(value).__name__}; allowed: a pipeline, its path, name or hub id, or an [nlp] section"
        )


def pipeline_of(value: Any, trust_remote_code: bool = False, where: str = "pipeline") -> Language:
    """Return the pipeline that the argument of a command denotes.

    Parameters
    ----------
    value
        A pipeline, a path, package name or hub id, or an ``[nlp]`` section.
    trust_remote_code
        Consent to run Python code that comes with it.
    where
        The argument, for errors.

    Raises
    ------
    ConfigError
        If `value` has another type, or there is no such pipeline.
    """
    with trusting(trust_remote_code):
        try:
            return PipelineArg.validate(value)
        except OSError:
            path = Path(value) if isinstance(value, (str, Path)) else None
            if path is None or (path / "meta.json").is_file():
                raise
            what = "a file" if path.is_file() else "a folder without meta.json" if path.is_dir() else ""
            raise ConfigError(
                where,
                f"found {str(value)!r}, {what or 'which is no folder and no installed package'}",
                "the folder, package or hub id of a pipeline",
                "" if what else advice_on(path),
            ) from None
        except TypeError as error:
            if isinstance(value, (Language, str, Path, Mapping)):
                raise
            raise ConfigError(where, str(error)) from None


def _from_section(section: Mapping[str, Any]) -> Any:
    try:
        return make_pipeline(**section)
    except ConfitValidationError as error:
        settings = ", ".join(inspect.signature(make_pipeline).parameters)
        item = error.errors()[0]
        found, where = flat(item["msg"]), ".".join(map(str, ("nlp", *item["loc"])))
        raise ConfigError(
            where, found, f"the settings {settings}" if found.startswith("unexpected") else ""
        ) from None


def blank(lang: str, where: str = "lang", config: dict[str, Any] | None = None) -> Language:
    """Return an empty pipeline of a language.

    Parameters
    ----------
    lang
        Code of the language.
    where
        The option that gives it, for the message.
    config
        Sections of a config, as for ``spacy.blank``.

    Raises
    ------
    ConfigError
        If spaCy has no such language.
    """
    try:
        return spacy.blank(lang, config=config or {})
    except ImportError as error:
        if lang == "eds":
            do = f"See {MIGRATION}"
            raise ConfigError(where, "found 'eds', a name of EDS-NLP", 'lang = "fr"', do) from None
        found = f"found {lang!r} ({flat(str(error))})"
        raise ConfigError(where, found, "a language code of spaCy, as en") from None
