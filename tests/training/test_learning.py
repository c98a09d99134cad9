"""Whole trainings of the real component with a tiny backbone."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import confit
import pytest
import spacy
import torch

from gliner_pipe.errors import ConfigError, DataError, TrainingError
from gliner_pipe.registry import registry
from gliner_pipe.train import train
from gliner_pipe.training.step import DeviceFullError
from tests.training.conftest import records, weights, write


def options(config_path: Path, **changes):
    resolved = confit.Config.from_disk(config_path, resolve=True, registry=registry)
    return {**resolved["train"], "loggers": [], **changes}


def test_loss_falls_and_scores_rise(config_path, tmp_path, capsys):
    seen = []
    nlp = train(
        **options(
            config_path,
            max_steps=180,
            validation_interval=60,
            on_validation_callback=seen.append,
            loggers=["jsonl", "csv"],
            sample_texts=["Ann lives in Oslo ."],
        )
    )
    assert [record["step"] for record in seen] == [60, 120, 180]
    assert seen[-1]["loss"] < 0.2 * seen[0]["loss"]
    assert seen[-1]["scores"]["ner"]["micro"]["f"] > 0.9
    assert seen[-1]["validation"]["words_per_second"] > 0

    out = tmp_path / "out"
    assert sorted(item.name for item in out.iterdir()) == [
        "checkpoints", "model-best", "model-last", "train_config.cfg", "train_log.csv", "train_log.jsonl"
    ]  # fmt: skip
    best = spacy.load(out / "model-best")
    doc = best("Ann lives in Oslo .")
    assert {(span.text, span.label_) for span in doc.spans["gliner"]} >= {("Ann", "person"), ("Oslo", "city")}
    top = max(record["scores"]["ner"]["micro"]["f"] for record in seen)
    assert best.meta["performance"]["ner.micro.f"] == pytest.approx(top)
    assert best.meta["performance"]["ner"]["person"]["f"] > 0.8
    for folder in (out / "model-best", out / "model-last"):
        assert (folder / "train_config.cfg").read_text("utf8") == (out / "train_config.cfg").read_text("utf8")

    last = spacy.load(out / "model-last")
    for name, value in weights(nlp).items():
        assert torch.equal(value, weights(last)[name]), name

    printed = capsys.readouterr().out.splitlines()
    assert printed[-5] == "Training ended after step 180: all steps completed (max_steps = 180)"
    assert printed[-4] == f"last model: {out / 'model-last'}"
    assert printed[-3].startswith(f"best model: {out / 'model-best'} (ner.micro.f {100 * top:.1f} at step")
    assert printed[-1].startswith("  [Ann | person ")

    lines = [json.loads(line) for line in (out / "train_log.jsonl").read_text("utf8").splitlines()]
    steps = [line for line in lines if line["type"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, 181))
    assert all(line["words"] > 0 and line["docs"] == 8 and line["words_per_second"] > 0 for line in steps)
    assert steps[17]["lr"]["task"] == pytest.approx(3e-3) and steps[-1]["lr"]["task"] < 1e-4
    assert steps[0]["loss"] == pytest.approx(steps[0]["parts"]["gliner.span"])
    rows = list(csv.DictReader((out / "train_log.csv").read_text("utf8").splitlines()))
    assert [row["step"] for row in rows] == ["60", "120", "180"]
    assert float(rows[-1]["scores.ner.micro.f"]) == seen[-1]["scores"]["ner"]["micro"]["f"]
    mean = sum(line["loss"] for line in steps[120:]) / 60
    assert float(rows[-1]["loss"]) == pytest.approx(mean)


def test_the_seed_determines_the_weights(config_path):
    one, same, other = (weights(train(**options(config_path, seed=seed))) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_data_seed_determines_only_the_order(config_path, tmp_path):
    def first_sources(**changes):
        train(**options(config_path, max_steps=1, loggers=["jsonl"], **changes))
        lines = (tmp_path / "out" / "train_log.jsonl").read_text("utf8").splitlines()
        return json.loads(lines[1])["loss"]

    assert first_sources(seed=1, data_seed=5) != first_sources(seed=1, data_seed=6)
    assert first_sources(seed=1) == first_sources(seed=1, data_seed=1)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_splitting_a_batch_does_not_change_the_weights(config_path, reduction):
    def trained(max_tokens):
        resolved = confit.Config.from_disk(config_path)
        resolved["components"]["gliner"]["model"]["loss"] = {
            "@losses": "gliner_pipe.focal",
            "reduction": reduction,
        }
        resolved = resolved.resolve(registry=registry)["train"]
        # SGD: Adam would amplify rounding errors of gradients near zero
        changes = {
            "grad_accumulation_max_tokens": max_tokens,
            "optimizer": "sgd",
            "max_grad_norm": 0.1,
            "loggers": [],
        }
        return weights(train(**{**resolved, **changes, "task_lr": 0.1, "transformer_lr": 0.1}))

    whole, cut = trained(None), trained(40)
    assert any(not torch.equal(whole[name], cut[name]) for name in whole), "nothing was split"
    for name in whole:
        assert torch.allclose(whole[name], cut[name], atol=1e-6), name


def test_gradients_are_averaged_over_counts_not_over_sub_batches(config_path):
    """A step with sub-batches of seven and one examples equals the step with all eight."""
    from gliner_pipe.training.data_loader import StepStream
    from gliner_pipe.training.data_sections import TrainData
    from gliner_pipe.training.distributed import TrainedModels, make_accelerator
    from gliner_pipe.training.schedules import constant
    from gliner_pipe.training.step import Learner

    given = options(config_path)
    from gliner_pipe.pipeline.build import PipelineArg

    grads = []
    for sizes in ([8], [7, 1], [1, 1, 6]):
        nlp = PipelineArg.validate(given["nlp"])
        examples = TrainData.validate(given["train_data"])[0].read(nlp, "train")[:8]
        torch.manual_seed(0)
        nlp.initialize(lambda examples=examples: examples)
        component = nlp.get_pipe("gliner")
        accelerator = make_accelerator("no", cpu=True)
        optimizer = torch.optim.SGD([{"params": list(component.model.parameters()), "name": "all"}], lr=1.0)
        module, optimizer = accelerator.prepare(TrainedModels({"gliner": component.model}, False), optimizer)
        learner = Learner(
            accelerator,
            {"gliner": component},
            module,
            optimizer,
            constant().build(optimizer.optimizer, 1),
            None,
        )

        stream = StepStream([], {"gliner": component}, seed=0, max_tokens=None)
        parts, start = [], 0
        for size in sizes:
            parts.append(stream.collate([(0, examples[start : start + size])]))
            start += size
        whole = parts[0]
        whole.sub_batches = [sub_batch for part in parts for sub_batch in part.sub_batches]
        before = weights(nlp)
        result = learner.step(1, whole)
        after = weights(nlp)
        grads.append(({name: before[name] - after[name] for name in before}, result.loss))
    for other, loss in grads[1:]:
        assert loss == pytest.approx(grads[0][1], rel=1e-5)
        for name in other:
            assert torch.allclose(grads[0][0][name], other[name], atol=1e-4, rtol=1e-4), name


def test_bf16_on_the_cpu_trains_and_does_not_change_the_component(config_path):
    plain = train(**options(config_path, cpu=True))
    half = train(**options(config_path, mixed_precision="bf16", cpu=True))
    model = half.get_pipe("gliner").model
    assert "forward" not in vars(model) and {p.dtype for p in model.parameters()} == {torch.float32}
    one, two = weights(plain), weights(half)
    assert any(not torch.equal(one[name], two[name]) for name in one)
    again = train(**options(config_path, cpu=True))
    assert all(torch.equal(one[name], value) for name, value in weights(again).items())


def test_worker_processes_give_the_same_weights(config_path):
    one = weights(train(**options(config_path)))
    two = weights(train(**options(config_path, num_workers=2)))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_nan_loss_stops_the_training_and_keeps_the_models(config_path, tmp_path):
    class Spoil:
        """Sets weights to NaN after the second step."""

        def start(self, run): ...
        def validation(self, record): ...
        def finish(self):
            self.finished = True

        def step(self, record):
            if record["step"] == 2:
                with torch.no_grad():
                    next(iter(self.nlp.get_pipe("gliner").model.prompt_rep.parameters())).fill_(math.nan)

    from gliner_pipe.pipeline.build import PipelineArg

    spoil = Spoil()
    given = options(config_path, loggers=[spoil], max_steps=10, validation_interval=1)
    given["nlp"] = spoil.nlp = PipelineArg.validate(given["nlp"])
    spoil.validation = lambda record: None
    with pytest.raises(TrainingError, match=r"step 3.*nan.*transformer .*train.jsonl:\d+"):
        train(**given, checkpoint_interval=1)
    assert spoil.finished
    saved = weights(spacy.load(tmp_path / "out" / "model-best"))
    assert all(torch.isfinite(value).all() for value in saved.values())


def test_a_saved_pipeline_can_be_trained_further(config_path, tmp_path):
    first = train(**options(config_path))
    folder = tmp_path / "out" / "model-last"
    given = options(
        config_path, transformer_lr=0.0, task_lr=0.0, max_steps=1, output_path=tmp_path / "two" / "last"
    )
    given["nlp"] = folder
    second = train(**given)
    assert all(torch.equal(value, weights(second)[name]) for name, value in weights(first).items())


def test_labels_are_read_from_the_data_when_none_are_given(config_path):
    given = options(config_path, max_steps=1)
    given["nlp"]["components"]["gliner"]["labels"] = []
    assert train(**given).get_pipe("gliner").labels == ("city", "person")


def test_other_components_do_not_change(config_path, tmp_path):
    from gliner_pipe.pipeline.build import PipelineArg

    given = options(config_path, max_steps=1)
    nlp = PipelineArg.validate(given["nlp"])
    ruler = nlp.add_pipe("entity_ruler", first=True)
    ruler.add_patterns([{"label": "KEPT", "pattern": "zebra"}])
    trained = train(**{**given, "nlp": nlp})
    assert trained.pipe_names == ["entity_ruler", "gliner"]
    assert spacy.load(tmp_path / "out" / "model-last")("a zebra").ents[0].label_ == "KEPT"


def test_each_step_draws_a_batch_of_each_dataset(config_path, tmp_path):
    more = write(tmp_path / "more.jsonl", records(30, seed=5))
    given = options(config_path, max_steps=2, loggers=["jsonl"])
    given["train_data"] = [given["train_data"], {"reader": str(more), "batch_size": 3}]
    train(**given)
    lines = (tmp_path / "out" / "train_log.jsonl").read_text("utf8").splitlines()
    assert [json.loads(line)["docs"] for line in lines if '"step", "step"' in line] == [11, 11]


def test_patience_ends_the_training(config_path, capsys):
    seen = []
    train(
        **options(
            config_path,
            max_steps=50,
            validation_interval=2,
            patience=3,
            transformer_lr=0.0,
            task_lr=0.0,
            on_validation_callback=seen.append,
        )
    )
    assert [record["step"] for record in seen] == [2, 4, 6, 8]
    assert [record["best"] for record in seen] == [True, False, False, False]
    top = f"{100 * seen[0]['scores']['ner']['micro']['f']:.1f} at step 2"
    ended = "Training ended after step 8: ner.micro.f did not improve in 3 validations (patience = 3)"
    printed = capsys.readouterr().out.splitlines()
    assert printed[-3] == ended or printed[-4] == ended
    assert any(line.startswith("last model: ") for line in printed[-3:])
    assert any(line.startswith("best model: ") and top in line for line in printed[-3:])


def test_without_validation_data_only_the_last_model_is_saved(config_path, tmp_path, capsys):
    given = options(config_path)
    given.pop("val_data")
    train(**given)
    assert sorted(item.name for item in (tmp_path / "out").iterdir()) == [
        "checkpoints", "model-last", "train_config.cfg"
    ]  # fmt: skip
    assert capsys.readouterr().out.splitlines()[-1] == f"last model: {tmp_path / 'out' / 'model-last'}"
    with pytest.raises(ConfigError) as caught:
        train(**{**given, "best_metric": "ner.micro.f"})
    assert caught.value.where == "train.best_metric"


def test_an_unknown_best_metric_fails_before_training(config_path, tmp_path):
    with pytest.raises(ConfigError) as caught:
        train(**options(config_path, best_metric="ner.micro.ff"))
    assert caught.value.where == "train.best_metric" and "'ner.micro.ff'" in caught.value.found
    assert {"ner.micro.p", "ner.micro.f"} <= {*caught.value.allowed.split(", ")}
    assert "ner.micro.f?" in caught.value.do
    assert not (tmp_path / "out").exists()
    train(**options(config_path, max_steps=1, best_metric="ner.city.r"))


def test_a_pipeline_with_nothing_to_train_fails(config_path):
    given = options(config_path)
    for nlp, message in ((spacy.blank("en"), "no component at all"), (with_sentencizer(), "'sentencizer'")):
        with pytest.raises(ConfigError) as caught:
            train(**{**given, "nlp": nlp})
        assert caught.value.where == "train.nlp" and message in caught.value.found


def with_sentencizer():
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    return nlp


def test_data_without_entities_fail(config_path, tmp_path):
    empty = write(tmp_path / "empty.jsonl", [{"tokenized_text": ["Hello"], "ner": []}])
    with pytest.raises(DataError):
        train(**options(config_path, train_data=str(empty)))


def test_dropped_entities_are_counted_and_warned_about(config_path, tmp_path, capsys):
    wide = {
        "tokenized_text": ["the", "old", "man", "from", "Oslo", "slept"],
        "ner": [[0, 4, "person"], [4, 4, "city"]],
    }
    data = write(tmp_path / "wide.jsonl", [wide] * 3)
    train(**options(config_path, train_data=str(data), max_steps=1))
    out = capsys.readouterr().out
    assert "3 wider than 3 words (max_width)" in out
    assert (
        "warning: [components.gliner] 3 gold annotations cannot be learned: entity wider than max_width"
        in out
    )


def test_fp16_without_a_gpu_fails(config_path):
    with pytest.raises(ConfigError) as caught:
        train(**options(config_path, mixed_precision="fp16", cpu=True))
    assert caught.value.where == "train.mixed_precision" and "'fp16'" in caught.value.found


def test_out_of_memory_names_the_batch(config_path, monkeypatch):
    class Full:
        """Raises the error of torch in the middle of a step."""

        def start(self, run): ...
        def validation(self, record): ...
        def finish(self): ...
        def step(self, record):
            def full(*_):
                raise torch.cuda.OutOfMemoryError("full")

            monkeypatch.setattr(self.nlp.get_pipe("gliner").model, "encode", full)

    from gliner_pipe.pipeline.build import PipelineArg

    full = Full()
    given = options(config_path, loggers=[full])
    given["nlp"] = full.nlp = PipelineArg.validate(given["nlp"])
    with pytest.raises(DeviceFullError, match=r"step 2: 8 documents") as caught:
        train(**given)
    assert caught.value.documents == 8 and caught.value.tokens > 8
