"""ModelCard: the typed contract of one model version, stored as card.json beside model.onnx."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    model_validator,
)

CARD_SCHEMA: Literal[1] = 1

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tensor(_Strict):
    """An input or output of the graph; a string in `shape` names a dynamic side."""

    name: Text
    dtype: Literal["uint8", "float32"]
    shape: tuple[PositiveInt | Text, ...]


class TrainingData(_Strict):
    """A set of images the model was trained on; `images` is how many of them were used."""

    name: Text
    licence: Text
    images: PositiveInt


class Corruption(_Strict):
    """One corruption the model was trained to undo, its share (0..1) and its level ranges."""

    kind: Text
    share: Annotated[float, Field(gt=0, le=1)]
    levels: dict[str, Any]


class Metric(_Strict):
    """One row of the metric table: means over the images of `dataset`.

    PSNR is in dB, SSIM 0..1; `noisy` is the input, `restored` this model's output.
    """

    dataset: Text
    images: PositiveInt
    corruption: Text
    psnr_noisy: float
    psnr_restored: float
    ssim_noisy: float
    ssim_restored: float


class ModelCard(_Strict):
    """Everything known about one published version."""

    schema_version: Literal[1] = CARD_SCHEMA
    name: Name
    version: PositiveInt
    summary: Text
    task: Literal["denoise", "super-resolution", "encode", "decode"]
    sha256: Sha256
    architecture: Text
    hyperparameters: dict[str, Any]
    parameters: PositiveInt
    macs_per_pixel: NonNegativeFloat
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    colour: Literal["rgb", "gray"]
    scale: PositiveInt = 1
    alignment: PositiveInt
    tile_overlap: NonNegativeInt
    corruption: tuple[Corruption, ...]
    training_data: tuple[TrainingData, ...]
    training: dict[str, Any]
    seed: NonNegativeInt
    git_commit: Text
    libraries: dict[str, str]
    metrics: tuple[Metric, ...]
    limits: tuple[Text, ...]
    created: datetime

    @property
    def takes_strength(self) -> bool:
        return any(tensor.name == "strength" for tensor in self.inputs)

    @property
    def label(self) -> str:
        """`name/version`, as it stands in the X-Model header."""
        return f"{self.name}/{self.version}"

    @model_validator(mode="after")
    def _image_in_image_out(self) -> Self:
        if self.task != "decode" and self.inputs[:1] and self.inputs[0].name != "image":
            raise ValueError("the first input of the graph is `image`")
        if not self.inputs or not self.outputs:
            raise ValueError("a graph has at least one input and one output")
        return self
