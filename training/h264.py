"""What a surveillance recorder does to a frame: H.264, as one picture of a stream."""

from fractions import Fraction
from typing import Literal, cast

import av
import cv2
import numpy as np

from training.errors import DataError
from training.pixels import Image, Photo, to_float, to_uint8
from training.process import Corruption, Crf


class H264(Corruption):
    """Compression and decompression as an intra frame of H.264 (ITU-T H.264, 4:2:0), by x264.

    `crf` is x264's constant rate factor, 0 (hardly any loss) to 51: 23 is its default, recorders are at
    about 25 to 35. A gray image is stored as its luma.
    """

    kind: Literal["h264"] = "h264"
    crf: Crf

    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        height, width, channels = clean.shape
        if channels not in (1, 3):
            raise DataError(f"h264 corrupts images of 1 or 3 channels, not of {channels}")
        # 4:2:0 has a colour for two rows and two columns.
        even = np.pad(to_uint8(clean), ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        even = even.repeat(3 // channels, 2)
        # FFmpeg's own conversion darkens by a level.
        planes = cast(Photo, cv2.cvtColor(even, cv2.COLOR_RGB2YUV_I420))
        decoded = _through_codec(av.VideoFrame.from_ndarray(planes, "yuv420p"), rng.uniform(*self.crf))
        rgb = cast(Photo, cv2.cvtColor(decoded.to_ndarray(), cv2.COLOR_YUV2RGB_I420))
        return to_float(rgb[:height, :width, :channels])


def _through_codec(frame: av.VideoFrame, crf: float) -> av.VideoFrame:
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuv420p"
    encoder.framerate = Fraction(25)
    encoder.thread_count = 1
    encoder.options = {"crf": f"{crf:.1f}", "preset": "veryfast", "tune": "zerolatency"}
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    packets = [*encoder.encode(frame), *encoder.encode()]
    return next(picture for packet in [*packets, None] for picture in decoder.decode(packet))
