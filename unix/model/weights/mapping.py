"""Renaming tensors between two layouts, both ways, with the few reshapes that the foreign ones need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unix.errors import WeightsError


@dataclass(frozen=True)
class Rule:
    """One of our tensors and where it lives in the foreign layout."""

    ours: str
    theirs: str
    third: int | None = None
    """Ours is this third (0, 1, 2) of the foreign tensor's rows."""
    leading: int = 0
    """Dimensions of size 1 that the foreign tensor has in front."""
    trailing: int = 0
    """Dimensions of size 1 that the foreign tensor has at the end."""


def import_tensors(
    rules: Sequence[Rule], foreign: Mapping[str, Tensor], origin: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Foreign tensors under our names, and those that no rule names.

    Raises:
        WeightsError: a foreign tensor is missing or cannot be reshaped; named with `origin`.
    """
    missing = [rule.theirs for rule in rules if rule.theirs not in foreign]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise WeightsError(f"{origin}: missing {', '.join(missing[:5])}{more}")
    ours = {rule.ours: _to_ours(rule, foreign[rule.theirs], origin) for rule in rules}
    named = {rule.theirs for rule in rules}
    return ours, {name: value for name, value in foreign.items() if name not in named}


def export_tensors(rules: Sequence[Rule], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under the foreign names; the inverse of `import_tensors`."""
    foreign: dict[str, Tensor] = {}
    thirds: dict[str, dict[int, Tensor]] = {}
    for rule in rules:
        value = ours[rule.ours]
        value = value.reshape((1,) * rule.leading + tuple(value.shape) + (1,) * rule.trailing)
        if rule.third is None:
            foreign[rule.theirs] = value
        else:
            thirds.setdefault(rule.theirs, {})[rule.third] = value
    for name, parts in thirds.items():
        foreign[name] = torch.cat([parts[index] for index in range(3)])
    return foreign


def _to_ours(rule: Rule, value: Tensor, origin: str) -> Tensor:
    shape = tuple(value.shape)
    kept = shape[rule.leading : len(shape) - rule.trailing]
    ones = shape[: rule.leading] + shape[len(shape) - rule.trailing :]
    if any(size != 1 for size in ones) or len(ones) != rule.leading + rule.trailing:
        raise WeightsError(f"{origin}: {rule.theirs} has shape {list(shape)}, which cannot become {rule.ours}")
    value = value.reshape(kept)
    if rule.third is None:
        return value
    if len(value) % 3:
        raise WeightsError(f"{origin}: {rule.theirs} has {len(value)} rows, which are no three equal parts")
    return value.chunk(3)[rule.third]
