"""What a training learns from and what it is measured on, as its options say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from spacy.language import Language
from spacy.training import Example

from gliner_pipe.data.holdout import drop_labels, hold_out
from gliner_pipe.errors import ConfigError
from gliner_pipe.evaluation.evaluate import default_scorers_for, gold_span_getter
from gliner_pipe.metrics.alignment import prediction_getter
from gliner_pipe.metrics.spans import METRICS, ZeroShotScorer
from gliner_pipe.pipeline.overrides import gliner_components
from gliner_pipe.training.datasets import Dataset, read_training, read_validation
from gliner_pipe.training.validation import Scorer, Validation, choose_metric


def read_data(
    nlp: Language, options: Mapping[str, Any], seed: int, note: Callable[[str], None]
) -> tuple[list[Dataset], Validation]:
    """Read all data of a training.

    Parameters
    ----------
    nlp
        The pipeline.
    options
        Of the training.
    seed
        Decides which documents are held out.
    note
        Takes a line for the user.

    Returns
    -------
    tuple
        What is learned from, and how the pipeline is measured.
    """
    datasets = read_training(nlp, options["train_data"], options["batch_size"])
    unseen = options["unseen_labels"]
    if options["validation_split"] is not None:
        datasets, examples = _held_out(datasets, options["validation_split"], seed)
        labels = None
    elif options["val_data"] is not None:
        examples, labels = read_validation(nlp, options["val_data"])
    else:
        return _without(nlp, datasets, unseen, note), Validation([], {})
    scorers = make_scorers(options["scorer"], nlp, examples, unseen)
    metric = choose_metric(options["best_metric"], scorers, examples)
    return _without(nlp, datasets, unseen, note), Validation(examples, scorers, metric, labels)


def ask_unseen(nlp: Language, validation: Validation, unseen: Sequence[str]) -> None:
    """Have a validation ask for labels that the training does not know, beside those that it does."""
    if unseen and validation.labels is None:
        known = [item for pipe in gliner_components(nlp) for item in pipe.label_data]
        validation.labels = [*known, *unseen]


def make_scorers(
    scorer: Any, nlp: Language, examples: Sequence[Example], unseen: Sequence[str] = ()
) -> dict[str, Scorer]:
    """Return the scorers that the option `scorer` of a training stands for.

    Parameters
    ----------
    scorer
        Scorers by name, one scorer, or None for exact spans (and relations, where there are some); a scorer is a
        function or one of the names ``exact``, ``overlap``, ``token`` and ``seqeval``.
    nlp
        The pipeline, which tells where gold and predicted spans stand.
    examples
        What is to be measured on.
    unseen
        Labels that are not trained on, measured apart where no scorer is named.
    """
    getters: dict[str, Any] = {
        "span_getter": gold_span_getter(nlp),
        "predicted_getter": prediction_getter(nlp),
    }
    if scorer is None:
        made = dict(default_scorers_for(nlp, examples))
        return {**made, "zero_shot": ZeroShotScorer(unseen=list(unseen), **getters)} if unseen else made
    scorers: dict[str, Scorer] = {}
    for name, item in (scorer if isinstance(scorer, Mapping) else {"ner": scorer}).items():
        if isinstance(item, str) and item in METRICS:
            item = METRICS[item](**getters)
        if not callable(item):
            allowed = f'a block, e.g. @scorers = "gliner_pipe.ner_exact", or one of {", ".join(METRICS)}'
            raise ConfigError(f"train.scorer.{name}", f"is {item!r}", allowed)
        scorers[name] = item
    return scorers


def _held_out(datasets: Sequence[Dataset], share: float, seed: int) -> tuple[list[Dataset], list[Example]]:
    """Take a share of the documents out of each dataset; one that is a single document stays whole."""
    kept: list[Dataset] = []
    held: list[Example] = []
    for dataset in datasets:
        if len(dataset.documents) < 2 <= max(len(other.documents) for other in datasets):
            kept.append(dataset)
            continue
        rest, out = hold_out(dataset.documents, share, seed)
        kept.append(replace(dataset, documents=rest))
        held += out
    return kept, held


def _without(
    nlp: Language, datasets: list[Dataset], unseen: Sequence[str], note: Callable[[str], None]
) -> list[Dataset]:
    """Take the labels that are not to be learned out of the training data."""
    if not unseen:
        return datasets
    for component in gliner_components(nlp):
        name = component.name
        known = [label for label in unseen if label in component.labels]
        if known:
            raise ConfigError(
                "train.unseen_labels",
                f"names {known[0]!r}, which is among the labels of {name!r}",
                "labels that the component is not told",
                f"Take it out of [components.{name}] labels",
            )
    dropped: Counter[str] = Counter()
    kept = []
    for dataset in datasets:
        documents = list(dataset.documents)
        dropped += drop_labels(documents, unseen, dataset.spans_key)
        kept.append(replace(dataset, documents=documents))
    missing = [label for label in unseen if not dropped[label]]
    if missing:
        note(f"note: [train.unseen_labels] not in the training data anyway: {', '.join(missing)}")
    note(f"kept out of the training: {', '.join(f'{n} x {label}' for label, n in dropped.items())}")
    return kept
