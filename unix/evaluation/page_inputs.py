"""What the HTML report shows, as plain typed values; filled by `unix.evaluation.demo_report`."""

from dataclasses import dataclass

from unix.evaluation.bootstrap import Metric
from unix.evaluation.charts import Series
from unix.evaluation.clinical import ClassScore
from unix.records import Labels, RemovedSpan


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """One step of the data's way: `total` things went in, `kept` came out, the rest left for the named `reasons`."""

    name: str
    unit: str
    total: int
    kept: int
    reasons: dict[str, int]
    note: str = ""


@dataclass(frozen=True, slots=True)
class CleaningExample:
    """A report before and after cleaning."""

    study_id: str
    raw: str
    cleaned: str
    removed: tuple[RemovedSpan, ...]
    status: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StageCurves:
    """The losses of one training stage."""

    stage: str
    series: tuple[Series, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class GalleryRow:
    """A real image, the same through the VAE, and what the model drew for its prompt; images as PNG bytes."""

    image_id: str
    prompt: str
    real: bytes
    reconstructed: bytes
    generated: bytes
    prompt_labels: Labels
    read_back: Labels


@dataclass(frozen=True, slots=True)
class ReportPair:
    """A true report beside the generated one; the image as PNG bytes."""

    image_id: str
    image: bytes
    true_report: str
    generated_report: str
    true_labels: Labels
    generated_labels: Labels


@dataclass(frozen=True, slots=True)
class Baseline:
    """A number that a metric has to be seen against; `ceiling` where it bounds from above."""

    name: str
    value: float
    ceiling: bool = False


@dataclass(frozen=True, slots=True)
class Requirement:
    """What was asked of a metric, in words, and whether it came true."""

    text: str
    met: bool


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One line of the table of results."""

    group: str
    name: str
    metric: Metric
    baselines: tuple[Baseline, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class ClassTable:
    """F1 per class of one comparison."""

    title: str
    scores: dict[str, ClassScore]


@dataclass(frozen=True, slots=True)
class Fact:
    """A labelled line of the closing section."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class PageInputs:
    """Everything on the page. `synthetic` puts up the banner that no patient is behind it."""

    title: str
    summary: str
    synthetic: bool
    metrics: tuple[MetricRow, ...]
    class_tables: tuple[ClassTable, ...]
    funnel: tuple[FunnelStep, ...]
    cleaning: tuple[CleaningExample, ...]
    curves: tuple[StageCurves, ...]
    gallery: tuple[GalleryRow, ...]
    reports: tuple[ReportPair, ...]
    facts: tuple[Fact, ...]
    provenance: tuple[Fact, ...]
