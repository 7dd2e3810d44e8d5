"""Labels of many texts, by as many processes as there are to do it; the labels do not depend on how many."""

from collections.abc import Sequence

from unix.data.engines import EngineName, spread
from unix.data.labels import label_report
from unix.errors import UnixError
from unix.progress import Progress
from unix.records import Labels

_TEXTS_PER_PART = 2000


def label_reports(texts: Sequence[str], engine: EngineName = "local", workers: int | None = 1) -> list[Labels]:
    """The CheXpert-14 labels of each text, in order.

    Raises:
        ConfigError: Ray is wanted and cannot be had.
        UnixError: a process died.
    """
    parts = [(start, texts[start : start + _TEXTS_PER_PART]) for start in range(0, len(texts), _TEXTS_PER_PART)]
    labelled: dict[int, list[Labels]] = {}
    with Progress("labelling texts", len(texts)) as progress:
        for start, labels in spread(engine, _label_part, parts, workers, "labelling texts", UnixError):
            labelled[start] = labels
            progress.advance(len(labels))
    return [labels for start in sorted(labelled) for labels in labelled[start]]


def _label_part(start: int, texts: Sequence[str]) -> tuple[int, list[Labels]]:
    return start, [label_report(text) for text in texts]
