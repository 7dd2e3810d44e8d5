"""CPU seconds to write small samples: our writer beside tarfile and the writers of webdataset and its alternatives.

Every side writes the same encoded pictures and records, from memory, in one process. Ours also computes CRC32C, SHA-256
and an index; `payload` only writes the bytes into one file, the floor.

    python benchmarks/shards_write.py --json write.json
"""

import io
import itertools
import json
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from in_turns import arguments, in_turns, median, pythons, report, samples_of, version

SIDES = ("ours", "payload", "tarfile", "webdataset", "streaming", "litdata", "datasets")
PEERS = ("webdataset", "streaming", "litdata", "datasets")
PACKAGES = {"streaming": "mosaicml-streaming"}
PER_SHARD = 1000

Samples = list[tuple[str, bytes, bytes]]


def shards(samples: Samples) -> list[Samples]:
    """The samples of each shard."""
    return [samples[first : first + PER_SHARD] for first in range(0, len(samples), PER_SHARD)]


def ours(samples: Samples, folder: Path) -> None:
    """Tars, indexes, digests."""
    from unix.data.shard_writer import ShardWriter
    from unix.records import Split

    for number, of_shard in enumerate(shards(samples)):
        with ShardWriter(folder, Split.TRAIN, number, ("jpg", "json")) as writer:
            for key, picture, record in of_shard:
                writer.add(key, {"jpg": picture, "json": record})
            writer.finish()


def payload(samples: Samples, folder: Path) -> None:
    """The bytes alone."""
    with (folder / "payload").open("wb") as file:
        for _, picture, record in samples:
            file.write(picture)
            file.write(record)


def with_tarfile(samples: Samples, folder: Path) -> None:
    """The standard library's plain ustar."""
    for number, of_shard in enumerate(shards(samples)):
        with tarfile.open(folder / f"{number}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for key, picture, record in of_shard:
                for name, content in ((f"{key}.jpg", picture), (f"{key}.json", record)):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def webdataset(samples: Samples, folder: Path) -> None:
    """Its ShardWriter."""
    import webdataset as library

    with library.ShardWriter(str(folder / "%06d.tar"), maxcount=PER_SHARD, verbose=0) as writer:
        for key, picture, record in samples:
            writer.write({"__key__": key, "jpg": picture, "json": record})


def streaming(samples: Samples, folder: Path) -> None:
    """mosaicml-streaming's MDSWriter."""
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"jpg": "bytes", "json": "bytes"}, size_limit=2**25) as writer:
        for _, picture, record in samples:
            writer.write({"jpg": picture, "json": record})


def litdata(samples: Samples, folder: Path) -> None:
    """Its BinaryWriter, which `optimize` uses in each of its processes."""
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_bytes=2**25)
    for number, (_, picture, record) in enumerate(samples):
        writer[number] = {"jpg": picture, "json": record}
    writer.done()
    writer.merge()


def datasets(samples: Samples, folder: Path) -> None:
    """Parquet through a Hugging Face dataset."""
    from datasets import Dataset

    for number, of_shard in enumerate(shards(samples)):
        _, pictures, records = zip(*of_shard, strict=True)
        Dataset.from_dict({"jpg": pictures, "json": records}).to_parquet(folder / f"{number}.parquet")


WRITERS = {
    "ours": ours,
    "payload": payload,
    "tarfile": with_tarfile,
    "webdataset": webdataset,
    "streaming": streaming,
    "litdata": litdata,
    "datasets": datasets,
}


def measure(side: str, tars: list[Path], num_samples: int) -> dict[str, Any]:
    """CPU seconds and bytes of writing the samples, after a first small set."""
    write = WRITERS[side]
    # The pictures repeat; what matters is that every sample has its own bytes object.
    samples = list(itertools.islice(itertools.cycle(samples_of(tars)), num_samples))
    samples = [(f"{place:08d}", picture, record) for place, (_, picture, record) in enumerate(samples)]
    with tempfile.TemporaryDirectory(prefix="unix-benchmark-") as work:
        for name in ("warm", "timed"):
            Path(work, name).mkdir()
        write(samples[:10], Path(work, "warm"))
        begin = time.process_time()
        write(samples, Path(work, "timed"))
        seconds = time.process_time() - begin
        written = sum(path.stat().st_size for path in Path(work, "timed").rglob("*") if path.is_file())
    package = PACKAGES.get(side, side)
    return {"seconds": seconds, "bytes": written, "version": version(package) if side in PEERS else ""}


def main() -> None:
    """Write in turns, print the table."""
    parser = arguments(__doc__, SIDES, samples=20000, size=64, rounds=3)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(measure(options.side, sorted(options.folder.glob("*.tar")), options.samples)))
        return
    from shard_set import write_set

    with tempfile.TemporaryDirectory(prefix="unix-benchmark-") as work:
        write_set(Path(work), 1000, options.size)
        commands = {
            side: [python, __file__, "--side", side, "--task", "write", "--folder", work, "--samples", options.samples]
            for side, python in pythons(options.sides.split(","), PEERS).items()
        }
        figures = in_turns(commands, options.rounds)
    seconds = {side: round(median(each, "seconds"), 2) for side, each in figures.items()}
    written = {side: int(each[0]["bytes"]) for side, each in figures.items()}
    print(f"{options.samples} samples of {options.size} px, medians of {options.rounds} rounds")
    for side in figures:
        print(
            f"{side:12s} {seconds[side]:6.2f} CPU s   {seconds[side] / seconds['ours']:6.2f} x ours   "
            f"{written[side] / options.samples:8.0f} bytes a sample"
        )
    report(
        options.json,
        {
            "n": options.samples,
            "rounds": options.rounds,
            "cpu_seconds": seconds,
            "over_ours": {side: round(each / seconds["ours"], 2) for side, each in seconds.items()},
            "bytes": written,
            "versions": {side: each[0]["version"] for side, each in figures.items() if each[0]["version"]},
        },
    )


if __name__ == "__main__":
    sys.exit(main())
