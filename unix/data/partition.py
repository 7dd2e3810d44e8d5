"""One partition of a build: decode each of its images once and write its samples into every set that wants them.

A partition's inputs lie in one file of the build folder and its outcome in another, written last, so that any process
on any machine that sees the folders can do it, and doing it twice is harmless. Nothing here knows the store.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from unix.config import Config
from unix.data.images import PictureEncoding, squares
from unix.data.shard_writer import ShardWriter
from unix.errors import ImageError
from unix.manifest import ShardEntry, write_atomically
from unix.records import Labels, Split, Task


def image_members(encoding: PictureEncoding) -> tuple[str, str]:
    """File extensions of a sample of an image set."""
    return encoding.format, "json"


class SetSpec(Config):
    """A shard set of images."""

    name: str
    task: Task
    size: int
    """Side of the pictures in pixels."""


class SampleRecord(Config):
    """What a sample's JSON member says, but for the caption; see CONTRACTS for the meanings."""

    image_id: str
    study_id: str
    subject_id: str
    source: str
    split: Split
    findings: str
    impression: str
    labels: Labels | None
    view_position: str
    prompt_version: str
    model: str
    report_sha256: str

    @property
    def caption(self) -> str:
        """What a drawing model is asked for: the impression where there is one, else the findings."""
        return self.impression or self.findings


class PartitionImage(Config):
    """One input of a partition: a source image and the sets it goes into."""

    path: str
    sets: tuple[str, ...]
    made_from: str
    """Digest of everything that its samples are made from."""
    record: SampleRecord


class Exclusion(Config):
    """A candidate without a sample, and why."""

    source: str
    image_id: str
    reason: str
    detail: str = ""


class PartitionResult(Config):
    """What came of a partition."""

    shards: dict[str, ShardEntry]
    """Set -> its shard; a set that got no sample is absent."""
    unreadable: dict[str, tuple[Exclusion, ...]]
    """Set -> images that it wanted and that could not be read."""


class Partition(Config):
    """One unit of a build: images of one split that share a shard number in every set."""

    split: Split
    number: int
    num_images: int

    @property
    def name(self) -> str:
        """Such as `train-000000`."""
        return f"{self.split}-{self.number:06d}"


def write_inputs(build: Path, partition: Partition, images: list[PartitionImage]) -> None:
    """Put a partition's images, in member order, into the build folder."""
    lines = (image.model_dump_json() + "\n" for image in images)
    write_atomically(build / f"{partition.name}.inputs.jsonl", "".join(lines).encode())


def read_result(build: Path, partition: Partition) -> PartitionResult | None:
    """What came of a partition, None while it is not finished."""
    path = build / f"{partition.name}.result.json"
    return PartitionResult.model_validate_json(path.read_bytes()) if path.exists() else None


def write_partition(
    build: Path, out: Path, partition: Partition, sets: tuple[SetSpec, ...], encoding: PictureEncoding
) -> int:
    """Write a partition's shards into `out`/<set>/ unless that is done already. Returns its number of images.

    Raises:
        ShardError: a key is not one, or repeats.
    """
    if read_result(build, partition) is not None:
        return partition.num_images
    specs = {spec.name: spec for spec in sets}
    writers: dict[str, ShardWriter] = {}
    unreadable: dict[str, list[Exclusion]] = {}
    with contextlib.ExitStack() as stack:
        for image in _read_inputs(build, partition):
            wanted = [specs[name] for name in image.sets]
            record = image.record
            try:
                pictures = squares(_read_file(image.path), {spec.size for spec in wanted})
            except ImageError as error:
                refused = Exclusion(
                    source=record.source, image_id=record.image_id, reason=error.reason, detail=error.detail
                )
                for spec in wanted:
                    unreadable.setdefault(spec.name, []).append(refused)
                continue
            files = {size: encoding.encode(pixels) for size, pixels in pictures.items()}
            for spec in wanted:
                if spec.name not in writers:
                    writer = ShardWriter(out / spec.name, partition.split, partition.number, image_members(encoding))
                    writers[spec.name] = stack.enter_context(writer)
                members = {encoding.format: files[spec.size], "json": _describe(record, spec.task)}
                writers[spec.name].add(record.image_id, members, image.made_from)
        result = PartitionResult(
            shards={name: writer.finish() for name, writer in sorted(writers.items())},
            unreadable={name: tuple(refused) for name, refused in sorted(unreadable.items())},
        )
    write_atomically(build / f"{partition.name}.result.json", result.model_dump_json().encode())
    return partition.num_images


def _read_inputs(build: Path, partition: Partition) -> Iterator[PartitionImage]:
    with (build / f"{partition.name}.inputs.jsonl").open("rb") as lines:
        for line in lines:
            yield PartitionImage.model_validate_json(line)


def _read_file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ImageError("missing_image_file", "no such file") from error
    except OSError as error:
        raise ImageError("unreadable_image", error.strerror or type(error).__name__) from error


def _describe(record: SampleRecord, task: Task) -> bytes:
    fields = record.model_dump(mode="json")
    if task == Task.GENERATION:
        fields["caption"] = record.caption
    return json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
