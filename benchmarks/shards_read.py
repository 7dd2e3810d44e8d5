"""Samples per CPU second: our reader beside webdataset, litdata, mosaicml-streaming and Hugging Face datasets.

Every library reads one epoch of the same samples from files of its own writing, in one process without workers, raw
(the picture's and the record's bytes, in memory) and decoded (a grayscale array and a parsed record). Ours checks every
CRC and serves an exact global shuffle in batches; litdata and mosaicml-streaming shuffle too, webdataset and datasets
do not. `webdataset-ustar` is webdataset on our tars. CPU time starts after the first sample.

The bars were set with samples of about 6 KB, where a library's own cost shows: 128 px. At 256 px and above most of a
decoded sample's time is the JPEG decoder's, which all share.

    python benchmarks/shards_read.py --json read.json
    python benchmarks/shards_read.py --size 256
"""

import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from in_turns import arguments, in_turns, median, pythons, report, run, samples_of, version

SIDES = ("ours", "webdataset", "webdataset-ustar", "litdata", "streaming", "datasets")
PEERS = ("webdataset", "webdataset-ustar", "litdata", "streaming", "datasets")
BATCH = 64
BARS = {"raw": {"webdataset": 10.0, "litdata": 0.95}, "decoded": {"webdataset": 1.8, "litdata": 0.95}}


def decode(picture: bytes, record: bytes) -> tuple[Any, Any]:
    """What a training loop needs of a sample, for libraries that leave it to the user."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(picture))), json.loads(bytes(record))


def write(side: str, tars: list[Path], folder: Path) -> None:
    """Write our samples in the side's own format."""
    samples = samples_of(tars)
    if side == "webdataset":
        import webdataset

        with webdataset.ShardWriter(str(folder / "%06d.tar"), maxcount=1000, verbose=0) as writer:
            for key, picture, record in samples:
                writer.write({"__key__": key, "jpg": picture, "json": record})
    elif side == "streaming":
        from streaming import MDSWriter

        with MDSWriter(out=str(folder), columns={"jpg": "bytes", "json": "bytes"}, size_limit=2**25) as writer:
            for _, picture, record in samples:
                writer.write({"jpg": picture, "json": record})
    elif side == "litdata":
        from litdata.streaming.writer import BinaryWriter

        writer = BinaryWriter(str(folder), chunk_bytes=2**25)
        for number, (_, picture, record) in enumerate(samples):
            writer[number] = {"jpg": picture, "json": record}
        writer.done()
        writer.merge()
    elif side == "datasets":
        import pyarrow
        import pyarrow.parquet

        rows = list(samples)
        for first in range(0, len(rows), 1000):
            _, pictures, records = zip(*rows[first : first + 1000], strict=True)
            table = pyarrow.table({"jpg": list(pictures), "json": list(records)})
            pyarrow.parquet.write_table(table, folder / f"{first:08d}.parquet", row_group_size=100)


def read_ours(folder: Path, decoded: bool) -> Iterator[int]:
    """One epoch; yields the number of samples of each batch."""
    from unix.data.stream import ShardReader, index_stream, stream

    reader = ShardReader(folder, "train")
    batches = stream(reader, 0, BATCH, last="keep") if decoded else index_stream(reader, 0, BATCH, last="keep")
    for batch, state in batches:
        if state.epoch:
            return
        if not decoded:
            for index in batch:
                reader.read_members(index)  # type: ignore[arg-type]
        yield len(batch)
        if state.position == reader.samples:
            return


def read_peer(side: str, folder: Path, decoded: bool) -> Iterator[int]:
    """One epoch, sample by sample."""
    if side.startswith("webdataset"):
        import webdataset

        dataset = webdataset.WebDataset(sorted(str(path) for path in folder.glob("*.tar")), shardshuffle=False)
        for _ in dataset.decode("l8") if decoded else dataset:
            yield 1
        return
    if side == "litdata":
        from litdata import StreamingDataset

        rows = StreamingDataset(str(folder), shuffle=True)
    elif side == "streaming":
        from streaming import StreamingDataset

        rows = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH)
    else:
        from datasets import load_dataset

        rows = load_dataset("parquet", data_files=str(folder / "*.parquet"), streaming=True, split="train")
    for row in rows:
        if decoded:
            decode(row["jpg"], row["json"])
        else:  # litdata hands out views of mapped pages that nobody has read yet
            bytes(row["jpg"]), bytes(row["json"])
        yield 1


def read(side: str, folder: Path, decoded: bool) -> dict[str, Any]:
    """Samples per CPU second of one epoch."""
    counts = read_ours(folder, decoded) if side == "ours" else read_peer(side, folder, decoded)
    next(counts)
    begin, samples = time.process_time(), sum(counts)
    return {"samples": samples, "per_cpu_second": samples / (time.process_time() - begin)}


def main() -> None:
    """Write every side's files, read them in turns, print the table."""
    parser = arguments(__doc__, SIDES, samples=10000, size=128, rounds=5)
    options = parser.parse_args()
    if options.task == "write":
        write(options.side, sorted((options.folder.parent / "ours").glob("*.tar")), options.folder)
        package = {"streaming": "mosaicml-streaming"}.get(options.side, options.side)
        print(json.dumps({"version": version(package)}))
        return
    if options.task is not None:
        print(json.dumps(read(options.side, options.folder, options.task == "decoded")))
        return
    from shard_set import write_set

    sides = options.sides.split(",")
    interpreters = pythons([side for side in sides if side != "webdataset-ustar"], PEERS)
    versions = {"ours": "this checkout"}
    with tempfile.TemporaryDirectory(prefix="unix-benchmark-") as work:
        folders = {side: Path(work, side) for side in interpreters}
        for folder in folders.values():
            folder.mkdir()
        tars = write_set(Path(work, "ours"), options.samples, options.size)
        bytes_per_sample = sum(path.stat().st_size for path in tars) // options.samples
        for side in [side for side in interpreters if side != "ours"]:
            command = [interpreters[side], __file__, "--side", side, "--task", "write", "--folder", folders[side]]
            written = run(command)
            if written is None:
                del interpreters[side]
            else:
                versions[side] = written["version"]
        if "webdataset-ustar" in sides and "webdataset" in interpreters:
            interpreters["webdataset-ustar"], folders["webdataset-ustar"] = interpreters["webdataset"], folders["ours"]
        rates: dict[str, dict[str, float]] = {}
        for task in ("raw", "decoded"):
            commands = {
                side: [python, __file__, "--side", side, "--task", task, "--folder", folders[side]]
                for side, python in interpreters.items()
            }
            figures = in_turns(commands, options.rounds)
            rates[task] = {side: round(median(each, "per_cpu_second")) for side, each in figures.items()}
    ratios = {
        task: {side: round(of_task["ours"] / rate, 2) for side, rate in of_task.items() if side != "ours"}
        for task, of_task in rates.items()
    }
    print(f"{options.samples} samples of {options.size} px, medians of {options.rounds} rounds, per CPU second")
    for side in folders:
        of_side = [
            f"{task} {rates[task][side]:8.0f} (ours is {rates[task]['ours'] / rates[task][side]:5.2f} x)"
            for task in rates
            if side in rates[task] and "ours" in rates[task]
        ]
        print(f"{side:18s} {'  '.join(of_side)}")
    report(
        options.json,
        {
            "n": options.samples,
            "bytes_per_sample": bytes_per_sample,
            "size": options.size,
            "rounds": options.rounds,
            "samples_per_cpu_second": rates,
            "ours_over": ratios,
            "bars": BARS,
            "versions": versions,
        },
    )


if __name__ == "__main__":
    sys.exit(main())
