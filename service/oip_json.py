"""Open Inference Protocol v2: JSON and binary tensors of REST to protobuf messages, and back."""

import base64
import binascii
import json
import re
from contextlib import suppress
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, model_validator
from tritonclient.grpc import service_pb2 as pb

from service import oip
from service.errors import BadParameterError, BodyTooLargeError

HEADER_LENGTH = "inference-header-content-length"
# Reading and writing JSON holds the interpreter, and with it every other request.
_MOST_JSON = 4 * 2**20  # bytes in, and of files out
_MOST_VALUES = 2**18  # pixel values out

_DTYPES = {"UINT8": "u1", "FP32": "<f4"}
_NUMBERS: dict[str, set[type]] = {"UINT8": {int}, "FP32": {int, float}}

_MOST_PARAMETERS = 64
Scalar = bool | int | float | str


class _Part(BaseModel):
    """Strangers' extra fields are not ours to judge; null is what many write for a field that they lack."""

    model_config = ConfigDict(extra="ignore", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, part: Any) -> Any:
        if isinstance(part, dict):
            return {name: value for name, value in part.items() if value is not None}
        return part


class _Tensor(_Part):
    name: str
    datatype: str = ""
    shape: list[NonNegativeInt] = Field(default=[], max_length=8)
    parameters: dict[str, Scalar] = Field(default={}, max_length=_MOST_PARAMETERS)
    data: Any = None


class InferJson(_Part):
    """The JSON part of an infer request."""

    id: str = ""
    parameters: dict[str, Scalar] = Field(default={}, max_length=_MOST_PARAMETERS)
    inputs: list[_Tensor] = Field(max_length=8)
    outputs: list[_Tensor] = Field(default=[], max_length=8)


def parse(text: bytes) -> Any:
    """Raises BadParameterError where `text` is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadParameterError("The body, or its JSON part, is not JSON") from None


def to_message(body: bytes, header_length: str | None, name: str, version: str) -> tuple[Any, InferJson]:
    """A ModelInferRequest of a body, and its JSON part, which says how the answer is wanted.

    Raises:
        BadParameterError: it is not such a request.
        BodyTooLargeError: the JSON part is so long that reading it would hold up others.
    """
    length = _length_of_json(body, header_length)
    try:
        asked = InferJson.model_validate(parse(body[:length]))
        return _translated(asked, body, length, name, version), asked
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:100] or "body"
        raise BadParameterError(f"{where}: {first['msg']}") from None
    except ValueError:  # protobuf's own, as for a number over 64 bits or text that is no Unicode
        raise BadParameterError("A number or text of the request cannot be represented") from None


def _length_of_json(body: bytes, header_length: str | None) -> int:
    length = len(body)
    if header_length is not None:
        if not re.fullmatch("[0-9]{1,9}", header_length) or int(header_length) > len(body):
            raise BadParameterError(f"{HEADER_LENGTH} is the length of the JSON part, at most {len(body)}")
        length = int(header_length)
    if length > _MOST_JSON:
        raise BodyTooLargeError(f"JSON may have {_MOST_JSON} bytes; send tensors in binary, after the JSON")
    return length


def _translated(asked: InferJson, body: bytes, length: int, name: str, version: str) -> Any:
    message = pb.ModelInferRequest(model_name=name, model_version=version, id=asked.id)
    for key, value in asked.parameters.items():
        _set(message.parameters[key], value)
    for output in asked.outputs:
        message.outputs.add(name=output.name)
    _add_inputs(message, asked.inputs, body, length)
    return message


def _add_inputs(message: Any, inputs: list[_Tensor], body: bytes, at: int) -> None:
    """Binary tensors lie one after the other in `body`, from `at` on."""
    for tensor in inputs:
        added = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if "shared_memory_region" in tensor.parameters:
            _set(added.parameters["shared_memory_region"], "")
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            message.raw_input_contents.append(_raw(tensor))
            continue
        if type(size) is not int or not 0 <= size <= len(body) - at:
            raise BadParameterError(f"{tensor.name}: binary_data_size is more than what was sent")
        message.raw_input_contents.append(body[at : at + size])
        at += size
    if at != len(body):
        raise BadParameterError(f"{len(body) - at} bytes at the end of the body belong to no input")


def _set(slot: Any, value: Scalar) -> None:
    match value:
        case bool():
            slot.bool_param = value
        case int() if -(2**63) <= value < 2**63:
            slot.int64_param = value
        case int():
            raise BadParameterError(f"{str(value)[:30]} is too large a number")
        case float():
            slot.double_param = value
        case str():
            slot.string_param = value


def _raw(tensor: _Tensor) -> bytes:
    """JSON `data`, nested or flat, as the bytes of a binary tensor."""
    if not isinstance(tensor.data, list):
        raise BadParameterError(f"{tensor.name} has neither `data` nor binary data")
    with suppress(KeyError, ValueError, TypeError, OverflowError):
        values = np.array(tensor.data, np.object_)  # NumPy would make a level of 0.99, "7" and true
        if tensor.datatype == "BYTES":
            return b"".join(_file(tensor.name, each) for each in values.flat)
        if set(map(type, values.flat)) <= _NUMBERS[tensor.datatype]:
            return values.astype(_DTYPES[tensor.datatype]).tobytes()
    raise BadParameterError(f"{tensor.name}: `data` does not hold {tensor.datatype[:20]} values")


def _file(name: str, text: Any) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise BadParameterError(f"{name}: files in JSON are base64 strings") from None
    return len(content).to_bytes(4, "little") + content


def from_message(response: Any, asked: InferJson) -> tuple[bytes, int | None]:
    """The body of a ModelInferResponse, and the length of its JSON part where binary tensors follow.

    Raises:
        BadParameterError: so many pixels, or files so long, are not written as JSON.
    """
    all_binary = asked.parameters.get("binary_data_output") is True
    chosen = {output.name: output.parameters.get("binary_data", all_binary) for output in asked.outputs}
    outputs, binaries = [], []
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        described: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": list(output.shape),
            "parameters": {name: oip.parameter(value) for name, value in output.parameters.items()},
        }
        if chosen.get(output.name, all_binary):
            described["parameters"]["binary_data_size"] = len(raw)
            binaries.append(raw)
        elif output.datatype == "BYTES":
            if len(raw) > _MOST_JSON:
                raise BadParameterError(f"{output.name} has {len(raw)} bytes; ask for it with binary_data")
            described["parameters"]["content_type"] = "base64"
            described["data"] = [base64.b64encode(each).decode() for each in oip.split_bytes(raw)]
        elif len(raw) > _MOST_VALUES:
            raise BadParameterError(f"{output.name} has {len(raw)} values; ask for it with binary_data")
        else:
            described["data"] = np.frombuffer(raw, _DTYPES[output.datatype]).tolist()
        outputs.append(described)
    head = json.dumps(
        {
            "model_name": response.model_name,
            "model_version": response.model_version,
            "id": response.id,
            "parameters": {name: oip.parameter(value) for name, value in response.parameters.items()},
            "outputs": outputs,
        }
    ).encode()
    return b"".join([head, *binaries]), len(head) if binaries else None
