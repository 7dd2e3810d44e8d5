"""The phantom as a source: MIMIC's layout, with or without images."""

import shutil
from typing import Any

import pytest

from unix.data.sources import get_source, is_credentialed, source_names
from unix.errors import ConfigError, SourceError


def test_images_that_were_not_written_are_taken_on_the_metadata_s_word(mimic_folder: Any) -> None:
    shutil.rmtree(mimic_folder.study("10000001", "50000001", ["a", "b"]))
    root = mimic_folder.write_tables()
    phantom = get_source("phantom")
    assert phantom.list_studies(root).studies.is_empty()
    (root / "phantom.json").write_text('{"seed": 0, "images": false}')
    listing = phantom.list_studies(root)
    assert listing.images["image_id"].to_list() == ["a", "b"]
    assert not listing.image_files
    assert listing.images["path"][0].endswith("/s50000001/a.jpg")


@pytest.mark.parametrize("description", ["", "{", "[]", "{}", '{"images": "no"}'])
def test_a_damaged_description_stops_the_job(mimic_folder: Any, description: str) -> None:
    root = mimic_folder.write_tables()
    (root / "phantom.json").write_text(description)
    with pytest.raises(SourceError, match=r"phantom\.json"):
        get_source("phantom").list_studies(root)


def test_sources_are_known_by_name() -> None:
    assert source_names() == ("mimic-cxr", "iu-xray", "phantom")
    assert [is_credentialed(name) for name in (*source_names(), "who knows")] == [True, False, False, True]
    with pytest.raises(ConfigError, match=r"'mimic'.*mimic-cxr"):
        get_source("mimic")
