"""A real server on a real port, and what strangers may send it."""

import concurrent.futures
import contextlib
import gzip
import io
import socket
import time
from collections.abc import Iterator

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from model_store import StoredModel
from tests.conftest import SHARED, Server, running_server
from tests.service.test_codec import claims, file_of

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def noisy(photo: Pixels) -> Pixels:
    noise = np.random.default_rng(0).normal(0, 25, photo.shape)
    return np.clip(np.rint(photo + noise), 0, 255).astype(np.uint8)


def png(pixels: Pixels) -> bytes:
    return file_of(Image.fromarray(pixels), "png")


def pixels_of(response: httpx.Response) -> Pixels:
    assert response.status_code == 200, response.text
    with Image.open(io.BytesIO(response.content)) as image:
        return np.asarray(image)


def assert_problem(response: httpx.Response, status: int, reason: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["type"] == f"urn:quietframe:{reason}"
    assert body["detail"]
    assert "Traceback" not in response.text


def test_a_noisy_photograph_comes_back_clean(client: httpx.Client, photo: Pixels, noisy: Pixels) -> None:
    clean = pixels_of(client.post("/v1/denoise", content=png(noisy)))
    assert clean.shape == photo.shape
    before, after = (peak_signal_noise_ratio(photo, image) for image in (noisy, clean))
    assert after > before + 8


def test_the_answer_says_who_made_it_and_how_long_it_took(client: httpx.Client, noisy: Pixels) -> None:
    headers = client.post("/v1/denoise", content=png(noisy[:64, :64])).headers
    assert headers["x-model"].startswith("frames-balanced/")
    assert headers["vary"] == "Accept"
    stages = [part.split(";dur=") for part in headers["server-timing"].split(", ")]
    assert [name for name, _ in stages] == ["decode", "queue", "infer", "encode"]
    assert all(float(milliseconds) >= 0 for _, milliseconds in stages)


def test_multipart_and_raw_give_the_same_pixels(client: httpx.Client, noisy: Pixels) -> None:
    data = png(noisy[:90, :70])
    raw = client.post("/v1/denoise", content=data)
    form = client.post("/v1/denoise", files={"image": ("anything.jpg", data)})
    assert raw.content == form.content


def test_output_format_by_query_then_accept_then_input(client: httpx.Client, noisy: Pixels) -> None:
    data = file_of(Image.fromarray(noisy[:40, :40]), "bmp")
    asked = client.post("/v1/denoise?format=webp", content=data, headers={"Accept": "image/png"})
    accepted = client.post("/v1/denoise", content=data, headers={"Accept": "image/png"})
    same = client.post("/v1/denoise", content=data)
    types = [each.headers["content-type"] for each in (asked, accepted, same)]
    assert types == ["image/webp", "image/png", "image/bmp"]
    refused = client.post("/v1/denoise", content=data, headers={"Accept": "text/html"})
    assert_problem(refused, 406, "not-acceptable")
    lines = [("Accept", "text/html"), ("Accept", "image/webp")]
    listed = client.post("/v1/denoise", content=data, headers=lines)
    assert listed.headers["content-type"] == "image/webp"


def test_strength_goes_from_nothing_to_all(client: httpx.Client, noisy: Pixels) -> None:
    data = png(noisy[:64, :80])
    none, half, full = (
        pixels_of(client.post(f"/v1/denoise?strength={s}", content=data)) for s in (0, 0.5, 1)
    )
    assert np.array_equal(none, noisy[:64, :80])
    between = (none.astype(int) + full) / 2
    assert np.abs(between - half).mean() < 1


@pytest.mark.parametrize("sigma", [0, 25])
def test_the_noise_of_an_image_is_reported(client: httpx.Client, photo: Pixels, sigma: float) -> None:
    noise = np.random.default_rng(1).normal(0, sigma, photo.shape)
    noisy = np.clip(np.rint(photo + noise), 0, 255).astype(np.uint8)
    added = np.sqrt(np.square(noisy.astype(float) - photo).mean())
    told, weaker, untouched = (
        client.post(f"/v1/denoise?noise=auto&strength={s}", content=png(noisy)) for s in (1, 0.3, 0)
    )
    assert told.headers["x-noise-sigma"] == weaker.headers["x-noise-sigma"]
    assert told.headers["x-noise-sigma"] == untouched.headers["x-noise-sigma"]
    assert np.array_equal(pixels_of(untouched), noisy)
    assert 0.8 * added <= float(told.headers["x-noise-sigma"]) <= added + 4
    plain = client.post("/v1/denoise?strength=0.3", content=png(noisy))
    assert plain.content == weaker.content
    assert "x-noise-sigma" not in plain.headers


def test_gray_stays_gray_and_alpha_stays(client: httpx.Client, noisy: Pixels) -> None:
    gray = pixels_of(client.post("/v1/denoise", content=png(noisy[..., 1])))
    assert gray.shape == noisy.shape[:2]
    alpha = np.arange(300 * 451, dtype=np.uint32).reshape(300, 451, 1).astype(np.uint8)
    result = pixels_of(client.post("/v1/denoise", content=png(np.concatenate([noisy, alpha], axis=2))))
    assert np.array_equal(result[..., 3:], alpha)


@pytest.mark.parametrize("side", [(1, 1), (1, 300), (7, 5), (9, 16)])
def test_any_size(client: httpx.Client, noisy: Pixels, side: tuple[int, int]) -> None:
    patch = np.ascontiguousarray(noisy[: side[0], : side[1]])
    assert pixels_of(client.post("/v1/denoise", content=png(patch))).shape == patch.shape


def test_many_at_once_get_what_they_get_alone(client: httpx.Client, noisy: Pixels) -> None:
    crops = [png(noisy[i : i + 64, i : i + 64]) for i in range(0, 48, 2)]
    alone = [client.post("/v1/denoise", content=crop).content for crop in crops]
    bad = b"\x89PNG\r\n\x1a\n but no more"
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(
            pool.map(lambda data: client.post("/v1/denoise", content=data), [*crops, bad, *crops])
        )
    assert_problem(together.pop(len(crops)), 422, "bad-image")
    assert [response.content for response in together] == alone * 2


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("strength=2", "less than or equal to 1"),
        ("strength=nan", "strength"),
        ("quality=0", "greater than or equal to 1"),
        ("format=gif", "jpeg"),
        ("noise=25", "auto"),
        ("strenght=1", "no such parameter; there are model, strength"),
    ],
)
def test_wrong_parameters_are_named(client: httpx.Client, query: str, said: str) -> None:
    response = client.post(f"/v1/denoise?{query}", content=b"")
    assert_problem(response, 422, "bad-parameter")
    assert said in response.json()["detail"]


def test_the_error_table(client: httpx.Client, noisy: Pixels) -> None:
    small = png(noisy[:8, :8])
    jpeg = file_of(Image.fromarray(noisy), "jpeg")
    gif = file_of(Image.fromarray(noisy), "gif")
    post = client.post
    assert_problem(post("/v1/denoise", content=b""), 422, "bad-image")
    assert_problem(post("/v1/denoise", content=b"plain text"), 422, "bad-image")
    assert_problem(post("/v1/denoise", content=jpeg[:2000]), 422, "bad-image")
    assert_problem(post("/v1/denoise", content=gif), 415, "format-not-allowed")
    zipped = post("/v1/denoise", content=gzip.compress(small), headers={"Content-Encoding": "gzip"})
    assert_problem(zipped, 415, "format-not-allowed")
    assert_problem(post("/v1/denoise", content=claims(13000, 13000)), 422, "image-too-large")
    assert_problem(post("/v1/denoise?model=nobody", content=small), 404, "unknown-model")
    assert_problem(post("/v1/denoise?model=frames-balanced:999", content=small), 404, "unknown-model")
    assert_problem(post("/v1/denoise?model=../../etc", content=small), 404, "unknown-model")
    assert_problem(post("/v1/denoise", files={"photo": small}), 422, "bad-parameter")
    assert_problem(post("/v1/denoise", data={"image": "text"}), 422, "bad-image")
    assert_problem(post("/v1/denoise", files={"image": small}, data={"strength": "1"}), 422, "bad-parameter")
    odd_charset = {"Content-Type": "multipart/form-data; boundary=x; charset=undefined"}
    assert_problem(post("/v1/denoise", content=b"--x\r\n", headers=odd_charset), 422, "bad-parameter")
    broken_form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert_problem(post("/v1/denoise", content=b"--y", headers=broken_form), 422, "bad-parameter")
    assert_problem(post("/v1/denoise", content=bytes(21 * 2**20)), 413, "body-too-large")
    assert_problem(client.get("/v1/denoise"), 405, "method-not-allowed")
    assert_problem(client.get("/nowhere"), 404, "not-found")
    assert_problem(client.get("/v1/models/nobody"), 404, "unknown-model")
    assert client.get("/v1/models", headers={"x-long": "x" * 200_000}).status_code == 400


def test_a_chunked_body_is_cut_off_at_the_limit(client: httpx.Client) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(300):
            sent += 2**20
            yield bytes(2**20)

    # The server may hang up on the rest before the answer is read.
    with contextlib.suppress(httpx.WriteError, httpx.RemoteProtocolError):
        assert_problem(client.post("/v1/denoise", content=endless()), 413, "body-too-large")
    assert sent < 60 * 2**20


def test_models_are_listed_with_their_cards(client: httpx.Client) -> None:
    models = client.get("/v1/models").json()["models"]
    card = client.get("/v1/models/frames-balanced").json()
    assert card == [each for each in models if each["name"] == "frames-balanced"][-1]
    assert card["inputs"][0]["shape"] == ["N", "H", "W", 3]
    gaussian = [each["levels"]["sigma"] for each in card["corruption"] if each["kind"] == "gaussian"]
    assert max(high for _, high in gaussian) == 55


def test_health_metrics_and_docs(client: httpx.Client, noisy: Pixels, shipped: StoredModel) -> None:
    for path in ("/livez", "/readyz", "/healthz"):
        assert client.get(path).status_code == 200
    pixels_of(client.post("/v1/denoise", content=png(noisy[:16, :16])))
    client.get("/a-path-of-a-scanner")
    metrics = client.get("/metrics").text
    label = f'model="{shipped.card.label}",protocol="http",reason="ok"'
    assert f"quietframe_requests_total{{{label}}}" in metrics
    assert "scanner" not in metrics
    assert client.get("/", follow_redirects=True).url.path == "/docs"
    page = client.get("/docs").text
    assert "cdn" not in page
    assert client.get("/docs/static/swagger-ui-bundle.js").status_code == 200
    assert "/v1/denoise" in client.get("/openapi.json").json()["paths"]


def test_a_client_that_hangs_up_is_counted_and_forgotten(
    server: Server, client: httpx.Client, noisy: Pixels
) -> None:
    frame = png(np.tile(noisy, (5, 5, 1)))
    request = f"POST /v1/denoise HTTP/1.1\r\nHost: x\r\nContent-Length: {len(frame)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(request + frame)
        time.sleep(0.3)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(request + frame[:1000])
    for _ in range(100):
        metrics = client.get("/metrics").text
        if 'reason="client-gone"} 2.0' in metrics and "quietframe_pending_pixels 0.0" in metrics:
            break
        time.sleep(0.1)
    else:
        raise AssertionError(metrics)


@pytest.fixture(scope="module")
def tight() -> Iterator[httpx.Client]:
    """One request at a time, and a deadline that only small images meet."""
    with (
        running_server(MAX_QUEUE_REQUESTS="1", TIMEOUT_S="0.8", FORMATS='["png"]') as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client


def test_a_full_queue_and_a_missed_deadline(tight: httpx.Client, noisy: Pixels) -> None:
    frame = png(np.tile(noisy, (8, 8, 1)))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(tight.post, "/v1/denoise", content=frame)
        time.sleep(0.3)
        refused = tight.post("/v1/denoise", content=png(noisy[:8, :8]))
        assert_problem(refused, 429, "queue-full")
        assert int(refused.headers["retry-after"]) >= 1
        assert_problem(slow.result(), 504, "deadline")
    for _ in range(50):
        if tight.post("/v1/denoise", content=png(noisy[:8, :8])).status_code == 200:
            break
        time.sleep(0.1)
    else:
        raise AssertionError("still busy after a missed deadline")
    assert_problem(tight.post("/v1/denoise", content=b"BM" + bytes(60)), 415, "format-not-allowed")


@pytest.mark.skipif(not (SHARED / "torture").is_dir(), reason="needs the collection of odd files")
def test_the_torture_folder_gets_answers_and_no_bug(client: httpx.Client) -> None:
    files = [
        path for path in sorted((SHARED / "torture").rglob("*.*")) if path.suffix != ".tsv" and path.is_file()
    ]
    small = [path for path in files if path.stat().st_size < 30_000][::3]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda path: client.post("/v1/denoise", content=path.read_bytes()), small))
    statuses = {path.name: answer.status_code for path, answer in zip(small, answers, strict=True)}
    assert set(statuses.values()) <= {200, 415, 422}, statuses
    assert sum(status == 200 for status in statuses.values()) > 100
