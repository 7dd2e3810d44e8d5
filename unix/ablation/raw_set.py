"""A shard set's training split with the reports as they were written, in place of the cleaned ones."""

import json
from pathlib import Path

import polars as pl

from unix.data.shard_writer import ShardWriter
from unix.data.stream import ShardReader
from unix.errors import StoreError
from unix.manifest import Manifest, Parents, ShardEntry, code_revision, find_manifest, publish_manifest
from unix.progress import track
from unix.records import Split
from unix.store import Store

_PARENT = "cleaned_set"


def write_raw_set(cleaned: ShardReader, store: Store, folder: Path) -> Manifest:
    """Copy the training split `cleaned` to `folder`, images byte for byte, each report's two sections as written.

    Where a report has neither section, its whole text stands in as findings. Line breaks become spaces, since
    wrapping at 80 columns is no noise. A finished copy of the same release is kept.

    Raises:
        StoreError: the store does not have the report of a sample; the message says of how many, and names one.
    """
    parents = Parents(
        code_revision=code_revision(),
        configuration_digest="raw",
        artifacts={_PARENT: cleaned.manifest.release},
    )
    there = find_manifest(folder)
    if there is not None and there.parents.artifacts == parents.artifacts:
        return there
    texts = _texts(cleaned, store)
    shards: list[ShardEntry] = []
    start = 0
    for number, count in enumerate(cleaned.samples_per_shard.tolist()):
        with ShardWriter(folder, Split.TRAIN, number, cleaned.manifest.members) as writer:
            for index in track(range(start, start + count), f"raw reports, shard {number}", count):
                key, members = cleaned.read_members(index)
                record = json.loads(members["json"])
                record["findings"], record["impression"] = texts[key]
                writer.add(key, {**members, "json": json.dumps(record, ensure_ascii=False).encode()})
            shards.append(writer.finish())
        start += count
    manifest = cleaned.manifest.model_copy(
        update={
            "release": "",
            "parents": parents,
            "parent_release": None,
            "added_shards": tuple(shard.file for shard in shards),
            "superseded_samples": 0,
            "considered": cleaned.samples,
            "excluded": {},
            "shards": tuple(shards),
        }
    )
    return publish_manifest(folder, manifest)


def _texts(cleaned: ShardReader, store: Store) -> dict[str, tuple[str, str]]:
    """Findings and impression as written, by image id."""
    records = [json.loads(cleaned.read_member(index, "json")) for index in range(cleaned.samples)]
    wanted = pl.DataFrame(
        [(record["image_id"], record["source"], record["study_id"], record["report_sha256"]) for record in records],
        schema=dict.fromkeys(("image_id", "source", "study_id", "report_sha256"), pl.String),
        orient="row",
    )
    columns = ("source", "study_id", "report_sha256", "report_raw", "findings_raw", "impression_raw")
    written = wanted.join(
        store.scan("studies").select(columns).collect(), on=["source", "study_id", "report_sha256"], how="left"
    )
    if lost := written.filter(pl.col("report_raw").is_null())["image_id"].to_list():
        raise StoreError(
            f"{store.uri} has no report for {len(lost)} of {len(records)} samples of {cleaned} (such as {lost[0]}): "
            "use the store that the shards were built from"
        )
    texts: dict[str, tuple[str, str]] = {}
    for key, whole, findings, impression in written.select(
        "image_id", "report_raw", "findings_raw", "impression_raw"
    ).iter_rows():
        sections = (_flowing(findings or ""), _flowing(impression or ""))
        texts[key] = sections if any(sections) else (_flowing(whole), "")
    return texts


def _flowing(text: str) -> str:
    return " ".join(text.split())
