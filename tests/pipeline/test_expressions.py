"""Expressions of configs: a small arithmetic, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from confit import Config
from confit.utils.xjson import Reference

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.expressions import computed, paths_in

ROOT = Config(
    {
        "train": {"max_steps": 750, "rate": 0.5, "again": Reference("train.max_steps"), "list": [4, 5]},
        "vars": {
            "folder": "data",
            "my.name": 3,
            "loop": Reference("vars.loop + 1"),
            "one": Reference("vars.two"),
        },
        "names": {"two": Reference("train.again * 2"), "on": True, "none": None},
    }
)
ROOT["vars"]["two"] = Reference("vars.one")


def value(expression: str) -> Any:
    return computed(Reference(expression), ROOT, "section.option")


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("train.max_steps//6", 125),
        ("train.max_steps * 3 // 4", 562),
        ("(train.max_steps + 1) % 10", 1),
        ("-train.rate / 2", -0.25),
        ("2 - 3 - 4", -5),
        ("names.two + train.list.1", 1505),
        ("vars.'my.name' * 2", 6),
        ("1e3 + 0.5", 1000.5),
        ("vars.folder + '/two words/' + \"x.jsonl\"", "data/two words/x.jsonl"),
    ],
)
def test_results(expression: str, result: Any) -> None:
    found = value(expression)
    assert found == result and type(found) is type(result)


def test_paths_stay_and_sections_are_walked() -> None:
    assert value("train") == Reference("train")
    found = computed({"a": [Reference("train.max_steps*2")], "b": Reference("train")}, ROOT, "")
    assert found == {"a": [1500], "b": Reference("train")}


def test_paths_of_an_expression() -> None:
    assert [*paths_in(Reference("vars.'my.name' + 'not.this' + train.max_steps//2"))] == [
        ("vars", "my.name"),
        ("train", "max_steps"),
    ]


@pytest.mark.parametrize(
    "expression",
    [
        *(
            "9**9**9",
            "10 ** 3",
            '"x" * 10',
            "vars.folder * 3",
            "'%9d' % 3",
            "1 << 70",
            "[0] * 9",
            "1 / 0",
            "1 % 0",
        ),
        *("a b", "", " ", "1 +", "(1", "1)", "'x", "f(1)", "().__class__", "'a'.join", "vars.folder[0]"),
        *("[x for x in (1,)]", "{1, 2}", "1 if 2 else 3", "lambda: 1", "vars.x:upper", "1 + None", "not 1"),
        *(
            "names.on + 1",
            "names.none + 1",
            "train + 1",
            "train.list + 1",
            "vars.loop",
            "vars.one + 1",
            "nowhere.x + 1",
        ),
        *(
            "9" * 40 + "*" + "9" * 49,
            "1e999 + 1",
            "1e300 * 1e300",
            "9" * 5000 + "+1",
            "(" * 30 + "1" + ")" * 30,
        ),
        *("-" * 30 + "1", "+".join("1" * 600), "train.max_steps.real + 1", "1\x00+1"),
    ],
)
def test_everything_else_is_refused(expression: str) -> None:
    if expression == "vars.loop":  # the value that refers to itself, not the path to it
        expression = ROOT["vars"]["loop"].value
    with pytest.raises(ConfigError) as refused:
        value(expression)
    assert refused.value.where == "section.option" and refused.value.allowed
