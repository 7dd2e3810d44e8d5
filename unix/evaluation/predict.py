"""The jobs behind `unix describe` and `unix generate`: reports for image files, image files for prompts."""

import csv
import io
from pathlib import Path

from PIL import Image
from pydantic import Field

from unix.config import Config
from unix.errors import ConfigError
from unix.evaluation.settings import PredictorConfig, default_processes
from unix.evaluation.workers import PredictorPool
from unix.manifest import write_atomically

PROMPTS_FILE = "prompts.csv"


class DescribeConfig(PredictorConfig):
    """Write a report for each of some image files."""

    images: tuple[str, ...] = Field(min_length=1)
    """JPEG, PNG or DICOM files."""
    processes: int = Field(default_factory=default_processes, ge=1)


class ImageReport(Config):
    """The report that the model wrote for one image file; "" where it wrote none."""

    image: str
    report: str


class DescribeSummary(Config):
    """Reports in the order of the images."""

    reports: tuple[ImageReport, ...]


class GenerateConfig(PredictorConfig):
    """Draw an image for each of some prompts."""

    prompts: tuple[str, ...] = Field(min_length=1)
    out: str
    """Folder for `00000.png`, ... and `prompts.csv`."""
    resolution: int | None = None
    """Side in pixels; default: the one that the checkpoint was last trained to draw."""
    seed: int = 0
    """Of the first image; each further one counts on by one."""
    processes: int = Field(default_factory=default_processes, ge=1)


class GenerateSummary(Config):
    """What was drawn."""

    out: str
    images: int


def describe_images(config: DescribeConfig) -> DescribeSummary:
    """Write a report for every image.

    Raises:
        ConfigError: an image file is missing.
        SourceError: an image file cannot be decoded; the message names it.
        WeightsError: the checkpoint is missing or damaged.
    """
    missing = [image for image in config.images if not Path(image).is_file()]
    if missing:
        raise ConfigError(f"no such image file: {missing[0]}" + (f" and {len(missing) - 1} more" * (len(missing) > 1)))
    with PredictorPool(config, _useful(config.processes, len(config.images), config.batch)) as pool:
        reports = pool.describe_files(config.images)
    pairs = zip(config.images, reports, strict=True)
    return DescribeSummary(reports=tuple(ImageReport(image=image, report=report) for image, report in pairs))


def generate_images(config: GenerateConfig) -> GenerateSummary:
    """Draw an image for every prompt; `prompts.csv` (prompt, img_savename, seed) is written last.

    Raises:
        ConfigError: a prompt is empty, or the resolution does not suit the model.
        WeightsError: the checkpoint is missing or damaged.
    """
    empty = [number for number, prompt in enumerate(config.prompts) if not prompt.strip()]
    if empty:
        raise ConfigError(f"prompt number {empty[0]} is empty; say what to draw")
    seeds = [config.seed + number for number in range(len(config.prompts))]
    with PredictorPool(config, _useful(config.processes, len(config.prompts), config.batch)) as pool:
        images = pool.draw(config.prompts, seeds, config.resolution)
    out = Path(config.out)
    names = [f"{number:05d}.png" for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        content = io.BytesIO()
        Image.fromarray(image).save(content, "PNG")
        write_atomically(out / name, content.getvalue())
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([("prompt", "img_savename", "seed"), *zip(config.prompts, names, seeds, strict=True)])
    write_atomically(out / PROMPTS_FILE, table.getvalue().encode())
    return GenerateSummary(out=str(out), images=len(images))


def _useful(processes: int, items: int, batch: int) -> int:
    """No more processes than there are batches."""
    return max(1, min(processes, -(-items // batch)))
