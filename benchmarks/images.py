"""One radiograph to three squares: our path beside PIL as most would write it and img2dataset's resizer.

Every side turns the same JPEGs of 2,000 to 3,000 px into 512, 384 and 256 px squares, each encoded at quality 95, in
one process; CPU seconds, in turns. Quality is measured against the full decode with LANCZOS: on content pixels (the
padding left out) before encoding, and as what is added to the error of encoding the full decode's own square. How much
faster ours is, is the median over the rounds of each round's ratio.

    python benchmarks/images.py --json images.json
    python benchmarks/images.py --images /data/some-jpegs
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from in_turns import arguments, in_turns, median, pythons, report, version

SIDES = ("ours", "naive", "img2dataset")
PEERS = ("img2dataset",)
SIZES = (512, 384, 256)
QUALITY = 95
LONG_SIDES = (2022, 2048, 2328, 2544, 2800, 3056)
BARS = {"naive": 3.5, "img2dataset": 3.8, "psnr_db": 45.0, "added_by_encoding_db": 0.3, "two_processes": 1.8}


def make_images(folder: Path) -> None:
    """Render synthetic radiographs of the sizes that MIMIC-CXR-JPG has, as JPEGs of quality 95."""
    import numpy as np
    from PIL import Image

    from unix.data.phantom import PhantomConfig, write_phantom

    drawn = folder / "phantom"
    write_phantom(PhantomConfig(studies=4, out=str(drawn), image_size=1600, workers=1))
    pictures = sorted((drawn / "files").rglob("*.jpg"))
    draw = np.random.default_rng(0)
    for number, side in enumerate(LONG_SIDES):
        with Image.open(pictures[number % len(pictures)]) as picture:
            scale = side / max(picture.size)
            larger = picture.resize(
                (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC
            )
        # Grain that brings a file to 0.2 bytes per pixel: MIMIC-CXR-JPG's mean (570 GB, 377,110 files of about 7.5 MP).
        noisy = np.asarray(larger, dtype=np.float32) + draw.normal(0, 1.3, (larger.height, larger.width))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=95)


def ours(data: bytes) -> None:
    """One decode, one reduction to every size, three encodings."""
    from unix.data.images import encode_jpeg, squares

    for pixels in squares(data, SIZES).values():
        encode_jpeg(pixels, QUALITY)


def naive(data: bytes) -> None:
    """Decode fully, then resize, pad and encode for every size."""
    from PIL import Image

    full = Image.open(io.BytesIO(data)).convert("L")
    for size in SIZES:
        pad(full, size).save(io.BytesIO(), "JPEG", quality=QUALITY)


def pad(full: Any, size: int) -> Any:
    """The full picture's padded LANCZOS square."""
    from PIL import Image

    scale = size / max(full.size)
    content = full.resize((round(full.width * scale), round(full.height * scale)), Image.Resampling.LANCZOS)
    square = Image.new("L", (size, size))
    square.paste(content, ((size - content.width) // 2, (size - content.height) // 2))
    return square


def img2dataset() -> Callable[[bytes], None]:
    """img2dataset's own resizer, once per size."""
    from img2dataset.resizer import Resizer

    resizers = [
        Resizer(size, "border", True, encode_quality=QUALITY, encode_format="jpg", upscale_interpolation="lanczos")
        for size in SIZES
    ]

    def make(data: bytes) -> None:
        for resizer in resizers:
            encoded, *_, error = resizer(io.BytesIO(data))
            if error or not encoded:
                raise SystemExit(f"img2dataset: {error}")

    return make


def measure(side: str, folder: Path, seconds: float) -> dict[str, Any]:
    """CPU milliseconds per image over at least so many seconds."""
    make = {"ours": lambda: ours, "naive": lambda: naive, "img2dataset": img2dataset}[side]()
    images = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    make(images[0])
    begin, done = time.process_time(), 0
    while done == 0 or time.process_time() - begin < seconds:
        for data in images:
            make(data)
        done += len(images)
    taken = (time.process_time() - begin) / done * 1000
    return {"ms": taken, "version": version("img2dataset") if side == "img2dataset" else ""}


def psnr(reference: Any, other: Any) -> float:
    """Peak signal to noise ratio in dB."""
    import numpy as np

    error = np.mean((reference.astype(np.float64) - other.astype(np.float64)) ** 2)
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def quality(paths: list[Path]) -> dict[str, Any]:
    """Worst PSNR on content pixels, and the most that our path adds to the encoder's error, in dB, by size."""
    import numpy as np
    from PIL import Image

    from unix.data.images import encode_jpeg, fit, squares

    worst = dict.fromkeys(SIZES, 99.0)
    added = dict.fromkeys(SIZES, 0.0)
    for path in paths:
        data = path.read_bytes()
        full = Image.open(io.BytesIO(data)).convert("L")
        for size, pixels in squares(data, SIZES).items():
            columns, rows = fit(*full.size, size)
            left, top = (size - columns) // 2, (size - rows) // 2
            content = np.s_[top : top + rows, left : left + columns]
            gold = np.asarray(pad(full, size))
            worst[size] = min(worst[size], psnr(gold[content], pixels[content]))
            of_gold, of_ours = (
                np.asarray(Image.open(io.BytesIO(encode_jpeg(each, QUALITY)))) for each in (gold, pixels)
            )
            loss = psnr(gold[content], of_gold[content]) - psnr(gold[content], of_ours[content])
            added[size] = max(added[size], loss)
    return {
        "images": len(paths),
        "psnr_db": {str(size): round(value, 2) for size, value in worst.items()},
        "added_by_encoding_db": {str(size): round(value, 3) for size, value in added.items()},
    }


def two_processes(folder: Path, seconds: int, rounds: int) -> float:
    """Images per wall second of two processes over one's, in turns; means something on two idle cores alone."""
    command = [
        sys.executable,
        __file__,
        "--side",
        "ours",
        "--task",
        "speed",
        "--folder",
        folder,
        "--seconds",
        str(seconds),
    ]

    def rate(count: int) -> float:
        running = [subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True) for _ in range(count)]
        return sum(json.loads(each.communicate()[0])["per_second"] for each in running)

    pairs = [(rate(1), rate(2)) for _ in range(rounds)]
    return statistics.median(two / one for one, two in pairs)


def speed(folder: Path, seconds: float) -> dict[str, float]:
    """Images per wall second."""
    images = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    ours(images[0])
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        ours(images[done % len(images)])
        done += 1
    return {"per_second": done / (time.perf_counter() - begin)}


def main() -> None:
    """Time the sides in turns, then measure the quality of ours."""
    parser = arguments(__doc__, SIDES, rounds=5, seconds=3)
    parser.add_argument("--images", type=Path, help="JPEGs to use in place of rendered ones")
    parser.add_argument("--scaling", action=argparse.BooleanOptionalAction, default=True, help="one and two processes")
    options = parser.parse_args()
    if options.task:
        measured = speed(options.folder, options.seconds) if options.task == "speed" else None
        print(json.dumps(measured or measure(options.side, options.folder, options.seconds)))
        return
    with tempfile.TemporaryDirectory(prefix="unix-benchmark-") as work:
        folder = Path(work)
        if options.images is None:
            make_images(folder)
        else:
            for number, path in enumerate(sorted(options.images.rglob("*.jpg"))):
                (folder / f"{number:04d}.jpg").symlink_to(path.resolve())
        paths = sorted(folder.glob("*.jpg"))
        interpreters = pythons(options.sides.split(","), PEERS)
        commands = {
            side: [python, __file__, "--side", side, "--task", "cpu", "--folder", folder, "--seconds", options.seconds]
            for side, python in interpreters.items()
        }
        figures = in_turns(commands, options.rounds)
        taken = {side: round(median(each, "ms"), 1) for side, each in figures.items()}
        faster = {
            side: round(
                statistics.median(other["ms"] / own["ms"] for other, own in zip(each, figures["ours"], strict=True)), 2
            )
            for side, each in figures.items()
            if side != "ours"
        }
        scaling = round(two_processes(folder, options.seconds, 3), 2) if options.scaling else None
        measured = quality(paths)
    print(
        f"{len(paths)} JPEGs to {', '.join(map(str, SIZES))} px, medians of {options.rounds} rounds, CPU ms per image"
    )
    for side, ms in taken.items():
        print(f"{side:14s} {ms:7.1f} ms" + (f"   ours is {faster[side]:5.2f} x as fast" if side in faster else ""))
    print(f"two processes: {scaling} x one")
    print(f"worst PSNR on content pixels {measured['psnr_db']} dB")
    print(f"most added to the encoder's error {measured['added_by_encoding_db']} dB")
    report(
        options.json,
        {
            "n": len(paths),
            "rounds": options.rounds,
            "cpu_ms_per_image": taken,
            "ours_over": faster,
            "two_processes_over_one": scaling,
            "quality": measured,
            "bars": BARS,
            "versions": {side: each[0]["version"] for side, each in figures.items() if each and each[0]["version"]},
        },
    )


if __name__ == "__main__":
    sys.exit(main())
