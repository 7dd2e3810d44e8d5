import sys
from pathlib import Path

import pytest

from unix.errors import ConfigError, UnixError
from unix.evaluation.alignment import BioViLT, alignment
from unix.evaluation.bootstrap import Patients

PATIENTS = Patients(["a", "b", "c"], seed=0, resamples=50)
IMAGES = [Path("0.png"), Path("1.png"), Path("2.png")]


class Lengths:
    def similarity(self, image: Path, text: str) -> float:
        return len(text) / 1000


def test_the_mean_is_of_unrounded_pairs_and_has_an_interval() -> None:
    found = alignment(Lengths(), IMAGES, ["a" * 1, "a" * 2, "a" * 4], PATIENTS).metric()
    assert found.value == pytest.approx(7 / 3000)
    assert found.low < found.value < found.high
    assert found.n == 3


def test_scores_that_are_no_cosines_or_sides_that_differ_are_refused() -> None:
    class Odd:
        def similarity(self, image: Path, text: str) -> float:
            return float("nan") if text == "b" else 0.5

    with pytest.raises(UnixError, match="1 of 3 similarities are no cosines"):
        alignment(Odd(), IMAGES, ["a", "b", "c"], PATIENTS)
    with pytest.raises(ConfigError, match="3 images, 2 texts"):
        alignment(Lengths(), IMAGES, ["a", "b"], PATIENTS)


def test_what_biovil_t_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"biovil_t_image_model_proj_size_128.pt is missing"):
        BioViLT.load(tmp_path)
    for name in ("biovil_t_image_model_proj_size_128.pt", "config.json", "vocab.txt"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(sys.modules, "health_multimodal", None)
    with pytest.raises(ConfigError, match=r"needs the package hi-ml-multimodal.*read-back F1"):
        BioViLT.load(tmp_path)
