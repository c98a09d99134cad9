"""Wrong arguments of blocks and commands, given in Python, raise errors of this package."""

from __future__ import annotations

import pickle

import pytest
import spacy
from confit import Config
from confit.errors import ConfitValidationError

from gliner_pipe.data.readers import bio
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.evaluate import evaluate
from gliner_pipe.modeling.decoders.softmax import SoftmaxTags
from gliner_pipe.registry import registry
from gliner_pipe.train import train

RECORD = {"tokenized_text": ["Ann"], "ner": [[0, 0, "person"]]}


@pytest.mark.parametrize(
    ("call", "where", "found"),
    [
        (lambda: SoftmaxTags(dropout=1.5), "decoders.softmax.dropout", "is 1.5"),
        (lambda: SoftmaxTags(drop=0.1), "decoders.softmax.drop", "is no argument"),
        (lambda: registry.schedules.get("linear")(warmup_rate=-1), "schedules.linear.warmup_rate", "is -1"),
        (lambda: bio("a.csv", limit=-1), "readers.bio.limit", "is -1"),
        (lambda: train(spacy.blank("en"), [RECORD], seed="x"), "train.seed", "is 'x'"),
        (lambda: train(spacy.blank("en"), [{"foo": 1}]), "train.train_data.foo", "is no option"),
        (lambda: evaluate(pipeline="a", data="b", batch_size="many"), "batch_size", "is 'many'"),
    ],
)
def test_the_argument_is_named(call, where, found):
    with pytest.raises(ConfigError) as caught:
        call()
    assert caught.value.where == where and caught.value.found.startswith(found)
    assert str(caught.value).startswith(f"[{where}] ") and "\n" not in str(caught.value)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy)) == (type(caught.value), str(caught.value))


def test_add_pipe_names_block_and_argument():
    with pytest.raises(ConfigError) as caught:
        spacy.blank("en").add_pipe(
            "token_classifier", config={"decoder": {"@decoders": "softmax", "dropout": 1.5}}
        )
    assert caught.value.where == "decoders.softmax.dropout"


def test_errors_in_data_stay_what_they_are():
    with pytest.raises(DataError):
        train(spacy.blank("en"), "nowhere.jsonl")


def test_confit_adds_the_section():
    with pytest.raises(ConfitValidationError) as caught:
        Config({"ner": {"decoder": {"@decoders": "softmax", "dropout": 1.5}}}).resolve(registry=registry)
    assert caught.value.errors()[0]["loc"] == ("ner", "decoder", "dropout")
