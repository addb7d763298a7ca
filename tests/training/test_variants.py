"""Variants from the commands that publish them to the pixels that are served."""

import asyncio
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import skimage.data
from click.testing import CliRunner
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from model_store import CUDA, CorruptModelError, ModelCard, ModelStore, StoredModel, Variant, default_root
from service.engine import Engine
from service.errors import StartError
from service.order import Order
from service.pipeline import Pipeline
from service.precision import PrecisionChoice, choose_precision, has_openvino, multiplies_bf16
from service.settings import Settings
from training.begin import published_network
from training.cli import main
from training.errors import DataError, NotBetterError
from training.graph import to_onnx, weight_name
from training.half import to_half
from training.networks import ResidualUNet
from training.peers import OnnxDenoiser
from training.quantise import FINEST, quantise
from training.variants import Bounds, check_worth

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def float_only() -> StoredModel:
    return ModelStore(default_root()).resolve("frames-balanced:1")


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    """That model, published anew with an int8 variant that was measured on one small picture."""
    folder = tmp_path_factory.mktemp("quantised")
    for name, pixels in (("photos", skimage.data.coffee()), ("held-out", skimage.data.astronaut()[:96, :96])):
        (folder / name).mkdir()
        Image.fromarray(pixels).save(folder / name / "photo.png")
    (folder / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    given = ["frames-balanced:1", str(folder / "held-out"), "--photos", str(folder / "photos")]
    done = CliRunner().invoke(
        main,
        ["quantise", *given, "--into", str(folder / "store"), "--most-loss", "1", "--least-speed", "0"],
    )
    assert done.exit_code == 0, done.output
    assert "held-out, gaussian 25: " in done.output
    assert " times as fast on " in done.output
    return ModelStore(folder / "store").resolve("frames-balanced:1")


@pytest.fixture(scope="module")
def noisy(photo: Pixels) -> Pixels:
    noise = np.random.default_rng(0).normal(0, 25, photo.shape)
    return np.clip(np.rint(photo + noise), 0, 255).astype(np.uint8)


def denoised(stored: StoredModel, noisy: Pixels, precision: str, tile: int = 2**20) -> Pixels:
    async def work() -> Pixels:
        store = stored.folder.parent.parent
        model = f"{stored.card.name}:{stored.card.version}"
        settings = Settings(model_store=store, default_model=model, precision=precision, max_tile_pixels=tile)
        pipeline = Pipeline(settings)
        try:
            return (await pipeline.denoise(noisy, Order(format="raw"))).pixels
        finally:
            await pipeline.close()

    return asyncio.run(work())


def test_int8_is_the_same_network_rounded(
    quantised: StoredModel, float_only: StoredModel, photo: Pixels, noisy: Pixels
) -> None:
    plain, small = (denoised(quantised, noisy, precision) for precision in ("fp32", "int8"))
    assert quantised.read_verified() == float_only.read_verified()
    assert np.array_equal(plain, denoised(float_only, noisy, "int8")), "a version without int8 runs as it is"
    assert not np.array_equal(plain, small)
    assert peak_signal_noise_ratio(plain, small) > 40
    assert peak_signal_noise_ratio(photo, small) > peak_signal_noise_ratio(photo, plain) - 0.2
    assert np.array_equal(small, denoised(quantised, noisy, "int8", tile=2**16)), "tiles join without a seam"


@pytest.mark.parametrize("reference", ["frames-balanced:1", "frames-camera"])
def test_the_finest_level_is_found_in_graphs_of_any_age(reference: str) -> None:
    graph = onnx.load_model_from_string(ModelStore(default_root()).resolve(reference).read_verified()).graph
    names = [weight_name(each.name) for each in graph.initializer]
    for part in FINEST:
        assert any(name.startswith(part) for name in names)


def measured(quantised: StoredModel, loss: float) -> ModelCard:
    """The card with int8 of that loss, 1.4 times as fast, and bf16 and fp16, twice as fast."""
    (int8,) = quantised.card.variants
    int8 = int8.model_copy(update={"psnr_loss": {"a": 0.0, "b": loss}, "speed_ratio": 1.4})
    bf16 = int8.model_copy(update={"precision": "bf16", "sha256": quantised.card.sha256, "speed_ratio": 2.0})
    fp16 = bf16.model_copy(update={"precision": "fp16"})
    return quantised.card.model_copy(update={"variants": (int8, bf16, fp16)})


@pytest.mark.parametrize(
    ("wanted", "flags", "openvino", "loss", "taken"),
    [
        ("auto", {"avx512_vnni", "avx512_bf16"}, True, 0.04, "bf16"),
        ("auto", {"avx512_vnni", "avx512_bf16"}, False, 0.04, "int8"),
        ("auto", {"avx_vnni"}, True, 0.04, "int8"),
        ("auto", {"avx_vnni", "amx_bf16"}, True, 0.06, "fp32"),
        ("auto", {"avx2"}, True, 0.0, "fp32"),
        ("int8", {"avx2"}, True, 0.06, "int8"),
        ("bf16", {"avx2"}, True, 0.06, "bf16"),
        ("fp32", {"avx512_vnni", "avx512_bf16"}, True, 0.0, "fp32"),
        ("fp16", {"avx512_vnni", "avx512_bf16"}, True, 0.0, "fp32"),
    ],
)
def test_auto_is_the_fastest_that_this_cpu_is_made_for_and_that_loses_little(
    quantised: StoredModel,
    monkeypatch: pytest.MonkeyPatch,
    wanted: PrecisionChoice,
    flags: set[str],
    openvino: bool,
    loss: float,
    taken: str,
) -> None:
    monkeypatch.setattr("service.precision._cpu_flags", lambda: flags)
    monkeypatch.setattr("service.precision.has_openvino", lambda: openvino)
    card = measured(quantised, loss)
    assert choose_precision(card, "cpu", wanted) == taken
    assert choose_precision(ModelStore(default_root()).resolve("mnist-dense").card, "cpu", wanted) == "fp32"


@pytest.mark.parametrize(
    ("wanted", "loss", "taken"),
    [
        ("auto", 0.04, "fp16"),
        ("auto", 0.06, "fp32"),
        ("fp16", 0.06, "fp16"),
        ("fp32", 0.0, "fp32"),
        ("int8", 0.0, "fp32"),
        ("bf16", 0.0, "fp32"),
    ],
)
def test_a_gpu_takes_float16_or_float32(
    quantised: StoredModel, wanted: PrecisionChoice, loss: float, taken: str
) -> None:
    assert choose_precision(measured(quantised, loss), "cuda", wanted) == taken
    assert choose_precision(quantised.card, "cuda", wanted) == "fp32"


@pytest.mark.parametrize("reference", ["frames-balanced", "frames-fast"])
def test_fp16_is_the_same_network_rounded(reference: str, noisy: Pixels) -> None:
    stored = ModelStore(default_root()).resolve(reference)
    _, network = published_network(stored)
    half = to_half(network)
    assert len(half) < 0.6 * len(stored.read_verified())
    plain, rounded = (
        np.asarray(OnnxDenoiser.load("", graph, 1)(noisy, None), int)
        for graph in (stored.read_verified(), half)
    )
    assert 0 < np.abs(plain - rounded).max() <= 1
    assert np.mean(plain != rounded) < 0.05


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="is about what is missing")
def test_fp16_is_measured_on_a_gpu_or_not_published(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["fp16", "frames-fast", str(tmp_path), "--into", str(tmp_path / "store")])
    assert done.exit_code == 1
    assert "take a machine with a GPU" in done.output
    assert not (tmp_path / "store").exists()


@pytest.mark.skipif(has_openvino(), reason="is about what is missing")
def test_bf16_without_openvino_names_the_extra(quantised: StoredModel) -> None:
    with pytest.raises(StartError, match=r"quietframe\[openvino\]"):
        Engine(quantised, "cpu", 1, precision="bf16")
    done = CliRunner().invoke(main, ["bf16", "frames-balanced:1", str(quantised.folder)])
    assert done.exit_code == 1
    assert "onnxruntime-openvino" in done.output


@pytest.mark.skipif(not has_openvino(), reason="needs the extra openvino")
def test_bf16_is_the_same_network_rounded(quantised: StoredModel, noisy: Pixels, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    files = {"int8/model.onnx": quantised.read_verified("int8")}
    stored = store.publish(measured(quantised, 0.0), quantised.read_verified(), files)
    plain, rounded = (denoised(stored, noisy, precision) for precision in ("fp32", "bf16"))
    assert peak_signal_noise_ratio(plain, rounded) > 45
    assert np.array_equal(plain, rounded) != multiplies_bf16()


def test_a_broken_variant_is_refused_and_float32_is_not(quantised: StoredModel, tmp_path: Path) -> None:
    files = {"int8/model.onnx": quantised.read_verified("int8")}
    store = ModelStore(tmp_path)
    with pytest.raises(CorruptModelError, match="than its int8 model"):
        store.publish(quantised.card, quantised.read_verified(), {})
    stored = store.publish(quantised.card, quantised.read_verified(), files)
    (stored.folder / "int8" / "model.onnx").write_bytes(b"half of it")
    with pytest.raises(CorruptModelError, match=r"int8/model\.onnx has sha256"):
        Engine(stored, "cpu", 1, precision="int8")
    Engine(stored, "cpu", 1, precision="fp32")


@pytest.mark.parametrize(("loss", "speed"), [(0.06, 2.0), (0.01, 1.1)])
def test_what_loses_or_is_slow_is_not_published(quantised: StoredModel, loss: float, speed: float) -> None:
    (measured,) = quantised.card.variants
    variant = measured.model_copy(update={"psnr_loss": {"a": 0.0, "b": loss}, "speed_ratio": speed})
    with pytest.raises(NotBetterError, match=rf"{loss:.3f} dB \(b\) and is {speed:.2f} times"):
        check_worth(variant, Bounds())
    check_worth(Variant.model_validate(variant.model_dump()), Bounds(most_loss=0.1, least_speed=1))


def test_twin_folders_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    twins = [tmp_path / "day" / "val", tmp_path / "night" / "val"]
    for folder in twins:
        folder.mkdir(parents=True)
    done = CliRunner().invoke(
        main, ["quantise", "frames-balanced:1", *map(str, twins), "--photos", str(tmp_path)]
    )
    assert done.exit_code == 1
    assert "two folders are called val" in done.output


def test_a_network_of_the_finest_level_alone_is_not_quantised() -> None:
    with pytest.raises(DataError, match="stays in float32"):
        quantise(to_onnx(ResidualUNet((8,), (1,), unshuffle=2)), iter(()))


def test_only_what_can_be_quantised_is(quantised: StoredModel, tmp_path: Path) -> None:
    folders = [str(tmp_path), "--photos", str(tmp_path)]
    store = ["--store", str(quantised.folder.parent.parent)]
    for arguments in (["mnist-dense", *folders], ["frames-balanced", *folders, *store]):
        done = CliRunner().invoke(main, ["quantise", *arguments])
        assert done.exit_code == 1
        assert "is no U-Net without int8; name one that is" in done.output
