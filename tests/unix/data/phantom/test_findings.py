"""Studies are varied: about a quarter is normal, every class occurs, and places do not collide."""

from collections import Counter

import pytest

from unix.data.phantom.findings import Device, Finding, Severity, Side, Zone, draw_findings
from unix.records import CHEXPERT_14

NUM = 3000


@pytest.fixture(scope="module")
def studies() -> list[tuple[Finding, ...]]:
    return [draw_findings(5, index) for index in range(NUM)]


def test_a_quarter_is_normal(studies: list[tuple[Finding, ...]]) -> None:
    normal = sum(all(finding.device for finding in findings) for findings in studies)
    assert 0.2 < normal / NUM < 0.35


def test_every_class_occurs_and_none_rules(studies: list[tuple[Finding, ...]]) -> None:
    shares = Counter(name for findings in studies for name in {finding.name for finding in findings})
    assert set(shares) == set(CHEXPERT_14) - {"No Finding"}
    assert min(shares.values()) / NUM > 0.05
    assert max(shares.values()) / NUM < 0.4


def test_one_to_four_findings(studies: list[tuple[Finding, ...]]) -> None:
    assert {len(findings) for findings in studies} == {0, 1, 2, 3, 4}


def test_sides_zones_severities_and_devices_vary(studies: list[tuple[Finding, ...]]) -> None:
    every = [finding for findings in studies for finding in findings]
    assert {finding.side for finding in every} == set(Side)
    assert {finding.zone for finding in every} == set(Zone)
    assert {finding.severity for finding in every} == set(Severity)
    assert {finding.device for finding in every} == {*Device, None}
    assert 0.03 < sum(finding.uncertain for finding in every) / len(every) < 0.2


def test_two_shadows_never_share_a_place(studies: list[tuple[Finding, ...]]) -> None:
    filling = {"Atelectasis", "Consolidation", "Lung Lesion", "Lung Opacity", "Pneumonia"}
    for findings in studies:
        places = [(finding.side, finding.zone) for finding in findings if finding.name in filling]
        assert len(places) <= 2
        if len(places) == 2 and places[0][1] == places[1][1]:
            assert {place[0] for place in places} == {Side.LEFT, Side.RIGHT}
