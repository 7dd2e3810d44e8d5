import sys
from pathlib import Path

import pytest

from unix.errors import ConfigError, UnixError
from unix.evaluation.alignment import open_alignment, similarities

IMAGES = [Path("0.png"), Path("1.png"), Path("2.png")]


class Lengths:
    def similarity(self, image: Path, text: str) -> float:
        return len(text) / 1000


def test_pairs_are_scored_and_not_rounded() -> None:
    assert similarities(Lengths(), IMAGES, ["a" * 1, "a" * 2, "a" * 4]).tolist() == [0.001, 0.002, 0.004]


def test_scores_that_are_no_cosines_or_sides_that_differ_are_refused() -> None:
    class Odd:
        def similarity(self, image: Path, text: str) -> float:
            return float("nan") if text == "b" else 0.5

    with pytest.raises(UnixError, match="1 of 3 similarities are no cosines"):
        similarities(Odd(), IMAGES, ["a", "b", "c"])
    with pytest.raises(ConfigError, match="3 images, 2 texts"):
        similarities(Lengths(), IMAGES, ["a", "b"])


def test_what_biovil_t_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("biovil-t", "clip:there"):
        with pytest.raises(ConfigError, match=f"no image-text model '{name}'; choose biovil-t:FOLDER"):
            open_alignment(name)
    with pytest.raises(ConfigError, match=r"biovil_t_image_model_proj_size_128.pt is missing"):
        open_alignment(f"biovil-t:{tmp_path}")
    for name in ("biovil_t_image_model_proj_size_128.pt", "config.json", "vocab.txt"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(sys.modules, "health_multimodal", None)
    with pytest.raises(ConfigError, match=r"needs the package hi-ml-multimodal.*read-back F1"):
        open_alignment(f"biovil-t:{tmp_path}")
