"""OpenTelemetry traces, where an exporter is configured by OpenTelemetry's own variables."""

import os
import time
from functools import cache
from importlib.util import find_spec

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from service.errors import StartError

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


@cache
def tracer() -> trace.Tracer:
    """Sends spans by OTLP over HTTP, or does nothing where no endpoint is set.

    Raises:
        StartError: an endpoint is set, and the exporter is not installed.
    """
    provider = _provider()
    return provider.get_tracer("quietframe") if provider else trace.NoOpTracer()


def trace_stages(seconds: dict[str, float]) -> None:
    """Spans for the stages of a request, which have just followed one another."""
    end = time.time_ns()
    for stage in reversed(seconds):
        begin = end - int(seconds[stage] * 1e9)
        tracer().start_span(stage, start_time=begin).end(end)
        end = begin


def stop_tracing() -> None:
    """Send what has not been sent; blocks."""
    if provider := _provider():
        provider.shutdown()


def check_tracing() -> None:
    """Raises StartError where an endpoint is set and the exporter is not installed."""
    if _is_wanted() and not find_spec("opentelemetry.exporter.otlp.proto.http"):
        raise StartError(f"{_ENDPOINTS[1]} is set; traces need quietframe[otel]")


def _is_wanted() -> bool:
    return any(os.environ.get(variable) for variable in _ENDPOINTS)


@cache
def _provider() -> TracerProvider | None:
    if not _is_wanted():
        return None
    check_tracing()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    name = os.environ.get("OTEL_SERVICE_NAME", "quietframe")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
