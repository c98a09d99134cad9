"""Config files, YAML of other libraries, expressions, and the settings of all blocks: whatever they hold."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import spacy
from confit import Config
from confit.utils.xjson import Reference
from conftest import gliner_config
from fuzz.rule import command, obeys, tries
from hypothesis import given
from hypothesis import strategies as st

from gliner_pipe import train
from gliner_pipe.data.batching import parse_size
from gliner_pipe.errors import GlinerPipeError
from gliner_pipe.migration import read_yaml, to_config
from gliner_pipe.migration.values import WrongValue, tokens
from gliner_pipe.pipeline.config_files import read_config
from gliner_pipe.pipeline.expressions import computed
from gliner_pipe.pipeline.gliner.settings import GlinerSettings
from gliner_pipe.registry import registry
from gliner_pipe.training.arguments import TrainOptions
from gliner_pipe.training.data_sections import Section
from gliner_pipe.training.feature_cache import parse_bytes
from tests.training.conftest import CONFIG, records, write

#: Values of a config file that are wrong in many places.
ODD = (
    *(
        "-1",
        "0",
        "1.5",
        "1e400",
        "NaN",
        "-Infinity",
        "1000000000000",
        "9" * 5000,
        "0x10",
        "1_000",
        "true",
        "no",
    ),
    *(
        '""',
        '" "',
        "null",
        "[]",
        "{}",
        '{"a": 1}',
        "[null]",
        "[1]",
        "[[]]",
        '["x"]',
        '["a", "a"]',
        "{1, 2}",
        "(1, 2)",
    ),
    *(
        "${a b}",
        "${9**9**9}",
        '${"x" * 10**10}',
        "${[0] * 10**10}",
        "${nowhere.x}",
        "${train}",
        "${nlp}",
        "${1/0}",
    ),
    *("${().__class__}", '${"a".join}', "${[x for x in (1,)]}", "${train.seed}", "${", "$", "%(x)s", "b'x'"),
    *(
        "[" * 3000 + "]" * 3000,
        "${" + "(" * 500 + "1" + ")" * 500 + "}",
        '"\\x1b[31mred"',
        r'"a\nb"',
        "é",
        '"../../x"',
    ),
    *(".", "/", '"~"', '"/dev/null"', '{"@losses": "nope"}', '{"@a": 1, "@b": 2}', '{"@factory": "ner"}'),
    *(
        '[{"label": 1}]',
        '[{"selector": "(", "lr": -1}]',
        '"2000 words"',
        '"1e99 words"',
        '"-1 GB"',
        '"cpu:9"',
        '"auto"',
    ),
)
OPTIONS = (
    *(
        ("train", name)
        for name in get_type_hints(TrainOptions)
        if not name.startswith(("model_", "push", "hub"))
    ),
    *(("train.train_data", name) for name in get_type_hints(Section)),
    *(("components.gliner", name) for name in get_type_hints(GlinerSettings)),
)
#: Values in Python.
WRONG = st.one_of(
    st.sampled_from(
        [None, True, math.nan, math.inf, -1, 0, 10**30, "", "\x1b[0m", [], {}, [None], {"a": 1}, (1, 2)]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.lists(st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@pytest.fixture(scope="module")
def sections(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The sections of a config that trains one step."""
    folder = tmp_path_factory.mktemp("data")
    files = {
        name: write(folder / f"{name}.jsonl", records(8, seed)) for seed, name in enumerate(("train", "dev"))
    }
    text = CONFIG.format(**files, backbone=backbone, out="out").replace(
        "max_steps = 4", "max_steps = 1\nloggers = []"
    )
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        name, equals, value = line.partition(" = ")
        if line.startswith("["):
            found[line[1:-1]] = {}
        elif equals:
            found[[*found][-1]][name] = value
    return found


def cfg(sections: dict[str, dict[str, str]]) -> str:
    """The text of a config file."""
    parts = (
        "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in one.items())])
        for name, one in sections.items()
    )
    return "\n\n".join(parts)


@st.composite
def changes(draw: st.DrawFn) -> Callable[[dict[str, dict[str, str]]], dict[str, dict[str, str]]]:
    """One or two changes of a config: a section or an option less, or another value."""
    todo = draw(
        st.lists(
            st.tuples(
                st.integers(0, 10**6),
                st.sampled_from(["set", "set", "set", "cut", "drop"]),
                st.sampled_from(ODD),
            ),
            min_size=1,
            max_size=2,
        )
    )

    def apply(sections: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        made = {name: dict(one) for name, one in sections.items()}
        places = [*((name, key) for name, one in sections.items() for key in one), *OPTIONS]
        for number, kind, value in todo:
            section, key = places[number % len(places)]
            if kind == "drop":
                made.pop(section, None)
            elif kind == "cut":
                made.get(section, {}).pop(key, None)
            else:
                made.setdefault(section, {})[key] = value
        return made

    return apply


@given(change=changes())
@tries(20)
def test_configs_of_trainings(
    change: Any, sections: dict[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.cfg").write_text(cfg(change(sections)), encoding="utf8")
    command(train.main, ["--config", "config.cfg"], folder)


@given(place=st.floats(0, 1), replaced=st.integers(0, 30), content=st.binary(max_size=12))
@tries(60)
def test_bytes_of_configs(
    place: float,
    replaced: int,
    content: bytes,
    sections: dict[str, dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    text = cfg(sections).encode()
    start = int(place * len(text))
    path = tmp_path_factory.mktemp("bytes") / "config.cfg"
    path.write_bytes(text[:start] + content + text[start + replaced :])
    outcome = obeys(read_config, path)
    if outcome.error is None:
        obeys(computed, outcome.result, outcome.result, "")


YAML = st.recursive(
    st.sampled_from(
        [
            "1",
            "x",
            "null",
            "",
            "*a",
            "~",
            "'",
            "2026-99-99",
            "!!int x",
            "!!binary é",
            "9" * 5000,
            "@b",
            "%",
            "{",
        ]
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(
            st.tuples(
                st.sampled_from(
                    ["a", "model", "train", "data", "? [b]", "<<", "null", "1", "task", "params"]
                ),
                inner,
            ),
            max_size=4,
        ).map(lambda pairs: f"{{{', '.join(f'{key}: {value}' for key, value in pairs)}}}"),
        inner.map(lambda one: f"&a {one}"),
    ),
    max_leaves=20,
)


@given(text=YAML)
@tries(100)
def test_yaml(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("yaml") / "config.yaml"
    path.write_text(text, encoding="utf8")
    obeys(read_config, path)
    obeys(read_yaml, path)
    obeys(to_config, path)


PARTS = st.sampled_from(
    [
        *"+-*/%()[]{}.,:'\"! \x00",
        "//",
        "**",
        "1",
        "9" * 60,
        "1e308",
        "a.b",
        "a",
        "'x'",
        '"y z"',
        "lambda",
        "__class__",
        "if",
    ]
)


@given(parts=st.lists(PARTS, max_size=12))
@tries(300)
def test_expressions(parts: list[str]) -> None:
    root = Config({"a": {"b": 3, "c": Reference("a.b * a.b"), "d": "text"}})
    outcome = obeys(computed, Reference("".join(parts)), root, "section")
    if outcome.error is None and not isinstance(outcome.result, (Reference, str)):
        assert isinstance(outcome.result, (int, float)) and math.isfinite(outcome.result)


@functools.cache
def arguments() -> list[tuple[str, str, str]]:
    """Family, block and argument of each constructor."""
    families = sorted(
        {name for name, view in vars(registry).items() if hasattr(view, "namespace")} - {"core", "factory"}
    )
    found = []
    for family in families:
        view = getattr(registry, family)
        for name in sorted(view.get_available()):
            made = view.get(name)
            function = inspect.unwrap(made.__init__ if inspect.isclass(made) else made)
            if function.__module__.startswith("gliner_pipe."):
                found += [
                    (family, name, key) for key in inspect.signature(function).parameters if key != "self"
                ]
    return found


@given(place=st.integers(0, 10**6), value=WRONG)
@tries(200)
def test_arguments_of_blocks(place: int, value: Any) -> None:
    """Constructors refuse what cannot be right; the others are given values that are."""
    known = arguments()
    family, name, key = known[place % len(known)]
    required = {"path": "nowhere.jsonl", "model": "any", "name": "any", "method": "ia3"}
    given = {one: text for one, text in required.items() if (family, name, one) in known}
    obeys(lambda: getattr(registry, family).get(name)(**{**given, key: value}))


@pytest.fixture(scope="module")
def component(backbone: Path) -> Any:
    nlp = spacy.blank("en")
    return nlp.add_pipe("gliner", config=gliner_config(backbone))


@given(name=st.sampled_from([*GlinerSettings.model_fields, "zzz"]), value=WRONG)
@tries(150)
def test_settings_of_a_component(name: str, value: Any, component: Any) -> None:
    before = dict(component.cfg)
    obeys(lambda: component.cfg.update({name: value}))
    component.cfg.update(before)


@pytest.mark.parametrize("digits", [16, 400, 5000])
@pytest.mark.parametrize("unit", ["", " words", " GB", " tokens"])
def test_sizes_of_many_digits(digits: int, unit: str) -> None:
    for read in (parse_size, parse_bytes, tokens):
        outcome = obeys(read, "9" * digits + unit, errors=(GlinerPipeError, WrongValue))
        assert outcome.error is not None
