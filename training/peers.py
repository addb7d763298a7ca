"""Denoisers to compare: ONNX models of ours, and what people use today."""

import os
from dataclasses import dataclass
from typing import Protocol, cast

import bm3d
import cv2
import numpy as np
import onnxruntime as ort

from training.corruption import Photo, to_float, to_uint8


class Denoiser(Protocol):
    """Something that cleans uint8 `[H, W, 3]` RGB; `sigma` (0..255) only where the peer is told it."""

    @property
    def name(self) -> str: ...

    def __call__(self, noisy: Photo, sigma: float | None) -> Photo | None: ...


@dataclass
class OnnxDenoiser:
    """A model.onnx by our graph contract; blind."""

    name: str
    session: ort.InferenceSession

    @classmethod
    def load(cls, name: str, model: bytes, threads: int) -> "OnnxDenoiser":
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        return cls(name, ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]))

    def __call__(self, noisy: Photo, sigma: float | None) -> Photo | None:
        feeds = {"image": noisy[None], "strength": np.ones(1, np.float32)}
        return cast(Photo, self.session.run(["denoised"], feeds)[0][0])


@dataclass
class NonLocalMeans:
    """OpenCV's fastNlMeansDenoisingColored (Buades et al. 2011) at one filter strength h."""

    strength: int

    @property
    def name(self) -> str:
        return f"NLM h={self.strength}"

    def __call__(self, noisy: Photo, sigma: float | None) -> Photo | None:
        h = float(self.strength)
        bgr = np.ascontiguousarray(noisy[..., ::-1])  # it goes on to CIELAB, so the order matters
        return cast(Photo, cv2.fastNlMeansDenoisingColored(bgr, None, h, h, 7, 21))[..., ::-1]


@dataclass
class Bm3d:
    """BM3D (Dabov et al. 2007), on gray or colour, told the sigma; has no answer where there is none."""

    name: str = "BM3D (told sigma)"

    def __call__(self, noisy: Photo, sigma: float | None) -> Photo | None:
        if not sigma:
            return None
        profile = bm3d.BM3DProfile()
        profile.num_threads = len(os.sched_getaffinity(0))
        image = to_float(noisy)
        if (noisy == noisy[..., :1]).all():
            plane = bm3d.bm3d(image[..., 0], sigma / 255, profile=profile)
            return np.repeat(to_uint8(plane)[..., None], 3, axis=2)
        return to_uint8(bm3d.bm3d_rgb(image, sigma / 255, profile=profile))
