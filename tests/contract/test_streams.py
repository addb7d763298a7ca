"""Streams of frames over gRPC, by NVIDIA's own client."""

import queue
from typing import Any

import numpy as np
import tritonclient.grpc
from PIL import Image

from tests.conftest import Server
from tests.contract.triton import MODEL, Pixels, file_input, opened, raw_input
from tests.service.test_codec import file_of


def test_a_stream_answers_in_order_and_survives_a_bad_frame(
    server: Server, frames: Pixels, expected: Pixels
) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    good = [file_of(Image.fromarray(frame), "png") for frame in frames]
    sent = [good[0], b"no image", *good * 4]
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number, data in enumerate(sent):
            client.async_stream_infer(MODEL, [file_input(tritonclient.grpc, [data])], request_id=str(number))
        for number in range(len(sent)):
            result, error = answers.get(timeout=60)
            if number == 1:
                assert "Not an image" in error.message()
                continue
            assert result.get_response().id == str(number)
            assert np.array_equal(
                opened(result.as_numpy("DENOISED")[0]), expected[0 if number == 0 else number % 2]
            )
        client.stop_stream()


def test_a_live_stream_drops_what_is_too_old(server: Server, photo: Pixels) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    frame = np.tile(photo, (2, 2, 1))[None]
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(20):
            client.async_stream_infer(
                MODEL,
                [raw_input(tritonclient.grpc, frame)],
                request_id=str(number),
                parameters={"drop_oldest": True},
            )
        seen = [answers.get(timeout=60) for _ in range(20)]
        client.stop_stream()
    clean = [int(result.get_response().id) for result, error in seen if error is None]
    dropped = [error.message() for _, error in seen if error is not None]
    assert clean == sorted(clean)
    assert clean[-1] == 19
    assert dropped
    assert all("newer frame" in message for message in dropped)
