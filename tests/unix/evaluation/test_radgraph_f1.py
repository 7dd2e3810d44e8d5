import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from unix.errors import ConfigError, UnixError
from unix.evaluation.radgraph_f1 import named_radgraph, open_radgraph, radgraph_scores


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "radgraph").mkdir()
    (tmp_path / "radgraph" / "weights.th").write_bytes(b"")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


class Words:
    """Share of the reference's words that the hypothesis has; stands for the package's scorer."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.seen: list[str] = []

    def __call__(self, refs: list[str], hyps: list[str]) -> Sequence[Any]:
        self.seen += hyps
        scores = [len(set(a.split()) & set(b.split())) / len(set(a.split())) for a, b in zip(refs, hyps, strict=True)]
        return sum(scores) / len(scores), scores, [], []


def test_the_package_is_asked_for_the_named_level(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("radgraph")
    monkeypatch.setattr(package, "F1RadGraph", Words, raising=False)
    monkeypatch.setitem(sys.modules, "radgraph", package)
    scorer, name = named_radgraph(str(models))
    assert isinstance(scorer, Words) and name == "radgraph_f1_partial_radgraph"
    assert scorer.settings == {"reward_level": "partial", "model_type": "radgraph", "model_cache_dir": str(models)}


def test_whatever_is_missing_is_said(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "radgraph", None)
    with pytest.raises(ConfigError, match=r"needs the package radgraph.*install"):
        open_radgraph(models)
    with pytest.raises(ConfigError, match=r"radgraph-xl/weights.th is missing"):
        named_radgraph(f"{models}:radgraph-xl")
    with pytest.raises(ConfigError, match="no RadGraph model 'rg'"):
        open_radgraph(models, "rg")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE=1"):
        open_radgraph(models)


def test_an_empty_prediction_scores_nothing_and_stays_in_the_mean() -> None:
    scorer = Words()
    assert radgraph_scores(scorer, ["edema", " ", "no edema"], ["edema"] * 3).tolist() == [1, 0, 1]
    assert scorer.seen == ["edema", "no edema"]


@pytest.mark.parametrize("scores", [[0.5], [0.5, float("nan"), 0.5], [0.5, 2.0, 0.5], None])
def test_a_score_that_is_missing_or_odd_stops_the_run(scores: list[float] | None) -> None:
    def scorer(refs: list[str], hyps: list[str]) -> Sequence[Any]:
        if scores is None:
            raise KeyError("edema everywhere")
        return 0.0, scores if len(scores) == 3 else [[0.1], [0.2, 0.3], []], [], []

    with pytest.raises(UnixError, match="RadGraph") as caught:
        radgraph_scores(scorer, ["edema"] * 3, ["edema"] * 3)
    assert "edema" not in str(caught.value)
