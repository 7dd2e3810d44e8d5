"""The data manifests that are shipped."""

import pytest

from unix.data.sources import source_names
from unix.data.sources.manifest import load_manifest
from unix.records import CHEXPERT_14

MANIFESTS = ("mimic-cxr-jpg-2.0.0", "iu-xray", "phantom")


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_load_and_belong_to_a_source(name: str) -> None:
    assert load_manifest(name).source in source_names()


def test_mimic_counts_are_the_published_ones() -> None:
    manifest = load_manifest("mimic-cxr-jpg-2.0.0")
    assert manifest.images == manifest.tables["metadata"].rows == sum(manifest.split.values()) == 377_110
    assert manifest.tables["chexpert"].rows == 227_827
    assert manifest.split == {"train": 368_960, "validate": 2_991, "test": 5_159}


def test_the_phantom_has_mimic_s_tables() -> None:
    ours, theirs = load_manifest("phantom"), load_manifest("mimic-cxr-jpg-2.0.0")
    assert {name: table.columns for name, table in ours.tables.items()} == {
        name: table.columns for name, table in theirs.tables.items()
    }
    assert set(CHEXPERT_14) < set(theirs.tables["chexpert"].columns)
