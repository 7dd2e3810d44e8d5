"""Publishes an ablation: its table as JSON and as a page with plots."""

import re
from collections.abc import Sequence
from pathlib import Path

from unix.ablation.arms import AblationSummary
from unix.evaluation.charts import Interval, IntervalChart, interval_chart
from unix.evaluation.page import publish_page, render_template
from unix.manifest import write_atomically

SUMMARY_FILE = "ablation.json"

_TITLES = {
    "cleaning": "Cleaned or raw reports as training text",
    "joint": "Training the generation branch with the understanding branch frozen or not",
}
_SENTENCE = re.compile(r"(?<=\.) (?=[A-Z])")


def publish(summary: AblationSummary, charted: Sequence[str], out: str) -> None:
    """Write `report.html`, then `ablation.json`, into the folder `out`; `charted` are the metrics to plot."""
    publish_page(render(summary, charted), summary.page)
    write_atomically(Path(out) / SUMMARY_FILE, (summary.model_dump_json(indent=1) + "\n").encode())


def render(summary: AblationSummary, charted: Sequence[str]) -> str:
    """The page; the same summary gives the same text."""
    counts = {name: metric.n for arm in summary.arms for name, metric in arm.metrics.items()}
    facts = [
        ("started from", summary.from_checkpoint),
        ("split", summary.split),
        ("seed", str(summary.seed)),
        ("measuring and training in this call", f"{summary.seconds:.0f} s"),
        *((f"checkpoint: {arm.title}", arm.checkpoint) for arm in summary.arms),
    ]
    return render_template(
        "ablation.html.j2",
        title=_TITLES[summary.ablation],
        lead=f"{len(summary.arms)} short trainings from one checkpoint, each measured on the same "
        f"{summary.arms[0].n:,} samples of the {summary.split} split.",
        synthetic=summary.synthetic,
        command=f"unix ablate {summary.ablation}",
        labeler="the rule labeler",
        verdict=_SENTENCE.split(summary.verdict),
        baselines=summary.baselines,
        plots=[_plot(summary, name) for name in charted if name in counts],
        arms=summary.arms,
        names=list(counts),
        counts=counts,
        facts=facts,
    )


def _plot(summary: AblationSummary, metric: str) -> IntervalChart:
    marks = [
        Interval(arm.title, one.value, one.low, one.high, index)
        for index, arm in enumerate(summary.arms)
        if (one := arm.metrics.get(metric)) is not None
    ]
    return interval_chart(metric, marks)
