"""The rows of the page's table of results: each metric beside its baselines and what the demo must reach."""

from collections.abc import Sequence

from unix.data.cleaning.score import ScoredReport, score
from unix.evaluation import page_inputs as page
from unix.evaluation.bootstrap import Metric
from unix.evaluation.results import EvaluationSummary


def reading_rows(evaluation: EvaluationSummary) -> list[page.MetricRow]:
    """Reports against their references, beside predictors that never look at the image."""
    group, metrics, base = "Reports written for test images", evaluation.metrics, evaluation.baselines
    micro, constant = metrics["micro_f1_14"], base["best_constant_micro_f1_14"]
    rows = [
        page.MetricRow(
            group,
            "micro-F1, 14 classes",
            micro,
            (
                page.Baseline("best constant label set", constant),
                page.Baseline("most frequent report", base["most_frequent_report_micro_f1_14"]),
                page.Baseline("shuffled", base["shuffled_micro_f1_14"]),
            ),
            (_at_least(micro.value, 0.43), _at_least(micro.value, constant + 0.10, "best constant + 0.10")),
            f"Truth: {evaluation.references}.",
        ),
        page.MetricRow(
            group,
            "macro-F1, 14 classes",
            metrics["macro_f1_14"],
            (page.Baseline("best constant label set", base["best_constant_macro_f1_14"]),),
        ),
    ]
    for name, title in (
        ("macro_f1_14_frequent", "macro-F1, classes with at least ten positives"),
        ("micro_f1_5", "micro-F1, 5 classes"),
        ("micro_f1_14_uncertain_negative", "micro-F1, 14 classes, uncertain as absent"),
        ("example_f1", "F1 per report, mean"),
    ):
        if name in metrics:
            rows.append(page.MetricRow(group, title, metrics[name]))
    if "side_accuracy" in metrics:
        chance = (page.Baseline("chance", 0.5),)
        rows.append(page.MetricRow(group, "side named as in the true report", metrics["side_accuracy"], chance))
    return rows


def drawing_rows(evaluation: EvaluationSummary) -> list[page.MetricRow]:
    """Drawings against their prompts, read back and measured, beside shuffled prompts and real images."""
    group, metrics, base = "Images drawn for test prompts", evaluation.metrics, evaluation.baselines
    readback, shuffled = metrics["readback_micro_f1_14"], base["shuffled_readback_micro_f1_14"]
    rows = [
        page.MetricRow(
            group,
            "read-back micro-F1, 14 classes",
            readback,
            (
                page.Baseline("shuffled prompts", shuffled),
                page.Baseline("reconstructed real images", base["reconstruction_readback_micro_f1_14"], ceiling=True),
            ),
            (_at_least(readback.value, 0.40), _at_least(readback.value, 2.5 * shuffled, "2.5 times shuffled")),
            f"Truth: {evaluation.references}.",
        )
    ]
    for name, title, chance, least in (
        ("cardiomegaly_auc", "heart width tells cardiomegaly, AUC", 0.5, 0.80),
        ("effusion_auc", "bright base tells effusion, AUC", 0.5, 0.75),
        ("pneumothorax_auc", "dark rim tells pneumothorax, AUC", 0.5, None),
        ("side_accuracy", "side drawn as in the prompt", 0.5, None),
    ):
        if name in metrics:
            baselines = [page.Baseline("chance", chance)]
            for kind, said in (("reconstruction", "reconstructed"), ("real", "real images")):
                if f"{kind}_{name}" in base:
                    baselines.append(page.Baseline(said, base[f"{kind}_{name}"], ceiling=True))
            asked = () if least is None else (_at_least(metrics[name].value, least),)
            rows.append(page.MetricRow(group, title, metrics[name], tuple(baselines), asked, "Measured on the pixels."))
    return rows


def cleaning_rows(reports: Sequence[ScoredReport]) -> list[page.MetricRow]:
    """How well cleaning kept the text and removed the noise; counted over all reports, so without an interval."""
    group, numbers = "Cleaning, against the phantom's ground truth", score(reports)
    return [
        page.MetricRow(group, title, _counted(value, len(reports)), (), (_at_least(value, least),), note)
        for title, value, least, note in (
            ("words of the truth kept", numbers.clean_token_recall, 0.98, "A rejected report counts as nothing kept."),
            ("words of the noise removed", numbers.noise_removed, 0.95, ""),
            ("reports accepted", numbers.accepted_share, 0.97, ""),
        )
    ]


def _counted(value: float, n: int) -> Metric:
    return Metric(value=value, low=value, high=value, n=n)


def _at_least(value: float, least: float, meaning: str = "") -> page.Requirement:
    return page.Requirement(f"≥ {least:.2f}" + (f", {meaning}" if meaning else ""), value >= least)
