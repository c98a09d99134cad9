"""Push a pipeline to a model hub: ``python -m gliner_pipe.push artifacts/model-best user/name``."""

if __name__ == "__main__":  # before the imports below, which --help does not need
    from gliner_pipe.cli.commands import start

    start("push")

import logging
from collections.abc import Sequence

from gliner_pipe.cli.application import Cli
from gliner_pipe.cli.options import command_line
from gliner_pipe.hub.push import push_to_hub
from gliner_pipe.registry import registry

logger = logging.getLogger("gliner_pipe.push")
app = Cli()


@app.command(name="push", registry=registry)
def push(
    source: str,
    repo: str,
    private: bool = True,
    message: str = "A spaCy pipeline",
    revision: str | None = None,
    path_in_repo: str | None = None,
) -> str:
    """Push a pipeline to a model hub, with a model card.

    The login is HF_TOKEN, or that of ``hf auth login``. Load the pipeline with ``gliner_pipe.load("user/name")``.

    Parameters
    ----------
    source : str
        Folder of the pipeline, or name of an installed one.
    repo : str
        Repository, ``user/name``; created if it does not exist.
    private : bool
        Whether a new repository is private.
    message : str
        Commit message.
    revision : str, optional
        Branch; created if it does not exist.
    path_in_repo : str, optional
        Folder in the repository; by default the top.

    Returns
    -------
    str
        URL of the commit.

    Raises
    ------
    ConfigError
        If there is no pipeline or no login, or the hub refuses the push.
    """
    url = push_to_hub(
        source, repo, private=private, message=message, revision=revision, path_in_repo=path_in_repo
    )
    logger.info("%s", url)
    return url


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; source and repository may be positional."""
    command_line("push", app, push, argv, logs=True)
