"""What cleans the frames of a video: a pipeline in this process, or a server's stream."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio

from service import codec, oip_models
from service.codec import Pixels
from service.errors import ServiceError
from service.order import Order
from service.pipeline import Pipeline
from service.streams import FrameStream

# A frame comes back as a clean one, or as the reason why it does not.
Cleaner = Callable[[AsyncIterator[Pixels]], AsyncIterator[Pixels | str]]

_WINDOW = 4


def clean_here(pipeline: Pipeline, order: Order) -> Cleaner:
    """Frames through a pipeline in this process."""

    async def work(frame: Pixels) -> Pixels | str:
        try:
            return _rgb((await pipeline.denoise(frame, order)).pixels)
        except ServiceError as error:
            return error.detail

    def cleaned(frames: AsyncIterator[Pixels]) -> AsyncIterator[Pixels | str]:
        running = pipeline.settings.lanes_per_worker + 1
        stream: FrameStream[Pixels, Pixels | str] = FrameStream(
            work, drop=lambda _: "dropped", may_drop=lambda _: False, window=_WINDOW, running=running
        )
        return stream.answers(frames)

    return cleaned


@dataclass(frozen=True)
class Server:
    """A service to clean frames on, by its gRPC.

    `ca` is a PEM file of whom to trust for TLS, which is used if it is given or `tls` is true. A frame
    larger than `max_bytes`, the service's limit, is sent as a JPEG of quality 98.
    """

    address: str
    token: str | None
    tls: bool
    ca: Path | None
    max_bytes: int


def clean_there(server: Server, model: str, strength: float) -> Cleaner:
    """Frames through the stream of a service; raw pixels where they fit into a message."""
    name, _, version = model.partition(":")
    headers = {"authorization": f"Bearer {server.token}"} if server.token else None

    async def cleaned(frames: AsyncIterator[Pixels]) -> AsyncIterator[Pixels | str]:
        places = asyncio.Semaphore(_WINDOW)

        async def requests() -> AsyncIterator[dict[str, Any]]:
            async for frame in frames:
                await places.acquire()
                tensor = _tensor(frame, server.max_bytes)
                parameters = {"strength": strength}
                yield {
                    "model_name": name,
                    "model_version": version,
                    "inputs": [tensor],
                    "outputs": [tritonclient.grpc.InferRequestedOutput(oip_models.CLEAN_PIXELS)],
                    "parameters": parameters,
                }

        trust = str(server.ca) if server.ca else None
        async with tritonclient.grpc.aio.InferenceServerClient(
            server.address, ssl=server.tls or bool(trust), root_certificates=trust
        ) as client:
            try:
                async for result, error in client.stream_infer(requests(), headers=headers):
                    places.release()
                    yield error.message() if error else _rgb(result.as_numpy(oip_models.CLEAN_PIXELS)[0])
            except grpc.aio.AioRpcError as error:
                raise ConnectionError(f"{server.address}: {error.details()}") from None

    return cleaned


def _rgb(frame: Pixels) -> Pixels:
    """`[H, W, 3]`, as videos are written, also where a model gives `[H, W, 1]`."""
    return np.repeat(frame, 3, axis=2) if frame.shape[2] == 1 else frame


def _tensor(frame: Pixels, max_bytes: int) -> Any:
    if frame.nbytes <= max_bytes:
        tensor = tritonclient.grpc.InferInput(oip_models.PIXELS, [1, *frame.shape], "UINT8")
        tensor.set_data_from_numpy(frame[None])
    else:
        file = codec.encode(codec.Picture(frame), "jpeg", 98)
        tensor = tritonclient.grpc.InferInput(oip_models.FILE, [1], "BYTES")
        tensor.set_data_from_numpy(np.array([file], np.object_))
    return tensor
