"""Settings that are possible each, and not together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.errors import StartError
from service.settings import Settings, load_settings
from tests.service.test_cli import quietframe

PORTS = st.integers(1, 65535)


@given(PORTS, PORTS)
def test_http_and_grpc_need_a_port_each(port: int, other: int) -> None:
    assert Settings(port=port, grpc_port=0).grpc_port == 0
    for grpc_port in {port, other}:
        if grpc_port == port:
            with pytest.raises(ValidationError, match="set another QUIETFRAME_GRPC_PORT, or 0"):
                Settings(port=port, grpc_port=grpc_port)
        else:
            assert Settings(port=port, grpc_port=grpc_port).grpc_port == grpc_port


def test_serve_on_the_port_of_grpc_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUIETFRAME_GRPC_PORT", raising=False)
    done = quietframe("serve", "--port", 3001, "--store", "absent")  # so that it could not start anyway
    assert done.returncode == 1
    assert "port and grpc_port are both 3001; set another QUIETFRAME_GRPC_PORT, or 0" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_misspelled_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT_3000_TCP_ADDR", "SERVICE_HOST", "NIGHT_SERVICE_PORT_HTTP", "NIGHT_PORT_3000_TCP"):
        monkeypatch.setenv(f"QUIETFRAME_{name}", "10.0.0.1")  # Kubernetes has given it
    monkeypatch.setenv("QUIETFRAME_NIGHT_PORT", "tcp://10.0.0.1:3000")
    monkeypatch.setenv("quietframe_max_side", "100")
    assert load_settings().max_side == 100
    monkeypatch.setenv("QUIETFRAME_TOKEN", "of a clear mind and 16 characters")
    monkeypatch.setenv("QUIETFRAME_HTTP_PORT", "8080")
    monkeypatch.setenv("QUIETFRAME_PORT", "0")
    with pytest.raises(StartError) as error:
        load_settings()
    for said in ("did you mean QUIETFRAME_TOKENS?", "QUIETFRAME_HTTP_PORT: no such", "PORT: Input should be"):
        assert said in str(error.value)
    for left_out in ("mind", "NIGHT"):
        assert left_out not in str(error.value)
