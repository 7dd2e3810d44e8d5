"""The same key gives the same choices; another key gives others."""

from collections import Counter

from unix.data.phantom.draws import Draws, generator


def test_choices_depend_on_the_key_alone() -> None:
    def numbers(seed: int, index: int, purpose: str) -> list[float]:
        draws = Draws(seed, index, purpose)
        return [draws.uniform() for _ in range(40)]

    assert numbers(1, 2, "text") == numbers(1, 2, "text")
    others = [numbers(1, 2, "body"), numbers(1, 3, "text"), numbers(2, 2, "text")]
    assert all(other != numbers(1, 2, "text") for other in others)


def test_uniform_numbers_fill_the_interval() -> None:
    draws = Draws(0, 0, "uniform")
    numbers = [draws.uniform(2.0, 4.0) for _ in range(2000)]
    assert 2.0 <= min(numbers) < 2.05
    assert 3.95 < max(numbers) < 4.0
    assert abs(sum(numbers) / len(numbers) - 3.0) < 0.05


def test_weights_are_kept() -> None:
    draws = Draws(0, 0, "weights")
    counts = Counter(draws.weighted("abc", (6, 3, 1)) for _ in range(4000))
    assert abs(counts["a"] / 4000 - 0.6) < 0.03
    assert abs(counts["c"] / 4000 - 0.1) < 0.03


def test_shuffling_keeps_every_item() -> None:
    items = list(range(20))
    shuffled = Draws(0, 0, "shuffle").shuffled(items)
    assert shuffled != items
    assert sorted(shuffled) == items


def test_pixel_generators_are_keyed_too() -> None:
    first = generator(3, 4, "body").random(5).tolist()
    assert first == generator(3, 4, "body").random(5).tolist()
    assert first != generator(3, 5, "body").random(5).tolist()
