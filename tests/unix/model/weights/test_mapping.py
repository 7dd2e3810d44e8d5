"""Renaming both ways."""

import pytest
import torch

from unix.errors import WeightsError
from unix.model.weights.mapping import Rule, export_tensors, import_tensors

RULES = [
    Rule("plain", "a"),
    *(Rule(name, "qkv", third=index) for index, name in enumerate(("query", "key", "value"))),
    Rule("squeezed", "b", trailing=2),
    Rule("table", "c", leading=1),
]
FOREIGN = {
    "a": torch.arange(3.0),
    "qkv": torch.arange(12.0).reshape(6, 2),
    "b": torch.arange(4.0).reshape(2, 2, 1, 1),
    "c": torch.arange(6.0).reshape(1, 3, 2),
    "spare": torch.zeros(1),
}


def test_renaming_is_inverted() -> None:
    ours, rest = import_tensors(RULES, FOREIGN, "file")
    assert list(rest) == ["spare"]
    assert ours["key"].tolist() == [[4, 5], [6, 7]]
    assert ours["squeezed"].shape == (2, 2) and ours["table"].shape == (3, 2)
    back = export_tensors(RULES, ours)
    assert back.keys() == FOREIGN.keys() - {"spare"}
    assert all(torch.equal(value, FOREIGN[name]) for name, value in back.items())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("a", None, "file: missing a"),
        ("qkv", torch.zeros(7, 2), "qkv has 7 rows"),
        ("b", torch.zeros(2, 2, 3, 3), r"b has shape \[2, 2, 3, 3\]"),
        ("c", torch.zeros(2, 3, 2), r"c has shape \[2, 3, 2\]"),
    ],
)
def test_unfit_tensors_are_named(name: str, value: torch.Tensor | None, said: str) -> None:
    foreign = {key: tensor for key, tensor in FOREIGN.items() if key != name}
    if value is not None:
        foreign[name] = value
    with pytest.raises(WeightsError, match=said):
        dict(import_tensors(RULES, foreign, "file")[0])
