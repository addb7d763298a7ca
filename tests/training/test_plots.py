"""Every picture from plain arrays, and the commands on models of a store."""

import csv
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnxruntime as ort
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from model_store import Corruption, ModelStore, StoredModel, Tensor, TrainingData
from training import gallery, plots, spiral
from training.errors import DataError, TrainingError
from training.gallery import GALLERY
from training.networks import space_to_depth
from training.plot_cli import plot
from training.plot_data import learned_points
from training.published import Published, first_filters
from training.run_log import read_curves

RNG = np.random.default_rng(0)
DIGITS = RNG.integers(0, 256, (3, 28, 28, 1), np.uint8)
FIGURES: dict[str, Any] = {
    "grid": lambda: plots.grid({"original": list(DIGITS), "reconstructed": list(DIGITS[:2])}),
    "curves": lambda: plots.learning_curves(
        {"loss": {"training": plots.Series(np.arange(300), RNG.random(300), jitters=True)}, "PSNR / dB": {}}
    ),
    "latent": lambda: plots.latent(
        RNG.random((40, 2)), np.arange(40) % 10, np.tile(DIGITS[:1], (4, 4, 1, 1, 1)), (0, 1, 0, 1)
    ),
    "filters": lambda: plots.filters(RNG.standard_normal((14, 5, 5))),
    "colour filters": lambda: plots.filters(RNG.standard_normal((3, 6, 6, 3))),
    "field": lambda: plots.vector_field(RNG.random((9, 2)), RNG.random((4, 2)), RNG.random((4, 2))),
    "levels": lambda: plots.levels({"ours": plots.Series(np.arange(4), np.arange(4))}, (1, 2)),
    "one level": lambda: plots.levels({"ours": plots.Series(np.arange(4), np.arange(4))}, (2, 2)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_written_as_png_and_svg(name: str, tmp_path: Path) -> None:
    png, svg = plots.save(FIGURES[name](), tmp_path / "deep" / name)
    assert np.asarray(Image.open(png).convert("L")).std() > 5
    assert svg.read_text().startswith("<?xml")


def test_equal_figures_give_equal_files(tmp_path: Path) -> None:
    first, second = (plots.save(FIGURES["one level"](), tmp_path / part / "same") for part in ("a", "b"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_the_gallery_shows_every_corruption_getting_worse(tmp_path: Path) -> None:
    clean = gallery.example(64)
    for caption, pictures in gallery.corrupted(clean).items():
        errors = [np.square(picture.astype(float) - clean).mean() for picture in pictures]
        assert errors == sorted(errors), caption
        assert errors[0] < 0.5 * errors[-1], caption
    gallery.animate(clean, tmp_path / "new" / "corruption.gif")
    with Image.open(tmp_path / "new" / "corruption.gif") as animation:
        assert getattr(animation, "n_frames", 1) == sum(1 + len(levels) for _, levels in GALLERY.values())


def test_curves_of_a_resumed_run_are_joined(tmp_path: Path) -> None:
    for part, steps in ((2, (3, 4)), (10, (4, 5))):
        folder = tmp_path / "log" / f"version_{part}"
        folder.mkdir(parents=True)
        with (folder / "metrics.csv").open("w", newline="") as file:
            rows = csv.DictWriter(file, ["step", "epoch", "loss", "val_psnr"])
            rows.writeheader()
            rows.writerows({"step": step, "loss": part * 100 + step} for step in steps)
            rows.writerow({"step": steps[-1], "val_psnr": 30 + part})
    curves = read_curves(tmp_path)
    assert list(curves) == ["loss", "PSNR / dB"]
    assert curves["loss"]["training"].x.tolist() == [3, 4, 5]
    assert curves["loss"]["training"].y.tolist() == [203, 1004, 1005]
    assert curves["PSNR / dB"]["held out"].y.tolist() == [32, 40]
    for none in (tmp_path / "nothing", tmp_path.parent):  # a folder of runs is no run
        with pytest.raises(DataError, match=r"no metrics\.csv"):
            read_curves(none)


TINY = {
    "tiny": (
        "denoise",
        "image",
        "denoised",
        "two = Constant <value = uint8 {2}> () denoised = Div (image, two)",
    ),
    "tiny-encoder": (
        "encode",
        "image",
        "latent",
        "levels = Cast <to = 1> (image) flat = Flatten (levels) latent = MatMul (flat, weight)",
    ),
    "tiny-decoder": (
        "decode",
        "latent",
        "denoised",
        """flat = Gemm <transB = 1> (latent, weight)
        shape = Constant <value_ints = [-1, 8, 8, 1]> ()
        levels = Reshape (flat, shape) denoised = Cast <to = 2> (levels)""",
    ),
    "tiny-points": ("denoise-points", "points", "restored", "restored = Identity (points)"),
}
TYPES = {
    "image": "uint8[N, 8, 8, 1]",
    "denoised": "uint8[N, 8, 8, 1]",
    **dict.fromkeys(("latent", "points", "restored"), "float[N, 2]"),
}


def tiny_graph(given: str, answer: str, body: str) -> bytes:
    signature = f"tiny ({TYPES[given]} {given}) => ({TYPES[answer]} {answer})"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]> {signature} {{ {body} }}')
    weight = np.random.default_rng(0).random((64, 2), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    graph: bytes = model.SerializeToString()
    return graph


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, shipped: StoredModel) -> ModelStore:
    """Small models: one that halves 8x8 gray, its encoder and its decoder, and one of points."""
    store = ModelStore(tmp_path_factory.mktemp("store"))
    tensors = {
        "image": Tensor(name="image", dtype="uint8", shape=("N", 8, 8, 1)),
        "denoised": Tensor(name="denoised", dtype="uint8", shape=("N", 8, 8, 1)),
        **{
            name: Tensor(name=name, dtype="float32", shape=("N", 2))
            for name in ("latent", "points", "restored")
        },
    }
    for name, (task, given, answer, body) in TINY.items():
        graph = tiny_graph(given, answer, body)
        change = {
            "name": name,
            "version": 1,
            "task": task,
            "sha256": hashlib.sha256(graph).hexdigest(),
            "inputs": (tensors[given],),
            "outputs": (tensors[answer],),
            "colour": "gray",
            "corruption": (Corruption(kind="gaussian", share=1, levels={"sigma": [20, 40]}),),
            "variants": (),
            "training_data": (TrainingData(name="MNIST", licence="none", images=1),),
            "training": {"data": {"turns": 3.0}},
        }
        store.publish(shipped.card.model_copy(update=change), graph, {})
    return store


@pytest.mark.parametrize(
    ("command", "picture"),
    [
        (["reconstructions", "tiny", "--count", "2"], "tiny-reconstructions"),
        (["levels", "tiny", "--count", "2"], "tiny-levels"),
        (["latent", "tiny", "--side", "3"], "tiny-latent"),
        (["filters", "tiny-encoder"], "tiny-encoder-filters"),
        (["field", "tiny-points"], "tiny-points-field"),
    ],
)
def test_published_models_are_drawn(
    command: list[str], picture: str, store: ModelStore, photos: Path, tmp_path: Path
) -> None:
    source = [] if command[0] in ("filters", "field") else ["--images", str(photos)]
    done = CliRunner().invoke(plot, [*command, "--store", str(store.root), "--out", str(tmp_path), *source])
    assert done.exit_code == 0, (done.output, done.exception)
    assert (tmp_path / f"{picture}.png").stat().st_size > 1000
    assert str(tmp_path / f"{picture}.svg") in done.output


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["reconstructions", "tiny"], "--data-dir or QUIETFRAME_DATA_DIR"),
        (["reconstructions", "tiny", "--data-dir", "."], "t10k-images"),
        (["filters", "tiny"], "no layer with weights"),
        (["filters", "tiny-decoder"], "a first layer (64, 2) has no filters to draw"),
        (["levels", "tiny", "tiny:1", "--images", "."], "tiny/1 is named twice"),
        (["reconstructions", "tiny-encoder", "--images", "."], "gives codes"),
        (["reconstructions", "tiny-decoder"], "takes no images"),
        (["field", "tiny"], "tiny/1 takes no points"),
        (["field", "tiny-decoder"], "tiny-decoder/1 takes no points"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    command: list[str],
    said: str,
    store: ModelStore,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("QUIETFRAME_DATA_DIR", raising=False)
    monkeypatch.chdir(photos)
    out = tmp_path / "out"
    done = CliRunner().invoke(plot, [*command, "--store", str(store.root), "--out", str(out)])
    assert isinstance(done.exception, TrainingError)
    assert said in str(done.exception)
    assert not out.exists()


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("block", [1, 2, 4])
def test_filters_on_folded_images_are_drawn_as_they_are_on_the_image(
    block: int, clipped: bool, shipped: StoredModel
) -> None:
    pictures = RNG.standard_normal((2, 3 * block, 3 * block, 3), np.float32)
    pictures[0] *= 9  # the strongest is the first
    folded = space_to_depth(torch.from_numpy(pictures).permute(0, 3, 1, 2), block).numpy()
    white = RNG.standard_normal((2, 3 * clipped, 3, 3), np.float32)
    weight = onnx.numpy_helper.from_array(np.concatenate([folded, white], 1), "weight")
    text = """<ir_version: 10, opset_import: ["" : 18]>
        folding (float[N, C, H, W] x) => (float[N, K, h, w] y) { y = Conv (x, weight) }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(weight)
    graph: bytes = model.SerializeToString()
    card = shipped.card.model_copy(update={"hyperparameters": {"unshuffle": block, "clipped": clipped}})
    assert np.array_equal(first_filters(Published(card, graph, ort.InferenceSession(graph))), pictures)


def test_the_points_are_of_the_spiral_that_was_learned(store: ModelStore) -> None:
    card = store.resolve("tiny-points").card
    untold = card.model_copy(update={"training": {}})
    for each, turns in ((card, 3.0), (untold, 1.5)):
        assert spiral.distance(learned_points(each, 50, seed=0), turns).max() < 1e-3
