"""Published models as they run in the service: model.onnx by its card, for pictures of what they do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from pydantic import TypeAdapter

from model_store import ModelCard, ModelStore
from training.corruption import AnyCorruption, Gaussian, Mixture, Photo, to_float, to_uint8
from training.errors import DataError
from training.evaluate import psnr
from training.plots import Series

LEVELS = (5.0, 10.0, 15.0, 25.0, 35.0, 50.0, 75.0, 100.0, 127.5, 180.0, 255.0)


@dataclass(frozen=True)
class Published:
    """One version of a model: its card, its graph, and a session that runs it."""

    card: ModelCard
    graph: bytes
    session: ort.InferenceSession

    @classmethod
    def load(cls, store: ModelStore, name: str) -> "Published":
        """Raises StoreError where the store does not have it."""
        stored = store.resolve(name)
        graph = stored.read_verified()
        return cls(stored.card, graph, ort.InferenceSession(graph, providers=["CPUExecutionProvider"]))

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The first output for a batch of the first input."""
        feeds = {self.card.inputs[0].name: batch}
        if self.card.takes_strength:
            feeds["strength"] = np.ones(len(batch), np.float32)
        answer: npt.NDArray[Any] = self.session.run([self.card.outputs[0].name], feeds)[0]
        return answer

    def __call__(self, image: Photo) -> Photo:
        """One image, uint8 `[H, W, C]`.

        Raises:
            DataError: the model gives codes, not images.
        """
        if not self.card.gives_image:
            raise DataError(f"{self.card.label} gives codes; `plot latent` draws them")
        restored: Photo = self.run(image[None])[0]
        return restored

    def corrupt(self, clean: Photo, seed: int) -> Photo:
        """What the model was trained to undo; made smaller first for one that makes it larger."""
        if self.card.scale > 1:
            height, width = (side // self.card.scale for side in clean.shape[:2])
            small = cv2.resize(clean, (width, height), interpolation=cv2.INTER_AREA)
            clean = np.asarray(small, np.uint8).reshape(height, width, clean.shape[2])
        noise = Mixture(of=corruptions_of(self.card))
        return to_uint8(noise.apply(to_float(clean), np.random.default_rng(seed)))


def corruptions_of(card: ModelCard) -> tuple[AnyCorruption, ...]:
    """What a model was trained to undo, weighed by the shares of its card.

    Raises:
        ValidationError: it was spelled otherwise in its day.
    """
    read = TypeAdapter[AnyCorruption](AnyCorruption).validate_python
    return tuple(read({"kind": each.kind, "weight": each.share, **each.levels}) for each in card.corruption)


def psnr_by_level(models: Sequence[Published], clean: Sequence[Photo], seed: int) -> dict[str, Series]:
    """Mean PSNR in dB over images under Gaussian noise, of the noisy images and of each model's."""
    found: dict[str, list[float]] = {"noisy": [], **{model.card.label: [] for model in models}}
    for sigma in LEVELS:
        noise = Gaussian(sigma=(sigma, sigma))
        noisy = [
            to_uint8(noise.apply(to_float(image), np.random.default_rng((seed, number))))
            for number, image in enumerate(clean)
        ]
        found["noisy"].append(_mean_psnr(noisy, clean))
        for model in models:
            found[model.card.label].append(_mean_psnr([model(image) for image in noisy], clean))
    return {name: Series(np.array(LEVELS), np.array(values)) for name, values in found.items()}


def _mean_psnr(images: Sequence[Photo], clean: Sequence[Photo]) -> float:
    if images[0].shape != clean[0].shape:
        raise DataError("the level plot is for models whose output has the size of the input")
    return float(np.mean([psnr(*pair) for pair in zip(clean, images, strict=True)]))


def decode_plane(
    decoder: Published, codes: npt.NDArray[Any], side: int
) -> tuple[Photo, tuple[float, float, float, float]]:
    """Decode a square grid of the plane that holds 98 % of the codes in each direction.

    Returns:
        uint8 `[side, side, H, W, 1]`, the first row at the top, and (left, right, bottom, top).
    """
    if codes.ndim != 2 or codes.shape[1] != 2:
        raise DataError(f"codes of two numbers can be drawn in a plane, not codes {codes.shape[1:]}")
    (left, bottom), (right, top) = np.quantile(codes, (0.01, 0.99), axis=0)
    x, y = np.meshgrid(np.linspace(left, right, side), np.linspace(top, bottom, side))
    decoded = decoder.run(np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32))
    return decoded.reshape(side, side, *decoded.shape[1:]), (left, right, bottom, top)


def first_filters(model: Published) -> npt.NDArray[np.float32]:
    """Weights of the first layer as pictures, strongest first: `[K, H, W]` or `[K, H, W, 3]`.

    Raises:
        DataError: the first layer is neither a convolution nor a matrix on whole images.
    """
    weight = _first_weight(onnx.load_model_from_string(model.graph))
    sides: tuple[Any, ...] = model.card.inputs[0].shape[1:]
    if weight.ndim == 4:
        block = model.card.hyperparameters.get("unshuffle")
        pictures = _unfolded(weight, block) if block else weight.transpose(0, 2, 3, 1)
    elif (
        len(sides) == 3 and all(isinstance(side, int) for side in sides) and weight.shape[1] == np.prod(sides)
    ):
        pictures = weight.reshape(-1, sides[2], sides[0], sides[1]).transpose(0, 2, 3, 1)
    else:
        raise DataError(f"{model.card.label}: a first layer {weight.shape} has no filters to draw")
    if pictures.shape[3] != 3:
        pictures = pictures.mean(3)
    order = np.argsort(-np.square(pictures).reshape(len(pictures), -1).sum(1))
    strongest: npt.NDArray[np.float32] = pictures[order]
    return strongest


def _first_weight(graph: onnx.ModelProto) -> npt.NDArray[np.float32]:
    """Of the first Conv `[K, C, h, w]`, or of the first MatMul or Gemm as `[out, in]`."""
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in constants:
            weight = constants[node.input[1]].astype(np.float32)
            transposed = any(each.name == "transB" and each.i for each in node.attribute)
            return weight if node.op_type == "Conv" or transposed else weight.T
    raise DataError("the graph has no layer with weights of its own")


def _unfolded(weight: npt.NDArray[np.float32], block: int) -> npt.NDArray[np.float32]:
    """`[K, block*block*3 or more, h, w]` on the image folded by SpaceToDepth as on the image.

    What a network is told besides, after the folded image, is no part of a picture.

    Returns:
        `[K, block*h, block*w, 3]`.
    """
    filters, _, height, width = weight.shape
    split = weight[:, : 3 * block**2].reshape(filters, block, block, 3, height, width)
    return split.transpose(0, 4, 1, 5, 2, 3).reshape(filters, block * height, block * width, 3)
