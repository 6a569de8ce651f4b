"""What parsing a request's body gives: wire and dialect end here."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from sensorium.errors import InvalidRequest
from sensorium.types import MediaSource, ModelInfo, Request, SamplingParams


class Given(msgspec.Struct, frozen=True):
    """The sampling fields a client sent, under the names of SamplingParams.

    `wire` translates a name back to the client's where the two differ: max_tokens -> max_completion_tokens.
    """

    fields: dict[str, Any]
    fallback: dict[str, Any] = {}  # what the endpoint takes where neither the client nor the model says
    wire: dict[str, str] = {}

    def over(self, defaults: dict[str, Any]) -> SamplingParams:
        """Return the parameters to use with a model whose own defaults are `defaults`.

        Raises:
            InvalidRequest: a value is out of range; `param` is the client's name of the field.
        """
        try:
            return SamplingParams(**(self.fallback | defaults | self.fields))
        except InvalidRequest as error:
            name = error.param or ""
            wire = self.wire.get(name, name)
            raise InvalidRequest(error.message.replace(name, wire, 1), param=wire) from None


class Parsed(msgspec.Struct, frozen=True):
    """A request whose media are still addresses.

    `request.media` may already hold items (the offline API's pictures); those of `sources` come behind them.
    `given=None` means that `request.sampling` is final.
    """

    model: str
    request: Request
    sources: tuple[MediaSource, ...] = ()
    given: Given | None = None
    echo: str = ""  # what the answer repeats before the model's own words
    wait_s: float | None = None  # for a model that is not loaded yet; None: as long as it takes

    def sampling(self, info: ModelInfo) -> SamplingParams:
        """Return the client's fields over the model's defaults over the endpoint's fallback."""
        return self.given.over(info.default_sampling) if self.given else self.request.sampling


def combined_salt(key_salt: str, request_salt: str | None) -> str:
    """Return the cache salt of a request: its API key's, further divided by what the client asked for."""
    if not request_salt:
        return key_salt
    # Digests of fixed length in front, so that no client can spell another key's salt.
    return hashlib.sha256(f"{key_salt}\0{request_salt}".encode()).hexdigest()[:32]
