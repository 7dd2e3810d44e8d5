"""The chest as smooth fields, frontal and lateral: thorax, lungs, ribs, clavicles, heart, diaphragm, mediastinum.

Same coordinates and brightness as `render`: x > 0 is the patient's left, y down, 0 air, 1 bone.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from unix.data.phantom import pathology
from unix.data.phantom.findings import Finding, Severity, Side
from unix.data.phantom.shapes import Field, band, edge, ellipse, line

_NORMAL_RATIO = (0.40, 0.47)
_ENLARGED_RATIO = {Severity.MILD: (0.57, 0.60), Severity.MODERATE: (0.63, 0.67), Severity.SEVERE: (0.71, 0.76)}
_NORMAL_MEDIASTINUM = (0.13, 0.17)
_WIDE_MEDIASTINUM = {Severity.MILD: 0.27, Severity.MODERATE: 0.34, Severity.SEVERE: 0.42}


@dataclass(frozen=True, slots=True)
class Body:
    """The patient's build. Lengths in units of the frame; `heart_ratio` is heart width over inner thoracic width."""

    half_thorax: float
    apex: float
    dome_right: float
    dome_left: float
    heart_ratio: float
    heart_lean: float
    mediastinum: float
    lung: float
    tissue: float
    rib_phase: float
    rib_strength: float


@dataclass(frozen=True, slots=True)
class Lungs:
    """Masks in [0, 1] of both lungs, and where each pixel lies within them. A cavity has no diaphragm below it.

    `across` runs from 0 at the midline to 1 at the inner chest wall; `down` from 0 at the apex to 1 at the dome's top.
    """

    right: Field
    left: Field
    cavity_right: Field
    cavity_left: Field
    across: Field
    down: Field

    def mask(self, side: Side) -> Field:
        """The mask of one lung or of both."""
        if side == Side.RIGHT:
            return self.right
        if side == Side.LEFT:
            return self.left
        return self.right + self.left

    def cavity(self, side: Side) -> Field:
        """The lung and what would be lung if the diaphragm were not there: where fluid hides the diaphragm."""
        return self.cavity_right if side == Side.RIGHT else self.cavity_left


def draw_body(rng: np.random.Generator, findings: Iterable[Finding], view_position: str) -> Body:
    """A patient, with the heart and mediastinum that the findings ask for."""
    named = {finding.name: finding for finding in findings}
    ratio = rng.uniform(*_NORMAL_RATIO)
    if "Cardiomegaly" in named:
        ratio = rng.uniform(*_ENLARGED_RATIO[named["Cardiomegaly"].severity])
    elif view_position == "AP":
        ratio += 0.01  # the heart is farther from the detector
    width = rng.uniform(*_NORMAL_MEDIASTINUM)
    if "Enlarged Cardiomediastinum" in named:
        width = _WIDE_MEDIASTINUM[named["Enlarged Cardiomediastinum"].severity]
    dome = rng.uniform(0.52, 0.66) - (0.04 if view_position == "AP" else 0.0)
    return Body(
        half_thorax=float(rng.uniform(0.70, 0.80)),
        apex=float(rng.uniform(-0.84, -0.74)),
        dome_right=float(dome - rng.uniform(0.03, 0.08)),
        dome_left=float(dome),
        heart_ratio=float(ratio),
        heart_lean=float(rng.uniform(0.22, 0.30)),
        mediastinum=float(width),
        lung=float(rng.uniform(0.17, 0.23)),
        tissue=float(rng.uniform(0.58, 0.66)),
        rib_phase=float(rng.uniform(0.0, 1.0)),
        rib_strength=float(rng.uniform(0.06, 0.10)),
    )


def frontal(x: Field, y: Field, body: Body, findings: tuple[Finding, ...], rng: np.random.Generator) -> Field:
    """Brightness of a frontal view, float32 [H, W], roughly in [0, 1]."""
    lungs = _lungs(x, y, body, findings)
    outline = edge(body.half_thorax + 0.17 - 0.10 * np.maximum(y, 0.0) - np.abs(x) + _shoulder(y), 0.02)
    field = outline * (body.tissue + 0.05 * y)
    field += (body.lung - field) * (lungs.right + lungs.left)
    field += body.rib_strength * _ribs(x, y, body, lungs) * outline
    field += _vessels(x, lungs, body)

    field = pathology.behind_heart(field, x, y, lungs, findings, rng)

    heart = _heart(x, y, body)
    # The silhouette covers, rather than adds to, what lies behind it; a little of the lung shines through.
    field += (body.tissue + 0.08 - field) * heart * 0.85
    field += np.maximum(0.0, body.tissue + 0.08 - field) * _mediastinum(x, y, body) * 0.9
    field += 0.05 * band(x, 0.10, 0.03) * edge(y + 0.9, 0.05) * (0.6 + 0.4 * np.cos(y * 38.0))
    field -= 0.16 * band(x - 0.01, 0.045, 0.015) * edge(-0.22 - y, 0.03) * outline
    for sign in (-1.0, 1.0):
        start, end = (sign * 0.08, body.apex + 0.20), (sign * (body.half_thorax + 0.05), body.apex + 0.03)
        field += 0.13 * line(x, y, start, end, 0.028)
    return pathology.before_heart(field, x, y, lungs, findings, rng)


def lateral(x: Field, y: Field, body: Body, findings: tuple[Finding, ...], rng: np.random.Generator) -> Field:
    """Brightness of a lateral view (the patient faces x < 0), float32 [H, W]."""
    outline = edge(0.76 - 0.10 * y * y - 0.30 * np.maximum(-y - 0.6, 0.0) - np.abs(x), 0.02)
    field = outline * (body.tissue + 0.04 * y)
    dome = body.dome_left + 0.04 - 0.14 * np.cos(2.6 * (x + 0.15))
    lung = ellipse(x - 0.02, y - 0.05, 0.62, 0.05 - body.apex + 0.05, 0.04) * edge(dome - y, 0.03)
    lung = np.maximum(lung, ellipse(x - 0.02, y - 0.25, 0.60, 0.75, 0.04) * edge(y, 0.2) * edge(dome - y, 0.03))
    field += (body.lung + 0.05 - field) * lung
    size = body.heart_ratio / 0.45
    heart = ellipse(x + 0.24, y - body.dome_left + 0.20 - 0.3 * (x + 0.24), 0.26 * size, 0.27 * size, 0.06)
    field += np.maximum(0.0, body.tissue + 0.05 - field) * heart * 0.9
    spine = band(x - 0.42 - 0.05 * np.sin(2.0 * y), 0.09, 0.03)
    field += 0.16 * spine * (0.7 + 0.3 * np.cos(y * 34.0)) * outline
    field += 0.10 * band(x + 0.60 - 0.04 * y, 0.03, 0.015) * outline
    field -= 0.12 * band(x - 0.02, 0.04, 0.02) * edge(-0.30 - y, 0.05) * outline
    return pathology.lateral(field, x, y, lung, dome, findings, rng)


def _lungs(x: Field, y: Field, body: Body, findings: tuple[Finding, ...]) -> Lungs:
    narrowing = np.clip(1.0 - (y - body.apex) * np.float32(1.2), 0.0, 1.0)
    wall = body.half_thorax * np.sqrt(1.0 - narrowing * narrowing * np.sqrt(narrowing))
    below_apex = edge(y - body.apex, 0.03)
    raised = pathology.dome_lift(findings)
    cavities: list[Field] = []
    masks: list[Field] = []
    downs: list[Field] = []
    for side, sign, top in ((Side.RIGHT, -1.0, body.dome_right), (Side.LEFT, 1.0, body.dome_left)):
        top -= raised[side]
        offset = sign * x - 0.45 * body.half_thorax
        dome = top + 0.85 * offset * offset / body.half_thorax
        cavity = edge(wall - sign * x, 0.02) * edge(sign * x - 0.07, 0.025) * below_apex
        cavities.append(cavity)
        masks.append(cavity * edge(dome - y, 0.02))
        downs.append((y - body.apex) / (top - body.apex))
    across = np.abs(x) / np.maximum(wall, 0.05)
    return Lungs(masks[0], masks[1], cavities[0], cavities[1], across, np.where(x < 0, downs[0], downs[1]))


def _shoulder(y: Field) -> Field:
    """How far the outline reaches beyond the thorax: in at the neck, out at the shoulders."""
    return 0.25 * edge(y + 0.86, 0.05) * edge(-0.35 - y, 0.12) - 0.62 * edge(-0.92 - y, 0.05)


def _heart(x: Field, y: Field, body: Body) -> Field:
    width = body.heart_ratio * body.half_thorax
    middle = width * body.heart_lean
    height = 0.24 + 0.20 * body.heart_ratio
    floor = 0.5 * (body.dome_left + body.dome_right) + 0.06
    lobe = ellipse(x - middle, y - (floor - 0.62 * height) - 0.25 * (x - middle), width, height, 0.05)
    # The great vessels widen into the heart, so its upper border is a shoulder and not a ball's.
    root = edge(0.16 + 0.55 * (y + 0.15) * body.heart_ratio - np.abs(x - 0.25 * middle), 0.04)
    return np.maximum(lobe, root * edge(y + 0.25, 0.06) * edge(floor - 0.25 * height - y, 0.06))


def _mediastinum(x: Field, y: Field, body: Body) -> Field:
    width = body.mediastinum + 0.05 * np.exp(-(((y + 0.32) / 0.12) ** 2)) * (x > 0)
    return edge(width - np.abs(x), 0.025) * edge(y + 0.78, 0.06)


def _ribs(x: Field, y: Field, body: Body, lungs: Lungs) -> Field:
    curve = y - 0.32 * np.abs(x) + 0.55 * x * x
    wave = np.cos((curve * 6.2 + body.rib_phase) * np.float32(2.0 * np.pi))
    reach = edge(1.12 - lungs.across, 0.03) * edge(y - body.apex, 0.05) * edge(0.75 - y, 0.08)
    return np.clip(wave * 1.6 - 0.2, 0.0, 1.0) * reach


def _vessels(x: Field, lungs: Lungs, body: Body) -> Field:
    hilum = np.exp(-(((np.abs(x) - 0.20) / 0.13) ** 2)) * np.exp(-(((lungs.down - 0.55) / 0.22) ** 2))
    return 0.10 * hilum * (lungs.right + lungs.left)
