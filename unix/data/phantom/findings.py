"""What a synthetic study shows: typed findings, drawn from (seed, study index)."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from unix.data.phantom.draws import Draws

Item = TypeVar("Item")


class Side(StrEnum):
    """The patient's side; the patient's left is the image's right."""

    LEFT = "left"
    RIGHT = "right"
    BOTH = "bilateral"
    NONE = ""


class Zone(StrEnum):
    """Height within the lung."""

    UPPER = "upper"
    MIDDLE = "mid"
    LOWER = "lower"
    NONE = ""


class Severity(StrEnum):
    """How much of it there is."""

    MILD = "mild"
    MODERATE = "moderate"
    SEVERE = "severe"

    @property
    def grade(self) -> int:
        """0, 1 or 2."""
        return list(Severity).index(self)


class Device(StrEnum):
    """Kinds of support device; the value is its name in the attributes."""

    PACEMAKER = "pacemaker"
    ENDOTRACHEAL_TUBE = "endotracheal tube"
    CENTRAL_LINE = "central venous catheter"
    NASOGASTRIC_TUBE = "nasogastric tube"
    CHEST_TUBE = "chest tube"
    PROSTHETIC_VALVE = "prosthetic valve"


@dataclass(frozen=True, slots=True)
class Finding:
    """One abnormality or device. `name` is a CheXpert class; `device` is set for Support Devices only."""

    name: str
    side: Side = Side.NONE
    zone: Zone = Zone.NONE
    severity: Severity = Severity.MODERATE
    uncertain: bool = False
    device: Device | None = None


@dataclass(frozen=True, slots=True)
class _Habit:
    """How a class occurs: relative frequency, and what sides, zones and doubts it allows."""

    weight: float
    sides: tuple[tuple[Side, float], ...] = ((Side.NONE, 1.0),)
    zones: tuple[tuple[Zone, float], ...] = ((Zone.NONE, 1.0),)
    doubt: float = 0.0


_ONE_SIDE = ((Side.LEFT, 0.5), (Side.RIGHT, 0.5))
_ANY_SIDE = ((Side.LEFT, 0.4), (Side.RIGHT, 0.4), (Side.BOTH, 0.2))
_ANY_ZONE = ((Zone.UPPER, 0.33), (Zone.MIDDLE, 0.27), (Zone.LOWER, 0.4))

_HABITS: dict[str, _Habit] = {
    "Atelectasis": _Habit(1.3, _ANY_SIDE, ((Zone.MIDDLE, 0.25), (Zone.LOWER, 0.75)), doubt=0.15),
    "Cardiomegaly": _Habit(1.7),
    "Consolidation": _Habit(1.1, _ONE_SIDE, _ANY_ZONE, doubt=0.15),
    "Edema": _Habit(1.3, ((Side.BOTH, 1.0),), doubt=0.1),
    "Enlarged Cardiomediastinum": _Habit(0.8),
    "Fracture": _Habit(0.7, _ONE_SIDE, _ANY_ZONE, doubt=0.1),
    "Lung Lesion": _Habit(1.0, _ONE_SIDE, _ANY_ZONE, doubt=0.15),
    "Lung Opacity": _Habit(1.4, _ANY_SIDE, _ANY_ZONE, doubt=0.1),
    "Pleural Effusion": _Habit(2.0, ((Side.LEFT, 0.37), (Side.RIGHT, 0.37), (Side.BOTH, 0.26)), doubt=0.1),
    "Pleural Other": _Habit(0.6, _ONE_SIDE),
    "Pneumonia": _Habit(1.1, _ONE_SIDE, _ANY_ZONE, doubt=0.3),
    "Pneumothorax": _Habit(1.1, _ONE_SIDE, doubt=0.05),
    "Support Devices": _Habit(1.7),
}
_PARENCHYMAL = frozenset({"Atelectasis", "Consolidation", "Lung Lesion", "Lung Opacity", "Pneumonia"})
"""Classes that fill a place in the lung: at most two in a study, never two in the same place."""

_NORMAL_SHARE = 0.25
_NORMAL_WITH_DEVICE_SHARE = 0.1
_COUNTS = ((1, 0.34), (2, 0.34), (3, 0.22), (4, 0.10))
_SEVERITIES = ((Severity.MILD, 0.3), (Severity.MODERATE, 0.4), (Severity.SEVERE, 0.3))
_DEVICE_SIDES: dict[Device, tuple[tuple[Side, float], ...]] = {
    Device.PACEMAKER: ((Side.LEFT, 0.75), (Side.RIGHT, 0.25)),
    Device.CENTRAL_LINE: ((Side.LEFT, 0.4), (Side.RIGHT, 0.6)),
    Device.CHEST_TUBE: _ONE_SIDE,
}


def draw_findings(seed: int, index: int) -> tuple[Finding, ...]:
    """The findings of study `index`: none in about a quarter of the studies, otherwise one to four."""
    draws = Draws(seed, index, "findings")
    if draws.chance(_NORMAL_SHARE):
        return (_draw_device(draws),) if draws.chance(_NORMAL_WITH_DEVICE_SHARE) else ()
    wanted = _pick(draws, _COUNTS)
    found: list[Finding] = []
    open_names = dict(_HABITS)
    while len(found) < wanted and open_names:
        name = draws.weighted(list(open_names), [habit.weight for habit in open_names.values()])
        habit = open_names.pop(name)
        if name in _PARENCHYMAL and sum(f.name in _PARENCHYMAL for f in found) == 2:
            continue
        finding = _draw_device(draws) if name == "Support Devices" else _draw_finding(draws, name, habit)
        if not any(_same_place(finding, other) for other in found):
            found.append(finding)
    return tuple(sorted(found, key=lambda finding: finding.name))


def _draw_finding(draws: Draws, name: str, habit: _Habit) -> Finding:
    uncertain = draws.chance(habit.doubt)
    side, zone = _pick(draws, habit.sides), _pick(draws, habit.zones)
    severity = _pick(draws, _SEVERITIES)
    # Radiologists hedge about what they can barely see.
    return Finding(name, side, zone, Severity.MILD if uncertain else severity, uncertain)


def _draw_device(draws: Draws) -> Finding:
    device = draws.choose(list(Device))
    side = _pick(draws, _DEVICE_SIDES.get(device, ((Side.NONE, 1.0),)))
    return Finding("Support Devices", side, device=device)


def _same_place(one: Finding, other: Finding) -> bool:
    if not {one.name, other.name} <= _PARENCHYMAL or one.zone != other.zone:
        return False
    return one.side == other.side or Side.BOTH in (one.side, other.side)


def _pick(draws: Draws, options: tuple[tuple[Item, float], ...]) -> Item:
    return draws.weighted([item for item, _ in options], [weight for _, weight in options])
