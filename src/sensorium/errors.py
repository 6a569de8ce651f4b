"""Every error a user can meet, as one tree.

    SensoriumError                500 internal_error
    ├── InvalidRequest            400 invalid_request_error      (`param` names the offending field)
    │   ├── ContextLengthExceeded 400 code context_length_exceeded
    │   └── MediaError            400 code media_invalid | media_too_large | media_unreachable | media_forbidden
    ├── Unauthorized              401 authentication_error
    ├── Forbidden                 403 permission_error           (the operator has not allowed it)
    ├── ModelNotFound             404 not_found_error
    ├── TooLarge                  413 invalid_request_error
    ├── Overloaded                503 overloaded_error           (`retry_after_s` becomes Retry-After)
    ├── ModelUnavailable          503 model_unavailable          (loading failed, or the server is shutting down)
    │   ├── ModelLoading          503 model_loading              (for clients that do not wait for loading)
    │   └── NoRoom                503 no_room
    ├── AlreadyRegistered         409 already_registered
    ├── RegistryUnavailable       503 registry_unavailable       (its database cannot be written or reached)
    ├── UpstreamFailed            502 upstream_error             (the server that is a model's engine failed)
    ├── WorkerDied                500 worker_died                (after the first byte: an SSE error event)
    └── ConfigurationError        a wrong flag or checkpoint, met at start

The class decides HTTP status and `type`; `code` may be refined where it is raised. Messages are ours, never
`str(exc)` of a library: they say what, which number, which limit, where, and what to do.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as it travels between processes."""

    kind: str
    message: str
    param: str | None = None
    code: str | None = None
    retry_after_s: int | None = None


class SensoriumError(Exception):
    """Root of the tree; itself an internal error (500)."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal_error"
    default_code: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code
        self.retry_after_s = retry_after_s

    def info(self) -> ErrorInfo:
        """Return the value to send to another process; `from_info` is the way back."""
        return ErrorInfo(type(self).__name__, self.message, self.param, self.code, self.retry_after_s)


class InvalidRequest(SensoriumError):
    """The request is wrong; sending it again unchanged cannot help (400)."""

    status = 400
    type = "invalid_request_error"


class ContextLengthExceeded(InvalidRequest):
    """Prompt, or prompt and `max_tokens`, do not fit the model's context (400)."""

    default_code = "context_length_exceeded"


class MediaError(InvalidRequest):
    """One picture, clip or sound could not be fetched, read or accepted (400)."""

    default_code = "media_invalid"


class Unauthorized(SensoriumError):
    """No API key, or a wrong one (401)."""

    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class Forbidden(SensoriumError):
    """The operator has not allowed this (403)."""

    status = 403
    type = "permission_error"
    default_code = "forbidden"


class ModelNotFound(SensoriumError):
    """No model answers to this name (404)."""

    status = 404
    type = "not_found_error"
    default_code = "model_not_found"


class TooLarge(SensoriumError):
    """The request's body is larger than the server accepts (413)."""

    status = 413
    type = "invalid_request_error"
    default_code = "request_too_large"


class Overloaded(SensoriumError):
    """The queue is full; try again after `retry_after_s` (503)."""

    status = 503
    type = "overloaded_error"
    default_code = "server_overloaded"


class ModelUnavailable(SensoriumError):
    """The model cannot answer now: it failed to load, or the server is going down (503)."""

    status = 503
    type = "model_unavailable"
    default_code = "model_unavailable"


class ModelLoading(ModelUnavailable):
    """The model is being loaded, and the client does not want to wait for it (503, with Retry-After)."""

    type = "model_loading"
    default_code = "model_not_ready"


class NoRoom(ModelUnavailable):
    """No machine has the memory that the model needs, now or ever (503); the message says what to lower."""

    type = "no_room"
    default_code = "no_room"


class AlreadyRegistered(SensoriumError):
    """Another model answers to this name (409)."""

    status = 409
    type = "already_registered"
    default_code = "already_registered"


class RegistryUnavailable(SensoriumError):
    """The registry's database cannot be written or read now; unless the message says so, nothing was changed (503)."""

    status = 503
    type = "registry_unavailable"
    default_code = "registry_unavailable"


class WorkerDied(SensoriumError):
    """The process that held the model ended while it worked on this request (500)."""

    type = "worker_died"
    default_code = "worker_died"


class UpstreamFailed(SensoriumError):
    """The server that is this model's engine failed, fell silent, or said what is no answer (502)."""

    status = 502
    type = "upstream_error"
    default_code = "upstream_failed"


class ConfigurationError(SensoriumError):
    """A flag, a file or a checkpoint is not usable; raised before anything is served."""

    type = "configuration_error"


def _tree(root: type[SensoriumError]) -> dict[str, type[SensoriumError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


def from_info(info: ErrorInfo) -> SensoriumError:
    """Rebuild the error another process reported."""
    cls = _tree(SensoriumError).get(info.kind, SensoriumError)
    return cls(info.message, param=info.param, code=info.code, retry_after_s=info.retry_after_s)
