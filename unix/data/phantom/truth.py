"""The ground truth beside a phantom: what each study shows, its clean report, every piece of noise in the raw one."""

import json
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from unix.data.phantom.report import PhantomReport
from unix.data.phantom.study import StudyPlan
from unix.errors import SourceError
from unix.store import LABELS_TYPE

TRUTH_FOLDER = "truth"

TRUTH_SCHEMA = pl.Schema(
    {
        "study_id": pl.String,
        "labels": LABELS_TYPE,
        "findings": pl.String,
        "impression": pl.String,
        "noise": pl.List(pl.Struct({"text": pl.String, "category": pl.String})),
        "attributes": pl.String,  # JSON list of {finding, side, zone, severity, uncertain, device}
    }
)


def truth_frame(studies: Iterable[tuple[StudyPlan, PhantomReport]]) -> pl.DataFrame:
    """One row per study, in the order given."""
    rows = [
        (
            plan.study_id,
            report.clean.labels,
            " ".join(report.clean.findings),
            " ".join(report.clean.impression),
            [{"text": span.text, "category": span.category} for span in report.raw.noise],
            _attributes(plan),
        )
        for plan, report in studies
    ]
    return pl.DataFrame(rows, schema=TRUTH_SCHEMA, orient="row")


def read_truth(root: str | Path) -> pl.DataFrame:
    """The ground truth of the phantom at `root`, one row per study, columns as `TRUTH_SCHEMA`.

    Raises:
        SourceError: `root` holds no phantom's truth.
    """
    files = sorted((Path(root) / TRUTH_FOLDER).glob("part-*.parquet"))
    if not files:
        raise SourceError(f"{Path(root) / TRUTH_FOLDER} holds no ground truth; write one with `unix phantom`")
    return pl.read_parquet(files).select(TRUTH_SCHEMA.names())


def _attributes(plan: StudyPlan) -> str:
    return json.dumps(
        [
            {
                "finding": finding.name,
                "side": finding.side.value,
                "zone": finding.zone.value,
                "severity": finding.severity.value,
                "uncertain": finding.uncertain,
                "device": finding.device.value if finding.device else "",
            }
            for finding in plan.findings
        ]
    )
