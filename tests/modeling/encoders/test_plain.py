"""Words alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.encoders.plain import PlainEncoder

TEXTS = [["Ada", "Lovelace", "met", "Charles", "Babbage"], ["Paris"], []]


def test_returns_the_vectors_of_the_backbone(backbone: Path) -> None:
    encoder = PlainEncoder(Transformer(str(backbone)))
    encoder.build()
    encoder.eval()
    windows = encoder.prepare(TEXTS, [Query(())] * len(TEXTS), 0, Counter())
    assert [window.text for window in windows] == [0, 1]
    batch = encoder.collate(windows)
    assert batch.windows.input_ids.shape[1] == 2 + max(len(window.ids) for window in windows)
    with torch.no_grad():
        words, labels, relations, _ = encoder(batch)
        assert torch.equal(words, encoder.backbone(batch.windows).words)
    assert words.shape == (2, 5, encoder.output_size)
    assert labels.shape == relations.shape == (2, 0, encoder.output_size)


def test_reads_no_labels(backbone: Path) -> None:
    encoder = PlainEncoder(Transformer(str(backbone)))
    for query, label in ((Query(("person",)), "'person'"), (Query((), ("born in",)), "'born in'")):
        with pytest.raises(ConfigError) as error:
            encoder.prompt(query)
        assert error.value.where == "components.*.model.encoder" and label in error.value.found
