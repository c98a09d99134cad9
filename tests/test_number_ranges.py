"""The numbers that blocks accept: a wrong one is refused wherever the block is constructed."""

import inspect
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest
from confit.errors import ConfitValidationError

from gliner_pipe.modeling.block import Block, available
from gliner_pipe.pipeline.config_errors import find_mistake
from gliner_pipe.registry import registry

FAMILIES = (
    "adapters",
    "context_encoders",
    "decoders",
    "fusions",
    "losses",
    "relation_layers",
    "span_reps",
    "triples",
)
#: Required arguments.
REQUIRED = {"generative": {"model": "any"}, "peft": {"method": "ia3"}}
#: Any number is meaningful: the margin moves the scores.
ANY = ("margin",)


def numbers() -> list[tuple[str, str, str, Any]]:
    """Family, block and name of each number in the constructors of blocks, with its annotation."""
    found = []
    for family in FAMILIES:
        for name in available(family):
            block: type[Block] = getattr(registry, family).get(name)
            hints = get_type_hints(inspect.unwrap(block.__init__), include_extras=True)
            for option, hint in hints.items():
                kinds = [hint, *get_args(hint)]
                if any(kind in (int, float) for kind in kinds if kind is not NoneType) and option not in ANY:
                    found.append((family, name, option, hint))
    return found


def test_every_number_has_a_range():
    assert len(numbers()) > 40
    assert [
        (block, option) for _, block, option, hint in numbers() if not hasattr(hint, "__metadata__")
    ] == []


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
    with pytest.raises(ConfitValidationError) as refused:
        getattr(registry, family).get(name)(**settings)
    assert refused.value.errors()[0]["loc"][0] == option
    mistake = find_mistake({"block": {f"@{family}": name, **settings}})
    assert mistake is not None and mistake.where.startswith(f"block.{option}")


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 1.0])
def test_focal_alpha_may_be_negative_for_no_weighting(alpha: float) -> None:
    assert registry.losses.get("gliner_pipe.focal")(alpha=alpha).alpha == alpha
