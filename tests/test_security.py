"""SECURITY.md says what files from others may do; each of its statements has tests, which this file names."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import spacy
from confit import Config

from gliner_pipe.data.annotations import set_supervision
from gliner_pipe.data.detect import reader_of_path
from gliner_pipe.data.writers import write_standoff
from gliner_pipe.errors import DataError
from gliner_pipe.registry import registry
from gliner_pipe.serve import serve
from gliner_pipe.util.atomic import inside

ROOT = Path(__file__).parents[1]
HERE = "tests/test_security.py"
CONSENT, CHECKPOINT = "tests/util/test_consent.py", "tests/checkpoints/test_checkpoint_files.py"
DAMAGED, API = "tests/data/test_damaged_files.py", "tests/serving/test_api.py"

#: The beginning of each statement, and its tests.
TESTS: dict[str, list[str]] = {
    "You trust the code": [],
    "You trust the configs": [],
    "You need not trust": [],
    "Files of Python code in a saved pipeline": [f"{HERE}::test_files_of_code_in_a_pipeline_are_not_run"],
    "Code that comes with a model": [f"{CONSENT}::test_the_caller_consents", f"{CONSENT}::test_commands_refuse"],
    "A saved pipeline cannot give": [f"{CONSENT}::test_a_saved_pipeline_cannot_consent"],
    "Weights are read from safetensors": [f"{HERE}::test_a_pipeline_has_no_pickles"],
    "Packaging a pipeline": [f"{CONSENT}::test_packaging_runs_no_code"],
    "A file that a pipeline": [f"{HERE}::test_names_lead_nowhere_else"],
    "A config names registered functions": [f"{HERE}::test_only_registered_functions"],
    "Expressions in": [f"{HERE}::test_expressions_call_nothing"],
    "A training config that you write": [f"{CONSENT}::test_a_training_config_consents_for_its_training"],
    "Secrets, such as": ["tests/util/test_secrets.py::test_a_folder"],
    "Weights in pickle files": [
        f"{CHECKPOINT}::test_pickled_code_is_not_run", f"{CHECKPOINT}::test_pickles_of_other_things"],
    "A checkpoint cannot give": [f"{CONSENT}::test_a_gliner_checkpoint_cannot_consent"],
    "The state of a training": [f"{HERE}::test_torch_loads_tensors_only"],
    "Data files are never code": [f"{HERE}::test_cells_are_not_run", f"{DAMAGED}::test_cells_are_data"],
    "Files of spaCy": [f"{DAMAGED}::test_spacy_files_with_parts_that_do_not_fit"],
    "A compressed file": [f"{DAMAGED}::test_gzip_bombs", f"{DAMAGED}::test_a_bomb_of_spacy"],
    "A line or record": [
        f"{DAMAGED}::test_endless_records", f"{DAMAGED}::test_texts_that_no_tokenizer_can_take"],
    "A name from a data file": [f"{HERE}::test_names_of_documents_stay_in_their_folder"],
    "The server listens": [f"{HERE}::test_the_address_of_the_server"],
    "With a token": [f"{API}::test_a_token_guards_everything_but_the_state"],
    "The sizes of requests": [
        f"{API}::test_what_is_refused", f"{API}::test_a_full_queue_refuses_and_cancelled_texts_leave_it",
        f"{API}::test_a_request_that_takes_too_long_is_given_up"],
    "Requests cannot load": [f"{API}::test_what_is_refused"],
    "Its page loads nothing": [f"{API}::test_the_page_loads_nothing_from_elsewhere"],
    "HTML output": ["tests/prediction/test_rendering.py::test_html_escapes_everything"],
    "Control characters": ["tests/prediction/test_rendering.py::test_terminal_shows_markup_and_control_characters"],
    "Loading, saving and calling": ["tests/test_imports.py::test_no_network"],
    "Without a name on a hub": ["tests/test_imports.py::test_nothing_is_imported_or_asked_for_before_a_model_is_built"],
}  # fmt: skip


def statements() -> list[str]:
    """Return the items of the lists of SECURITY.md, each as one line."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf8")
    return [" ".join(item.split()) for item in re.findall(r"^- ((?:.+\n)(?:  .+\n)*)", text, re.MULTILINE)]


def test_each_statement_has_tests_and_each_test_a_statement() -> None:
    found = statements()
    assert len(found) == len(TESTS)
    for statement, start in zip(found, TESTS, strict=True):
        assert statement.startswith(start)
    for name in (name for names in TESTS.values() for name in names):
        file, _, test = name.partition("::")
        functions = [
            node.name
            for node in ast.parse((ROOT / file).read_text("utf8")).body
            if isinstance(node, ast.FunctionDef)
        ]
        assert test in functions, name
    own = {name.partition("::")[2] for names in TESTS.values() for name in names if name.startswith(HERE)}
    assert own | {"test_each_statement_has_tests_and_each_test_a_statement"} == {
        name for name in globals() if name.startswith("test_")
    }


CODE = "import pathlib\npathlib.Path({!r}).touch()\n"


def test_files_of_code_in_a_pipeline_are_not_run(nlp: Any, tmp_path: Path) -> None:
    trace, folder = tmp_path / "run", tmp_path / "model"
    nlp.to_disk(folder)
    names = ("__init__.py", "gliner_pipe.py", "code.py", "sitecustomize.py", "conftest.py")
    for part in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        for name in names:
            (part / name).write_text(CODE.format(str(trace)))
    spacy.load(folder)("Ada left.")
    assert not trace.exists()


def test_a_pipeline_has_no_pickles(nlp: Any, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    for path in files:
        start = path.read_bytes()[:4]
        assert start[:2] != b"\x80\x02" and start[:2] != b"\x80\x04" and start != b"PK\x03\x04", path


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "C:\\a", "a\nb", "link/a"])
def test_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link").symlink_to(tmp_path)
    with pytest.raises(DataError):
        inside(tmp_path / "model", name, "config.json")


@pytest.mark.parametrize("function", ["os.system", "builtins.eval", "subprocess.run", "posix:system"])
def test_only_registered_functions(function: str, tmp_path: Path) -> None:
    config = Config({"loss": {"@losses": function, "command": f"touch {tmp_path}/run"}})
    with pytest.raises(Exception, match=re.escape(function)):
        config.resolve(registry=registry)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "expression", ["__import__('os').system('touch {}')", "open('{}', 'w')", "(1).__class__.__base__"]
)
def test_expressions_call_nothing(expression: str, tmp_path: Path) -> None:
    trace = tmp_path / "run"
    with pytest.raises(Exception):  # noqa: B017 (of several kinds)
        Config().from_str(f"[a]\nb = ${{{expression.format(trace)}}}\n").resolve()
    assert not trace.exists()


def test_torch_loads_tensors_only() -> None:
    calls = []
    for path in (ROOT / "gliner_pipe").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "torch.load",
                "pickle.load",
                "pickle.loads",
            ):
                calls.append((path.name, {one.arg: ast.unparse(one.value) for one in node.keywords}))
    assert calls and all(options.get("weights_only") == "True" for _, options in calls), calls


def test_cells_are_not_run(nlp: Any, tmp_path: Path) -> None:
    trace, path = tmp_path / "run", tmp_path / "a.csv"
    path.write_text(f"tokens,tags\n\"[__import__('pathlib').Path('{trace}').touch()]\",\"['O']\"\n")
    with pytest.raises(DataError):
        list(reader_of_path(path)(nlp))
    assert not trace.exists()


@pytest.mark.parametrize("name", ["../../a", "/tmp/a", "..", ".hidden", "a/b", "a\0b"])
def test_names_of_documents_stay_in_their_folder(name: str, nlp: Any, tmp_path: Path) -> None:
    doc = nlp.make_doc("Ada left.")
    set_supervision(doc, id=name)
    write_standoff([doc], tmp_path / "a" / "out")
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert all(path == "a" or path == "a/out" or path.startswith("a/out/") for path in found)
    assert len(list((tmp_path / "a" / "out").glob("[!.]*.txt"))) == 1


def test_the_address_of_the_server() -> None:
    assert inspect.signature(serve).parameters["host"].default == "127.0.0.1"
