"""Labels of many texts do not depend on how many processes give them."""

import pytest

from unix.data import label_many
from unix.data.label_many import label_reports
from unix.data.labels import label_report

TEXTS = [f"{'No' if number % 3 else 'Moderate'} left pleural effusion. Study {number}." for number in range(25)]


def test_the_order_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_many, "_TEXTS_PER_PART", 4)
    assert label_reports(TEXTS) == [label_report(text) for text in TEXTS]
    assert label_reports([]) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_every_engine_gives_the_same(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    monkeypatch.setattr(label_many, "_TEXTS_PER_PART", 4)
    assert label_reports(TEXTS, engine, 2) == [label_report(text) for text in TEXTS]  # pyright: ignore[reportArgumentType]
