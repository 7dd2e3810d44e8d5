"""The plan of a synthetic study: its identity, its images and what they show, from (seed, study index) alone."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from unix.data.phantom.draws import Draws
from unix.data.phantom.findings import Finding, draw_findings
from unix.records import Split

_ID_SPACE = 10_000_000
"""Subject ids are 1xxxxxxx and study ids 5xxxxxxx: seven free digits."""
_SUBJECT_BLOCK = 6
"""A subject's studies are neighbours within a block of this many, so a study's subject needs no look at the others."""
_NEW_SUBJECT_SHARE = 0.6

_FRAMES = ((3056, 2544), (2544, 3056), (2500, 2048), (2140, 1760), (2022, 2022), (2836, 2336), (2048, 2500))
"""(rows, columns) of common detectors; only their proportions are kept."""


class Projection(StrEnum):
    """How a study was taken, as its report speaks of it."""

    PORTABLE = "portable"
    SINGLE = "single"
    TWO_VIEWS = "two views"


@dataclass(frozen=True, slots=True)
class View:
    """One radiograph to be drawn. `view_position` is AP, PA or LATERAL."""

    image_id: str
    view_position: str
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """Everything about study `index` but its words and pixels.

    `content` is the index whose findings and images it shows: its own, or that of a pool's study.
    """

    seed: int
    index: int
    content: int
    subject_id: str
    study_id: str
    split: Split
    date: str
    time: str
    findings: tuple[Finding, ...]
    views: tuple[View, ...]

    @property
    def projection(self) -> Projection:
        """How the study was taken."""
        positions = {view.view_position for view in self.views}
        if len(positions) > 1:
            return Projection.TWO_VIEWS
        return Projection.PORTABLE if "AP" in positions else Projection.SINGLE


def plan_study(
    seed: int, index: int, image_size: int, shares: tuple[float, float], image_pool: int | None = None
) -> StudyPlan:
    """Plan study `index`. `shares` are those of validate and test; `image_size` is the long side in pixels."""
    content = index if image_pool is None else index % image_pool
    first = _first_study_of_subject(seed, index)
    moment, subject = Draws(seed, index, "moment"), Draws(seed, first, "subject")
    return StudyPlan(
        seed=seed,
        index=index,
        content=content,
        subject_id=f"1{_permuted(seed, first, 'subject'):07d}",
        study_id=f"5{_permuted(seed, index, 'study'):07d}",
        split=_split(subject, shares),
        date=f"{2110 + subject.below(80) + index - first:04d}{1 + moment.below(12):02d}{1 + moment.below(28):02d}",
        time=f"{moment.below(24):02d}{moment.below(60):02d}{moment.below(60):02d}.{moment.below(1000):03d}",
        findings=draw_findings(seed, content),
        views=_draw_views(seed, index, content, image_size),
    )


def _draw_views(seed: int, index: int, content: int, image_size: int) -> tuple[View, ...]:
    draws = Draws(seed, content, "views")
    frontal = draws.choose(("AP", "PA"))
    choices: list[tuple[str, ...]] = [(frontal,), (frontal, "LATERAL"), ("LATERAL",)]
    positions = draws.weighted(choices, (0.74, 0.23, 0.03))
    views: list[View] = []
    for number, position in enumerate(positions):
        rows, columns = draws.choose(_FRAMES)
        scale = image_size / max(rows, columns)
        views.append(View(_image_id(seed, index, number), position, round(rows * scale), round(columns * scale)))
    return tuple(views)


def _first_study_of_subject(seed: int, index: int) -> int:
    while index % _SUBJECT_BLOCK and not Draws(seed, index, "new subject").chance(_NEW_SUBJECT_SHARE):
        index -= 1
    return index


def _split(subject: Draws, shares: tuple[float, float]) -> Split:
    number = subject.uniform()
    validate, test = shares
    if number < test:
        return Split.TEST
    return Split.VALIDATE if number < test + validate else Split.TRAIN


def _permuted(seed: int, index: int, purpose: str) -> int:
    """A bijection of [0, 10^7) keyed by the seed: ids look unordered and cannot collide."""
    factor, offset = _permutation(seed, purpose)
    return (index % _ID_SPACE * factor + offset) % _ID_SPACE


@cache
def _permutation(seed: int, purpose: str) -> tuple[int, int]:
    draws = Draws(seed, 0, f"{purpose} ids")
    # The factor ends in 3: it is coprime to 10^7, so multiplying permutes.
    return draws.below(_ID_SPACE // 10) * 10 + 3, draws.below(_ID_SPACE)


def _image_id(seed: int, index: int, number: int) -> str:
    digest = hashlib.blake2b(f"{seed}/{index}/{number}".encode(), digest_size=20).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))
