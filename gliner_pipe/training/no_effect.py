"""Options that are set, and have no effect in combination with the others, or keep a model from learning."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from spacy.language import Language
from spacy.training import Example

from gliner_pipe.data.checks import count_relations
from gliner_pipe.data.label_sampling import LabelSampling
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.training.arguments import TrainOptions
from gliner_pipe.training.schedules import Schedule

#: Default warm-up of a training.
_WARMUP = 0.1
#: Steps in which a new model can hardly learn to use a new token: on WNUT 17, 400 of 16 texts taught it nothing.
_SHORT = 2000
_HUB = {
    "hub_model_id": None,
    "hub_strategy": "every_save",
    "hub_private_repo": True,
    "hub_always_push": False,
}


def without_effect(
    nlp: Language, components: Mapping[str, Any], options: TrainOptions, examples: Sequence[Example]
) -> Iterator[str]:
    """Yield a line for each option that is set and has no effect in this training.

    Parameters
    ----------
    nlp
        The pipeline.
    components
        Its trained components.
    options
        Of the training.
    examples
        The training data.
    """
    for place, reason in _of_training(options):
        yield f"[train.{place}] has no effect {reason}"
    for name, component in components.items():
        section = nlp.config["components"].get(name, {}).get("model")
        if not isinstance(section, Mapping) or section.get("@architectures") != "gliner_pipe.GLiNER.v1":
            continue
        for place, reason in _of_model(section):
            yield f"[components.{name}.model.{place}] has no effect {reason}"
        if component.gliner.relation_layer is not None and not count_relations(examples):
            yield (
                f"[components.{name}.model.relation_layer] is not trained: the training data have no relations, so "
                "the relations that it predicts are random if its weights are new"
            )


def learns_nothing(
    nlp: Language, components: Mapping[str, Any], new: Collection[str], max_steps: int
) -> Iterator[str]:
    """Yield a line for each new model whose options are known to keep it from learning in so few steps.

    Parameters
    ----------
    nlp
        The pipeline.
    components
        Its trained components.
    new
        Names of the components whose weights are new.
    max_steps
        Length of the training.
    """
    for name in new:
        section = nlp.config["components"].get(name, {}).get("model")
        encoder = section.get("encoder") if isinstance(section, Mapping) else None
        if not isinstance(encoder, Mapping) or not encoder.get("embed_ent_token") or max_steps >= _SHORT:
            continue
        component = components[name]
        if LabelSampling(**component.cfg["label_sampling"]).shuffle and len(component.labels) != 1:
            yield (
                f"[components.{name}.model.encoder.embed_ent_token] is true in a new model that sees its labels in "
                f"random order: it is likely to find nothing after {max_steps} steps. Set it to false, or "
                f"[components.{name}.label_sampling] shuffle to false if the labels will never change"
            )


def _of_training(options: TrainOptions) -> Iterator[tuple[str, str]]:
    if options.warmup_rate != _WARMUP:
        if options.warmup_steps is not None:
            yield "warmup_rate", "with warmup_steps"
        elif isinstance(options.schedule, Schedule):
            yield "warmup_rate", "with a schedule of its own warm-up: set warmup_rate in [train.schedule]"
    if options.patience is None and options.patience_threshold:
        yield "patience_threshold", "without patience"
    if options.ignore_data_skip and not options.resume_from_checkpoint:
        yield "ignore_data_skip", "without resume_from_checkpoint"
    if not options.push_to_hub:
        for name, default in _HUB.items():
            if getattr(options, name) != default:
                yield name, "without push_to_hub"


def _of_model(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the options of a model, and why they have no effect."""
    defaults = inspect.signature(inspect.unwrap(GLiNER.__init__)).parameters

    def is_set(name: str) -> bool:
        return section.get(name, defaults[name].default) != defaults[name].default

    if section.get("relation_layer") is None:
        finder = (section.get("relation_finder") or {}).get("@relation_finders", "slots")
        of_both = () if finder != "slots" else ("relation_loss", "relation_loss_coef")
        for name in ("triple", "adjacency_loss_coef", *of_both):
            if is_set(name):
                yield name, "without relation_layer"
    if is_set("decoder_loss_coef") and (section.get("decoder") or {}).get("@decoders") != "generative":
        yield "decoder_loss_coef", "without a generative decoder"
    encoder = section.get("encoder") or {}
    if encoder.get("embed_rel_token") and encoder.get("rel_token") is None:
        yield "encoder.embed_rel_token", "without rel_token"
    for name in ("loss", "relation_loss"):
        yield from _of_loss(name, section)


def _of_loss(name: str, section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    loss, main = section.get(name) or {}, section.get("loss") or {}
    masking, negatives = loss.get("masking", "none"), loss.get("negatives", 1.0)
    if masking == "none" and negatives < 1:
        yield f"{name}.negatives", "with masking = none"
    if masking != "none" and negatives == 1:
        yield f"{name}.masking", "with negatives = 1"
    by_width = name == "loss" and (section.get("span_rep") or {}).get("@span_reps") != "token_level"
    if loss.get("width_weight") and not by_width:
        yield f"{name}.width_weight", "on scores of words or pairs"
    if "reduction" in loss and loss["reduction"] != main.get("reduction", "sum"):
        yield (
            f"{name}.reduction",
            f"with loss.reduction = {main.get('reduction', 'sum')}, which divides all losses",
        )
