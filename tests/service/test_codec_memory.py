"""What decoding takes of memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.service.test_codec import COLOUR, file_of

TELL_MEMORY = """
import re, sys
from pathlib import Path
from service.codec import decode
from service.header import Limits, inspect

def memory(kind):
    return 1024 * int(re.search(kind + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

small, *large = (Path(name).read_bytes() for name in sys.argv[1:])
limits = Limits(frozenset({"jpeg", "png"}), 2**22, 2**11)
decode(small, inspect(small, limits))
for data in large:
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    decode(data, inspect(data, limits))
    print((memory("VmHWM") - before) / 2**22)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to tell the most memory")
def test_images_are_decoded_in_the_bytes_a_pixel_that_operators_are_told(tmp_path: Path) -> None:
    """docs/operations.md, Memory; only the kernel sees what Pillow allocates."""
    ramp = np.broadcast_to((np.arange(2**11) % 251).astype(np.uint8)[:, None, None], (2**11, 2**11, 4))
    told = {("jpeg", 3): 10, ("png", 3): 10, ("png", 4): 14, ("png", 1): 3}
    files = [tmp_path / "small", *(tmp_path / f"{channels}.{format}" for format, channels in told)]
    files[0].write_bytes(file_of(Image.fromarray(COLOUR), "png"))
    for file, (format, channels) in zip(files[1:], told, strict=True):
        Image.fromarray(ramp[..., :channels].squeeze()).save(file, format)
    run = [sys.executable, "-c", TELL_MEMORY, *map(str, files)]
    at_once = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed is given back, and seen anew
    lines = subprocess.run(run, env=at_once, capture_output=True, text=True, check=True).stdout.split()
    assert list(map(float, lines)) == pytest.approx(list(told.values()), abs=0.5)
