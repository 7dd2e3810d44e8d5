"""The measures tell enlarged hearts, fluid and air apart, on sharp and on blurred images."""

from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image, ImageFilter

from unix.data.phantom.findings import Side
from unix.data.phantom.geometry import Geometry, measure
from unix.data.phantom.render import render
from unix.data.phantom.study import StudyPlan, plan_study

NUM = 250


@dataclass(frozen=True)
class Measured:
    plans: list[StudyPlan]
    sharp: list[Geometry]
    blurred: list[Geometry]


@pytest.fixture(scope="module")
def measured() -> Measured:
    plans: list[StudyPlan] = []
    sharp: list[Geometry] = []
    blurred: list[Geometry] = []
    for index in range(NUM):
        plan = plan_study(3, index, 128, (0.05, 0.15))
        view = plan.views[0]
        if view.view_position == "LATERAL":
            continue
        pixels = render(3, index, 0, plan.findings, view.view_position, view.rows, view.columns)
        square = Image.new("L", (128, 128))
        square.paste(Image.fromarray(pixels), ((128 - view.columns) // 2, (128 - view.rows) // 2))
        image = square.resize((64, 64), Image.Resampling.LANCZOS)
        plans.append(plan)
        sharp.append(measure(np.asarray(image)))
        blurred.append(measure(np.asarray(image.filter(ImageFilter.GaussianBlur(1.0)))))
    return Measured(plans, sharp, blurred)


def shows(plan: StudyPlan, name: str, side: Side | None = None) -> bool:
    return any(finding.name == name and side in (None, finding.side, *both(finding.side)) for finding in plan.findings)


def both(side: Side) -> tuple[Side, ...]:
    return (Side.LEFT, Side.RIGHT) if side == Side.BOTH else ()


def area(positive: list[bool], scores: list[float]) -> float:
    """Area under the ROC curve."""
    chosen, values = np.array(positive), np.array(scores)
    higher = values[chosen][:, None] - values[~chosen][None, :]
    return float((higher > 0).mean() + 0.5 * (higher == 0).mean())


def test_cardiomegaly_widens_the_heart(measured: Measured) -> None:
    large = [shows(plan, "Cardiomegaly") for plan in measured.plans]
    for geometries in (measured.sharp, measured.blurred):
        assert area(large, [geometry.heart_width_ratio for geometry in geometries]) >= 0.9


def test_the_heart_ratio_is_one(measured: Measured) -> None:
    ratios = [g.heart_width_ratio for plan, g in zip(measured.plans, measured.sharp, strict=True) if not plan.findings]
    assert 0.36 < float(np.median(ratios)) < 0.5
    large = [
        geometry.heart_width_ratio
        for plan, geometry in zip(measured.plans, measured.sharp, strict=True)
        if shows(plan, "Cardiomegaly")
    ]
    assert float(np.median(large)) > 0.55


def test_effusion_brightens_the_base(measured: Measured) -> None:
    fluid = [shows(plan, "Pleural Effusion") for plan in measured.plans]
    for geometries in (measured.sharp, measured.blurred):
        assert area(fluid, [geometry.base_brightness for geometry in geometries]) >= 0.9


def test_pneumothorax_darkens_the_rim(measured: Measured) -> None:
    air = [shows(plan, "Pneumothorax") for plan in measured.plans]
    for geometries in (measured.sharp, measured.blurred):
        assert area(air, [geometry.rim_darkness for geometry in geometries]) >= 0.9


@pytest.mark.parametrize("side", [Side.LEFT, Side.RIGHT])
def test_the_sides_are_told_apart(measured: Measured, side: Side) -> None:
    fluid = [shows(plan, "Pleural Effusion", side) for plan in measured.plans]
    air = [shows(plan, "Pneumothorax", side) for plan in measured.plans]
    bases = [getattr(geometry, f"base_brightness_{side}") for geometry in measured.sharp]
    rims = [getattr(geometry, f"rim_darkness_{side}") for geometry in measured.sharp]
    assert area(fluid, bases) >= 0.85
    assert area(air, rims) >= 0.9


@pytest.mark.parametrize("shade", [0, 120, 255])
def test_an_image_without_a_chest_still_has_finite_measures(shade: int) -> None:
    geometry = measure(np.full((64, 64), shade, np.uint8))
    assert np.isfinite([geometry.heart_width_ratio, geometry.base_brightness, geometry.rim_darkness]).all()
