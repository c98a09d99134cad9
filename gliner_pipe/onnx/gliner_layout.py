"""Exports a model in GLiNER's ONNX layout, which runtimes in Rust, C++, JavaScript and Java read."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gliner_pipe.checkpoints.gliner_assets import LABELS_TOKENIZER
from gliner_pipe.checkpoints.gliner_read import CONFIG
from gliner_pipe.checkpoints.gliner_write import gliner_config, save_tokenizers
from gliner_pipe.checkpoints.refusals import Format
from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import WindowBatch
from gliner_pipe.modeling.encoders.base import Encoded, EncoderBatch, Query
from gliner_pipe.modeling.encoders.bi_encoder import BiEncoder
from gliner_pipe.modeling.encoders.causal_encoder import CausalEncoder
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.precision import full_precision
from gliner_pipe.modeling.span_reps.token_level import TokenLevel
from gliner_pipe.onnx.compare import LABELS, TEXTS, Difference, check_same
from gliner_pipe.onnx.graph_layers import for_graphs
from gliner_pipe.onnx.graphs import MODEL, Stage
from gliner_pipe.onnx.runtime import OnnxGLiNER
from gliner_pipe.onnx.session import CPU, WHERE, Graph, library
from gliner_pipe.onnx.tracing import quantize, trace
from gliner_pipe.util.atomic import replace_directory

#: Version of the operators: any onnxruntime since 1.14 runs it.
OPSET = 18
#: Folder of the graph.
FOLDER = "onnx"
#: Inputs of all models, then those of models that score spans, and those of models with a label encoder.
TEXT = ("input_ids", "attention_mask", "words_mask", "text_lengths")
SPANS = ("span_idx", "span_mask")
LABEL_TEXTS = ("labels_input_ids", "labels_attention_mask")
#: Score of padding in models that score words.
PADDING = -1e4
#: What the runtimes outside Python assume: ids around a text, and the tokens of a prompt.
ENDS, PROMPT = (1, 2), {"ent_token": "<<ENT>>", "sep_token": "<<SEP>>"}

_LAYOUT = Format("GLiNER's ONNX layout")

logger = logging.getLogger(__name__)


def write_gliner_layout(model: Any, target: Path, words: str, *, int8: bool = False) -> Difference:
    """Write a model as ``gliner_config.json``, tokenizers and ``onnx/model.onnx``; the model is not changed.

    The scores of words of a model without a label encoder are written in two orders: as the runtimes outside Python
    read them, and as ``model.onnx``, which the package ``gliner`` reads.

    Parameters
    ----------
    model
        The model, with weights.
    target
        Output folder, written atomically.
    words
        GLiNER's name of the word splitter.
    int8
        Whether to quantise the matrix products of the encoders to 8 bits.

    Returns
    -------
    Difference
        Between the scores of some sentences from the model and from the file.

    Raises
    ------
    ConfigError
        If the layout cannot hold the model, or the file has other scores than the model. Nothing is written then.
    """
    if isinstance(model, OnnxGLiNER):
        raise ConfigError(WHERE, "is exported already", "a model with weights of torch")
    _check(model)
    device = model.device
    try:
        with full_precision(model.to("cpu")), replace_directory(target, marker=CONFIG) as folder:
            plain: Any = for_graphs(model)
            mode = "token" if isinstance(model.span_rep, TokenLevel) else "span"
            config = gliner_config(plain, words) | {"mode": mode}  # for fast-gliner
            (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf8")
            save_tokenizers(model, folder)
            for file in (folder / "tokenizer.json", folder / LABELS_TOKENIZER / "tokenizer.json"):
                if file.is_file():
                    _read_whole_words(file)
            (folder / FOLDER).mkdir()
            path, difference = _write_graph(model, plain, folder / FOLDER, int8=int8)
            if mode == "token" and not isinstance(model.encoder, BiEncoder):
                shutil.copyfile(path, folder / path.name)
                _put_kind_first(path)
            return difference
    finally:
        model.to(device)


def _write_graph(model: GLiNER, plain: Any, folder: Path, *, int8: bool) -> tuple[Path, Difference]:
    """Write the graph and compare it with the model."""
    batch, inputs = example(model)
    stage = Stage(MODEL, Layout(plain, tuple(inputs)), inputs, ("logits",), "encoder")
    path = trace(stage, folder, OPSET)
    if int8:
        logger.info("%s: %d matrix products quantised to int8", path.name, quantize(path))
    with torch.no_grad():
        expected = model.score(batch).sigmoid()
    made = Graph(path, None, [CPU]).run(inputs)["logits"].sigmoid()
    is_scored = batch.windows.word_mask
    if model.max_width is not None:
        is_scored = inputs["span_mask"].view(made.shape[:3])
    difference = Difference.of((made - expected)[is_scored].abs().flatten().tolist())
    if not int8:
        check_same(difference)
    return path, difference


def _put_kind_first(path: Path) -> None:
    """Change the scores of a graph from ``(rows, words, labels, 3)`` to ``(3, rows, words, labels)``, in place."""
    onnx = library("onnx")
    model = onnx.load(path)
    graph, order = model.graph, (3, 0, 1, 2)
    (output,) = graph.output
    before = f"{output.name}_of_words"
    for node in graph.node:
        node.output[:] = [before if name == output.name else name for name in node.output]
    graph.node.append(onnx.helper.make_node("Transpose", [before], [output.name], perm=order))
    shape = output.type.tensor_type.shape
    sizes = [onnx.TensorShapeProto.Dimension.FromString(size.SerializeToString()) for size in shape.dim]
    for place, axis in enumerate(order):
        shape.dim[place].CopyFrom(sizes[axis])
    onnx.save(model, path)


def _check(model: GLiNER) -> None:
    """Refuse what the layout cannot hold, and report what its runtimes read differently."""
    for option, block in (("relation_layer", model.relation_layer), ("decoder", model.label_generator)):
        if block is not None:
            raise _LAYOUT.refusal(option, f"found {type(block).__name__}", "a model of entities only")
    if isinstance(model.encoder, CausalEncoder):
        raise _LAYOUT.refusal("encoder", "found a causal_encoder", "uni_encoder, bi_encoder")
    if getattr(model.span_rep, "represent_spans", False):
        found = "found true: its scores are those of spans, and the runtimes read those of words"
        raise _LAYOUT.refusal("span_rep.represent_spans", found, "false")
    gliner_config(model)  # refuses what GLiNER does not have
    for note in _differences(model):
        logger.warning("Runtimes other than the Python package gliner (Rust, C++, JavaScript, Java) %s", note)


def _differences(model: GLiNER) -> list[str]:
    """Return what the runtimes outside Python do differently for a model."""
    encoder, backbone = model.encoder, model.encoder.backbone
    assert isinstance(backbone, nn.Module)
    if isinstance(encoder, BiEncoder):
        return ["do not run models with a label encoder."]
    notes = []
    pooling: Any = backbone.pooling
    if pooling != "first":
        notes.append(f"read the first subword token of each word, and this model has pooling = {pooling!r}.")
    for option, token in PROMPT.items():
        if (found := getattr(encoder, option)) != token:
            notes.append(f"write {token!r} into the prompt, and this model has {option} = {found!r}.")
    if len(backbone.prefix) != 1 or len(backbone.suffix) != 1:  # type: ignore[arg-type]
        notes.append("add one token before and one after a text, and the tokenizer of this model does not.")
    return notes


def _read_whole_words(file: Path) -> None:
    """Switch off padding and truncation in a tokenizer file: runtimes apply it to one word at a time."""
    content = json.loads(file.read_text(encoding="utf8"))
    content["padding"] = content["truncation"] = None
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf8")


# -- the graph ---------------------------------------------------------------------------------------------------


class Layout(nn.Module):
    """A model with the inputs and the output of GLiNER's layout.

    Parameters
    ----------
    model
        The model, in a form that can be exported.
    inputs
        Names of the inputs: those of ``TEXT``, and ``SPANS`` and ``LABEL_TEXTS`` where the model has them.

    Notes
    -----
    The scores are those of spans, ``(rows, words, widths, labels)``, or those of start, end and inside of words,
    ``(rows, words, labels, 3)``. As in GLiNER, the number of labels is that of the label tokens in ``input_ids``.
    ``words_mask`` holds the number of the word (from 1) at the subword token that stands for it. All spans up to
    ``max_width`` are scored, whatever ``span_idx`` holds.
    """

    def __init__(self, model: Any, inputs: Sequence[str]) -> None:
        super().__init__()
        self.model, self.inputs = model, tuple(inputs)
        encoder = model.encoder
        self.ends: tuple[int, int] | None = None
        if isinstance(encoder, BiEncoder):
            return
        self.label_token: int = encoder.backbone.tokenizer.convert_tokens_to_ids(encoder.ent_token)
        before, after = encoder.backbone.prefix, encoder.backbone.suffix
        if len(before) == len(after) == 1 and (before[0], after[0]) != ENDS:
            self.ends = (int(before[0]), int(after[0]))

    def forward(self, *given: Tensor) -> tuple[Tensor]:
        """Return the logits."""
        tensors = dict(zip(self.inputs, given, strict=True))
        model, mask = self.model, tensors["attention_mask"]
        places = torch.arange(mask.shape[1]).expand_as(mask)
        ids = self._ids(tensors["input_ids"], mask, places)
        starts, counts, words = self._words(tensors, places)
        if isinstance(model.encoder, BiEncoder):
            positions = places[:, :0]
            is_label = positions > 0
        else:
            positions, is_label = self._prompt(ids, mask, places)
        none = words[:, :0]
        windows = WindowBatch(
            ids, mask, starts, counts, words, positions, is_label, own=torch.zeros(0, 2, dtype=torch.long)
        )
        encoded = model.encoder(EncoderBatch(windows, is_label, none, ()))
        if isinstance(model.encoder, BiEncoder):
            vectors = model.encoder.label_encoder.embed(*(tensors[name] for name in LABEL_TEXTS))
            labels = vectors.expand(mask.shape[0], -1, -1)
            is_label = torch.ones_like(labels[:, :, 0], dtype=torch.bool)
            encoded = Encoded(encoded.words, labels, encoded.words[:, :0])
        read = model.refine(encoded, words, is_label)
        logits: Tensor = model.span_rep.logits(read, words)
        if model.max_width is None:  # gline-rs reads the scores of padding too
            logits = logits.masked_fill(~words[:, :, None, None], PADDING)
        return (logits,)

    def _ids(self, ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        """Return the ids with the tokenizer's own tokens around each text: some runtimes write those of DeBERTa."""
        if self.ends is None:
            return ids
        last = mask.sum(1, keepdim=True) - 1
        return torch.where(places == 0, self.ends[0], torch.where(places == last, self.ends[1], ids))

    def _words(self, tensors: dict[str, Tensor], places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return first subword token and number of subword tokens of each word, and the mask of words."""
        marks, lengths = tensors["words_mask"], tensors["text_lengths"]
        if self.model.max_width is not None:
            n_words = tensors["span_idx"].shape[1] // self.model.max_width
        else:
            n_words = lengths.max().item()
            torch._check(n_words >= 2)  # as for the other dimensions: none is 0 or 1 when traced
        none = marks.new_zeros(marks.shape[0], n_words + 1)
        if self.model.encoder.backbone.pooling in ("first", "last"):
            starts = none.scatter(1, marks, places)
            counts = none.scatter(1, marks, torch.ones_like(marks))
        else:
            starts = (none + marks.shape[1]).scatter_reduce(1, marks, places, "amin")
            counts = none.scatter_reduce(1, marks, torch.ones_like(marks), "sum")
            starts = starts.clamp(max=marks.shape[1] - 1)
        words = torch.arange(n_words) < lengths
        return starts[:, 1:], counts[:, 1:], words

    def _prompt(self, ids: Tensor, mask: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return the subword token of each label, and the mask of labels."""
        is_label = (ids == self.label_token) & (mask > 0)
        n_labels = is_label.sum(1).max().item()
        torch._check(n_labels >= 2)
        torch._check(n_labels <= ids.shape[1])
        length = ids.shape[1]
        found = torch.where(is_label, places, length).sort(1).values[:, :n_labels]
        after = 0 if self.model.encoder.embed_ent_token else 1
        return (found + after).clamp(max=length - 1), found < length


def example(model: GLiNER) -> tuple[EncoderBatch, dict[str, Tensor]]:
    """Return some texts as a batch of the model, and as inputs of the layout."""
    encoder: Any = model.encoder
    is_bi = isinstance(encoder, BiEncoder)
    batch: EncoderBatch = encoder.collate(encoder.prepare(TEXTS, [Query(LABELS)] * len(TEXTS), 0))
    windows = batch.windows
    lengths = windows.word_mask.sum(1, keepdim=True)
    marks = torch.zeros_like(windows.input_ids)
    for row, word in windows.word_mask.nonzero().tolist():
        first = int(windows.piece_start[row, word])
        last = first + int(windows.piece_count[row, word]) - 1
        pooling = encoder.backbone.pooling
        marks[row, last if pooling == "last" else first : first + 1 if pooling == "first" else last + 1] = (
            word + 1
        )
    inputs = {
        "input_ids": windows.input_ids,
        "attention_mask": windows.attention_mask,
        "words_mask": marks,
        "text_lengths": lengths,
    }
    if model.max_width is not None:
        starts = torch.arange(windows.word_mask.shape[1]).repeat_interleave(model.max_width)
        ends = starts + torch.arange(model.max_width).repeat(windows.word_mask.shape[1])
        is_span = ends < lengths
        inputs |= {"span_idx": torch.stack([starts, ends], 1) * is_span[:, :, None], "span_mask": is_span}
    if is_bi:
        labels = encoder.label_encoder.cut(LABELS)
        inputs |= {f"labels_{name}": labels[name] for name in ("input_ids", "attention_mask")}
    return batch, inputs
