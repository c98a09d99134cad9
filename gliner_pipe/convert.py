"""Between GLiNER checkpoints and spaCy pipelines, and from configurations of other systems to those of this package:
``python -m gliner_pipe.convert --help``.
"""

# no postponed annotations here: confit's --help shows the types of a signature
import itertools
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import spacy
from confit import Cli

from gliner_pipe.arguments import literal, split_labels
from gliner_pipe.cli import run
from gliner_pipe.errors import ConfigError
from gliner_pipe.migration.command import convert_file
from gliner_pipe.migration.yaml_files import SUFFIXES
from gliner_pipe.registry import registry
from gliner_pipe.saving import save_pipeline
from gliner_pipe.word_splitters.whitespace import WhitespaceWords

logger = logging.getLogger("gliner_pipe.convert")
app = Cli(pretty_exceptions_enable=False)

#: Options whose values are text whatever they look like.
LITERALS = ("source", "target", "labels", "relations", "lang", "component", "to")

_ALLOWED = (
    "a GLiNER checkpoint (folder, installed package or hub id), or the folder or name of a spaCy pipeline"
)


@app.command(name="convert", registry=registry)
def convert(
    source: str,
    target: Path,
    to: Literal["spacy", "gliner", "cfg"] | None = None,
    labels: Any = None,
    relations: Any = None,
    lang: str = "en",
    component: str | None = None,
) -> Path:
    """Turn a GLiNER checkpoint into a spaCy pipeline, or the other way round; or a YAML file of GLiNER or AutoTrain
    into a cfg file.

    Parameters
    ----------
    source : str
        A GLiNER checkpoint (folder, installed package or hub id), the folder or name of a spaCy pipeline, or the
        configuration of a training: a file that ends in .yaml, .yml or .json.
    target : Path
        Folder, or .cfg file, that is written, all at once.
    to : str, optional
        ``spacy``, ``gliner`` or ``cfg``; by default what `source` is not.
    labels : list of str or str, optional
        Labels of the new pipeline: a list, or names with commas between. They can be changed at any time.
    relations : list of str or str, optional
        Relation labels of the new pipeline.
    lang : str
        Language of the new pipeline, whose tokenizer it takes.
    component : str, optional
        Name of the component to take from a spaCy pipeline that has several.

    Returns
    -------
    Path
        The folder or file.

    Raises
    ------
    ConfigError
        If `source` is neither, a GLiNER checkpoint cannot hold its blocks, or a configuration holds a mistake; nothing
        has been written then.
    """
    logger.info("%s -> %s", source, target)
    is_config = Path(source).suffix.lower() in SUFFIXES and not Path(source).is_dir()
    if to == "cfg" and not is_config:
        raise ConfigError("source", f"is {source!r}", f"a file that ends in {', '.join(SUFFIXES)}")
    if is_config:
        if to not in (None, "cfg"):
            raise ConfigError("to", f"is {to!r}, and the source a configuration", "cfg")
        for note in convert_file(source, target).notes:
            logger.info("note: %s", note)
        return target
    to = to or ("gliner" if _is_pipeline(source) else "spacy")
    if to == "gliner":
        return to_gliner(source, target, component)
    nlp = from_gliner(source, split_labels(labels) or [], split_labels(relations, "relations") or [], lang)
    return save_pipeline(nlp, target)


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
    from gliner_pipe.checkpoints.export import write_checkpoint
    from gliner_pipe.component import Gliner

    nlp = spacy.load(source) if isinstance(source, str) else source
    found = {name: pipe for name, pipe in nlp.pipeline if isinstance(pipe, Gliner)}
    if component is None and len(found) == 1:
        component = next(iter(found))
    if component not in found:
        named = (
            f"found {component!r}" if component else f"the pipeline has {len(found)} components of this kind"
        )
        raise ConfigError("component", named, ", ".join(found) or "no component: the pipeline has no gliner")
    pipe = found[component]
    words = "whitespace" if isinstance(pipe.word_splitter, WhitespaceWords) else "spacy"
    if words == "spacy" and nlp.lang != "en":
        logger.warning(
            "GLiNER's own spaCy words are English; this pipeline is %r: words may differ.", nlp.lang
        )
    return write_checkpoint(pipe.gliner, target, words)


def _is_pipeline(source: str) -> bool:
    folder = Path(source)
    if folder.is_dir():
        if (folder / "meta.json").is_file() or (folder / "gliner_config.json").is_file():
            return (folder / "meta.json").is_file()
        raise ConfigError("source", f"{source!r} holds neither meta.json nor gliner_config.json", _ALLOWED)
    return bool(spacy.util.is_package(source))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; source and target may stand without ``--source`` and ``--target``."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    arguments = _named(sys.argv[1:] if argv is None else argv)
    run(lambda: app(literal(arguments, LITERALS)), arguments)


def _named(argv: Sequence[str]) -> list[str]:
    """Put the names of source and target before their values, where these come first."""
    values = list(itertools.takewhile(lambda value: not value.startswith("-"), argv))
    named = [
        part
        for option, value in zip(("--source", "--target"), values, strict=False)
        for part in (option, value)
    ]
    return named + list(argv[min(len(values), 2) :])


if __name__ == "__main__":
    main()
