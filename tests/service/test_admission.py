"""Bytes, places and pixels: who is refused, and that everything is given back."""

import asyncio

import pytest

from service.admission import Admission
from service.errors import DrainingError, ImageTooLargeError, QueueFullError


@pytest.fixture
def house() -> Admission:
    return Admission(max_bytes=100, max_requests=2, max_pixels=1000, max_wait_s=10)


def test_bytes_are_shared_but_one_alone_always_fits(house: Admission) -> None:
    with house.body() as large:
        large.grow(90)
        large.grow(90)  # its own bytes are no reason to refuse it
        with house.body() as other, pytest.raises(QueueFullError):
            other.grow(1)
    with house.body() as other:
        other.grow(100)


def test_an_answer_counts_until_it_is_taken(house: Admission) -> None:
    with house.answer(100), house.body() as body, pytest.raises(QueueFullError):
        body.grow(1)
    with house.body() as body:
        body.grow(1)


def test_places_are_refused_before_a_body_is_read(house: Admission) -> None:
    with house.request(), house.request():
        with pytest.raises(QueueFullError), house.body():
            pass
        with pytest.raises(QueueFullError), house.request():
            pass
    with house.request():
        pass


def test_the_wait_for_others_counts_and_ones_own_images_do_not(house: Admission) -> None:
    with house.request() as one, house.request() as other:
        with house.pixels(one, 900, 0), house.pixels(one, 90, 10):  # 90 s, but all its own
            with pytest.raises(QueueFullError) as refused, house.pixels(other, 1, 10):
                pass
            assert refused.value.headers == {"Retry-After": "89"}
            with house.pixels(other, 1, 100):
                pass
            with pytest.raises(QueueFullError), house.pixels(other, 20, 0):
                pass
        with (
            house.pixels(other, 5000, 10),  # an empty house takes any image
            pytest.raises(ImageTooLargeError, match="1000 pixels together"),
            house.pixels(other, 1, 10),
        ):
            pass


def test_a_drain_is_not_over_between_a_request_and_its_answer(house: Admission) -> None:
    async def main() -> None:
        with house.request():
            empty = asyncio.create_task(house.wait_until_empty(0.05))
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)  # the answer is begun by another task
        await asyncio.sleep(0)
        with house.answer(1):
            await asyncio.sleep(0.1)
            assert not empty.done()
        await empty

    asyncio.run(main())


def test_a_drain_waits_for_places_and_answers(house: Admission) -> None:
    async def main() -> None:
        waiting = asyncio.create_task(house.wait_until_empty(0.005))
        with house.answer(1):
            with house.request():
                house.open = False
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
            empty = asyncio.create_task(house.wait_until_empty(0.005))
            await asyncio.sleep(0.01)
            assert not empty.done()
        await empty
        await waiting
        with pytest.raises(DrainingError), house.request():
            pass

    asyncio.run(main())
