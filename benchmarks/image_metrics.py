"""Every image score from cached features: ours beside torchmetrics and prdc, in seconds and memory.

Real and drawn features are N x 768 with a power-law spectrum, as RAD-DINO's have; the drawn ones are shifted and a
little wider. Ours computes, as point estimates, Frechet and kernel distance, precision, recall, density, coverage,
diversity and the real-against-real floors, for the whole set and for each of 14 pathologies with shares like
MIMIC-CXR's; the features come from the cache, read by an encoder that fails when it is called. The other sides do their
part for the whole set only: torchmetrics FID and KID (one subset of all images), prdc its four. Each side is a process
of its own with two threads, and its peak is the high-water mark of its resident memory, libraries included.

    python benchmarks/image_metrics.py --json image_metrics.json
    python benchmarks/image_metrics.py --sides ours --images 1088
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from in_turns import arguments, in_turns, median, report, version
from numpy.typing import NDArray

SIDES = ("ours", "torchmetrics", "prdc")
WIDTH = 768
THREADS = 2
SECONDS_BAR, GIBIBYTES_BAR = 60, 2.0
SHARES = (0.20, 0.20, 0.05, 0.12, 0.03, 0.02, 0.03, 0.23, 0.33, 0.24, 0.01, 0.07, 0.04, 0.30)
"""Of positives per pathology, in the order of CHEXPERT_14."""

Matrix = NDArray[np.float32]


def features(images: int, seed: int) -> Matrix:
    """Invented features, float32 [images, WIDTH]; an odd seed draws the shifted set."""
    generator = np.random.default_rng(seed)
    spread = np.arange(1, WIDTH + 1) ** -0.5 * (1.1 if seed % 2 else 1.0)
    shift = np.random.default_rng(7).normal(size=WIDTH) * 0.01 * (seed % 2)
    return (generator.normal(size=(images, WIDTH)) * spread + shift).astype(np.float32)


class Absent:
    """An encoder that must not be needed."""

    name, digest, width = "none", "benchmark", WIDTH

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Matrix:
        """Fails."""
        raise SystemExit("the encoder was called, though the cache has every feature")


def cached(folder: Path, images: int) -> None:
    """Fill the cache with both sets."""
    from unix.evaluation.features import EncodedBy, FeatureCache

    cache = FeatureCache(folder)
    for name, seed in (("real", 0), ("drawn", 1)):
        matrix = features(images, seed)
        rows = {f"{name}{index}": matrix[index] for index in range(images)}
        cache.store(EncodedBy(Absent.name, Absent.digest), rows)


def ours(images: int, folder: Path) -> dict[str, Any]:
    """All scores of the whole set and of 14 pathologies."""
    from unix.evaluation.features import FeatureCache, ImageItem, image_features
    from unix.evaluation.image_metrics import ImageSet, image_scores, scores_per_class

    def unread() -> NDArray[np.uint8]:
        raise SystemExit("an image was read")

    patients = tuple(str(index // 3) for index in range(images))
    real, drawn = (
        ImageSet(
            image_features(
                Absent(),
                [ImageItem(f"i{index}", f"{name}{index}", unread) for index in range(images)],
                FeatureCache(folder),
            ),
            patients,
        )
        for name in ("real", "drawn")
    )
    mask_NK = np.random.default_rng(3).random((images, len(SHARES))) < SHARES
    whole = image_scores(real, drawn)
    classes = scores_per_class(real, drawn, mask_NK, mask_NK)
    return {"scores": whole.model_dump(), "pathologies": len(classes)}


def torchmetrics(images: int, folder: Path) -> dict[str, Any]:
    """FID and KID of the whole set."""
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    class Identity(torch.nn.Module):
        """Features stand for images."""

        num_features = WIDTH

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            """[B, 1, 1, D] -> [B, D]."""
            return batch.reshape(len(batch), -1)

    torch.set_num_threads(THREADS)
    frechet = FrechetInceptionDistance(feature=Identity(), normalize=True, input_img_size=(1, 1, WIDTH))
    kernel = KernelInceptionDistance(feature=Identity(), subsets=1, subset_size=images, normalize=True)
    for metric in (frechet, kernel):
        metric.set_dtype(torch.float64)
        for seed in (0, 1):
            metric.update(torch.as_tensor(features(images, seed)).double()[:, None, None, :], real=not seed)
    found = {"frechet_distance": float(frechet.compute()), "kernel_distance": float(kernel.compute()[0])}
    return {"scores": found, "version": version("torchmetrics")}


def prdc(images: int, folder: Path) -> dict[str, Any]:
    """Precision, recall, density and coverage of the whole set."""
    from prdc import compute_prdc

    found = compute_prdc(features(images, 0), features(images, 1), nearest_k=5)
    return {"scores": {name: float(value) for name, value in found.items()}, "version": version("prdc")}


MEASURED: dict[str, Callable[[int, Path], dict[str, Any]]] = {
    "ours": ours,
    "torchmetrics": torchmetrics,
    "prdc": prdc,
}


def measure(side: str, images: int, folder: Path) -> dict[str, Any]:
    """Seconds on the clock and of processor, and the peak of this process."""
    begin, processor = time.perf_counter(), time.process_time()
    found = MEASURED[side](images, folder)
    seconds, processor = time.perf_counter() - begin, time.process_time() - processor
    # a child's ru_maxrss would begin with its parent's
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return {"seconds": seconds, "cpu_seconds": processor, "peak_gib": peak / 2**20, **found}


def main() -> None:
    """Measure the sides in turns, print the table."""
    parser = arguments(__doc__, SIDES, images=4352, rounds=1)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options.images, options.folder)))
        return
    with tempfile.TemporaryDirectory(prefix="unix-benchmark-") as work:
        cached(Path(work), options.images)
        command = ["env", f"OPENBLAS_NUM_THREADS={THREADS}", sys.executable, __file__, "--images", options.images]
        sides = options.sides.split(",")
        figures = in_turns({side: [*command, "--side", side, "--folder", work] for side in sides}, options.rounds)
    table = {
        side: {name: round(median(found, name), 2) for name in ("seconds", "cpu_seconds", "peak_gib")}
        | {name: found[-1][name] for name in ("scores", "pathologies", "version") if name in found[-1]}
        for side, found in figures.items()
    }
    bar = {"seconds": SECONDS_BAR, "peak_gib": GIBIBYTES_BAR}
    report(options.json, {"images": options.images, "width": WIDTH, "threads": THREADS, "bar": bar, "sides": table})


if __name__ == "__main__":
    main()
