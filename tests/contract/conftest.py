import numpy as np
import pytest
from PIL import Image

from tests.conftest import Server
from tests.contract.triton import Pixels, denoised_by_v1
from tests.service.test_codec import file_of


@pytest.fixture(scope="module")
def frames(photo: Pixels) -> Pixels:
    """Two crops, uint8 `[2, 61, 83, 3]`."""
    return np.stack([photo[:61, :83], photo[100:161, 200:283]])


@pytest.fixture(scope="module")
def expected(server: Server, frames: Pixels) -> Pixels:
    """What /v1/denoise makes of them."""
    return np.stack([denoised_by_v1(server, file_of(Image.fromarray(frame), "png")) for frame in frames])
