"""Every Prometheus series of the service; labels take few, known values only."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.values import ValueClass

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
_STAGES = ("decode", "queue", "infer", "encode")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

REQUESTS = Counter(
    "quietframe_requests",
    "Answered requests by protocol, model and reason; reason is `ok` or that of the error",
    ["protocol", "model", "reason"],
)
STAGE_SECONDS = Histogram(
    "quietframe_stage_seconds",
    "Time of a successful request in each stage: decode, queue, infer, encode",
    ["model", "stage"],
    buckets=_SECONDS,
)
BATCH_SIZE = Histogram(
    "quietframe_batch_size",
    "Images (or tiles) that ran together",
    ["model"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
PENDING_REQUESTS = Gauge(
    "quietframe_pending_requests", "Requests admitted and not answered", multiprocess_mode="livesum"
)
PENDING_PIXELS = Gauge("quietframe_pending_pixels", "Pixels of the same", multiprocess_mode="livesum")
MODEL_LOADED = Gauge(
    "quietframe_model_loaded",
    "1 for each model version in memory, by device and precision; 0 for one that was",
    ["model", "version", "device", "precision"],
    multiprocess_mode="livemax",
)
MODEL_REFUSALS = Counter(
    "quietframe_model_refusals", "Model versions that could not be loaded and were passed over", ["model"]
)


@dataclass(frozen=True)
class Total:
    """Count and sum of a histogram."""

    count: float
    sum: float


@dataclass(frozen=True)
class ModelTotals:
    """What one model version has done since the service started, in all workers."""

    answered: float  # requests; of each there may be several images in `stages`
    stages: dict[str, Total]
    batches: Total


def exposition() -> bytes:
    """All series in Prometheus text format, summed over the workers where there are several."""
    return generate_latest(_registry())


def model_totals(labels: Sequence[str]) -> list[ModelTotals]:
    """The totals of each `name/version`, zeros for one that has done nothing; all series are read once."""
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in _registry().collect()
        for sample in family.samples
    }
    return [_totals(samples, label) for label in labels]


def _totals(samples: Samples, label: str) -> ModelTotals:
    def value(series: str, **labels: str) -> float:
        return samples.get((series, frozenset({"model": label, **labels}.items())), 0.0)

    def total(series: str, **labels: str) -> Total:
        return Total(value(f"{series}_count", **labels), value(f"{series}_sum", **labels))

    return ModelTotals(
        sum(value("quietframe_requests_total", protocol=each, reason="ok") for each in ("http", "grpc")),
        {each: total("quietframe_stage_seconds", stage=each) for each in _STAGES},
        total("quietframe_batch_size"),
    )


def _registry() -> CollectorRegistry:
    if ValueClass.__name__ == "MutexValue":
        return REGISTRY
    _forget_dead_workers(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return registry


def _forget_dead_workers(folder: Path) -> None:
    """What a killed worker had inside is not pending any more; nobody else tidies up after it."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid, str(folder))
