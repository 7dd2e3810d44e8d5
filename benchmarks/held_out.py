"""The embedded cleaner on a phantom in other words: aggregates only, so that the cleaner's author stays blind.

    .venv/bin/python benchmarks/held_out.py --wording tests/fixtures/wordings/held_out_1 --studies 2000 [--json FILE]

No report, no phrase and no study is printed. A share of noise that remains is counted per category by words, and a word
that several categories put into a report counts against each of them.
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

import polars as pl

from unix.data.cleaning.run import CleanConfig, clean
from unix.data.cleaning.score import ScoredReport, score, words
from unix.data.ingest import IngestConfig, ingest
from unix.data.phantom import PhantomConfig, write_phantom
from unix.data.phantom.report import wording_digest
from unix.data.phantom.truth import read_truth
from unix.records import Status
from unix.store import Store


def measure(wording: str | None, studies: int, seed: int, folder: Path) -> dict[str, object]:
    """Write, ingest and clean a phantom in `folder`, and sum up what became of its words."""
    phantom, store = str(folder / "phantom"), str(folder / "store")
    write_phantom(PhantomConfig(studies=studies, out=phantom, seed=seed, images=False, workers=1, wording=wording))
    ingest(IngestConfig(store=store, source="phantom", root=phantom))
    clean(CleanConfig(store=store))
    answers = Store(store).scan("cleaned_reports").select("study_id", "status", "flags", "findings", "impression")
    rows = read_truth(phantom).rename({"findings": "true_findings", "impression": "true_impression"}).lazy()
    reports: list[ScoredReport] = []
    statuses: Counter[str] = Counter()
    flags: Counter[str] = Counter()
    total: Counter[str] = Counter()
    left: Counter[str] = Counter()
    emptied: Counter[str] = Counter()
    for row in rows.join(answers, on="study_id", how="left").collect().iter_rows(named=True):
        rejected = row["status"] not in (Status.ACCEPTED, Status.FLAGGED)
        statuses[row["status"] or "missing"] += 1
        flags.update(f"{row['status']}: {flag}" for flag in row["flags"] or ())
        report = ScoredReport(
            true_text=f"{row['true_findings']} {row['true_impression']}",
            noise=tuple(span["text"] for span in row["noise"]),
            cleaned_text=" ".join((row["findings"] or "", row["impression"] or "")),
            accepted=row["status"] == Status.ACCEPTED,
            rejected=rejected,
        )
        reports.append(report)
        for section in ("findings", "impression"):
            emptied[section] += bool(row[f"true_{section}"]) and not row[section]
        remaining = Counter[str]() if rejected else words(report.cleaned_text) - words(report.true_text)
        for category in {span["category"] for span in row["noise"]}:
            noise = words(" ".join(span["text"] for span in row["noise"] if span["category"] == category))
            total[category] += noise.total()
            left[category] += (noise & remaining).total()
    shares = pl.DataFrame({"category": list(total), "share": [1 - left[name] / total[name] for name in total]})
    return {
        "wording": wording_digest(wording),
        "studies": len(reports),
        **{name: round(value, 4) for name, value in score(reports)._asdict().items()},
        "statuses": dict(sorted(statuses.items())),
        "rejected": sum(report.rejected for report in reports),
        "sections_emptied": dict(emptied),
        "noise_removed_by_category": {name: round(share, 4) for name, share in shares.sort("share").iter_rows()},
        "flags": dict(flags.most_common()),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wording", help="a folder with phrases.yaml and noise.yaml; default: the package's words")
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        summary = measure(arguments.wording, arguments.studies, arguments.seed, Path(folder))
    print(json.dumps(summary, indent=1))
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
