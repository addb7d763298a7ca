"""Every knob of the service: name, default, unit and validation side by side.

Each is set by the environment variable QUIETFRAME_<NAME>, e.g. QUIETFRAME_PORT=8080.
"""

import difflib
import ipaddress
import os
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from model_store import default_root
from service.errors import StartError
from service.precision import PrecisionChoice

ImageFormat = Literal["jpeg", "png", "webp", "bmp", "tiff"]
_PREFIX = "QUIETFRAME_"
_OF_OTHERS = frozenset({"CLIENT_TOKEN", "DATA_DIR"})  # of `quietframe video`, of training
# What Kubernetes gives every pod beside a service whose name begins with ours, such as quietframe-night.
_SERVICE_LINK = re.compile(r"(.+_)?(PORT_\d+_.+|SERVICE_(HOST|PORT).*)=.*|.+_PORT=(tcp|udp|sctp)://.+")
_SHORTEST_TOKEN = 16
_EXAMPLES = {"formats": '["jpeg", "png"]', "tokens": '["the output of openssl rand -hex 32"]'}


class _Environment(EnvSettingsSource):
    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Leaves what is no JSON to validation, which names every wrong variable and not only the first."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", description="IP address to listen on; 0.0.0.0 for every interface")
    port: int = Field(3000, ge=1, le=65535, description="HTTP port")
    grpc_port: int = Field(3001, ge=0, le=65535, description="gRPC port; 0 switches gRPC off")
    grpc_connection_age_s: float = Field(
        0.0,
        ge=0,
        le=86400,
        description="end gRPC connections after about this long, seconds, that clients may find new replicas;"
        " calls and streams that are open go on; 0 never",
    )
    workers: int = Field(1, ge=1, le=64, description="processes; each loads the models")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes CUDA where it works, else the CPU; cuda fails where it does not"
    )
    precision: PrecisionChoice = Field(
        "auto",
        description="auto takes the fastest that the model has and the CPU or GPU is made for",
    )
    threads: int = Field(
        0, ge=0, le=256, description="cores one inference uses; 0 shares all between the workers"
    )
    lanes: int = Field(
        0, ge=0, le=64, description="inferences at once, each worker; 0 is one for each core, up to four"
    )
    model_store: Path = Field(default_factory=default_root, description="folder of published models")
    default_model: str = Field("frames-balanced", description="model of requests that name none")
    gray_model: str | None = Field(
        None,
        description="model of gray images where none is named, such as frames-camera for cameras at night",
    )
    max_models: int = Field(
        4, ge=2, description="models in memory at once, each worker; the least recently used make room"
    )
    formats: frozenset[ImageFormat] = Field(
        frozenset({"jpeg", "png", "webp", "bmp", "tiff"}), description="accepted file formats, a JSON list"
    )
    max_body_bytes: int = Field(20 * 2**20, ge=1024, description="largest request body, bytes")
    max_pixels: int = Field(50_000_000, ge=1, description="largest image, pixels")
    max_side: int = Field(16384, ge=1, le=65535, description="longest side of an image, pixels")
    max_buffered_bytes: int = Field(
        256 * 2**20,
        ge=1024,
        description="bytes of request bodies and unread answers held at once, each worker",
    )
    max_queue_requests: int = Field(
        256, ge=1, description="requests admitted at once, and gRPC streams open, each worker"
    )
    max_queue_pixels: int = Field(
        200_000_000, ge=1, description="pixels admitted at once, each worker; one image always fits"
    )
    max_queue_wait_s: float = Field(
        10.0, gt=0, le=3600, description="refuse what would wait longer than this for its turn, seconds"
    )
    max_tile_pixels: int = Field(
        2_400_000, ge=65536, description="larger frames are run in overlapping tiles of at most this"
    )
    max_batch_pixels: int = Field(
        131_072, ge=0, description="images of one shape run together up to this many pixels"
    )
    max_queue_delay_ms: float = Field(
        0.0, ge=0, le=1000, description="wait this long for a fuller batch; for GPUs"
    )
    stream_window: int = Field(4, ge=1, le=64, description="frames of one stream in flight")
    timeout_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="seconds from the last byte in to the first out, clients may ask for less; as many for a"
        " body to arrive, and for an HTTP answer to be taken",
    )
    grace_s: float = Field(30.0, gt=0, le=3600, description="seconds accepted work has after SIGTERM")
    drain_delay_s: float = Field(
        0.5, ge=0, le=20, description="seconds between going not ready and closing, for load balancers"
    )
    poll_models_s: float = Field(
        0.0, ge=0, le=86400, description="look for new model versions this often, seconds; 0 never"
    )
    model_control: bool = Field(
        False, description="whether clients may load and unload models over /v2 and gRPC"
    )
    tokens: frozenset[SecretStr] = Field(
        frozenset(), description="bearer tokens, a JSON list; one is then needed for all but health"
    )
    tls_cert: Path | None = Field(None, description="PEM certificate chain; HTTP and gRPC then speak TLS")
    tls_key: Path | None = Field(None, description="PEM private key of that certificate")
    access_log: bool = Field(True, description="one JSON line on standard output for each request")
    jpeg_quality: int = Field(90, ge=1, le=100, description="JPEG and WebP quality when none is asked for")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments before the environment, and no other source."""
        return init_settings, _Environment(settings_cls)

    @field_validator("host")
    @classmethod
    def _an_address(cls, host: str) -> str:
        return str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host))

    @field_validator("model_store")
    @classmethod
    def _from_any_folder(cls, store: Path) -> Path:
        return _from_home(store).resolve()  # workers run in a folder of their own

    @field_validator("tls_cert", "tls_key")
    @classmethod
    def _still_a_link(cls, file: Path | None) -> Path | None:
        """Absolute for the same reason, but not resolved: to renew is to point the link elsewhere."""
        return file and _from_home(file).absolute()

    @field_validator("tokens")
    @classmethod
    def _long_enough(cls, tokens: frozenset[SecretStr]) -> frozenset[SecretStr]:
        if any(len(token.get_secret_value()) < _SHORTEST_TOKEN for token in tokens):
            raise ValueError(f"a token has at least {_SHORTEST_TOKEN} characters; try `openssl rand -hex 32`")
        return tokens

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.drain_delay_s > self.grace_s:
            raise ValueError("drain_delay_s is part of grace_s and cannot be longer")
        if self.max_body_bytes > self.max_buffered_bytes:
            raise ValueError("max_buffered_bytes is for several bodies; make it at least max_body_bytes")
        if self.model_control and self.workers > 1:
            raise ValueError("model_control reaches one worker only; set workers=1, or use poll_models_s")
        if self.port == self.grpc_port:
            raise ValueError(
                f"port and grpc_port are both {self.port}; set another QUIETFRAME_GRPC_PORT, or 0 for no gRPC"
            )
        return self

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together; set both or none")
        for file in (self.tls_cert, self.tls_key):
            if file and not file.is_file():
                raise ValueError(f"{file} is not a file")
        return self

    @property
    def threads_per_worker(self) -> int:
        """Cores each worker's inference may use, at least one."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) // self.workers)

    @property
    def lanes_per_worker(self) -> int:
        """Up to four by itself: each lane may hold the activations of a whole tile."""
        return self.lanes or min(4, self.threads_per_worker)


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        StartError: a variable has an impossible value, or is none of ours (each named).
    """
    troubles = _unknown()
    try:
        settings = Settings()
    except ValidationError as error:
        troubles += map(_spelled, error.errors())
    if troubles:
        raise StartError("; ".join(troubles))
    return settings


def _unknown() -> list[str]:
    """What is misspelled: the service would start without it, and it may have been meant for its tokens."""
    known = {*map(str.upper, Settings.model_fields), *_OF_OTHERS}
    given = {name: value for name, value in os.environ.items() if name.upper().startswith(_PREFIX)}
    troubles = []
    for name, value in given.items():
        bare = name.upper().removeprefix(_PREFIX)
        if bare not in known and not _SERVICE_LINK.fullmatch(f"{bare}={value}"):
            close = difflib.get_close_matches(bare, known, 1)
            hint = f"did you mean {_PREFIX}{close[0]}?" if close else "service/settings.py has them all"
            troubles.append(f"{name}: no such setting; {hint}")
    return troubles


def _from_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:  # which pydantic does not take for the value's fault
        raise ValueError(f"{path}: {error}") from None


def _spelled(problem: Any) -> str:
    """One line that does not show the value, which may be a token."""
    fields = problem["loc"][:1]
    name = "".join(f"{_PREFIX}{each.upper()}: " for each in fields)
    if problem["type"] == "frozen_set_type":
        return f"{name}not a JSON list; write {_EXAMPLES[fields[0]]}"
    return f"{name}{problem['msg']}"
