from __future__ import annotations

import pytest

from sensorium.errors import MediaError
from sensorium.media.http_url import HttpUrl, parse_http_url


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://a.test", HttpUrl("http", "a.test", 80, "/")),
        ("HTTPS://A.Test:8443/B?c=D#e", HttpUrl("https", "a.test", 8443, "/B?c=D")),
        ("http://a.test:/x", HttpUrl("http", "a.test", 80, "/x")),
        ("http://a.test?q", HttpUrl("http", "a.test", 80, "/?q")),
        ("http://[2001:DB8::1]:81/", HttpUrl("http", "2001:db8::1", 81, "/")),
        ("http://a.test/图 片.png?名=1", HttpUrl("http", "a.test", 80, "/%E5%9B%BE%20%E7%89%87.png?%E5%90%8D=1")),
        ("http://a.test/%2e%2F?X-Sig=a%2Bb+c&d='()!*;:@$,~|[]", None),
        ("http://bücher。test/", HttpUrl("http", "xn--bcher-kva.test", 80, "/")),
        ("http://a.test/@b:c", HttpUrl("http", "a.test", 80, "/@b:c")),
    ],
)
def test_takes_apart(url: str, parts: HttpUrl | None) -> None:
    parsed = parse_http_url(url)
    if parts is None:
        assert f"{parsed.scheme}://{parsed.authority}{parsed.target}" == url
    else:
        assert parsed == parts


def test_authority_has_brackets_and_port_where_needed() -> None:
    assert parse_http_url("http://[::1]/").authority == "[::1]"
    assert parse_http_url("https://[::1]:80/").authority == "[::1]:80"
    assert parse_http_url("https://a:443/").authority == "a"


@pytest.mark.parametrize(
    ("location", "joined"),
    [
        ("/b", "http://a.test:81/b"),
        ("c?d", "http://a.test:81/x/c?d"),
        ("//e.test/f", "http://e.test/f"),
        ("http:e.test", "http:e.test"),
        ("//[", ""),
    ],
)
def test_joins_redirects(location: str, joined: str) -> None:
    assert parse_http_url("http://a.test:81/x/y").join(location) == joined


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///x",
        "http:a.test",
        "http:/a.test",
        "//a.test/",
        "http://:80/",
        "http://user@a.test/",
        "http://user:secret@a.test/",
        "http://a.test\\@b.test/",
        "http://a.test/\r\nHost: b",
        "http://a.test/\t",
        "http://a.test/\0",
        "http://a .test/",
        "http://a%2etest/",
        "http://a.test:0/",
        "http://a.test:65536/",
        "http://a.test:99999999999/",
        "http://a.test:80a/",
        "http://a.test:-1/",
        "http://a.test:８０/",
        "http://[::1/",
        "http://::1/",
        "http://[::g]/",
        "http://[fe80::1%25eth0]/",
        "http://[127.0.0.1]/",
        "http://" + "a" * 300 + "/",
        "http://\u202ea.test/",
        "http://a.test/" + "x" * 20_000,
    ],
)
def test_refuses(url: str) -> None:
    with pytest.raises(MediaError):
        parse_http_url(url)
