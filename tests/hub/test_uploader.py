"""Which models and checkpoints a training pushes, and when."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import spacy
from hub.hub_server import TOKEN, HubServer
from huggingface_hub.utils import are_progress_bars_disabled

from gliner_pipe.errors import ConfigError
from gliner_pipe.hub import HubUploader, from_hub
from gliner_pipe.hub.uploader import default_name

#: A fault of the client, in its way to upload over plain HTTP.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


class Training:
    """Saves a pipeline that predicts the number of the step at which it was saved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, name: str, step: int) -> Path:
        nlp = spacy.blank("en")
        nlp.add_pipe("entity_ruler").add_patterns([{"label": "step", "pattern": str(step)}])
        path = self.folder / name
        if path.exists():
            shutil.rmtree(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        nlp.to_disk(path)
        if name.startswith("checkpoints"):
            (path / "training_state").mkdir()
            (path / "training_state" / "optimizer.bin").write_bytes(str(step).encode())
        return path

    def run(self, uploader: HubUploader, steps: int = 3, wait: bool = True) -> str | None:
        uploader.start()
        for step in range(1, steps + 1):
            uploader.saved(self.save("model-best", step), step, "best")
            uploader.saved(self.save("model-last", step), step, "last")
            path = self.save(f"checkpoints/step-{step}", step)
            uploader.saved(path, step, "checkpoint")
            shutil.rmtree(path)
            for item in uploader._uploads if wait else ():
                item.future.exception()
        return uploader.finish(self.save("model-best", 99))


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(tmp_path / "my run")


def made(training: Training, strategy: Any, **options: Any) -> tuple[HubUploader, list[str]]:
    notes: list[str] = []
    output = training.folder / "model-last"
    return HubUploader(None, output, strategy=strategy, note=notes.append, **options), notes


def summaries(hub: HubServer) -> list[str]:
    return [item["summary"] for item in hub.repos["ada/my-run"].commits]


def finds(hub: HubServer) -> str:
    return from_hub("ada/my-run")("1 2 3 99").ents[0].text


def state(hub: HubServer) -> dict[str, bytes]:
    files = hub.repos["ada/my-run"].branches["main"]
    return {path: data for path, data in files.items() if "training_state" in path}


def test_only_the_end(hub: HubServer, training: Training) -> None:
    uploader, notes = made(training, "end")
    url = training.run(uploader)
    assert summaries(hub) == ["End of the training"] and finds(hub) == "99" and state(hub) == {}
    assert notes == [f"pushed to the hub: {url}"]
    assert hub.repos["ada/my-run"].private and not are_progress_bars_disabled()


def test_every_save(hub: HubServer, training: Training) -> None:
    training.run(made(training, "every_save")[0])
    assert summaries(hub) == ["Step 1", "Step 2", "Step 3", "End of the training"]
    assert finds(hub) == "99" and state(hub) == {}
    assert sorted(path.name for path in training.folder.iterdir()) == [
        "checkpoints",
        "model-best",
        "model-last",
    ]


def test_the_newest_checkpoint(hub: HubServer, training: Training) -> None:
    training.run(made(training, "checkpoint")[0])
    assert state(hub) == {"last-checkpoint/training_state/optimizer.bin": b"3"}
    assert summaries(hub) == [
        "Step 1",
        "Step 1",
        "Step 2",
        "Step 2",
        "Step 3",
        "Step 3",
        "End of the training",
    ]
    assert finds(hub) == "99"
    files = hub.repos["ada/my-run"].branches["main"]
    assert "last-checkpoint/config.cfg" in files and "last-checkpoint/README.md" not in files


def test_all_checkpoints(hub: HubServer, training: Training) -> None:
    training.run(made(training, "all_checkpoints", private=False)[0])
    assert state(hub) == {
        f"step-{step}/training_state/optimizer.bin": str(step).encode() for step in (1, 2, 3)
    }
    assert finds(hub) == "99" and not hub.repos["ada/my-run"].private


def test_a_save_is_skipped_while_an_upload_is_in_progress(hub: HubServer, training: Training) -> None:
    hub.gate.clear()
    uploader, _ = made(training, "checkpoint")
    uploader.start()
    for step in (1, 2, 3):
        uploader.saved(training.save("model-last", step), step)
        uploader.saved(training.save(f"checkpoints/step-{step}", step), step, "checkpoint")
    hub.gate.set()
    uploader.finish(training.save("model-last", 99))
    # the latest checkpoint is uploaded in the end, so that the repository does not keep an old one
    assert summaries(hub) == ["Step 1", "Step 1", "Checkpoint step-3", "End of the training"]
    assert state(hub) == {"last-checkpoint/training_state/optimizer.bin": b"3"}


def test_a_skipped_checkpoint_is_pushed_in_the_end(hub: HubServer, training: Training) -> None:
    hub.gate.clear()
    uploader, notes = made(training, "all_checkpoints")
    uploader.start()
    for step in (1, 2, 3):
        uploader.saved(training.save(f"checkpoints/step-{step}", step), step, "checkpoint")
    shutil.rmtree(training.folder / "checkpoints" / "step-2")  # one too many to keep
    hub.gate.set()
    uploader.finish(training.save("model-last", 99))
    assert summaries(hub) == ["Step 1", "Checkpoint step-3", "End of the training"]
    assert any("step-2 was removed before it could be uploaded" in note for note in notes)


def test_always_push(hub: HubServer, training: Training) -> None:
    hub.gate.clear()
    uploader, _ = made(training, "every_save", always_push=True)
    uploader.start()
    for step in (1, 2, 3):
        uploader.saved(training.save("model-last", step), step)  # replaces the folder that is being uploaded
    hub.gate.set()
    uploader.finish(None)
    assert summaries(hub) == ["Step 1", "Step 2", "Step 3"]
    assert finds(hub) == "3"


def test_a_failed_upload_is_reported_once_and_stops_nothing(hub: HubServer, training: Training) -> None:
    hub.broken["POST */commit/*"] = 400
    uploader, notes = made(training, "every_save")
    assert training.run(uploader) is None
    assert len(notes) == 1 and TOKEN not in notes[0] and "\n" not in notes[0]
    assert notes[0].startswith("warning: [train.push_to_hub] the upload of ")
    assert "model-last (Step 1) failed: the hub answers 400 (" in notes[0]


def test_uploads_continue_after_a_failure(hub: HubServer, training: Training) -> None:
    hub.broken["POST */commit/*"] = 400
    uploader, notes = made(training, "every_save")
    uploader.start()
    uploader.saved(training.save("model-last", 1), 1)
    uploader._uploads[0].future.exception()
    hub.broken.clear()
    uploader.saved(training.save("model-last", 2), 2)
    assert uploader.finish(training.save("model-last", 99)) is not None
    assert len(notes) == 2 and notes[1].startswith("pushed") and finds(hub) == "99"


def test_a_missing_folder_is_reported(hub: HubServer, training: Training) -> None:
    uploader, notes = made(training, "every_save")
    uploader.start()
    uploader.saved(training.folder / "nowhere", 1)
    assert uploader.finish(None) is None
    assert len(notes) == 1 and "nowhere failed: " in notes[0] and "does not exist" in notes[0]


def test_mistakes_are_reported_before_the_training(
    hub: HubServer, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"\[train.hub_strategy\] is 'always'; allowed: end, every_save, "):
        made(training, "always")
    with pytest.raises(ConfigError, match=r"\[train.push_to_hub\] .*'eve/x'"):
        HubUploader("eve/x", training.folder).start()
    monkeypatch.delenv("HF_TOKEN")
    uploader, _ = made(training, "end")
    with pytest.raises(ConfigError, match=r"\[train.push_to_hub\] .*HF_TOKEN"):
        uploader.start()
    assert uploader.finish(None) is None and not hub.repos


def test_names(hub: HubServer, training: Training) -> None:
    assert HubUploader("short", training.folder).start() == "ada/short"
    assert default_name(Path("runs/my ner/model-last")) == "my-ner"
    assert default_name(Path("runs/--Größe..1--")) == "Gr-e-1"
    assert default_name(Path("/model-last")) == "model-last"
