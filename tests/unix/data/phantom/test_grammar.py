"""Clean text names what there is, in many ways, and its labels follow from its words."""

from itertools import product

import pytest

from unix.data.labels import label_report
from unix.data.phantom.draws import Draws
from unix.data.phantom.findings import Device, Finding, Severity, Side, Zone, draw_findings
from unix.data.phantom.grammar import CleanText, count_phrasings, expand, write_clean_text
from unix.records import CHEXPERT_14

NUM = 600


def write(index: int) -> tuple[tuple[Finding, ...], CleanText]:
    findings = draw_findings(0, index)
    return findings, write_clean_text(findings, Draws(0, index, "text"))


@pytest.mark.parametrize("name", [name for name in CHEXPERT_14 if name not in ("No Finding", "Support Devices")])
def test_every_class_has_dozens_of_phrasings(name: str) -> None:
    assert count_phrasings(Finding(name, Side.LEFT, Zone.LOWER, Severity.MODERATE)) >= 24


def test_devices_have_dozens_of_phrasings() -> None:
    total = sum(count_phrasings(Finding("Support Devices", Side.LEFT, device=device)) for device in Device)
    assert total >= 48


def test_the_impression_names_finding_severity_side_and_zone() -> None:
    for index, (side, zone) in enumerate(product((Side.LEFT, Side.RIGHT), (Zone.UPPER, Zone.MIDDLE, Zone.LOWER))):
        finding = Finding("Consolidation", side, zone, Severity.SEVERE)
        for turn in range(20):
            text = write_clean_text((finding,), Draws(1, 100 * index + turn, "text"))
            impression = " ".join(text.impression).lower()
            if impression:
                assert "consolidation" in impression
                assert {side.value, zone.value} <= set(impression.replace(".", "").split())
                assert any(word in impression for word in ("large", "extensive", "dense"))


def test_labels_agree_with_the_findings() -> None:
    for index in range(NUM):
        findings, text = write(index)
        certain = {finding.name for finding in findings if not finding.uncertain}
        doubted = {finding.name for finding in findings if finding.uncertain} - certain
        assert {name for name, value in text.labels.items() if value == -1} == doubted
        positive = {name for name, value in text.labels.items() if value == 1}
        assert positive - {"No Finding"} == certain
        incidental = any("egenerative" in sentence for sentence in text.findings)
        assert ("No Finding" in positive) == (certain | doubted <= {"Support Devices"} and not incidental)


def test_the_rule_labeler_reads_the_same_labels_from_the_words() -> None:
    wrong = 0
    for index in range(NUM):
        _, text = write(index)
        wrong += label_report(" ".join((*text.findings, *text.impression))) != text.labels
    assert wrong / NUM <= 0.01


def test_length_and_missing_sections_are_as_in_mimic() -> None:
    texts = [write(index)[1] for index in range(NUM)]
    lengths = [len(" ".join(text.findings).split()) for text in texts if text.findings]
    assert 22 <= sum(lengths) / len(lengths) <= 45
    assert max(lengths) <= 70
    assert 0.03 < sum(not text.findings for text in texts) / NUM < 0.15
    assert 0.03 < sum(not text.impression for text in texts) / NUM < 0.15
    assert all(text.findings or text.impression for text in texts)


def test_sentences_are_whole() -> None:
    for index in range(NUM):
        _, text = write(index)
        for sentence in (*text.findings, *text.impression):
            assert sentence[0].isupper() or sentence[0].isdigit()
            assert sentence.endswith(".")
            assert "  " not in sentence
            assert not set(sentence) & set("[]{}|")


def test_phrases_expand_choices_and_slots() -> None:
    readings = {expand("[a|b[c|]] {slot}", {"slot": "[x|y]"}, Draws(0, turn, "expand")) for turn in range(200)}
    assert readings == {f"{start} {end}" for start in ("a", "b", "bc") for end in "xy"}


def test_an_unbalanced_phrase_is_refused() -> None:
    with pytest.raises(ValueError, match="unbalanced"):
        expand("a]", {}, Draws(0, 0, "expand"))
