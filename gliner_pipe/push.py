"""``python -m gliner_pipe.push artifacts/model-best user/name``: a pipeline on a model hub."""

# no postponed annotations here: confit's --help shows the types of a signature
import itertools
import logging
import sys
from collections.abc import Sequence

from confit import Cli

from gliner_pipe.cli.app import run
from gliner_pipe.cli.options import literal
from gliner_pipe.hub.push import push_to_hub
from gliner_pipe.registry import registry

logger = logging.getLogger("gliner_pipe.push")
app = Cli(pretty_exceptions_enable=False)

#: Options whose values are text whatever they look like.
LITERALS = ("source", "repo", "message", "revision", "path_in_repo")


@app.command(name="push", registry=registry)
def push(
    source: str,
    repo: str,
    private: bool = True,
    message: str = "A spaCy pipeline",
    revision: str | None = None,
    path_in_repo: str | None = None,
) -> str:
    """Put a pipeline on a model hub, with a model card.

    The login is the hub's own: HF_TOKEN, or ``hf auth login``. Whoever may see the repository loads the
    pipeline with ``gliner_pipe.load("user/name")``.

    Parameters
    ----------
    source : str
        Folder of the pipeline, or name of an installed one.
    repo : str
        Repository, ``user/name``; made if it is not there.
    private : bool
        Whether a new repository is seen by its owners alone.
    message : str
        Of the commit.
    revision : str, optional
        Branch; made if it is not there.
    path_in_repo : str, optional
        Folder of the repository; its top by default.

    Returns
    -------
    str
        Address of the commit.

    Raises
    ------
    ConfigError
        If there is no pipeline or no login, or the hub refuses.
    """
    url = push_to_hub(
        source, repo, private=private, message=message, revision=revision, path_in_repo=path_in_repo
    )
    logger.info("%s", url)
    return url


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; source and repository may stand without ``--source`` and ``--repo``."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO)
    arguments = _named(sys.argv[1:] if argv is None else argv)
    run(lambda: app(literal(arguments, LITERALS)), arguments)


def _named(argv: Sequence[str]) -> list[str]:
    """Put the names of source and repository before their values, where these come first."""
    values = list(itertools.takewhile(lambda value: not value.startswith("-"), argv))[:2]
    pairs = zip(("--source", "--repo"), values, strict=False)
    return [part for pair in pairs for part in pair] + list(argv[len(values) :])


if __name__ == "__main__":
    main()
