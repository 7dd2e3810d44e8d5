from pathlib import Path

import polars as pl

from unix.evaluation.references import with_originals
from unix.store import SCHEMAS, Store, now

ROWS = pl.DataFrame(
    {
        "image_id": ["one", "two", "changed", "unknown"],
        "source": ["mimic"] * 4,
        "study_id": ["1", "1", "2", "3"],
        "report_sha256": ["a", "a", "old", "c"],
    }
)


def test_the_report_as_written_is_found_by_study_and_digest(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    studies = [("1", "a", " The lungs\n are clear ___.", "Normal."), ("2", "new", "Edema.", "")]
    rows = [
        {
            **{name: "" for name in SCHEMAS["studies"] if name not in ("ingested_at", "withdrawn")},
            **{"source": "mimic", "study_id": study, "report_sha256": digest},
            **{"findings_raw": findings, "impression_raw": impression},
        }
        for study, digest, findings, impression in studies
    ]
    store.append("studies", pl.DataFrame(rows).with_columns(ingested_at=now(), withdrawn=pl.lit(False)))
    found = with_originals(ROWS, store.uri)
    written = "FINDINGS: The lungs are clear ___. IMPRESSION: Normal."
    assert found["image_id"].to_list() == ROWS["image_id"].to_list()
    assert found["original"].to_list() == [written, written, "", ""]


def test_without_a_store_no_report_is_known(tmp_path: Path) -> None:
    for store in (None, str(tmp_path / "nothing")):
        assert with_originals(ROWS, store)["original"].to_list() == [""] * 4
