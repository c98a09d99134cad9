"""The warm start of a tagger: backbone and labels of a teacher, and a decoder fitted to the teacher's annotations."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from spacy.language import Language
from spacy.training import Example
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.stacked import Lstm, stack_of
from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.decoders.tags import UNKNOWN, TagDecoder
from gliner_pipe.modeling.layers.cache import evaluating
from gliner_pipe.modeling.merging import merged
from gliner_pipe.pipeline.overrides import gliner_components, tagging_components

if TYPE_CHECKING:
    from gliner_pipe.pipeline.token_classifier.component import TokenTagger

#: Maximum number of words to fit the decoder on, examples per encoder batch, and texts per decoder batch.
WORDS, BATCH, ROWS = 20_000, 16, 256
#: Iterations of the fit, and factor of its L2 penalty.
ITERATIONS, PENALTY = 60, 1e-4


def warm_start(tagger: TokenTagger, teacher: Language, examples: Sequence[Example]) -> None:
    """Initialize a tagger with the backbone and labels of a teacher, and fit its decoder to the teacher's annotations.

    All weights of the backbone are copied; the tagger does not use the label prompt of a ``gliner``. The label vectors
    of a ``gliner`` are compared with spans, after two nonlinear layers, so they cannot be weights of tags. Instead the
    decoder is fitted to the teacher's entities in `examples`, with the backbone frozen.

    Parameters
    ----------
    tagger
        Without weights, configured with the same model as the teacher.
    teacher
        A pipeline with one ``gliner`` or ``token_classifier``.
    examples
        Texts annotated by the teacher, with gold spans where ``target_span_getter`` reads them; some thousand words
        with all labels are enough.

    Raises
    ------
    ConfigError
        If the backbones differ, or the tagger has weights already.

    Notes
    -----
    A decoder that is fitted before fine-tuning preserves the features of the backbone: "Fine-Tuning can Distort
    Pretrained Features" (Kumar et al., 2022), arXiv:2202.10054.
    """
    reason = why_not(tagger, teacher)
    if reason:
        raise ConfigError("distill.warm_start", f"is not possible: {reason}", "false, auto")
    component = source_of(teacher)
    assert component is not None
    model = tagger.network
    with tagger.placed():
        take_backbone(model.encoder.backbone, merged(component.network).encoder)
        labels = tagger.labels or tuple(component.labels)
        model.make(labels)
    tagger._move(model)
    tagger.initialize(lambda: examples)
    fit_tags(model.decoder, read_words(tagger, examples))


def source_of(nlp: Language) -> Any:
    """Return the component for a warm start; None unless there is exactly one."""
    found = [*gliner_components(nlp), *tagging_components(nlp)]
    return found[0] if len(found) == 1 else None


def why_not(tagger: TokenTagger, teacher: Language) -> str:
    """Return why a warm start of a tagger is not possible; empty if it is."""
    component = source_of(teacher)
    if component is None:
        return "the teacher does not have exactly one gliner or token_classifier component"
    if tagger.network.is_built:
        return "the student has weights already"
    ours, theirs = (stack_of(one.network.encoder.backbone)[-1] for one in (tagger, component))
    if not (isinstance(ours, Transformer) and isinstance(theirs, Transformer)):
        return "one of the backbones is not a transformer"
    if ours.adapter is not None:
        return "the student's backbone has an adapter"
    if _name(ours) != _name(theirs):
        return f"the student's backbone is {ours.model_name!r}, the teacher's {theirs.model_name!r}"
    return ""


def _name(backbone: Transformer) -> str:
    path = Path(backbone.model_name)
    return str(path.resolve()) if path.exists() else backbone.model_name


def take_backbone(backbone: Any, encoder: Any) -> None:
    """Build a backbone with the weights of another encoder, without network access.

    Parameters
    ----------
    backbone
        Not built yet, with the same model.
    encoder
        With weights; those of its LSTM are copied too, if `backbone` has one of the same size.
    """
    source = stack_of(encoder.backbone)[-1]
    with tempfile.TemporaryDirectory() as folder:
        source.save_assets(Path(folder))
        backbone.load_assets(Path(folder))
    ours = stack_of(backbone)[-1]
    ours.encoder.load_state_dict(source.encoder.state_dict())
    for part in ("projection", "fusion"):
        _copy(getattr(ours, part), getattr(source, part))
    if isinstance(backbone, Lstm):
        below = encoder.backbone if isinstance(encoder.backbone, Lstm) else encoder
        _copy(backbone.rnn, getattr(below, "rnn", None))


def _copy(target: Any, source: Any) -> None:
    """Copy the weights of a part, if both have it in the same size."""
    if target is None or source is None:
        return
    new, old = source.state_dict(), target.state_dict()
    if {name: each.shape for name, each in new.items()} == {name: each.shape for name, each in old.items()}:
        target.load_state_dict(new)


@torch.no_grad()
def read_words(tagger: TokenTagger, examples: Sequence[Example]) -> list[tuple[Tensor, Tensor]]:
    """Return the word vectors and gold tags of texts.

    Parameters
    ----------
    tagger
        With weights.
    examples
        The first ones are encoded, up to `WORDS` words.

    Returns
    -------
    list of tuple of Tensor
        For each text, or part of a long one, ``(words, hidden)`` and ``(words, chains)``.
    """
    model = tagger.network
    rows: list[tuple[Tensor, Tensor]] = []
    with evaluating(model):
        for some in _batches(examples):
            batch = tagger.collate(some)
            words = model.encoder(batch.inputs.to(model.device)).words.flatten(0, 1)
            lengths = batch.mask.sum(1).tolist()
            for places, gold, length in zip(batch.places, batch.gold, lengths, strict=True):
                rows.append((words[places[:length].to(words.device)], gold[:length].to(words.device)))
    return rows


def _batches(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    n_words = 0
    for at in range(0, len(examples), BATCH):
        if n_words >= WORDS:
            return
        some = [example for example in examples[at : at + BATCH] if len(example.reference)]
        n_words += sum(len(example.reference) for example in some)
        if some:
            yield some


def fit_tags(decoder: TagDecoder, rows: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Fit the weights of a decoder to word vectors and gold tags.

    Parameters
    ----------
    decoder
        Built. With one layer on the vectors the problem is convex, so its initial weights do not matter.
    rows
        Word vectors and gold tags of texts, from ``read_words``.
    """
    batches = []
    rows = sorted(rows, key=lambda row: len(row[0]))
    for at in range(0, len(rows), ROWS):
        vectors, gold = zip(*rows[at : at + ROWS], strict=True)
        mask = pad_sequence([torch.ones(len(one), dtype=torch.bool, device=one.device) for one in gold], True)
        batches.append((pad_sequence(list(vectors), True), pad_sequence(list(gold), True, UNKNOWN), mask))
    count = sum(decoder.count(mask, gold) for _, gold, mask in batches) or 1.0
    weights = list(decoder.parameters())
    optimizer = torch.optim.LBFGS(weights, max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = torch.zeros((), device=weights[0].device)
        for words, gold, mask in batches:
            loss = decoder.loss(decoder.emissions(words), gold, mask) / count
            loss.backward()
            total += loss.detach()
        penalty = PENALTY * torch.stack([weight.pow(2).sum() for weight in weights]).sum()
        penalty.backward()
        return total + penalty.detach()

    with evaluating(decoder), torch.enable_grad():
        optimizer.step(closure)
    optimizer.zero_grad()
