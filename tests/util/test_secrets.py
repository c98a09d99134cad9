"""Which values are secrets, and which are not."""

from __future__ import annotations

import base64
import json
import random
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_pipe.errors import ConfigError
from gliner_pipe.util.redact_folder import redact_folder
from gliner_pipe.util.secrets import MARK, marked, redacted, redacted_config, redacted_text

ALNUM = string.ascii_letters + string.digits


def drawn(length: int, letters: str = ALNUM) -> str:
    """Return random letters, generated here so that no scanner takes this file for a leak."""
    return "".join(random.Random(length).choices(letters, k=length - 2)) + "Z7"[: min(2, length)]


HEX = "0123456789abcdef"
#: Secrets that are detected by their form, and the part that must be removed.
FORMS: dict[str, tuple[str, str]] = {
    name: (text, core)
    for name, prefix, core, end in [
        ("hugging face", "hf_", drawn(34), ""),
        ("github", "ghp_", drawn(36), ""),
        ("github oauth", "gho_", drawn(36), ""),
        ("github server", "ghs_", drawn(36), ""),
        ("github fine", "github_pat_", drawn(22) + "_" + drawn(59), ""),
        ("gitlab", "glpat-", drawn(20), ""),
        ("aws", "AKIA", drawn(14, string.ascii_uppercase + string.digits) + "Z7", ""),
        ("slack", "xoxb-", "123456789012-1234567890123-" + drawn(24), ""),
        ("slack hook", "https://hooks.slack.com/services/", "T0A1B2C3D/B0A1B2C3D/" + drawn(24), ""),
        ("discord hook", "https://discord.com/api/webhooks/", "1234567890/" + drawn(60), ""),
        ("stripe", "sk_live_", drawn(24), ""),
        ("stripe test", "sk_test_", drawn(24), ""),
        ("openai", "sk-", drawn(48), ""),
        ("openai project", "sk-proj-", drawn(60) + "T3BlbkFJ" + drawn(61), ""),
        ("anthropic", "sk-ant-api03-", drawn(60) + "-" + drawn(30) + "_AA", ""),
        ("npm", "npm_", drawn(36), ""),
        ("pypi", "pypi-", "AgEIcHlwaS5vcmc" + drawn(90), ""),
        ("jwt", "", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0." + drawn(43), ""),
        ("google", "AIza", drawn(35), ""),
        ("google oauth", "ya29.", drawn(60), ""),
        ("sendgrid", "SG.", drawn(22) + "." + drawn(43), ""),
        ("twilio", "SK", drawn(32, HEX)[:-2] + "a7", ""),
        ("mailchimp", "", drawn(32, HEX)[:-2] + "a7", "-us12"),
        ("telegram", "12345678:", "AA" + drawn(33), ""),
        ("databricks", "dapi", drawn(32, HEX)[:-2] + "a7", ""),
        ("bearer", "Bearer ", drawn(24), ""),
        ("header", "Authorization: token ", drawn(12), ""),
        ("basic", "Basic ", base64.b64encode(b"somebody:pass-w0rd").decode(), ""),
        ("url", "postgres://somebody:", "pass-w0rd", "@host:5432/db"),
        ("url with @", "redis://:", "p@ss-w0rd", "@host/0"),
        ("url, user alone", "https://", drawn(40), "@github.com/some/where.git"),
        ("query", "https://host.org/data?rows=5&access_token=", drawn(12), "&x=1"),
        ("query, short", "https://host.org/data?token=", "hunter2", ""),
        ("sas", "https://a.blob.core.windows.net/c?sv=2020-08-04&ss=b&sig=", drawn(20) + "%3D", ""),
        ("sas alone", "sig=", drawn(20) + "%3D", "&sv=2020-08-04"),
        (
            "azure",
            "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=",
            drawn(86) + "==",
            ";Suffix=net",
        ),
        ("odbc", "Server=host;Uid=me;Pwd=", "hunter2;"[:-1], ";Database=d"),
        (
            "pem",
            "-----BEGIN RSA PRIVATE KEY-----\n",
            drawn(64) + "\n" + drawn(63),
            "\n-----END RSA PRIVATE KEY-----",
        ),
        ("pem, one line", "-----BEGIN PRIVATE KEY-----\\n", drawn(64), "\\n-----END PRIVATE KEY-----\\n"),
        ("ssh", "-----BEGIN OPENSSH PRIVATE KEY-----\n", drawn(70), "\n-----END OPENSSH PRIVATE KEY-----"),
        (
            "pgp",
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n",
            drawn(64),
            "\n-----END PGP PRIVATE KEY BLOCK-----",
        ),
    ]
    for text in [prefix + core + end]
}

#: Names of secrets; any text below them is one.
NAMES = (
    *(
        "hub_token",
        "token",
        "wandb_token",
        "HF_TOKEN",
        "GITHUB_TOKEN",
        "githubToken",
        "my-service-token",
        "authToken",
    ),
    *(
        "api_key",
        "apikey",
        "apiKey",
        "API-KEY",
        "x-api-key",
        "OPENAI_API_KEY",
        "openai_key",
        "api_key_2",
        "wandb_key",
    ),
    *("password", "PASSWORD", "passwd", "pwd", "db_password", "smtp_pass", "passphrase", "key_passphrase"),
    *("secret", "client_secret", "client-secret-key", "aws_secret", "aws_secret_access_key", "secretKey"),
    *("private_key", "privateKey", "access_key", "account_key", "signing_key", "credentials", "credential"),
    *(
        "authorization",
        "Authorization",
        "auth",
        "auth_header",
        "cookie",
        "Set-Cookie",
        "session_token",
        "jwt",
    ),
    *(
        "connection_string",
        "connectionString",
        "dsn",
        "SENTRY_DSN",
        "webhook",
        "webhook_url",
        "slackWebhookUrl",
        "sas",
    ),
    *("sas_token", "train.train_data.reader.api_key", "bearer_token", "refresh_token", "deploy_key"),
)

#: Settings that look like secrets but are not.
HARMLESS: list[tuple[str, Any]] = [
    *[
        (name, "words")
        for name in ("token_level", "tokenizer", "tokens", "token_budget", "keys", "spans_key", "key")
    ],
    *[
        (name, "words")
        for name in ("author", "secretary", "sort_key", "public_key", "primary_key", "authors", "auth_type")
    ],
    *[
        (name, "x")
        for name in ("password_file", "token_path", "api_key_env", "credentials_file", "monkey", "passes")
    ],
    *[(name, 512) for name in ("max_tokens", "num_tokens", "grad_accumulation_max_tokens", "token")],
    *[
        (name, "ENT")
        for name in ("ent_token", "sep_token", "cls_token", "first_token", "entity_token", "pad_token")
    ],
    *[("some_token", text) for text in ("<<ENT>>", "[SEP]", "<|endoftext|>")],
    *[
        ("password", value)
        for value in (None, "", True, 0.5, 3, "$PASSWORD", "${PASSWORD}", "${env:PASSWORD}", MARK)
    ],
    ("labels.password", "a word that lets somebody in"),
    ("performance.ner.secret", "x"),
    ("labels", ["password", "api key", "secret", "cookie"]),
    ("revision", "4c5114d0aa8d1b5bb2a2bb7a7a5b8f0f0e0ab1c2"),
    ("digest", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
    ("id", "123e4567-e89b-12d3-a456-426614174000"),
    ("model", "sentence-transformers/all-MiniLM-L6-v2"),
    ("model", "sk-learn-contrib/some-long-model-name"),
    ("model", "hf_internal_testing/tiny-random-bert"),
    ("model", "hf_tokenclassification"),
    ("url", "https://example.org:80/a?page=2&lang=en"),
    ("url", "ssh://git@github.com/some/where.git"),
    ("url", "https://user:${PASSWORD}@host/"),
    ("path", "/home/me/artifacts/model-last/config.cfg"),
    ("email", "ada@example.org"),
    ("text", "The bearer of this certificate has basic understanding of authorization."),
    ("text", "Basic information: the token is a word; key = value"),
    ("text", "DNA: ACCAGGTTACCAGGTTACCA"),
    ("package", "spacy>=3.8.7,<3.9.0"),
    ("version", "2.13.0+cpu"),
    ("values", [1, 2.5, None, True, {"@readers": "jsonl", "path": "data/*.jsonl"}]),
]


@pytest.mark.parametrize("kind", FORMS)
def test_a_secret_is_detected_by_its_form(kind: str) -> None:
    text, core = FORMS[kind]
    for where in (text, f"before {text} after", f'{{"note": "{text}"}}', f"a: {text}\nb: 1\n"):
        assert core not in redacted_text(where), where
    for value in (text, [text], {"a": [1, {"b": text}]}, (text, 5), {"Authorization": text}):
        assert core not in str(redacted("note", value))
    config = f"[train]\nnote = {json.dumps(text)}\nlist = [1, {json.dumps(text)}]\nseed = 1\n"
    assert core not in redacted_config(config) and json.dumps(core)[1:-1] not in redacted_config(config)
    assert redacted_config(config).endswith("seed = 1\n")


@pytest.mark.parametrize("name", NAMES)
def test_a_secret_is_detected_by_its_name(name: str) -> None:
    found: list[str] = []
    assert redacted(name, "hunter2", found) == MARK and found == [name]
    last = name.rpartition(".")[2]
    assert redacted("a", [{last: "hunter2", "b": 1}]) == [{last: MARK, "b": 1}]
    for quote in ('"', "'"):
        assert redacted_config(f"[a]\n{last} = {quote}hunter2{quote}\n") == f'[a]\n{last} = "{MARK}"\n'
    assert "hunter2" not in redacted_text(f"holds {{'{last}': 'hunter2'}}")
    assert "hunter2" not in redacted_text(f"python -m some --{last} hunter2")
    assert "hunter2" not in str(ConfigError(f"train.{last}", "is 'hunter2'", "another"))
    assert redacted("a", ["--" + last, "hunter2", "--seed", "1"]) == ["--" + last, MARK, "--seed", "1"]
    assert redacted("headers", [{"name": last, "value": "hunter2"}]) == [{"name": last, "value": MARK}]


@pytest.mark.parametrize(("name", "value"), HARMLESS)
def test_harmless_settings_are_unchanged(name: str, value: Any) -> None:
    assert redacted(name, value) == value
    *sections, last = name.split(".")
    text = f"[{'.'.join(['a', *sections])}]\n{last} = {json.dumps(value)}\n"
    assert redacted_config(text) == text
    if isinstance(value, str):
        assert redacted_text(value) == value


def test_all_texts_of_a_section_of_secrets() -> None:
    text = '[reader.credentials]\nuser = "ada"\nretries = 3\n\n[scorer.token]\n@scorers = "token_tags"\n'
    assert redacted_config(text) == text.replace('"ada"', f'"{MARK}"')
    components = {"components": {"secret": {"factory": "gliner", "threshold": 0.5}}}
    assert redacted("", components) == components


def test_the_text_of_a_config() -> None:
    text = """# api_key = of the reader
[train]
seed = 1

[train.train_data.reader]
@readers = "shop"
api_key = "very = secret"
token = ${vars.token}
url="https://me:pass@host/"
lines = ["a",
  "b = c"]
keys = ["a",
  "sk-abcdefghij0123456789"]
password = $SHOP_PASSWORD
"""
    expected = text.replace('"very = secret"', '"***"').replace('"https://me:pass@host/"', '"***"')
    expected = expected.replace('["a",\n  "sk-abcdefghij0123456789"]', '["a", "***"]')
    found: list[str] = []
    assert redacted_config(text, found) == expected
    reader = "train.train_data.reader"
    assert found == [f"{reader}.api_key", f"{reader}.url", f"{reader}.keys"]
    assert redacted_config(expected) == expected


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=20)
TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | WORDS
    | st.sampled_from([text for text, _ in FORMS.values()]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(TREES)
def test_redacting_twice_is_redacting_once(tree: Any) -> None:
    once = redacted("", tree)
    assert redacted("", once) == once
    text = json.dumps(once, ensure_ascii=False)
    assert not [core for _, core in FORMS.values() if core in text]


@given(st.text(string.printable, max_size=60), st.sampled_from(list(FORMS)))
def test_a_secret_is_detected_in_any_text(around: str, kind: str) -> None:
    text, core = FORMS[kind]
    assert core not in redacted_text(f"{around} {text} {around}")


def test_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = FORMS["github"][0]
    own = tmp_path / "own.cfg"
    own.write_text("[a]\npassword = 'hunter2'\n")
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "config.cfg").hardlink_to(own)
    files = {
        "meta.json": json.dumps(
            {"url": f"https://host/?token={secret}", "api_key": "hunter2", "labels": ["password"]}
        ),
        "README.md": f"---\napi_key: hunter2\n---\nGet {secret}.\n\n```ini\n[a]\npassword = hunter2\n```\n",
        "run.yaml": "# of mine\nwandb:\n  api_key: hunter2 # mine\n  steps: 5\n",
        "inner/code.py": f"LOGIN = '{secret}'\nPASSWORD = 'label'\n",
        "inner/vocab.json": json.dumps({secret: 1, "password": "hunter2"}),
        "inner/data.bin": secret,
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    redact_folder(folder)
    new = {name: (folder / name).read_text() for name in files}
    left = {name for name, text in new.items() if secret in text or "hunter2" in text}
    assert left == {"inner/vocab.json", "inner/data.bin"}
    assert json.loads(new["meta.json"]) == {"url": MARK, "api_key": MARK, "labels": ["password"]}
    assert new["run.yaml"] == files["run.yaml"].replace("hunter2", f'"{MARK}"')
    assert new["inner/code.py"] == files["inner/code.py"].replace(secret, MARK)
    assert (folder / "config.cfg").read_text() == f'[a]\npassword = "{MARK}"\n'
    assert own.read_text() == "[a]\npassword = 'hunter2'\n"
    log = caplog.text
    assert "meta.json: url, api_key" in log and "config.cfg: a.password" in log
    assert secret not in log and "hunter2" not in log
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    redact_folder(folder)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert list(marked({"a": [{"b": MARK}], "c": 1})) == ["a.b"]
