"""The clients of everything but media, where the environment names a proxy."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from sensorium.errors import ConfigurationError
from sensorium.http_client import http_client, is_here
from sensorium.llm import get_model_list_client
from sensorium.terminal.registry_client import RegistryClient
from sensorium.terminal.remote import RemoteModel
from sensorium.upstream.client import Client

NO_PROXY_THERE = "http://127.0.0.1:9"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
Ask = Callable[[str], object]


class Listing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        text = b'{"object": "list", "data": []}' if self.path == "/v1/models" else b"{}"
        if self.path == "/v1/models" and self.headers.get("Authorization") == "Bearer one":
            text = b'{"object": "list", "data": [{"id": "m1"}]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Listing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return lambda url: monkeypatch.setenv("ALL_PROXY", url)


def ask_upstream(url: str) -> object:
    client = Client(f"{url}/v1", "it", {})
    try:
        return client.wait(client.text("GET", "models"))
    finally:
        client.stop()


ASKING = [
    lambda url: RegistryClient(url, None).all(),
    lambda url: RemoteModel(url, "one").name,
    lambda url: get_model_list_client(url=f"{url}/v1"),
    ask_upstream,
]


@pytest.mark.parametrize("ask", ASKING, ids=["models", "chat", "client", "upstream"])
@pytest.mark.parametrize("proxy_url", [NO_PROXY_THERE, "socks5://127.0.0.1:9"])
def test_a_server_of_this_machine_is_asked_without_the_proxy(
    ask: Ask, proxy_url: str, port: int, proxy: Callable[[str], None]
) -> None:
    proxy(proxy_url)
    assert ask(f"http://127.0.0.1:{port}") is not None


@pytest.mark.parametrize("ask", ASKING[:2], ids=["models", "chat"])
def test_host_and_port_are_enough(ask: Ask, port: int, proxy: Callable[[str], None]) -> None:
    assert ask(f"127.0.0.1:{port}") is not None


@pytest.mark.skipif(importlib.util.find_spec("socksio") is not None, reason="httpx can use SOCKS proxies here")
def test_a_socks_proxy_says_what_to_install(proxy: Callable[[str], None]) -> None:
    proxy("socks5://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match=r"^ALL_PROXY names a SOCKS proxy.*httpx\[socks\]"):
        http_client(httpx.Client, "https://example.com")


@pytest.mark.skipif(importlib.util.find_spec("socksio") is not None, reason="httpx can use SOCKS proxies here")
def test_a_download_through_a_socks_proxy_says_so(proxy: Callable[[str], None], tmp_path: Path) -> None:
    proxy("socks5://127.0.0.1:9")
    program = "from sensorium.registry.download import download as d; d('organisation/model', None, lambda *_: None)"
    environment = {**os.environ, "SENSORIUM_HOME": str(tmp_path), "HF_HUB_OFFLINE": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert "ConfigurationError: ALL_PROXY names a SOCKS proxy" in done.stderr


def test_what_is_no_proxy_is_told_without_its_value(proxy: Callable[[str], None]) -> None:
    proxy("ftp://user:secret@host")
    with pytest.raises(ConfigurationError, match=r"^ALL_PROXY names no proxy") as caught:
        http_client(httpx.AsyncClient, "https://example.com")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost/v1", "http://[::1]:1", "http://127.8.9.1"])
def test_what_is_here(url: str) -> None:
    assert is_here(url)


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1", "https://127.0.0.1", "http://localhost.example.com", "http://[", ""]
)
def test_what_is_not(url: str) -> None:
    assert not is_here(url)
