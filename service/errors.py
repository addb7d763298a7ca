"""One tree of errors: each class is one row of the error table, for HTTP and for gRPC."""

from typing import ClassVar


class ServiceError(Exception):
    """Base of everything a client can be told; the text says what to do about it."""

    status: ClassVar[int] = 500
    grpc: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title

    @property
    def headers(self) -> dict[str, str]:
        return {}


class BadImageError(ServiceError):
    status, grpc, reason = 422, "INVALID_ARGUMENT", "bad-image"
    title = "Not an image that can be read"


class ImageTooLargeError(ServiceError):
    status, grpc, reason = 422, "INVALID_ARGUMENT", "image-too-large"
    title = "The image has too many pixels"


class BadParameterError(ServiceError):
    status, grpc, reason = 422, "INVALID_ARGUMENT", "bad-parameter"
    title = "A parameter is unknown or has a wrong value"


class FormatNotAllowedError(ServiceError):
    status, grpc, reason = 415, "INVALID_ARGUMENT", "format-not-allowed"
    title = "This image format is not accepted"


class NotAcceptableError(ServiceError):
    status, grpc, reason = 406, "INVALID_ARGUMENT", "not-acceptable"
    title = "None of the formats asked for can be produced"


class BodyTooLargeError(ServiceError):
    status, grpc, reason = 413, "RESOURCE_EXHAUSTED", "body-too-large"
    title = "The request body is too large"

    @property
    def headers(self) -> dict[str, str]:
        return {"Connection": "close"}  # or the rest of the body would still be read


class UnknownModelError(ServiceError):
    status, grpc, reason = 404, "NOT_FOUND", "unknown-model"
    title = "There is no such model"


class ModelBrokenError(ServiceError):
    status, grpc, reason = 503, "UNAVAILABLE", "model-broken"
    title = "This model version cannot be loaded"


class StoreUnreadableError(ServiceError):
    status, grpc, reason = 503, "UNAVAILABLE", "store-unreadable"
    title = "The models cannot be listed"


class UnauthorizedError(ServiceError):
    status, grpc, reason = 401, "UNAUTHENTICATED", "unauthorized"
    title = "A valid bearer token is needed"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class NotSupportedError(ServiceError):
    status, grpc, reason = 501, "UNIMPLEMENTED", "not-supported"
    title = "This service does not do that"


class QueueFullError(ServiceError):
    status, grpc, reason = 429, "RESOURCE_EXHAUSTED", "queue-full"
    title = "The service is busy; try again"

    def __init__(self, detail: str = "", retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self._retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self._retry_after_s)}


class DeadlineError(ServiceError):
    status, grpc, reason = 504, "DEADLINE_EXCEEDED", "deadline"
    title = "The request took too long"


class ClientGoneError(ServiceError):
    status, grpc, reason = 499, "CANCELLED", "client-gone"
    title = "The client closed the connection"


class DrainingError(ServiceError):
    status, grpc, reason = 503, "UNAVAILABLE", "draining"
    title = "The service is starting or shutting down; try another instance"


class FrameDroppedError(ServiceError):
    status, grpc, reason = 503, "UNAVAILABLE", "frame-dropped"
    title = "Dropped: a newer frame of the stream has come"


class StartError(Exception):
    """The service cannot start as configured; the text says which setting to change."""
