"""How each finding changes the picture. Severity scales area and density; everything is visible at 64 pixels.

Same coordinates and brightness as `render`.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from unix.data.phantom.findings import Device, Finding, Side, Zone
from unix.data.phantom.shapes import Field, band, blob, edge, ellipse, line, polyline

if TYPE_CHECKING:
    from unix.data.phantom.anatomy import Lungs

_ZONE_DOWN = {Zone.UPPER: 0.30, Zone.MIDDLE: 0.58, Zone.LOWER: 0.84}
"""Height of each zone as a share of the lung's height."""
_FLUID_DEPTH = (0.26, 0.42, 0.62)
_AIR_WIDTH = (0.24, 0.38, 0.56)
_FLUID = 0.80


def dome_lift(findings: tuple[Finding, ...]) -> dict[Side, float]:
    """How far each half of the diaphragm is drawn up by lost lung volume."""
    lift = {Side.LEFT: 0.0, Side.RIGHT: 0.0}
    for finding in findings:
        if finding.name == "Atelectasis" and finding.zone == Zone.LOWER:
            for side in _sides(finding.side):
                lift[side] = 0.05 + 0.05 * finding.severity.grade
    return lift


def behind_heart(
    field: Field, x: Field, y: Field, lungs: "Lungs", findings: tuple[Finding, ...], rng: np.random.Generator
) -> Field:
    """Add what lies in the lungs and pleura; the heart is painted over it later."""
    for finding in findings:
        for side in _sides(finding.side):
            paint = _IN_LUNG.get(finding.name)
            if paint is not None:
                field = paint(field, x, y, lungs, finding, side, rng)
    return field


def before_heart(
    field: Field, x: Field, y: Field, lungs: "Lungs", findings: tuple[Finding, ...], rng: np.random.Generator
) -> Field:
    """Add what projects over everything: fractures and devices."""
    for finding in findings:
        if finding.name == "Fracture":
            field = _fracture(field, x, y, lungs, finding)
        elif finding.device is not None:
            field = _device(field, x, y, lungs, finding)
    return field


def lateral(
    field: Field,
    x: Field,
    y: Field,
    lung: Field,
    dome: Field,
    findings: tuple[Finding, ...],
    rng: np.random.Generator,
) -> Field:
    """Add what a lateral view shows: fluid behind, shadows at their height, edema, the larger devices."""
    for finding in findings:
        grade = finding.severity.grade
        height = {Zone.UPPER: -0.45, Zone.MIDDLE: -0.05, Zone.LOWER: 0.30, Zone.NONE: 0.0}[finding.zone]
        if finding.name == "Pleural Effusion":
            surface = dome - 0.10 - 0.16 * grade - 0.30 * np.maximum(x - 0.15, 0.0)
            field = _cover(field, lung * edge(y - surface, 0.03) * edge(x + 0.1, 0.10), _FLUID)
        elif finding.name == "Edema":
            field = field + (0.12 + 0.09 * grade) * blob(x, y + 0.05, 0.40, 0.40) * lung
        elif finding.name in ("Consolidation", "Lung Opacity", "Pneumonia", "Lung Lesion"):
            size = 0.12 + 0.06 * grade
            field = field + 0.35 * ellipse(x - rng.uniform(-0.1, 0.25), y - height, size, size, 0.25) * lung
        elif finding.name == "Atelectasis":
            field = field + 0.30 * band(y - height + 0.3 * x, 0.025 + 0.01 * grade, 0.02) * lung
        elif finding.device == Device.PACEMAKER:
            field = np.maximum(field, 0.98 * ellipse(x + 0.50, y + 0.45, 0.05, 0.11, 0.1))
        elif finding.device == Device.PROSTHETIC_VALVE:
            wires = band(x + 0.58, 0.035, 0.01) * edge(np.cos(y * 30.0) - 0.4, 0.2) * band(y, 0.45, 0.03)
            field = np.maximum(field, 0.98 * wires)
    return field


def _effusion(
    field: Field, x: Field, y: Field, lungs: "Lungs", finding: Finding, side: Side, rng: np.random.Generator
) -> Field:
    depth = _FLUID_DEPTH[finding.severity.grade]
    # The meniscus climbs towards the chest wall.
    surface = 1.06 - depth - 0.5 * np.clip(lungs.across - 0.45, 0.0, 1.0) ** 2
    pool = edge(lungs.down - surface, 0.03) * edge(1.2 - lungs.down, 0.12)
    return _cover(field, lungs.cavity(side) * pool, _FLUID)


def _pneumothorax(
    field: Field, x: Field, y: Field, lungs: "Lungs", finding: Finding, side: Side, rng: np.random.Generator
) -> Field:
    width = _AIR_WIDTH[finding.severity.grade]
    # Air collects at the wall and, most of all, at the apex.
    rim = lungs.across - (1.0 - width) + 0.9 * width * np.clip(0.45 - lungs.down, 0.0, 1.0)
    mask = lungs.mask(side)
    # Air covers completely, ribs included: the rim is the darkest place on the image.
    field = field + (0.03 - field) * mask * edge(rim, 0.03)
    collapsed = mask * edge(-rim, 0.03)
    return field + collapsed * (0.07 + 0.04 * finding.severity.grade) + 0.40 * mask * band(rim, 0.025, 0.02)


def _edema(
    field: Field, x: Field, y: Field, lungs: "Lungs", finding: Finding, side: Side, rng: np.random.Generator
) -> Field:
    strength = (0.24, 0.34, 0.46)[finding.severity.grade]
    wings = np.exp(-(((lungs.across - 0.38) / 0.30) ** 2) - ((lungs.down - 0.55) / 0.34) ** 2)
    return field + strength * wings * lungs.mask(side)


def _consolidation(
    field: Field, x: Field, y: Field, lungs: "Lungs", finding: Finding, side: Side, rng: np.random.Generator
) -> Field:
    depth = (0.10, 0.15, 0.21)[finding.severity.grade]
    dx, dy = _place(lungs, finding, rng)
    # A lobe's shape: from the chest wall inwards, sharp below where the fissure is, less so above.
    tilted = dy + 0.10 * dx
    lobe = edge(depth - tilted, 0.015) * edge(depth + tilted, 0.05) * edge(dx + 0.24 + 0.04 * depth, 0.05)
    return _cover(field, lobe * lungs.mask(side), 0.70)


def _opacity(
    field: Field, x: Field, y: Field, lungs: "Lungs", finding: Finding, side: Side, rng: np.random.Generator
) -> Field:
    dx, dy = _place(lungs, finding, rng)
    strength = (0.26, 0.34, 0.42)[finding.severity.grade]
    return field + strength * blob(dx, dy, 0.50, 0.20) * lungs.mask(side)


def _pneumonia(
    field: Field, x: Field, y: Field, lungs: "Lungs", finding: Finding, side: Side, rng: np.random.Generator
) -> Field:
    dx, dy = _place(lungs, finding, rng)
    size = (0.8, 1.0, 1.25)[finding.severity.grade]
    patches = np.zeros_like(field)
    for turn in range(5):
        angle = 2.0 * math.pi * (turn + rng.uniform(-0.2, 0.2)) / 5
        cx, cy = 0.24 * size * math.cos(angle), 0.12 * size * math.sin(angle)
        patches = np.maximum(patches, blob(dx - cx, dy - cy, 0.13 * size, 0.065 * size))
    return field + (0.34 + 0.05 * finding.severity.grade) * patches * lungs.mask(side)


def _atelectasis(
    field: Field, x: Field, y: Field, lungs: "Lungs", finding: Finding, side: Side, rng: np.random.Generator
) -> Field:
    slope = rng.uniform(0.05, 0.18)
    plates = np.zeros_like(field)
    for turn in range(1 + finding.severity.grade):
        height = _ZONE_DOWN[finding.zone] + 0.04 - 0.115 * turn
        stripe = band(lungs.down - height + slope * (lungs.across - 0.6), 0.028, 0.02)
        plates = np.maximum(plates, stripe * band(lungs.across - 0.62, 0.33, 0.05))
    return _cover(field, plates * lungs.mask(side), 0.78)


def _lesion(
    field: Field, x: Field, y: Field, lungs: "Lungs", finding: Finding, side: Side, rng: np.random.Generator
) -> Field:
    radius = (0.075, 0.11, 0.16)[finding.severity.grade]
    dx, dy = _place(lungs, finding, rng)
    # Round on the image, so in the image's own lengths rather than in shares of the lung.
    spot = ellipse(dx * 0.74, dy * 1.35, radius, radius, 0.10)
    return _cover(field, spot * lungs.mask(side), 0.85)


def _pleural_thickening(
    field: Field, x: Field, y: Field, lungs: "Lungs", finding: Finding, side: Side, rng: np.random.Generator
) -> Field:
    width = (0.10, 0.15, 0.21)[finding.severity.grade]
    rind = edge(lungs.across - (1.0 - width) - 0.03 * np.sin(lungs.down * 21.0), 0.02) * band(
        lungs.down - 0.5, 0.36, 0.06
    )
    return _cover(field, rind * lungs.mask(side), 0.82)


def _fracture(field: Field, x: Field, y: Field, lungs: "Lungs", finding: Finding) -> Field:
    for side in _sides(finding.side):
        sign = 1.0 if side == Side.LEFT else -1.0
        height = {Zone.UPPER: -0.38, Zone.MIDDLE: 0.0, Zone.LOWER: 0.34, Zone.NONE: 0.0}[finding.zone]
        wall = 0.62 + 0.08 * (finding.zone != Zone.UPPER)
        step, thick = ((0.04, 0.032), (0.09, 0.042), (0.15, 0.054))[finding.severity.grade]
        # Two thick rib ends, out of line, with a dark cleft between them.
        cleft_x = sign * (wall - 0.02)
        inner = line(x, y, (sign * (wall - 0.24), height - 0.03), (sign * (wall - 0.06), height), thick)
        outer = line(x, y, (sign * (wall + 0.02), height + step), (sign * (wall + 0.16), height + step + 0.07), thick)
        cleft = line(x, y, (cleft_x, height - 0.07), (cleft_x, height + step + 0.07), 0.022)
        field = np.maximum(field, 0.95 * np.maximum(inner, outer))
        field = field * (1.0 - 0.9 * cleft)
    return field


def _device(field: Field, x: Field, y: Field, lungs: "Lungs", finding: Finding) -> Field:
    sign = -1.0 if finding.side == Side.RIGHT else 1.0
    match finding.device:
        case Device.PACEMAKER:
            case_ = ellipse(x - sign * 0.56, y + 0.50, 0.14, 0.11, 0.06)
            lead = polyline(x, y, [(sign * 0.45, -0.52), (sign * 0.12, -0.45), (0.02, 0.10), (0.16, 0.40)], 0.018)
            return np.maximum(field, np.maximum(case_, 0.95 * lead))
        case Device.ENDOTRACHEAL_TUBE:
            tube = polyline(x, y, [(0.02, -1.1), (0.0, -0.34)], 0.028)
        case Device.CENTRAL_LINE:
            tube = polyline(x, y, [(sign * 0.62, -0.72), (sign * 0.30, -0.66), (-0.12, -0.40), (-0.13, 0.02)], 0.022)
        case Device.NASOGASTRIC_TUBE:
            tube = polyline(x, y, [(-0.02, -1.1), (-0.03, 0.45), (0.10, 0.66), (0.32, 0.74)], 0.024)
        case Device.CHEST_TUBE:
            tube = polyline(x, y, [(sign * 0.92, 0.34), (sign * 0.62, 0.24), (sign * 0.42, -0.30)], 0.036)
        case _:
            # A valve comes with the wires that close the sternum.
            wires = band(x, 0.055, 0.015) * edge(np.cos(y * 26.0) - 0.35, 0.25) * band(y + 0.25, 0.35, 0.02)
            ring = band(np.sqrt((x - 0.06) ** 2 + ((y - 0.30) * 0.8) ** 2) - 0.10, 0.028, 0.01)
            return np.maximum(field, np.maximum(wires, ring))
    return np.maximum(field, 0.97 * tube)


def _place(lungs: "Lungs", finding: Finding, rng: np.random.Generator) -> tuple[Field, Field]:
    """Coordinates relative to a point in the finding's zone, as shares of the lung's width and height."""
    across = 0.58 + rng.uniform(-0.08, 0.08)
    down = _ZONE_DOWN[finding.zone] + rng.uniform(-0.04, 0.04) - (0.06 if finding.zone == Zone.LOWER else 0.0)
    return lungs.across - across, lungs.down - down


def _cover(field: Field, mask: Field, brightness: float) -> Field:
    """Paint up to `brightness` where `mask` is 1; nothing gets darker."""
    return field + np.maximum(0.0, brightness - field) * mask


def _sides(side: Side) -> tuple[Side, ...]:
    return (Side.LEFT, Side.RIGHT) if side in (Side.BOTH, Side.NONE) else (side,)


_Painter = Callable[[Field, Field, Field, "Lungs", Finding, Side, np.random.Generator], Field]

_IN_LUNG: dict[str, _Painter] = {
    "Atelectasis": _atelectasis,
    "Consolidation": _consolidation,
    "Edema": _edema,
    "Lung Lesion": _lesion,
    "Lung Opacity": _opacity,
    "Pleural Effusion": _effusion,
    "Pleural Other": _pleural_thickening,
    "Pneumonia": _pneumonia,
    "Pneumothorax": _pneumothorax,
}
