"""Models side by side on the same samples: values, paired differences from the first, what they say (pure)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unix.config import Config
from unix.evaluation.bootstrap import Difference, Draws, Metric, metrics_of, paired_differences
from unix.evaluation.charts import Interval, IntervalChart, interval_chart
from unix.evaluation.metric_names import described, group_of, grouped
from unix.evaluation.page import render_template

_SENTENCE = re.compile(r"(?<=\.) (?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table, under the heading that its name belongs to."""

    name: str
    title: str
    n: int


@dataclass(frozen=True, slots=True)
class Plot:
    """One metric of all models, and what it compares with."""

    name: str
    heading: str
    chart: IntervalChart


class ModelResult(Config):
    """One model of a comparison."""

    name: str
    title: str
    checkpoint: str
    steps: int | None = None
    """Of its training, where the comparison is one of trainings."""
    n: int
    metrics: dict[str, Metric]
    differences: dict[str, Difference]
    """This model minus the first, on the same resampled patients; empty for the first."""


def model_result(
    name: str,
    title: str,
    checkpoint: str,
    draws: Mapping[str, Draws],
    first: Mapping[str, Draws] | None,
    steps: int | None = None,
) -> ModelResult:
    """A model's values, with its differences from the first model where that is another one."""
    return ModelResult(
        name=name,
        title=title,
        checkpoint=checkpoint,
        steps=steps,
        n=max(one.n for one in draws.values()),
        metrics=metrics_of(draws),
        differences={} if first is None else paired_differences(first, draws),
    )


def compared(said: str, model: ModelResult, first: ModelResult, metric: str, higher_is_better: bool = True) -> str:
    """One sentence on how a model's metric compares with the first model's, such as `F1, b against a: worse (...).`"""
    difference = model.differences[metric]
    numbers = f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}], n = {difference.n}"
    outcome = "not told apart"
    if difference.separated:
        outcome = "better" if (difference.value > 0) == higher_is_better else "worse"
    return f"{said}, {model.title} against {first.title}: {outcome} ({numbers})."


def render_comparison(
    *,
    title: str,
    lead: str,
    command: str,
    labeler: str,
    synthetic: bool,
    verdict: str,
    baselines: Mapping[str, float],
    models: Sequence[ModelResult],
    charted: Sequence[str],
    facts: Sequence[tuple[str, str]],
) -> str:
    """The page of a comparison: what its intervals say, plots of the `charted` metrics, every number."""
    counts = {name: metric.n for model in models for name, metric in model.metrics.items()}
    rows = [Row(name, described(name), count) for name, count in counts.items()]
    return render_template(
        "comparison.html.j2",
        title=title,
        lead=lead,
        synthetic=synthetic,
        command=command,
        labeler=labeler,
        verdict=_SENTENCE.split(verdict),
        baselines=baselines,
        plots=[_plot(models, name) for name in charted if name in counts],
        models=models,
        groups=grouped(rows),
        facts=facts,
    )


def _plot(models: Sequence[ModelResult], name: str) -> Plot:
    marks = [
        Interval(model.title, one.value, one.low, one.high, index)
        for index, model in enumerate(models)
        if (one := model.metrics.get(name)) is not None
    ]
    return Plot(name, group_of(name), interval_chart(described(name), marks))
