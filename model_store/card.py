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


Precision = Literal["fp32", "int8", "bf16", "fp16"]
# Points are no image: the plane of the toy data, not a picture.
Task = Literal["denoise", "denoise-points", "super-resolution", "encode", "decode"]


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
    """One corruption the model was trained to undo, its share (0..1) and the ranges of its levels.

    The range of a level is [lowest, highest], or one number, in the unit of its name: `sigma` in levels of
    255, `amount` a share of the pixels (0..1), `quality` that of JPEG, `photons` and `peak` photons at
    white, `read` electrons. The levels of a `sequence` are those of its `steps`.
    """

    kind: Text
    share: Annotated[float, Field(gt=0, le=1)]
    levels: dict[str, Any]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Kind and levels of what is done one after the other: of a sequence its steps, else this alone."""
        match self.levels.get("steps"):
            case [*steps]:
                return [step for step in steps if isinstance(step, dict)]
        return [{**self.levels, "kind": self.kind}]


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


class Variant(_Strict):
    """The same network in another precision: int8 and fp16 are further files, with hashes of their own.

    bf16 is model.onnx itself, rounded where it runs (`providers`); being measured is what makes it a variant.
    `psnr_loss` is in dB against model.onnx, by data set and corruption; `speed_ratio` how many times as
    fast it is, on the machine named in `measured_on`.
    """

    precision: Literal["int8", "bf16", "fp16"]
    sha256: Sha256
    psnr_loss: dict[str, float]
    speed_ratio: float
    measured_on: Text


class ModelCard(_Strict):
    """Everything known about one published version.

    `corruption` is what it was trained on: beyond those ranges it has not learned to denoise. `figures`
    are measurements that are no row of `metrics`, by name and unit. `sha256` is that of model.onnx,
    which is float32.
    """

    schema_version: Literal[1] = CARD_SCHEMA
    name: Name
    version: PositiveInt
    summary: Text
    task: Task
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
    figures: dict[str, float] = {}
    variants: tuple[Variant, ...] = ()
    limits: tuple[Text, ...]
    created: datetime

    @property
    def hashes(self) -> dict[Precision, str]:
        """The sha256 of the file of each precision."""
        return {"fp32": self.sha256, **{each.precision: each.sha256 for each in self.variants}}

    @property
    def takes_strength(self) -> bool:
        return any(tensor.name == "strength" for tensor in self.inputs)

    @property
    def takes_image(self) -> bool:
        """Whether pixels go in: else a code or points, float32 `[N, k]`."""
        return self.inputs[0].name == "image"

    @property
    def gives_image(self) -> bool:
        """Whether pixels come out: else a code or points, float32 `[N, k]`."""
        return self.outputs[0].dtype == "uint8"

    @property
    def label(self) -> str:
        """`name/version`, as it stands in the X-Model header."""
        return f"{self.name}/{self.version}"

    @property
    def trained_sigma(self) -> tuple[float, float] | None:
        """The white noise it was trained on, lowest and highest standard deviation in levels of 255."""
        found = []
        for step in (step for each in self.corruption for step in each.steps):
            match step:
                case {"kind": "gaussian", "sigma": [int() | float() as low, int() | float() as high]}:
                    found.append((low, high))
                case {"kind": "gaussian", "sigma": int() | float() as level}:
                    found.append((level, level))
        return (min(low for low, _ in found), max(high for _, high in found)) if found else None

    @model_validator(mode="after")
    def _image_in_image_out(self) -> Self:
        if not self.inputs or not self.outputs:
            raise ValueError("a graph has at least one input and one output")
        if self.takes_image == (self.task in ("decode", "denoise-points")):
            raise ValueError("the first input of the graph is `image`, unless it decodes or takes points")
        return self
