"""httpx clients for everything but media: none asks this machine by way of a proxy."""

from __future__ import annotations

import os
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from sensorium.errors import ConfigurationError

Client = TypeVar("Client", httpx.Client, httpx.AsyncClient)

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def http_client(kind: type[Client], url: str, **options: Any) -> Client:
    """Return a client that will ask `url`; `options` are httpx's.

    Raises:
        ConfigurationError: the environment names a proxy that cannot be used.
    """
    try:
        return kind(trust_env=not is_here(url), **options)
    except ImportError:
        raise socks_proxy() from None
    except (ValueError, httpx.InvalidURL):
        raise ConfigurationError(
            f"{_named()} names no proxy that can be used; write one like http://proxy:3128, or unset it."
        ) from None


def socks_proxy() -> ConfigurationError:
    """Return what to say where httpx raised ImportError: of its parts only SOCKS is not installed with it."""
    return ConfigurationError(
        f"{_named()} names a SOCKS proxy. Install what it takes, `pip install 'httpx[socks]'`, or unset it."
    )


def is_here(url: str) -> bool:
    """Whether `url` is an http address of this machine's own, which no proxy can reach."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:  # no URL; whoever asks it says so
        return False
    if parts.scheme != "http":  # with TLS the environment also says which certificates count
        return False
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def with_scheme(url: str) -> str:
    """Return `url`, with http:// where somebody wrote host:port alone."""
    return url if "://" in url else f"http://{url}"


def _named() -> str:
    found = [name for low in _PROXIES for name in (low, low.upper()) if os.environ.get(name)]
    return ", ".join(found) or "The environment"
