"""No spelling, redirect or name server may bring the fetcher to an address that is not public.

The "public" server listens on 127.0.0.2, which the tests permit; the "internal" one, the canary, on 127.0.0.1.
One test shows that the canary can be reached, so the others cannot pass because nothing could.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import httpcore
import pytest

from sensorium.errors import MediaError
from sensorium.media import address
from sensorium.media.fetch import fetch_media
from sensorium.settings import MediaLimits
from sensorium.types import MediaSource

INTERNAL = [
    "127.0.0.1",
    "127.0.0.2",
    "127.1.2.3",
    "0.0.0.0",
    "10.0.0.1",
    "169.254.169.254",
    "192.168.1.1",
    "172.16.0.1",
]
NAMES = {"localhost": "127.0.0.1", "localhost.": "127.0.0.1", "internal.test": "10.0.0.1", "ok": "127.0.0.2"}
FULL_WIDTH = str.maketrans("0123456789.", "０１２３４５６７８９。")


def spellings_of(text: str) -> Iterator[str]:
    """Yield hosts that mean the IPv4 address `text` to one program or another."""
    a, b, c, d = text.split(".")
    number = int(IPv4Address(text))
    yield text
    yield text + "."
    yield str(number)
    yield hex(number)
    yield hex(number).upper()
    yield f"0{number:o}"
    yield f"{a}.{number & 0xFFFFFF}"
    yield f"{a}.{b}.{number & 0xFFFF}"
    yield ".".join(f"0x{int(part):x}" for part in (a, b, c, d))
    yield ".".join(f"0{int(part):o}" for part in (a, b, c, d))
    yield f"0x{int(a):08x}.0{int(b):o}.{number & 0xFFFF}"
    yield text.translate(FULL_WIDTH)
    yield text.replace(".", "。")
    yield text.replace(".", "｡")
    yield text.replace(".", "%2e")
    yield f"[::ffff:{text}]"
    yield f"[::FFFF:{number >> 16:x}:{number & 0xFFFF:x}]"
    yield f"[0:0:0:0:0:ffff:{text}]"
    yield f"[::{text}]"
    yield f"[::ffff:0:{text}]"
    yield f"[64:ff9b::{text}]"
    yield f"[64:ff9b:1::{text}]"
    yield f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::1]"
    yield f"[2001:0:{number >> 16:x}:{number & 0xFFFF:x}:0:0:0:1]"
    yield f"[{IPv6Address((0x2001 << 112) | (~number & 0xFFFFFFFF))}]"
    yield f"[{text}]"


HOSTS = [host for text in INTERNAL for host in spellings_of(text)] + [
    *("[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]", "[fe80::1]", "[fe80::1%25lo]", "[fe80::1%lo]"),
    *("[fc00::1]", "[fd00:ec2::254]", "[fec0::1]", "[ff02::1]", "[100::1]", "[2001:db8::1]", "[::1", "::1", "[]"),
    *(
        "localhost",
        "LOCALHOST",
        "localhost.",
        "ｌｏｃａｌｈｏｓｔ",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
        "internal.test",
        "0",
        "0x0",
        "00",
        "127.1",
        "127.0.1",
    ),
    *("ok\\@127.0.0.1", "ok@127.0.0.1", "ok:pass@127.0.0.1", "ok%40127.0.0.1", "127.0.0.1%23@ok", "127.0.0.1\\.ok"),
    *(
        "127.0.0.1%0a",
        "127.0.0.1%00.ok",
        "127.0.0.1\t",
        "127.0.0.1\n",
        "127.0.0.1\r\nX: y",
        "127.0.0.1\0",
        " 127.0.0.1",
    ),
    *(
        "ok 127.0.0.1",
        "ok;127.0.0.1",
        "ok,127.0.0.1",
        "127.0.0.1&ok",
        "ok:80@127.0.0.1",
        "[ok]@127.0.0.1",
        "@127.0.0.1",
    ),
    *("127.0.0.1:80", "127.0.0.256", "1.2.3.4.5", "0x7f000001.", "0177.0.0.01", "017700000001", "4294967296", "-1", ""),
]
URLS = [f"http://{host}:{{port}}/latest" for host in HOSTS] + [
    *("https://127.0.0.1:{port}/", "HTTP://127.0.0.1:{port}/", "hTtPs://[::1]:{port}/", "http:127.0.0.1:{port}/"),
    *(
        "http:/127.0.0.1:{port}/",
        "http:///127.0.0.1:{port}/",
        "http:\\\\127.0.0.1:{port}\\",
        "http://127.0.0.1:{port}#@ok/",
    ),
    *(
        "http://127.0.0.1:{port}?@ok/",
        "http://ok:{port}@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}/%2e%2e@ok",
        "\thttp://127.0.0.1:{port}/",
    ),
    *(
        "ht\ntp://127.0.0.1:{port}/",
        "http\t://127.0.0.1:{port}/",
        "//127.0.0.1:{port}/",
        "127.0.0.1:{port}/",
        "url:http://127.0.0.1:{port}/",
    ),
    *(
        "ftp://127.0.0.1:{port}/",
        "gopher://127.0.0.1:{port}/_GET",
        "jar:http://127.0.0.1:{port}!/",
        "dict://127.0.0.1:{port}/",
        "unix:/run/x",
    ),
    *(
        "ws://127.0.0.1:{port}/",
        "sftp://127.0.0.1:{port}/",
        "http+unix://%2Frun%2Fx/",
        "blob:http://127.0.0.1:{port}/",
        "view-source:http://127.0.0.1:{port}/",
    ),
    *(
        "http://127.0.0.1:0/",
        "http://127.0.0.1:65536/",
        "http://127.0.0.1:{port}junk/",
        "http://127.0.0.1:+{port}/",
        "http://127.0.0.1: {port}/",
    ),
    *(
        "feed:http://127.0.0.1:{port}/",
        "javascript:fetch('http://127.0.0.1:{port}')",
        "file://127.0.0.1:{port}/x",
        "",
        ":",
        "http",
        "http:",
        "http://",
    ),
]


@contextlib.asynccontextmanager
async def serve_v6(serve: Any, answer: bytes, port: int) -> AsyncIterator[Any]:
    """The canary's other half; on a machine without IPv6 an address nobody can reach."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        host = "::1"
    except OSError:
        host = "127.0.0.9"
    async with serve(answer, host, port) as origin:
        yield origin


async def resolve(host: str, port: int) -> list[str]:
    """Numbers in every spelling go to the real resolver, names to a table."""
    try:
        socket.inet_aton(host.rstrip("."))
    except OSError:
        if ":" not in host:
            return [NAMES[host]] if host in NAMES else []
    return await address.resolve(host, port)


def source(url: str) -> MediaSource:
    return MediaSource("image", url, "messages[0].content[1].image_url")


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every address any connection goes to."""
    seen: list[str] = []
    connect = httpcore.AnyIOBackend.connect_tcp

    async def record(self: Any, host: str, *arguments: Any, **options: Any) -> Any:
        seen.append(host)
        return await connect(self, host, *arguments, **options)

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", record)
    return seen


def test_there_are_enough_spellings() -> None:
    assert len(set(URLS)) >= 280


def test_no_spelling_reaches_an_internal_address(serve: Any, http: Any, dialled: list[str]) -> None:
    async def run() -> None:
        async with (
            serve(http(b"internal"), "127.0.0.1") as canary,
            serve_v6(serve, http(b"x"), canary.port) as canary_v6,
        ):
            for url in URLS:
                with pytest.raises(MediaError) as raised:
                    await fetch_media([source(url.format(port=canary.port))], MediaLimits(), resolve=resolve)
                error = raised.value
                assert error.code in ("media_forbidden", "media_invalid", "media_unreachable"), url
                assert error.param == "messages[0].content[1].image_url"
                assert error.message.startswith("messages[0].content[1].image_url: Failed to load image from URL: ")
                assert not any(text in error.message for text in (*INTERNAL, "::1"))
            assert canary.dialled == canary_v6.dialled == []

    asyncio.run(asyncio.wait_for(run(), 60))
    assert dialled == []


def test_many_of_these_spellings_do_reach_it_when_private_addresses_are_allowed(serve: Any, http: Any) -> None:
    loopback = [*spellings_of("127.0.0.1"), "[::1]", "[0000::0001]", "localhost", "LOCALHOST", "0", "0x0", "127.1"]
    assert set(loopback) <= set(HOSTS)

    async def run() -> None:
        async with (
            serve(http(b"internal"), "127.0.0.1") as canary,
            serve_v6(serve, http(b"internal"), canary.port) as canary_v6,
        ):
            limits = MediaLimits(allow_private=True, fetch_timeout_s=1.0)
            urls = [f"http://{host}:{canary.port}/" for host in loopback]
            fetches = (fetch_media([source(url)], limits, resolve=resolve) for url in urls)
            results = await asyncio.gather(*fetches, return_exceptions=True)
            reached = [host for host, result in zip(loopback, results, strict=True) if isinstance(result, list)]
            assert len(reached) >= 20, reached
            assert len(canary.dialled) + len(canary_v6.dialled) == len(reached)

    asyncio.run(asyncio.wait_for(run(), 60))


def permit(address: str) -> bool:
    return address == "127.0.0.2"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_reaches_an_internal_address(serve: Any, http: Any, dialled: list[str], status: int) -> None:
    targets = [
        *(
            "http://127.0.0.1:{port}/x",
            "http://localhost:{port}/x",
            "//127.0.0.1:{port}/x",
            "//localhost:{port}",
            "http://[::1]:{port}/",
        ),
        *(
            "http://2130706433:{port}/",
            "http://0x7f.1:{port}/",
            "http://ok@127.0.0.1:{port}/",
            "http://ok\\@127.0.0.1:{port}/",
        ),
        *(
            "file:///etc/passwd",
            "data:text/plain,x",
            "ftp://127.0.0.1:{port}/",
            "gopher://127.0.0.1:{port}/",
            "\\\\127.0.0.1:{port}\\",
        ),
        *(
            "http://[::ffff:7f00:1]:{port}/",
            "http:127.0.0.1:{port}",
            "HTTP://127.0.0.1:{port}",
            "javascript:1",
            "http://127.0.0.1:0/",
        ),
    ]

    async def run() -> None:
        async with serve(http(b"internal"), "127.0.0.1") as canary:
            for hops in (1, 2):
                for target in targets:
                    location = target.format(port=canary.port)

                    async def answer(path: str, writer: asyncio.StreamWriter, location: str = location) -> None:
                        onward = location if path == "/1" else "/1"
                        writer.write(http(b"", f"{status} Moved", location=onward))

                    async with serve(answer) as origin:
                        url = f"http://ok:{origin.port}/{hops}"
                        with pytest.raises(MediaError):
                            await fetch_media([source(url)], MediaLimits(), resolve=resolve, permit=permit)
                        assert len(origin.paths) == hops
            assert canary.dialled == []

    asyncio.run(asyncio.wait_for(run(), 60))
    assert set(dialled) == {"127.0.0.2"}


def test_a_name_that_changes_its_address_is_dialled_where_it_was_checked(
    serve: Any, http: Any, dialled: list[str]
) -> None:
    """Rebinding: the first answer is public, every later one is not."""
    lookups: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        lookups.append(host)
        return ["127.0.0.2" if len(lookups) % 2 else "127.0.0.1"]

    async def run() -> None:
        async with serve(http(b"public")) as origin, serve(http(b"internal"), "127.0.0.1", origin.port) as canary:
            for _ in range(50):
                url = f"http://rebinding.test:{origin.port}/"
                (item,) = await fetch_media([source(url)], MediaLimits(), resolve=rebinding, permit=permit)
                assert item.data == b"public"
                with pytest.raises(MediaError, match="not on the public internet"):
                    await fetch_media([source(url)], MediaLimits(), resolve=rebinding, permit=permit)
            assert canary.dialled == []

    asyncio.run(asyncio.wait_for(run(), 60))
    assert len(lookups) == 100  # one lookup per fetch: none of them could see another answer
    assert dialled == ["127.0.0.2"] * 50


@pytest.mark.parametrize(
    "answers", [["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "::1"], ["nonsense"]]
)
def test_one_bad_address_among_good_ones_is_enough_to_refuse(answers: list[str], dialled: list[str]) -> None:
    async def mixed(host: str, port: int) -> list[str]:
        return answers

    with pytest.raises(MediaError, match="not on the public internet"):
        asyncio.run(fetch_media([source("http://mixed.test/")], MediaLimits(), resolve=mixed, permit=permit))
    assert dialled == []


def test_a_name_that_turns_internal_between_two_hops_is_refused(serve: Any, http: Any) -> None:
    lookups: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        lookups.append(host)
        return ["127.0.0.2" if len(lookups) == 1 else "127.0.0.1"]

    async def run() -> None:
        async with (
            serve(http(b"", "302 Found", location="/again")) as origin,
            serve(http(b"internal"), "127.0.0.1", origin.port) as canary,
        ):
            url = f"http://rebinding.test:{origin.port}/"
            with pytest.raises(MediaError, match="not on the public internet"):
                await fetch_media([source(url)], MediaLimits(), resolve=rebinding, permit=permit)
            assert canary.dialled == []

    asyncio.run(asyncio.wait_for(run(), 60))
    assert len(lookups) == 2
