"""The card for people: written from card.json, beside it, and never in the way."""

import re
from pathlib import Path

import pytest

from model_store import Corruption, ModelStore, StoredModel, StoreError, card_markdown, default_root
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
