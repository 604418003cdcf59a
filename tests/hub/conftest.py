"""A stand-in for the Hub on this machine, which the real client of `huggingface_hub` talks to, and fresh processes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from huggingface_hub.utils import validate_repo_id

from tests import processes

Build: TypeAlias = Callable[..., Any]
USER = "me"


class HubServer(ThreadingHTTPServer):
    """Repositories in memory: `repos["me/name"]["README.md"]` is the file's content."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.empty()

    def empty(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.commits = 0
        self.history: list[tuple[str, dict[str, bytes]]] = []  # (repository, its files) after each commit
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def head(self) -> str:
        return hashlib.sha1(str(self.commits).encode()).hexdigest()

    def card(self, repo: str) -> str:
        return self.repos[repo]["README.md"].decode()


class HubHandler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Nothing to the terminal."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        if path == "/api/whoami-v2":
            return self.answer({"name": USER, "type": "user", "orgs": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            return self.with_repo(match[1], lambda files: self.answer(self.info(match[1], files)))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+/?", path):
            return self.with_repo(match[1], lambda files: self.answer([self.entry(k, v) for k, v in files.items()]))
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            return self.with_repo(match[1], lambda files: self.send_file(files, match[2]))
        return self.answer({"error": f"no such address {path}"}, 404, {"X-Error-Code": "RepoNotFound"})

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"POST {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return self.validate(json.loads(body)["content"])
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/[^/]+", path):
            wanted = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in wanted]
            return self.with_repo(match[1], lambda _: self.answer({"files": modes}))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/[^/]+", path):
            return self.with_repo(match[1], lambda files: self.commit(match[1], files, body))
        return self.answer({"error": f"no such address {path}"}, 404)

    def with_repo(self, repo: str, act: Callable[[dict[str, bytes]], None]) -> None:
        if self.headers.get("Authorization") != "Bearer dummy":
            return self.answer({"error": "not logged in"}, 401)
        if repo not in self.server.repos:
            return self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        return act(self.server.repos[repo])

    def create(self, wanted: dict[str, Any]) -> None:
        repo = f"{wanted.get('organization') or USER}/{wanted['name']}"
        status = 409 if repo in self.server.repos else 200
        self.server.repos.setdefault(repo, {})
        self.server.private.setdefault(repo, wanted.get("visibility") == "private")
        self.answer({"url": f"{self.server.url}/{repo}", "name": repo, "id": repo}, status)

    def validate(self, content: str) -> None:
        """As the Hub does it: a base model has to be a hub name, a result needs a task, a data set and metrics."""
        errors = []
        data = yaml.safe_load(content.split("---")[1])
        for name in [data["base_model"]] if isinstance(data.get("base_model"), str) else data.get("base_model") or []:
            try:
                validate_repo_id(name)
            except ValueError as error:
                errors.append(f'"base_model" is not valid: {error}')
        for result in [r for index in data.get("model-index") or [] for r in index["results"]]:
            errors += [f'"model-index" lacks {key}' for key in ("task", "dataset", "metrics") if key not in result]
            errors += [] if result.get("dataset", {}).get("type") else ['"dataset.type" is empty']
        plain = [{"message": message} for message in errors]
        self.answer({"errors": plain, "warnings": []}, 400 if errors else 200)

    def commit(self, repo: str, files: dict[str, bytes], body: bytes) -> None:
        for line in body.splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                assert item["value"]["encoding"] == "base64"
                files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            elif item["key"] == "deletedFile":
                del files[item["value"]["path"]]
        self.server.commits += 1
        self.server.history.append((repo, dict(files)))
        self.answer({"commitUrl": f"{self.server.url}/{repo}/commit/{self.server.head}", "commitOid": self.server.head})

    def info(self, repo: str, files: dict[str, bytes]) -> dict[str, Any]:
        siblings = [{"rfilename": name} for name in files]
        return {"id": repo, "modelId": repo, "sha": self.server.head, "siblings": siblings, "tags": []}

    def entry(self, name: str, content: bytes) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def send_file(self, files: dict[str, bytes], name: str) -> None:
        if name not in files:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.server.head}
            return self.answer({"error": "Entry not found"}, 404, headers)
        tag = {"ETag": f'"{hashlib.sha1(files[name]).hexdigest()}"', "X-Repo-Commit": self.server.head}
        return self.send(files[name], 200, {"Content-Type": "application/octet-stream", **tag})

    def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture(scope="session")
def server() -> Iterator[HubServer]:
    """One address for all modules, since `huggingface_hub` reads it when it is loaded."""
    server = HubServer()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def hub(server: HubServer) -> HubServer:
    """A Hub that is empty at a module's first test."""
    server.empty()
    return server


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all processes, one after the other: `huggingface_hub` reads where it is when it is loaded."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run_python(hub: HubServer, home: Path) -> Build:
    """`run_python(*arguments, code=None, expect=0)`: a fresh process that is logged in to the stand-in; its output."""

    def run(*arguments: str, code: str | None = None, expect: int = 0) -> str:
        shutil.rmtree(home)
        home.mkdir()
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": "dummy"}
        environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "COLUMNS": "100"}
        environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_COLOR": "1"}
        # PEFT reads a name that transformers deprecates, in every PeftModel.__init__
        known = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
        start = ["-W", "error", "-W", known] if code else []
        command = [*start, *(["-c", code] if code else []), *arguments]
        finished = processes.run(*command, cwd=home, env=environment, timeout=300)
        assert finished.returncode == expect, finished.stdout[-2000:] + finished.stderr[-4000:]
        return finished.stdout if not expect else finished.stderr

    return run


@pytest.fixture
def parts_of() -> Build:
    """`parts_of(card)`: metadata as a dictionary, and the body."""

    def split(card: str) -> tuple[dict[str, Any], str]:
        _, head, body = card.split("---\n", 2)
        return yaml.safe_load(head), body

    return split


@pytest.fixture
def files_below() -> Build:
    """`files_below(folder)`: relative paths of all files."""

    def listed(folder: Path) -> set[str]:
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    return listed
