"""Pipelines that are pushed to a hub and loaded from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spacy
from hub.hub_server import TOKEN, HubServer, Repo
from huggingface_hub import ModelCard, snapshot_download
from tagging_pipeline import trained
from transformers import pipeline

import gliner_pipe
from gliner_pipe import predict, push
from gliner_pipe.errors import ConfigError
from gliner_pipe.hub import check_hub, from_hub, load, push_to_hub

#: A fault of the client, in its way to upload over plain HTTP.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

TEXT = "Ada Lovelace met Charles Babbage in London."


def found(nlp: Any) -> list[tuple[str, str, float]]:
    doc = nlp(TEXT)
    group = doc.spans["gliner"]
    scores = [round(float(score), 5) for score in group.attrs["scores"]]
    return [(span.text, span.label_, score) for span, score in zip(group, scores, strict=True)]


def ruler() -> Any:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "person", "pattern": "Ada"}])
    return nlp


def test_push_and_load_into_an_empty_cache(hub: HubServer, saved: Path) -> None:
    url = push_to_hub(saved, "ada/people")
    expected = found(spacy.load(saved))
    assert expected
    assert url.startswith(f"{hub.url}/ada/people/commit/")
    assert hub.repos["ada/people"].private
    assert found(from_hub("ada/people")) == expected
    assert found(gliner_pipe.load("ada/people")) == expected
    assert found(spacy.load(snapshot_download("ada/people", endpoint=hub.url))) == expected


def test_a_mistyped_path_is_not_requested_from_the_hub(
    hub: HubServer, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved.parents[1])
    with pytest.raises(OSError, match="Can't find model 'artifacts/model-lost'"):
        load("artifacts/model-lost")
    assert load("artifacts/model-last").pipe_names == ["gliner"]
    assert not hub.requests
    with pytest.raises(AttributeError, match="no attribute 'loads'"):
        gliner_pipe.loads  # noqa: B018


def test_settings_of_a_loaded_pipeline(hub: HubServer, saved: Path) -> None:
    push_to_hub(saved, "ada/people")
    for name in ("ada/people", saved, str(saved)):
        nlp = load(name, labels=["city"], threshold=1.0)
        assert [item.label for item in nlp.get_pipe("gliner").label_items] == ["city"]
        assert nlp.get_pipe("gliner").threshold == 1.0
    assert load("ada/people", exclude=["gliner"]).pipe_names == []
    with pytest.raises(ConfigError, match=r"\[threshold\]"):
        load(saved, threshold=2.0)
    with pytest.raises(ConfigError, match=r"\[labels\]"):
        load("ada/people", labels=["city"], exclude=["gliner"])


def test_the_cache_suffices_offline(hub: HubServer, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    push_to_hub(saved, "ada/people")
    from_hub("ada/people")
    before = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert from_hub("ada/people").pipe_names == ["gliner"]
    assert from_hub("ada/people", local_files_only=True).pipe_names == ["gliner"]
    assert len(hub.requests) == before
    with pytest.raises(ConfigError, match=r"'ada/other'.*HF_HUB_OFFLINE"):
        load("ada/other")


def test_the_token_goes_into_the_header_and_nowhere_else(
    hub: HubServer,
    saved: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    push_to_hub(saved, "ada/people")
    from_hub("ada/people")
    assert {token for _, path, token, _ in hub.requests if "/api/models" in path} == {f"Bearer {TOKEN}"}
    assert not any(TOKEN in path or TOKEN.encode() in body for _, path, _, body in hub.requests)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10 and not any(TOKEN.encode() in path.read_bytes() for path in files)
    captured = capfd.readouterr()
    assert TOKEN not in captured.out + captured.err + caplog.text


def test_a_file_with_the_token_is_not_published(hub: HubServer, saved: Path) -> None:
    (saved / "notes.txt").write_text(f"my login: {TOKEN}\n")
    with pytest.raises(ConfigError, match=r"\[push_to_hub\] .*notes\.txt"):
        push_to_hub(saved, "ada/people")
    assert not hub.repos["ada/people"].commits


def test_secrets_of_the_training_config_are_redacted(hub: HubServer, saved: Path) -> None:
    text = '[train]\nseed = 1\n\n[train.train_data.reader]\n@readers = "shop"\napi_key = "hush"\n'
    (saved / "train_config.cfg").write_text(text)
    push_to_hub(saved, "ada/people")
    files = hub.repos["ada/people"].branches["main"]
    assert files["train_config.cfg"].decode() == text.replace("hush", "***")
    assert not any(b"hush" in data for data in files.values())
    assert (saved / "train_config.cfg").read_text() == text


def test_private_and_public(hub: HubServer) -> None:
    push_to_hub(ruler(), "ada/open", private=False)
    assert not hub.repos["ada/open"].private
    with pytest.raises(ConfigError, match=r"\[push_to_hub\] .*'ada/open' .*private = false"):
        push_to_hub(ruler(), "ada/open")
    hub.repos["ada/closed"] = Repo(private=True)
    push_to_hub(ruler(), "ada/closed", private=False)  # an existing repository stays as it is
    assert hub.repos["ada/closed"].private


def test_a_pipeline_in_memory_a_branch_and_a_folder(hub: HubServer) -> None:
    push_to_hub(ruler(), "ada/ruler", message="first")
    push_to_hub(ruler(), "ada/ruler", revision="v2", message="second", path_in_repo="small")
    repo = hub.repos["ada/ruler"]
    assert [(item["summary"], item["revision"]) for item in repo.commits] == [
        ("first", "main"),
        ("second", "v2"),
    ]
    assert {"config.cfg", "README.md", "small/config.cfg", "small/README.md"} <= set(repo.branches["v2"])
    assert not any(path.startswith("small/") for path in repo.branches["main"])
    assert from_hub("ada/ruler", revision="v2")(TEXT).ents[0].text == "Ada"
    with pytest.raises(ConfigError, match=r"revision"):
        load("ada/ruler", revision="v3")


def test_files_that_the_pipeline_no_longer_has_are_removed(hub: HubServer, saved: Path) -> None:
    (saved / "gliner" / "old.bin").write_bytes(b"old")
    (saved / "training_state").mkdir()
    (saved / "training_state" / "optimizer.bin").write_bytes(b"state")
    push_to_hub(saved, "ada/people")
    repo = hub.repos["ada/people"]
    assert "gliner/old.bin" in repo.branches["main"]
    assert not any("training_state" in path for path in repo.branches["main"])
    repo.branches["main"]["last-checkpoint/config.cfg"] = b"of a training"
    (saved / "gliner" / "old.bin").unlink()
    push_to_hub(saved, "ada/people")
    assert repo.commits[-1]["deleted"] == ["gliner/old.bin"]
    assert "last-checkpoint/config.cfg" in repo.branches["main"]
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model-last"]  # nothing is left behind


def test_the_card(hub: HubServer, saved: Path) -> None:
    push_to_hub(saved, "ada/people")
    text = hub.repos["ada/people"].branches["main"]["README.md"].decode()
    card = ModelCard(text)
    assert card.data.model_name == "people" and card.data.library_name == "gliner_pipe"
    results = {item.metric_type: item.metric_value for item in card.data.eval_results}
    assert results == {"precision": 0.5, "recall": 0.25, "f1": 0.333333}
    assert 'gliner_pipe.load("ada/people")' in text
    assert hub.asked("POST /api/validate-yaml")


def test_a_card_of_ones_own_is_kept(hub: HubServer, saved: Path) -> None:
    (saved / "README.md").write_text("# Mine\n")
    push_to_hub(saved, "ada/people")
    assert hub.repos["ada/people"].branches["main"]["README.md"] == b"# Mine\n"


def test_a_tagger_is_loaded_by_transformers_by_its_name(
    hub: HubServer, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the cache of the hub, as after a download, without a network."""
    nlp = trained(backbone, decoder={"@decoders": "softmax"})
    text = "Ada Smith lives in Oslo ."
    doc = nlp(text)
    expected = [(span.start_char, span.end_char, span.label_) for span in doc.spans["gliner"]]
    assert len(expected) == 2
    nlp.to_disk(tmp_path / "tagger")
    push_to_hub(tmp_path / "tagger", "ada/tagger")
    assert not (tmp_path / "tagger" / "config.json").exists()
    files = hub.repos["ada/tagger"].branches["main"]
    card = files["README.md"].decode().splitlines()
    assert {"library_name: transformers", "pipeline_tag: token-classification"} <= set(card)
    sha = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "home" / "hub" / "models--ada--tagger"
    for name, data in files.items():
        file = cached / "snapshots" / sha / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(sha)
    before = len(hub.requests)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    tagger = pipeline("token-classification", model="ada/tagger", aggregation_strategy="first", device="cpu")
    assert [(one["start"], one["end"], one["entity_group"]) for one in tagger(text)] == expected
    doc = load("ada/tagger")(text)
    assert [(span.start_char, span.end_char, span.label_) for span in doc.spans["gliner"]] == expected
    assert len(hub.requests) == before


def test_a_tagger_that_transformers_lacks_is_pushed_without_its_files(
    hub: HubServer, backbone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    push_to_hub(trained(backbone, steps=0), "ada/crf")
    files = hub.repos["ada/crf"].branches["main"]
    assert "config.cfg" in files and "config.json" not in files
    assert b"library_name: gliner_pipe" in files["README.md"]
    assert "components.token_classifier.decoder" in caplog.text


def one_line(error: pytest.ExceptionInfo[ConfigError]) -> str:
    text = str(error.value)
    assert "\n" not in text and TOKEN not in text and len(text) < 400
    return text


def test_no_login(hub: HubServer, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    for action in (check_hub, lambda: push_to_hub(saved, "ada/people")):
        with pytest.raises(ConfigError) as error:
            action()
        text = one_line(error)
        assert error.value.where == "push_to_hub" and "HF_TOKEN" in text and "hf auth login" in text
    assert not hub.asked("*models*")


def test_a_login_that_hf_stored(hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "token").write_text(TOKEN)
    assert check_hub() == "ada"


def test_wrong_token(hub: HubServer, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "hf_wrongWrongWrongWrong"
    monkeypatch.setenv("HF_TOKEN", wrong)
    with pytest.raises(ConfigError) as error:
        push_to_hub(saved, "ada/people")
    text = one_line(error)
    assert "token" in error.value.found and "HF_TOKEN" in error.value.do and wrong not in text
    assert not hub.repos


@pytest.mark.parametrize(
    ("repo", "message"),
    [
        ("eve/people", "namespace 'eve'"),
        ("ada/pe ople", "'ada/pe ople'"),
        ("a/b/c", "'a/b/c'"),
    ],
)
def test_an_invalid_repository(hub: HubServer, saved: Path, repo: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        push_to_hub(saved, repo)
    one_line(error)


def test_a_server_that_fails_or_is_unreachable(
    hub: HubServer, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.broken["POST */commit/*"] = 400
    with pytest.raises(ConfigError, match=r"'ada/people'.* 400") as error:
        push_to_hub(saved, "ada/people")
    one_line(error)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"http://127.0.0.1:9") as error:
        check_hub()
    one_line(error)


def test_a_folder_or_repository_without_a_pipeline(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"\[push_to_hub\] .*config.cfg.*meta.json"):
        push_to_hub(tmp_path / "empty", "ada/people")
    with pytest.raises(ConfigError, match=r"\[push_to_hub\] .*nowhere"):
        push_to_hub(tmp_path / "nowhere", "ada/people")
    assert not hub.requests
    hub.repos["ada/data"] = Repo()
    hub.repos["ada/data"].branches["main"]["data.csv"] = b"a,b\n"
    with pytest.raises(ConfigError, match=r"'ada/data'.*meta.json.*gliner_config.json"):
        load("ada/data")
    with pytest.raises(ConfigError, match=r"'ada/none'.*repository"):
        load("ada/none")
    with pytest.raises(OSError, match="Can't find model 'no_such_package'"):
        load("no_such_package")


def test_a_gliner_checkpoint(hub: HubServer, saved: Path, tmp_path: Path) -> None:
    from gliner_pipe.convert import to_gliner

    folder = to_gliner(str(saved), tmp_path / "checkpoint")
    nlp = load(folder, labels=["person", "city"], threshold=0.0)
    expected = found(nlp)
    assert expected and [entity[:2] for entity in expected] == [e[:2] for e in found(spacy.load(saved))]
    hub.repos["ada/gliner"] = Repo()
    for path in folder.rglob("*"):
        if path.is_file():
            hub.repos["ada/gliner"].branches["main"][path.relative_to(folder).as_posix()] = path.read_bytes()
    hub.repos["ada/gliner"].branches["main"]["onnx/model.onnx"] = b"large"
    assert found(load("ada/gliner", labels=["person", "city"], threshold=0.0)) == expected
    assert not hub.asked("GET */onnx/*")
    nlp.to_disk(tmp_path / "again")
    assert found(load(tmp_path / "again")) == expected


def test_command_lines(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ruler().to_disk(tmp_path / "ruler")
    line = [sys.executable, "-W", "error", "-W", "ignore:Use 'content=<...>':DeprecationWarning", "-m"]
    line += ["gliner_pipe.push", str(tmp_path / "ruler"), "ada/ruler", "--private", "false"]
    known = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    known |= {"HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(line, env=known, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{hub.url}/ada/ruler/commit/")
    assert not hub.repos["ada/ruler"].private

    predict.main(["--pipeline", "ada/ruler", "--text", TEXT, "--format", "jsonl"])
    assert json.loads(capsys.readouterr().out)["entities"][0]["label"] == "person"

    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    monkeypatch.setattr(sys, "argv", ["push", str(tmp_path / "ruler"), "ada/ruler"])
    with pytest.raises(SystemExit) as stopped:
        push.main()
    assert stopped.value.code == 1
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert told.err.startswith("error: [push_to_hub] ") and "HF_TOKEN" in told.err
