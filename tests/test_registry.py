"""Registries: what is in them, who owns the names, and one block by every route."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import catalogue
import pytest
import spacy
from confit import Config
from conftest import built_in, gliner_config

from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.encoders.uni_encoder import UniEncoder
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.losses.focal import FocalLoss
from gliner_pipe.modeling.span_reps.marker import MarkerV0
from gliner_pipe.pipeline.build import make_pipeline
from gliner_pipe.registry import BLOCK_FAMILIES, registry

#: Names of released versions. A name that is no longer there breaks configurations of users.
BUILT_IN = json.loads(Path(__file__).with_name("registry_contents.json").read_text(encoding="utf8"))
ROOT = Path(__file__).parent.parent
FAMILIES = [name for name, view in vars(registry).items() if hasattr(view, "namespace")]


def test_every_family_is_in_the_snapshot() -> None:
    assert sorted(BUILT_IN) == sorted(set(FAMILIES) - {"factory"})


@pytest.mark.parametrize("family", sorted(BUILT_IN))
def test_no_name_is_lost(family: str) -> None:
    assert set(BUILT_IN[family]) <= set(built_in(family))


@pytest.mark.parametrize("family", sorted(set(BUILT_IN) - {"core", "metrics"}))
def test_every_name_is_documented(family: str) -> None:
    """By its docstring, which its page in the reference shows, and that page is in the navigation."""
    page = runpy.run_path(str(ROOT / "scripts" / "api_pages.py"))["family_page"](family)
    for name in built_in(family):
        assert f"'@{family} = \"{name}\"'" in page
        assert len((getattr(registry, family).get(name).__doc__ or "").strip()) > 20, name
    assert f" api/{family}.md\n" in (ROOT / "mkdocs.yml").read_text("utf8")


def test_components_are_found_by_factory() -> None:
    assert {"gliner", "ner", "sentencizer"} <= set(registry.factory.get_available())
    assert registry.factory.get("gliner")(threshold=0.3) == {"factory": "gliner", "threshold": 0.3}
    with pytest.raises(catalogue.RegistryError, match=r"Can't find 'glner'.*gliner"):
        registry.factory.get("glner")


@pytest.mark.parametrize("family", BLOCK_FAMILIES)
def test_published_on_spacy(family: str) -> None:
    assert getattr(spacy.registry, family) is getattr(registry, family)
    assert family in spacy.registry.get_registry_names()
    for name in BUILT_IN[family]:
        assert spacy.registry.has(family, name)
        assert spacy.registry.find(family, name)["module"].startswith("gliner_pipe.")


FRESH = """
import spacy
names = spacy.registry.get_registry_names()
before = {name: getattr(spacy.registry, name) for name in names}
from confit import Config
from gliner_pipe.registry import registry
text = '''
[a]
@encoders = "uni_encoder"
[a.backbone]
@backbones = "transformer"
[b]
@schedules = "linear"
[c]
@metrics = "gliner_pipe.ner_exact"
[d]
@readers = "jsonl"
path = "x.jsonl"
'''
print([type(x).__name__ for x in Config.from_str(text).resolve(registry=registry).values()])
import gliner_pipe.pipeline.gliner.component
assert {name: getattr(spacy.registry, name) for name in names} == before, "shadowed"
print(sorted(set(spacy.registry.get_registry_names()) - set(names)))
"""


def test_a_fresh_process_knows_all_blocks_and_shadows_no_names_of_spacy_and_thinc() -> None:
    blocks, names = python(FRESH).splitlines()
    assert blocks == "['UniEncoder', 'Schedule', 'ExactScorer', 'JsonlReader']"
    assert names == str(sorted(BLOCK_FAMILIES))


def test_entries_of_spacy_and_thinc_are_found_by_both() -> None:
    for family, name in [
        ("losses", "L2Distance.v1"),
        ("readers", "spacy.Corpus.v1"),
        ("scorers", "spacy.ner_scorer.v1"),
        ("architectures", "spacy.Tok2Vec.v2"),
    ]:
        assert getattr(registry, family).get(name) is spacy.registry.get(family, name)
    for family, name in [
        ("losses", "gliner_pipe.focal"),
        ("scorers", "gliner_pipe.ner_exact"),
        ("readers", "jsonl"),
    ]:
        assert getattr(registry, family).get(name) is spacy.registry.get(family, name)
    for family in ("schedules", "optimizers", "loggers"):
        assert getattr(spacy.registry, family).namespace != getattr(registry, family).namespace


def test_metrics_is_another_name_of_scorers() -> None:
    text = '[scorer]\n@{} = "gliner_pipe.ner_exact"\nspan_getter = "mine"\n'
    one, other = (
        Config.from_str(text.format(key)).resolve(registry=registry)["scorer"]
        for key in ("metrics", "scorers")
    )
    assert type(one) is type(other) and one.span_getter == other.span_getter == "mine"


CONFIG = """
[nlp]
lang = "en"
pipeline = ["gliner"]
components = ${components}

[components.gliner]
@factory = "gliner"
labels = ["person", {"label": "date: full", "description": "a day"}]

[components.gliner.model]
@architectures = "gliner_pipe.GLiNER.v1"
dropout = 0.25

[components.gliner.model.encoder]
@encoders = "uni_encoder"
rnn_layers = 2

[components.gliner.model.encoder.backbone]
@backbones = "transformer"
model = "somewhere"
window = 128
stride = 64

[components.gliner.model.span_rep]
@span_reps = "markerV0"
max_width = 7

[components.gliner.model.loss]
@losses = "gliner_pipe.focal"
gamma = 1.5
"""


def test_one_pipeline_by_every_route() -> None:
    """A config file, objects made in Python, and plain dicts."""
    read = Config.from_str(CONFIG).resolve(registry=registry)
    by_file = make_pipeline(**read["nlp"])
    objects = GLiNER(
        encoder=UniEncoder(backbone=Transformer(model="somewhere", window=128, stride=64), rnn_layers=2),
        span_rep=MarkerV0(max_width=7),
        loss=FocalLoss(gamma=1.5),
        dropout=0.25,
    )
    labels = ["person", {"label": "date: full", "description": "a day"}]
    by_object = spacy.blank("en")
    by_object.add_pipe("gliner", config=dict(Config.serialize({"model": objects, "labels": labels})))
    by_dict = spacy.blank("en")
    block: dict[str, Any] = {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "dropout": 0.25,
        "encoder": {
            "@encoders": "uni_encoder",
            "rnn_layers": 2,
            "backbone": {"@backbones": "transformer", "model": "somewhere", "window": 128, "stride": 64},
        },
        "span_rep": {"@span_reps": "markerV0", "max_width": 7},
        "loss": {"@losses": "gliner_pipe.focal", "gamma": 1.5},
    }
    by_dict.add_pipe("gliner", config={"labels": labels, "model": block})
    for nlp in (by_file, by_object, by_dict):
        assert nlp.config["components"] == by_dict.config["components"]
        model: Any = nlp.get_pipe("gliner").model  # type: ignore[attr-defined]
        backbone = model.encoder.backbone
        assert (model.dropout, model.encoder.rnn_layers, model.span_rep.max_width) == (0.25, 2, 7)
        assert (backbone.model_name, backbone.window, backbone.stride, model.loss.gamma) == (
            "somewhere",
            128,
            64,
            1.5,
        )
        assert nlp.get_pipe("gliner").label_data == labels  # type: ignore[attr-defined]


def test_one_name_is_not_given_twice() -> None:
    with pytest.raises(
        catalogue.RegistryError, match=r"@span_reps = 'markerV0' is taken by gliner_pipe.*MarkerV0"
    ):

        @registry.span_reps.register("markerV0")
        class Other(MarkerV0):
            pass

    assert registry.span_reps.get("markerV0") is MarkerV0
    assert registry.span_reps.register("markerV0", func=MarkerV0) is not None  # a module may be loaded again


PLUGIN = '''
from gliner_pipe.registry import registry
from gliner_pipe.modeling.span_reps.base import SpanRep
from torch import nn


@registry.span_reps.register("plain_sum")
class PlainSum(SpanRep):
    """Sum of first and last word."""

    def __init__(self, max_width: int = 3) -> None:
        super().__init__()
        self.max_width = max_width
        self.linear = None

    def build(self, hidden_size):
        self.linear = nn.Linear(hidden_size, hidden_size)

    def score(self, words, labels, word_mask):
        ends = nn.functional.pad(words, (0, 0, 0, self.max_width - 1)).unfold(1, self.max_width, 1)
        spans = self.linear(words[:, :, None] + ends.movedim(3, 2))
        return nn.functional.elu(spans) @ labels[:, None].transpose(2, 3)

    def represent(self, words, spans, word_mask):
        raise NotImplementedError
'''

USE = """
import sys
import spacy
config, target = __import__("json").loads(sys.argv[1]), sys.argv[2]
nlp = spacy.blank("en")
nlp.add_pipe("gliner", config=config)
assert "plugin_of_tests" in sys.modules
nlp.initialize()
docs = [nlp.make_doc("Ada met Charles in London .")]
found = nlp.get_pipe("gliner").predict(docs)
assert found[0].entities and max(e.end - e.start for e in found[0].entities) == 1, found
nlp.to_disk(target)
assert spacy.load(target).get_pipe("gliner").predict(docs) == found
from gliner_pipe.registry import registry
assert {"plain_sum", "markerV0"} <= set(registry.span_reps.get_all())
try:
    spacy.registry.get("span_reps", "nope")
except Exception as error:
    assert "mlp, plain_sum, query" in str(error), error
print("fine")
"""


def test_a_block_of_another_package(backbone: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "plugin_of_tests-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "plugin_of_tests.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-tests\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gliner_pipe_span_reps]\nplain_sum = plugin_of_tests:PlainSum\n")
    config = gliner_config(backbone, threshold=0.0)
    config["model"]["span_rep"] = {"@span_reps": "plain_sum", "max_width": 2}
    config |= {"flat_ner": False}
    output = python(USE, json.dumps(config), str(tmp_path / "model"), path=site)
    assert output.strip().endswith("fine")


def python(code: str, *arguments: str, path: Path | None = None) -> str:
    """Run code in a fresh process in which every warning is an error."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(path or "")}
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
