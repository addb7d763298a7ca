"""Bearer tokens (RFC 6750), for HTTP headers and gRPC metadata alike."""

import hmac
from collections.abc import Collection

from pydantic import SecretStr

from service.errors import UnauthorizedError


class Tokens:
    """Knows who may call; with no tokens everybody may."""

    def __init__(self, tokens: Collection[SecretStr]) -> None:
        self._tokens = [token.get_secret_value().encode() for token in tokens]

    def check(self, authorization: str | None) -> None:
        """Compare in a time that tells nothing about how much of a token was right.

        Raises:
            UnauthorizedError: tokens are set and `authorization` is not `Bearer <one of them>`.
        """
        if not self._tokens:
            return
        scheme, _, given = (authorization or "").partition(" ")
        found = [hmac.compare_digest(given.strip().encode(), token) for token in self._tokens]
        if scheme.lower() != "bearer" or not any(found):
            raise UnauthorizedError(
                "Send the header Authorization: Bearer <token>, with a token of this service"
            )
