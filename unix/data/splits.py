"""Which images serve which task, and in which split. One subject stands in one split, for every task, for good.

Understanding takes frontal images (AP, PA) of studies whose approved text has findings; an impression alone will not
do, since the counts that the field reports for MIMIC-CXR (163,344 / 2,365) come out only with findings. Generation
takes LLaVA-Rad's annotated images where those tables are given, else frontal images of studies with findings or an
impression; either way there must be approved text to caption them with.

A subject's split is the one it already has in the store; else the source's official one; else a seeded hash of its id.
"""

import hashlib
from typing import Self

import polars as pl
from pydantic import Field, model_validator

from unix.config import Config
from unix.data.annotations import read_annotations
from unix.data.approved import pin_cleaning, report_outcomes, unusable_text
from unix.data.sources.manifest import load_manifest
from unix.errors import SourceError, SplitError
from unix.records import FRONTAL_VIEWS, Rejection, Split, Task
from unix.store import SCHEMAS, Store

_SUBJECT = ("source", "subject_id")
_IMAGE = ("source", "image_id")
_NAMED = 5  # subjects named in an error


class SplitsConfig(Config):
    """What `build_splits` reads and how it treats subjects without an official split."""

    store: str
    prompt_version: str | None = None
    """Together with `model`, whose cleaned reports count; None: the only ones in the store."""
    model: str | None = None
    unattended: bool = False
    """Nobody is there to choose where several fit: then those that answer the most studies count."""
    annotations: str | None = None
    """Folder of LLaVA-Rad's annotation tables; they decide the generation split."""
    seed: int = 0
    validate_share: float = Field(default=0.05, ge=0, le=1)
    """Share of subjects without an official split that goes to `validate`; likewise `test_share`."""
    test_share: float = Field(default=0.10, ge=0, le=1)

    @model_validator(mode="after")
    def _shares_must_fit(self) -> Self:
        if self.validate_share + self.test_share > 1:
            raise ValueError(f"validate_share={self.validate_share} and test_share={self.test_share} add up to over 1")
        return self


class TaskSummary(Config):
    """One task: considered = sum of kept + sum of excluded."""

    rule: str
    considered: int
    kept: dict[str, int]
    """Split -> images."""
    excluded: dict[str, int]
    """Reason -> images."""
    expected: dict[str, int] = Field(default={})
    """Split -> images that others report of a complete copy; empty where nobody does, or in a store of several sources.
    Another cleaning accepts other reports, so a complete copy comes close and need not be equal.
    """


class SplitsSummary(Config):
    """What `build_splits` did."""

    prompt_version: str
    model: str
    images: int
    subjects: int
    """Subjects with at least one kept image."""
    changed: bool
    """Whether the table of splits differs from what it was."""
    subjects_kept_off_official: int
    """Subjects that keep an earlier split although the source's official one is another."""
    tasks: dict[str, TaskSummary]


def build_splits(config: SplitsConfig) -> SplitsSummary:
    """Fill the store's table of splits, in one commit, and nothing where it would not change.

    Raises:
        ConfigError: the cleaning to use is not clear.
        SourceError: the annotation tables are not as they must be, or an official split has an unknown name.
        SplitError: a subject would stand in two splits.
    """
    store = Store(config.store)
    cleaning = pin_cleaning(store, config.prompt_version, config.model, config.unattended)
    images = _images_with_outcomes(store, cleaning.prompt_version, cleaning.model)
    earlier = store.read("splits")
    subjects = assign_subjects(images, earlier, config.seed, config.validate_share, config.test_share)
    chosen = {Task.UNDERSTANDING: (_UNDERSTANDING_RULE, choose_for_understanding(images, subjects))}
    if config.annotations is None:
        chosen[Task.GENERATION] = (_GENERATION_RULE, choose_for_generation(images, subjects))
    else:
        annotations = read_annotations(config.annotations)
        chosen[Task.GENERATION] = (_ANNOTATED_RULE, choose_annotated(images, annotations))
    rows = pl.concat([_rows(task, candidates) for task, (_, candidates) in chosen.items()])
    refuse_leaks(pl.concat([rows.select(*_SUBJECT, "split"), earlier.select(*_SUBJECT, "split")]))
    order = ["task", "source", "image_id"]
    changed = not rows.sort(order).equals(earlier.sort(order))
    if changed:
        store.replace("splits", rows.sort(order))
    for task, (_, candidates) in chosen.items():
        store.replace_rejections(f"splits-{task}", _rejections(task, candidates))
    expected = _expected(images)
    return SplitsSummary(
        prompt_version=cleaning.prompt_version,
        model=cleaning.model,
        images=images.height,
        subjects=rows.select(_SUBJECT).n_unique(),
        changed=changed,
        subjects_kept_off_official=subjects.filter(pl.col("split") != pl.col("official")).height,
        tasks={
            task.value: _summary(rule, candidates, expected.get(task.value, {}))
            for task, (rule, candidates) in chosen.items()
        },
    )


_UNDERSTANDING_RULE = "frontal images of studies with approved findings"
_GENERATION_RULE = "frontal images of studies with approved findings or impression (no LLaVA-Rad annotations given)"
_ANNOTATED_RULE = "images of LLaVA-Rad's annotations, of studies with approved findings or impression"


def hash_split(source: str, subject_id: str, seed: int, validate_share: float, test_share: float) -> Split:
    """The split of a subject by a seeded hash of its identity: no other subject has a say in it."""
    digest = hashlib.sha256(f"{seed}/{source}/{subject_id}".encode()).digest()
    place = int.from_bytes(digest[:8]) / 2**64
    if place < test_share:
        return Split.TEST
    return Split.VALIDATE if place < test_share + validate_share else Split.TRAIN


def assign_subjects(
    images: pl.DataFrame, earlier: pl.DataFrame, seed: int, validate_share: float, test_share: float
) -> pl.DataFrame:
    """source, subject_id, official (or null), split of every subject of `images`.

    `images` needs source, subject_id, official_split; `earlier` is the table of splits so far.

    Raises:
        SourceError: an official split has an unknown name.
        SplitError: the official splits, or the earlier rows, put a subject into two.
    """
    official = images.select(*_SUBJECT, official=pl.col("official_split").replace("", None))
    if unknown := set(official["official"].drop_nulls()) - set(Split):
        raise SourceError(f"official splits {sorted(unknown)} are unknown; expected {[str(split) for split in Split]}")
    refuse_leaks(official.drop_nulls().rename({"official": "split"}))
    refuse_leaks(earlier)
    subjects = (
        official.group_by(_SUBJECT, maintain_order=True)
        .agg(pl.col("official").drop_nulls().first())
        .join(earlier.select(*_SUBJECT, before="split").unique(), on=_SUBJECT, how="left")
    )
    hashed = [
        hash_split(source, subject, seed, validate_share, test_share).value
        for source, subject in subjects.select(_SUBJECT).iter_rows()
    ]
    return subjects.select(
        *_SUBJECT,
        "official",
        split=pl.coalesce("before", "official", pl.Series(hashed, dtype=pl.String)),
    )


def choose_for_understanding(images: pl.DataFrame, subjects: pl.DataFrame) -> pl.DataFrame:
    """Every image with its split and the `reason` that excludes it from understanding, null where it is kept."""
    reason = pl.coalesce(_WITHDRAWN, _NOT_FRONTAL, unusable_text(Task.UNDERSTANDING))
    return images.join(subjects, on=_SUBJECT, how="left").with_columns(reason=reason)


def choose_for_generation(images: pl.DataFrame, subjects: pl.DataFrame) -> pl.DataFrame:
    """Every image with its split and the `reason` that excludes it from generation, null where it is kept."""
    reason = pl.coalesce(_WITHDRAWN, _NOT_FRONTAL, unusable_text(Task.GENERATION))
    return images.join(subjects, on=_SUBJECT, how="left").with_columns(reason=reason)


def choose_annotated(images: pl.DataFrame, annotations: pl.DataFrame) -> pl.DataFrame:
    """Every annotated image with the annotation's split and the `reason` that excludes it, null where it is kept."""
    repeated = pl.when(~pl.struct("image_id", "split").is_first_distinct()).then(pl.lit("repeated_annotation"))
    malformed = pl.when(pl.col("annotated_labels").is_null()).then(pl.lit("malformed_labels"))
    unknown = pl.when(pl.col("source").is_null()).then(pl.lit("not_in_store"))
    return (
        annotations.rename({"labels": "annotated_labels"})
        .join(images, on="image_id", how="left")
        .with_columns(reason=pl.coalesce(repeated, malformed, unknown, _WITHDRAWN, unusable_text(Task.GENERATION)))
        .with_columns(pl.col("source").fill_null("llava-rad"))
    )


def refuse_leaks(rows: pl.DataFrame) -> None:
    """Refuse rows (source, subject_id, split) that put a subject into two splits.

    Raises:
        SplitError: naming the first such subjects.
    """
    torn = rows.group_by(_SUBJECT).agg(pl.col("split").unique().sort()).filter(pl.col("split").list.len() > 1)
    if torn.height:
        named = [
            f"{source}/{subject} in {' and '.join(splits)}"
            for source, subject, splits in torn.sort(_SUBJECT).head(_NAMED).iter_rows()
        ]
        more = f" and {torn.height - _NAMED} more" if torn.height > _NAMED else ""
        raise SplitError(
            f"{torn.height} subjects would stand in two splits: {', '.join(named)}{more}. "
            "Correct the source's split table or the annotations; the store was not changed"
        )


_WITHDRAWN = pl.when(pl.col("withdrawn")).then(pl.lit("withdrawn"))
_NOT_FRONTAL = pl.when(~pl.col("view_position").fill_null("").is_in(sorted(FRONTAL_VIEWS))).then(pl.lit("not_frontal"))


def _images_with_outcomes(store: Store, prompt_version: str, model: str) -> pl.DataFrame:
    """Every image row with the outcome and text of its study; `withdrawn` where either is."""
    outcomes = report_outcomes(store, prompt_version, model).select(
        "source", "study_id", "outcome", "findings", "impression"
    )
    return (
        store.scan("images")
        .select(*_IMAGE, "study_id", "subject_id", "view_position", "official_split", "withdrawn")
        .join(outcomes, on=("source", "study_id"), how="left")
        # Outcomes exist for every study that is present.
        .with_columns(withdrawn=pl.col("withdrawn").fill_null(False) | pl.col("outcome").is_null())
        .sort(_IMAGE)
        .collect()
    )


def _rows(task: Task, candidates: pl.DataFrame) -> pl.DataFrame:
    kept = candidates.filter(pl.col("reason").is_null()).with_columns(task=pl.lit(task.value))
    return kept.select(SCHEMAS["splits"].names())


def _rejections(task: Task, candidates: pl.DataFrame) -> list[Rejection]:
    excluded = candidates.filter(pl.col("reason").is_not_null()).select("source", "image_id", "reason")
    return [Rejection(f"splits-{task}", source, image, reason) for source, image, reason in excluded.iter_rows()]


def _expected(images: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Task -> split -> images that others report of the store's only source."""
    reported = images["source"].unique().to_list() == ["mimic-cxr"]
    return load_manifest("mimic-cxr-jpg-2.0.0").tasks if reported else {}


def _summary(rule: str, candidates: pl.DataFrame, expected: dict[str, int]) -> TaskSummary:
    kept = candidates.filter(pl.col("reason").is_null())["split"].value_counts().rows()
    excluded = candidates["reason"].drop_nulls().value_counts().sort("count", descending=True).rows()
    counts: dict[str, int] = dict(kept)
    return TaskSummary(
        rule=rule,
        considered=candidates.height,
        kept={split.value: counts.get(split.value, 0) for split in Split},
        excluded=dict(excluded),
        expected=expected,
    )
