"""An int8 variant from the command that publishes it to the pixels that are served."""

import asyncio
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import skimage.data
from click.testing import CliRunner
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from model_store import CorruptModelError, ModelStore, StoredModel, Variant, default_root
from service.engine import Engine
from service.order import Order
from service.pipeline import Pipeline
from service.precision import choose_precision, multiplies_bytes
from service.settings import Settings
from training.cli import main
from training.errors import NotBetterError
from training.graph import weight_name
from training.quantise import FINEST, Bounds, check_worth

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


def test_auto_takes_int8_where_the_cpu_multiplies_bytes(quantised: StoredModel) -> None:
    assert Engine(quantised, "cpu", 1).precision == ("int8" if multiplies_bytes() else "fp32")
    assert choose_precision(quantised.card, "cuda", "int8") == "fp32"


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


def test_only_what_can_be_quantised_is(quantised: StoredModel, tmp_path: Path) -> None:
    folders = [str(tmp_path), "--photos", str(tmp_path)]
    store = ["--store", str(quantised.folder.parent.parent)]
    for arguments in (["mnist-dense", *folders], ["frames-balanced", *folders, *store]):
        done = CliRunner().invoke(main, ["quantise", *arguments])
        assert done.exit_code == 1
        assert "cannot be quantised; name a U-Net that has float32 only" in done.output
