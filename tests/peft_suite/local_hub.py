"""A stand-in for the Hub on the loopback interface, read only: `ROOT/<owner>/<name>/<revision>/<files>`.

It answers what `huggingface_hub` asks when it loads: files, a repository's description, its tree, its revisions.
Nothing is forwarded to the network.
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class HubHandler(BaseHTTPRequestHandler):
    """Serves `root`."""

    protocol_version = "HTTP/1.1"
    root: Path

    def log_message(self, *args: Any) -> None:
        """Nothing: the tests' output is the tests'."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self._body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.do_GET()

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.split("/") if part]
        asked = parts[2:] if parts[:2] == ["api", "models"] else parts
        name = next(
            (n for n in ("/".join(asked[:2]), asked[0] if asked else "") if (self.root / n / "main").is_dir()), ""
        )
        rest = asked[len(name.split("/")) :]
        if not name or parts[:1] in (["datasets"], ["spaces"]):
            return self._refuse(401, "RepoNotFound", "Repository not found")
        verb, revision = [*rest, "info", "main"][0], [*rest, *["main"] * 2][1]
        if verb == "refs":
            revisions = sorted(path.name for path in (self.root / name).iterdir())
            branches = [{"name": r, "ref": f"refs/heads/{r}", "targetCommit": _sha(name, r)} for r in revisions]
            return self._send({"branches": branches, "converts": [], "tags": [], "pullRequests": []})
        by_name = {key: path for path in (self.root / name).iterdir() for key in (path.name, _sha(name, path.name))}
        if revision not in by_name:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        folder = by_name[revision]
        if verb in ("resolve", "raw"):
            return self._file(folder / "/".join(rest[2:]), _sha(name, folder.name))
        return self._answer(verb, name, folder, "/".join(rest[2:]))

    def _answer(self, verb: str, name: str, folder: Path, prefix: str) -> None:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in files]
        entries = [
            {"type": "file", "oid": _digest(path.read_bytes()), "size": path.stat().st_size, "path": known}
            for path, known in zip(files, names, strict=True)
            if not prefix or known.startswith(prefix + "/")
        ]
        if verb == "tree" and prefix and not entries:
            return self._refuse(404, "EntryNotFound", f"{prefix} does not exist")
        if verb == "tree":
            return self._send(entries)
        if verb == "paths-info":
            wanted = json.loads(self._body).get("paths", [])
            return self._send([entry for entry in entries if entry["path"] in wanted])
        if verb in ("info", "revision"):
            siblings = [{"rfilename": known} for known in names]
            return self._send({"id": name, "modelId": name, "sha": _sha(name, folder.name), "siblings": siblings})
        return self._refuse(404, "NotFound", f"no answer to {self.path}")

    def _file(self, path: Path, sha: str) -> None:
        if not path.is_file():
            return self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": sha})
        data = path.read_bytes()
        return self._send(data, 200, {"ETag": f'"{_digest(data)}"', "X-Repo-Commit": sha})

    def _refuse(self, status: int, code: str, words: str, headers: dict[str, str] | None = None) -> None:
        self._send({"error": words}, status, {**(headers or {}), "X-Error-Code": code, "X-Error-Message": words})

    def _send(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _sha(name: str, revision: str) -> str:
    return hashlib.sha1(f"{name}@{revision}".encode()).hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def serve(root: Path) -> str:
    """Serve a folder from a thread that ends with the process; the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HubHandler,), {"root": root}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"
