"""A hub on the loopback interface: the few routes a snapshot download uses."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class FakeHub(ThreadingHTTPServer):
    """Serves `files` of the model org/model; `gated` and `private` refuse like the real one.

    Attributes:
        asked: method and path of every request.
    """

    daemon_threads = True
    commit = "a" * 40

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.asked: list[str] = []
        self.refuse: tuple[int, str] | None = None
        self.claimed_sizes: dict[str, int] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.asked.append(f"{self.command} {path}")
        if hub.refuse is not None:
            return self._answer(hub.refuse[0], b"{}", {"X-Error-Code": hub.refuse[1]})
        api, files = "/api/models/org/model", f"/org/model/resolve/{hub.commit}/"
        if path in (api, f"{api}/revision/main", f"{api}/revision/{hub.commit}"):
            siblings = [{"rfilename": name, "size": self._size(name), "blobId": "b"} for name in hub.files]
            return self._json(
                {"id": "org/model", "sha": hub.commit, "siblings": siblings, "private": False, "tags": []}
            )
        if path.startswith(f"{api}/revision/"):
            return self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if path == f"{api}/tree/{hub.commit}":
            return self._json(
                [{"type": "file", "path": n, "size": self._size(n), "oid": _etag(d)} for n, d in hub.files.items()]
            )
        if path.startswith(files) and path.removeprefix(files) in hub.files:
            data = hub.files[path.removeprefix(files)]
            return self._answer(200, data, {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": hub.commit})
        return self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _size(self, name: str) -> int:
        return self.server.claimed_sizes.get(name, len(self.server.files[name]))

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextmanager
def fake_hub(files: dict[str, bytes]) -> Iterator[FakeHub]:
    """Run a hub with these files until the block ends."""
    with FakeHub(files) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
