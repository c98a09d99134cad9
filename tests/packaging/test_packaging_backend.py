from __future__ import annotations

from pathlib import Path

import pytest

from gliner_pipe.packaging.build import BuildError, build_distributions, check_backend


def test_the_build_backend_is_installed() -> None:
    check_backend(isolation=False)
    check_backend(isolation=True)


def test_the_error_contains_the_output_of_the_backend(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "hatchling.build"\n[project]\nname = "m"\n',
        encoding="utf8",
    )
    with pytest.raises(BuildError, match=r"Field `project.version`"):
        build_distributions(tmp_path, tmp_path / "dist", ["wheel"], {}, isolation=False)
