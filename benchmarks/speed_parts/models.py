"""The same weights three times: as a pipeline, as a model of the `gliner` package, and as a bare encoder."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from common import DEBERTA_V3, minilm
from torch import nn

from .cases import Case, label_names

PIECES_AT_ONCE = 2048
#: Entities that a text of 25 words should have, as real ones do; random weights know no better.
ENTITIES_A_WORD = 0.08


def backbone_folder(kind: str, work: Path) -> Path:
    """Folder of an encoder; those of random weights are made once, with MiniLM's tokenizer."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    if kind == "minilm":
        return minilm()
    folder = work / kind
    if folder.is_dir():
        return folder
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    tokenizer.model_max_length = 2048
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if kind.startswith("deberta-v3"):
        kind_name = "deberta-v2"
        sizes |= {
            "hidden_size": 768, "num_hidden_layers": 6 if kind.endswith("small") else 12,
            "num_attention_heads": 12, "intermediate_size": 3072,
            "max_position_embeddings": 512, **DEBERTA_V3,
        }  # fmt: skip
    else:
        kind_name = "modernbert"
        specials = {"cls": tokenizer.cls_token_id, "sep": tokenizer.sep_token_id}
        sizes |= {
            "hidden_size": 768, "num_hidden_layers": 22, "num_attention_heads": 12, "intermediate_size": 1152,
            "cls_token_id": specials["cls"], "sep_token_id": specials["sep"], "bos_token_id": specials["cls"],
            "eos_token_id": specials["sep"], "max_position_embeddings": 2048,
        }  # fmt: skip
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(kind_name, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def checkpoint(case: Case, work: Path) -> Path:
    """Folder of a GLiNER checkpoint of the case's architecture, made once."""
    import spacy

    from gliner_pipe.checkpoints.gliner_write import write_checkpoint

    folder = work / f"{case.backbone}-{case.architecture}"
    if folder.is_dir():
        return folder
    torch.manual_seed(0)
    random.seed(0)
    encoder: dict[str, Any] = {"@encoders": "uni_encoder"}
    if case.architecture.startswith("bi"):
        encoder = {"@encoders": "bi_encoder", "label_model": str(minilm())}
    encoder["backbone"] = {"@backbones": "transformer", "model": str(backbone_folder(case.backbone, work))}
    encoder["backbone"] |= {"window": 384} if case.backbone == "minilm" else {"window": 1024, "stride": 768}
    if case.backbone != "minilm":
        encoder["backbone"]["hidden_size"] = 512
    span_rep = {"@span_reps": "markerV0" if case.architecture.endswith("span") else "token_level"}
    model = {"@architectures": "gliner_pipe.GLiNER.v1", "encoder": encoder, "span_rep": span_rep}
    component = spacy.blank("en").add_pipe("gliner", config={"model": model, "labels": ["a"]})
    component.gliner.build()
    with torch.no_grad():  # heads whose scores lie apart
        for name, weight in component.gliner.named_parameters():
            if weight.dim() > 1 and not name.startswith("encoder."):
                nn.init.normal_(weight, std=1.6 / weight.shape[1] ** 0.5)
        _spread(component.gliner.eval())
    write_checkpoint(component.gliner, folder, "whitespace")
    return folder


def _spread(model: Any) -> None:
    """Scale the last layer so that the largest score of a sentence is near 1, and none is 1."""
    from gliner_pipe.modeling.encoders.base import Query

    words = [
        "Maria",
        "Lindqvist",
        "joined",
        "the",
        "university",
        "of",
        "Oslo",
        "in",
        "March",
        "and",
        "flew",
        "to",
        "Lima",
        "with",
        "Ana",
        "Silva",
        ".",
    ]
    windows = model.encoder.prepare([words], [Query(tuple(label_names(5)))], model.min_overlap)
    largest = float(model.score(model.encoder.collate(windows)).abs().max())
    last = model.span_rep.scorer.out_mlp[3] if hasattr(model.span_rep, "scorer") else model.prompt_rep[3]
    for weight in last.parameters():
        weight.mul_(6 / largest)


def pipeline(case: Case, folder: Path, threshold: float = 0.5, **settings: Any) -> Any:
    """This project's side."""
    import spacy

    set_max_len(folder, 384)  # a side of `gliner` may have raised it: our windows follow it
    nlp = spacy.blank("en")
    config = {"model": str(folder), "labels": label_names(case.labels), "threshold": threshold}
    component = nlp.add_pipe("gliner", config={**config, **case.settings, **settings})
    component.gliner.eval()
    return nlp


def fitting_threshold(nlp: Any, texts: Sequence[str]) -> float:
    """Threshold above which a text has as many spans as real texts have entities."""
    from gliner_pipe.modeling.encoders.base import Query
    from gliner_pipe.modeling.inference import TokenBudget, predict_spans

    component = nlp.get_pipe("gliner")
    model = component.gliner
    words = [component.word_splitter.split(nlp.make_doc(text)).texts for text in texts]
    query = Query(tuple(item.text for item in component.label_items))
    windows = model.encoder.prepare(words, [query] * len(words), model.min_overlap)
    floor = (
        0.0 if model.max_width else 0.5
    )  # without a limit to their width, spans are too many to list them all
    found = predict_spans(
        model, windows, [[floor] * len(query.entities)] * len(words), TokenBudget(PIECES_AT_ONCE)
    )
    scores = sorted((candidate.score for one in found for candidate in one.candidates), reverse=True)
    wanted = ENTITIES_A_WORD * sum(map(len, words))
    places = range(max(1, int(wanted / 2)), min(int(2 * wanted), len(scores)))
    # in the widest gap between two scores, so that rounding decides about no span
    at = max(places, key=lambda place: scores[place - 1] - scores[place], default=0)
    return (scores[at - 1] + scores[at]) / 2 if at else 0.5


def set_max_len(folder: Path, words: int) -> None:
    """Set how many words of a text `gliner` reads; for us it is half the pieces of a window."""
    path = folder / "gliner_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "max_len": words}))


class Peer:
    """The `gliner` package with the same weights, asked as its documentation says."""

    def __init__(self, case: Case, folder: Path, threshold: float, batch_size: int = 8) -> None:
        from gliner import GLiNER

        set_max_len(folder, 2048)
        self.model = GLiNER.from_pretrained(str(folder)).eval()
        self.labels = label_names(case.labels)
        self.threshold, self.batch_size = threshold, batch_size
        self.vectors = None
        if case.architecture.startswith("bi"):
            with torch.inference_mode():
                self.vectors = self.model.encode_labels(self.labels)

    def __call__(self, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
        options = {"threshold": self.threshold, "batch_size": self.batch_size}
        with torch.inference_mode():
            if self.vectors is not None:
                return self.model.batch_predict_with_embeds(list(texts), self.vectors, self.labels, **options)
            return self.model.inference(list(texts), self.labels, **options)


class Bare:
    """The encoder alone as transformers runs it, over the same pieces, in rows of like length.

    Parameters
    ----------
    pieces
        Pieces at once.
    padded
        Rows of different lengths in one batch, as many as go into it; else one length at a time, without any padding.
    """

    def __init__(
        self,
        case: Case,
        work: Path,
        nlp: Any,
        texts: Sequence[str],
        pieces: int = PIECES_AT_ONCE,
        padded: bool = False,
    ) -> None:
        from transformers import AutoModel

        from gliner_pipe.modeling.encoders.base import Query

        component = nlp.get_pipe("gliner")
        query = Query(tuple(item.text for item in component.label_items))
        words = [component.word_splitter.split(nlp.make_doc(text)).texts for text in texts]
        encoder = component.gliner.encoder
        windows = encoder.prepare(words, [query] * len(words), component.gliner.min_overlap)
        rows = [encoder.backbone.collate([window]).input_ids[0] for window in windows]
        self.model = AutoModel.from_pretrained(backbone_folder(case.backbone, work)).eval()
        self.model.resize_token_embeddings(len(encoder.backbone.tokenizer), mean_resizing=False)
        self.lengths = sorted(len(row) for row in rows)
        self.n_words = sum(map(len, words))
        self.batches: list[dict[str, torch.Tensor]] = []
        rows.sort(key=len)
        group: list[torch.Tensor] = []
        for row in rows:
            other = bool(group) and not padded and len(row) != len(group[0])
            if group and (other or (len(group) + 1) * len(row) > pieces):
                self._add(group)
                group = []
            group.append(row)
        self._add(group)
        if case.precision == "bf16":
            self.model.bfloat16()

    def _add(self, rows: list[torch.Tensor]) -> None:
        batch = {"input_ids": nn.utils.rnn.pad_sequence(rows, batch_first=True)}
        if len(rows[0]) != len(rows[-1]):
            lengths = torch.tensor([len(row) for row in rows])
            batch["attention_mask"] = (torch.arange(int(lengths[-1])) < lengths[:, None]).long()
        self.batches.append(batch)

    def to(self, device: str, dtype: torch.dtype) -> None:
        """Move all to a device."""
        self.model.to(device, dtype)
        self.batches = [{name: x.to(device) for name, x in batch.items()} for batch in self.batches]

    def __call__(self) -> None:
        with torch.inference_mode():
            for batch in self.batches:
                self.model(**batch)
