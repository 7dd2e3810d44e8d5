"""The guards: errors of each kind caught, faithful cleanings accepted, reports per CPU-second.

    .venv/bin/python benchmarks/guards.py --json build/bench/guards.json [--real ../shared/real_cxr]

An error counts only where the cleaning is accepted without it, so that a guard that refuses everything gains nothing.
Each folder of `tests/fixtures/faithful` is a source: reports whose noise is marked, and sentences of noise put into
them. `--real` takes the notes of a folder in MIMIC-CXR's layout too: as cleaning, their findings and impression as
written.
"""

import argparse
import json
import platform
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

from tests.unix.data.cleaning.injected_errors import (
    Faithful,
    dictated_reports,
    inject,
    noisier,
    without_headers,
)
from unix.data.cleaning.guards import Pair, judge
from unix.data.phantom.report import write_report
from unix.data.phantom.study import plan_study
from unix.data.sections import parse_sections
from unix.records import CleanedReport, Status

PHANTOM_SEEDS = (11, 12, 13)
NUM_PHANTOM_PER_SEED = 60
NUM_TIMED = 2000
FAITHFUL = Path("tests/fixtures/faithful")


def phantom_reports(seeds: Iterable[int], num_per_seed: int) -> Iterator[Faithful]:
    """Phantom reports with their clean text."""
    for seed in seeds:
        for index in range(num_per_seed):
            report = write_report(plan_study(seed, index, 160, (0.05, 0.15), None))
            yield Faithful(
                report.raw.text, CleanedReport(" ".join(report.clean.findings), " ".join(report.clean.impression))
            )


def real_reports(folder: Path) -> Iterator[Faithful]:
    """The notes of a folder, their findings and impression kept as written."""
    for path in sorted(folder.rglob("s*.txt")):
        raw = path.read_text(encoding="utf-8")
        sections = parse_sections(raw)
        yield Faithful(raw, CleanedReport(" ".join(sections.findings.split()), " ".join(sections.impression.split())))


def injected_errors(reports: list[Faithful]) -> dict[str, object]:
    """Per kind and variant: how many errors, and how many of them were not accepted; and the faithful cleanings."""
    refused: Counter[str] = Counter()
    accepted: list[tuple[int, Faithful]] = []
    for number, report in enumerate(reports):
        verdict = judge(Pair(report.raw, report.cleaned))
        refused.update(verdict.flags)
        if verdict.status is Status.ACCEPTED:
            accepted.append((number, report))
    total: dict[str, Counter[str]] = defaultdict(Counter)
    caught: dict[str, Counter[str]] = defaultdict(Counter)
    rejected: dict[str, Counter[str]] = defaultdict(Counter)
    for number, report in accepted:
        for case in inject(report, seed=number):
            status = judge(Pair(case.raw, case.cleaned)).status
            total[case.kind][case.variant] += 1
            caught[case.kind][case.variant] += status is not Status.ACCEPTED
            rejected[case.kind][case.variant] += status is Status.REJECTED
    return {
        "faithful": {
            "n": len(reports),
            "not_accepted": round(1 - len(accepted) / len(reports), 4),
            "flags": dict(refused),
        },
        **{
            kind: {
                "n": variants.total(),
                "not_accepted": round(caught[kind].total() / variants.total(), 4),
                "rejected": round(rejected[kind].total() / variants.total(), 4),
                "variants": {name: f"{caught[kind][name]}/{count}" for name, count in variants.items()},
            }
            for kind, variants in total.items()
        },
    }


def reports_per_cpu_second(pairs: list[tuple[str, CleanedReport]]) -> dict[str, float]:
    """How many cleanings are judged per second of one core."""
    judge(Pair(*pairs[0]))
    started = time.process_time()
    for raw, cleaned in pairs:
        judge(Pair(raw, cleaned))
    return {"value": round(len(pairs) / (time.process_time() - started)), "n": len(pairs)}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--real", type=Path, help="a folder in MIMIC-CXR's layout")
    arguments = parser.parse_args()
    dictated = dictated_reports()
    sources = {
        "dictated": dictated,
        "dictated, findings text alone": [without_headers(report) for report in dictated],
        "dictated, other noise": list(noisier(dictated, num_per_sentence=3)),
        "phantom": list(phantom_reports(PHANTOM_SEEDS, NUM_PHANTOM_PER_SEED)),
    }
    for folder in sorted(FAITHFUL.iterdir()):
        reports = dictated_reports(folder / "reports.txt")
        sources[folder.name] = [*reports, *noisier(reports, num_per_sentence=3, path=folder / "noise.txt")]
    if arguments.real is not None:
        sources["real"] = list(real_reports(arguments.real))
    results = {name: injected_errors(reports) for name, reports in sources.items()}
    summary = {
        "reports_per_cpu_second": {
            "faithful phantom": reports_per_cpu_second(
                [(report.raw, report.cleaned) for report in phantom_reports((21,), NUM_TIMED)]
            ),
            "dictated with an error": reports_per_cpu_second(
                [(case.raw, case.cleaned) for report in dictated for case in inject(report, seed=0)]
            ),
        },
        "injected_errors": results,
        "versions": {"python": platform.python_version(), "polars": version("polars")},
    }
    print(json.dumps(summary, indent=1))
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
