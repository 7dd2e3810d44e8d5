"""What the gate does with candidates whose truth is known: promotes, leaves to a person, refuses, by size of test set.

Nothing is trained. A world has patients with two studies each, whose findings resemble each other. A model forgets and
invents findings at its rates; `--agreement` of two models' mistakes are the same ones, as between two seeds. Drawings
are features about those of real images. Candidates against one champion:

- reseed: the champion's own rates, other luck;
- at the margin: report micro-F1 truly lower by the gate's margin, all else equal;
- shuffled: as trained on shuffled labels, reports that belong to other studies;
- one image, other prompts: a generation branch that broke quietly.

    python benchmarks/gate.py --trials 100 --json gate.json
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from unix.evaluation.clinical import micro_f1
from unix.evaluation.gate import Drawings, GateRule, Measurement, Reports, judge
from unix.records import CHEXPERT_14, Labels

WIDTH = 12
PREVALENCE = np.array([0.3, 0.25, 0.1, 0.15, 0.1, 0.05, 0.08, 0.3, 0.3, 0.3, 0.05, 0.1, 0.12, 0.25])
ERROR, READBACK_ERROR, SPREAD, DRIFT = 0.3, 0.4, 0.9, 0.3
CANDIDATES = ("reseed", "at the margin", "shuffled", "one image", "other prompts")


class World:
    """A test set, and models on it."""

    def __init__(self, samples: int, agreement: float, trial: int) -> None:
        self.samples, self.agreement = samples, agreement
        self.generator = np.random.default_rng([samples, trial])
        of_patient = self.generator.random((samples // 2 + 1, 14)) < PREVALENCE
        alike = self.generator.random((samples, 14)) < 0.5
        fresh = self.generator.random((samples, 14)) < PREVALENCE
        self.patient_N = np.arange(samples) // 2
        self.truth_NK = np.where(alike, of_patient[self.patient_N], fresh)
        self.hard = {name: self.generator.random((samples, 14)) for name in ("reports", "drawings")}
        self.real_ND = self.generator.normal(size=(samples, WIDTH))

    def says(self, task: str, error: float) -> np.ndarray:
        """Labels that a model with this share of forgotten findings gives: [N, 14]."""
        own = self.generator.random((self.samples, 14))
        luck = np.where(self.generator.random((self.samples, 14)) < self.agreement, self.hard[task], own)
        return self.truth_NK ^ (luck < np.where(self.truth_NK, error, error * PREVALENCE))

    def model(self, error: float = ERROR) -> Measurement:
        """A model of these rates."""
        ids, patients = [f"i{n}" for n in range(self.samples)], [f"p{n}" for n in self.patient_N]
        truth = as_labels(self.truth_NK)
        drawn_ND = self.generator.normal(size=self.real_ND.shape) * SPREAD + DRIFT
        read = as_labels(self.says("drawings", READBACK_ERROR))
        return Measurement(
            Reports(ids, patients, as_labels(self.says("reports", error)), truth),
            Drawings(ids, patients, read, truth, "encoder", drawn_ND, self.real_ND),
        )

    def candidate(self, kind: str, error_at_margin: float) -> Measurement:
        """One of CANDIDATES."""
        model = self.model(error_at_margin if kind == "at the margin" else ERROR)
        reports, drawings = model.reports, model.drawings
        if kind == "shuffled":
            order = self.generator.permutation(self.samples)
            return replace(model, reports=replace(reports, predicted=[reports.predicted[n] for n in order]))
        if kind == "one image":
            one_ND = np.repeat(drawings.drawn_ND[:1], self.samples, axis=0)
            return replace(model, drawings=replace(drawings, drawn_ND=one_ND))
        if kind == "other prompts":
            order = self.generator.permutation(self.samples)
            return replace(model, drawings=replace(drawings, read_back=[drawings.read_back[n] for n in order]))
        return model


def as_labels(present_NK: np.ndarray) -> list[Labels]:
    """Rows of flags as labels."""
    return [{name: int(flag) for name, flag in zip(CHEXPERT_14, row, strict=True)} for row in present_NK]


def error_that_loses(margin: float) -> float:
    """The share of forgotten findings at which the true micro-F1 is lower by `margin`, by bisection on many samples."""
    world = World(40_000, 1.0, 0)
    wanted = micro_f1(world.says("reports", ERROR), world.truth_NK) - margin
    low, high = ERROR, 0.9
    for _ in range(20):
        middle = (low + high) / 2
        is_better = micro_f1(world.says("reports", middle), world.truth_NK) > wanted
        low, high = (middle, high) if is_better else (low, middle)
    return low


def main() -> int:
    """Judge every kind of candidate on every size of test set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[24, 240, 1000])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--agreement", type=float, default=0.7)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rule = GateRule(resamples=400, distance_resamples=100)
    worse = error_that_loses(rule.report_micro_f1_margin)
    counts: dict[str, dict[str, int]] = {}
    print(f"{'samples':>7}  {'candidate':<14} promoted   open  refused")
    for samples in asked.samples:
        for kind in CANDIDATES:
            verdicts: Counter[str] = Counter()
            for trial in range(asked.trials):
                world = World(samples, asked.agreement, trial)
                champion = world.model()
                verdicts[judge(world.candidate(kind, worse), champion, rule).standing] += 1
            counts[f"{samples} {kind}"] = dict(verdicts)
            shares = (verdicts[standing] / asked.trials for standing in ("kept", "open", "lost"))
            print(f"{samples:>7}  {kind:<14} " + " ".join(f"{share:>8.0%}" for share in shares), flush=True)
    if asked.json:
        result = {
            "trials": asked.trials,
            "agreement": asked.agreement,
            "rule": rule.model_dump(),
            "verdicts": counts,
            "versions": {name: version(name) for name in ("numpy",)},
        }
        asked.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
