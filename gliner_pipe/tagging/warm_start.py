"""A tagger that begins with what another pipeline knows: its backbone, its labels, and what it says of some texts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from torch import Tensor

from gliner_pipe.adapters.models import merged
from gliner_pipe.backbones.lstm import Lstm
from gliner_pipe.backbones.transformer import Transformer
from gliner_pipe.decoders.tags_base import TagDecoder
from gliner_pipe.encoders.base import Query
from gliner_pipe.errors import ConfigError
from gliner_pipe.overrides import gliner_components, tagging_components

if TYPE_CHECKING:
    from gliner_pipe.component import Gliner
    from gliner_pipe.token_classifier import TokenTagger

#: Words that the first weights of the tags are made from, and examples of a batch.
WORDS, BATCH = 20_000, 16
#: Texts that label vectors are the mean over, and windows that are read at once.
TEXTS, ROWS = 100, 8
#: Share of the covariance that is replaced by that of independent numbers, and words that a mean is to rest on.
SHRINKAGE, ENOUGH = 0.1, 10.0


def warm_start(tagger: TokenTagger, teacher: Language, examples: Sequence[Example]) -> None:
    """Begin a tagger with the backbone and the labels of another pipeline, and with tags that fit what it annotated.

    The backbone is taken over whole, without the prompt that a ``gliner`` read before the text. A label vector of
    ``gliner`` is held against spans behind two layers that are not linear, so it cannot be the weight of a tag; what it
    says of words can: each tag starts with the weights that tell its words from the others in `examples` (a linear
    discriminant), and a label of few words borrows from the labels whose vectors are most like its own.

    Parameters
    ----------
    tagger
        Without weights, configured with the same model as the teacher.
    teacher
        A pipeline with one ``gliner`` or ``token_classifier``.
    examples
        Texts that the teacher annotated, where ``target_span_getter`` looks for gold spans; some thousand words, of all
        labels, are enough.

    Raises
    ------
    ConfigError
        If the backbones are not the same, or the tagger has weights already.

    Notes
    -----
    A trained head before the backbone moves keeps what the backbone knows: "Fine-Tuning can Distort Pretrained
    Features" (Kumar et al., 2022), arXiv:2202.10054.
    """
    reason = why_not(tagger, teacher)
    if reason:
        raise ConfigError("distill.warm_start", f"is asked for, but {reason}", "false, auto")
    component = source_of(teacher)
    assert component is not None
    model = tagger.network
    with tagger.placed():
        take_backbone(model.encoder.backbone, merged(component.network).encoder)
        labels = tagger.labels or tuple(component.labels)
        model.make(labels)
    tagger._move(model)
    tagger.initialize(lambda: examples)
    is_gliner = component in gliner_components(teacher)
    texts = [example.reference for example in examples[:TEXTS]]
    vectors = label_vectors(component, texts, labels) if is_gliner else None
    words, gold = read_words(tagger, examples)
    fit_tags(model.decoder, words, gold, vectors)


def source_of(nlp: Language) -> Any:
    """Return the component that a tagger can begin with; None where there is not just one."""
    found = [*gliner_components(nlp), *tagging_components(nlp)]
    return found[0] if len(found) == 1 else None


def why_not(tagger: TokenTagger, teacher: Language) -> str:
    """Say why a tagger cannot begin with the backbone of a pipeline; empty where it can."""
    component = source_of(teacher)
    if component is None:
        return "the teacher has not exactly one gliner or token_classifier component"
    if tagger.network.is_built:
        return "the student has weights of its own"
    ours, theirs = bottom_of(tagger.network.encoder.backbone), bottom_of(component.network.encoder.backbone)
    if not (isinstance(ours, Transformer) and isinstance(theirs, Transformer)):
        return "one of the backbones is no transformer"
    if ours.adapter is not None:
        return "the student's backbone has an adapter"
    if _name(ours) != _name(theirs):
        return f"the student's backbone is {ours.model_name!r}, the teacher's {theirs.model_name!r}"
    return ""


def bottom_of(backbone: Any) -> Any:
    """Return the backbone that stands on no other."""
    while hasattr(backbone, "embedding"):
        backbone = backbone.embedding
    return backbone


def _name(backbone: Transformer) -> str:
    path = Path(backbone.model_name)
    return str(path.resolve()) if path.exists() else backbone.model_name


def take_backbone(backbone: Any, encoder: Any) -> None:
    """Make a backbone with the weights of that of another encoder; no network.

    Parameters
    ----------
    backbone
        Not built yet, on the same model.
    encoder
        With weights; those of its LSTM are taken, too, where `backbone` has one of this size.
    """
    source = bottom_of(encoder.backbone)
    with tempfile.TemporaryDirectory() as folder:
        source.save_assets(Path(folder))
        backbone.load_assets(Path(folder))
    ours = bottom_of(backbone)
    ours.encoder.load_state_dict(source.encoder.state_dict())
    for part in ("projection", "fusion"):
        _copy(getattr(ours, part), getattr(source, part))
    if isinstance(backbone, Lstm):
        below = encoder.backbone if isinstance(encoder.backbone, Lstm) else encoder
        _copy(backbone.rnn, getattr(below, "rnn", None))


def _copy(target: Any, source: Any) -> None:
    """Copy the weights of a part, where both have it in one size."""
    if target is None or source is None:
        return
    new, old = source.state_dict(), target.state_dict()
    if {name: each.shape for name, each in new.items()} == {name: each.shape for name, each in old.items()}:
        target.load_state_dict(new)


@torch.no_grad()
def label_vectors(component: Gliner, docs: Sequence[Doc], labels: Sequence[str]) -> Tensor:
    """Return what a ``gliner`` holds against spans for each label, ``(labels, hidden)``.

    Labels that stand in the prompt have another vector in each text: it is the mean over `docs`, as
    ``compress_prompt`` takes it. Those that are read apart from the text have one.

    Parameters
    ----------
    component
        With weights.
    docs
        Texts, of which at least one has a word.
    labels
        Labels, with the descriptions that the component has for them.
    """
    model = component.gliner
    described = {item.label: item.text for item in component.label_items}
    query = Query(tuple(described.get(label, label) for label in labels))
    texts = [words for doc in docs if (words := component.word_splitter.split(doc).texts)]
    model.eval()
    windows = model.encoder.prepare(texts, [query] * len(texts), model.min_overlap)
    total = torch.zeros(())
    for at in range(0, len(windows), ROWS):
        batch = model.encoder.collate(windows[at : at + ROWS]).to(model.device)
        total = total + model.encode(batch).labels.sum(0).float().cpu()
    return total / len(windows)


@torch.no_grad()
def read_words(tagger: TokenTagger, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Return the vectors that the backbone gives to words, and the gold tags of these.

    Parameters
    ----------
    tagger
        With weights.
    examples
        Of which the first are read, up to some number of words.

    Returns
    -------
    tuple of Tensor
        ``(words, hidden)`` and ``(words, chains)``, those with a known tag.
    """
    model = tagger.network
    was_training = model.training
    model.eval()
    vectors, gold = [], []
    for some in _batches(examples):
        batch = tagger.collate(some)
        words = model.encoder(batch.inputs.to(model.device)).words.flatten(0, 1).cpu()
        known = batch.mask & (batch.gold >= 0).any(-1)
        vectors.append(words[batch.places[known]])
        gold.append(batch.gold[known])
    model.train(was_training)
    return torch.cat(vectors), torch.cat(gold)


def _batches(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    n_words = 0
    for at in range(0, len(examples), BATCH):
        if n_words >= WORDS:
            return
        some = [example for example in examples[at : at + BATCH] if len(example.reference)]
        n_words += sum(len(example.reference) for example in some)
        if some:
            yield some


@torch.no_grad()
def fit_tags(decoder: TagDecoder, words: Tensor, gold: Tensor, labels: Tensor | None = None) -> None:
    """Set the layer that scores tags to the linear discriminant of words with known tags.

    Parameters
    ----------
    decoder
        Built.
    words
        Vectors, ``(words, hidden)``.
    gold
        Tags, below 0 where not known, ``(words, chains)``.
    labels
        Vectors of the labels, ``(labels, size)``: the mean of the words of a tag leans on those of the same tag of
        labels alike, the more the fewer words there are.
    """
    words = words.double()
    centre = words.mean(0)
    words = words - centre
    n_tags = len(decoder.tags)
    sums = torch.zeros(decoder.n_chains * n_tags, words.shape[1], dtype=torch.double)
    counts = torch.zeros(len(sums), dtype=torch.double)
    for chain, tags in enumerate(gold.T):
        known = tags >= 0
        places = tags[known] + chain * n_tags
        sums.index_add_(0, places, words[known])
        counts += places.bincount(minlength=len(sums))
    # of each chain, how often a tag is met
    rates = (counts + 1).view(decoder.n_chains, n_tags)
    rates = (rates / rates.sum(1, keepdim=True)).flatten()
    if labels is not None:
        alike = _alike(decoder, labels.double())
        others, number = alike @ sums, alike @ counts
        trust = torch.where(number > 0, ENOUGH, 0.0)
        sums = sums + trust[:, None] * others / number.clamp(min=1e-9)[:, None]
        counts = counts + trust
    means = sums / counts.clamp(min=1)[:, None]
    within = words
    if decoder.n_chains == 1:
        within = words - means[gold[:, 0]]
    spread = within.T @ within / len(words)
    plain = torch.eye(len(spread), dtype=torch.double) * spread.diagonal().mean()
    weight = torch.linalg.solve((1 - SHRINKAGE) * spread + SHRINKAGE * plain, means.T).T
    bias = rates.log() - (weight * means).sum(1) / 2 - weight @ centre
    decoder.project.weight.copy_(weight)
    decoder.project.bias.copy_(bias)


def _alike(decoder: TagDecoder, labels: Tensor) -> Tensor:
    """How much each tag of each chain borrows from each other: of its prefix, by the likeness of their labels."""
    tags = decoder.tables.labels.flatten()
    prefixes = torch.tensor([ord(prefix) for prefix in decoder.tables.prefixes * decoder.n_chains])
    unit = torch.nn.functional.normalize(labels - labels.mean(0), dim=1)
    likeness = (unit @ unit.T).clamp(min=0.0).fill_diagonal_(0.0)
    inside = (tags[:, None] >= 0) & (tags >= 0) & (prefixes[:, None] == prefixes)
    return torch.where(inside, likeness[tags[:, None], tags], 0.0)
