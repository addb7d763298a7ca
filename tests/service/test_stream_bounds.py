"""What streams may hold of the bytes and calls of a worker, by a real server in this process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from service import metrics
from service.admission import Buffer
from service.errors import QueueFullError, UnknownModelError
from service.grpc_server import start_grpc
from service.pipeline import Pipeline
from service.record import Recorder
from service.settings import Settings
from tests.conftest import free_port
from tests.service.test_codec import file_of

SMALL = "mnist-linear"


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Pipeline]:
    pipeline = Pipeline(Settings(grpc_port=free_port(), device="cpu", lanes=1, **settings))
    server = await start_grpc(pipeline, Recorder(access_log=False))
    try:
        yield pipeline
    finally:
        await server.stop(None)
        await pipeline.close()


def connected(pipeline: Pipeline) -> Any:
    """A channel with a connection of its own, which takes in little before it is read."""
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 65_536),
    ]
    return grpc.aio.insecure_channel(f"127.0.0.1:{pipeline.settings.grpc_port}", options)


def small_frame(**fields: Any) -> Any:
    request = pb.ModelInferRequest(model_name=SMALL, raw_input_contents=[bytes(28 * 28)], **fields)
    request.inputs.add(name="image", datatype="UINT8", shape=[1, 28, 28, 1])
    return request


def frame_with_a_large_answer(side: int) -> Any:
    """A file of few bytes, to come back as pixels."""
    request = pb.ModelInferRequest(model_name="frames-fast")
    tensor = request.inputs.add(name="IMAGE", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(file_of(Image.new("RGB", (side, side), "gray"), "jpeg"))
    request.outputs.add(name="denoised")
    return request


async def wait_for(seen: Callable[[], bool]) -> None:
    for _ in range(3000):
        if seen():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen within thirty seconds")


def answered(reason: str | None = None) -> float:
    """Inferences over gRPC that this process has answered, all or those for a reason."""
    samples = next(iter(metrics.REQUESTS.collect())).samples
    return sum(
        each.value
        for each in samples
        if each.name.endswith("_total")
        and each.labels["protocol"] == "grpc"
        and reason in (None, each.labels["reason"])
    )


def check_nothing_is_held(pipeline: Pipeline) -> None:
    """All bytes fit beside none, and not one beside all."""
    admission, limit = pipeline.admission, pipeline.settings.max_buffered_bytes
    with admission.body() as body, admission.body() as other:
        body.grow(limit)
        with pytest.raises(QueueFullError):
            other.grow(1)


def test_answers_that_nobody_has_read_count() -> None:
    frames, size, limit = 16, 400 * 400 * 3, 2_000_000

    async def main() -> None:
        bounds = {"max_buffered_bytes": limit, "max_body_bytes": 100_000, "stream_window": frames}
        async with serving(default_model="frames-fast", **bounds) as pipeline, connected(pipeline) as channel:
            before = answered()
            call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer()
            for _ in range(frames):
                await call.write(frame_with_a_large_answer(400))
            await wait_for(lambda: answered() - before == frames)
            await call.done_writing()
            answers = [answer async for answer in call]
            refused = [answer.error_message for answer in answers if answer.error_message]
            assert len(answers) == frames
            assert all(message.startswith("RESOURCE_EXHAUSTED") for message in refused)
            running = pipeline.settings.lanes_per_worker + 1  # had begun before the house was full
            assert limit <= (frames - len(refused)) * size <= limit + running * size
            check_nothing_is_held(pipeline)

    asyncio.run(main())


def test_a_client_that_reads_is_never_refused() -> None:
    """What it has taken no longer counts, however much that is in the end."""

    async def main() -> None:
        bounds = {"max_buffered_bytes": 20_000, "max_body_bytes": 5_000}
        async with serving(default_model=SMALL, **bounds) as pipeline, connected(pipeline) as channel:
            call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer()
            for _ in range(100):
                await call.write(small_frame())
                assert not (await call.read()).error_message
            call.cancel()

    asyncio.run(main())


def test_the_answers_to_dropped_frames_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are short, but many may wait to be read."""

    async def main() -> None:
        bounds = {"max_buffered_bytes": 7_000, "max_body_bytes": 5_000}  # four frames have 4 400
        async with serving(default_model=SMALL, **bounds) as pipeline, connected(pipeline) as channel:
            gate, load = asyncio.Event(), pipeline.engine

            async def held(reference: str | None) -> Any:
                await gate.wait()
                return await load(reference)

            monkeypatch.setattr(pipeline, "engine", held)
            before = answered("frame-dropped")
            frame = small_frame(id=256 * "x")
            frame.parameters["drop_oldest"].bool_param = True
            call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer()
            for _ in range(16):
                await call.write(frame)
            await wait_for(lambda: answered("frame-dropped") - before == 12)
            with pytest.raises(QueueFullError), pipeline.admission.body() as body:
                body.grow(1)
            gate.set()
            await call.done_writing()
            assert len([answer async for answer in call]) == 16
            check_nothing_is_held(pipeline)

    asyncio.run(main())


def test_what_answers_repeat_of_a_frame_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with serving(default_model=SMALL) as pipeline, connected(pipeline) as channel:
            gate, load = asyncio.Event(), pipeline.engine

            async def held(reference: str | None) -> Any:
                await gate.wait()
                return await load(reference)

            monkeypatch.setattr(pipeline, "engine", held)
            before = answered("frame-dropped")
            call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer()
            for id in [*"abcd", *4 * [100_000 * "x"]]:
                frame = small_frame(id=id)
                frame.model_name = id if len(id) > 1 else SMALL
                frame.parameters["drop_oldest"].bool_param = True
                await call.write(frame)
            await wait_for(lambda: answered("frame-dropped") - before == 4)
            gate.set()
            await call.done_writing()
            answers = [answer async for answer in call]
            assert len(answers) == 8
            assert max(answer.ByteSize() for answer in answers) < 2_000
            assert answers[-1].error_message.startswith("INVALID_ARGUMENT: id has at most 256 characters")

    asyncio.run(main())


def test_a_cancelled_stream_gives_back_what_it_has_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where frames that have begun are done the moment it is over."""

    async def main() -> None:
        async with serving(default_model=SMALL) as pipeline, connected(pipeline) as channel:
            over, admitted = asyncio.Event(), pipeline.admission.stream
            begun: list[str | None] = []

            @contextmanager
            def stream() -> Iterator[Buffer]:
                try:
                    with admitted() as waiting:
                        yield waiting
                finally:
                    over.set()

            async def held(reference: str | None) -> Any:
                begun.append(reference)
                if len(begun) > 1:
                    await over.wait()
                raise UnknownModelError(200_000 * "x")

            monkeypatch.setattr(pipeline.admission, "stream", stream)
            monkeypatch.setattr(pipeline, "engine", held)
            call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer()
            for _ in range(6):
                await call.write(small_frame())
            await wait_for(lambda: len(begun) == 3)  # the first has an answer, which waits to be read
            await asyncio.sleep(0.1)
            call.cancel()
            await wait_for(over.is_set)
            await asyncio.sleep(0.1)
            check_nothing_is_held(pipeline)

    asyncio.run(main())


def test_streams_are_bounded_by_the_places() -> None:
    async def main() -> None:
        async with (
            serving(default_model=SMALL, max_queue_requests=4) as pipeline,
            connected(pipeline) as channel,
        ):
            streams = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer
            idle = [await idle_stream(streams()) for _ in range(4)]
            before = answered("queue-full")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await idle_stream(streams())
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "4 streams are open" in refused.value.details()
            assert dict(refused.value.trailing_metadata())["retry-after"] == "1"
            assert answered("queue-full") - before == 1
            await idle[0].done_writing()
            assert await idle[0].read() is grpc.aio.EOF
            await idle_stream(streams())

    asyncio.run(main())


def test_the_most_streams_and_requests_leave_calls_for_health(monkeypatch: pytest.MonkeyPatch) -> None:
    places = 80  # more than the calls that are kept for health and models

    async def main() -> None:
        async with (
            serving(default_model=SMALL, max_queue_requests=places) as pipeline,
            connected(pipeline) as cameras,
            connected(pipeline) as others,
        ):
            streams = service_pb2_grpc.GRPCInferenceServiceStub(cameras).ModelStreamInfer
            idle = [await idle_stream(streams()) for _ in range(places)]
            gate, load = asyncio.Event(), pipeline.engine
            begun: list[str | None] = []

            async def held(reference: str | None) -> Any:
                begun.append(reference)
                await gate.wait()
                return await load(reference)

            monkeypatch.setattr(pipeline, "engine", held)
            infer = service_pb2_grpc.GRPCInferenceServiceStub(others).ModelInfer
            inferences = [infer(small_frame()) for _ in range(places)]
            await wait_for(lambda: len(begun) == places)
            health = health_pb2_grpc.HealthStub(others)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
            gate.set()
            for each in inferences:
                await each
            assert not any(each.done() for each in idle)

    asyncio.run(main())


async def idle_stream(call: Any) -> Any:
    """A stream that has had the answer to its only frame."""
    await call.write(small_frame())
    answer = await call.read()
    assert not answer.error_message
    assert np.frombuffer(answer.infer_response.raw_output_contents[0], np.uint8).size == 28 * 28
    return call
