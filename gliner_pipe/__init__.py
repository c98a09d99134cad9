"""Named entity recognition composed from registered blocks, as one spaCy component."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gliner_pipe.hub import from_hub, load, push_to_hub

try:
    __version__ = version("gliner_pipe")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__", "from_hub", "load", "push_to_hub"]


def __getattr__(name: str) -> Any:
    """Import what loads and pushes pipelines when it is asked for: spaCy imports this package at each start."""
    if name in ("from_hub", "load", "push_to_hub"):
        from gliner_pipe import hub

        return getattr(hub, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
