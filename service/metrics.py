"""Every Prometheus series of the service; labels take few, known values only."""

import os
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.values import ValueClass

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


def model_totals(label: str) -> ModelTotals:
    """The totals of `name/version`, zeros for one that has done nothing."""
    registry = _registry()

    def total(series: str, labels: dict[str, str]) -> Total:
        count, sum = (registry.get_sample_value(series + suffix, labels) for suffix in ("_count", "_sum"))
        return Total(count or 0.0, sum or 0.0)

    stages = {
        stage: total("quietframe_stage_seconds", {"model": label, "stage": stage})
        for stage in ("decode", "queue", "infer", "encode")
    }
    answered = sum(
        registry.get_sample_value(
            "quietframe_requests_total", {"protocol": protocol, "model": label, "reason": "ok"}
        )
        or 0.0
        for protocol in ("http", "grpc")
    )
    return ModelTotals(answered, stages, total("quietframe_batch_size", {"model": label}))


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
