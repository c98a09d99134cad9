"""``component.cfg``: an unknown name and a value that is not allowed are refused, and change nothing."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from gliner_pipe.errors import ConfigError


@pytest.fixture
def component(nlp: Any) -> Any:
    return nlp.get_pipe("gliner")


@pytest.mark.parametrize(
    "change",
    [
        lambda cfg: cfg.__setitem__("flatner", False),
        lambda cfg: cfg.update(flatner=False),
        lambda cfg: cfg.setdefault("flatner", False),
        lambda cfg: cfg.__ior__({"threshold": 0.9, "flatner": False}),
    ],
)
def test_an_unknown_setting_is_refused(component: Any, change: Any) -> None:
    before = dict(component.cfg)
    with pytest.raises(ConfigError) as error:
        change(component.cfg)
    assert error.value.where == "components.gliner.flatner" and "flat_ner" in error.value.do
    assert dict(component.cfg) == before


def test_a_wrong_value_is_refused(component: Any) -> None:
    for name, value in {"threshold": 1.5, "alignment_mode": "shrink", "dtype": "fp8"}.items():
        with pytest.raises(ConfigError) as error:
            component.cfg[name] = value
        assert error.value.where == f"components.gliner.{name}"
    with pytest.raises(ConfigError):
        component.cfg = {**component.cfg, "flatner": False}
    assert (component.threshold, component.cfg["alignment_mode"]) == (0.5, "expand")


def test_reading_and_removing(component: Any) -> None:
    with pytest.raises(KeyError, match="flat_ner"):
        component.cfg["flatner"]
    assert component.cfg.get("flatner") is None
    with pytest.raises(ConfigError):
        del component.cfg["flat_ner"]


def test_copies_are_checked_too(component: Any) -> None:
    for copied in (copy.copy(component.cfg), pickle.loads(pickle.dumps(component)).cfg):
        copied["flat_ner"] = False
        with pytest.raises(ConfigError):
            copied["flatner"] = False
    assert component.cfg["flat_ner"] is True
