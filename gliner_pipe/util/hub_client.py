"""The client of the hub: login, repositories, and errors in one line."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from gliner_pipe.errors import ConfigError, shortened
from gliner_pipe.util.secrets import MARK, redacted_text

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LOGIN = "Set HF_TOKEN to a token with write access, or run: hf auth login"


def make_api() -> HfApi:
    """Return a client of the hub at HF_ENDPOINT; huggingface.co by default."""
    from huggingface_hub import HfApi

    return HfApi(
        endpoint=os.environ.get("HF_ENDPOINT") or None,
        library_name="gliner_pipe",
        library_version=version("gliner_pipe"),
    )


def check_hub(where: str = "push_to_hub") -> str:
    """Check that there is a login which the hub accepts.

    Parameters
    ----------
    where
        Setting that needs the hub, for messages.

    Returns
    -------
    str
        Name of the user.

    Raises
    ------
    ConfigError
        If there is no login, the hub refuses it, or the hub cannot be reached.
    """
    from huggingface_hub import get_token

    if not get_token():
        raise ConfigError(where, "needs a login of the hub", do=LOGIN)
    try:
        return str(make_api().whoami()["name"])
    except Exception as error:
        raise hub_error(where, "could not log in", error) from None


def make_repo(api: HfApi, repo_id: str, private: bool, revision: str | None, where: str) -> str:
    """Create a repository and a branch unless they exist; return the full name of the repository.

    Raises
    ------
    ConfigError
        If the name is invalid, the login may not write to it, or the repository is public although `private` is set.
    """
    from huggingface_hub.errors import HFValidationError

    try:
        full = str(api.create_repo(repo_id, private=private, exist_ok=True).repo_id)
        public = private and not api.model_info(full).private
        if revision is not None:
            api.create_branch(full, branch=revision, exist_ok=True)
    except HFValidationError as error:
        found = f"names the repository {repo_id!r}: {_flat(error)}"
        raise ConfigError(where, found, "user/name, of letters, digits, -, _ and .") from None
    except Exception as error:
        raise hub_error(where, f"could not create {repo_id!r} on the hub", error) from None
    if public:
        found = f"expects a private repository, but {full!r} is public"
        raise ConfigError(where, found, do="Make it private on the hub, or set private = false")
    return full


def hub_error(where: str, what: str, error: BaseException) -> ConfigError:
    """Return an error of the client as a ``ConfigError`` of one line, with advice and without the token."""
    reason, do = explain(error)
    return ConfigError(where, f"{what}: {reason}", do=do)


def explain(error: BaseException) -> tuple[str, str]:
    """Return the reason of an error of the client in one line, and advice."""
    from huggingface_hub import errors

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    endpoint = os.environ.get("HF_ENDPOINT") or "huggingface.co"
    if any(isinstance(item, errors.OfflineModeIsEnabled) for item in chain):
        return "HF_HUB_OFFLINE is set", "Unset it, or use a model on this machine"
    for item in chain:
        status = getattr(getattr(item, "response", None), "status_code", None)
        if isinstance(item, errors.GatedRepoError):
            return "access to the repository is restricted", "Request access on its page, and log in"
        if isinstance(item, errors.RepositoryNotFoundError):
            reason = "the repository does not exist, or the login may not read it"
            return reason, "Check the name and the login"
        if isinstance(item, errors.RevisionNotFoundError):
            return "the repository has no such revision", "Check the branch, tag or commit"
        if status == 401:
            return "the hub refuses the token of the login", LOGIN
        if status == 403:
            return f"the login has no permission ({_server_message(item)})", LOGIN
        if status is not None:
            return f"the hub answers {status} ({_server_message(item)})", ""
    for item in chain:
        if type(item).__name__ in _UNREACHABLE:
            return f"{endpoint} cannot be reached ({_flat(item) or type(item).__name__})", "Check the network"
    last = chain[-1]
    return f"{type(last).__name__}: {_flat(last)}", ""


#: Errors of httpx and requests for a server that does not respond.
_UNREACHABLE = ("ConnectError", "ConnectTimeout", "ReadTimeout", "ConnectionError", "Timeout", "ReadError")


def _server_message(error: Any) -> str:
    return _flat(getattr(error, "server_message", None) or error)


def _flat(error: Any) -> str:
    """Return an error as one short line, without the token."""
    from huggingface_hub import get_token

    text = " ".join(str(error).split())
    token = get_token()
    return shortened(redacted_text(text.replace(token, MARK) if token else text))
