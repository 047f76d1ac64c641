"""The few endpoints of the Hugging Face hub that a download asks, on loopback; what it was asked is kept."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse


class Hub:
    """
    Attributes:
        repositories: by OWNER/NAME, their folders. commit: of each, and of its branch "main".
        asked: method and path of each request.
    """

    def __init__(self, repositories: dict[str, Path], commit: str) -> None:
        self.repositories, self.commit = repositories, commit
        self.asked: list[tuple[str, str]] = []
        self.url = ""

    def files(self, repository: str) -> dict[str, bytes]:
        folder = self.repositories[repository]
        return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path, as the hub words them."""
        parts = unquote(urlparse(path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repository, rest = "/".join(parts[2:4]), parts[4:]
        else:
            repository, rest = "/".join(parts[:2]), parts[2:]
        if repository not in self.repositories:
            return 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b""
        kind, revision = (*rest, "revision", "main")[:2] if rest else ("revision", "main")
        if revision not in ("main", self.commit):
            return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, b""
        files = self.files(repository)
        if kind == "resolve":
            return self._file(files, "/".join(rest[2:]))
        told: Any = {"id": repository, "modelId": repository, "sha": self.commit, "private": False}
        told["siblings"] = [{"rfilename": name} for name in files]
        if kind == "tree":
            told = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
        return 200, {"Content-Type": "application/json"}, json.dumps(told).encode()

    def _file(self, files: dict[str, bytes], name: str) -> tuple[int, dict[str, str], bytes]:
        if name not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}, b""
        etag = hashlib.sha1(files[name]).hexdigest()
        return 200, {"X-Repo-Commit": self.commit, "ETag": f'"{etag}"'}, files[name]


@contextmanager
def serving(repositories: dict[str, Path], commit: str) -> Iterator[Hub]:
    hub = Hub(repositories, commit)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.asked.append((self.command, self.path))
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
