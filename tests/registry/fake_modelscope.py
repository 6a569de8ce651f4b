"""ModelScope's file API on the loopback interface: a listing, and files that come from another address."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class FakeModelScope(ThreadingHTTPServer):
    """Serves `files` of one model at revision master, as www.modelscope.cn does.

    Attributes:
        asked: path and query of every request.
        tokens: the Authorization header of each, "" where there was none.
        elsewhere: where the files themselves are; None: here.
        breaks_after: bytes of a larger file after which the connection is closed, once.
        ranges: the Range header of each request for a file.
        slowly: seconds before each file.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], model: str = "org/model") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.routes = f"/api/v1/models/{model}/repo"
        self.asked: list[str] = []
        self.tokens: list[str] = []
        self.ranges: list[str] = []
        self.slowly = 0.0
        self.refuse: int | None = None
        self.body: bytes | None = None
        self.claimed: dict[str, dict[str, object]] = {}
        self.elsewhere: FakeModelScope | None = None
        self.breaks_after: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeModelScope
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        hub, parts = self.server, urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        hub.asked.append(self.path)
        hub.tokens.append(self.headers.get("Authorization", ""))
        if hub.refuse is not None:
            return self._answer(hub.refuse, b"{}")
        if parts.path == f"{hub.routes}/files" and query["Revision"] == "master":
            return self._answer(200, hub.body or json.dumps(self._listing()).encode())
        if parts.path == hub.routes and query["FilePath"] in hub.files:
            if hub.elsewhere is not None:
                return self._answer(302, b"", {"Location": f"{hub.elsewhere.url}/store/{query['FilePath']}"})
            return self._file(query["FilePath"])
        if parts.path.startswith("/store/"):
            return self._file(parts.path.removeprefix("/store/"))
        return self._answer(404, b'{"Code":10010205001,"Success":false}')

    def _listing(self) -> dict[str, object]:
        files: list[dict[str, object]] = [{"Name": "inner", "Path": "inner", "Type": "tree", "Size": 0}]
        for name, data in self.server.files.items():
            digest = hashlib.sha256(data).hexdigest()
            row = {"Name": name.split("/")[-1], "Path": name, "Type": "blob", "Size": len(data), "Sha256": digest}
            files.append(row | self.server.claimed.get(name, {}))
        return {"Code": 200, "Success": True, "Data": {"Files": files}}

    def _file(self, name: str) -> None:
        hub, data = self.server, self.server.files[name]
        wanted = self.headers.get("Range", "")
        hub.ranges.append(wanted)
        time.sleep(hub.slowly)
        start = int(wanted.removeprefix("bytes=").partition("-")[0] or 0) if wanted else 0
        if wanted and start >= len(data):
            return self._answer(416, b"")
        if hub.breaks_after is not None and len(data) > hub.breaks_after:
            cut, hub.breaks_after = hub.breaks_after, None
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:cut])
            self.close_connection = True
            return None
        return self._answer(206 if wanted else 200, data[start:])

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@contextmanager
def fake_modelscope(files: dict[str, bytes], model: str = "org/model") -> Iterator[FakeModelScope]:
    """Run one with these files until the block ends."""
    with FakeModelScope(files, model) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
