"""Requests of countless fields are refused before they are parsed, by a real server in this process."""

import asyncio

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from service.grpc_wire import parse_infer_request
from service.oip import EXCESS, MOST_FIELDS
from tests.service.test_stream_bounds import connected, serving, small_frame

NUMBER = pb.InferParameter(int64_param=1)


def countless() -> pb.ModelInferRequest:
    parameters = {f"triton_{number}": NUMBER for number in range(MOST_FIELDS)}
    return small_frame(parameters=parameters)


@given(
    st.dictionaries(st.text(max_size=20), st.integers(-(2**63), 2**63 - 1), max_size=20),
    st.lists(st.binary(max_size=300), max_size=8),
    st.lists(st.integers(0, 2**62), max_size=8),
)
def test_requests_of_few_fields_are_parsed_as_they_are(
    parameters: dict[str, int], contents: list[bytes], shape: list[int]
) -> None:
    request = small_frame(
        parameters={key: pb.InferParameter(int64_param=parameters[key]) for key in parameters}
    )
    request.raw_input_contents.extend(contents)
    request.inputs.add(name="STRENGTH", datatype="FP32", shape=shape).contents.fp32_contents.extend(
        [0.5] * 2000
    )
    assert parse_infer_request(request.SerializeToString()) == request


def test_countless_parameters_are_not_parsed_wherever_they_are() -> None:
    within = small_frame()
    for number in range(MOST_FIELDS):
        within.inputs[0].parameters[str(number)].CopyFrom(NUMBER)
    for request in (countless(), within):
        assert list(parse_infer_request(request.SerializeToString()).parameters) == [EXCESS]


@given(st.binary(max_size=200))
def test_what_is_no_request_is_left_to_the_parser(message: bytes) -> None:
    try:
        expected = pb.ModelInferRequest.FromString(message)
    except Exception as error:
        with pytest.raises(type(error)):
            parse_infer_request(message)
    else:
        assert parse_infer_request(message) == expected


def test_a_countless_request_is_a_bad_one_and_a_stream_goes_on() -> None:
    async def scene() -> None:
        async with serving() as pipeline, connected(pipeline) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.ModelInfer(countless())
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "more than 4000 fields" in refused.value.details()
            answers = [each async for each in stub.ModelStreamInfer(iter([countless(), small_frame()]))]
            assert "more than 4000 fields" in answers[0].error_message
            assert answers[1].infer_response.raw_output_contents
            large = pb.RepositoryModelLoadRequest(model_name="x" * 100_000)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.RepositoryModelLoad(large)
            assert "at most 65536 bytes" in refused.value.details()

    asyncio.run(scene())
