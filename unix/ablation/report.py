"""Publishes an ablation: its table as JSON and as a page with plots."""

from collections.abc import Sequence
from pathlib import Path

from unix.ablation.arms import AblationSummary
from unix.evaluation.comparison import render_comparison
from unix.evaluation.page import publish_page
from unix.manifest import write_atomically

SUMMARY_FILE = "ablation.json"

_TITLES = {
    "cleaning": "Cleaned or raw reports as training text",
    "joint": "Training the generation branch with the understanding branch frozen or not",
}


def publish(summary: AblationSummary, charted: Sequence[str], out: str) -> None:
    """Write `report.html`, then `ablation.json`, into the folder `out`; `charted` are the metrics to plot."""
    publish_page(render(summary, charted), summary.page)
    write_atomically(Path(out) / SUMMARY_FILE, (summary.model_dump_json(indent=1) + "\n").encode())


def render(summary: AblationSummary, charted: Sequence[str]) -> str:
    """The page; the same summary gives the same text."""
    return render_comparison(
        title=_TITLES[summary.ablation],
        lead=f"{len(summary.arms)} short trainings from one checkpoint, each measured on the same "
        f"{summary.arms[0].n:,} samples of the {summary.split} split.",
        command=f"unix ablate {summary.ablation}",
        labeler="the rule labeler",
        synthetic=summary.synthetic,
        verdict=summary.verdict,
        baselines=summary.baselines,
        models=summary.arms,
        charted=charted,
        facts=[
            ("started from", summary.from_checkpoint),
            ("split", summary.split),
            ("seed", str(summary.seed)),
            *((f"checkpoint: {arm.title}", arm.checkpoint) for arm in summary.arms),
        ],
    )
