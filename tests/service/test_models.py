"""Every published model on a real server: images over /v1 and /v2, codes and points over /v2."""

import io
import json
import re
import subprocess
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image

from model_store import ModelCard, ModelStore, card_markdown, default_root
from tests.conftest import Server, running_server

CARDS = {stored.card.name: stored.card for stored in ModelStore(default_root())}
IMAGE_MODELS = [card.name for card in CARDS.values() if card.takes_image and card.gives_image]


def fitting(card: ModelCard, channels: int | None = None) -> npt.NDArray[np.uint8]:
    """Noise of a size that a model takes, `[H, W, C]`."""
    sides = [side if isinstance(side, int) else 20 for side in card.inputs[0].shape[1:3]]
    channels = channels or (3 if card.colour == "rgb" else 1)
    return np.random.default_rng(0).integers(0, 256, (*sides, channels), np.uint8)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "png")
    return file.getvalue()


def over_grpc(
    server: Server, model: str, name: str, value: npt.NDArray[np.generic], *outputs: str
) -> dict[str, npt.NDArray[np.generic]]:
    kinds = {"uint8": "UINT8", "float32": "FP32", "object": "BYTES"}
    tensor = tritonclient.grpc.InferInput(name, list(value.shape), kinds[str(value.dtype)])
    tensor.set_data_from_numpy(value)
    wanted = [tritonclient.grpc.InferRequestedOutput(each) for each in outputs] or None
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        answer = client.infer(model, [tensor], outputs=wanted)
    return {each.name: answer.as_numpy(each.name) for each in answer.get_response().outputs}


def over_rest(
    server: Server, model: str, name: str, kind: str, value: npt.NDArray[np.generic]
) -> httpx.Response:
    tensor = {"name": name, "datatype": kind, "shape": value.shape, "data": value.tolist()}
    return httpx.post(f"{server.url}/v2/models/{model}/infer", json={"inputs": [tensor]}, timeout=60)


@pytest.mark.parametrize("name", IMAGE_MODELS)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_model_answers_over_v1_and_v2_with_the_same_pixels(
    server: Server, name: str, channels: int
) -> None:
    card = CARDS[name]
    pixels = fitting(card, channels)
    answer = httpx.post(f"{server.url}/v1/denoise?model={name}", content=png(pixels), timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model"] == card.label
    with Image.open(io.BytesIO(answer.content)) as image:
        clean = np.asarray(image)
    sides = [card.scale * side for side in pixels.shape[:2]]
    assert list(clean.shape[:2]) == sides
    raw = over_grpc(server, name, "image", pixels[None])["denoised"][0]
    assert raw.shape[:2] == clean.shape[:2]
    assert np.array_equal(raw.squeeze(), clean.squeeze())
    listed = over_rest(server, name, "image", "UINT8", pixels[None]).json()["outputs"][0]
    assert listed["shape"] == [1, *raw.shape]
    assert np.array_equal(np.array(listed["data"], np.uint8), raw.ravel())


def test_a_model_of_one_size_refuses_others_and_says_which(server: Server) -> None:
    name = next(name for name in IMAGE_MODELS if isinstance(CARDS[name].inputs[0].shape[1], int))
    wrong = png(np.zeros((20, 30, 1), np.uint8))
    answer = httpx.post(f"{server.url}/v1/denoise?model={name}", content=wrong)
    assert answer.status_code == 422
    height, width = CARDS[name].inputs[0].shape[1:3]
    assert f"takes images of {width}x{height} pixels, not 30x20" in answer.json()["detail"]
    with pytest.raises(tritonclient.grpc.InferenceServerException, match="pixels, not 30x20"):
        over_grpc(server, name, "image", np.zeros((1, 20, 30, 1), np.uint8))
    metadata = httpx.get(f"{server.url}/v2/models/{name}").json()
    described = {each["name"]: each["shape"] for each in metadata["inputs"]}
    assert described["image"] == [-1, height, width, 1]


def test_an_image_goes_through_its_code_and_back(server: Server) -> None:
    whole, encoder, decoder = (f"mnist-latent2{suffix}" for suffix in ("", "-encoder", "-decoder"))
    pixels = np.stack([fitting(CARDS[whole]), np.zeros((32, 32, 1), np.uint8)])
    code = over_grpc(server, encoder, "image", pixels)["latent"]
    assert code.shape == (2, 2)
    assert code.dtype == np.float32
    file = np.array([png(pixels[0])], np.object_)
    assert np.allclose(over_grpc(server, encoder, "IMAGE", file)["latent"], code[:1])
    listed = over_rest(server, encoder, "image", "UINT8", pixels).json()["outputs"][0]
    assert (listed["datatype"], listed["shape"]) == ("FP32", [2, 2])
    assert np.allclose(np.reshape(listed["data"], (2, 2)), code, atol=1e-5)

    direct = over_grpc(server, whole, "image", pixels)["denoised"]
    for decoded in (
        over_grpc(server, decoder, "latent", code)["denoised"],
        np.array(over_rest(server, decoder, "latent", "FP32", code).json()["outputs"][0]["data"]),
    ):
        assert np.abs(decoded.reshape(direct.shape).astype(int) - direct).max() <= 1
    with Image.open(
        io.BytesIO(over_grpc(server, decoder, "latent", code, "DENOISED")["DENOISED"][0])
    ) as image:
        assert np.abs(np.asarray(image).astype(int) - direct[0, :, :, 0]).max() <= 1
    metadata = httpx.get(f"{server.url}/v2/models/{decoder}").json()
    assert metadata["inputs"] == [{"name": "latent", "datatype": "FP32", "shape": [-1, 2]}]


@pytest.mark.parametrize("card", CARDS.values(), ids=lambda card: card.name)
def test_the_request_on_a_card_is_answered(server: Server, card: ModelCard, tmp_path: Path) -> None:
    (request,) = re.findall(r"```sh\n(.*?)```", card_markdown(card), re.DOTALL)
    if card.takes_image:
        (tmp_path / "noisy.png").write_bytes(png(fitting(card)))
    command = request.replace("localhost:3000", f"127.0.0.1:{server.port}")
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done
    if card.takes_image and card.gives_image:
        with Image.open(tmp_path / "clean.png") as image:
            assert image.format == "PNG"
    else:
        assert [each["name"] for each in json.loads(done.stdout)["outputs"]]


def test_points_come_closer_to_their_curve(server: Server) -> None:
    points = np.random.default_rng(0).random((5, 2), np.float32)
    restored = over_grpc(server, "toy-spiral", "points", points)["restored"]
    assert restored.shape == (5, 2)
    listed = over_rest(server, "toy-spiral", "points", "FP32", points).json()["outputs"][0]
    assert np.allclose(np.reshape(listed["data"], (5, 2)), restored, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "name", "kind", "value", "said"),
    [
        ("mnist-latent2-decoder", "latent", "FP32", np.zeros((1, 3)), "takes finite numbers, latent"),
        ("mnist-latent2-decoder", "latent", "FP32", np.full((1, 2), np.inf), "takes finite numbers"),
        ("mnist-latent2-decoder", "latent", "FP32", np.zeros(2), "has the shape [N, k]"),
        ("mnist-latent2-decoder", "image", "UINT8", np.zeros((1, 32, 32, 1)), "takes latent, not image"),
        ("mnist-latent2-encoder", "image", "UINT8", np.zeros((1, 28, 28, 1)), "takes images of 32x32"),
        ("frames-balanced", "latent", "FP32", np.zeros((1, 2)), "takes IMAGE, image, strength, not latent"),
    ],
)
def test_what_a_model_cannot_take_is_said(
    server: Server, model: str, name: str, kind: str, value: npt.NDArray[np.generic], said: str
) -> None:
    tensor = tritonclient.http.InferInput(name, list(value.shape), kind)
    tensor.set_data_from_numpy(value.astype(np.uint8 if kind == "UINT8" else np.float32))
    with (
        tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.port}") as client,
        pytest.raises(tritonclient.http.InferenceServerException) as error,
    ):
        client.infer(model, [tensor])
    assert said in error.value.message()


def test_v1_says_what_it_cannot_do(server: Server) -> None:
    image = png(np.zeros((32, 32, 1), np.uint8))
    answer = httpx.post(f"{server.url}/v1/denoise?model=mnist-latent2-encoder", content=image)
    assert answer.status_code == 422
    assert "does encode, not image to image; ask it over /v2" in answer.json()["detail"]
    strength = httpx.post(f"{server.url}/v1/denoise?model=mnist-dense&strength=0.5", content=image)
    assert "has no strength" in strength.json()["detail"]


def test_only_what_denoises_measures_noise(server: Server) -> None:
    for name, card in CARDS.items():
        if not card.takes_image:
            continue
        body = {
            "parameters": {"noise": "auto"},
            "inputs": [
                {
                    "name": "image",
                    "datatype": "UINT8",
                    "shape": [1, *fitting(card).shape],
                    "data": fitting(card).tolist(),
                }
            ],
        }
        answer = httpx.post(f"{server.url}/v2/models/{name}/infer", json=body, timeout=60)
        if card.task == "denoise":
            assert float(answer.json()["parameters"]["noise_sigma"]) > 0
            assert answer.headers["x-noise-sigma"] == answer.json()["parameters"]["noise_sigma"]
        else:
            assert answer.status_code == 422
            assert "measures no noise" in answer.json()["error"]


def test_gray_images_have_a_model_of_their_own_where_none_is_named() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    gray = colour[..., :1]
    with running_server(DEFAULT_MODEL="frames-fast", GRAY_MODEL="frames-camera") as server:

        def answer(pixels: npt.NDArray[np.uint8], model: str = "") -> tuple[str, bytes]:
            asked = {"model": model} if model else {}
            done = httpx.post(f"{server.url}/v1/denoise", params=asked, content=png(pixels), timeout=60)
            return done.raise_for_status().headers["x-model"].partition("/")[0], done.content

        assert answer(colour) == answer(colour, "frames-fast")
        for given in (gray, gray.repeat(3, axis=2)):
            assert answer(given) == answer(given, "frames-camera")
            assert answer(given, "frames-fast")[0] == "frames-fast"
