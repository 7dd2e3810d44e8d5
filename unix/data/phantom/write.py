"""Writes a phantom as a MIMIC-CXR-JPG folder: reports, radiographs, the CSVs, and the truth beside them.

Study i depends on (seed, i) and the wording alone, so a phantom of more studies extends a smaller one and a rerun
writes the same bytes. Work is split into partitions of consecutive studies, one process each; the CSVs come last.
"""

import gzip
import io
import json
import multiprocessing
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from pydantic import Field

from unix.config import Config
from unix.data.phantom.render import Pixels, render
from unix.data.phantom.report import wording_digest, write_report
from unix.data.phantom.study import Projection, StudyPlan, plan_study
from unix.data.phantom.truth import TRUTH_FOLDER, truth_frame
from unix.errors import ConfigError
from unix.progress import Progress
from unix.records import CHEXPERT_14, Labels

_PARTITION = 1_000
_PARTITION_WITH_IMAGES = 50
_JPEG_QUALITY = 95
_POOL_FOLDER = ".pool"
_REPORTS_ZIP = "mimic-cxr-reports.zip"
_DESCRIPTION_FILE = "phantom.json"

_METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)
_HEADERS = {
    "mimic-cxr-2.0.0-metadata.csv.gz": _METADATA,
    "mimic-cxr-2.0.0-split.csv.gz": "dicom_id,study_id,subject_id,split",
    "mimic-cxr-2.0.0-chexpert.csv.gz": ",".join(("subject_id", "study_id", *CHEXPERT_14)),
    "cxr-record-list.csv.gz": "subject_id,study_id,dicom_id,path",
    "cxr-study-list.csv.gz": "subject_id,study_id,path",
}
_PROCEDURES = {
    Projection.PORTABLE: "CHEST (PORTABLE AP)",
    Projection.SINGLE: "CHEST (SINGLE VIEW)",
    Projection.TWO_VIEWS: "CHEST (PA AND LAT)",
}
_VIEW_NAMES = {"AP": "antero-posterior", "PA": "postero-anterior", "LATERAL": "lateral"}


class PhantomConfig(Config):
    """What to write. The same `seed` with more `studies` gives the same studies and more."""

    studies: int = Field(ge=1, description="number of studies")
    out: str = Field(description="folder to write, in MIMIC-CXR-JPG's layout")
    seed: int = Field(default=0, ge=0)
    first_study: int = Field(default=0, ge=0, description="index of the first study: later studies of the same seed")
    image_size: int = Field(default=160, ge=32, le=4096, description="long side of a radiograph in pixels")
    images: bool = Field(default=True, description="False writes reports, CSVs and truth only")
    image_pool: int | None = Field(
        default=None, ge=1, description="draw so many studies' images and give them out again under new ids"
    )
    reports_zip: bool = Field(default=False, description=f"write {_REPORTS_ZIP} in place of text files")
    validate_share: float = Field(default=0.05, ge=0, le=1)
    test_share: float = Field(default=0.15, ge=0, le=1)
    wording: str | None = Field(
        default=None, description="folder whose phrases.yaml and noise.yaml replace the package's own words"
    )
    workers: int | None = Field(default=None, ge=1, description="processes; default: one per core")


class PhantomSummary(Config):
    """What was written."""

    out: str
    studies: int
    images: int
    subjects: int
    normal_studies: int
    image_bytes: int


@dataclass(frozen=True, slots=True)
class _Partition:
    config: PhantomConfig
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Written:
    """A partition's account: lines of each CSV, and texts for the zip."""

    lines: dict[str, list[str]]
    texts: list[tuple[str, str]]
    subjects: frozenset[str]
    studies: int
    images: int
    normal_studies: int
    image_bytes: int


_Job = Callable[[_Partition], _Written]


def write_phantom(config: PhantomConfig) -> PhantomSummary:
    """Write the phantom; existing files of the same name are replaced only where they differ.

    Raises:
        ConfigError: the shares of validate and test add up to more than one, `out` cannot be written, or `wording`
            is malformed.
    """
    if config.validate_share + config.test_share > 1:
        raise ConfigError(f"validate_share {config.validate_share} + test_share {config.test_share} is more than 1")
    words = wording_digest(config.wording)
    out = Path(config.out)
    try:
        (out / TRUTH_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write the phantom to {out}: {error.strerror}") from error
    for stale in (out / TRUTH_FOLDER).glob("part-*.parquet"):
        stale.unlink()
    if config.images and config.image_pool is not None:
        pooled = min(config.image_pool, config.studies + config.first_study)
        _run(_draw_pool, _partitions(config, 0, pooled, _PARTITION_WITH_IMAGES), "drawing the pool", config)
    size = _PARTITION_WITH_IMAGES if config.images and config.image_pool is None else _PARTITION
    stop = config.first_study + config.studies
    written = _run(_write_partition, _partitions(config, config.first_study, stop, size), "writing studies", config)
    shutil.rmtree(out / _POOL_FOLDER, ignore_errors=True)
    if config.reports_zip:
        _write_zip(out / _REPORTS_ZIP, (text for part in written for text in part.texts))
    for name, header in _HEADERS.items():
        lines = [header, *(line for part in written for line in part.lines[name])]
        _write_if_changed(out / name, gzip.compress(("\n".join(lines) + "\n").encode(), compresslevel=4, mtime=0))
    described = config.model_dump(exclude={"out", "workers"}) | {"wording": words}
    _write_if_changed(out / _DESCRIPTION_FILE, (json.dumps(described, indent=2) + "\n").encode())
    return PhantomSummary(
        out=str(out),
        studies=sum(part.studies for part in written),
        images=sum(part.images for part in written),
        subjects=len(frozenset[str]().union(*(part.subjects for part in written))),
        normal_studies=sum(part.normal_studies for part in written),
        image_bytes=sum(part.image_bytes for part in written),
    )


def _partitions(config: PhantomConfig, first: int, stop: int, size: int) -> list[_Partition]:
    return [_Partition(config, start, min(start + size, stop)) for start in range(first, stop, size)]


def _run(job: _Job, partitions: list[_Partition], label: str, config: PhantomConfig) -> list[_Written]:
    """Run the partitions over processes, or here where one is enough; results in the partitions' order."""
    workers = min(config.workers or len(os.sched_getaffinity(0)), len(partitions))
    total = sum(partition.stop - partition.first for partition in partitions)
    results: list[_Written] = []
    with Progress(label, total) as progress:
        if workers == 1:
            for partition in partitions:
                results.append(job(partition))
                progress.advance(partition.stop - partition.first)
            return results
        # Spawned, not forked: the caller may run threads (torch, polars) that a fork would break.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            for partition, result in zip(partitions, pool.map(job, partitions), strict=True):
                results.append(result)
                progress.advance(partition.stop - partition.first)
    return results


def _write_partition(partition: _Partition) -> _Written:
    config, out = partition.config, Path(partition.config.out)
    studies = [(plan, write_report(plan, config.wording)) for plan in _plans(partition)]
    lines: dict[str, list[str]] = {name: [] for name in _HEADERS}
    texts: list[tuple[str, str]] = []
    num_images = num_bytes = num_normal = 0
    folders: set[Path] = set()
    for plan, report in studies:
        folder = _study_folder(plan)
        if config.reports_zip:
            texts.append((f"{folder}.txt", report.raw.text))
        else:
            path = out / f"{folder}.txt"
            if path.parent not in folders:
                path.parent.mkdir(parents=True, exist_ok=True)
                folders.add(path.parent)
            _write_if_changed(path, report.raw.text.encode())
        if config.images:
            num_bytes += _write_images(out, plan, config.image_pool)
        num_images += len(plan.views)
        num_normal += not plan.findings
        _add_lines(lines, plan, report.clean.labels, folder)
    name = f"part-{partition.first:08d}.parquet"
    buffer = io.BytesIO()
    truth_frame(studies).write_parquet(buffer)
    _write_if_changed(out / TRUTH_FOLDER / name, buffer.getvalue())
    subjects = frozenset(plan.subject_id for plan, _ in studies)
    return _Written(lines, texts, subjects, len(studies), num_images, num_normal, num_bytes)


def _draw_pool(partition: _Partition) -> _Written:
    folder = Path(partition.config.out) / _POOL_FOLDER
    folder.mkdir(exist_ok=True)
    for plan in _plans(partition):
        for number, pixels in enumerate(_draw(plan)):
            (folder / _pool_name(plan.content, number)).write_bytes(_jpeg(pixels))
    return _Written({}, [], frozenset(), 0, 0, 0, 0)


def _plans(partition: _Partition) -> Iterable[StudyPlan]:
    config = partition.config
    shares = (config.validate_share, config.test_share)
    for index in range(partition.first, partition.stop):
        yield plan_study(config.seed, index, config.image_size, shares, config.image_pool)


def _write_images(out: Path, plan: StudyPlan, image_pool: int | None) -> int:
    folder = out / _study_folder(plan)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{view.image_id}.jpg" for view in plan.views]
    if image_pool is None:
        for path, pixels in zip(paths, _draw(plan), strict=True):
            _write_if_changed(path, _jpeg(pixels))
    else:
        for number, path in enumerate(paths):
            shutil.copyfile(out / _POOL_FOLDER / _pool_name(plan.content, number), path)
    return sum(path.stat().st_size for path in paths)


def _draw(plan: StudyPlan) -> Iterable[Pixels]:
    for number, view in enumerate(plan.views):
        yield render(plan.seed, plan.content, number, plan.findings, view.view_position, view.rows, view.columns)


def _jpeg(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _pool_name(content: int, number: int) -> str:
    return f"{content:08d}-{number}.jpg"


def _study_folder(plan: StudyPlan) -> str:
    return f"files/p{plan.subject_id[:2]}/p{plan.subject_id}/s{plan.study_id}"


def _add_lines(lines: dict[str, list[str]], plan: StudyPlan, labels: Labels, folder: str) -> None:
    subject, study = plan.subject_id, plan.study_id
    for view in plan.views:
        procedure = _PROCEDURES[plan.projection]
        lines["mimic-cxr-2.0.0-metadata.csv.gz"].append(
            f"{view.image_id},{subject},{study},{procedure},{view.view_position},{view.rows},{view.columns},"
            f"{plan.date},{plan.time},{procedure},{_VIEW_NAMES[view.view_position]},Erect"
        )
        lines["mimic-cxr-2.0.0-split.csv.gz"].append(f"{view.image_id},{study},{subject},{plan.split}")
        lines["cxr-record-list.csv.gz"].append(f"{subject},{study},{view.image_id},{folder}/{view.image_id}.dcm")
    lines["cxr-study-list.csv.gz"].append(f"{subject},{study},{folder}.txt")
    marks = ("" if labels[name] is None else f"{labels[name]}.0" for name in CHEXPERT_14)
    lines["mimic-cxr-2.0.0-chexpert.csv.gz"].append(",".join((subject, study, *marks)))


def _write_zip(path: Path, texts: Iterable[tuple[str, str]]) -> None:
    aside = path.with_suffix(".partial")
    with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED, compresslevel=4) as archive:
        for name, text in texts:
            # A fixed time, so that the same phantom is the same file.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text, zipfile.ZIP_DEFLATED)
    aside.replace(path)


def _write_if_changed(path: Path, content: bytes) -> None:
    """Leave a file that is right already alone, times included, so that ingest sees only what is new."""
    try:
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return
    except FileNotFoundError:
        pass
    path.write_bytes(content)
