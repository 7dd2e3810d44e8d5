"""What going on in the middle of an epoch takes, and whether the batches are the same: ours beside its peers.

Every side reads batches with workers (ours: threads), saves its state, and a process of its own goes on from it: with
as many workers, and with one more. Milliseconds of wall time from opening the data to the first batch, imports left
out. "Same" means that the next batches are those of a run that was not interrupted. webdataset has no state: it reads
and skips what came before, here in one process without workers.

    python benchmarks/resume.py --json resume.json
"""

import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from in_turns import arguments, in_turns, median, pythons, report, run, samples_of

SIDES = ("ours", "streaming", "litdata", "webdataset")
PEERS = ("streaming", "litdata", "webdataset")
BATCH, WORKERS, COMPARED = 32, 2, 8
BAR_MS = 500.0

Opened = tuple[Iterator[list[str]], Callable[[], Any]]
"""Batches of keys, and what saves the state after the last batch received."""


def write(side: str, tars: list[Path], folder: Path) -> None:
    """Write our samples in the side's own format."""
    samples = samples_of(tars)
    if side == "streaming":
        from streaming import MDSWriter

        with MDSWriter(out=str(folder), columns={"key": "str", "jpg": "bytes"}, size_limit=2**23) as writer:
            for key, picture, _ in samples:
                writer.write({"key": key, "jpg": picture})
    elif side == "litdata":
        from litdata.streaming.writer import BinaryWriter

        writer = BinaryWriter(str(folder), chunk_bytes=2**23)
        for number, (key, picture, _) in enumerate(samples):
            writer[number] = {"key": key, "jpg": picture}
        writer.done()
        writer.merge()


def open_ours(folder: Path, state: Any, workers: int) -> Opened:
    """Our stream; the state comes with each batch."""
    from unix.data.stream import LoaderState, ShardReader, stream

    position = LoaderState(**state) if state else None
    latest: list[LoaderState] = []

    def batches() -> Iterator[list[str]]:
        for samples, after in stream(ShardReader(folder, "train"), 0, BATCH, position, workers=workers):
            latest[:] = [after]
            yield [sample.image_id for sample in samples]

    return batches(), lambda: {name: getattr(latest[0], name) for name in LoaderState.__slots__}


def open_streaming(folder: Path, state: Any, workers: int) -> Opened:
    """mosaicml-streaming."""
    import streaming

    streaming.base.util.clean_stale_shared_memory()
    data = streaming.StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH, num_canonical_nodes=1)
    loader = streaming.StreamingDataLoader(data, batch_size=BATCH, num_workers=workers)
    if state:
        loader.load_state_dict(state)
    return (list(batch["key"]) for batch in loader), loader.state_dict


def _keys(rows: list[dict[str, Any]]) -> list[str]:
    # Pictures stay behind: litdata hands out views, which cannot leave a worker.
    return [row["key"] for row in rows]


def open_litdata(folder: Path, state: Any, workers: int) -> Opened:
    """litdata."""
    import litdata

    data = litdata.StreamingDataset(str(folder), shuffle=True)
    loader = litdata.StreamingDataLoader(data, batch_size=BATCH, num_workers=workers, collate_fn=_keys)
    if state:
        loader.load_state_dict(state)
    return iter(loader), loader.state_dict


def open_webdataset(folder: Path, state: Any, workers: int) -> Opened:
    """webdataset: skips what came before; without torch in its environment it has no workers."""
    import webdataset

    urls = sorted(str(path) for path in (folder.parent / "ours").glob("*.tar"))
    rows = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0).shuffle(1000, seed=0).decode("l8")
    keys = (row["__key__"] for row in rows)
    batches = iter(lambda: list(itertools.islice(keys, BATCH)), [])
    return itertools.islice(batches, state or 0, None), lambda: state


OPEN = {"ours": open_ours, "streaming": open_streaming, "litdata": open_litdata, "webdataset": open_webdataset}


def preload(side: str) -> None:
    """Import what the side needs, before the clock starts."""
    if side == "ours":
        import unix.data.stream  # noqa: F401
    elif side == "streaming":
        import streaming  # noqa: F401
    elif side == "litdata":
        import litdata  # noqa: F401
    else:
        import webdataset  # noqa: F401


def go(side: str, folder: Path, task: str, workers: int, stop: int) -> dict[str, Any]:
    """`whole`: read on past the stop; `save`: read to the stop and save; `resume`: go on from what was saved."""
    preload(side)
    saved = folder.parent / f"{side}.state.json"
    state = json.loads(saved.read_text()) if task == "resume" else None
    begin = time.perf_counter()
    batches, save = OPEN[side](folder, state, workers)
    if task == "save":
        for _ in range(stop):
            next(batches)
        saved.write_text(json.dumps(stop if side == "webdataset" else save()))
        return {}
    if task == "whole":
        return {"keys": list(itertools.islice(batches, stop, stop + COMPARED))}
    first = next(batches)
    milliseconds = (time.perf_counter() - begin) * 1000
    return {"ms": milliseconds, "keys": [first, *itertools.islice(batches, COMPARED - 1)]}


def main() -> None:
    """Interrupt each side at a batch, resume it in turns, print the table."""
    parser = arguments(__doc__, SIDES, samples=8000, size=128, rounds=3, stop=100, workers=WORKERS)
    options = parser.parse_args()
    if options.task == "write":
        write(options.side, sorted((options.folder.parent / "ours").glob("*.tar")), options.folder)
        print("{}")
        return
    if options.task:
        print(json.dumps(go(options.side, options.folder, options.task, options.workers, options.stop)), flush=True)
        os._exit(0)  # loaders that are left in the middle of an epoch may wait for their workers for good
    from shard_set import write_set

    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="unix-benchmark-") as work:
        write_set(Path(work, "ours"), options.samples, options.size)
        commands: dict[str, list[object]] = {}
        whole: dict[str, list[list[str]]] = {}
        for side, python in pythons(options.sides.split(","), PEERS).items():
            folder = Path(work, side)
            folder.mkdir(exist_ok=True)
            start = [python, __file__, "--side", side, "--folder", folder, "--stop", options.stop, "--task"]
            done = [side == "ours" or run([*start, "write"]), run([*start, "save"]), run([*start, "whole"])]
            if None in done:
                continue
            whole[side] = done[2]["keys"]
            commands |= {f"{side} {count}": [*start, "resume", "--workers", count] for count in (WORKERS, WORKERS + 1)}
        for name, rounds in in_turns(commands, options.rounds).items():
            side, count = name.split()
            same = all(each["keys"] == whole[side] for each in rounds)
            figures.setdefault(side, {})[f"{WORKERS} to {count} workers"] = {
                "ms": round(median(rounds, "ms")),
                "ms_most": round(max(each["ms"] for each in rounds)),
                "same": same,
            }
    print(f"resume at batch {options.stop} of {BATCH}, {options.samples} samples of {options.size} px")
    for side, cases in figures.items():
        for case, each in cases.items():
            agrees = "same" if each["same"] else "differs"
            print(f"{side:12s} {case}: {each['ms']} ms, at most {each['ms_most']}, {agrees}")
    report(
        options.json,
        {"n": options.samples, "stop": options.stop, "rounds": options.rounds, "resume": figures, "bar_ms": BAR_MS},
    )


if __name__ == "__main__":
    sys.exit(main())
