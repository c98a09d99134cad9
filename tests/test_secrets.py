"""What is a secret and what is none."""

from __future__ import annotations

from typing import Any

import pytest

from gliner_pipe.secrets import blotted, blotted_config, is_secret


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("hub_token", "x", True),
        ("train.api_key", "x", True),
        ("PASSWORD", "x", True),
        ("aws_secret", "x", True),
        ("client-secret-key", "x", True),
        ("note", "hf_" + "a" * 30, True),
        ("url", "postgres://me:word@host/db", True),
        ("max_tokens", 5, False),
        ("ent_token", "<<ENT>>", False),
        ("spans_key", "gliner", False),
        ("sep_token", "<<SEP>>", False),
        ("url", "https://example.org:80/a", False),
        ("tokenizer", "spacy", False),
    ],
)
def test_is_secret(name: str, value: Any, secret: bool) -> None:
    assert is_secret(name, value) is secret


def test_secrets_inside_lists_and_mappings() -> None:
    value = [{"label": "a", "password": "x", "none": None}, ("https://me:pass@host/", 5)]
    assert blotted("sources", value) == [{"label": "a", "password": "***", "none": None}, ["***", 5]]
    assert blotted("token", None) is None


def test_secrets_in_the_text_of_a_config() -> None:
    text = """# api_key = of the reader
[train]
seed = 1

[train.train_data.reader]
@readers = "shop"
api_key = "very = secret"
url="https://me:pass@host/"
lines = ["a",
  "b = c"]
"""
    expected = text.replace('"very = secret"', '"***"').replace('"https://me:pass@host/"', '"***"')
    assert blotted_config(text) == expected != text
