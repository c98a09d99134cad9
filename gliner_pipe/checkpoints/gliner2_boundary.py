"""Maps GLiNER2.5 checkpoints, of the architecture ``boundary``, to our blocks, and the other way round."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.classifiers.label_mlp import LabelMlp
from gliner_pipe.modeling.decoders.per_label import PerLabel
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.span_reps.boundary_base import BoundarySpanRep
from gliner_pipe.modeling.span_reps.boundary_training import LOSS_OPTIONS
from gliner_pipe.registry import registry

logger = logging.getLogger(__name__)

#: Span representation for each kind of candidates.
POOLS = {"per_query": "boundary", "shared": "boundary_pool"}
#: Modules that only the other kind of candidates has, as a regular expression.
_UNUSED = {
    "per_query": r"boundary_head\.shared_pool_\w+\.",
    "shared": r"boundary_head\.(?:boundary_proposer|pair_scorer)\.",
}
#: Options that do not change what a trained model computes and are not read: of training, and of how the work is cut.
_OF_TRAINING = {
    *("training_candidate_budget", "max_gold_per_query", "negative_query_ratio"),
    *("max_negative_queries_per_batch", "boundary_marginal_loss", "boundary_negative_weight"),
    *("loss_reduction", "boundary_focal_gamma_positive", "boundary_focal_gamma_negative"),
    *("boundary_focal_clip", "hard_negative_keep_all_when_absent", "consistency_warmup_steps"),
    *("soft_iou_aux_weight", "soft_iou_anneal_steps", "classification_loss_weight", "record_loss_weight"),
    *("relation_loss_weight", "end_block_size", "export_mode", "vectorized_pair_elements"),
    *("record_anchor_proposal_threshold", "record_anchor_threshold", "record_field_threshold"),
}
#: Options that are read here and not given to a block under the same name.
_READ = {
    "candidate_pool",
    "enable_records",
    "enable_relations",
    "overlap_policy",
    "classification_temperature",
}
#: Options that bound how many spans and pairs are proposed; the weights do not depend on them.
BUDGETS = (
    *("start_top_k", "end_top_k", "ends_per_start", "starts_per_end", "candidate_budget"),
    *("boundary_top_k_alpha", "boundary_top_k_max", "pool_boundary_top_k", "pool_size", "min_pool_per_query"),
    *("relation_heads_per_type", "relation_tails_per_type", "relation_pair_cap"),
    "relation_argument_proposal_threshold",
)
#: Ways to resolve overlaps.
POLICIES = ("flat", "nested", "longest")


def blocks(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the configuration of the blocks behind the encoder.

    Parameters
    ----------
    config
        Content of ``config.json``.
    folder
        Folder of the checkpoint, for errors.

    Raises
    ------
    CheckpointError
        If an option has an unknown value.
    """
    head = _head(config)
    policy = _one_of("overlap_policy", head.get("overlap_policy", "flat"), POLICIES, folder)
    pool = _one_of("candidate_pool", _pool(head), tuple(POOLS), folder)
    span_rep = {"@span_reps": POOLS[pool], **_options("span_reps", POOLS[pool], head)}
    of_loss = {name: head[name] for name, value in LOSS_OPTIONS.items() if head.get(name, value) != value}
    span_rep |= {"loss_options": of_loss} if of_loss else {}
    found = {
        "span_rep": span_rep | {"candidate_states": _has(config, "enable_records")},
        "classifier": {
            "@classifiers": "label_mlp",
            "temperature": head.get("classification_temperature", 1.0),
        },
        "decoder": {"@decoders": "per_label", "policy": policy},
        "loss": {"@losses": "gliner_pipe.bce"},
    }
    if _has(config, "enable_relations"):
        options = _options("relation_finders", "boundary_pairs", head)
        found["relation_finder"] = {"@relation_finders": "boundary_pairs", **options}
    if _has(config, "enable_records"):
        options = _options("record_finders", "boundary_records", head)
        found["record_finder"] = {"@record_finders": "boundary_records", **options}
    families = [("span_reps", kind) for kind in POOLS.values()]
    families += [("relation_finders", "boundary_pairs"), ("record_finders", "boundary_records")]
    known = (
        {name for family in families for name in _names(*family)} | _OF_TRAINING | _READ | set(LOSS_OPTIONS)
    )
    unknown = sorted(name for name in head if name not in known)
    if unknown:
        logger.warning("%s: unknown options of boundary_head are ignored: %s.", folder, ", ".join(unknown))
    return found


def with_budgets(config: Mapping[str, Any], budgets: Mapping[str, float], name: str) -> dict[str, Any]:
    """Return the content of a ``config.json`` with other budgets.

    Raises
    ------
    ConfigError
        If the checkpoint `name` has another architecture, or an option is none of ``BUDGETS``.
    """
    where = "components.*.model.budgets"
    if config.get("architecture") != "boundary":
        raise ConfigError(
            where, f"is set for {name!r}", "a GLiNER2.5 checkpoint (architecture boundary), or null"
        )
    may_be_zero = ("boundary_top_k_alpha", "relation_argument_proposal_threshold", "min_pool_per_query")
    for option, value in budgets.items():
        if option not in BUDGETS:
            raise ConfigError(f"{where}.{option}", "is no budget", ", ".join(BUDGETS))
        if option not in may_be_zero and (value < 1 or value != int(value)):
            raise ConfigError(f"{where}.{option}", f"found {value:g}", "a whole number from 1 on")
    return {**config, "boundary_head": {**_head(config), **budgets}}


def names(config: Mapping[str, Any]) -> tuple[tuple[str, str | None], ...]:
    """Return regular expressions of their tensor names, and our names for these; None for tensors that are not used."""
    return (
        (_UNUSED[_pool(_head(config))], None),
        (r"boundary_head\.", "span_rep."),
        # the number of the last layer depends on whether there is a dropout layer before it
        (r"classifier\.0\.", "classifier.network.0."),
        (r"classifier\.[23]\.", "classifier.network.2."),
        (r"relation_scorer\.", "relation_finder.scorer."),
        (r"record_decoder\.", "record_finder."),
    )


def head_of(model: GLiNER) -> dict[str, Any]:
    """Return the options of ``boundary_head`` for a model whose blocks are those of the architecture.

    Options that are not read here are those of the checkpoint that it was read from.
    """
    span_rep, relations, records = model.span_rep, model.relation_finder, model.record_finder
    kept = {} if model.kept is None else _head(model.kept.config)
    found = {**kept, "candidate_pool": next(key for key, name in POOLS.items() if is_named(span_rep, name))}
    for block in (relations, records, span_rep):  # the last one has the dropout that counts
        if block is not None:
            found |= _all_options(block)
    found |= found.pop("loss_options") or {}
    for name in ("candidate_states", "join_mentions", "single_values"):
        found.pop(name, None)
    assert isinstance(model.classifier, LabelMlp) and isinstance(model.decoder, PerLabel)
    return {
        **found,
        "enable_relations": relations is not None,
        "enable_records": records is not None,
        "overlap_policy": model.decoder.policy,
        "classification_temperature": model.classifier.temperature,
    }


def tensors_of(model: GLiNER) -> dict[str, Tensor]:
    """Return the tensors of a model under their names in a checkpoint, and those of the candidates it does not use.

    A model that was not read from a checkpoint gets new ones: the package reads no file without them.
    """
    span_rep = model.span_rep
    assert isinstance(span_rep, BoundarySpanRep)
    last = "classifier.3." if span_rep.dropout else "classifier.2."
    names = (
        *((r"encoder\.backbone\.encoder\.", "encoder."), (r"span_rep\.", "boundary_head.")),
        *((r"classifier\.network\.0\.", "classifier.0."), (r"classifier\.network\.2\.", last)),
        *((r"relation_finder\.scorer\.", "relation_scorer."), (r"record_finder\.", "record_decoder.")),
    )
    found = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("span_rep.candidate_encoder.") and model.record_finder is None:
            continue
        start, theirs = next((ours, theirs) for ours, theirs in names if re.match(ours, name))
        found[re.sub(start, theirs, name, count=1)] = tensor
    return found | (
        model.kept.tensors if model.kept is not None else _new(span_rep, model.encoder.output_size)
    )


def _new(span_rep: BoundarySpanRep, hidden_size: int) -> dict[str, Tensor]:
    """Return new weights of the candidates that a span representation does not use."""
    (name,) = (name for name in POOLS.values() if not is_named(span_rep, name))
    options = {
        key: value for key, value in _all_options(span_rep).items() if key in _names("span_reps", name)
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        other = registry.span_reps.get(name)(**options)
        other.build(hidden_size)
    own = span_rep.state_dict()
    return {f"boundary_head.{key}": tensor for key, tensor in other.state_dict().items() if key not in own}


def is_named(block: Any, name: str) -> bool:
    """Whether a span representation is registered under a name."""
    return type(block) is registry.span_reps.get(name)


def _all_options(block: Block) -> dict[str, Any]:
    """Return the values of all arguments of a block."""
    parameters = inspect.signature(type(block).__init__).parameters
    defaults = {name: one.default for name, one in parameters.items() if name != "self"}
    return defaults | {name: value for name, value in block.toDict().items() if not name.startswith("@")}


def _head(config: Mapping[str, Any]) -> Mapping[str, Any]:
    head: Mapping[str, Any] = config.get("boundary_head") or {}
    return head


def _pool(head: Mapping[str, Any]) -> str:
    return str(head.get("candidate_pool", "per_query"))


def _has(config: Mapping[str, Any], part: str) -> bool:
    """Whether the checkpoint has an optional part, which earlier ones have only if they say so."""
    return bool(_head(config).get(part, config.get("config_version", 0) >= 3))


def _options(family: str, name: str, head: Mapping[str, Any]) -> dict[str, Any]:
    return {option: head[option] for option in _names(family, name) if option in head}


def _names(family: str, name: str) -> list[str]:
    return list(inspect.signature(getattr(registry, family).get(name).__init__).parameters)[1:]


def _one_of(option: str, found: Any, allowed: tuple[str, ...], folder: Path) -> str:
    if found not in allowed:
        choices = ", ".join(allowed)
        raise CheckpointError(f"{folder}: has boundary_head.{option} = {found!r}; allowed: {choices}.")
    return str(found)
