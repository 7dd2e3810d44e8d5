"""Who reads CheXpert-14 labels out of a text: one labeler for both sides of a comparison, and for every row of a table.

Free of torch; CheXbert is in `unix.evaluation.chexbert`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from unix.data.labels import label_report
from unix.errors import ConfigError
from unix.records import Labels


class Labeler(Protocol):
    """Labels texts; two with equal names give the same labels."""

    @property
    def name(self) -> str:
        """What a table calls it; tells its weights apart where it has any."""
        ...

    def label(self, texts: Sequence[str]) -> list[Labels]:
        """All 14 labels of each text; each depends on its own text only."""
        ...


class RuleLabeler:
    """The project's rules; needs no weights."""

    name = "rules"

    def label(self, texts: Sequence[str]) -> list[Labels]:
        """All 14 labels of each text."""
        return [label_report(text) for text in texts]


def open_labeler(name: str) -> Labeler:
    """The labeler `rules` or `chexbert:PATH[:BERT_FOLDER]`; without a folder BERT's files stand beside the checkpoint.

    Raises:
        ConfigError: there is no such labeler, or no checkpoint is named.
        WeightsError: a file is missing, or the checkpoint is not a CheXbert of this BERT.
    """
    kind, _, place = name.partition(":")
    if name == RuleLabeler.name:
        return RuleLabeler()
    checkpoint, _, bert = place.partition(":")
    if kind != "chexbert" or not checkpoint:
        raise ConfigError(
            f"there is no labeler {name!r}; choose rules or chexbert:PATH[:BERT_FOLDER], PATH being that of "
            "chexbert.pth; nothing is downloaded"
        )
    from unix.evaluation.chexbert import CheXbert

    return CheXbert.load(Path(checkpoint), Path(bert) if bert else Path(checkpoint).parent)


@dataclass(frozen=True, slots=True)
class LabelledReports:
    """Labels of N reports by one labeler; None where there was no text."""

    labeler: str
    labels: tuple[Labels | None, ...]


def label_reports(labeler: Labeler, texts: Sequence[str], max_characters: int | None = None) -> LabelledReports:
    """Label reports; a blank one is never shown to the labeler, which would call it No Finding.

    `max_characters` cuts texts as some protocols do, and is told in the labeler's name: what stands behind the cut is
    lost.

    Raises:
        ConfigError: one is no text, such as the NaN that a table reader puts for an empty cell.
    """
    for text in texts:
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - tables hand over what they like
            raise ConfigError(f"a report must be text, not {type(text).__name__}; read an empty cell as an empty text")
    cut = [text[:max_characters] for text in texts]
    # a text that stands there twice is labelled once
    written = list(dict.fromkeys(text for text in cut if text.strip()))
    found = dict(zip(written, labeler.label(written), strict=True)) if written else {}
    labels = tuple(found.get(text) for text in cut)
    told = "" if max_characters is None else f", first {max_characters} characters"
    return LabelledReports(labeler.name + told, labels)
