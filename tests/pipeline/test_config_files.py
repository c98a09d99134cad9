"""The form of config files: sections, keys, nesting, aliases and size."""

from __future__ import annotations

from pathlib import Path

import pytest
from confit import Config

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline import config_files
from gliner_pipe.pipeline.config_files import compose, construct, read_config, read_configs

DEEP = config_files.MOST_DEPTH + 2


def write(folder: Path, text: str, name: str = "config.cfg") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf8")
    return path


def test_files_are_read_as_confit_reads_them(tmp_path: Path) -> None:
    text = (
        "[a]\nb = 1\n'c.d' = [1, 2.5, ${a.b}]\n[a.e]\n@x = \"y\"\ng = two words\n"
        "[long]\nlabels = [" + ", ".join(f'"label {number}"' for number in range(3000)) + "]\n"
    )
    path = write(tmp_path, text)
    assert read_config(path) == Config.from_disk(path)
    yaml = write(tmp_path, "a: &x\n  b: 1\n  c: [1, two]\nd: *x\n", "config.yaml")
    assert read_config(yaml) == Config.from_disk(yaml)


def test_names_that_look_like_numbers_are_names(tmp_path: Path) -> None:
    path = write(tmp_path, "[a]\n1 = 2\nnull = 3\n[a.0]\nb = 1\n")
    assert read_config(path) == {"a": {"1": 2, "null": 3, "0": {"b": 1}}}


def test_later_files_replace_options(tmp_path: Path) -> None:
    paths = [write(tmp_path, "[a]\nb = 1\nc = 2\n"), write(tmp_path, "[a]\nb = 3\n", "more.cfg")]
    assert read_configs(paths) == [{"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}}]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[a.b]\nc = 1\n[a]\nd = 2\n", "a"),
        ("[a]\nb = 1\n[a.b]\nc = 1\n", "a.b"),
        ("[a]\nb = ${x}\n[a.b.c]\nd = 1\n", "a.b.c"),
        ("[a..b]\nc = 1\n", "a..b"),
        ("[a]\nb = {1, 2}\n", "a.b"),
        ("[a]\nb = [person, city]\n", "a.b"),
        ("[a]\nb = ${x\n", "a.b"),
        ("[a]\n'b' = 1\nb = 2\n", "a.b"),
        (f"[a]\nb = {'[' * DEEP}{']' * DEEP}\n", "a.b"),
    ],
)
def test_what_would_be_lost_is_refused(text: str, where: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read_config(write(tmp_path, text))
    assert refused.value.where == where


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"[{'a.' * DEEP}a]\nb = 1\n", "config.cfg"),
        ("a: &x [*x]\n", "config.yaml"),
        ("a: &x\n  b: *x\n", "config.yaml"),
        ("null: 1\n", "config.yaml"),
        ("a:\n  1: 2\n", "config.yaml"),
        ("[" * 5000 + "]" * 5000, "config.yaml"),
        ("- a\n- b\n", "config.yaml"),
        ("a: b: c\n", "config.yml"),
    ],
)
def test_yaml_and_sections_that_cannot_be_right(text: str, name: str, tmp_path: Path) -> None:
    path = write(tmp_path, text, name)
    with pytest.raises(ConfigError) as refused:
        read_config(path)
    assert refused.value.where.startswith(str(path))


def test_aliases_count_as_what_they_stand_for(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    for read in (read_config, lambda path: compose(path.read_text(), str(path))):
        with pytest.raises(ConfigError):
            read(write(tmp_path, "\n".join(lines), "config.yaml"))


@pytest.mark.parametrize(
    "text", ["a: 2026-99-99", "a: !!int x", "a: " + "9" * 5000, "a: !!python/object:os.x {}"]
)
def test_values_that_are_not_what_they_seem(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        construct(compose(text, "config.yaml"), "config.yaml")
    assert refused.value.where.startswith("config.yaml")


def test_bytes_and_size(tmp_path: Path) -> None:
    path = tmp_path / "config.cfg"
    for content in (b"[a]\nb = caf\xe9\n", b"[a]\nb = " + b"1" * config_files.MOST_BYTES):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as refused:
            read_config(path)
        assert refused.value.where == str(path)
    with pytest.raises(OSError):
        read_config(tmp_path)
