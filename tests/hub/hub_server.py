"""A model hub on this machine: the part of the Hugging Face hub's HTTP interface that pushing and loading use.

It keeps commits in memory, checks the token of each request, and takes note of what was asked.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "T0k3nOfTheTests" * 2
USER = "ada"
#: Files that are stored apart, as git-lfs does it.
LARGE = ("*.safetensors", "*.bin", "key2row")


@dataclass
class Repo:
    """A repository: for each branch, the files of its newest commit; and all commits."""

    private: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: list[dict[str, Any]] = field(default_factory=list)

    def sha(self, branch: str = "main") -> str:
        """Name of the newest commit of a branch."""
        text = repr(
            sorted((path, hashlib.sha1(data).hexdigest()) for path, data in self.branches[branch].items())
        )
        return hashlib.sha1(f"{len(self.commits)} {text}".encode()).hexdigest()

    def files(self, revision: str) -> dict[str, bytes] | None:
        """Files of a branch or of a commit that is a branch's newest."""
        for branch, files in self.branches.items():
            if revision in (branch, self.sha(branch)):
                return files
        return None


class HubServer:
    """The hub; ``with HubServer() as hub`` serves it at ``hub.url``."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None, bytes]] = []
        #: Requests that are answered with an error: pattern of "METHOD /path", and the status.
        self.broken: dict[str, int] = {}
        #: Commits wait for this.
        self.gate = threading.Event()
        self.gate.set()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def asked(self, pattern: str) -> list[str]:
        """Requests so far whose "METHOD /path" matches a pattern."""
        lines = [f"{method} {path}" for method, path, _, _ in self.requests]
        return [line for line in lines if fnmatch.fnmatchcase(line, pattern)]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def answer(self, value: Any = None, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, message: str, code: str = "") -> None:
        self.answer({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message})

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        token = self.headers.get("Authorization")
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, self.path, token, body))
        for pattern, status in self.hub.broken.items():
            if fnmatch.fnmatchcase(f"{self.command} {path}", pattern):
                return self.refuse(status, "the server is out of order")
        if token not in (None, f"Bearer {TOKEN}"):
            return self.refuse(401, "Invalid credentials in Authorization header")
        known = token is not None
        if path == "/api/whoami-v2":
            return (
                self.answer({"type": "user", "name": USER, "orgs": []}) if known else self.refuse(401, "Who?")
            )
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        for pattern, method in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found:
                return getattr(self, method)(known, body, **found.groupdict())
        return self.refuse(404, f"no such address: {self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = serve

    def create(self, known: bool, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        if not known:
            return self.refuse(401, "Who?")
        if not name.startswith(f"{USER}/"):
            return self.refuse(
                403, f"You have no rights to create a model under the namespace {name.split('/')[0]!r}."
            )
        if name in self.hub.repos:
            return self.answer(
                {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409
            )
        self.hub.repos[name] = Repo(bool(asked.get("private")) or asked.get("visibility") == "private")
        return self.answer({"url": f"{self.hub.url}/{name}", "id": name, "name": name})

    def repo(self, known: bool, name: str, code: bool = True) -> Repo | None:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not known):
            self.refuse(404 if known else 401, "Repository not found", "RepoNotFound")
            return None
        return repo

    def info(self, known: bool, body: bytes, name: str, revision: str | None = None) -> None:
        repo = self.repo(known, name)
        if repo is None:
            return None
        files = repo.files(revision or "main")
        if files is None:
            return self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        sha = next(repo.sha(branch) for branch, held in repo.branches.items() if held is files)
        return self.answer(
            {
                "id": name,
                "modelId": name,
                "sha": sha,
                "private": repo.private,
                "siblings": [{"rfilename": path} for path in sorted(files)],
                "tags": [],
                "downloads": 0,
                "likes": 0,
            }
        )

    def tree(self, known: bool, body: bytes, name: str, revision: str) -> None:
        repo = self.repo(known, name)
        if repo is None:
            return None
        files = repo.files(revision)
        if files is None:
            return self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        rows = [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in sorted(files.items())
        ]
        return self.answer(rows)

    def branch(self, known: bool, body: bytes, name: str, revision: str) -> None:
        repo = self.repo(known, name)
        if repo is None:
            return None
        if revision in repo.branches:
            return self.refuse(409, "Reference already exists")
        repo.branches[revision] = dict(repo.branches["main"])
        return self.answer({})

    def preupload(self, known: bool, body: bytes, name: str, revision: str) -> None:
        repo = self.repo(known, name)
        if repo is None:
            return None
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if _is_large(file["path"]) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(body)["files"]
        ]
        return self.answer({"files": files})

    def lfs(self, known: bool, body: bytes, name: str) -> None:
        objects = [
            {
                "oid": item["oid"],
                "size": item["size"],
                "authenticated": True,
                "actions": {"upload": {"href": f"{self.hub.url}/blobs/{item['oid']}", "header": {}}},
            }
            for item in json.loads(body)["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def blob(self, known: bool, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self.refuse(400, "the content is another")
        self.hub.blobs[oid] = body
        return self.answer({})

    def commit(self, known: bool, body: bytes, name: str, revision: str) -> None:
        self.hub.gate.wait(20)
        repo = self.repo(known, name)
        if repo is None:
            return None
        if not known:
            return self.refuse(403, "read only")
        if revision not in repo.branches:
            return self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        files = dict(repo.branches[revision])
        changes: dict[str, Any] = {"deleted": [], "files": [], "revision": revision}
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                changes["summary"] = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                changes["files"].append(value["path"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
                changes["files"].append(value["path"])
            elif item["key"] == "deletedFile":
                files.pop(value["path"])
                changes["deleted"].append(value["path"])
        repo.branches[revision] = files
        repo.commits.append(changes)
        sha = repo.sha(revision)
        url = f"{self.hub.url}/{name}/commit/{sha}"
        return self.answer({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def resolve(self, known: bool, body: bytes, name: str, revision: str, path: str) -> None:
        repo = self.repo(known, name)
        if repo is None:
            return None
        files = repo.files(revision)
        if files is None:
            return self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        branch = next(branch for branch, held in repo.branches.items() if held is files)
        sha = {"X-Repo-Commit": repo.sha(branch)}
        if path not in files:
            self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound", **sha})
            return None
        data = files[path]
        digest = hashlib.sha256(data).hexdigest() if _is_large(path) else hashlib.sha1(data).hexdigest()
        return self.answer(data, headers={"ETag": f'"{digest}"', "Accept-Ranges": "bytes", **sha})


def _is_large(path: str) -> bool:
    return any(fnmatch.fnmatchcase(path.rpartition("/")[2], pattern) for pattern in LARGE)


_NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
_ROUTES = [
    (r"/api/repos/create", "create"),
    (rf"/api/models/{_NAME}/revision/(?P<revision>.+)", "info"),
    (rf"/api/models/{_NAME}/tree/(?P<revision>[^/]+)/?", "tree"),
    (rf"/api/models/{_NAME}/branch/(?P<revision>.+)", "branch"),
    (rf"/api/models/{_NAME}/preupload/(?P<revision>.+)", "preupload"),
    (rf"/api/models/{_NAME}/commit/(?P<revision>.+)", "commit"),
    (rf"/api/models/{_NAME}", "info"),
    (rf"/{_NAME}\.git/info/lfs/objects/batch", "lfs"),
    (r"/blobs/(?P<oid>\w+)", "blob"),
    (rf"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
]
