"""Every Prometheus series of the service; labels take few, known values only."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import ValueClass

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

REQUESTS = Counter(
    "quietframe_requests",
    "Answered requests by model and reason; reason is `ok` or that of the error",
    ["model", "reason"],
)
STAGE_SECONDS = Histogram(
    "quietframe_stage_seconds",
    "Time of a successful request in each stage: decode, queue, infer, encode",
    ["stage"],
    buckets=_SECONDS,
)
BATCH_SIZE = Histogram(
    "quietframe_batch_size", "Images that ran together", buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
PENDING_REQUESTS = Gauge(
    "quietframe_pending_requests", "Requests admitted and not answered", multiprocess_mode="livesum"
)
PENDING_PIXELS = Gauge("quietframe_pending_pixels", "Pixels of the same", multiprocess_mode="livesum")


def exposition() -> bytes:
    """All series in Prometheus text format, summed over the workers where there are several."""
    if ValueClass.__name__ == "MutexValue":
        return generate_latest()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)
