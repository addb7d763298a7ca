"""What the tests with NVIDIA's client share."""

import io
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.conftest import Server

Pixels = npt.NDArray[np.uint8]
MODEL = "frames-balanced"


def denoised_by_v1(server: Server, data: bytes) -> Pixels:
    response = httpx.post(f"{server.url}/v1/denoise", content=data, timeout=60)
    assert response.status_code == 200, response.text
    return opened(response.content)


def opened(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def raw_input(module: Any, frames: Pixels) -> Any:
    tensor = module.InferInput("image", list(frames.shape), "UINT8")
    tensor.set_data_from_numpy(frames)
    return tensor


def file_input(module: Any, files: list[bytes]) -> Any:
    tensor = module.InferInput("IMAGE", [len(files)], "BYTES")
    tensor.set_data_from_numpy(np.array(files, np.object_))
    return tensor
