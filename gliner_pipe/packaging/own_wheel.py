"""The wheel of gliner_pipe itself, for machines whose package index does not have it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackagePath, distribution
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from packaging.requirements import Requirement

from gliner_pipe.packaging.build import build_distributions

NAME = "gliner_pipe"
#: Files that an installation adds to those of a wheel.
_OF_INSTALLATION = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")


def needs_own_wheel(requirements: Sequence[str]) -> bool:
    """Return whether requirements name gliner_pipe."""
    return any(Requirement(item).name.replace("-", "_") == NAME for item in requirements)


def build_own_wheel(folder: Path, isolation: bool) -> Path:
    """Write the wheel of the running gliner_pipe into a folder, and return its path.

    It is built from the source tree, or put together from the files of the installation if there is none.

    Raises
    ------
    BuildError
        If the build backend fails.
    """
    root = Path(__file__).parents[2]
    project = root / "pyproject.toml"
    if project.is_file() and f'name = "{NAME}"' in project.read_text(encoding="utf8"):
        return build_distributions(root, folder, ["wheel"], {}, isolation)[0]
    return pack_installed(folder)


def pack_installed(folder: Path) -> Path:
    """Write the wheel of the installed gliner_pipe, from the files that its ``RECORD`` lists."""
    installed = distribution(NAME)
    info = f"{NAME}-{installed.version}.dist-info"
    wheel = folder / f"{NAME}-{installed.version}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    record = []
    with ZipFile(wheel, "w", ZIP_DEFLATED) as archive:
        for file in sorted(file for file in installed.files or () if _is_content(file, info)):
            archive.write(str(file.locate()), file.as_posix())
            digest = f"{file.hash.mode}={file.hash.value}" if file.hash else ""
            record.append(f"{file.as_posix()},{digest},{'' if file.size is None else file.size}")
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]))
    return wheel


def _is_content(file: PackagePath, info: str) -> bool:
    if file.parts[0] == info:
        return file.name not in _OF_INSTALLATION
    return file.parts[0] == NAME and file.suffix != ".pyc"
