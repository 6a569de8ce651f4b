"""The secret that gateway and workers of a cluster share, and what is signed with it. It never crosses the network."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from sensorium.errors import ConfigurationError, Unauthorized
from sensorium.settings import home

FILE = "cluster-token"
SIGNATURE_HEADER = "X-Sensorium-Signature"
MAX_SKEW_S = 300.0
_SHORTEST = 16  # who records a handshake can try tokens at home


def token_file() -> Path:
    """Where a token is kept that nobody chose."""
    return home() / FILE


def read_token() -> str | None:
    """Return the token of this machine's file; None where there is none."""
    with contextlib.suppress(OSError):
        return token_file().read_text().strip() or None
    return None


def read_or_make_token() -> str:
    """Return the token of this machine's file; the file is written first where there is none.

    Raises:
        ConfigurationError: it can neither be read nor written.
    """
    known = read_token()
    if known:
        return known
    path = token_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            # Written under another name and linked, so that nobody ever reads half a token.
            draft = path.with_name(f"{FILE}.{os.getpid()}")
            draft.touch(mode=0o600)
            draft.write_text(secrets.token_urlsafe(32) + "\n")
            try:
                os.link(draft, path)
            finally:
                draft.unlink()
        return path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(
            f"The cluster token cannot be kept in {path}: {error.strerror}. Give one with --cluster-token."
        ) from None


def key_of(token: str) -> bytes:
    """Return the key that a token stands for, 32 bytes.

    Raises:
        ConfigurationError: the token is too short to be a secret.
    """
    if len(token.strip()) < _SHORTEST:
        raise ConfigurationError(
            f"The cluster token has {len(token.strip())} characters; it must have {_SHORTEST} or more. "
            "`openssl rand -hex 32` makes a good one."
        )
    return hashlib.sha256(b"sensorium cluster\n" + token.strip().encode()).digest()


def sign(key: bytes, method: str, path: str, body: bytes, now: float) -> str:
    """Return the value of SIGNATURE_HEADER for a request to the gateway; `now` is in seconds since the epoch."""
    return f"t={int(now)},v1={_mac(key, method, path, body, int(now))}"


def check_signature(key: bytes, value: str, method: str, path: str, body: bytes, now: float) -> None:
    """Check the value of SIGNATURE_HEADER.

    Raises:
        Unauthorized: it is missing, wrong, or of another time.
    """
    match = re.fullmatch(r"t=(\d{1,12}),v1=([0-9a-f]{64})", value)
    if match is None:
        raise Unauthorized(
            f"Workers sign what they send with the cluster token, in {SIGNATURE_HEADER}; this request is not signed.",
            code="not_signed",
        )
    then = int(match[1])
    if not hmac.compare_digest(match[2], _mac(key, method, path, body, then)):
        raise Unauthorized("The signature is not of this cluster's token.", code="wrong_token")
    if abs(now - then) > MAX_SKEW_S:
        raise Unauthorized(
            f"The signature is of a time {abs(now - then):.0f} s away; {MAX_SKEW_S:.0f} s are allowed. "
            "Set the clocks of both machines.",
            code="wrong_time",
        )


def _mac(key: bytes, method: str, path: str, body: bytes, then: int) -> str:
    text = f"http\n{method}\n{path}\n{then}\n{hashlib.sha256(body).hexdigest()}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
