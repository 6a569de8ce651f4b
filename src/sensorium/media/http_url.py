"""Take an http(s) URL apart once, strictly; what is dialled is built from these parts and never parsed again."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from urllib.parse import quote, urljoin

import idna

from sensorium.errors import MediaError

_MAX_URL_CHARS = 16_384  # signed object-store URLs reach a few thousand
_URL = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.IGNORECASE | re.DOTALL)
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
_AUTHORITY = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:@\[\]]+))(?::([0-9]*))?")
_HOST = re.compile(r"[a-z0-9._-]{1,253}")
_AS_THEY_ARE = "".join(set(string.punctuation) - set('"<>\\^`{}'))  # "%" included: escapes stay escapes
# Browsers and libraries disagree about these inside a URL, and every disagreement has been an SSRF.
_AMBIGUOUS = re.compile(r"[\x00-\x1f\x7f\\]")


@dataclass(frozen=True)
class HttpUrl:
    """The parts of an http(s) URL: `host` is lower-case ASCII (IPv6 without brackets), `target` is path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Host as the Host header has it, with the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def join(self, location: str) -> str:
        """Return the absolute URL of a redirect's `Location`; nothing about it is checked yet."""
        if _SCHEME.match(location):  # urljoin takes "http:host" for a path, browsers for a host: leave it to the check
            return location
        try:
            return urljoin(f"{self.scheme}://{self.authority}{self.target}", location)
        except ValueError:
            return ""


_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_http_url(url: str) -> HttpUrl:
    """Take an http(s) URL apart.

    Raises:
        MediaError: it is not one, or has something in it about which programs disagree.
    """
    if len(url) > _MAX_URL_CHARS:
        raise MediaError(f"the URL has {len(url)} characters; the limit is {_MAX_URL_CHARS}")
    if _AMBIGUOUS.search(url):
        raise MediaError("the URL contains a backslash or a control character; percent-encode it")
    parts = _URL.fullmatch(url)
    if parts is None:
        raise MediaError("it must be an http(s), data or file URL")
    scheme, authority, path, query = parts[1].lower(), parts[2], parts[3], parts[4] or ""
    if "@" in authority:
        raise MediaError("the URL carries a user name or password; send a URL without them")
    host_and_port = _AUTHORITY.fullmatch(authority)
    if host_and_port is None:
        raise MediaError("the URL has no valid host and port")
    literal, name, port = host_and_port.groups()
    return HttpUrl(
        scheme,
        _ipv6(literal) if literal else _name(name),
        _port(port, scheme),
        quote(path or "/", safe=_AS_THEY_ARE) + quote(query, safe=_AS_THEY_ARE),
    )


def _ipv6(literal: str) -> str:
    try:
        return str(IPv6Address(literal))
    except AddressValueError:
        raise MediaError("the URL's host is not a valid IPv6 address") from None


def _name(name: str) -> str:
    host = name.lower()
    if not host.isascii():
        try:
            host = idna.encode(host[:254], uts46=True).decode("ascii")
        except idna.IDNAError:
            raise MediaError("the URL's host is not a valid domain name") from None
    if not _HOST.fullmatch(host):
        raise MediaError("the URL's host is not a valid domain name or address")
    return host


def _port(port: str | None, scheme: str) -> int:
    if not port:
        return _DEFAULT_PORTS[scheme]
    if len(port) > 5 or not 1 <= int(port) <= 65535:
        raise MediaError("the URL's port is not in 1..65535")
    return int(port)
