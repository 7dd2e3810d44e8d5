"""The written rule by which a retrained model takes over from the champion, or does not (pure, numpy).

Both are measured on the same frozen samples by four metrics: micro-F1 and macro-F1 of written reports, the Fréchet
distance of drawn images, and the micro-F1 of what is read back from them. The margin of a metric says what loss
matters; the 95 % interval of the paired bootstrap over patients says what loss there is:

- kept: the interval's bad end lies within the margin, so a loss that matters is excluded;
- lost: the difference is past the margin, and the interval lies on the worse side of zero; a wider one, of
  1 - 0.05 / 4, since one loss among four is enough to refuse;
- open: neither. The test set is too small to tell.

**The candidate passes where all four are kept, is refused where one is lost, and is a person's to decide where one is
open.** So chance promotes nothing that got worse, however small the test set, and refuses nothing that did not.

Where there is no champion yet, every metric must instead reach an absolute floor, and be above its baseline, which
needs no model, by more than chance.

Shape legend: N samples, D features, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from unix.config import Config
from unix.errors import ConfigError
from unix.evaluation import clinical
from unix.evaluation.bootstrap import RESAMPLES, Difference, Draws, Patients, paired_difference
from unix.evaluation.feature_distances import frechet_distance
from unix.records import Labels

REPORT_MICRO, REPORT_MACRO = "report_micro_f1", "report_macro_f1"
FRECHET, READBACK = "frechet_distance", "readback_micro_f1"
METRICS = (REPORT_MICRO, REPORT_MACRO, FRECHET, READBACK)

_LEVEL_OF_A_LOSS = 1 - 0.05 / len(METRICS)


class Standing(StrEnum):
    """Of one metric, and of a candidate."""

    KEPT = "kept"
    LOST = "lost"
    OPEN = "open"


class GateRule(Config):
    """Margins and floors. A margin is the largest loss against the champion that does not matter."""

    report_micro_f1_margin: float = Field(default=0.03, ge=0)
    report_macro_f1_margin: float = Field(default=0.04, ge=0)
    readback_micro_f1_margin: float = Field(default=0.06, ge=0)
    frechet_distance_margin: float = Field(default=0.25, ge=0)
    """As a share of the champion's distance, whose scale is the encoder's."""
    frechet_distance_least_margin: float = Field(default=0.02, ge=0)
    """As a share of what one average image would get: the margin where the champion's distance is next to nothing."""
    above_best_constant: float = Field(default=0.05, ge=0)
    """Floor of the report metrics without a champion: so much above the best label set that ignores the image."""
    above_shuffled: float = Field(default=0.05, ge=0)
    """Floor of the read-back without a champion: so much above the same read-backs held against other prompts."""
    share_of_one_image: float = Field(default=0.75, gt=0)
    """Ceiling of the distance without a champion: this share of what the same average image every time would get."""
    least_patients: int = Field(default=10, ge=2)
    """With fewer patients in a test set an interval means nothing: what is not lost is open."""
    resamples: int = Field(default=RESAMPLES, ge=100)
    distance_resamples: int = Field(default=200, ge=100)
    """Fewer, as every one takes a matrix root."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Reports:
    """Written reports of N images, as labels."""

    image_ids: Sequence[str]
    patients: Sequence[str]
    predicted: Sequence[Labels | None]
    """None: nothing was written."""
    reference: Sequence[Labels]


@dataclass(frozen=True, slots=True)
class Drawings:
    """Drawn images for N prompts: what was read back from them, and features of drawn and real images."""

    image_ids: Sequence[str]
    patients: Sequence[str]
    read_back: Sequence[Labels | None]
    prompted: Sequence[Labels]
    encoder: str
    """Digest of the encoder."""
    drawn_ND: NDArray[np.floating]
    real_ND: NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model on the frozen samples."""

    reports: Reports
    drawings: Drawings


class Comparison(Config):
    """One metric of the verdict."""

    candidate: float
    champion: float | None
    difference: Difference | None
    """Candidate minus champion."""
    limit: float
    """The candidate's value at the margin, or at the floor."""
    samples: int
    patients: int
    standing: Standing
    why: str


class Verdict(Config):
    """Every number of a decision, and the sentence."""

    standing: Standing
    sentence: str
    comparisons: dict[str, Comparison]

    @property
    def passed(self) -> bool:
        """Whether the candidate may take over by itself."""
        return self.standing is Standing.KEPT

    def numbers(self) -> dict[str, float]:
        """The candidate's metrics."""
        return {name: comparison.candidate for name, comparison in self.comparisons.items()}


def judge(candidate: Measurement, champion: Measurement | None, rule: GateRule) -> Verdict:
    """Hold a candidate against the champion, or against the floors where there is none.

    Raises:
        ConfigError: the two were not measured on the same samples, or by different encoders.
    """
    if champion is None:
        comparisons = _against_floors(candidate, rule)
    else:
        _must_be_alike(candidate, champion)
        comparisons = _against_champion(candidate, champion, rule)
    small = min(comparisons.values(), key=lambda comparison: comparison.patients)
    standings = {comparison.standing for comparison in comparisons.values()}
    if small.patients < rule.least_patients:
        standings.add(Standing.OPEN)
    standing = next(each for each in (Standing.LOST, Standing.OPEN, Standing.KEPT) if each in standings)
    reasons = [f"{name} {each.why}" for name, each in comparisons.items() if each.standing is standing]
    if standing is Standing.OPEN and small.patients < rule.least_patients:
        reasons.insert(0, f"{small.patients} patients are fewer than {rule.least_patients}")
    word = {
        Standing.KEPT: "passed",
        Standing.LOST: "refused",
        Standing.OPEN: f"too close to call on {small.samples} samples of {small.patients} patients",
    }[standing]
    against = "the floors" if champion is None else "the champion"
    return Verdict(
        standing=standing, sentence=f"{word} against {against}: {'; '.join(reasons)}", comparisons=comparisons
    )


def _against_champion(candidate: Measurement, champion: Measurement, rule: GateRule) -> dict[str, Comparison]:
    ours, theirs = _draws(candidate, rule), _draws(champion, rule)
    margins = {
        REPORT_MICRO: rule.report_micro_f1_margin,
        REPORT_MACRO: rule.report_macro_f1_margin,
        READBACK: rule.readback_micro_f1_margin,
        FRECHET: max(
            rule.frechet_distance_margin * theirs[FRECHET].value,
            rule.frechet_distance_least_margin * _of_one_image(champion.drawings),
        ),
    }
    compared: dict[str, Comparison] = {}
    for name in METRICS:
        difference = paired_difference(theirs[name], ours[name], reflected=name == FRECHET)
        # of a distance, more is worse
        sign = -1 if name == FRECHET else 1
        loss = -sign * difference.value
        sure = paired_difference(theirs[name], ours[name], reflected=name == FRECHET, level=_LEVEL_OF_A_LOSS)
        least, most = (sure.low, difference.high) if sign < 0 else (-sure.high, -difference.low)
        word = "worse" if loss > 0 else "better"
        compared[name] = Comparison(
            candidate=ours[name].value,
            champion=theirs[name].value,
            difference=difference,
            limit=theirs[name].value - sign * margins[name],
            samples=ours[name].n,
            patients=_patients(candidate, name),
            standing=_standing(max(loss, most) <= margins[name], loss > margins[name] and least > 0),
            why=f"{ours[name].value:.3f} after {theirs[name].value:.3f}, {abs(loss):.3f} {word} "
            f"[{difference.low:+.3f}, {difference.high:+.3f}], margin {margins[name]:.3f}",
        )
    return compared


def _standing(kept: bool, lost: bool) -> Standing:
    if lost:
        return Standing.LOST
    return Standing.KEPT if kept else Standing.OPEN


def _against_floors(candidate: Measurement, rule: GateRule) -> dict[str, Comparison]:
    reports, drawings = candidate.reports, candidate.drawings
    reference_NK, prompted_NK = clinical.positives(reports.reference), clinical.positives(drawings.prompted)
    constant_NK = np.repeat(clinical.best_constant_set(reference_NK)[None], len(reference_NK), axis=0)
    shuffled = clinical.shuffled_micro_f1(clinical.positives(drawings.read_back), prompted_NK, rule.seed)
    one_image = _of_one_image(drawings)
    floors = {
        REPORT_MICRO: ("the best constant", clinical.micro_f1(constant_NK, reference_NK), rule.above_best_constant),
        REPORT_MACRO: ("the best constant", clinical.macro_f1(constant_NK, reference_NK), rule.above_best_constant),
        FRECHET: ("one average image", one_image, (rule.share_of_one_image - 1) * one_image),
        READBACK: ("shuffled prompts", shuffled, rule.above_shuffled),
    }
    compared: dict[str, Comparison] = {}
    for name, draws in _draws(candidate, rule).items():
        what, baseline, distance = floors[name]
        limit, interval = baseline + distance, draws.metric()
        # resampled distances lie too high: their interval errs on the side of refusing
        if name == FRECHET:
            word, reached, is_certain = "at most", draws.value <= limit, interval.high < baseline
        else:
            word, reached, is_certain = "at least", draws.value >= limit, interval.low > baseline
        compared[name] = Comparison(
            candidate=draws.value,
            champion=None,
            difference=None,
            limit=limit,
            samples=draws.n,
            patients=_patients(candidate, name),
            standing=_standing(is_certain, not reached),
            why=f"{draws.value:.3f} [{interval.low:.3f}, {interval.high:.3f}], {word} {limit:.3f} wanted, "
            f"{baseline:.3f} by {what}",
        )
    return compared


def _of_one_image(drawings: Drawings) -> float:
    """The distance of one average image every time: it has no spread, so that is the variance of the real ones."""
    return float(np.asarray(drawings.real_ND, dtype=np.float64).var(axis=0, ddof=1).sum())


def _draws(measured: Measurement, rule: GateRule) -> dict[str, Draws]:
    """The four metrics with their values on resampled patients: the same ones for whoever is measured."""
    reports, drawings = measured.reports, measured.drawings
    readers = Patients(reports.patients, rule.seed, rule.resamples)
    viewers = Patients(drawings.patients, rule.seed, rule.resamples)
    few = Patients(drawings.patients, rule.seed, rule.distance_resamples)
    written = clinical.agreement_draws(reports.predicted, reports.reference, readers)
    read = clinical.agreement_draws(drawings.read_back, drawings.prompted, viewers)
    rows = np.arange(few.num_samples)
    distances = [
        frechet_distance(drawings.real_ND[chosen], drawings.drawn_ND[chosen])
        for chosen in (np.repeat(rows, weights_P[few.patient_N]) for weights_P in few.weights_RP)
    ]
    value = frechet_distance(drawings.real_ND, drawings.drawn_ND)
    return {
        REPORT_MICRO: written["micro_f1_14"],
        REPORT_MACRO: written["macro_f1_14"],
        FRECHET: few.draws(value, np.asarray(distances)),
        READBACK: read["micro_f1_14"],
    }


def _patients(measured: Measurement, name: str) -> int:
    of = measured.reports if name in (REPORT_MICRO, REPORT_MACRO) else measured.drawings
    return len(set(of.patients))


def _must_be_alike(candidate: Measurement, champion: Measurement) -> None:
    for what, ours, theirs in (
        ("reports", candidate.reports.image_ids, champion.reports.image_ids),
        ("drawings", candidate.drawings.image_ids, champion.drawings.image_ids),
    ):
        if list(ours) != list(theirs):
            raise ConfigError(
                f"{what} of candidate and champion are of different samples ({len(ours)} and {len(theirs)}): evaluate "
                "both on the same frozen test set"
            )
    if candidate.drawings.encoder != champion.drawings.encoder:
        raise ConfigError("candidate's and champion's drawings were encoded by different encoders: use one for both")
