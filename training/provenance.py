"""Whose images a network learned from: sets by their name, photographs by the list beside them."""

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any, Self

from model_store import TrainingData
from training.digits import SOURCES
from training.errors import DataError
from training.recipe import Recipe
from training.recipe_parts import DigitsRecipe, PhotosRecipe, SpiralRecipe, Strict

ATTRIBUTION = "ATTRIBUTION.csv"


class Provenance(Strict):
    """Sets of images as a card names them, and the text of the ATTRIBUTION.csv beside it, or none."""

    training_data: tuple[TrainingData, ...] = ()
    attribution: str = ""

    @classmethod
    def of_checkpoint(cls, checkpoint: dict[str, Any], key: str) -> Self:
        """`provenance`: of what the run was begun with; `own_provenance`: of what it was given itself.

        Empty where there is none, or the checkpoint is from before it told.
        """
        return cls.model_validate(checkpoint.get(key, {}))

    def after(self, before: Self) -> Self:
        """That of a network which learned from these after it had from those before; the same set once.

        A set is the same if the list before names all of its images already and a set like it; of
        folders without lists nothing but the number of their images tells.
        """
        earlier = [*before.training_data]
        if _joined(before.attribution, self.attribution) == before.attribution:
            # Of one folder other patches may take more or fewer images.
            same_list = bool(self.attribution) and self.attribution == before.attribution
            for own in self.training_data:
                alike = (each for each in earlier if each == own or (same_list and each.name == own.name))
                if twin := next(alike, None):
                    earlier.remove(twin)
        return type(self)(
            training_data=(*self.training_data, *earlier),
            attribution=_joined(self.attribution, before.attribution),
        )


def _joined(*lists: str) -> str:
    """One CSV of all rows, equal ones once; a cell is empty where its list has no such column."""
    different = [*dict.fromkeys(filter(None, lists))]
    if len(different) < 2:
        return "".join(different)
    tables = (csv.DictReader(io.StringIO(text, newline=""), restkey="further") for text in different)
    rows = [row for table in tables for row in table]
    columns = [*dict.fromkeys(column for row in rows for column in row)]
    unique = dict.fromkeys(tuple(str(row.get(column) or "") for column in columns) for row in rows)
    joined = io.StringIO()
    csv.writer(joined, lineterminator="\n").writerows([columns, *unique])
    return joined.getvalue()


def provenance_of(recipe: Recipe, photos: Path | None, used: int) -> Provenance:
    """What a recipe is trained on; photographs by their folder, of which so many images were used.

    Raises:
        DataError: photographs without their folder, or their list cannot be read.
    """
    match recipe.data:
        case DigitsRecipe(kind=kind):
            source = SOURCES[kind]
            named = TrainingData(name=f"{source.title}, training images", licence=source.licence, images=used)
        case SpiralRecipe():
            named = TrainingData(name="points drawn from a spiral", licence="none needed", images=used)
        case PhotosRecipe():
            if photos is None:
                raise DataError(f"{recipe.name} was trained on photographs; give their folder with --photos")
            return of_photographs(photos, used)
    return Provenance(training_data=(named,))


def of_photographs(folder: Path, used: int) -> Provenance:
    """Name and licences of a folder, by the `licence` column of its ATTRIBUTION.csv.

    Raises:
        DataError: that list cannot be read.
    """
    listed = read_attribution(folder)
    if not listed:
        named = TrainingData(name=f"a folder without {ATTRIBUTION}", licence="not stated", images=used)
        return Provenance(training_data=(named,))
    rows = csv.DictReader(io.StringIO(listed, newline=""))
    licences = Counter(row.get("licence") or "not stated" for row in rows)
    name = f"photographs listed in {ATTRIBUTION} beside this card"
    named = TrainingData(name=name, licence=", ".join(sorted(licences)) or "not stated", images=used)
    return Provenance(training_data=(named,), attribution=listed)


def read_attribution(folder: Path) -> str:
    """Its ATTRIBUTION.csv as it is, line ends and all; empty where there is none.

    Raises:
        DataError: it is no UTF-8.
    """
    file = folder / ATTRIBUTION
    try:
        return file.read_bytes().decode("utf-8") if file.exists() else ""
    except UnicodeDecodeError:
        raise DataError(f"{file} is not UTF-8; save it as UTF-8") from None
