"""Cards and runs name whose photographs a network learned from, each once."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model_store import ModelStore, TrainingData
from training.average import average
from training.begin import begun_with
from training.errors import DataError, RecipeError
from training.export import export_run, load_run
from training.fit import fit
from training.provenance import Provenance
from training.recipe import Recipe, changed
from training.subject import Subject

THEIRS = "file,licence\nchelsea.png,CC-BY-4.0\ncoffee.png,CC0-1.0\n"
OURS = "file,licence\ncamera.jpg,MIT\nastronaut.png,MIT\n"


def folder_of(photos: Path, names: list[str], attribution: str, folder: Path) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(photos / name)
    (folder / "ATTRIBUTION.csv").write_bytes(attribution.encode())
    return folder


def test_the_card_names_what_the_model_learned_from_that_it_was_begun_with(
    small: dict[str, Any], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = (
        'file,author,licence\r\nchelsea.png,"van der Walt,\nStéfan",CC-BY-4.0\r\ncoffee.png,R. M.,CC0-1.0\r\n'
    )
    ours = "file,licence,year\ncamera.jpg,MIT,2020\nastronaut.png,MIT,2021,NASA\n"
    first = folder_of(photos, ["chelsea.png", "coffee.png"], theirs, tmp_path / "first")
    second = folder_of(photos, ["camera.jpg", "astronaut.png"], ours, tmp_path / "second")
    store = ModelStore(tmp_path / "store")
    monkeypatch.setattr("training.begin.default_root", lambda: tmp_path / "store")
    small["fit"]["steps"] = 5
    recipe = Recipe.model_validate(small)
    fit(recipe, first, tmp_path / "a", workers=0)
    (base,) = export_run(tmp_path / "a", store, None, first)
    assert (base.folder / "ATTRIBUTION.csv").read_bytes() == theirs.encode()

    fit(recipe, first, tmp_path / "b", begun=begun_with("small:1"), workers=0)
    (again,) = export_run(tmp_path / "b", store, None, first)
    assert again.card.training_data == base.card.training_data, "the same folder stands once"
    assert (again.folder / "ATTRIBUTION.csv").read_bytes() == theirs.encode()

    fit(recipe, second, tmp_path / "c", begun=begun_with("small:2"), workers=0)
    fit(recipe, second, tmp_path / "d", begun=begun_with(str(tmp_path / "c")), workers=0)
    for run in ("c", "d"):
        (stored,) = export_run(tmp_path / run, store, None, second)
        assert [each.licence for each in stored.card.training_data] == ["MIT", "CC-BY-4.0, CC0-1.0"]
        joined = (stored.folder / "ATTRIBUTION.csv").read_bytes().decode()
        rows = [*csv.DictReader(io.StringIO(joined, newline=""))]
        assert [{key: cell for key, cell in row.items() if cell} for row in rows] == [
            {"file": "camera.jpg", "licence": "MIT", "year": "2020"},
            {"file": "astronaut.png", "licence": "MIT", "year": "2021", "further": "['NASA']"},
            {"file": "chelsea.png", "licence": "CC-BY-4.0", "author": "van der Walt,\nStéfan"},
            {"file": "coffee.png", "licence": "CC0-1.0", "author": "R. M."},
        ]


def test_a_run_keeps_whose_photographs_the_one_before_learned_from_and_may_be_older_than_that(
    spiral: dict[str, Any], tmp_path: Path
) -> None:
    recipe = Recipe.model_validate(spiral)
    fit(recipe, None, tmp_path / "first")
    named = TrainingData(name="theirs", licence="CC-BY-4.0", images=3)
    given = Provenance(training_data=(named,), attribution="file,licence\nå.png,CC-BY-4.0\n")
    begun = replace(begun_with(str(tmp_path / "first")), provenance=given)
    last = tmp_path / "second" / "last.ckpt"
    fit(recipe, None, last.parent, begun=begun)
    fit(changed(recipe, steps=80), None, last.parent)
    assert load_run(last.parent)[2].provenance == given

    older = torch.load(last, weights_only=True)
    del older["provenance"]
    torch.save(older, last)
    assert load_run(last.parent)[2].provenance == Provenance()
    fit(changed(recipe, steps=100), None, last.parent)
    effort = load_run(last.parent)[2]
    assert (effort.steps, effort.earlier, effort.provenance) == (100, begun.earlier, Provenance())


def named_by(run: Path, photos: Path) -> tuple[list[str], list[str]]:
    """The licences of each set on the card of a run, and the files of the list beside it."""
    (stored,) = export_run(run, ModelStore(run / "store"), None, photos)
    listed = (stored.folder / "ATTRIBUTION.csv").read_text("utf-8").splitlines()
    return [each.licence for each in stored.card.training_data], [row.split(",")[0] for row in listed[1:]]


def test_a_run_passes_on_whose_photographs_it_was_given_itself(
    small: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    small["fit"]["steps"] = 5
    recipe = Recipe.model_validate(small)
    first = folder_of(photos, ["chelsea.png", "coffee.png"], THEIRS, tmp_path / "first")
    second = folder_of(photos, ["camera.jpg", "astronaut.png"], OURS, tmp_path / "second")
    theirs, ours = ["chelsea.png", "coffee.png"], ["camera.jpg", "astronaut.png"]
    fit(recipe, first, tmp_path / "a", workers=0)
    fit(recipe, second, tmp_path / "b", begun=begun_with(str(tmp_path / "a")), workers=0)
    fit(changed(recipe, steps=8), second, tmp_path / "b", workers=0)
    assert named_by(tmp_path / "b", second) == (["MIT", "CC-BY-4.0, CC0-1.0"], [*ours, *theirs])
    fit(recipe, first, tmp_path / "d", workers=0)
    average([tmp_path / "b", tmp_path / "d"], tmp_path / "mean")
    assert named_by(tmp_path / "mean", second) == (["MIT", "CC-BY-4.0, CC0-1.0"], [*ours, *theirs])
    average([tmp_path / "d", tmp_path / "b"], tmp_path / "other")
    assert sorted(named_by(tmp_path / "other", first)[1]) == sorted([*ours, *theirs])
    fit(recipe, first, tmp_path / "c", begun=begun_with(str(tmp_path / "b")), workers=0)
    assert named_by(tmp_path / "c", first) == (["CC-BY-4.0, CC0-1.0", "MIT"], [*theirs, *ours])


def test_neither_a_run_nor_its_card_takes_the_images_of_another(
    small: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    small["fit"]["steps"] = 5
    recipe, run, store = Recipe.model_validate(small), tmp_path / "run", ModelStore(tmp_path / "store")
    theirs = folder_of(photos, ["chelsea.png", "coffee.png"], THEIRS, tmp_path / "theirs")
    ours = folder_of(photos, ["camera.jpg", "astronaut.png"], OURS, tmp_path / "ours")
    fit(recipe, theirs, run, workers=0)
    with pytest.raises(RecipeError, match="begun with other images"):
        fit(changed(recipe, steps=8), ours, run, workers=0)
    with pytest.raises(DataError, match="trained on other images than those of"):
        export_run(run, store, None, ours)
    (stored,) = export_run(run, store, None, None)
    assert [each.licence for each in stored.card.training_data] == ["CC-BY-4.0, CC0-1.0"]
    assert (stored.folder / "ATTRIBUTION.csv").read_text("utf-8") == THEIRS
    measured = Subject.of_model(store.root, "small").recipe
    assert (measured.data, measured.corruption) == (recipe.data, recipe.corruption), "no recipe has its name"


def test_a_run_from_before_checkpoints_told_goes_on_and_names_its_folder_once(
    small: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    small["fit"]["steps"] = 5
    recipe = Recipe.model_validate(small)
    folder = folder_of(photos, ["chelsea.png", "coffee.png"], THEIRS, tmp_path / "folder")
    fit(recipe, folder, tmp_path / "first", workers=0)
    fit(recipe, folder, tmp_path / "run", begun=begun_with(str(tmp_path / "first")), workers=0)
    last = tmp_path / "run" / "last.ckpt"
    older = torch.load(last, weights_only=True)
    del older["own_provenance"]
    torch.save(older, last)
    for steps in (5, 8):
        fit(changed(recipe, steps=steps), folder, tmp_path / "run", workers=0)
        assert named_by(tmp_path / "run", folder) == (["CC-BY-4.0, CC0-1.0"], ["chelsea.png", "coffee.png"])


def test_a_list_that_is_not_utf_8_is_named_before_training(
    recipe: Recipe, photos: Path, tmp_path: Path
) -> None:
    folder = folder_of(photos, ["chelsea.png", "coffee.png"], THEIRS, tmp_path / "folder")
    (folder / "ATTRIBUTION.csv").write_bytes("file,author\nchelsea.png,Stéfan\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"ATTRIBUTION\.csv is not UTF-8"):
        fit(recipe, folder, tmp_path / "run", workers=0)
    assert not (tmp_path / "run").exists()
