"""Models side by side on the same samples: values, paired differences from the first, what they say (pure)."""

import re
from collections.abc import Mapping, Sequence

from unix.config import Config
from unix.evaluation.bootstrap import Difference, Draws, Metric, metrics_of, paired_differences
from unix.evaluation.charts import Interval, IntervalChart, interval_chart
from unix.evaluation.metric_names import described, group_of
from unix.evaluation.page import render_template

_SENTENCE = re.compile(r"(?<=\.) (?=[A-Z])")


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
    """One sentence on how a model's metric compares with the first model's."""
    difference = model.differences[metric]
    numbers = f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}], n = {difference.n}"
    if not difference.separated:
        return f"{said}: {model.title} and {first.title} are not told apart ({numbers})."
    better = (difference.value > 0) == higher_is_better
    return f"{said}: {model.title} is {'better' if better else 'worse'} than {first.title} ({numbers})."


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
        rows=[(name, f"{described(name)} ({group_of(name)})", counts[name]) for name in counts],
        facts=facts,
    )


def _plot(models: Sequence[ModelResult], name: str) -> IntervalChart:
    marks = [
        Interval(model.title, one.value, one.low, one.high, index)
        for index, model in enumerate(models)
        if (one := model.metrics.get(name)) is not None
    ]
    return interval_chart(f"{name}: {described(name)}", marks)
