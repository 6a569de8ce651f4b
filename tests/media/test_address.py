from __future__ import annotations

import asyncio

import pytest

from sensorium.media.address import is_public, resolve


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_public_addresses_are_permitted(address: str) -> None:
    assert is_public(address)


REFUSED = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 168.63.129.16 169.254.169.254
172.16.0.1 172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.51.100.1 203.0.113.9
224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe
::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::10.0.0.1 64:ff9b:1::1 100::1 2001::1 2001:0:53aa:64c:0:0:80ff:fffe
2001:db8::1 2002:7f00:1::1 2002:808:808::1 3fff::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1 ff02::1
4000::1 2606:4700::1111%1 localhost example.com 1.2.3 2130706433
"""


@pytest.mark.parametrize("address", REFUSED.split())
def test_everything_else_is_refused(address: str) -> None:
    assert not is_public(address)


def test_the_resolver_gives_numeric_addresses_and_nothing_for_unknown_names() -> None:
    assert asyncio.run(resolve("0x7f.1", 80)) == ["127.0.0.1"]
    assert asyncio.run(resolve("no such name", 80)) == []
    assert asyncio.run(resolve("a" * 70 + ".test", 80)) == []
