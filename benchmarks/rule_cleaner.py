"""What cleaning by rules costs: reports per CPU second, on the phantom's raw reports.

The cleaner remembers sentences that it has met. `first_sight` forgets them before each report, `one_pass` before each
round. One thread, process CPU time, the median over the rounds; compiling the rules is done before.

    python benchmarks/rule_cleaner.py --json rule_cleaner.json
    python benchmarks/rule_cleaner.py --reports 10000 --rounds 5
"""

import argparse
import json
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

from unix.data.cleaning.rules import clean_report, forget_sentences
from unix.data.phantom.report import write_report
from unix.data.phantom.study import plan_study

BAR = 400.0


def measure(reports: list[str], rounds: int, forget_each: bool) -> float:
    """Reports per CPU second, the median over the rounds."""
    clean_report(reports[0])
    rates: list[float] = []
    for _ in range(rounds):
        forget_sentences()
        start = time.process_time()
        for report in reports:
            if forget_each:
                forget_sentences()
            clean_report(report)
        rates.append(len(reports) / (time.process_time() - start))
    return statistics.median(rates)


def main() -> None:
    """Read the options, measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    reports = [write_report(plan_study(0, index, 160, (0.05, 0.15), None)).raw.text for index in range(options.reports)]
    result = {
        "reports": options.reports,
        "rounds": options.rounds,
        "words_per_report": sum(len(report.split()) for report in reports) / len(reports),
        "first_sight_per_cpu_second": measure(reports, options.rounds, forget_each=True),
        "one_pass_per_cpu_second": measure(reports, options.rounds, forget_each=False),
        "bar": BAR,
        "unix": version("unix-cxr"),
        "python": platform.python_version(),
    }
    print(json.dumps(result, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
