"""Images are what they should be: sized, deterministic, and every finding shows at 64 pixels."""

import numpy as np
import pytest
from PIL import Image

from unix.data.phantom.findings import Device, Finding, Severity, Side, Zone
from unix.data.phantom.render import Pixels, render
from unix.records import CHEXPERT_14

ABNORMAL = [name for name in CHEXPERT_14 if name not in ("No Finding", "Support Devices")]


def small(pixels: Pixels) -> np.ndarray:
    image = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BOX)
    return np.asarray(image, np.float32)


def draw(findings: tuple[Finding, ...], view: str = "PA", size: int = 128) -> Pixels:
    return render(0, 11, 0, findings, view, size, size)


def one(name: str, severity: Severity = Severity.MODERATE, side: Side = Side.LEFT, zone: Zone = Zone.MIDDLE) -> Finding:
    return Finding(name, Side.BOTH if name == "Edema" else side, zone, severity)


@pytest.mark.parametrize("view", ["AP", "PA", "LATERAL"])
@pytest.mark.parametrize(("rows", "columns"), [(96, 120), (120, 96), (900, 800)])
def test_size_type_and_determinism(view: str, rows: int, columns: int) -> None:
    first, second = (render(0, 3, 0, (), view, rows, columns) for _ in range(2))
    assert first.shape == (rows, columns)
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert first.std() > 30


@pytest.mark.parametrize("name", ABNORMAL)
def test_every_finding_shows_at_64_pixels(name: str) -> None:
    change = np.abs(small(draw((one(name),))) - small(draw(())))
    assert (change > 20).sum() >= 12


@pytest.mark.parametrize("device", list(Device))
def test_every_device_shows_at_64_pixels(device: Device) -> None:
    finding = Finding("Support Devices", Side.LEFT, device=device)
    change = np.abs(small(draw((finding,))) - small(draw(())))
    assert (change > 20).sum() >= 8


@pytest.mark.parametrize("name", ABNORMAL)
def test_severity_scales_the_change(name: str) -> None:
    normal = small(draw(()))
    mild, severe = (
        float(np.abs(small(draw((one(name, severity),))) - normal).mean())
        for severity in (Severity.MILD, Severity.SEVERE)
    )
    assert severe > 1.15 * mild


@pytest.mark.parametrize(
    "name", ["Consolidation", "Fracture", "Lung Lesion", "Lung Opacity", "Pleural Effusion", "Pneumothorax"]
)
def test_the_patients_left_is_on_the_images_right(name: str) -> None:
    normal = small(draw(()))
    for side, columns in ((Side.LEFT, slice(32, 64)), (Side.RIGHT, slice(0, 32))):
        change = np.abs(small(draw((one(name, side=side),))) - normal)
        assert change[:, columns].sum() > 0.8 * change.sum()


def test_zones_lie_above_one_another() -> None:
    normal = small(draw(()))
    rows = np.arange(64)[:, None]
    heights: list[float] = []
    for zone in (Zone.UPPER, Zone.MIDDLE, Zone.LOWER):
        change = np.abs(small(draw((one("Consolidation", zone=zone),))) - normal)
        change[change < 10] = 0
        heights.append(float((rows * change).sum() / change.sum()))
    assert heights[0] + 4 < heights[1] < heights[2] - 4


def test_bodies_differ_between_studies() -> None:
    first, second = (small(render(0, content, 0, (), "PA", 128, 128)) for content in (1, 2))
    assert np.abs(first - second).mean() > 4
