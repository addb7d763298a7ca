"""Denoisers to compare: ONNX models of ours, and what people use today."""

import os
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import bm3d
import cv2
import numpy as np
import onnxruntime as ort
from skimage.restoration import denoise_wavelet

from model_store import CUDA_PROVIDERS, Precision, cpu_providers
from training.corruption import Photo, to_float, to_uint8

_BM3D_BLOCK = 8  # pixels
Device = Literal["cpu", "cuda"]
THREADS = len(os.sched_getaffinity(0))  # of everyone, so that times can be compared


class Denoiser(Protocol):
    """Something that cleans uint8 `[H, W, C]`; `sigma` (0..255) only where the peer is told it."""

    @property
    def name(self) -> str: ...

    def __call__(self, noisy: Photo, sigma: float | None) -> Photo | None: ...


@dataclass
class OnnxDenoiser:
    """A model.onnx by our graph contract; blind."""

    name: str
    session: ort.InferenceSession

    @classmethod
    def load(
        cls, name: str, model: bytes, threads: int, precision: Precision = "fp32", device: Device = "cpu"
    ) -> "OnnxDenoiser":
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # Or the threads of one denoiser would wait by spinning while the next one is measured.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if device == "cuda":
            ort.preload_dlls()
            providers = CUDA_PROVIDERS
        else:
            providers = cpu_providers(precision, threads)
        return cls(name, ort.InferenceSession(model, options, providers))

    def __call__(self, noisy: Photo, sigma: float | None) -> Photo | None:
        feeds = {"image": noisy[None], "strength": np.ones(1, np.float32)}
        taken = {each.name: feeds[each.name] for each in self.session.get_inputs()}
        return cast(Photo, self.session.run(["denoised"], taken)[0][0])

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """What it takes where that is not an image of `shape` (H, W, C), or gives where that is none."""
        image = self.session.get_inputs()[0]
        fixed = [side if isinstance(side, int) else None for side in image.shape[1:]]
        fits = len(fixed) == 3 and all(want in (None, side) for want, side in zip(fixed, shape, strict=True))
        if not fits:
            return f"{self.name} takes {image.name} of the shape {image.shape}"
        given = self.session.get_outputs()[0].name
        return None if given == "denoised" else f"{self.name} gives {given}, no image"


@dataclass
class NonLocalMeans:
    """OpenCV's fastNlMeansDenoising (Buades et al. 2011), colour in CIELAB, at one filter strength h."""

    strength: int

    @property
    def name(self) -> str:
        return f"NLM h={self.strength}"

    def __call__(self, noisy: Photo, sigma: float | None) -> Photo | None:
        cv2.setNumThreads(THREADS)
        h = float(self.strength)
        if is_gray(noisy):
            plane = np.ascontiguousarray(noisy[..., 0])
            return as_gray(cast(Photo, cv2.fastNlMeansDenoising(plane, None, h, 7, 21)), noisy)
        bgr = np.ascontiguousarray(noisy[..., ::-1])  # it goes on to CIELAB, so the order matters
        return cast(Photo, cv2.fastNlMeansDenoisingColored(bgr, None, h, h, 7, 21))[..., ::-1]


@dataclass
class Bm3d:
    """BM3D (Dabov et al. 2007), on gray or colour, told the sigma.

    Has no answer where there is none, or where a side is shorter than its blocks.
    """

    name: str = "BM3D (told sigma)"

    def __call__(self, noisy: Photo, sigma: float | None) -> Photo | None:
        if not sigma or min(noisy.shape[:2]) < _BM3D_BLOCK:
            return None
        profile = bm3d.BM3DProfile()
        profile.num_threads = THREADS
        image = to_float(noisy)
        if is_gray(noisy):
            return as_gray(to_uint8(bm3d.bm3d(image[..., 0], sigma / 255, profile=profile)), noisy)
        return to_uint8(bm3d.bm3d_rgb(image, sigma / 255, profile=profile))


@dataclass
class Wavelet:
    """Soft wavelet thresholds by BayesShrink (Chang et al. 2000), colour in YCbCr; estimates the sigma."""

    name: str = "wavelet"

    def __call__(self, noisy: Photo, sigma: float | None) -> Photo | None:
        image = to_float(noisy)
        if is_gray(noisy):
            return as_gray(
                to_uint8(denoise_wavelet(image[..., 0], method="BayesShrink", rescale_sigma=True)), noisy
            )
        restored = denoise_wavelet(
            image, method="BayesShrink", rescale_sigma=True, convert2ycbcr=True, channel_axis=2
        )
        return to_uint8(restored)


# What runs beside ours unless it is left out, by the word that leaves it out.
ALONGSIDE: dict[str, tuple[Denoiser, ...]] = {
    "nlm": (NonLocalMeans(10), NonLocalMeans(20), NonLocalMeans(35)),
    "wavelet": (Wavelet(),),
    "bm3d": (Bm3d(),),
}


def is_gray(image: Photo) -> bool:
    """Whether all channels are equal."""
    return bool((image == image[..., :1]).all())


def as_gray(plane: Photo, like: Photo) -> Photo:
    """`[H, W]` as so many equal channels as `like` has."""
    return np.repeat(plane[..., None], like.shape[2], axis=2)
