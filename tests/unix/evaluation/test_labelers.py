from collections.abc import Sequence

from unix.data.labels import label_report
from unix.evaluation.labelers import RuleLabeler, label_reports
from unix.records import Labels, no_labels


class Remembering:
    name = "remembering"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def label(self, texts: Sequence[str]) -> list[Labels]:
        self.seen += texts
        return [no_labels() | {"Edema": 1} for _ in texts]


def test_rules_label_each_text() -> None:
    texts = ["There is a left pleural effusion.", "The lungs are clear."]
    found = label_reports(RuleLabeler(), texts)
    assert found.labels == tuple(label_report(text) for text in texts)
    assert found.labeler == "rules"


def test_a_blank_report_has_no_labels_and_is_never_shown_to_the_labeler() -> None:
    labeler = Remembering()
    found = label_reports(labeler, ["", "edema", " \n"])
    assert labeler.seen == ["edema"]
    assert [one is None for one in found.labels] == [True, False, True]


def test_a_cut_is_made_in_characters_and_told_in_the_name() -> None:
    text = "The lungs are clear. " * 30 + "There is a pneumothorax."
    whole, cut = label_reports(RuleLabeler(), [text]), label_reports(RuleLabeler(), [text], max_characters=512)
    assert whole.labels[0] is not None and cut.labels[0] is not None
    assert (whole.labels[0]["Pneumothorax"], cut.labels[0]["Pneumothorax"]) == (1, None)
    assert cut.labeler == "rules, first 512 characters"
