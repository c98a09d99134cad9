from __future__ import annotations

import pytest

from gliner_pipe.errors import ConfigError
from gliner_pipe.packaging.options import (
    as_list,
    check_distributions,
    check_metadata,
    check_name,
    check_version,
)


@pytest.mark.parametrize("name", ["my_ner_model", "m", "Model2"])
def test_names_that_can_be_imported_and_installed(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("my-ner-model", "--name my_ner_model"),
        ("2models", "--name model_2models"),
        ("model_", "--name model."),
        ("_model", "--name model."),
        ("class", "--name class_model"),
        ("modèle", "--name mod_le"),
        ("", "--name my_ner_model"),
        (None, "--name my_ner_model"),
        (7, "--name model_7"),
    ],
)
def test_other_names_are_refused_with_advice(name: object, advice: str) -> None:
    with pytest.raises(ConfigError, match=r"\[package.name\]") as error:
        check_name(name)
    assert advice in str(error.value)


@pytest.mark.parametrize(
    ("name", "owner"),
    [("json", "Python"), ("spacy", "spacy"), ("gliner_pipe", "gliner_pipe"), ("yaml", "PyYAML")],
)
def test_a_name_must_not_hide_another_module(name: str, owner: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[package.name\] .*{owner}"):
        check_name(name)


@pytest.mark.parametrize(("given", "version"), [("0.1.0", "0.1.0"), ("1.0-rc1", "1.0rc1"), (2, "2")])
def test_versions_in_their_normal_form(given: object, version: str) -> None:
    assert check_version(given) == version


@pytest.mark.parametrize("version", [0.1, "abc", "1..2", True])
def test_other_versions_are_refused(version: object) -> None:
    with pytest.raises(ConfigError, match=r"\[package.version\]"):
        check_version(version)


@pytest.mark.parametrize(
    "given", [["sdist", "wheel"], "wheel,sdist", "[wheel, sdist]", "['wheel', \"sdist\"]"]
)
def test_distributions_as_list_or_string(given: str | list[str]) -> None:
    assert check_distributions(given) == ["wheel", "sdist"]


@pytest.mark.parametrize("given", ["", [], "egg", ["wheel", "zip"]])
def test_other_distributions_are_refused(given: str | list[str]) -> None:
    with pytest.raises(ConfigError, match="allowed: wheel, sdist"):
        check_distributions(given)


def test_metadata() -> None:
    assert check_metadata({"author": "Jane Doe"}) == {"author": "Jane Doe"}
    with pytest.raises(ConfigError, match=r"\[package.metadata.authors\] .*description, author"):
        check_metadata({"author": "Jane Doe", "authors": []})


@pytest.mark.parametrize(("given", "found"), [(None, []), ("a,b", ["a,b"]), (["a", "b"], ["a", "b"])])
def test_one_string_may_stand_for_a_list(given: str | list[str] | None, found: list[str]) -> None:
    assert as_list(given) == found
