"""MNIST and Fashion-MNIST: from a folder of their IDX files, or downloaded once by checksum."""

import gzip
import hashlib
import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pooch

from training.corruption import Photo
from training.errors import DataError

DATA_DIR = "QUIETFRAME_DATA_DIR"
_UNSIGNED_BYTE = 0x08
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """A data set: where its files are, the sha256 of each, and who has to be named.

    Args:
        mirrors: URLs that a file's name is appended to, tried in this order.
    """

    title: str
    licence: str
    mirrors: tuple[str, ...]
    sha256: dict[str, str]


TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
SOURCES = {
    "mnist": Source(
        "MNIST (LeCun, Cortes, Burges)",
        "none stated by its authors; CC BY-SA 3.0 as usually quoted",
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        {
            TRAIN_IMAGES: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            TRAIN_LABELS: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            TEST_IMAGES: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            TEST_LABELS: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
    ),
    "fashion-mnist": Source(
        "Fashion-MNIST (Zalando SE, Xiao, Rasul, Vollgraf 2017)",
        "MIT",
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        {
            TRAIN_IMAGES: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            TRAIN_LABELS: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            TEST_IMAGES: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            TEST_LABELS: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
    ),
}


@dataclass(frozen=True)
class Digits:
    """Images, uint8 `[n, side, side, 1]`, and their classes, uint8 `[n]` of 0..9."""

    images: Photo
    labels: Labels


def load(name: str, split: str, side: int, data_dir: Path | None = None) -> Digits:
    """Read the `train` or `test` half of a data set, downloading it first if that is called for.

    Args:
        side: 28, or 32 for a border of two black pixels.
        data_dir: folder that holds NAME/*.gz; else that of QUIETFRAME_DATA_DIR; else a cache.

    Raises:
        DataError: a file is missing, corrupt or cannot be downloaded; it is named with its checksum.
    """
    names = (TRAIN_IMAGES, TRAIN_LABELS) if split == "train" else (TEST_IMAGES, TEST_LABELS)
    folder = chosen_folder(name, data_dir)
    if folder is None:
        images, labels = (read_idx(fetch(name, file, cache_folder(name))) for file in names)
    else:
        images, labels = (read_idx(check(name, file, folder)) for file in names)
    border = (side - images.shape[1]) // 2
    padded = np.pad(images, ((0, 0), (border, border), (border, border)))
    return Digits(padded[..., None], labels)


def chosen_folder(name: str, data_dir: Path | None) -> Path | None:
    """The folder to read from, or None where a download to the cache is wanted."""
    chosen = data_dir or os.environ.get(DATA_DIR)
    return Path(chosen) / name if chosen else None


def cache_folder(name: str) -> Path:
    return Path(pooch.os_cache("quietframe")) / name


def fetch(name: str, file: str, folder: Path) -> Path:
    """Download one file into `folder`, from the first mirror that has it; a good one is left alone.

    Raises:
        DataError: no mirror gives it.
    """
    trouble = []
    for mirror in SOURCES[name].mirrors:
        try:
            known = f"sha256:{SOURCES[name].sha256[file]}"
            return Path(pooch.retrieve(mirror + file, known, file, folder))
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a ValueError
            trouble.append(f"{mirror}: {error}")
    raise DataError(
        f"{name}/{file} (sha256 {SOURCES[name].sha256[file]}) cannot be downloaded; get it by other means"
        f" and pass its folder with --data-dir or {DATA_DIR}\n  " + "\n  ".join(trouble)
    )


def check(name: str, file: str, folder: Path) -> Path:
    """The file in `folder`, if it is the published one.

    Raises:
        DataError: it is missing, incomplete or corrupt; with the checksum that it should have.
    """
    path, expected = folder / file, SOURCES[name].sha256[file]
    if (found := state(path, expected)) != "ok":
        raise DataError(
            f"{path} is {found}; expected is sha256 {expected}; `python -m training data fetch` downloads it"
        )
    return path


def state(path: Path, expected: str) -> str:
    """`ok`, `missing`, or `corrupt`: there, but not the file of that sha256, or not all of it."""
    if not path.is_file():
        return "missing"
    return "ok" if hashlib.sha256(path.read_bytes()).hexdigest() == expected else "corrupt"


def read_idx(path: Path) -> Photo:
    """A gzipped IDX file of unsigned bytes (yann.lecun.com/exdb/mnist), uint8 of its shape.

    Raises:
        DataError: it is not one.
    """
    try:
        content = gzip.decompress(path.read_bytes())
        zeros, kind, dimensions = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path} is no gzipped IDX file: {error}") from None
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if (zeros, kind) != (0, _UNSIGNED_BYTE) or values.size != math.prod(shape):
        raise DataError(f"{path} is no IDX file of unsigned bytes, or not all of one")
    return values.reshape(shape).copy()  # torch wants to be able to write
