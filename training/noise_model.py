"""What the noise of a camera is, from its noisy frames alone.

After the Noise Clinic (Lebrun, Colom & Morel 2015) and Colom & Buades (2014): where the scene is flat
a frame shows its noise, whose strength depends on the intensity and whose spectrum is the camera's.
Here n = s(x) * (k conv z), z ~ N(0, I): the deviation s is a curve for each channel of each frame,
the kernel k, with unit variance, one for all frames; it correlates neighbours and channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from training.corruption import Photo
from training.errors import DataError

Array = npt.NDArray[np.float64]

WINDOW = 16  # pixels a side; small enough to be flat, large enough for the correlations
REACH = 6  # pixels; correlations beyond are taken to be none
LEVELS = 8  # nodes of a curve
FLAT = 0.25  # share of the windows of a level whose scene is taken to be flat
FAINTEST = 0.75  # grey levels; what rounding to 8 bits leaves (0.29) is no noise to learn from
MOST_WINDOWS = 8000  # looked at in one frame, and
MOST_FLAT = 1000  # of them for the correlations
_SPECTRUM = 32
_DEGREES = WINDOW**2 / (WINDOW**2 - 3)  # a plane has three


@dataclass(frozen=True)
class Curve:
    """Deviation of the noise of one frame against intensity, both in 0..1, `[C, LEVELS]` each."""

    intensity: Array
    deviation: Array

    def of(self, guide: Tensor) -> Tensor:
        """The deviation for each pixel of `[C, H, W]`, linear between the nodes, constant beyond."""
        planes = [
            np.interp(plane.numpy(), x, y)
            for plane, x, y in zip(guide, self.intensity, self.deviation, strict=True)
        ]
        return torch.from_numpy(np.stack(planes)).float()


@dataclass(frozen=True)
class NoiseModel:
    """The noise of a camera: one curve for each frame, one kernel `[C, C, 2 REACH + 1, 2 REACH + 1]`."""

    curves: list[Curve]
    kernel: Tensor

    def draw(self, deviation: Tensor, generator: torch.Generator) -> Tensor:
        """Gaussian noise of these deviations `[N, C, H, W]`."""
        n, c, height, width = deviation.shape
        white = torch.randn(n, c, height + 2 * REACH, width + 2 * REACH, generator=generator)
        noise: Tensor = deviation * functional.conv2d(white, self.kernel)
        return noise


def estimate_noise(frames: Sequence[Photo], guides: Sequence[Photo]) -> NoiseModel:
    """Measure the noise of frames.

    Args:
        frames: noisy, uint8 `[H, W, 3]`, sides of at least 64 pixels.
        guides: the same frames denoised, however roughly; they say where the scene is flat.

    Raises:
        DataError: there is hardly any noise to measure.
    """
    measured = [_measure(frame, guide) for frame, guide in zip(frames, guides, strict=True)]
    strength = float(np.median([np.median(curve.deviation) for curve, _ in measured])) * 255
    if strength < FAINTEST:
        raise DataError(f"the frames have hardly any noise ({strength:.2f} of 255 levels); nothing to learn")
    kernel = _kernel_behind(np.mean([_covariance(flat) for _, flat in measured], axis=0))
    # The plane that each window lost held noise too: the kernel knows how much.
    lost = np.sqrt(np.square(kernel).sum((1, 2, 3)))
    curves = [Curve(curve.intensity, curve.deviation * lost[:, None]) for curve, _ in measured]
    return NoiseModel(curves, torch.from_numpy(kernel / lost[:, None, None, None]).float())


def left_in_flat(image: Photo, guide: Photo) -> float:
    """Deviation, in grey levels, of what is seen where the scene of the guide is flattest: noise, or none."""
    windows, scene = _windows(image.astype(np.float32) / 255), _windows(_smooth(guide))
    rough = _without_plane(scene).var(2).sum(1)
    flattest = np.argsort(rough)[: max(8, round(len(rough) * FLAT))]
    variance = np.square(_without_plane(windows[flattest])).mean(2) * _DEGREES
    return 255 * math.sqrt(float(np.median(variance, axis=0).mean()))


def _measure(frame: Photo, guide: Photo) -> tuple[Curve, Array]:
    """The curve of one frame, and its flat windows `[M, C, WINDOW, WINDOW]` with the deviation made 1."""
    noisy, scene = _windows(frame.astype(np.float32) / 255), _windows(_smooth(guide))
    unclipped = ((noisy > 0.005) & (noisy < 0.995)).mean((1, 2)) > 0.98
    usable = np.flatnonzero(unclipped) if unclipped.sum() >= 64 else np.arange(len(noisy))
    noisy, scene = noisy[usable], scene[usable]
    intensity = scene.mean(2)
    noisy, rough = _without_plane(noisy), _without_plane(scene).var(2).sum(1)
    variance = np.square(noisy).mean(2) * _DEGREES
    nodes, chosen = [], []
    for channel in intensity.T:
        groups = np.array_split(np.argsort(channel), min(LEVELS, max(1, len(channel) // 32)))
        flat = [group[np.argsort(rough[group])[: max(8, round(len(group) * FLAT))]] for group in groups]
        nodes.append(flat)
        chosen += flat
    curve = Curve(
        np.array([[intensity[g, c].mean() for g in flat] for c, flat in enumerate(nodes)]),
        np.array([[np.sqrt(np.median(variance[g, c])) for g in flat] for c, flat in enumerate(nodes)]),
    )
    flattest = np.unique(np.concatenate(chosen))
    flattest = flattest[:: math.ceil(len(flattest) / MOST_FLAT)]
    deviation = np.stack(
        [
            np.interp(intensity[flattest, c], curve.intensity[c], curve.deviation[c])
            for c in range(len(nodes))
        ],
        1,
    )
    shape = (len(flattest), len(nodes), WINDOW, WINDOW)
    return curve, (noisy[flattest] / np.maximum(deviation, 1e-4)[..., None]).reshape(shape)


def _smooth(guide: Photo) -> npt.NDArray[Any]:
    return cv2.GaussianBlur(guide.astype(np.float32) / 255, (0, 0), 2)


def _windows(image: npt.NDArray[Any]) -> Array:
    """Half-overlapping windows of `[H, W, C]`, of a large image fewer, `[M, C, WINDOW * WINDOW]`."""
    view = np.lib.stride_tricks.sliding_window_view(image, (WINDOW, WINDOW), axis=(0, 1))
    apart = max(WINDOW // 2, math.isqrt(image.shape[0] * image.shape[1] // MOST_WINDOWS))
    return view[::apart, ::apart].reshape(-1, image.shape[2], WINDOW**2).astype(np.float64)


def _without_plane(windows: Array) -> Array:
    """Subtract the best-fitting plane of each window: what light does to a flat wall."""
    y, x = (np.mgrid[:WINDOW, :WINDOW] - (WINDOW - 1) / 2).reshape(2, -1)
    basis, _ = np.linalg.qr(np.stack([np.ones(WINDOW**2), x, y], 1))
    flat: Array = windows - windows @ basis @ basis.T
    return flat


def _covariance(windows: Array) -> Array:
    """Mean autocovariance of `[M, C, WINDOW, WINDOW]`: `[C, C, 2 REACH + 1, 2 REACH + 1]`, by lag."""
    spectra = np.fft.fft2(windows, (_SPECTRUM, _SPECTRUM))
    power = np.einsum("nchw,ndhw->cdhw", spectra, spectra.conj()) / len(windows)
    inside = np.abs(np.fft.fft2(np.ones((WINDOW, WINDOW)), (_SPECTRUM, _SPECTRUM))) ** 2
    lags = np.ix_(range(-REACH, REACH + 1), range(-REACH, REACH + 1))
    pairs = np.fft.ifft2(inside).real[lags]
    return np.stack([[np.fft.ifft2(each).real[lags] for each in row] for row in power]) / pairs * _DEGREES


def _kernel_behind(measured: Array) -> Array:
    """The kernel whose noise, measured as the frames were, gives this covariance.

    Windows without their plane have lost the slowest part of the noise. So the guess is improved by
    what its own noise, measured in the same way, lacks.
    """
    guess = measured
    generator = torch.Generator().manual_seed(0)
    ones = torch.ones(1, len(measured), WINDOW, WINDOW).expand(1000, -1, -1, -1)
    for _ in range(3):
        drawn = NoiseModel([], torch.from_numpy(_kernel(guess)).float()).draw(ones, generator)
        flat = _without_plane(drawn.flatten(2).numpy().astype(np.float64))
        guess = guess + measured - _covariance(flat.reshape(drawn.shape))
    return _kernel(guess)


def _kernel(covariance: Array) -> Array:
    """The symmetric square root of a covariance, by its spectrum, as a kernel to convolve with."""
    lag = np.arange(-REACH, REACH + 1)
    taper = np.clip(1 - np.hypot(*np.meshgrid(lag, lag)) / (REACH + 1), 0, 1) ** 0.3
    wrapped = np.zeros((*covariance.shape[:2], _SPECTRUM, _SPECTRUM))
    wrapped[:, :, lag[:, None], lag] = covariance * taper
    spectrum = np.fft.fft2(wrapped).transpose(2, 3, 0, 1)
    power, vectors = np.linalg.eigh((spectrum + spectrum.conj().swapaxes(2, 3)) / 2)
    root = vectors * np.sqrt(np.clip(power, 0, None))[:, :, None] @ vectors.conj().swapaxes(2, 3)
    kernel: Array = np.fft.ifft2(root.transpose(2, 3, 0, 1)).real[:, :, -lag[:, None], -lag]
    return kernel  # turned around, as torch's convolution is a correlation
