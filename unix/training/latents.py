"""`unix shards latents`: encode a generation set once, so that stages 2 and 3 skip the image autoencoder.

Every shard of images gets a shard of latents with the same name and keys. What was encoded before is kept.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from pydantic import PositiveInt

from unix.config import Config
from unix.data.shard_card import write_latents_card
from unix.data.shard_index import ShardIndex, index_file, read_index
from unix.data.shard_writer import ShardWriter, parse_shard_file
from unix.data.stream import ShardReader
from unix.errors import ConfigError, ShardError
from unix.manifest import Manifest, Parents, ShardEntry, code_revision, find_manifest, publish_manifest, read_manifest
from unix.model.latent import ImageCodec
from unix.model.weights.native import load_codec
from unix.progress import Progress
from unix.records import Split, Task
from unix.runs import newest_step
from unix.training.encodings import ImageFunction, codec_moments

MEMBERS = ("npy",)


class LatentsConfig(Config):
    """Which sets to encode, and with what."""

    shards: str
    """Folder of the shard sets."""
    sets: tuple[str, ...] = ()
    """Names of generation sets; empty: every one there."""
    vae: str
    """A checkpoint's folder, or one that holds `vae.safetensors` and `vae.json`."""
    batch: PositiveInt = 32
    """Images in one forward pass."""


class LatentSetSummary(Config):
    """One set of latents."""

    set: str
    release: str
    samples: int
    encoded: int
    """Samples encoded by this run; the rest were there."""


class LatentsSummary(Config):
    """What the job came to."""

    vae_digest: str
    sets: tuple[LatentSetSummary, ...]


def precompute_latents(config: LatentsConfig) -> LatentsSummary:
    """Write `<set>-latents` beside every chosen set: float16 moments, mean before log-variance.

    Raises:
        ConfigError: there is no such generation set.
        ShardError: latents of another autoencoder stand in the way.
        WeightsError: the autoencoder is missing or damaged.
    """
    folder = newest_step(Path(config.vae)) if not (Path(config.vae) / "vae.json").is_file() else Path(config.vae)
    codec = load_codec(folder).eval()
    if torch.cuda.is_available():
        codec.to("cuda")
    digest = hashlib.sha256((folder / "vae.safetensors").read_bytes()).hexdigest()
    sets = tuple(_encode_set(path, codec, digest, config.batch) for path in _chosen(config))
    return LatentsSummary(vae_digest=digest, sets=sets)


def _chosen(config: LatentsConfig) -> list[Path]:
    root = Path(config.shards)
    there = {
        path.parent.name: path.parent
        for path in sorted(root.glob(f"{Task.GENERATION}-*/manifest.json"))
        if not path.parent.name.endswith("-latents")
    }
    missing = [name for name in config.sets if name not in there]
    if missing or not there:
        raise ConfigError(
            f"{root} has no generation set {', '.join(missing) or 'at all'}; it has: {', '.join(there) or 'none'}"
        )
    return [there[name] for name in config.sets or there]


def _encode_set(images: Path, codec: ImageCodec, vae_digest: str, batch: int) -> LatentSetSummary:
    manifest = read_manifest(images)
    target = images.with_name(f"{images.name}-latents")
    encode = codec_moments(codec)
    entries: list[ShardEntry] = []
    encoded = 0
    with Progress(f"encode {images.name}", manifest.live) as progress:
        for split in Split:
            with ShardReader(images, split) as reader:
                first = 0
                for shard in manifest.split_shards(split):
                    indices = range(first, first + shard.live)
                    first += shard.live
                    entry = _kept(target, shard, [reader.keys[index] for index in indices], vae_digest)
                    if entry is None:
                        entry = _encode_shard(target, shard, reader, indices, encode, vae_digest, batch)
                        encoded += entry.samples
                    entries.append(entry)
                    progress.advance(shard.live)
    released = _publish(target, manifest, entries, vae_digest)
    write_latents_card(target, released, images)
    return LatentSetSummary(set=released.set, release=released.release, samples=released.live, encoded=encoded)


def _kept(target: Path, shard: ShardEntry, live: list[str], vae_digest: str) -> ShardEntry | None:
    """The entry of a shard that an earlier run finished, None where there is none."""
    if not (target / shard.file).is_file():
        return None
    index: ShardIndex = read_index(target, shard.file)
    if any(digest != vae_digest for digest in index.digests) or not set(live) <= set(index.keys):
        raise ShardError(
            f"{target / shard.file} holds latents of another autoencoder or of other images: remove {target} first"
        )
    return ShardEntry(
        file=shard.file,
        split=shard.split,
        samples=index.samples,
        bytes=index.bytes,
        sha256=index.sha256,
        index_sha256=hashlib.sha256((target / index_file(shard.file)).read_bytes()).hexdigest(),
        superseded=tuple(sorted(set(index.keys) - set(live))),
    )


def _encode_shard(
    target: Path,
    shard: ShardEntry,
    reader: ShardReader,
    indices: range,
    encode: ImageFunction,
    vae_digest: str,
    batch: int,
) -> ShardEntry:
    named = parse_shard_file(shard.file)
    if named is None:
        raise ShardError(f"{reader.folder}: {shard.file} is no shard's name")
    with ShardWriter(target, *named, MEMBERS) as writer:
        for start in range(indices.start, indices.stop, batch):
            samples = reader.read_many(range(start, min(start + batch, indices.stop)))
            moments = encode([sample.image for sample in samples]).cpu().numpy().astype(np.float16)
            for sample, row in zip(samples, moments, strict=True):
                content = io.BytesIO()
                np.save(content, row, allow_pickle=False)
                writer.add(sample.image_id, {"npy": content.getvalue()}, vae_digest)
        return writer.finish()


def _publish(target: Path, images: Manifest, entries: list[ShardEntry], vae_digest: str) -> Manifest:
    present = find_manifest(target)
    known = frozenset(shard.file for shard in present.shards) if present else frozenset[str]()
    live = sum(entry.live for entry in entries)
    before = sum(len(shard.superseded) for shard in present.shards) if present else 0
    manifest = Manifest(
        set=target.name,
        task=images.task,
        size=images.size,
        members=MEMBERS,
        parents=Parents(
            code_revision=code_revision(),
            configuration_digest=images.parents.configuration_digest,
            artifacts={"vae": vae_digest, "images": images.release},
        ),
        parent_release=present.release if present else None,
        added_shards=tuple(entry.file for entry in entries if entry.file not in known),
        superseded_samples=sum(len(entry.superseded) for entry in entries) - before,
        considered=live,
        excluded={},
        shards=tuple(entries),
    )
    if present is not None and present.shards == manifest.shards:
        return present
    return publish_manifest(target, manifest)
