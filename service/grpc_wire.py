"""Requests whose parsing would hold up the event loop: 250,000 entries of a map take protobuf 0.4 s."""

from collections.abc import Callable
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from service.grpc_call import FRAMING
from service.oip import EXCESS, MOST_FIELDS

_REQUEST = pb.ModelInferRequest.DESCRIPTOR.fields_by_name
_TENSORS = {_REQUEST["inputs"].number, _REQUEST["outputs"].number}


def parse_infer_request(message: bytes) -> Any:
    """A ModelInferRequest; one of more than MOST_FIELDS comes with EXCESS alone.

    For that it is refused like any other bad one, also within a stream, which goes on.
    """
    if _fields(memoryview(message), _TENSORS) <= MOST_FIELDS:
        return pb.ModelInferRequest.FromString(message)
    return pb.ModelInferRequest(parameters={EXCESS: pb.InferParameter(bool_param=True)})


def small(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """For requests that carry no images.

    Raises:
        ValueError: it is larger than any such request.
    """

    def parsed(message: bytes) -> Any:
        if len(message) > FRAMING:
            raise ValueError(f"a request of this kind has at most {FRAMING} bytes")
        return parse(message)

    return parsed


def _fields(message: memoryview, nested: set[int]) -> int:
    """How many there are, with those of the `nested` ones; it stops counting soon after MOST_FIELDS."""
    count = at = 0
    while at < len(message) and count <= MOST_FIELDS:
        tag, at = _varint(message, at)
        count += 1
        match tag & 7:
            case 0:
                _, at = _varint(message, at)
            case 1:
                at += 8
            case 2:
                length, at = _varint(message, at)
                if tag >> 3 in nested:
                    count += _fields(message[at : at + length], set())
                at += length
            case 5:
                at += 4
            case _:
                return count  # a group, or no protobuf: the parser refuses it at once
    return count


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends; at most ten bytes are one."""
    value = 0
    for place, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    return value, len(message)
