from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sensorium.errors import MediaError
from sensorium.media import download
from sensorium.media.fetch import fetch_media
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem, MediaSource

LIMITS = MediaLimits(max_bytes=100_000, fetch_timeout_s=5.0)


async def resolve(host: str, port: int) -> list[str]:
    return ["127.0.0.2"] if host.endswith(".test") else []


async def fetch(*urls: str, limits: MediaLimits = LIMITS) -> list[MediaItem]:
    sources = [MediaSource("image", url, f"item[{index}]") for index, url in enumerate(urls)]
    return await fetch_media(sources, limits, resolve=resolve, permit="127.0.0.2".__eq__)


def failure(serve: Any, answer: Any, limits: MediaLimits = LIMITS) -> MediaError:
    """Return the error that an origin with this answer leads to."""

    async def run() -> MediaError:
        async with serve(answer) as origin:
            with pytest.raises(MediaError) as raised:
                await fetch(f"http://a.test:{origin.port}/x", limits=limits)
            return raised.value

    return asyncio.run(asyncio.wait_for(run(), 30))


def test_fetches_all_at_once_in_order_and_the_same_url_once(serve: Any, http: Any) -> None:
    together = asyncio.Event()

    async def run() -> None:
        async def answer(path: str, writer: asyncio.StreamWriter) -> None:
            if len(origin.paths) == 3:
                together.set()
            await together.wait()  # no answer before all three have asked
            writer.write(http(path.encode()))

        async with serve(answer) as origin:
            base = f"http://a.test:{origin.port}"
            urls = [f"{base}/1", f"{base}/2", f"{base}/1", "data:,d", f" {base}/3?x=1#fragment\n"]
            items = await fetch(*urls)
            assert [item.data for item in items] == [b"/1", b"/2", b"/1", b"d", b"/3?x=1"]
            assert [item.where for item in items] == [f"item[{index}]" for index in range(5)]
            assert sorted(origin.paths) == ["/1", "/2", "/3?x=1"]

    asyncio.run(asyncio.wait_for(run(), 30))


def test_no_sources_no_items() -> None:
    assert asyncio.run(fetch()) == []


def test_the_request_carries_nothing_it_need_not(serve: Any, http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def run() -> str:
        async def answer(path: str, writer: asyncio.StreamWriter) -> None:
            cookie = {"set_cookie": "a=b"}
            writer.write(http(b"x") if path == "/2" else http(b"", "302 Found", location="/2", **cookie))

        async with serve(answer) as origin:
            await fetch(f"http://a.test:{origin.port}/1")
            assert f"host: a.test:{origin.port}" in origin.heads[0].lower()
            return str(origin.heads[1])

    head = asyncio.run(asyncio.wait_for(run(), 30))
    names = {line.partition(":")[0].lower() for line in head.split("\r\n")[1:] if line}
    assert names == {"host", "user-agent", "accept", "accept-encoding"}
    assert "accept-encoding: identity" in head.lower()


@pytest.mark.parametrize("status", ["201 Created", "204 No Content", "206 Partial Content", "304 Not Modified"])
@pytest.mark.parametrize("other", ["401 Unauthorized", "404 Not Found", "500 Oops", "301 No Location"])
def test_any_status_but_200_is_named(serve: Any, http: Any, status: str, other: str) -> None:
    for line in (status, other):
        error = failure(serve, http(b"" if line[:3] in ("204", "304") else b"x", line))
        assert f"HTTP status {line[:3]}" in error.message
        assert error.code == "media_unreachable"


def test_errors_name_item_and_kind_but_no_address(serve: Any, http: Any) -> None:
    error = failure(serve, http(b"", "404 Not Found"))
    assert error.message == (
        "item[0]: Failed to load image from URL: the server answered with HTTP status 404; 200 is needed."
    )
    assert (error.param, error.status) == ("item[0]", 400)


@pytest.mark.parametrize("url", ["ftp://a.test/x", "gopher://a.test", "javascript://x", "httpx://a", "x:y", "http:"])
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(MediaError, match=r"must be an http\(s\), data or file URL"):
        asyncio.run(fetch(url))


def test_half_a_character_is_an_error_like_any_other() -> None:
    for url in (
        "http://a.test/\ud800",
        "http://\ud800/",
        "data:,\ud800",
        "data:;base64,\ud800",
        "file:///\ud800",
        "\ud800",
    ):
        with pytest.raises(MediaError):
            asyncio.run(fetch(url, limits=MediaLimits(allowed_local_path="/usr")))


def test_unknown_host_and_closed_port() -> None:
    with pytest.raises(MediaError, match="host name has no address"):
        asyncio.run(fetch("http://nowhere.invalid/"))
    with pytest.raises(MediaError, match="no connection to its host"):
        asyncio.run(fetch("http://a.test:1/"))


def test_a_second_address_is_tried(serve: Any, http: Any) -> None:
    async def two(host: str, port: int) -> list[str]:
        return ["127.0.0.3", "127.0.0.2"]

    async def run() -> None:
        async with serve(http(b"x")) as origin:
            source = MediaSource("image", f"http://a.test:{origin.port}/", "w")
            (item,) = await fetch_media([source], LIMITS, resolve=two, permit=lambda address: True)
            assert item.data == b"x"

    asyncio.run(asyncio.wait_for(run(), 30))


def test_redirects_are_followed_up_to_the_limit(serve: Any, http: Any) -> None:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        left = int(path[1:])
        writer.write(http(b"end") if left == 0 else http(b"", "302 Found", location=f"{left - 1}"))

    async def run() -> None:
        async with serve(answer) as origin:
            (item,) = await fetch(f"http://a.test:{origin.port}/3")
            assert item.data == b"end"
            for num_hops in (4, 20):
                with pytest.raises(MediaError, match="redirects more than 3 times"):
                    await fetch(f"http://a.test:{origin.port}/{num_hops}")
            assert len(origin.paths) == 12

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_redirect_loop_ends(serve: Any, http: Any) -> None:
    assert "redirects more than 3 times" in failure(serve, http(b"", "301 Moved", location="/x")).message


@pytest.mark.parametrize("part", ["head", "body", "nothing", "continue", "redirect"])
def test_a_slow_server_is_cut_off_at_the_deadline(serve: Any, http: Any, part: str) -> None:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        if part == "body":
            writer.write(http(b"", content_length="1000"))
        if part == "redirect":
            await asyncio.sleep(0.25)
            writer.write(http(b"", "302 Found", location=path + "x"))
            return
        while True:
            writer.write(
                {"head": b"H", "body": b"x", "nothing": b"", "continue": b"HTTP/1.1 100 Continue\r\n\r\n"}[part]
            )
            await writer.drain()
            await asyncio.sleep(0.05)

    began = time.monotonic()
    limits = MediaLimits(fetch_timeout_s=0.6, max_redirects=50)
    error = failure(serve, answer, limits)
    assert time.monotonic() - began < 10
    assert part == "head" or "not received within 0.6 s" in error.message  # "HHH..." is no HTTP at all
    assert error.code == "media_unreachable"


def test_waiting_for_a_free_connection_counts_too(serve: Any) -> None:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async def run() -> None:
        async with serve(answer) as origin:
            urls = [f"http://a.test:{origin.port}/{index}" for index in range(40)]
            began = time.monotonic()
            with pytest.raises(MediaError, match="not received within"):
                await fetch(*urls, limits=MediaLimits(fetch_timeout_s=0.5))
            assert time.monotonic() - began < 10
            assert len(origin.dialled) <= 16

    asyncio.run(asyncio.wait_for(run(), 30))


def test_one_failure_cancels_the_others(serve: Any, http: Any) -> None:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        if path == "/slow":
            await asyncio.sleep(30)
        writer.write(http(b"", "404 Not Found"))

    async def run() -> None:
        async with serve(answer) as origin:
            base = f"http://a.test:{origin.port}"
            began = time.monotonic()
            with pytest.raises(MediaError) as raised:
                await fetch(f"{base}/slow", f"{base}/bad")
            assert raised.value.param == "item[1]"
            assert time.monotonic() - began < 10

    asyncio.run(asyncio.wait_for(run(), 30))


def test_cancelling_the_caller_ends_the_fetch(serve: Any) -> None:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async def run() -> None:
        async with serve(answer) as origin:
            task = asyncio.create_task(fetch(f"http://a.test:{origin.port}/"))
            while not origin.paths:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(asyncio.wait_for(run(), 5))


def test_a_declared_length_over_the_limit_is_refused_unread(serve: Any, http: Any) -> None:
    error = failure(serve, http(b"", content_length=str(50 << 20)))
    assert "it has 50.0 MiB; the limit is 0.1 MiB" in error.message
    assert error.code == "media_too_large"


@pytest.mark.parametrize("chunked", [True, False])
def test_an_endless_body_is_cut_off_at_the_limit(serve: Any, chunked: bool) -> None:
    sent = 0

    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n" + (b"transfer-encoding: chunked\r\n" if chunked else b"") + b"\r\n")
        while sent < 200 << 20:
            writer.write(b"10000\r\n" + bytes(65536) + b"\r\n" if chunked else bytes(65536))
            await writer.drain()
            sent += 65536

    error = failure(serve, answer)
    assert error.code == "media_too_large"
    assert sent < 20 << 20  # what the kernel's buffers hold, not the whole


def test_a_body_of_exactly_the_limit_is_accepted(serve: Any, http: Any) -> None:
    async def run() -> None:
        async with serve(http(bytes(100_000))) as origin:
            (item,) = await fetch(f"http://a.test:{origin.port}/")
            assert item.data == bytes(100_000)

    asyncio.run(asyncio.wait_for(run(), 30))
    assert failure(serve, http(bytes(100_001))).code == "media_too_large"


def test_gzip_is_undone_and_counted_as_it_grows(serve: Any, http: Any) -> None:
    async def run() -> None:
        async with serve(http(gzip.compress(b"picture" * 1000), content_encoding="gzip")) as origin:
            (item,) = await fetch(f"http://a.test:{origin.port}/")
            assert item.data == b"picture" * 1000

    asyncio.run(asyncio.wait_for(run(), 30))
    bomb = gzip.compress(bytes(60 << 20))
    assert len(bomb) < LIMITS.max_bytes
    assert failure(serve, http(bomb, content_encoding="GZIP")).code == "media_too_large"
    assert "before the file was complete" in failure(serve, http(bomb[:20], content_encoding="gzip")).message
    assert "not valid gzip" in failure(serve, http(b"plain", content_encoding="gzip")).message
    assert "although asked not to" in failure(serve, http(b"x", content_encoding="br")).message


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000 + b"\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://[\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: \xff\xfe\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
    ],
)
def test_broken_answers_are_media_errors(serve: Any, answer: bytes) -> None:
    error = failure(serve, answer)
    assert error.param == "item[0]"


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the test's own certificate, which is for public.test."""
    context = ssl.create_default_context(cafile=str(Path(__file__).parent / "tls" / "certificate.pem"))
    monkeypatch.setattr(download, "tls", lambda: context)


@pytest.mark.usefixtures("trusted")
def test_https_checks_the_name_not_the_address(serve: Any, http: Any) -> None:
    async def run() -> None:
        async with serve(http(b"x"), tls=True) as origin:
            (item,) = await fetch(f"https://public.test:{origin.port}/")
            assert item.data == b"x"
            assert origin.server_names == ["public.test"]
            with pytest.raises(MediaError, match="certificate was not accepted"):
                await fetch(f"https://other.test:{origin.port}/")

    asyncio.run(asyncio.wait_for(run(), 30))


@pytest.mark.usefixtures("trusted")
def test_no_redirect_from_https_to_http(serve: Any, http: Any) -> None:
    async def run() -> None:
        async with serve(http(b"plain")) as plain:
            async with serve(http(b"", "302 Found", location=f"http://a.test:{plain.port}/"), tls=True) as secure:
                with pytest.raises(MediaError, match="from https to http") as raised:
                    await fetch(f"https://public.test:{secure.port}/")
                assert raised.value.code == "media_forbidden"
                assert plain.dialled == []
                secure_url = f"https://public.test:{secure.port}/"
            async with serve(http(b"", "302 Found", location=secure_url)) as upward:
                with pytest.raises(MediaError, match="no connection"):  # http to https is followed
                    await fetch(f"http://a.test:{upward.port}/")

    asyncio.run(asyncio.wait_for(run(), 30))


def test_an_untrusted_certificate_is_refused(serve: Any, http: Any) -> None:
    async def run() -> None:
        async with serve(http(b"x"), tls=True) as origin:
            with pytest.raises(MediaError, match="certificate was not accepted"):
                await fetch(f"https://public.test:{origin.port}/")
            assert origin.paths == []

    asyncio.run(asyncio.wait_for(run(), 30))


def test_the_gateway_loads_no_decoder() -> None:
    code = "import sys, json, sensorium.media.fetch; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert not {"PIL", "numpy", "torch", "av"} & set(modules)
