"""Convert checkpoints to spaCy pipelines and back, and configs of other systems to cfg files:
``python -m gliner_pipe.convert --help``.
"""

if __name__ == "__main__":  # before the imports below, which --help does not need
    from gliner_pipe.cli.commands import start

    start("convert")

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import spacy

from gliner_pipe.cli.application import Cli
from gliner_pipe.cli.options import command_line
from gliner_pipe.errors import ConfigError
from gliner_pipe.migration.command import convert_file
from gliner_pipe.migration.yaml_files import SUFFIXES
from gliner_pipe.pipeline.convert import from_gliner, from_transformers, to_gliner, to_transformers
from gliner_pipe.pipeline.labels import split_labels
from gliner_pipe.pipeline.load import load_saved
from gliner_pipe.registry import registry
from gliner_pipe.util.atomic import check_writable, save_pipeline
from gliner_pipe.util.consent import trusting
from gliner_pipe.util.console import says_what_is_unwritten

logger = logging.getLogger("gliner_pipe.convert")
app = Cli()

_ALLOWED = (
    "a GLiNER checkpoint or a token classification model of transformers (folder, installed package or hub id), or the "
    "folder or name of a spaCy pipeline"
)


@app.command(name="convert", registry=registry)
@says_what_is_unwritten("target")
def convert(
    source: str,
    target: Path,
    to: Literal["spacy", "gliner", "transformers", "cfg"] | None = None,
    labels: str | list[Any] | None = None,
    relations: str | list[Any] | None = None,
    lang: str = "en",
    component: str | None = None,
    drop_transitions: bool = False,
    trust_remote_code: bool = False,
) -> Path:
    """Convert a GLiNER checkpoint or a token classification model of transformers to a spaCy pipeline, or a pipeline
    to one of them; or convert a YAML file of GLiNER or AutoTrain to a cfg file.

    Parameters
    ----------
    source : str
        A GLiNER checkpoint or a token classification model (folder, installed package or hub id), the folder or name of
        a spaCy pipeline, or the configuration of a training: a file that ends in .yaml, .yml or .json.
    target : Path
        Output folder, or .cfg file. It is written atomically.
    to : str, optional
        ``spacy``, ``gliner``, ``transformers`` or ``cfg``; by default the opposite of `source`.
    labels : list of str or str, optional
        Labels of the new pipeline: a list, or names separated by commas. They can be changed at any time.
    relations : list of str or str, optional
        Relation labels of the new pipeline.
    lang : str
        Language of the new pipeline; it determines the tokenizer.
    component : str, optional
        Name of the component to convert, if the pipeline has several.
    drop_transitions : bool
        Export a CRF tagger to transformers without its transitions. Its entities may differ then.
    trust_remote_code : bool
        Consent to run Python code that comes with the source. Read that code first.

    Returns
    -------
    Path
        The folder or file.

    Raises
    ------
    ConfigError
        If `source` is none of these, a GLiNER checkpoint has no such blocks, or a config has an error. Nothing is
        written then.
    """
    logger.info("%s -> %s", source, target)
    check_writable(target)
    is_config = Path(source).suffix.lower() in SUFFIXES and not Path(source).is_dir()
    if to == "cfg" and not is_config:
        raise ConfigError("source", f"is {source!r}", f"a file that ends in {', '.join(SUFFIXES)}")
    if is_config:
        if to not in (None, "cfg"):
            raise ConfigError("to", f"is {to!r}, and the source a configuration", "cfg")
        for note in convert_file(source, target).notes:
            logger.info("note: %s", note)
        return target
    if to in ("gliner", "transformers") or (to is None and _is_pipeline(source)):
        with trusting(trust_remote_code):
            nlp = load_saved(source)
            if (to or _kind_of(nlp, component)) == "transformers":
                return to_transformers(nlp, target, component, drop_transitions=drop_transitions)
            return to_gliner(nlp, target, component)
    if _is_token_classifier(source):
        for option, value in (("labels", labels), ("relations", relations)):
            if value is not None:
                raise ConfigError(option, f"is {value!r}, and the source has a closed label set", "nothing")
        with trusting(trust_remote_code):
            return save_pipeline(from_transformers(source, lang), target)
    with trusting(trust_remote_code):
        nlp = from_gliner(
            source, split_labels(labels) or [], split_labels(relations, "relations") or [], lang
        )
    return save_pipeline(nlp, target)


def _kind_of(nlp: spacy.language.Language, component: str | None) -> str:
    """Return the target format of a pipeline: that of its named component, else of its first."""
    from gliner_pipe.pipeline.gliner.component import Gliner
    from gliner_pipe.pipeline.token_classifier.component import TokenTagger

    kinds = {
        name: "gliner" if isinstance(pipe, Gliner) else "transformers"
        for name, pipe in nlp.pipeline
        if isinstance(pipe, (Gliner, TokenTagger))
    }
    if len(set(kinds.values())) > 1 and component is None:
        raise ConfigError(
            "to", "is not given, and the pipeline has components of both kinds", "gliner, transformers"
        )
    return kinds.get(component or "") or next(iter(kinds.values()), "gliner")


def _is_pipeline(source: str) -> bool:
    from gliner_pipe.checkpoints.gliner_read import config_file
    from gliner_pipe.checkpoints.hf_read import is_model

    folder = Path(source)
    if folder.is_dir():
        pipeline = (folder / "meta.json").is_file()
        if pipeline or config_file(folder) is not None or is_model(folder):
            return pipeline
        found = f"{source!r} holds neither meta.json nor gliner_config.json, nor the config.json of a token classifier"
        raise ConfigError("source", found, _ALLOWED)
    return bool(spacy.util.is_package(source))


def _is_token_classifier(source: str) -> bool:
    """Return whether a folder, package or hub id holds a token classification model and no GLiNER checkpoint."""
    from gliner_pipe.checkpoints.hf_read import CONFIG, is_model
    from gliner_pipe.modeling.backbones.hf import locate

    folder = locate(source)
    if folder is not None or source.count("/") != 1:
        return folder is not None and is_model(folder)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for name in ("gliner_config.json", CONFIG):
        try:
            file = Path(hf_hub_download(source, name))
        except EntryNotFoundError:  # not there; or not in the cache, offline
            continue
        except Exception:  # reading the model reports the reason
            return False
        return name == CONFIG and is_model(file.parent)
    return False


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; source and target may be positional."""
    command_line("convert", app, convert, argv, logs=True)
