import pytest

from unix.evaluation.sides import side_accuracy, stated_side


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("Small left pleural effusion.", "left"),
        ("Right-sided pleural effusion. The left lung is clear.", "right"),
        ("Bilateral pleural effusions.", None),
        ("Left pleural effusion. Right pleural effusion.", None),
        ("Pleural effusion.", None),
        ("No left pleural effusion.", None),
        ("", None),
    ],
)
def test_the_side_is_that_of_the_affirming_sentences(text: str, side: str | None) -> None:
    assert stated_side(text, "Pleural Effusion") == side


def test_accuracy_counts_only_where_both_name_one_side() -> None:
    true = ["Left pleural effusion.", "Left pleural effusion.", "Right pneumothorax.", "Left pleural effusion.", ""]
    said = [
        "Left pleural effusion.",
        "Right pleural effusion.",
        "Right pneumothorax.",
        "No effusion.",
        "Left effusion.",
    ]
    metric = side_accuracy(true, said, list("abcde"), seed=0, resamples=50)
    assert metric is not None
    assert metric.value == pytest.approx(2 / 3)
    assert metric.n == 3
    assert side_accuracy(["Clear."], ["Clear."], ["a"], seed=0) is None
