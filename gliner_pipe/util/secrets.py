"""Secrets (passwords, tokens, keys) and how they are redacted from everything that is written.

A setting is secret by its name (``wandb_token``, ``apiKey``) or by its value (``ghp_...``, a URL with a password). The
forms of values are those of detect-secrets, which is written to find secrets. Here they are replaced, so forms of which
it reads the beginning only, and those it does not know, stand in `_FORMS`; they follow the rules of gitleaks.
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
from pathlib import Path
from typing import Any

logger = logging.getLogger("gliner_pipe.util.secrets")

#: What stands in the place of a secret.
MARK = "***"

#: Names that end in one of these (put together: ``api_key``, ``apiKey`` and ``API-KEY`` are ``apikey``) are secret.
_NAMES = frozenset(
    (
        *("password", "passwd", "pwd", "passphrase", "passcode", "passwords", "secret", "secrets"),
        *("credential", "credentials", "authorization", "auth", "authheader", "authheaders"),
        *("cookie", "cookies", "jwt", "bearer", "dsn", "sas", "sasurl", "sasuri", "webhook"),
        *("webhooks", "webhookurl", "webhookuri", "connectionstring", "connectionstrings"),
        *("connstring", "connstr", "connectionurl", "connectionuri", "apikey", "apikeys"),
        *("accesskey", "accesskeys", "accesskeyid", "secretkey", "secretkeys", "secretid"),
        *("privatekey", "privatekeys", "accountkey", "authkey", "encryptionkey", "signingkey"),
        *("sshkey", "masterkey", "clientkey", "servicekey", "storagekey", "subscriptionkey"),
        *("licensekey", "licencekey", "sharedkey", "deploykey", "sessionkey", "functionkey"),
        *("secretaccesskey", "clientsecret", "sessionid", "apisecret", "accesstokens", "authtokens"),
        *("apitokens", "authtoken", "accesstoken", "apitoken", "refreshtoken", "hftoken", "hubtoken"),
        *("bearertoken", "sessiontoken", "securitytoken", "idtoken", "sastoken", "wandbtoken"),
    )
)
#: Secret names below which everything is secret, where they name a section.
_SECTIONS = frozenset(
    (
        *("password", "passwords", "secret", "secrets", "credential", "credentials", "authorization"),
        *("auth", "cookie", "cookies", "authheader", "authheaders", "apikeys", "webhook", "webhooks"),
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
#: ``<word>_token`` with these is a token of a text or a vocabulary.
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
#: Below these stand labels, whose names are words of any kind.
_LABELLED = frozenset(
    (
        *("labels", "relations", "label_data", "relation_data", "performance", "scores"),
        *("thresholds", "threshold", "label_items", "label2id", "id2label", "vocab", "entities"),
        *("descriptions", "spans", "triples", "entry-points"),
    )
)
#: What stands right below these is a name that somebody gave to a part.
_NAMED = frozenset(("components", "scorer", "scorers", "loggers", "metrics"))
#: Parameters of addresses that are secret there, beside the names above.
_PARAMETERS = frozenset(
    ("sig", "signature", "key", "pass", "token", "amzsignature", "googsignature", "amzcredential")
)

#: Stands for a place in a list among the names that lead to a value.
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
#: What every secret has in it that is known by its form: most texts have not.
_HINT = re.compile(r"[:=]|[\w.~+/-]{14}|PRIVATE KEY|(?i:basic\s|bearer\s)")
_LOGIN = re.compile(r"(://[^/\s:@\"'<>]*:)([^/\s\"'<>]+)(@)")
_BASIC = re.compile(r"\b([Bb]asic\s+)([A-Za-z0-9+/_-]{6,}={0,2})")
_QUERY = re.compile(r"([?&#](?:amp;)?)([\w.%-]+)(=)([^&\s\"'#<>;]+)|(?<![\w-])()(sig)(=)([^&\s\"'#<>;]+)")
_ASSIGNED = re.compile(
    r"""(?P<name>(?:--)?[A-Za-z_][\w.-]*)(?P<between>["']?\s*[:=]\s*)"""
    r"""(?P<value>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s,;&"'(){}\[\]]+)"""
)
_OPTION = re.compile(r"(--[A-Za-z_][\w.-]*)(\s+)(?!--)(\"[^\"]*\"|'[^']*'|\S*\w\S*)")
_PLACE = re.compile(r"(?:^|(?<=\| )|(?<=: ))\[([\w.*-]+)\]([^\[|\n]*)")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)+\"|'(?:[^'\\]|\\.)+'")

#: Plug-ins of detect-secrets whose forms no word, path or digest has.
_PLUGINS = {
    "discord": "DiscordBotTokenDetector",
    "github_token": "GitHubTokenDetector",
    "gitlab_token": "GitLabTokenDetector",
    "mailchimp": "MailchimpDetector",
    "openai": "OpenAIDetector",
    "pypi_token": "PypiTokenDetector",
    "sendgrid": "SendGridDetector",
    "slack": "SlackDetector",
    "square_oauth": "SquareOAuthDetector",
    "stripe": "StripeDetector",
    "telegram_token": "TelegramBotTokenDetector",
    "twilio": "TwilioKeyDetector",
}


def is_secret(name: str, value: Any) -> bool:
    """Tell whether a setting is a password, a token of a login or a key.

    Parameters
    ----------
    name
        Name of the setting, with or without those of its sections. ``max_tokens`` and ``sep_token`` are not secret.
    value
        Its value. A reference to an environment variable is not secret.
    """
    path = name.split(".")
    return _is_hidden(path, value) or (isinstance(value, str) and redacted_text(value) != value)


def redacted(name: str, value: Any, found: list[str] | None = None) -> Any:
    """Return `value` with its secrets redacted, also those in lists and mappings.

    Parameters
    ----------
    name
        Name of the setting that has this value, with or without those of its sections; may be empty.
    value
        Any value. It is not changed.
    found
        Takes the names of the settings that were redacted.
    """
    return _redacted(name.split(".") if name else [], value, [] if found is None else found)


def redacted_text(text: str) -> str:
    """Return prose, a message or a log with the secrets in it redacted.

    A secret is known by its form. It is also known by its name where the text assigns it, as ``api_key="..."`` or
    ``--api_key ...`` do.
    """
    text = _by_form(text)
    if not any(sign in text for sign in (":", "=", "--", "[")):
        return text
    text = _OPTION.sub(
        lambda match: _kept(match[1].lstrip("-"), match[1] + match[2], match[3], strict=False), text
    )
    text = _ASSIGNED.sub(
        lambda match: _kept(
            match["name"].lstrip("-"),
            match["name"] + match["between"],
            match["value"],
            strict=not match["name"].startswith("--"),
        ),
        text,
    )
    return _PLACE.sub(_place, text)


def redacted_message(where: str, text: str) -> str:
    """Return a message about a setting, redacted: of one with a secret name, all that it quotes.

    Parameters
    ----------
    where
        Name of the setting, with those of its sections.
    text
        The message.
    """
    path = where.split(".")
    if _is_secret_name(path[-1]) and _LABELLED.isdisjoint(path):
        text = _QUOTED.sub(lambda quoted: f"{quoted[0][0]}{MARK}{quoted[0][-1]}", text)
    return redacted_text(text)


def redacted_config(text: str, found: list[str] | None = None) -> str:
    """Return the text of a config file (cfg, ini, toml) with the secrets in it redacted; all else stays as it is.

    Parameters
    ----------
    text
        Text of the file.
    found
        Takes the names of the settings that were redacted.
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
            result.append(_text_entry(entry, ".".join(section), found))
        else:
            value = _config_value([*section, *match[1].strip("'\" ").split(".")], match[3], found)
            result.append(match[1] + match[2] + value + match[4])
    return "".join(result)


def redact_folder(folder: Path, names: Iterable[str] | None = None) -> None:
    """Redact the secrets in the text files of a folder, and log once where they were.

    Vocabularies of tokenizers and binary files are left alone. A changed file is a new one: if it was linked, the other
    place keeps what it had.

    Parameters
    ----------
    folder
        Its files are looked at, those of its folders included.
    names
        Look at files with these names alone.
    """
    wanted = None if names is None else set(names)
    for path in sorted(folder.rglob("*")):
        if path.name in _VOCABULARIES or (wanted is not None and path.name not in wanted):
            continue
        how = _forms_file if path.name == "tokenizer_config.json" else _FILES.get(path.suffix)
        if how is None or not path.is_file() or path.stat().st_size > _LIMIT:
            continue
        try:
            text = path.read_bytes().decode("utf8")
        except UnicodeDecodeError:
            continue
        found: list[str] = []
        new = how(text, found)
        if new != text:
            path.unlink()  # it may be a link to somebody's own file
            path.write_bytes(new.encode("utf8"))
            tell_redacted(path.relative_to(folder).as_posix(), found)


def tell_redacted(where: str, found: Iterable[str]) -> None:
    """Log, once in a process, which settings were redacted in a file.

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


@cache
def _tell(where: str, what: str) -> None:
    logger.warning("redacted in %s: %s", where, what)


# -- by name -----------------------------------------------------------------------------------------------------------


@cache
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


@cache
def _is_section(name: str) -> bool:
    words = [word.lower() for word in _PART.findall(name)]
    return any("".join(words[-number:]) in _SECTIONS for number in (1, 2))


def _is_hidden(path: list[str], value: Any) -> bool:
    """Tell whether a plain value is secret for the names that lead to it."""
    if not path or not _hides(tuple(path)):
        return False
    last = next(name for name in reversed(path) if name != _ITEM)
    token = last.lower().endswith("token")
    if isinstance(value, int) and not isinstance(value, bool):
        # a small number is one of something, for a label of that name, or a token of a vocabulary
        return value >= 1000 and not token and _is_secret_name(last)
    plain = value.strip() if isinstance(value, str) else ""
    if plain in ("", "null", "None", MARK) or _REFERENCE.fullmatch(plain):
        return False
    return not (token and re.fullmatch(r"[<\[(|{].*[>\])|}]", plain))


@lru_cache(4096)
def _hides(path: tuple[str, ...]) -> bool:
    """Tell whether names lead to secrets: the last one, or a section that nobody just gave such a name."""
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
        if "value" in value and _is_hidden([*path, called], value["value"]):
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
                and _is_hidden([option[2:]], items[place + 1])
            ):
                found.append(option)
                items[place + 1] = MARK
        return items
    new = _redacted_scalar(path, value)
    if new is not value:
        found.append(_name(path))
    return new


def _redacted_scalar(path: list[str], value: Any) -> Any:
    if _is_hidden(path, value if isinstance(value, (bool, int, float)) or value is None else str(value)):
        return MARK
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    text = str(value)
    # a description of a label is read by the model: words in it stay
    redacted_one = redacted_text(text) if _LABELLED.isdisjoint(path) else _by_form(text)
    if redacted_one == text:
        return value
    return redacted_one if re.search(r"\s", text) else MARK


def _kept(name: str, before: str, value: str, *, strict: bool) -> str:
    """Return an assignment in a text, the value redacted if it is secret."""
    quote = value[0] if value[0] in "\"'" and len(value) > 1 and value[-1] == value[0] else ""
    plain = value[len(quote) : len(value) - len(quote)]
    path = name.split(".")
    random = len(plain) >= 8 and re.search(r"\d", plain) and re.search(r"[A-Za-z]", plain)
    if not _is_hidden(path, plain) or (strict and not quote and not random) or MARK in plain:
        return before + value
    return f"{before}{quote}{MARK}{quote}"


def _place(match: re.Match[str]) -> str:
    """Redact what a message quotes about a setting with a secret name, as ``[train.api_key] is '...'`` does."""
    path = match[1].split(".")
    if not _is_secret_name(path[-1]) or not _LABELLED.isdisjoint(path):
        return match[0]
    return f"[{match[1]}]" + _QUOTED.sub(lambda quoted: f"{quoted[0][0]}{MARK}{quoted[0][-1]}", match[2])


# -- by form -----------------------------------------------------------------------------------------------------------


@cache
def _forms() -> tuple[re.Pattern[str], ...]:
    """Return all forms: our own, then those of detect-secrets, which are read on to the end of the word."""
    from importlib import import_module

    try:
        plugins = [
            getattr(import_module(f"detect_secrets.plugins.{module}"), name)
            for module, name in _PLUGINS.items()
        ]
    except ImportError:
        logger.warning(
            "detect-secrets is not installed: fewer forms of secrets are known. pip install detect-secrets"
        )
        plugins = []
    known = [form for plugin in plugins for form in plugin.denylist]
    return (
        *_FORMS,
        *(re.compile(rf"(?<![A-Za-z0-9/_.-])(?:{form.pattern})[\w-]*", form.flags) for form in known),
    )


def _by_form(text: str) -> str:
    if text.replace(" ", "").isalpha() and "asic " not in text and "earer " not in text:
        return text  # as most labels are
    if not _HINT.search(text):
        return text
    for form in _forms():
        text = form.sub(MARK, text)
    text = _LOGIN.sub(lambda match: match[0] if _is_open(match[2]) else f"{match[1]}{MARK}{match[3]}", text)
    text = _BASIC.sub(lambda match: match[1] + MARK if _is_login(match[2]) else match[0], text)
    return _QUERY.sub(_parameter, text) if "=" in text else text


def _is_open(value: str) -> bool:
    return value == MARK or bool(_REFERENCE.fullmatch(value))


def _is_login(text: str) -> bool:
    """Tell whether a text is ``user:password`` in base 64."""
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return False
    return ":" in plain and plain.isprintable()


def _parameter(match: re.Match[str]) -> str:
    """Redact a secret parameter of an address."""
    start, name, equals, value = match.groups()[:4] if match[2] else match.groups()[4:]
    joined = "".join(word.lower() for word in _PART.findall(name)).removeprefix("x")
    if not (joined in _PARAMETERS or _is_secret_name(name)) or _is_open(value):
        return match[0]
    return f"{start}{name}{equals}{MARK}"


# -- files -------------------------------------------------------------------------------------------------------------

_HEADER = re.compile(r"(\[+[^\[\]]+\]+)\s*(?:[#;].*)?$")
_ENTRY = re.compile(r"([^\s=\[#;][^=\n]*?)([ \t]*=[ \t]*)(.*?)(\s*)", re.DOTALL)
#: Larger files are data.
_LIMIT = 16 * 1024**2
#: Files of which each word counts: of vocabularies.
_VOCABULARIES = frozenset(
    (
        *("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json", "strings.json"),
        *("special_tokens_map.json", "labels.json"),
    )
)


def _entries(text: str) -> Iterator[str]:
    """Yield the entries of a config file: lines, each with the indented ones that go on with it."""
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
    """Tell whether a value goes on in the next line, as a text in three quotes does."""
    return _ENTRY.match(entry) is not None and any(entry.count(mark) % 2 for mark in ('"""', "'''"))


def _config_value(path: list[str], text: str, found: list[str]) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            if _is_hidden(path, text):
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


def _text_entry(text: str, name: str, found: list[str]) -> str:
    new = redacted_text(text)
    if new != text:
        found.append(name)
    return new


def _json_file(text: str, found: list[str]) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return _text_entry(text, "", found)
    new = _redacted([], value, found)
    return json.dumps(new, ensure_ascii=False, indent=2) + "\n" if found else text


def _forms_file(text: str, found: list[str]) -> str:
    """Redact by form alone: in data and code, names are nothing to go by."""
    new = _by_form(text)
    if new != text:
        found.append("")
    return new


def _yaml_file(text: str, found: list[str]) -> str:
    """Redact the scalars of a YAML file in their places; comments and the form stay."""
    new = text
    for match in reversed(list(_YAML.finditer(text))):
        value = match[3].strip()
        plain = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
        if plain and _is_hidden([match[1].strip("'\" ")], plain):
            found.append(match[1])
            new = new[: match.start(3)] + f'"{MARK}"' + new[match.end(3) :]
    return _text_entry(new, "", found)


def _card_file(text: str, found: list[str]) -> str:
    """Redact a text in Markdown, its front matter and the configs that it shows."""
    return re.sub(
        r"(?s)(\A---\n)(.*?)(\n---)|(```(?:ini|cfg|toml)\n)(.*?)(```)",
        lambda match: (
            match[1] + _yaml_file(match[2], found) + match[3]
            if match[1]
            else match[4] + redacted_config(match[5], found) + match[6]
        ),
        _text_entry(text, "", found),
    )


_YAML = re.compile(r"(?m)^[ \t-]*([\w.\"'-]+)[ \t]*:([ \t]+)([^\n#|>&*{\[][^\n]*?)(?=[ \t]*(?:#.*)?$)")
_FILES: dict[str, Callable[[str, list[str]], str]] = {
    ".cfg": redacted_config,
    ".ini": redacted_config,
    ".toml": redacted_config,
    ".json": _json_file,
    ".yml": _yaml_file,
    ".yaml": _yaml_file,
    ".md": _card_file,
    ".txt": _forms_file,
    ".log": _forms_file,
    ".jsonl": _forms_file,
    ".csv": _forms_file,
    ".tsv": _forms_file,
    ".py": _forms_file,
    ".rst": _forms_file,
    ".env": redacted_config,
}
