"""The numbers that settings accept: a wrong one is refused wherever a block is constructed, or does no harm."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import spacy
import torch
from confit.errors import ConfitValidationError
from conftest import make_causal_lm
from pydantic import TypeAdapter, ValidationError
from relation_pipeline import DATA, config, example

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.config_errors import find_mistake
from gliner_pipe.pipeline.gliner.settings import GlinerSettings
from gliner_pipe.pipeline.token_classifier.settings import TaggerSettings
from gliner_pipe.registry import registry
from gliner_pipe.training.arguments import TrainOptions
from gliner_pipe.training.data_sections import Section

WRONG = (-1, 0, 1.5, 1e12, math.nan, math.inf, -math.inf, "many", True)
#: Required arguments.
REQUIRED: dict[str, dict[str, Any]] = {
    "generative": {"model": "any"},
    "gliner_pipe.PretrainedTokenClassifier.v1": {"name": "any"},
    "peft": {"method": "ia3"},
}
#: Families whose blocks are part of a model with relations, and where.
PLACES = {
    "adapters": "encoder.backbone.adapter",
    "backbones": "encoder.backbone",
    "context_encoders": "context",
    "encoders": "encoder",
    "fusions": "fusion",
    "losses": "loss",
    "relation_layers": "relation_layer",
    "span_reps": "span_rep",
    "triples": "triple",
}
REFUSED = (ConfitValidationError, ConfigError)


def families() -> list[str]:
    """The families with blocks of their own; ``metrics`` is another name of ``scorers``."""
    found = [name for name, view in vars(registry).items() if hasattr(view, "namespace")]
    return sorted({*found} - {"core", "factory", "metrics", "word_splitters"})


def is_number(hint: Any) -> bool:
    """Whether an annotation takes a number, by itself or in a list."""
    return hint in (int, float) or any(is_number(one) for one in get_args(hint) if not isinstance(one, str))


def numbers(family: str) -> Iterator[tuple[str, str, Any]]:
    """Name of the block, name and annotation of each number in the constructors of our blocks of a family."""
    view = getattr(registry, family)
    for name in sorted(view.get_available()):
        made = view.get(name)
        function = inspect.unwrap(made.__init__ if inspect.isclass(made) else made)
        if function.__module__.startswith("gliner_pipe."):
            hints = get_type_hints(function, include_extras=True)
            for option in inspect.signature(function).parameters:
                if is_number(hints.get(option)):
                    yield name, option, hints[option]


def accepted(hint: Any) -> list[Any]:
    """The values among `WRONG` that an annotation allows."""
    found = []
    for value in WRONG:
        try:
            TypeAdapter(hint).validate_python(value)
        except ValidationError:
            continue
        found.append(value)
    return found


@pytest.mark.parametrize("family", families())
def test_no_number_may_be_true_infinite_or_undefined(family: str) -> None:
    """Each has a range, or takes any number that is one."""
    wrong = [
        (name, option, value)
        for name, option, hint in numbers(family)
        for value in accepted(hint)
        if value is True or value == "many" or not math.isfinite(value)
    ]
    assert wrong == []


@pytest.mark.parametrize("kind", [TrainOptions, Section, GlinerSettings, TaggerSettings])
def test_no_option_takes_a_number_that_is_none(kind: Any) -> None:
    wrong = [
        (option, value)
        for option, hint in get_type_hints(kind, include_extras=True).items()
        if is_number(hint) and not any(one in (bool, str) for one in get_args(hint))
        for value in accepted(hint)
        if value is True or value == "many" or not math.isfinite(value)
    ]
    assert wrong == []


def test_there_are_numbers_to_check() -> None:
    assert sum(len(list(numbers(family))) for family in families()) > 120


def refused_or_made(family: str, name: str, settings: dict[str, Any]) -> Any:
    """The block, or None if its constructor refuses the settings."""
    try:
        return getattr(registry, family).get(name)(**{**REQUIRED.get(name, {}), **settings})
    except REFUSED:
        return None


@pytest.mark.parametrize(
    "family", sorted({*families()} - {"architectures", "backbones", "encoders", "readers"})
)
def test_constructors_refuse_or_take_each_number(family: str) -> None:
    """What schedules and optimizers take works: there are factors, and a step."""
    for name, option, _ in numbers(family):
        for value in WRONG:
            made = refused_or_made(family, name, {option: value})
            if made is None:
                continue
            if family == "schedules":
                assert all(math.isfinite(made.factor(step, 10)) for step in range(12)), (name, option, value)
            elif family == "optimizers":
                weight = torch.nn.Parameter(torch.zeros(2, 2))
                optimizer = made.build([{"params": [weight], "lr": 0.1, "weight_decay": 0.0}])
                weight.sum().backward()
                optimizer.step()
                assert torch.isfinite(weight).all(), (name, option, value)


@pytest.mark.parametrize("family", [*sorted(PLACES), "architectures"])
def test_blocks_of_models_refuse_each_number_or_have_a_finite_loss(family: str, backbone: Path) -> None:
    seen = set()
    for name, option, hint in numbers(family):
        constructor = inspect.unwrap(getattr(registry, family).get(name).__init__)
        if name.endswith("TokenClassifier.v1") or "ONNX" in name or (constructor, option) in seen:
            continue
        seen.add((constructor, option))
        for value in accepted(hint):
            settings = {**REQUIRED.get(name, {}), option: value}
            try:
                loss = loss_of(model_with(family, name, settings, backbone))
            except REFUSED:
                continue
            assert math.isfinite(loss), (name, option, value)


def model_with(family: str, name: str, settings: dict[str, Any], backbone: Path) -> dict[str, Any]:
    """A tiny model with relations, in which one block has these settings."""
    made = config(backbone, "bi_encoder" if family == "fusions" or name == "bi_encoder" else "uni_encoder")
    if family == "architectures":
        made["model"] |= settings
        return made
    section = made["model"]
    *above, last = PLACES[family].split(".")
    for part in above:
        section = section[part]
    block = {f"@{family}": name, **settings}
    if name == "causal_encoder":
        language_model = backbone.parent / "language_model"
        if not language_model.exists():
            make_causal_lm(language_model)
        block["backbone"] = {"@backbones": "causal_transformer", "model": str(language_model), "window": 100}
        made["relations"] = []
        del section["relation_layer"], section["triple"]
    elif family == "encoders" or name in ("transformer", "causal_transformer"):
        block = {**section[last], **settings}
    elif family == "backbones":
        block["embedding"] = section[last]
    section[last] = block
    return made


def loss_of(settings: dict[str, Any]) -> float:
    torch.manual_seed(0)
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("gliner", config=settings)
    gold = [example(nlp, *one) for one in DATA[:2]]
    nlp.initialize(lambda: gold)
    return float(component.get_loss(gold).total.detach())


@pytest.mark.parametrize(
    ("family", "name", "option", "value"),
    [
        ("adapters", "lora", "alpha", 0.0),
        ("adapters", "lora", "dropout", 1.0),
        ("adapters", "lora", "layers", [-1]),
        ("adapters", "lora", "r", 0),
        ("context_encoders", "lstm", "dropout", -0.1),
        ("context_encoders", "modernbert", "n_layers", 0),
        ("decoders", "crf", "dropout", 1.1),
        ("decoders", "generative", "blank_entity_prob", 1.5),
        ("decoders", "generative", "dropout", 1.0),
        ("decoders", "generative", "max_new_tokens", 0),
        ("decoders", "generative", "n_sequences", 0),
        ("decoders", "generative", "temperature", 0.0),
        ("decoders", "softmax", "label_smoothing", 2.0),
        ("fusions", "cross_attention", "n_heads", 0),
        ("losses", "gliner_pipe.bce", "negatives", -1.0),
        ("losses", "gliner_pipe.dice", "gamma", -1.0),
        ("losses", "gliner_pipe.focal", "alpha", 1.5),
        ("losses", "gliner_pipe.focal", "gamma", float("nan")),
        ("relation_layers", "attention", "n_heads", 0),
        ("relation_layers", "gcn", "size", 0),
        ("span_reps", "marker", "dropout", 1.5),
        ("span_reps", "token_level", "neg_spans_ratio", -1.0),
        ("triples", "conve", "n_filters", 0),
        ("triples", "ermlp", "size", 0),
        ("triples", "tucker", "dropout", 2.0),
    ],
)
def test_numbers_out_of_range_are_refused(family: str, name: str, option: str, value: Any) -> None:
    settings = {**REQUIRED.get(name, {}), option: value}
    with pytest.raises(ConfigError) as refused:
        getattr(registry, family).get(name)(**settings)
    assert refused.value.where.startswith(f"{family}.{name}.{option}") and refused.value.allowed
    assert isinstance(refused.value, ConfitValidationError) and refused.value.errors()[0]["loc"][0] == option
    mistake = find_mistake({"block": {f"@{family}": name, **settings}})
    assert mistake is not None and mistake.where.startswith(f"block.{option}")


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 1.0])
def test_focal_alpha_may_be_negative_for_no_weighting(alpha: float) -> None:
    assert registry.losses.get("gliner_pipe.focal")(alpha=alpha).alpha == alpha
