"""On a small random checkpoint in the layout of the released one: DataParallel names, pooler, optimizer beside it."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.unix.evaluation.released_chexbert import WORDS, AsReleased, release, save
from unix.errors import WeightsError
from unix.evaluation.chexbert import CONDITIONS, CheXbert
from unix.records import CHEXPERT_14, Labels

TEXTS = ["no effusion .", "Lungs clear", "edema", "edema is clear . lungs is edema . no no no", "effusions\n no"]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, AsReleased]:
    return release(tmp_path_factory.mktemp("chexbert"))


def ids_of(words: str) -> Tensor:
    return torch.tensor([2, *(WORDS.index(word) for word in words.split()), 3])


def meaning(classes: list[int]) -> Labels:
    values = (None, 1, 0, -1)
    return {name: values[value] for name, value in zip(CONDITIONS, classes, strict=True)}


def test_labels_are_those_of_the_released_module(released: tuple[Path, Path, AsReleased]) -> None:
    checkpoint, bert, module = released
    split = ["no effusion .", "lungs clear", "edema", "edema is clear . lungs is edema . no no no", "effusion ##s no"]
    with torch.no_grad():
        expected = [meaning(module(ids_of(words))) for words in split]
    found = CheXbert.load(checkpoint, bert).label(TEXTS)
    assert found == expected
    assert len({tuple(one.values()) for one in found}) > 1
    assert all(set(one) == set(CHEXPERT_14) for one in found)


def test_batches_and_padding_change_no_label(released: tuple[Path, Path, AsReleased]) -> None:
    labeler = CheXbert.load(*released[:2])
    assert labeler.label(TEXTS, batch=1) == labeler.label(TEXTS, batch=2) == labeler.label(TEXTS)


@pytest.mark.parametrize(("head", "chosen", "label"), [(3, 1, 1), (5, 3, -1), (9, 2, 0), (11, 0, None), (13, 1, 1)])
def test_each_head_stands_for_its_class(
    released: tuple[Path, Path, AsReleased], tmp_path: Path, head: int, chosen: int, label: int | None
) -> None:
    names = {3: "Lung Lesion", 5: "Consolidation", 9: "Pleural Effusion", 11: "Fracture", 13: "No Finding"}
    module = AsReleased(released[2].bert.config)
    with torch.no_grad():
        for index, linear in enumerate(module.linear_heads):
            linear.weight.zero_()
            linear.bias.zero_()
            linear.bias[chosen if index == head else 0] = 1
    save(module, tmp_path / "one.pth")
    (found,) = CheXbert.load(tmp_path / "one.pth", released[1]).label(["edema"])
    assert found == dict.fromkeys(CHEXPERT_14) | {names[head]: label}


def test_a_text_of_more_tokens_than_bert_has_positions_is_cut(released: tuple[Path, Path, AsReleased]) -> None:
    labeler = CheXbert.load(*released[:2])
    assert labeler.label(["no " * 600]) == labeler.label(["no " * 510])


def test_the_name_tells_weights_apart(released: tuple[Path, Path, AsReleased], tmp_path: Path) -> None:
    checkpoint, bert, module = released
    torch.manual_seed(1)
    other = AsReleased(module.bert.config)
    save(other, tmp_path / "other.pth")
    names = [CheXbert.load(path, bert).name for path in (checkpoint, checkpoint, tmp_path / "other.pth")]
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("chexbert ")


def test_a_checkpoint_of_another_kind_is_refused(released: tuple[Path, Path, AsReleased], tmp_path: Path) -> None:
    checkpoint, bert, _ = released
    torch.save({"model_state_dict": {"module.bert.a": torch.zeros(1)}}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match="is missing"):
        CheXbert.load(tmp_path / "odd.pth", bert)
    with pytest.raises(WeightsError, match=r"vocab.txt is missing|config.json is missing"):
        CheXbert.load(checkpoint, tmp_path)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unix-was-here",)


def test_no_code_of_a_checkpoint_is_run(
    released: tuple[Path, Path, AsReleased], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(released[2], tmp_path / "hostile.pth", note=Hostile())
    with pytest.raises(WeightsError, match="without running code"):
        CheXbert.load(tmp_path / "hostile.pth", released[1])
    assert not (tmp_path / "unix-was-here").exists()
