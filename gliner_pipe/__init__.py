"""Named entity recognition composed from registered blocks, as one spaCy component."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("gliner_pipe")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__"]
