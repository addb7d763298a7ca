"""The noise of a large frame, measured tile by tile."""

import asyncio

import numpy as np
import numpy.typing as npt
import pytest

from service.order import Denoised, Order
from service.pipeline import Pipeline
from service.settings import Settings


async def measured(settings: Settings, frame: npt.NDArray[np.uint8], strength: float) -> Denoised:
    pipeline = Pipeline(settings)
    try:
        async with pipeline.request() as place:
            return await pipeline.denoise(frame, Order(None, strength, "raw", noise="auto"), place)
    finally:
        await pipeline.close()


@pytest.mark.parametrize("strength", [1, 0.5])
def test_tiles_measure_what_the_whole_frame_does(photo: npt.NDArray[np.uint8], strength: float) -> None:
    noise = np.random.default_rng(0).normal(0, 20, photo.shape)
    frame = np.clip(np.rint(photo + noise), 0, 255).astype(np.uint8)
    whole, tiled = (
        asyncio.run(measured(Settings(grpc_port=0, max_tile_pixels=pixels), frame, strength))
        for pixels in (2**20, 2**16)
    )
    assert np.array_equal(whole.pixels, tiled.pixels)
    assert whole.noise_sigma is not None
    assert tiled.noise_sigma == pytest.approx(whole.noise_sigma, rel=1e-5)
    if strength == 1:
        removed = frame.astype(float) - whole.pixels
        assert whole.noise_sigma == pytest.approx(np.sqrt(np.square(removed).mean()), rel=1e-5)
