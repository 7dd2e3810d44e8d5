"""Renaming tensors between two layouts, both ways, with the few reshapes that the foreign ones need."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

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


class Computed(Mapping[str, Tensor]):
    """Tensors by name, each computed when it is asked for and not kept."""

    def __init__(self, functions: Mapping[str, Callable[[], Tensor]]) -> None:
        self._functions = functions

    def __getitem__(self, name: str) -> Tensor:
        return self._functions[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)


def import_tensors(
    rules: Sequence[Rule], foreign: Mapping[str, Tensor], origin: str
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Foreign tensors under our names, and those that no rule names; both read from `foreign` only when asked for.

    Raises:
        WeightsError: a foreign tensor is missing or, when asked for, cannot be reshaped; named with `origin`.
    """
    missing = [rule.theirs for rule in rules if rule.theirs not in foreign]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise WeightsError(f"{origin}: missing {', '.join(missing[:5])}{more}")
    ours = {rule.ours: partial(_read, rule, foreign, origin) for rule in rules}
    named = {rule.theirs for rule in rules}
    rest = {name: partial(foreign.__getitem__, name) for name in foreign if name not in named}
    return Computed(ours), Computed(rest)


def check_shapes(
    rules: Sequence[Rule], ours: Mapping[str, Sequence[int]], foreign: Mapping[str, Sequence[int]], origin: str
) -> None:
    """See that foreign tensors will fit ours, by their shapes alone and before any is read.

    Raises:
        WeightsError: names the first few that do not, `origin` first.
    """
    faults: list[str] = []
    for rule in rules:
        rows, *rest = ours[rule.ours]
        kept = [rows if rule.third is None else 3 * rows, *rest]
        wanted = [1] * rule.leading + kept + [1] * rule.trailing
        given = list(foreign.get(rule.theirs, wanted))
        if given != wanted:
            faults.append(f"{rule.theirs} has shape {given}, not {wanted}")
    faults = list(dict.fromkeys(faults))
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise WeightsError(f"{origin}: {'; '.join(faults[:5])}{more}")


def export_tensors(rules: Sequence[Rule], ours: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Our tensors under the foreign names, computed when asked for; the inverse of `import_tensors`."""
    parts: dict[str, list[Rule]] = {}
    for rule in rules:
        parts.setdefault(rule.theirs, []).append(rule)
    return Computed({theirs: partial(_joined, thirds, ours) for theirs, thirds in parts.items()})


def _joined(rules: Sequence[Rule], ours: Mapping[str, Tensor]) -> Tensor:
    values = [_to_theirs(rule, ours[rule.ours]) for rule in sorted(rules, key=lambda rule: rule.third or 0)]
    return values[0] if len(values) == 1 else torch.cat(values)


def _to_theirs(rule: Rule, value: Tensor) -> Tensor:
    return value.reshape((1,) * rule.leading + tuple(value.shape) + (1,) * rule.trailing)


def _read(rule: Rule, foreign: Mapping[str, Tensor], origin: str) -> Tensor:
    return _to_ours(rule, foreign[rule.theirs], origin)


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
