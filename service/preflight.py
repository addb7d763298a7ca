"""What would fail in a worker, again and again, fails before it starts: once, and readably."""

import socket
import ssl

from model_store import ModelStore
from service.errors import StartError
from service.settings import Settings


def check_ports(settings: Settings) -> None:
    """Raises StartError where something else listens on one of ours."""
    _check_port_is_free(settings.host, settings.port, "--port")
    if settings.grpc_port:
        _check_port_is_free(settings.host, settings.grpc_port, "--grpc-port")


def check_certificate(settings: Settings) -> None:
    """Raises StartError where certificate and key cannot be read, or do not belong together."""
    if not (settings.tls_cert and settings.tls_key):
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Without a password OpenSSL would ask for it.
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise StartError(
            f"QUIETFRAME_TLS_CERT {settings.tls_cert} and QUIETFRAME_TLS_KEY {settings.tls_key} cannot be"
            f" used: {reason}; give a PEM certificate and its own key, not encrypted"
        ) from None


def check_model(settings: Settings) -> None:
    """Raises StartError or StoreError where the default model, or that of gray images, cannot be loaded."""
    from service.engines import Engines

    engines = Engines(
        ModelStore(settings.model_store),
        settings.default_model,
        settings.device,
        settings.threads_per_worker,
        precision=settings.precision,
    )
    if settings.gray_model:
        card = engines.load(settings.gray_model).card
        if card.task != "denoise":
            raise StartError(
                f"QUIETFRAME_GRAY_MODEL {card.label} does {card.task}; name one that cleans images, or none"
            )


def _check_port_is_free(host: str, port: int, option: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise StartError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another {option}"
        ) from None
