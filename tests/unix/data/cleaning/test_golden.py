"""What the embedded rules make of the phantom's first reports, word for word. `make golden` rewrites it."""

from collections.abc import Callable

from unix.data.cleaning.rules import clean_report
from unix.data.phantom.report import write_report
from unix.data.phantom.study import plan_study

NUM_REPORTS = 12


def test_golden_cleaned_reports(golden: Callable[[str, str], None]) -> None:
    """A change here is a change of every cleaned report: explain it in the commit."""
    parts: list[str] = []
    for index in range(NUM_REPORTS):
        raw = write_report(plan_study(0, index, 160, (0.05, 0.15), None)).raw.text
        cleaned = clean_report(raw)
        removed = ", ".join(span.category for span in cleaned.removed)
        parts.append(f"# {index}\nFINDINGS: {cleaned.findings}\nIMPRESSION: {cleaned.impression}\nREMOVED: {removed}\n")
    golden("cleaned_phantom_reports.txt", "\n".join(parts))
