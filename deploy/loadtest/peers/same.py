"""That the servers do the same work: one picture through each, the same pixels back."""

import http.client
import io
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import tritonclient.grpc
from PIL import Image

from deploy.loadtest.compare import Side

_TIMEOUT_S = 60
_LEVELS = 0.5  # of 255, on average; JPEG may round what a last bit of the network tips


def check_same_pixels(sides: Sequence[Side], picture: Path) -> None:
    """Compare every side with the first.

    Raises:
        click.ClickException: a side gives other pixels.
    """
    data = picture.read_bytes()
    expected = _clean(sides[0], data)
    for side in sides[1:]:
        found = _clean(side, data)
        apart = np.abs(found - expected).mean() if found.shape == expected.shape else np.inf
        if apart > _LEVELS:
            raise click.ClickException(f"{side.label} gives other pixels, {apart:.2f} levels apart")


def _clean(side: Side, data: bytes) -> npt.NDArray[np.float32]:
    answer = _post(side.target.url, data) if side.protocol == "http" else _infer(side, data)
    with Image.open(io.BytesIO(answer)) as image:
        return np.asarray(image.convert("RGB"), np.float32)


def _post(url: str, data: bytes) -> bytes:
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_S)
    try:
        connection.request(
            "POST", f"{parts.path}?{parts.query}", body=data, headers={"Content-Type": "image/jpeg"}
        )
        return connection.getresponse().read()
    finally:
        connection.close()


def _infer(side: Side, data: bytes) -> bytes:
    tensor = tritonclient.grpc.InferInput("IMAGE", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([data], np.object_))
    with tritonclient.grpc.InferenceServerClient(side.target.grpc_address) as client:
        result = client.infer(side.target.model, [tensor], client_timeout=_TIMEOUT_S)
    return bytes(result.as_numpy("DENOISED")[0])
