"""Checks of the data: the store's tables, a source's folder against its manifest, the shard sets."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unix.doctor.check import Check, DoctorConfig, shards_folder
from unix.errors import ConfigError, SourceError, UnixError
from unix.resources import resource

if TYPE_CHECKING:
    from unix.training.stages import TrainConfig

_IMAGES_LOOKED_FOR = 100


def check_store(config: DoctorConfig) -> Iterator[Check]:
    """Every table opens and has its columns."""
    from unix.store import SCHEMAS, Store

    store, found = Store(config.store), dict[str, int]()
    for table in SCHEMAS:
        try:
            at = store.version(table)
        except UnixError as error:
            yield Check(
                name=f"table {table}", state="missing", found=str(error), remedy="restore it, or use another --store"
            )
            continue
        if at is not None:
            found[table] = at
    if not found:
        yield Check(
            name="store",
            state="warning",
            found=f"{config.store} holds no table yet",
            remedy="`unix ingest --source NAME --root DIR` makes it",
        )
        return
    versions = ", ".join(f"{table} v{at}" for table, at in found.items())
    yield Check(name="store", state="ok", found=f"{config.store}: {versions}")
    if "splits" not in found:
        yield Check(name="splits", state="warning", found="not built yet", remedy="`unix clean`, then `unix splits`")


def check_source(config: DoctorConfig) -> Iterator[Check]:
    """The source's tables against its data manifest, its reports, and a spread of its images."""
    if config.source is None or config.root is None:
        return
    import polars as pl

    from unix.data.sources import get_source
    from unix.data.sources.manifest import load_manifest
    from unix.data.sources.tables import read_table

    get_source(config.source)
    manifest, root = load_manifest(source_manifest_name(config.source)), Path(config.root).resolve()
    fetch = f"fetch it from {manifest.obtain}"
    if not root.is_dir():
        yield Check(name="source", state="missing", found=f"there is no folder {root}", remedy=fetch)
        return
    tables = dict[str, pl.DataFrame]()
    for name, expected in manifest.tables.items():
        try:
            tables[name] = read_table(root, manifest, name)
        except SourceError as error:
            yield Check(name=f"source {name}", state="missing", found=str(error), remedy=fetch)
            continue
        rows, whole = tables[name].height, expected.rows
        part = whole is not None and rows != whole
        yield Check(
            name=f"source {name}",
            state="warning" if part else "ok",
            found=f"{expected.file}: {rows:,} rows" + (f" of {whole:,}" if part else ""),
            remedy=f"a part is enough for a trial; for all of it {fetch}" if part else "",
        )
    if config.source != "iu-xray":
        yield from _mimic_files(root, tables.get("metadata"), fetch)


def source_manifest_name(source: str) -> str:
    """Name of the data manifest that describes the source."""
    for path in sorted(resource("data_manifests").glob("*.yaml")):
        if re.search(rf"^source: {re.escape(source)}\s*$", path.read_text(encoding="utf-8"), re.MULTILINE):
            return path.stem
    raise ConfigError(f"source {source} has no data manifest")


def _mimic_files(root: Path, metadata: Any, fetch: str) -> Iterator[Check]:
    """Reports, and a spread of the images that the metadata names."""
    from unix.data.sources.mimic_cxr import FOLDER, REPORTS_ARCHIVE

    files = root / FOLDER
    if (root / REPORTS_ARCHIVE).is_file():
        yield Check(name="source reports", state="ok", found=REPORTS_ARCHIVE)
    elif next(islice(files.glob("p*/p*/*.txt"), 1), None) is not None:
        yield Check(name="source reports", state="ok", found=f"text files below {files}")
    else:
        yield Check(
            name="source reports",
            state="missing",
            found=f"neither {REPORTS_ARCHIVE} nor text files below {FOLDER}/",
            remedy=f"put {REPORTS_ARCHIVE} of MIMIC-CXR into {root}",
        )
    if metadata is None or not metadata.height:
        return
    sample = metadata.gather_every(max(1, metadata.height // _IMAGES_LOOKED_FOR)).head(_IMAGES_LOOKED_FOR)
    rows: list[tuple[str, str, str]] = sample.select("subject_id", "study_id", "dicom_id").rows()
    stems = [files / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / image for subject, study, image in rows]
    there = sum(any(stem.with_name(stem.name + end).is_file() for end in (".jpg", ".dcm")) for stem in stems)
    yield Check(
        name="source images",
        state="ok" if there == len(rows) else "warning" if there else "missing",
        found=f"{there} of {len(rows)} looked for are there",
        remedy="" if there == len(rows) else f"{fetch}; `unix ingest --complete` counts all of them",
    )


def set_names(stages: "list[TrainConfig]") -> list[str]:
    """The shard sets that the stages read, with their latents where they are read from shards."""
    names = list[str]()
    for stage in stages:
        extra = [stage.warm_start.autoencoder_set] if stage.warm_start is not None else []
        extra += [stage.mixture.understanding_set] if stage.mixture is not None and stage.mixture.understanding else []
        latents = stage.generation is not None and stage.generation.latents == "shards"
        names += [*extra, stage.data_set, *([f"{stage.data_set}-latents"] if latents else [])]
    return list(dict.fromkeys(names))


def check_sets(config: DoctorConfig, stages: "list[TrainConfig]") -> Iterator[Check]:
    """The shard sets that the stages read: published, and every shard as long as its manifest says."""
    from unix.manifest import find_manifest

    if stages and "://" in shards_folder(config):
        found = f"{shards_folder(config)} is an object store, so not looked at"
        yield Check(
            name="sets", state="warning", found=found, remedy="`unix shards verify` a local copy before the upload"
        )
        return
    for name in set_names(stages):
        folder = Path(shards_folder(config)) / name
        latents = name.endswith("-latents")
        make = "`unix shards latents --vae DIR`" if latents else f"`unix shards --sets {name}`"
        try:
            manifest = find_manifest(folder)
        except UnixError as error:
            yield Check(name=f"set {name}", state="missing", found=str(error), remedy=f"build it again with {make}")
            continue
        if manifest is None:
            yield Check(name=f"set {name}", state="missing", found=f"none in {folder}", remedy=f"{make} writes it")
            continue
        wrong = [shard.file for shard in manifest.shards if _size(folder / shard.file) != shard.bytes]
        yield Check(
            name=f"set {name}",
            state="missing" if wrong else "ok",
            found=f"{len(wrong)} of {len(manifest.shards)} shards are absent or cut off, first: {wrong[0]}"
            if wrong
            else f"release {manifest.release}: {manifest.live:,} samples in {len(manifest.shards)} shards",
            remedy="copy the set again, or rebuild it" if wrong else "",
        )


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
