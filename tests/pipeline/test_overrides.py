from __future__ import annotations

from typing import Any

import pytest
import spacy

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.overrides import override


def test_settings_come_back(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    component.labels = ["person", {"label": "city", "description": "a town", "threshold": 0.9}]
    before = (component.label_data, component.threshold, dict(component.cfg))
    with override(nlp, labels=["city", "river"], threshold=0.25, device="cpu"):
        assert component.label_data == [{"label": "city", "description": "a town", "threshold": 0.9}, "river"]
        assert component.threshold == 0.25
        assert component.device.type == "cpu"
    assert (component.label_data, component.threshold, dict(component.cfg)) == before


def test_settings_come_back_after_an_error(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    with pytest.raises(ZeroDivisionError), override(nlp, labels=["river"], threshold=0.25):
        raise ZeroDivisionError
    assert (component.labels, component.threshold) == (("person", "city"), 0.5)


def test_a_description_replaces_that_of_the_component(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    component.labels = [{"label": "city", "description": "a town"}]
    with override(nlp, labels=[{"label": "city", "description": "a big town"}]):
        assert component.label_data == [{"label": "city", "description": "a big town"}]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.5}, "from 0 to 1"),
        ({"device": "toaster"}, "'toaster', which cannot be used"),
        ({"labels": [3]}, r"labels\[0\]"),
    ],
)
def test_wrong_values(nlp: Any, settings: dict[str, Any], message: str) -> None:
    component = nlp.get_pipe("gliner")
    before = (component.label_data, dict(component.cfg))
    with pytest.raises(ConfigError, match=message), override(nlp, **settings):
        pass
    assert (component.label_data, dict(component.cfg)) == before


@pytest.mark.parametrize("settings", [{"labels": ["a"]}, {"threshold": 0.5}, {"device": "cpu"}])
def test_other_pipelines_are_refused(settings: dict[str, Any]) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler")
    with (
        pytest.raises(ConfigError, match=r"has no gliner component.*entity_ruler"),
        override(nlp, **settings),
    ):
        pass


def test_two_components_are_ambiguous(nlp: Any) -> None:
    nlp.add_pipe("gliner", name="second")
    with pytest.raises(ConfigError, match="2 gliner components"), override(nlp, threshold=0.5):
        pass
    with override(nlp):
        pass


def test_precision_comes_back(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    component.quantize = "int8"
    with override(nlp, dtype="bf16", quantize="none", compile=False):
        assert (component.dtype, component.quantize, component.compile) == ("bf16", None, False)
    assert (component.dtype, component.quantize, component.compile) == (None, "int8", False)
    with pytest.raises(ConfigError, match="fp32, bf16, fp16"), override(nlp, dtype="half"):
        pass
    assert component.dtype is None
