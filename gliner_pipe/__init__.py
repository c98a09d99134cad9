"""Named entity recognition composed from registered blocks, as one spaCy component."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gliner_pipe.hub import from_hub, load, push_to_hub
    from gliner_pipe.prediction.rendering import displacy_options
    from gliner_pipe.prediction.view import View

try:
    __version__ = version("gliner_pipe")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["View", "__version__", "displacy_options", "from_hub", "load", "push_to_hub"]

_MODULES = {
    **dict.fromkeys(("from_hub", "load", "push_to_hub"), "gliner_pipe.hub"),
    "displacy_options": "gliner_pipe.prediction.rendering",
    "View": "gliner_pipe.prediction.view",
}


def __getattr__(name: str) -> Any:
    """Import what loads, pushes and shows pipelines when it is asked for: spaCy imports this package at each start."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
