"""What labelling costs: reports per CPU second of the rule labeler, on phantom reports and on long dictated ones.

Each round labels every report once on one thread; the figure is the median over the rounds, by process CPU time.
Reading the lexicon is done before.

    python benchmarks/labeler.py --json labeler.json
    python benchmarks/labeler.py --reports 10000 --rounds 5
"""

import argparse
import json
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

from unix.data.labels import label_report
from unix.data.phantom.draws import Draws
from unix.data.phantom.findings import draw_findings
from unix.data.phantom.grammar import write_clean_text

BAR = 2000.0


def write_reports(num: int) -> list[str]:
    """Findings and impressions of `num` phantom studies; every tenth is three studies long, as in intensive care."""
    reports: list[str] = []
    for index in range(num):
        parts: list[str] = []
        for turn in range(3 if index % 10 == 0 else 1):
            text = write_clean_text(draw_findings(turn, index), Draws(turn, index, "text"))
            parts += [*text.findings, *text.impression]
        reports.append("\n".join(parts))
    return reports


def measure(reports: list[str], rounds: int) -> list[float]:
    """Reports per CPU second in each round."""
    label_report("warm up")
    rates: list[float] = []
    for _ in range(rounds):
        start = time.process_time()
        for report in reports:
            label_report(report)
        rates.append(len(reports) / (time.process_time() - start))
    return rates


def main() -> None:
    """Read the options, measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    reports = write_reports(options.reports)
    rates = measure(reports, options.rounds)
    result = {
        "reports_per_cpu_second": statistics.median(rates),
        "rounds": rates,
        "bar": BAR,
        "reports": len(reports),
        "mean_words": statistics.mean(len(report.split()) for report in reports),
        "python": platform.python_version(),
        "unix": version("unix-cxr"),
    }
    print(json.dumps(result, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
