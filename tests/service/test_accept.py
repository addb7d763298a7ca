import pytest

from service.accept import choose_format
from service.errors import NotAcceptableError


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "jpeg"),
        ("*/*", "jpeg"),
        ("image/*", "jpeg"),
        ("image/webp", "webp"),
        ("image/png, image/webp;q=0.5", "png"),
        ("image/webp,*/*;q=0.8", "webp"),
        ("image/jpeg;q=0, image/*", "png"),
        ("IMAGE/TIFF ; Q=0.3", "tiff"),
        ("text/html,application/xhtml+xml,image/avif,image/webp,*/*;q=0.1", "webp"),
        ("image/png;q=abc, image/bmp;q=0.1", "bmp"),
    ],
)
def test_the_best_liked_format_wins_and_the_input_breaks_ties(accept: str | None, chosen: str) -> None:
    assert choose_format(accept, "jpeg") == chosen


@pytest.mark.parametrize("accept", ["text/html", "image/avif", "image/*;q=0", ","])
def test_nothing_acceptable_is_an_error(accept: str) -> None:
    with pytest.raises(NotAcceptableError):
        choose_format(accept, "jpeg")
