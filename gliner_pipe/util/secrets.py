"""Redacts secrets (passwords, tokens, keys) in values, texts and configs.

A setting is secret because of its name (``wandb_token``, ``apiKey``) or the form of its value (``ghp_...``, a URL with
a password). The forms are those of detect-secrets. It only detects secrets, and matches only the beginning of some; to
replace them completely, `_FORMS` lists these forms, and forms it does not know, after the rules of gitleaks.
"""

from __future__ import annotations

import ast
import base64
import binascii
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

logger = logging.getLogger("gliner_pipe.util.secrets")

#: Replacement of a secret.
MARK = "***"

#: Sections in which every value is secret.
_SECTIONS = frozenset(
    (
        *("password", "passwords", "secret", "secrets", "credential", "credentials", "authorization"),
        *("auth", "cookie", "cookies", "authheader", "authheaders", "apikeys", "webhook", "webhooks"),
    )
)
#: Names that end in one of these are secret; their words are joined (``api_key``, ``apiKey`` and ``API-KEY`` are
#: ``apikey``).
_NAMES = _SECTIONS | frozenset(
    (
        *("passwd", "pwd", "passphrase", "passcode", "jwt", "bearer", "dsn", "sas", "sasurl", "sasuri"),
        *("webhookurl", "webhookuri", "connectionstring", "connectionstrings", "connstring", "connstr"),
        *("connectionurl", "connectionuri", "apikey", "accesskey", "accesskeys", "accesskeyid", "secretkey"),
        *("secretkeys", "secretid", "privatekey", "privatekeys", "accountkey", "authkey", "encryptionkey"),
        *("signingkey", "sshkey", "masterkey", "clientkey", "servicekey", "storagekey", "subscriptionkey"),
        *("licensekey", "licencekey", "sharedkey", "deploykey", "sessionkey", "functionkey"),
        *("secretaccesskey", "clientsecret", "sessionid", "apisecret", "accesstokens", "authtokens"),
        *("apitokens", "authtoken", "accesstoken", "apitoken", "refreshtoken", "hftoken", "hubtoken"),
        *("bearertoken", "sessiontoken", "securitytoken", "idtoken", "sastoken", "wandbtoken"),
    )
)
#: ``<service>_key``, ``<service>_pat`` and ``<service>_pass`` are secret.
_SERVICES = frozenset(
    (
        *("hf", "hub", "huggingface", "wandb", "comet", "neptune", "mlflow", "clearml", "swanlab"),
        *("openai", "anthropic", "azure", "aws", "gcp", "google", "gemini", "mistral", "cohere"),
        *("groq", "github", "gitlab", "gh", "gl", "slack", "stripe", "twilio", "sendgrid", "npm"),
        *("pypi", "kaggle", "databricks", "datadog", "db", "database", "smtp", "mail", "email"),
        *("ftp", "ssh", "http", "https", "proxy", "redis", "mysql", "pg", "postgres", "mongo"),
        *("user", "admin", "root", "s3", "minio", "pinecone", "replicate", "together"),
    )
)
#: ``<word>_token`` with one of these words is a token of a text or a vocabulary.
_WORDS = frozenset(
    (
        *("cls", "sep", "pad", "unk", "mask", "bos", "eos", "ent", "rel", "entity", "relation"),
        *("label", "class", "first", "last", "next", "prev", "previous", "sub", "special", "start"),
        *("end", "stop", "image", "video", "audio", "text", "word", "head", "tail", "left", "right"),
        *("per", "span", "prompt", "instance", "example", "additional", "added", "begin", "boundary"),
        *("max", "min", "num", "n", "new", "doc", "sent", "root", "by", "each", "every", "single"),
        *("target", "source", "gold", "decoder", "forced", "separator", "padding", "unknown"),
        *("marker", "query", "list", "desc", "description", "output", "struct", "sos", "eot"),
    )
)
#: Sections of labels, whose names may be any words.
_LABELLED = frozenset(
    (
        *("labels", "relations", "label_data", "relation_data", "performance", "scores"),
        *("thresholds", "threshold", "label_items", "label2id", "id2label", "vocab", "entities"),
        *("descriptions", "spans", "triples", "entry-points"),
    )
)
#: Sections whose entries have names chosen by the user.
_NAMED = frozenset(("components", "scorer", "scorers", "loggers", "metrics"))
#: Parameters of URLs that are secret in addition to the names above.
_PARAMETERS = frozenset(
    ("sig", "signature", "key", "pass", "token", "amzsignature", "googsignature", "amzcredential")
)

#: Stands for an index of a list in the path of a setting.
_ITEM = "[]"

_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
#: A reference to an environment variable or to another setting.
_REFERENCE = re.compile(
    r"\$\{(?:(?:oc\.)?env:)?\w[\w.]*\}|\$[A-Z_][A-Z0-9_]*|%[A-Z_][A-Z0-9_]*%|env:[A-Z_][A-Z0-9_]*|\{\{[^{}]*\}\}"
)

_FORMS = tuple(
    re.compile(form)
    for form in (
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?s:.*?-----END [A-Z0-9 ]*-----|[^\"']*)",
        r"PuTTY-User-Key-File-\d(?s:[^\"']*)",
        r"AGE-SECRET-KEY-1[A-Z0-9]{20,}",
        r"\beyJ[\w=-]{6,}\.eyJ[\w=-]{6,}(?:\.[\w.+/=-]*)?",  # JSON web token
        r"\bhf_(?:[A-Za-z0-9]{30,}|(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{16,})",
        r"\bapi_org_[A-Za-z0-9]{20,}",
        r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}",
        r"\bgl[a-z]{2,6}-(?=[\w-]*\d)[\w-]{20,}",
        r"\bsk-(?=[\w-]*?(?:[A-Za-z0-9_]{20}|[a-z]*[A-Z0-9]\w{11}))[\w-]{16,}",  # OpenAI, Anthropic
        r"\b(?:sk|rk)_(?:live|test|prod)_[A-Za-z0-9]{10,}|\bwhsec_[A-Za-z0-9+/=]{16,}",
        r"\bxox[a-z](?:\.xox[a-z])?-[\w-]{10,}|\bxapp-\d-[\w-]{10,}",
        r"\bAIza[\w-]{30,}|\bya29\.[\w-]{20,}|\bGOCSPX-[\w-]{20,}",
        r"\b(?:AKIA|ASIA|ABIA|ACCA)(?=[A-Z]*\d)[A-Z0-9]{16}\b",
        r"\bnpm_[A-Za-z0-9]{30,}|_authToken=[^\s\"']+",
        r"\bpypi-[\w-]{30,}",
        r"\bSG\.[\w-]{16,}\.[\w-]{16,}",
        r"\bkey-[0-9a-f]{32}\b|\bdapi[0-9a-f]{32}\b|\br8_[A-Za-z0-9]{37}\b|\bhv[sb]\.[\w-]{20,}",
        r"\b(?:gsk_|nvapi-|pplx-|xai-|dop_v1_|shpat_|lin_api_|figd_|wandb_v\d_|ATATT3x)[\w=-]{20,}",
        r"https://(?:\w+\.)?discord(?:app)?\.com/api/webhooks/\d+/[\w-]+",
        r"https://hooks\.slack\.com/(?:services|workflows)/[\w/]+",
        r"https://[\w.-]+\.webhook\.office\.com/[^\s\"']+",
        r"(?i:\b(?:AccountKey|SharedAccessKey|SharedAccessSignature|Password|Pwd)=(?![\"'$*])[^;\s\"',]+)",
        r"(?i:\bbearer\s+)(?=\S*\d|\S{20})[\w.~+/=-]{8,}",
        r"(?i:\bauthorization[\"']?\s*[:=]\s*[\"']?(?:(?:basic|bearer|token|digest|apikey|bot)\s+)(?![*$])[^\s\"',;]+)",
        r"://(?=[^/@\s]*\d)[\w.-]{16,}@",
    )
)
#: Part of every secret that is detected by its form; most texts do not contain it.
_HINT = re.compile(r"[:=]|[\w.~+/-]{14}|PRIVATE KEY|(?i:basic\s|bearer\s)")
_LOGIN = re.compile(r"(://[^/\s:@\"'<>]*:)([^/\s\"'<>]+)(@)")
_BASIC = re.compile(r"\b([Bb]asic\s+)([A-Za-z0-9+/_-]{6,}={0,2})")
_QUERY = re.compile(r"([?&#](?:amp;)?)([\w.%-]+)(=)([^&\s\"'#<>;]+)|(?<![\w-])()(sig)(=)([^&\s\"'#<>;]+)")
_ASSIGNED = re.compile(
    r"""(?P<name>(?:--)?[A-Za-z_][\w.-]*)(?P<between>["']?\s*[:=]\s*)"""
    r"""(?P<value>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s,;&"'(){}\[\]]+)"""
)
_OPTION = re.compile(r"(--[A-Za-z_][\w.-]*)(\s+)(?!--)(\"[^\"]*\"|'[^']*'|\S*\w\S*)")
_SETTING = re.compile(r"(?:^|(?<=\| )|(?<=: ))\[([\w.*-]+)\]([^\[|\n]*)")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)+\"|'(?:[^'\\]|\\.)+'")

#: Plug-ins of detect-secrets whose forms match no word, path or digest.
_PLUGINS = (
    *("discord", "github_token", "gitlab_token", "mailchimp", "openai", "pypi_token", "sendgrid", "slack"),
    *("square_oauth", "stripe", "telegram_token", "twilio"),
)


def redacted(name: str, value: Any, found: list[str] | None = None) -> Any:
    """Return a value with its secrets redacted, including those in lists and mappings.

    Parameters
    ----------
    name
        Name of the setting, with or without its sections; may be empty.
    value
        Any value. It is not changed. A reference to an environment variable is not secret.
    found
        Receives the names of the settings that were redacted.
    """
    return _redacted(name.split(".") if name else [], value, [] if found is None else found)


def redacted_text(text: str) -> str:
    """Return prose, a message or a log with its secrets redacted.

    A secret is detected by its form, or by its name if the text assigns it: ``api_key="..."``, ``--api_key ...``.
    """
    text = redacted_forms(text)
    if not any(sign in text for sign in (":", "=", "--", "[")):
        return text
    text = _OPTION.sub(
        lambda match: _redact_assignment(match[1].lstrip("-"), match[1] + match[2], match[3], strict=False),
        text,
    )
    text = _ASSIGNED.sub(
        lambda match: _redact_assignment(
            match["name"].lstrip("-"),
            match["name"] + match["between"],
            match["value"],
            strict=not match["name"].startswith("--"),
        ),
        text,
    )
    return _SETTING.sub(_redact_setting, text)


def redacted_message(where: str, text: str) -> str:
    """Return a message about a setting with its secrets redacted; if the name is secret, everything in quotes.

    Parameters
    ----------
    where
        Name of the setting, with its sections.
    text
        The message.
    """
    return redacted_text(_without_quoted(where, text))


def tell_redacted(where: str, found: Iterable[str]) -> None:
    """Log which settings were redacted in a file, once per process.

    Parameters
    ----------
    where
        Name of the file.
    found
        Names of the settings; values are never logged.
    """
    _tell(where, ", ".join(dict.fromkeys(name or "in the text" for name in found)))


def marked(value: Any, name: str = "") -> Iterator[str]:
    """Yield the names of the settings that have `MARK` for a value."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from marked(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from marked(item, name)
    elif isinstance(value, str) and value == MARK:
        yield name


@lru_cache(4096)
def _tell(where: str, what: str) -> None:
    logger.warning("redacted in %s: %s", where, what)


# -- by name -----------------------------------------------------------------------------------------------------------


@lru_cache(4096)
def _is_secret_name(name: str) -> bool:
    words = [word.lower() for word in _PART.findall(name)]
    while len(words) > 1 and words[-1].isdigit():
        words.pop()
    if not words or name.startswith("@"):
        return False
    before, last = words[:-1], words[-1]
    if any("".join(words[-number:]) in _NAMES for number in (1, 2, 3)):
        return True
    if last == "token":
        return not before or before[-1] not in _WORDS
    if last in ("key", "pat", "pass", "pw"):
        return bool(before) and before[-1] in _SERVICES
    return False


@lru_cache(4096)
def _is_section(name: str) -> bool:
    words = [word.lower() for word in _PART.findall(name)]
    return any("".join(words[-number:]) in _SECTIONS for number in (1, 2))


def is_secret(path: list[str], value: Any) -> bool:
    """Return whether a plain value is secret because of its name; `path` is the name with its sections."""
    if not path or not _is_secret_path(tuple(path)):
        return False
    last = next(name for name in reversed(path) if name != _ITEM)
    token = last.lower().endswith("token")
    if isinstance(value, int) and not isinstance(value, bool):
        # a small number is a count or an index, e.g. of a label with that name, or a token of a vocabulary
        return value >= 1000 and not token and _is_secret_name(last)
    plain = value.strip() if isinstance(value, str) else ""
    if plain in ("", "null", "None", MARK) or _REFERENCE.fullmatch(plain):
        return False
    return not (token and re.fullmatch(r"[<\[(|{].*[>\])|}]", plain))


@lru_cache(4096)
def _is_secret_path(path: tuple[str, ...]) -> bool:
    """Return whether a path is secret: its last name, or one of its sections, unless the user chose that name."""
    names = [name for name in path if name != _ITEM]
    if not names or names[-1].startswith("@"):
        return False
    below = max((place for place, name in enumerate(path) if name in _LABELLED), default=len(path))
    if below < len(path) - 1 and _ITEM not in path[below:]:
        return False
    return _is_secret_name(names[-1]) or any(
        _is_section(name) and before not in _NAMED
        for before, name in zip(["", *names], names[:-1], strict=False)
    )


def _name(path: Iterable[str]) -> str:
    return ".".join(name for name in path if name != _ITEM)


def _redacted(path: list[str], value: Any, found: list[str]) -> Any:
    if isinstance(value, Mapping):
        made = {key: _redacted([*path, str(key)], item, found) for key, item in value.items()}
        called = next((value[key] for key in ("name", "key") if isinstance(value.get(key), str)), "")
        if "value" in value and is_secret([*path, called], value["value"]):
            found.append(_name([*path, called]))
            made["value"] = MARK
        return made
    if isinstance(value, (list, tuple)):
        path = [*path, _ITEM]
        items = [_redacted(path, item, found) for item in value]
        for place, option in enumerate(items[:-1]):
            if (
                isinstance(option, str)
                and option.startswith("--")
                and is_secret([option[2:]], items[place + 1])
            ):
                found.append(option)
                items[place + 1] = MARK
        return items
    new = _redacted_scalar(path, value)
    if new is not value:
        found.append(_name(path))
    return new


def _redacted_scalar(path: list[str], value: Any) -> Any:
    if is_secret(path, value if isinstance(value, (bool, int, float)) or value is None else str(value)):
        return MARK
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    text = str(value)
    # the model reads the description of a label, so only forms are redacted there
    redacted_one = redacted_text(text) if _LABELLED.isdisjoint(path) else redacted_forms(text)
    if redacted_one == text:
        return value
    return redacted_one if re.search(r"\s", text) else MARK


def _redact_assignment(name: str, before: str, value: str, *, strict: bool) -> str:
    """Return an assignment in a text, with its value redacted if it is secret."""
    quote = value[0] if value[0] in "\"'" and len(value) > 1 and value[-1] == value[0] else ""
    plain = value[len(quote) : len(value) - len(quote)]
    path = name.split(".")
    random = len(plain) >= 8 and re.search(r"\d", plain) and re.search(r"[A-Za-z]", plain)
    if not is_secret(path, plain) or (strict and not quote and not random) or MARK in plain:
        return before + value
    return f"{before}{quote}{MARK}{quote}"


def _redact_setting(match: re.Match[str]) -> str:
    """Redact everything in quotes in a message about a setting with a secret name: ``[train.api_key] is '...'``."""
    return f"[{match[1]}]{_without_quoted(match[1], match[2])}"


def _without_quoted(where: str, text: str) -> str:
    path = where.split(".")
    if not _is_secret_name(path[-1]) or not _LABELLED.isdisjoint(path):
        return text
    return _QUOTED.sub(lambda quoted: f"{quoted[0][0]}{MARK}{quoted[0][-1]}", text)


# -- by form -----------------------------------------------------------------------------------------------------------


@cache
def _forms() -> tuple[re.Pattern[str], ...]:
    """Return all forms: `_FORMS`, then those of detect-secrets, extended to the end of the word."""
    modules = [import_module(f"detect_secrets.plugins.{name}") for name in _PLUGINS]
    plugins = [kind for module in modules for kind in vars(module).values() if hasattr(kind, "secret_type")]
    known = [
        form for plugin in plugins if isinstance(plugin.denylist, (list, tuple)) for form in plugin.denylist
    ]
    return (
        *_FORMS,
        *(re.compile(rf"(?<![A-Za-z0-9/_.-])(?:{form.pattern})[\w-]*", form.flags) for form in known),
    )


def redacted_forms(text: str) -> str:
    """Return a text with the secrets redacted that are detected by their form."""
    if text.replace(" ", "").isalpha() and "asic " not in text and "earer " not in text:
        return text  # most labels
    if not _HINT.search(text):
        return text
    for form in _forms():
        text = form.sub(MARK, text)
    text = _LOGIN.sub(
        lambda match: match[0] if _is_reference(match[2]) else f"{match[1]}{MARK}{match[3]}", text
    )
    text = _BASIC.sub(lambda match: match[1] + MARK if _is_login(match[2]) else match[0], text)
    return _QUERY.sub(_redact_parameter, text) if "=" in text else text


def _is_reference(value: str) -> bool:
    return value == MARK or bool(_REFERENCE.fullmatch(value))


def _is_login(text: str) -> bool:
    """Return whether a text is ``user:password`` in base 64."""
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return False
    return ":" in plain and plain.isprintable()


def _redact_parameter(match: re.Match[str]) -> str:
    """Redact a secret parameter of a URL."""
    start, name, equals, value = match.groups()[:4] if match[2] else match.groups()[4:]
    joined = "".join(word.lower() for word in _PART.findall(name)).removeprefix("x")
    if not (joined in _PARAMETERS or _is_secret_name(name)) or _is_reference(value):
        return match[0]
    return f"{start}{name}{equals}{MARK}"


# -- config files ------------------------------------------------------------------------------------------------------

_HEADER = re.compile(r"(\[+[^\[\]]+\]+)\s*(?:[#;].*)?$")
_ENTRY = re.compile(r"([^\s=\[#;][^=\n]*?)([ \t]*=[ \t]*)(.*?)(\s*)", re.DOTALL)


def redacted_config(text: str, found: list[str] | None = None) -> str:
    """Return the text of a config file (cfg, ini, toml) with its secrets redacted; everything else is unchanged.

    Parameters
    ----------
    text
        Text of the file.
    found
        Receives the names of the settings that were redacted.
    """
    found = [] if found is None else found
    section: list[str] = []
    result = []
    for entry in _entries(text):
        match = _ENTRY.fullmatch(entry)
        if header := _HEADER.match(entry):
            section = [part.strip("'\" ") for part in header[1].strip("[]").split(".")]
            result.append(entry)
        elif match is None:
            result.append(redact_entry(entry, ".".join(section), found))
        else:
            value = _config_value([*section, *match[1].strip("'\" ").split(".")], match[3], found)
            result.append(match[1] + match[2] + value + match[4])
    return "".join(result)


def _entries(text: str) -> Iterator[str]:
    """Yield the entries of a config file: lines with their indented continuation lines."""
    held = ""
    for line in text.splitlines(keepends=True):
        if (held and line.strip() and line[0] in " \t" and _ENTRY.match(held)) or (
            held and _is_unclosed(held)
        ):
            held += line
        else:
            if held:
                yield held
            held = line
    if held:
        yield held


def _is_unclosed(entry: str) -> bool:
    """Return whether a value continues in the next line, as a string in triple quotes."""
    return _ENTRY.match(entry) is not None and any(entry.count(mark) % 2 for mark in ('"""', "'''"))


def _config_value(path: list[str], text: str, found: list[str]) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            if is_secret(path, text):
                found.append(".".join(path))
                return json.dumps(MARK)
            new = redacted_text(text)
            if new == text:
                return text
            found.append(".".join(path))
            return new if text[0] in "[{$" else json.dumps(MARK)
    before = len(found)
    new = _redacted(path, value, found)
    return json.dumps(new, ensure_ascii=False, default=str) if len(found) > before else text


def redact_entry(text: str, name: str, found: list[str], redact: Callable[[str], str] = redacted_text) -> str:
    """Redact prose; add `name` to `found` if something was redacted."""
    new = redact(text)
    if new != text:
        found.append(name)
    return new
