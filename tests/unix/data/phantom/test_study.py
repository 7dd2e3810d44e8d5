"""Identities never collide, keep MIMIC's shape, and depend on (seed, index) alone."""

import re
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from unix.data.phantom.study import plan_study
from unix.records import Split

SHARES = (0.05, 0.15)
NUM = 4000


def test_ids_are_unique_and_look_like_mimics() -> None:
    plans = [plan_study(0, index, 128, SHARES) for index in range(NUM)]
    studies = [plan.study_id for plan in plans]
    images = [view.image_id for plan in plans for view in plan.views]
    assert len(set(studies)) == NUM
    assert len(set(images)) == len(images)
    assert all(re.fullmatch(r"5\d{7}", study) for study in studies)
    assert all(re.fullmatch(r"1\d{7}", plan.subject_id) for plan in plans)
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}", image) for image in images)


@given(seed=st.integers(0, 1000), one=st.integers(0, 9_999_999), other=st.integers(0, 9_999_999))
def test_study_ids_are_a_bijection_of_the_index(seed: int, one: int, other: int) -> None:
    ids = [plan_study(seed, index, 64, SHARES).study_id for index in (one, other)]
    assert (ids[0] == ids[1]) == (one == other)


def test_some_subjects_return_and_each_has_one_split() -> None:
    splits: dict[str, set[Split]] = defaultdict(set)
    visits: dict[str, list[str]] = defaultdict(list)
    for index in range(NUM):
        plan = plan_study(7, index, 128, SHARES)
        splits[plan.subject_id].add(plan.split)
        visits[plan.subject_id].append(plan.date[:4])
    assert all(len(names) == 1 for names in splits.values())
    assert 0.2 < sum(len(dates) > 1 for dates in visits.values()) / len(visits) < 0.6
    assert all(dates == sorted(dates) for dates in visits.values())


def test_the_shares_of_the_split_are_kept() -> None:
    plans = [plan_study(0, index, 128, SHARES) for index in range(NUM)]
    share = {split: sum(plan.split == split for plan in plans) / NUM for split in Split}
    assert abs(share[Split.TEST] - 0.15) < 0.02
    assert abs(share[Split.VALIDATE] - 0.05) < 0.015


def test_views_are_mostly_frontal_of_many_shapes() -> None:
    plans = [plan_study(0, index, 200, SHARES) for index in range(1000)]
    positions = [tuple(view.view_position for view in plan.views) for plan in plans]
    assert {position[0] for position in positions} == {"AP", "PA", "LATERAL"}
    assert 0.005 < positions.count(("LATERAL",)) / 1000 < 0.06
    assert 0.15 < sum(len(position) == 2 for position in positions) / 1000 < 0.3
    shapes = {(view.rows, view.columns) for plan in plans for view in plan.views}
    assert all(max(shape) == 200 for shape in shapes)
    assert {rows > columns for rows, columns in shapes} == {True, False}


def test_a_pool_gives_known_content_under_new_ids() -> None:
    first, again = (plan_study(0, index, 128, SHARES, image_pool=10) for index in (3, 13))
    assert first.findings == again.findings
    assert first.study_id != again.study_id
    assert {view.image_id for view in first.views}.isdisjoint(view.image_id for view in again.views)
