"""The card for people: written from card.json, beside it, and never in the way."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store import (
    Corruption,
    ModelCard,
    ModelStore,
    StoredModel,
    StoreError,
    Tensor,
    Variant,
    card_markdown,
    default_root,
)
from model_store.card import Task
from tests.model_store.test_store import card


@pytest.mark.parametrize("stored", [*ModelStore(default_root())], ids=lambda stored: stored.card.label)
def test_every_page_that_ships_is_what_its_card_gives(stored: StoredModel) -> None:
    page = (stored.folder / "README.md").read_text("utf-8")
    assert page == card_markdown(stored.card), "run `quietframe models update-cards`"


def test_what_a_user_must_know_is_there(shipped: StoredModel) -> None:
    page = card_markdown(shipped.card)
    for limit in shipped.card.limits:
        assert limit in page
    for metric in shipped.card.metrics:
        assert f"| {metric.corruption} | {metric.psnr_noisy:.2f} / " in page
    for known in (*shipped.card.inputs, *shipped.card.outputs):
        assert f"`{known.name}`" in page
    assert shipped.card.sha256 in page
    assert shipped.card.training_data[0].licence in page
    assert "gaussian sigma 0 to 30, then jpeg quality 40 to 95" in page
    assert "white noise of 0 to 55:" in page


def test_what_gray_images_never_got_is_said_of_that_corruption_alone() -> None:
    steps = [{"kind": "jpeg", "quality": [50, 50], "gray": True, "weight": 1}]
    mixed = (
        Corruption(kind="gaussian", share=0.5, levels={"sigma": [0, 50], "gray": True}),
        Corruption(kind="sequence", share=0.5, levels={"steps": steps, "gray": False}),
    )
    page = card_markdown(card(b"onnx").model_copy(update={"corruption": mixed}))
    assert "| gaussian | 50% | sigma 0 to 50 |" in page
    assert "| sequence | 50% | jpeg quality 50; not on gray images |" in page


def test_no_text_of_a_card_breaks_a_table() -> None:
    odd = Corruption(kind="a|b\nc", share=1, levels={"steps": 3, "|": ["x", "y"]})
    page = card_markdown(card(b"onnx").model_copy(update={"corruption": (odd,), "hyperparameters": {"|": 1}}))
    for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


@pytest.mark.parametrize(
    ("levels", "sigma"),
    [
        ({"sigma": 25}, (25, 25)),
        ({"sigma": [0, 25]}, (0, 25)),
        ({"sigma": "some"}, None),
        ({}, None),
        ({"steps": [{"kind": "gaussian", "sigma": 5}, {"kind": "gaussian"}, "odd"]}, (5, 5)),
    ],
)
def test_the_white_noise_that_a_card_states(
    levels: dict[str, Any], sigma: tuple[float, float] | None
) -> None:
    stated = card(b"onnx").model_copy(
        update={"corruption": (Corruption(kind="gaussian", share=1, levels=levels),)}
    )
    assert stated.trained_sigma == sigma
    assert ("It was trained on white noise" in card_markdown(stated)) == (sigma is not None)


def test_a_variant_without_measurements_has_a_line() -> None:
    variant = Variant(precision="bf16", sha256="0" * 64, psnr_loss={}, speed_ratio=2, measured_on="a CPU")
    page = card_markdown(card(b"onnx").model_copy(update={"variants": (variant,)}))
    assert "| in bf16 | 2 times as fast on a CPU; what it loses is not stated |" in page


KEYS = st.sampled_from(["steps", "kind", "sigma", "gray", "earlier", "averaged_with", "fit", "loss", "model"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 999) | st.floats() | st.sampled_from(["gaussian", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.dictionaries(KEYS, ANYTHING, max_size=4)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    kind=st.sampled_from(["gaussian", "sequence"]),
    levels=FIELDS,
    training=FIELDS,
    task=st.sampled_from(["denoise", "encode", "decode"]),
    sides=st.lists(st.integers(1, 9) | st.just("H"), max_size=4),
)
def test_every_card_that_the_schema_takes_has_a_page(
    kind: str, levels: dict[str, Any], training: dict[str, Any], task: Task, sides: list[int | str]
) -> None:
    plain = card(b"onnx")
    name = "latent" if task == "decode" else "image"
    odd = {
        "task": task,
        "training": training,
        "corruption": (Corruption(kind=kind, share=1, levels=levels),),
        "inputs": (Tensor(name=name, dtype="uint8", shape=tuple(sides)),),
    }
    accepted = ModelCard.model_validate({**plain.model_dump(), **odd})
    assert plain.sha256 in card_markdown(accepted)


def test_a_page_is_published_and_brought_up_to_date_without_touching_the_rest(tmp_path: Path) -> None:
    stored = ModelStore(tmp_path).publish(card(b"onnx"), b"onnx", {})
    files = {path.name: path.read_bytes() for path in stored.folder.iterdir()}
    assert files["README.md"].decode() == card_markdown(stored.card)
    assert not stored.update_page()
    (stored.folder / "README.md").write_text("old")
    assert ModelStore(tmp_path).resolve("little").read_verified() == b"onnx"
    assert stored.update_page()
    assert {path.name: path.read_bytes() for path in stored.folder.iterdir()} == files


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    stored = ModelStore(tmp_path).publish(card(b"onnx"), b"onnx", {})
    (stored.folder / "README.md").unlink()
    (stored.folder / "README.md").mkdir()
    with pytest.raises(StoreError, match=r"README\.md cannot be written"):
        stored.update_page()
    assert sorted(path.name for path in stored.folder.iterdir()) == ["README.md", "card.json", "model.onnx"]
