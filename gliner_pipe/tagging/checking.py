"""Whether the weights of a tagger are those that its component is configured for."""

from __future__ import annotations

from collections.abc import Sequence

from gliner_pipe.errors import ConfigError
from gliner_pipe.model.token_classifier import TokenClassifier
from gliner_pipe.tagging.targets import SPANS


def check_labels(stated: Sequence[str], model: TokenClassifier, where: str, *, ordered: bool) -> None:
    """Refuse weights for other labels than those of the config, if it has any.

    Parameters
    ----------
    stated
        Labels of the config.
    model
        With weights.
    where
        Section of the component.
    ordered
        Whether their order matters too.
    """
    same = tuple(stated) == model.labels if ordered else set(stated) == set(model.labels)
    if stated and not same:
        raise ConfigError(
            f"{where}.labels",
            f"found {list(stated)}, but the weights are those of {list(model.labels)}",
            "the labels of the training, or none",
            "For other labels train again: nlp.get_pipe(...).initialize(get_examples, labels=[...])",
        )


def check_target_of(model: TokenClassifier, target: str, where: str) -> None:
    """Refuse a checkpoint that has a label for each word where spans are to be found."""
    if model.blocks is not None and model.decoder.scheme == "word" and target == SPANS:
        raise ConfigError(
            f"{where}.target",
            f"found {SPANS!r} for a model that has a label for each word ({', '.join(model.labels[:3])} ...)",
            'an attribute of tokens: tag_, pos_, "_.name"',
            'Write target = "tag_"',
        )
