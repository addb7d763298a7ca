import io
import itertools
import json
import pickle
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from click.testing import CliRunner

from model_store import ModelStore
from training.build import build_network
from training.classic import Conv, Latent2, Sr2
from training.cli import main
from training.errors import DataError, ParityError
from training.export import Measured, export_run, load_run, write_measurements
from training.fit import fit
from training.graph import check_parity, export_part, receptive_radius, to_onnx
from training.network import Network
from training.networks import ResidualUNet
from training.recipe import Recipe, load_recipe
from training.served import parts
from training.subject import Subject


@pytest.fixture(scope="module")
def network() -> ResidualUNet:
    torch.manual_seed(0)
    gated = ResidualUNet((16, 32, 48), (1, 1, 1), unshuffle=2, gates=True, clipped=True, gray_rank=4).eval()
    for level, part in itertools.product(range(2), ("conv", "gray.1")):
        torch.nn.init.normal_(gated.get_parameter(f"gates.{level}.{part}.weight"), std=0.3)
    return gated


@pytest.fixture(scope="module")
def graph(network: ResidualUNet) -> bytes:
    return to_onnx(network)


def test_the_graph_keeps_the_contract(graph: bytes) -> None:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    image, strength = session.get_inputs()
    (denoised,) = session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["N", "H", "W", 3])
    assert (strength.name, strength.type, strength.shape) == ("strength", "tensor(float)", ["N"])
    assert (denoised.name, denoised.type, denoised.shape) == ("denoised", "tensor(uint8)", ["N", "H", "W", 3])
    assert {domain.domain for domain in onnx.load_model_from_string(graph).opset_import} == {""}


@pytest.mark.parametrize("gray_rank", [0, 4])
def test_features_stay_in_the_layout_of_convolutions(gray_rank: int, tmp_path: Path) -> None:
    widths, blocks = (16, 32, 48), (1, 1, 1)
    graph = to_onnx(ResidualUNet(widths, blocks, 2, gates=True, clipped=True, gray_rank=gray_rank).eval())
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3  # it warns that such a file is for this machine only
    ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert kinds["ReorderInput"] <= 1 + 2 + 2, "the image, what two ConvTransposes give, what two gates take"
    of_gray = 2 * bool(gray_rank)
    assert kinds["ReorderOutput"] <= 2 + 1 + of_gray, (
        "what two ConvTransposes take, the noise, gates for gray"
    )
    assert kinds["Add"] == 2 + 1, "the lengths of two gates, the padded sides; sums of features are fused"


def test_parity_is_checked_for_real(network: ResidualUNet, graph: bytes) -> None:
    check_parity(parts(network)[0], graph)
    torch.manual_seed(1)
    with pytest.raises(ParityError, match="more than 1 level"):
        check_parity(parts(ResidualUNet((16, 32, 48), (1, 1, 1), unshuffle=2, clipped=True).eval())[0], graph)


def test_the_receptive_radius_is_that_of_the_convolutions() -> None:
    flat = ResidualUNet((8,), (4,), unshuffle=2)
    assert receptive_radius(flat) == 2 * (1 + 4 * 2 + 1)
    deep = ResidualUNet((8, 12), (4, 4), unshuffle=2)
    assert receptive_radius(deep) == 70


def test_the_graph_tells_nothing_of_the_machine_it_was_made_on(graph: bytes) -> None:
    assert b"/training/" not in graph
    assert b"site-packages" not in graph


def test_nothing_beyond_the_receptive_radius_matters(network: ResidualUNet, graph: bytes) -> None:
    radius = receptive_radius(network)
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, 200, 200, 3), np.uint8)
    other = rng.integers(0, 256, image.shape, np.uint8)
    middle = slice(96, 104)
    inside = slice(96 - radius, 104 + radius)
    other[:, inside, inside] = image[:, inside, inside]
    ours, theirs = (
        session.run(None, {"image": each, "strength": np.ones(1, np.float32)})[0] for each in (image, other)
    )
    assert np.array_equal(ours[:, middle, middle], theirs[:, middle, middle])
    assert not np.array_equal(ours, theirs)


def test_from_fit_to_a_published_model(recipe: Recipe, photos: Path, tmp_path: Path) -> None:
    run, store = tmp_path / "run", tmp_path / "store"
    fit(recipe, photos, run, workers=0)
    metrics = tmp_path / "metrics.json"
    measure = ["evaluate", "--run", str(run), "--no-peers", "--only", "gaussian 50", "--json", str(metrics)]
    broken = CliRunner().invoke(main, [*measure, str(photos)])
    assert broken.exit_code == 1
    assert "broken.png cannot be read" in broken.output
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "chelsea.png").symlink_to(photos / "chelsea.png")
    measured = CliRunner().invoke(main, [*measure, str(tmp_path / "clean")])
    assert measured.exit_code == 0, measured.output
    publish = ["export", str(run), "--photos", str(photos), "--metrics", str(metrics), "--store", str(store)]
    for version in (1, 2):
        done = CliRunner().invoke(main, publish)
        assert done.exit_code == 0, done.output
        assert f"published small/{version}" in done.output
    stored = ModelStore(store).resolve("small:2")
    assert stored.read_verified() == to_onnx(load_run(run)[1])
    card = stored.card
    assert card.metrics[0].corruption == "gaussian 50"
    assert card.training["steps"] == recipe.fit.steps
    assert sum(each.share for each in card.corruption) == pytest.approx(1)
    assert json.loads((stored.folder / "card.json").read_text())["schema_version"] == 1


@pytest.mark.parametrize(
    ("network", "shapes"),
    [
        (Conv(1, (4, 6), 1), [(["N", "H", "W", 1], ["N", "H", "W", 1])]),
        (Sr2(1, 4, 1), [(["N", "H", "W", 1], ["N", "H_times_2", "W_times_2", 1])]),
        (
            Latent2((1, 8, 8), (16,)),
            [(["N", 8, 8, 1], ["N", 8, 8, 1]), (["N", 8, 8, 1], ["N", 2]), (["N", 2], ["N", 8, 8, 1])],
        ),
        (build_network(load_recipe("toy-spiral")), [(["N", 2], ["N", 2])]),
    ],
    ids=["conv", "sr2", "latent2", "spiral"],
)
def test_every_kind_of_network_is_exported_with_its_parts(
    network: Network, shapes: list[tuple[list[int | str], list[int | str]]]
) -> None:
    found = []
    for part in parts(network.eval()):
        session = ort.InferenceSession(export_part(part), providers=["CPUExecutionProvider"])
        found.append((session.get_inputs()[0].shape, session.get_outputs()[0].shape))
        assert [each.name for each in session.get_inputs()] == [each.name for each in part.inputs]
    assert found == shapes


def test_a_full_disk_leaves_the_store_as_it_was(
    small: dict[str, Any], tmp_path: Path, little_files: Callable[[], AbstractContextManager[None]]
) -> None:
    small.update(
        network={"kind": "linear", "code": 1}, data={"kind": "spiral", "points": 200, "holdout": 100}
    )
    small["fit"].update(optimiser="adam", loss="mse", steps=3, batch=50)
    fit(Recipe.model_validate(small), None, tmp_path / "run", workers=0)
    subject = Subject.of_run(tmp_path / "run")
    write_measurements(tmp_path / "metrics.json", subject.graph, Measured((), {}))
    store = ModelStore(tmp_path / "store")
    export_run(tmp_path / "run", store, tmp_path / "metrics.json", None)
    with little_files(), pytest.raises(DataError, match=r"small/2 cannot be published .*intact"):
        export_run(tmp_path / "run", store, tmp_path / "metrics.json", None)
    assert store.versions("small") == [1]
    assert [each.name for each in (tmp_path / "store" / "small").iterdir()] == ["1"]
    store.resolve("small").read_verified()


def test_measurements_that_cannot_be_kept_are_an_error_of_one_line(
    tmp_path: Path, little_files: Callable[[], AbstractContextManager[None]]
) -> None:
    with (
        little_files(),
        pytest.raises(DataError, match=r"metrics\.json cannot be written \(File too large\)"),
    ):
        write_measurements(tmp_path / "metrics.json", b"graph", Measured((), {}))


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


FOREIGN = {
    "nothing": b"",
    "text": b"text, and no weights",
    "pickle": pickle.dumps({"recipe": {}}),
    "a part": saved({"recipe": {}})[:200],
    "no run": saved([torch.zeros(2)]),
    "another's run": saved({"state_dict": {}, "epoch": 3}),
    "a recipe of old": saved({"recipe": {"name": "old"}, "state_dict": {}}),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize(
    "command",
    [
        ["export"],
        ["evaluate", "--run"],
        ["fit", "toy-spiral", "--run"],
        ["fit", "toy-spiral", "--run", "new", "--begin-with"],
    ],
    ids=" ".join,
)
def test_a_checkpoint_that_is_not_ours_is_named(
    command: list[str], content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.ckpt").write_bytes(content)
    done = CliRunner().invoke(main, [*command, "run"])
    assert done.exit_code == 1
    assert "run/last.ckpt is no checkpoint" in done.output
    assert len(done.output.splitlines()) == 1


def test_a_run_without_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"last\.ckpt does not exist"):
        load_run(tmp_path)
