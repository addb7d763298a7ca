"""What is promised under load and at the end, seen from outside: a real server, real signals."""

import concurrent.futures
import contextlib
import gzip
import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import grpc
import httpx
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from PIL import Image

from model_store import ModelStore, StoredModel
from tests.conftest import Server, running_server, wait_until_ready
from tests.service.test_codec import file_of

Pixels = npt.NDArray[np.uint8]
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def frame(photo: Pixels) -> bytes:
    return file_of(Image.fromarray(photo), "jpeg")


def post(server: Server, data: bytes, **headers: str) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/denoise", content=data, timeout=60, headers=headers)


def sampled(server: Server, series: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(series))


def test_sigterm_under_load_loses_no_accepted_request(frame: bytes, soak: bool) -> None:
    for _ in range(20 if soak else 1):
        restart_under_load(frame)


def restart_under_load(frame: bytes) -> None:
    """Each client goes on until it is refused, as it would go on with another instance."""
    outcomes: Counter[int] = Counter()

    def client(server: Server) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as session:
            status = 200
            while status == 200:
                status = session.post("/v1/denoise", content=frame).status_code  # raises where it is cut
                outcomes[status] += 1

    # The delay is for load balancers, and here for a probe that a busy machine holds up.
    with running_server(DRAIN_DELAY_S="2") as server, concurrent.futures.ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(client, server) for _ in range(6)]
        while outcomes[200] < 6 and not any(each.done() for each in clients):
            time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
        assert httpx.get(f"{server.url}/readyz").status_code == 503
        for each in clients:
            each.result(timeout=30)
        assert server.process.wait(timeout=25) == 0
    assert outcomes[200] > 6
    assert outcomes[503] == 6


def test_expired_work_never_runs(frame: bytes, photo: Pixels) -> None:
    slow = file_of(Image.fromarray(np.tile(photo, (5, 3, 1))), "jpeg")
    with running_server() as server, concurrent.futures.ThreadPoolExecutor(14) as pool:
        holding = [pool.submit(post, server, slow) for _ in range(8)]
        time.sleep(0.4)
        hurried = [pool.submit(post, server, frame, **{"X-Request-Timeout": "0.2"}) for _ in range(6)]
        assert {each.result().status_code for each in hurried} == {504}
        assert {each.result().status_code for each in holding} == {200}
        assert sampled(server, "quietframe_batch_size_sum") == 8
        assert sampled(server, 'quietframe_requests_total{model="",protocol="http",reason="deadline"}') == 6
        assert post(server, frame, **{"X-Request-Timeout": "soon"}).status_code == 422


def test_cancelled_grpc_work_never_runs(photo: Pixels) -> None:
    slow = np.tile(photo, (5, 3, 1))[None]
    with running_server() as server, tritonclient.grpc.InferenceServerClient(server.grpc) as client:

        def infer(frames: Pixels, timeout: float | None = None) -> None:
            tensor = tritonclient.grpc.InferInput("image", list(frames.shape), "UINT8")
            tensor.set_data_from_numpy(frames)
            client.infer("frames-balanced", [tensor], client_timeout=timeout)

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            holding = [pool.submit(infer, slow) for _ in range(2)]
            time.sleep(0.4)
            with pytest.raises(tritonclient.utils.InferenceServerException, match="Deadline"):
                infer(photo[None], 0.2)
            for each in holding:
                each.result()
        assert sampled(server, "quietframe_batch_size_sum") == 2


def test_stalled_senders_keep_nobody_out(frame: bytes) -> None:
    with running_server(MAX_QUEUE_REQUESTS="8") as server, contextlib.ExitStack() as stack:
        head = b"POST /v1/denoise HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
        for _ in range(200):
            stalled = socket.create_connection(("127.0.0.1", server.port))
            stack.callback(stalled.close)
            stalled.sendall(head + bytes(100))
        time.sleep(0.3)
        for _ in range(5):
            assert post(server, frame).status_code == 200


def test_who_does_not_read_is_cut_off_and_costs_little(photo: Pixels) -> None:
    """A client that asks for a large answer and takes none does not keep it in memory for ever."""
    slow = file_of(Image.fromarray(np.tile(photo, (6, 4, 1))), "jpeg")
    path = "/v1/denoise?format=bmp&model=frames-fast"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(slow)}\r\n\r\n"
    with running_server(TIMEOUT_S="5") as server, socket.socket() as mute:
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        mute.connect(("127.0.0.1", server.port))
        mute.sendall(head.encode() + slow)
        wait_for(lambda: sampled(server, 'quietframe_requests_total{model="frames-fast') == 1)
        time.sleep(6)
        mute.settimeout(10)
        received = 0
        while chunk := mute.recv(2**20):
            received += len(chunk)
    assert 100_000 < received < 6_000_000  # of 9.7 MB: what the kernel had taken


def test_the_bytes_of_bodies_are_bounded(frame: bytes) -> None:
    with (
        running_server(MAX_BUFFERED_BYTES="2000000", MAX_BODY_BYTES="1500000") as server,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(2):
            sender = socket.create_connection(("127.0.0.1", server.port))
            stack.callback(sender.close)
            sender.sendall(b"POST /v1/denoise HTTP/1.1\r\nHost: x\r\nContent-Length: 1500000\r\n\r\n")
            sender.sendall(bytes(990_000))
        time.sleep(0.5)
        assert post(server, frame).status_code == 429


def test_a_killed_worker_comes_back_and_the_other_serves(frame: bytes) -> None:
    with running_server(WORKERS="2") as server:
        workers = children(server.process.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        answers = Counter[int]()
        begun = time.monotonic()
        while len(children(server.process.pid)) < 2 or workers[0] in children(server.process.pid):
            with contextlib.suppress(httpx.TransportError):  # a connection the dead worker had taken
                answers[post(server, frame).status_code] += 1
            assert time.monotonic() - begun < 15
        assert answers[200] > 0
        assert set(answers) == {200}
        wait_until_ready(server.port, server.process)


def children(pid: int) -> list[int]:
    """The worker processes of a supervisor."""
    done = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line.split()[0]) for line in done.stdout.splitlines() if "worker" in line]


def test_tokens_are_asked_for_over_both_protocols(frame: bytes, photo: Pixels) -> None:
    with running_server(TOKENS=f'["{TOKEN}", "another-token-of-ours"]') as server:
        assert post(server, frame, Authorization=f"Bearer {TOKEN}").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
            refused = post(server, frame, **headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
        for path in ("/v1/models", "/v2", "/v2/models/frames-balanced", "/metrics"):
            assert httpx.get(server.url + path).status_code == 401
        for path in ("/livez", "/readyz", "/v2/health/ready", "/docs"):
            assert httpx.get(server.url + path).status_code == 200
        described = httpx.get(f"{server.url}/openapi.json").json()
        assert described["paths"]["/v1/denoise"]["post"]["security"] == [{"HTTPBearer": []}]
        with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
            with pytest.raises(tritonclient.utils.InferenceServerException, match="Bearer"):
                client.get_server_metadata()
            allowed = {"authorization": f"Bearer {TOKEN}"}
            assert client.get_server_metadata(allowed).name == "quietframe"


def test_tls_for_both_protocols(tmp_path: Path, frame: bytes) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    with running_server(TLS_CERT=str(cert), TLS_KEY=str(key)) as server:
        context = ssl.create_default_context(cafile=str(cert))
        answer = httpx.post(
            f"https://127.0.0.1:{server.port}/v1/denoise", content=frame, verify=context, timeout=60
        )
        assert answer.status_code == 200
        credentials = grpc.ssl_channel_credentials(cert.read_bytes())
        with grpc.secure_channel(f"localhost:{server.grpc_port}", credentials) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert health.Check(health_pb2.HealthCheckRequest()).status == 1


def test_models_are_changed_while_serving(tmp_path: Path, frame: bytes, shipped: StoredModel) -> None:
    store = ModelStore(tmp_path)

    def publish(version: int) -> None:
        card = shipped.card.model_copy(update={"version": version, "variants": ()})
        store.publish(card, shipped.read_verified(), {})

    publish(1)
    with running_server(MODEL_STORE=str(tmp_path), POLL_MODELS_S="0.2", MODEL_CONTROL="true") as server:
        assert post(server, frame).headers["x-model"] == "frames-balanced/1"
        publish(2)
        wait_for(lambda: post(server, frame).headers["x-model"] == "frames-balanced/2")
        shutil.rmtree(tmp_path / "frames-balanced" / "1")
        publish(3)
        (tmp_path / "frames-balanced" / "3" / "model.onnx").write_bytes(b"broken")
        wait_for(lambda: sampled(server, "quietframe_model_refusals_total") > 0 or None)
        control = f"{server.url}/v2/repository/models/frames-balanced"
        assert httpx.post(f"{control}/load", timeout=60).status_code in (200, 503)
        assert post(server, frame).status_code == 200
        (tmp_path / "frames-balanced" / "3" / "card.json").write_text("{}")
        card = httpx.get(f"{server.url}/v1/models/frames-balanced").json()
        assert card["version"] == 2
        assert httpx.post(f"{control}/unload").status_code == 200
        assert post(server, frame).status_code == 404


def wait_for(seen: Callable[[], object]) -> None:
    for _ in range(300):
        if seen():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within thirty seconds")


def test_requests_have_names_and_a_line_in_the_log(frame: bytes, tmp_path: Path) -> None:
    with running_server(output=tmp_path / "log") as server:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        named = post(server, frame, **{"X-Request-ID": "camera-7/42", "traceparent": trace})
        assert named.headers["x-request-id"] == "camera-7/42"
        evil = post(server, b"no image", **{"X-Request-ID": "x" * 500})
        assert len(evil.headers["x-request-id"]) == 32
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
    posts = [line for line in lines if line["method"] == "POST /v1/denoise"]
    assert [(line["status"], line["reason"]) for line in posts] == [(200, "ok"), (422, "bad-image")]
    assert posts[0]["request_id"] == "camera-7/42"
    assert posts[0]["trace_id"] == "0af7651916cd43dd8448eb211c80319c"


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes traces by OTLP over HTTP."""

    spans: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.spans.extend(span for scope in resource.scope_spans for span in scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None: ...


def test_traces_are_sent_where_an_exporter_is_configured(
    frame: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        with running_server() as server:
            trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            assert post(server, frame, traceparent=trace).status_code == 200
        collector.shutdown()
    ours = [span for span in Collector.spans if span.trace_id.hex() == trace.split("-")[1]]
    root = next(span for span in ours if span.name == "POST /v1/denoise")
    assert root.parent_span_id.hex() == "b7ad6b7169203331"
    stages = [span for span in ours if span.parent_span_id == root.span_id]
    assert [span.name for span in sorted(stages, key=lambda span: span.start_time_unix_nano)] == [
        "decode",
        "queue",
        "infer",
        "encode",
    ]
