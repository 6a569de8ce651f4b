from __future__ import annotations

import base64
import random

import pytest

from sensorium.errors import MediaError
from sensorium.media.data_url import decode_data_url

DATA = bytes(range(256)) + b"\xfb\xff\xfe>"
TEXT = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{TEXT}",
        f"data:;base64,{TEXT}",
        f"data:application/x-nonsense;charset=x;BASE64,{TEXT}",
        f"DATA:image/png; base64 ,{TEXT}",
        f"data:image/png;base64,{TEXT.rstrip('=')}",
        f"data:image/png;base64,{TEXT}==",
        "data:image/png;base64," + base64.urlsafe_b64encode(DATA).decode(),
        "data:image/png;base64," + base64.urlsafe_b64encode(DATA).decode().rstrip("="),
        "data:image/png;base64," + base64.encodebytes(DATA).decode(),
        "data:image/png;base64," + base64.encodebytes(DATA).decode().replace("\n", "\r\n "),
        "data:image/png;base64," + TEXT.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D"),
        "data:image/png," + "".join(f"%{byte:02x}" for byte in DATA),
    ],
)
def test_reads(url: str) -> None:
    assert decode_data_url(url, 1000) == DATA


def test_reads_plain_text() -> None:
    assert decode_data_url("data:,a%20b,c", 100) == b"a b,c"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("data:image/png;base64", "no comma"),
        ("data:image/png;base64,", "empty"),
        ("data:,", "empty"),
        ("data:image/png;base64,=", "empty"),
        ("data:image/png;base64,AAAAA", "5 characters cannot be"),
        ("data:image/png;base64,AA*A", "does not use"),
        ("data:image/png;base64,AA=A", "does not use"),
        ("data:image/png;base64,ÀAAA", "outside ASCII"),
        ("data:image/png;base64,https://a.test/x.png", "does not use"),
    ],
)
def test_refuses(url: str, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        decode_data_url(url, 1000)


@pytest.mark.parametrize("num_bytes", [999, 1000, 1001, 1004, 5000, 1 << 20])
def test_the_limit_is_exact(num_bytes: int) -> None:
    data = random.Random(0).randbytes(num_bytes)
    for text in (base64.b64encode(data).decode(), base64.encodebytes(data).decode()):
        if num_bytes <= 1000:
            assert decode_data_url(f"data:;base64,{text}", 1000) == data
        else:
            with pytest.raises(MediaError, match="the limit is") as raised:
                decode_data_url(f"data:;base64,{text}", 1000)
            assert raised.value.code == "media_too_large"
