from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from training.cli import main
from training.errors import RecipeError
from training.recipe import RECIPES, Recipe, load_recipe

BALANCED = (RECIPES / "frames-balanced.toml").read_text("utf-8")
NETWORK = BALANCED.partition("[network]\n")[2].partition("\n\n")[0]


def test_every_recipe_that_ships_is_valid() -> None:
    for file in RECIPES.glob("*.toml"):
        assert load_recipe(file.stem).name == file.stem


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("batch = 8", "bach = 8"), "fit.bach: unknown key; there are: loss, floor, optimiser, rate"),
        (("batch = 8", "batch = 0"), "fit.batch: Input should be greater than 0 (got 0)"),
        (
            ('loss = "psnr"', 'loss = "hinge"'),
            "'mse', 'bce', 'gaussian-nll', 'charbonnier'",
        ),
        (('kind = "unet"', 'kind = "vae"'), "'unet', 'linear', 'dense', 'conv', 'latent2', 'stochastic'"),
        (("patch = 128", 'kind = "cifar"'), "kind is one of 'photos', 'mnist', 'fashion-mnist', 'spiral'"),
        (("patch = 128", 'kind = "mnist"'), "data.digits.shrink: unknown key; there are: kind, side"),
        (("peak = [20, 1000]", "paek = [20, 1000]"), "unknown key; there are: weight, gray, kind, peak"),
        (('loss = "psnr"', 'loss = "bce"'), "bce needs a network whose output is 0..1"),
        (("steps = 1_000_000\nminutes = 90", ""), "give steps, epochs or minutes"),
        (('kind = "poisson"', 'kind = "fog"'), "'gaussian'"),
        (("sigma = [0, 55]", "sigma = [55, 0]"), "a range goes from low to high"),
        (
            (NETWORK, 'kind = "sr2"'),
            "photographs; take unet or conv",
        ),
        (("patch = 128", "patch = 90"), "data.patch must be a multiple of 8"),
        (("blocks = [1, 1, 2]", "blocks = [1, 1]"), "one number for each level"),
        (("gates = true", "gates = false"), "gray_rank is of what is added to gates"),
        (("[network]\n", "[network\n"), "is not valid TOML"),
        (('name = "frames-balanced"', f'name = "{"a" * 65}"'), "name: String should match pattern"),
        (('summary = "Blind', 'summary = ""\n# "'), "summary: String should have at least 1 character"),
        (("limits = [\n", 'limits = [\n"",\n'), "limits.0: String should have at least 1 character"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    assert change[0] in BALANCED
    file = tmp_path / "mine.toml"
    file.write_text(BALANCED.replace(*change), "utf-8")
    with pytest.raises(RecipeError) as error:
        load_recipe(str(file))
    assert said in str(error.value)
    assert "at least 1 item" not in str(error.value)


def test_what_is_trained_alone_is_there() -> None:
    recipe = load_recipe("frames-balanced").model_dump()
    recipe["fit"]["only"] = "gray"
    Recipe.model_validate(recipe)
    recipe["network"]["gray_rank"] = 0
    with pytest.raises(ValidationError, match=r"set network\.gray_rank"):
        Recipe.model_validate(recipe)


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").mkdir()
    with pytest.raises(RecipeError, match=r"mine.toml cannot be read \(Is a directory\)"):
        load_recipe(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    ("recipe", "options", "said"),
    [
        ("frames-fast", ["--data-dir"], "give --photos"),
        ("frames-fast", ["--data-dir", "--photos"], "no --data-dir"),
        ("mnist-conv", ["--photos"], "leave out --photos"),
        ("mnist-conv", ["--photos", "--data-dir"], "leave out --photos"),
    ],
)
def test_a_folder_of_what_the_recipe_does_not_train_on_is_refused(
    tmp_path: Path, recipe: str, options: list[str], said: str
) -> None:
    given = [each for option in options for each in (option, str(tmp_path))]
    done = CliRunner().invoke(main, ["fit", recipe, *given, "--run", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert said in done.output


def test_an_unknown_recipe_says_which_there_are() -> None:
    with pytest.raises(RecipeError, match=r"there are: .*frames-balanced"):
        load_recipe("frames-unbalanced")


def test_the_halves_of_a_network_have_names_as_well(tmp_path: Path) -> None:
    file, latent = tmp_path / "mine.toml", (RECIPES / "mnist-latent2.toml").read_text("utf-8")
    for length in (56, 57):
        file.write_text(latent.replace('name = "mnist-latent2"', f'name = "{"a" * length}"'), "utf-8")
        if length == 56:
            load_recipe(str(file))
    with pytest.raises(RecipeError, match="56 characters"):
        load_recipe(str(file))


def test_workers_that_cannot_be_are_refused_at_once(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["fit", "toy-spiral", "--workers", "-1", "--run", str(tmp_path)])
    assert done.exit_code == 2
    assert "--workers" in done.output
