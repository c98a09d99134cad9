"""On a CUDA device a pipeline gives the scores that it gives on the CPU, and learns."""

import pytest
import spacy
import torch
from conftest import gliner_config, make_backbone
from spacy.training import Example

DEVICE = "cuda"
TEXTS = ["Maria Lindqvist met Bob in Oslo.", "Rain.", "The museum of Lima opened in March. " * 20] * 4

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def pipeline(folder, device, architecture="uni", **settings):
    """A pipeline that shows the score of every span."""
    torch.manual_seed(0)
    config = gliner_config(folder, device=device, threshold=0.0, flat_ner=False, multi_label=True, **settings)
    if architecture == "bi":
        config["model"]["encoder"] |= {"@encoders": "bi_encoder", "label_model": str(folder)}
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    assert nlp.get_pipe("gliner").gliner.device.type == device
    return nlp


def copy_weights(source, target):
    target.get_pipe("gliner").gliner.load_state_dict(source.get_pipe("gliner").gliner.state_dict())


def scores(nlp, **options):
    docs = list(nlp.pipe(TEXTS, **options))
    assert [doc.text for doc in docs] == TEXTS
    found = {}
    for number, doc in enumerate(docs):
        group = doc.spans["gliner"]
        for span, score in zip(group, group.attrs["scores"], strict=True):
            found[number, span.start, span.end, span.label_] = float(score)
    return found


def furthest(found, expected):
    assert found.keys() == expected.keys() and len(found) > 1000
    return max(abs(found[key] - expected[key]) for key in found)


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("architecture", ["uni", "bi"])
def test_the_same_scores(kind, architecture, tmp_path):
    folder = make_backbone(tmp_path / kind, kind)
    here, there = pipeline(folder, "cpu", architecture), pipeline(folder, DEVICE, architecture)
    copy_weights(here, there)
    expected = scores(here)
    assert furthest(scores(there), expected) < 1e-3  # products may run in tf32
    assert furthest(scores(there, batch_size=1), expected) < 1e-3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch.compile imports
@pytest.mark.parametrize("settings", [{"dtype": "bf16"}, {"dtype": "fp16"}, {"compile": True}], ids=str)
def test_precisions(settings, backbone):
    here, there = pipeline(backbone, "cpu"), pipeline(backbone, DEVICE, **settings)
    copy_weights(here, there)
    assert furthest(scores(there), scores(here)) < 0.05


def test_the_budget_follows_the_memory(backbone):
    nlp = pipeline(backbone, DEVICE)
    budget = nlp.get_pipe("gliner").token_budget
    before = budget.tokens
    scores(nlp)
    assert budget.tokens != before and budget.tokens >= 512


def test_learning(backbone):
    nlp = pipeline(backbone, DEVICE)
    reference = nlp.make_doc(TEXTS[0])
    reference.spans["gliner"] = [spacy.tokens.Span(reference, 0, 2, "person")]
    example = Example(nlp.make_doc(TEXTS[0]), reference)
    optimizer = nlp.resume_training()
    optimizer.learn_rate = 1e-3
    nlp.get_pipe("gliner").cfg["max_learn_rate"] = None
    losses = [nlp.update([example], sgd=optimizer)["gliner"] for _ in range(10)]
    assert losses[-1] < 0.8 * losses[0]
