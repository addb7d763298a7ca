"""Every knob of the service: name, default, unit and validation side by side.

Each is set by the environment variable QUIETFRAME_<NAME>, e.g. QUIETFRAME_PORT=8080.
"""

import ipaddress
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model_store import default_root
from service.errors import StartError

ImageFormat = Literal["jpeg", "png", "webp", "bmp", "tiff"]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="QUIETFRAME_", extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", description="IP address to listen on; 0.0.0.0 for every interface")
    port: int = Field(3000, ge=1, le=65535, description="HTTP port")
    workers: int = Field(1, ge=1, le=64, description="processes; each loads the models")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes CUDA where it works, else the CPU; cuda fails where it does not"
    )
    threads: int = Field(
        0, ge=0, le=256, description="cores one inference uses; 0 shares all between the workers"
    )
    model_store: Path = Field(default_factory=default_root, description="folder of published models")
    default_model: str = Field("frames-balanced", description="model of requests that name none")
    formats: frozenset[ImageFormat] = Field(
        frozenset({"jpeg", "png", "webp", "bmp", "tiff"}), description="accepted file formats, a JSON list"
    )
    max_body_bytes: int = Field(20 * 2**20, ge=1024, description="largest request body, bytes")
    max_pixels: int = Field(50_000_000, ge=1, description="largest image, pixels")
    max_side: int = Field(16384, ge=1, le=65535, description="longest side of an image, pixels")
    max_queue_requests: int = Field(256, ge=1, description="requests admitted at once, each worker")
    max_queue_pixels: int = Field(
        200_000_000, ge=1, description="pixels admitted at once, each worker; one image always fits"
    )
    max_tile_pixels: int = Field(
        2_400_000, ge=65536, description="larger frames are run in overlapping tiles of at most this"
    )
    max_batch_pixels: int = Field(
        131_072, ge=0, description="images of one shape run together up to this many pixels"
    )
    timeout_s: float = Field(
        30.0, gt=0, le=3600, description="seconds from the last byte in to the first out"
    )
    jpeg_quality: int = Field(90, ge=1, le=100, description="JPEG and WebP quality when none is asked for")

    @field_validator("host")
    @classmethod
    def _an_address(cls, host: str) -> str:
        return str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host))

    @field_validator("model_store")
    @classmethod
    def _from_any_folder(cls, store: Path) -> Path:
        return store.expanduser().resolve()  # workers run in a folder of their own

    @property
    def threads_per_worker(self) -> int:
        """Cores each worker's inference may use, at least one."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) // self.workers)


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        StartError: a variable has an impossible value (each named).
    """
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"QUIETFRAME_{str(each['loc'][0]).upper()}: {each['msg']}" for each in error.errors()
        )
        raise StartError(wrong) from None
