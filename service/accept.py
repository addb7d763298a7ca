"""Content negotiation (RFC 9110, section 12.5.1) between image formats."""

from service.codec import MEDIA_TYPES
from service.errors import NotAcceptableError
from service.settings import ImageFormat


def choose_format(accept: str | None, same: ImageFormat) -> ImageFormat:
    """The format a client likes best; among equals `same`, the format it sent.

    Raises:
        NotAcceptableError: it accepts none of ours.
    """
    if not accept:
        return same
    weights = _weights(accept)
    candidates: list[ImageFormat] = [same, *(each for each in MEDIA_TYPES if each != same)]
    best = max(candidates, key=lambda format: _weight(weights, MEDIA_TYPES[format]))
    if _weight(weights, MEDIA_TYPES[best]) <= 0:
        offered = ", ".join(MEDIA_TYPES.values())
        raise NotAcceptableError(f"Accept: {accept[:200]} allows none of {offered}")
    return best


def _weights(accept: str) -> dict[str, float]:
    weights = {}
    for part in accept.split(","):
        media_range, *parameters = (piece.strip() for piece in part.lower().split(";"))
        weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        try:
            weights[media_range] = float(weight)
        except ValueError:
            weights[media_range] = 0.0
    return weights


def _weight(weights: dict[str, float], media_type: str) -> float:
    for media_range in (media_type, media_type.split("/")[0] + "/*", "*/*"):
        if media_range in weights:
            return weights[media_range]
    return 0.0
