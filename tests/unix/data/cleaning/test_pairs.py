"""The guards over a file of pairs."""

from pathlib import Path

import polars as pl
import pytest

from unix.data.cleaning.pairs import GuardFileConfig, guard_file
from unix.errors import ConfigError


def config(folder: Path, suffix: str = "csv") -> GuardFileConfig:
    return GuardFileConfig(
        file=str(folder / "in.csv"), raw_column="raw", clean_column="clean", out=str(folder / f"out.{suffix}")
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_every_pair_gets_a_verdict(tmp_path: Path, suffix: str) -> None:
    raw = " FINDINGS: Small left effusion. Thank you.\n IMPRESSION: Effusion.\n"
    cleans = ["FINDINGS: Small left effusion. IMPRESSION: Effusion.", "Small right effusion.", None]
    pl.DataFrame({"raw": [raw] * 3, "clean": cleans}).write_csv(tmp_path / "in.csv")
    summary = guard_file(config(tmp_path, suffix))
    assert (summary.rows, summary.rejected) == (3, 2)
    assert summary.rows == summary.accepted + summary.flagged + summary.rejected
    out = pl.read_csv(tmp_path / "out.csv") if suffix == "csv" else pl.read_parquet(tmp_path / "out.parquet")
    assert out["verdict"].to_list() == ["accepted", "rejected", "rejected"]
    assert "laterality_changed" in str(out["flags"].to_list()[1])


def test_a_column_that_would_be_overwritten_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("raw,clean,verdict\na,b,c\n")
    with pytest.raises(ConfigError, match="verdict"):
        guard_file(config(tmp_path))


def test_raw_texts_without_headers_and_headers_in_any_case_are_read(tmp_path: Path) -> None:
    raw = "There is a small left effusion. No pneumothorax. Comparison: ___."
    clean = "There is a small left effusion. No pneumothorax."
    cleans = [clean, f"Findings: {clean}", clean.replace("No p", "P"), clean.replace("left", "right")]
    pl.DataFrame({"raw": [raw] * 4, "clean": cleans}).write_csv(tmp_path / "in.csv")
    assert guard_file(config(tmp_path)).accepted == 2
    assert pl.read_csv(tmp_path / "out.csv")["verdict"].to_list() == ["accepted", "accepted", "rejected", "rejected"]
