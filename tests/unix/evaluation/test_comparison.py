import pytest

from unix.evaluation.bootstrap import Difference
from unix.evaluation.comparison import ModelResult, compared

FIRST = ModelResult(name="a", title="a", checkpoint="", n=9, metrics={}, differences={})


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "said"),
    [
        (-0.3, -0.1, True, "b against a: worse (-0.200 [-0.300, -0.100], n = 9)"),
        (-0.3, -0.1, False, "b against a: better"),
        (-0.1, 0.2, True, "b against a: not told apart"),
    ],
)
def test_a_verdict_says_what_the_interval_says(low: float, high: float, higher_is_better: bool, said: str) -> None:
    difference = Difference(value=(low + high) / 2, low=low, high=high, n=9, separated=low > 0 or high < 0)
    model = FIRST.model_copy(update={"title": "b", "differences": {"f1": difference}})
    assert said in compared("F1", model, FIRST, "f1", higher_is_better)
