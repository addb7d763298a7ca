"""The suite: what it measures is there where it was put, and a stranger's ONNX file is a peer."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from model_store import default_root
from training import frontier, legibility
from training.cases import STANDARD, Folder, Pair
from training.cli import main
from training.corruption import Photo, to_uint8
from training.errors import DataError
from training.evaluate import evaluate, psnr
from training.export import read_measurements
from training.identity import change
from training.onnx_peer import OnnxPeer
from training.peers import Bm3d
from training.seams import seams
from training.sheet import strips
from training.subject import Subject

TINY = (160, 176)


@pytest.fixture
def images(photo: Photo, tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(photo[40 * number :, 60 * number :][: TINY[0], : TINY[1]]).save(
            folder / f"{number}.png"
        )
    return folder


def onnx_file(path: Path, inputs: str, body: str, output: str = "float[N, C, h, w] y") -> Path:
    text = f'<ir_version: 10, opset_import: ["" : 18]> peer ({inputs}) => ({output}) {{ {body} }}'
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    return path


def test_a_peer_of_even_sizes_is_padded_and_told_the_noise(photo: Photo, tmp_path: Path) -> None:
    body = """folded = SpaceToDepth <blocksize = 2> (x) open = DepthToSpace <blocksize = 2> (folded)
        zero = Sub (open, open) level = Add (zero, sigma) y = Add (open, level)"""
    inputs = "float[N, 3, H, W] x, float[1, 1, 1, 1] sigma"
    peer = OnnxPeer.load(onnx_file(tmp_path / "even.onnx", inputs, body), threads=1)
    assert (peer.name, peer.multiple) == ("even", 2)
    odd = np.minimum(photo[:33, :35], 200)
    told = peer(odd, 25.0)
    assert told is not None
    assert np.array_equal(told, odd + 25)
    assert peer(odd, None) is None


def test_bm3d_has_no_answer_for_what_is_smaller_than_its_blocks(photo: Photo) -> None:
    assert Bm3d()(photo[:7, :60], 25.0) is None
    assert Bm3d()(photo[:8, :60], 25.0) is not None


@pytest.mark.parametrize("channels", [1, 3])
def test_a_peer_answers_the_colour_it_was_made_for(channels: int, photo: Photo, tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "same.onnx", f"float[N, {channels}, H, W] x", "y = Identity (x)")
    peer = OnnxPeer.load(file, threads=1)
    gray = np.repeat(photo[..., :1], 3, axis=2)
    mine, other = (gray, photo) if channels == 1 else (photo, gray)
    answer = peer(mine, None)
    assert answer is not None
    assert np.array_equal(answer, mine)
    assert peer(other, None) is None


@pytest.mark.parametrize(
    ("inputs", "body", "said"),
    [
        ("uint8[N, H, W, 3] x", "y = Cast <to = 1> (x)", "takes x tensor(uint8)"),
        ("float[N, 4, H, W] x", "y = Identity (x)", "a peer takes float32 [N, 1 or 3, H, W]"),
        ("float[N, 3, 64, 64] x", "y = Identity (x)", "takes x tensor(float) ['N', 3, 64, 64]"),
        ("float[N, 3, H, W] x, float[1] level", "y = Add (x, level)", "level tensor(float) [1]"),
        ("float[N, 3, H, W] x", "y = GlobalAveragePool (x)", "no image of the input's size back"),
    ],
)
def test_what_is_no_peer_is_refused_in_a_line(inputs: str, body: str, said: str, tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "odd.onnx", inputs, body)
    with pytest.raises(DataError) as refused:
        OnnxPeer.load(file, threads=1)
    assert str(refused.value).startswith(str(file))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_change_of_a_clean_image_is_measured(photo: Photo) -> None:
    clean = np.clip(photo, 10, 240)
    warmer = clean + np.array([3, 0, 0], np.uint8)
    shifted = change("a", clean, warmer)
    assert shifted.shift == pytest.approx((3, 0, 0))
    assert shifted.brightness == pytest.approx(3 * 0.299)
    assert shifted.pattern == pytest.approx(0, abs=1e-9)
    assert shifted.psnr == pytest.approx(10 * math.log10(255**2 / 3))
    rows, columns = np.indices(clean.shape[:2])
    squares = np.where((rows + columns) % 2, 2, 0).astype(np.uint8)
    board = clean + squares[..., None]
    assert change("a", clean, board).pattern == pytest.approx(1), "half of what it jumps by"
    noise = np.random.default_rng(0).integers(0, 3, clean.shape, np.uint8)
    assert change("a", clean, clean + noise).pattern < 0.05
    assert change("a", clean, clean).psnr == 100


def test_a_seam_is_found_where_the_overlap_is_too_small(images: Path) -> None:
    subject = Subject.of_model(default_root(), "frames-balanced")
    pairs = list(Folder.read(images, every=3).pairs("gaussian 25"))
    (promised,) = seams(subject, pairs)
    assert promised.near == 1
    assert subject.card is not None
    careless = dataclasses.replace(subject, card=subject.card.model_copy(update={"tile_overlap": 0}))
    (seen,) = seams(careless, pairs)
    assert seen.near < 1
    assert seen.worst > promised.worst
    small = [Pair("small", np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40, 3), np.uint8), None)]
    assert seams(subject, small) == []


@pytest.mark.parametrize("height", legibility.HEIGHTS)
@pytest.mark.parametrize("contrast", legibility.CONTRASTS)
def test_letters_are_read_where_they_are_to_be_seen(height: int, contrast: int) -> None:
    page = legibility.page(height, contrast, seed=0)
    clean = legibility.read(page, page.image)
    assert clean["matched"] == 1
    assert clean["Otsu"] > 0.95
    darker = legibility.read(page, (page.image * 0.4).astype(np.uint8))
    assert darker["matched"] > 0.9, "neither contrast nor brightness matters"
    lost = np.random.default_rng(0).integers(0, 256, page.image.shape, np.uint8)
    assert max(legibility.read(page, lost).values()) < 0.15


COORDINATES = st.integers(1, 6).map(float)


@given(st.dictionaries(st.text(max_size=3), st.builds(frontier.Point, COORDINATES, COORDINATES), min_size=1))
def test_the_front_is_what_nobody_beats(points: dict[str, frontier.Point]) -> None:
    front = {points[name] for name in frontier.front(points)}
    beaten = {
        point
        for point in points.values()
        for other in points.values()
        if other != point and other.psnr >= point.psnr and other.ms <= point.ms
    }
    assert front == set(points.values()) - beaten


def test_every_point_is_named_however_crowded() -> None:
    points = {f"peer {number}": frontier.Point(30.0, 100.0) for number in range(15)}
    (place,) = frontier.frontier(points, ["peer 3", "peer 1"], threads=2).axes
    assert {text.get_text() for text in place.texts} == set(points)


def test_every_nth_image_has_the_noise_it_has_among_all(images: Path) -> None:
    all_of_them = list(Folder.read(images).pairs("gaussian 50, gray"))
    some = list(Folder.read(images, every=2).pairs("gaussian 50, gray"))
    assert [pair.name for pair in some] == ["0.png", "2.png"]
    assert np.array_equal(some[1].noisy, all_of_them[2].noisy)


def test_what_is_wrong_with_a_folder_is_said_first(
    photo: Photo, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(photo).save(tmp_path / "a_noisy.png")
    with pytest.raises(DataError, match=r"no a_reference\.png beside it"):
        Folder.read(tmp_path)
    Image.fromarray(photo[1:]).save(tmp_path / "a_reference.png")
    with pytest.raises(DataError, match=r"a_noisy\.png has not the size of a_reference\.png"):
        Folder.read(tmp_path)
    Image.fromarray(photo).save(tmp_path / "a_reference.png")
    (pair,) = Folder.read(tmp_path).pairs("real noise")
    assert np.array_equal(pair.noisy, photo)
    assert "left out" not in caplog.text
    Image.fromarray(photo).save(tmp_path / "clean.png")
    assert len(Folder.read(tmp_path).clean) == 1
    assert "1 files that belong to no pair are left out" in caplog.text
    (tmp_path / "stamp").mkdir()
    Image.fromarray(photo[:5]).save(tmp_path / "stamp" / "s.png")
    with pytest.raises(DataError, match=r"s\.png is 451x5; SSIM needs 7"):
        Folder.read(tmp_path / "stamp")


def test_who_cannot_answer_for_all_images_has_no_mean_and_no_picture(photo: Photo, tmp_path: Path) -> None:
    crop = photo[: TINY[0], : TINY[1]]
    gray = np.repeat(crop[..., :1], 3, axis=2)
    for name, image in (("colour", crop), ("gray", gray)):
        (tmp_path / name).mkdir()
        Image.fromarray(image).save(tmp_path / name / f"{name}.png")
    only_colour = OnnxPeer.load(onnx_file(tmp_path / "c.onnx", "float[N, 3, H, W] x", "y = Identity (x)"), 1)
    ours = Subject.of_model(default_root(), "frames-fast").denoiser
    both, alone = Folder.read(tmp_path), Folder.read(tmp_path / "colour")
    rows = [
        row for folder in (alone, both) for row in evaluate(folder, [only_colour, ours], ["jpeg quality 20"])
    ]
    assert ["c" in row.scores for row in rows] == [True, False]
    rows = [dataclasses.replace(row, corruption=frontier.CORRUPTION) for row in rows]
    assert list(frontier.points(rows)) == [ours.name]
    (strip,) = strips([both], rows[1:], [only_colour, ours], [ours.name])
    assert set(strip.crops) == {"noisy", ours.name, "clean"}


def test_real_noise_has_a_row_for_the_images_that_have_little(photo: Photo, tmp_path: Path) -> None:
    crop = photo[: TINY[0], : TINY[1]].astype(float)
    rng = np.random.default_rng(0)
    for name, sigma in (("mild", 3), ("strong", 20)):
        Image.fromarray(photo[: TINY[0], : TINY[1]]).save(tmp_path / f"{name}_reference.png")
        noisy = np.clip(crop + rng.normal(0, sigma, crop.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(tmp_path / f"{name}_noisy.png")
    ours = Subject.of_model(default_root(), "frames-fast").denoiser
    everything, mild = evaluate(Folder.read(tmp_path), [ours], [])
    assert [len(everything.scores[ours.name]), everything.corruption] == [2, "real noise"]
    assert mild.corruption == "real noise, input above 33 dB"
    assert [score.image for score in mild.scores[ours.name]] == ["mild_noisy.png"]


def test_the_suite_writes_tables_and_pictures(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legibility, "HEIGHTS", (8,))
    peer = onnx_file(tmp_path / "nothing|done.onnx", "float[N, 3, H, W] x", "y = Identity (x)")
    out, measure = tmp_path / "out", ["evaluate", "--suite", "standard", "--every", "2", str(images)]
    few = ["--no-peers", "--only", "gaussian 25", "--only", "gaussian 50, gray"]
    models = ["--model", "frames-camera", "--model", "frames-balanced:1"]
    done = CliRunner().invoke(main, [*measure, *few, *models, "--peer", str(peer), "--out", str(out)])
    assert done.exit_code == 0, (done.output, done.exception)
    found = json.loads((out / "table.json").read_text("utf-8"))
    colour, gray = found["rows"]
    assert found["model"].startswith("frames-camera/")
    assert found["beside"] == ["frames-balanced/1"]
    assert list(colour["scores"]) == ["noisy", "nothing|done", *found["beside"], found["model"]]
    assert "nothing|done" not in gray["scores"]
    for noisy, same, ours in zip(
        *(colour["scores"][n] for n in ("noisy", "nothing|done", found["model"])), strict=True
    ):
        assert same["psnr"] == noisy["psnr"] < ours["psnr"] - 5
    assert {each["images"] for each in found["identity"]} == {"as they are", "halved", "free of noise"}
    assert list(found["seams"]["images"]) == [*found["beside"], found["model"]]
    for quarters in found["seams"]["images"].values():
        assert [each["near"] for each in quarters] == [1, 1]
    assert len(found["legibility"]) == 9
    text = (out / "table.md").read_text("utf-8")
    assert f"| gaussian 25 | {np.mean([each['psnr'] for each in colour['scores']['noisy']]):.2f} / " in text
    for picture in ("frontier.png", "sheet.png"):
        assert np.asarray(Image.open(out / picture).convert("L")).std() > 5
    assert (out / "frontier.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--without", "dncnn"], "'dncnn'; there are: 'nlm', 'wavelet', 'bm3d'"),
        (["--only", "rain"], f"'rain'; there are: {', '.join(map(repr, STANDARD))}"),
        (["--model", "mnist-conv:1", "--model", "mnist-conv"], "mnist-conv/1 is named twice"),
        (["--suite", "standard"], "name folders of clean ones"),
        (["--suite", "standard", "a/clean", "b/clean"], "two folders are called clean"),
        (["--peer", "twin.onnx", "--peer", "twin.onnx", "--no-peers"], "the second twin of the table"),
        (["--peer", "text.onnx"], "text.onnx is no ONNX file that can be run"),
        (["--json", "a"], "'--json': File 'a' is a directory"),
        (["--json", "text.onnx/x.json"], "text.onnx/x.json cannot be written (File exists)"),
        (["--json", "new.json", "--no-peers", "a"], "a holds no image"),
        (["--model", "frames-fast", "--model", "mnist-dense", "a"], "28, 1]; leave it out where photographs"),
        (["--model", "mnist-dense", "--model", "frames-fast"], "3]; leave it out where 28x28x1 test images"),
        (["--model", "fashion-sr2", "--model", "mnist-dense"], "1]; leave it out where 14x14x1 test images"),
        (
            ["--model", "mnist-latent2", "--model", "mnist-latent2-encoder"],
            "encoder/2 gives latent, no image",
        ),
    ],
)
def test_what_cannot_be_measured_is_said(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx_file(Path("twin.onnx"), "float[N, 3, H, W] x", "y = Identity (x)")
    Path("text.onnx").write_text("text")
    for folder in ("a", "b"):
        Path(folder, "clean").mkdir(parents=True)
    done = CliRunner().invoke(main, ["evaluate", *options])
    assert done.exit_code != 0
    assert said in done.output
    assert not Path("new.json").exists()


@pytest.mark.parametrize(
    "content", [b'{"sha256": "the right one", "rows": []}', b"# a table", b"[]", b"\xff", None]
)
def test_a_file_that_holds_no_metrics_says_which_one_does(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(DataError, match=r"table\.json .*`evaluate --run RUN --json FILE`"):
        read_measurements(file, b"graph")


@pytest.mark.parametrize("model", ["frames-balanced", "frames-camera", "frames-fast", "frames-high"])
def test_white_stays_white_and_black_black(model: str) -> None:
    """Clipped, the noise at both ends has a mean of its own: 10 levels of 25."""
    denoiser = Subject.of_model(default_root(), model).denoiser
    for level in (0, 255):
        noise = np.random.default_rng(0).normal(0, 25, (128, 128, 3))
        noisy = to_uint8(((level + noise) / 255).astype(np.float32))
        assert abs(noisy.mean() - level) > 9
        denoised = denoiser(noisy, None)
        assert denoised is not None
        assert abs(denoised.mean() - level) < 3


@pytest.mark.parametrize("model", ["frames-camera", "frames-fast", "frames-high"])
def test_the_grain_of_a_gray_camera_goes(model: str) -> None:
    """Smooth, and in one channel only, it looks like texture, of which these once left most."""
    denoiser = Subject.of_model(default_root(), model).denoiser
    pair = STANDARD["camera, jpeg quality 80, gray"].pair("camera", data.camera()[..., None].repeat(3, 2), 0)
    denoised = denoiser(pair.noisy, None)
    assert denoised is not None
    assert psnr(pair.clean, denoised) > psnr(pair.clean, pair.noisy) + 4
