"""Open-i: tables to studies, and ids that never collide."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unix.data.sources.base import ImageFault, Listing, StudyFault
from unix.data.sources.iu_xray import IuXray, image_id_of
from unix.data.sources.reports import read_report
from unix.errors import SourceError

REPORTS = ("uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression")
PROJECTIONS = ("uid", "filename", "projection")


def write(root: Path, reports: list[tuple[str, str, str]], projections: list[tuple[str, str, str]]) -> Path:
    """Tables from (uid, findings, impression) and (uid, file name, projection), and a file per projection."""
    images = root / "images" / "images_normalized"
    images.mkdir(parents=True, exist_ok=True)
    for _, name, _ in projections:
        if "/" not in name:
            (images / name).write_bytes(b"png")
    rows = [
        (uid, "", "", "Xray", "Cough, XXXX days", "", findings, impression) for uid, findings, impression in reports
    ]
    for file, columns, lines in (("reports", REPORTS, rows), ("projections", PROJECTIONS, projections)):
        with (root / f"indiana_{file}.csv").open("w", newline="") as table:
            csv.writer(table).writerows([columns, *lines])
    return root.resolve()


def faults(listing: Listing) -> Counter[str]:
    return Counter(refusal.fault.value for refusal in listing.refusals)


def test_a_report_is_written_out_with_its_sections(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        [("7", 'Clear, "quite" so.\nNo effusion.', "Normal.")],
        [("7", "7_IM-1.dcm.png", "Frontal"), ("7", "7_IM-2.dcm.png", "Lateral")],
    )
    listing = IuXray().list_studies(root)
    (study,) = listing.records(listing.studies)
    assert (study.key.subject_id, study.key.study_id) == ("7", "7")
    assert read_report(root, study.report) == (
        'INDICATION: Cough, XXXX days\n\nFINDINGS: Clear, "quite" so.\nNo effusion.\n\nIMPRESSION: Normal.'
    )
    assert [(image.image_id, image.view_position) for image in study.images] == [
        ("iu-7__IM-1", "FRONTAL"),
        ("iu-7__IM-2", "LATERAL"),
    ]
    assert (root / study.images[0].path).is_file()


def test_misfits_are_refused_by_name(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        [("1", "Clear.", ""), ("1", "Again.", ""), ("2", "", ""), ("3", "No image.", ""), ("x/1", "Odd.", "")],
        [
            ("1", "a.png", "Frontal"),
            ("1", "a.png", "Frontal"),
            ("1", "../../etc/passwd", "Frontal"),
            ("1", "gone.png", "Frontal"),
            ("2", "b.png", "Frontal"),
            ("9", "c.png", "Frontal"),
            ("x/1", "d.png", "Frontal"),
        ],
    )
    images = root / "images"
    (images / "images_normalized" / "gone.png").unlink()
    (images / "a.png").write_bytes(b"copy")
    (images / "unnamed.png").write_bytes(b"png")
    listing = IuXray().list_studies(root)
    assert listing.studies["study_id"].to_list() == ["1"]
    assert faults(listing) == {
        StudyFault.DUPLICATE: 1,
        StudyFault.EMPTY: 1,
        StudyFault.WITHOUT_IMAGES: 1,
        StudyFault.WITHOUT_REPORT: 1,
        StudyFault.MALFORMED_ID: 2,
        ImageFault.DUPLICATE: 2,
        ImageFault.OUTSIDE_ROOT: 1,
        ImageFault.MISSING: 1,
        ImageFault.OF_REFUSED_STUDY: 3,
        ImageFault.WITHOUT_METADATA: 1,
    }


def test_the_fingerprint_follows_the_text_and_the_file(tmp_path: Path) -> None:
    projections = [("1", "a.png", "Frontal")]
    first = IuXray().list_studies(write(tmp_path, [("1", "Clear.", "")], projections)).studies["fingerprint"][0]
    root = write(tmp_path, [("1", "Hazy.", "")], projections)
    second = IuXray().list_studies(root).studies["fingerprint"][0]
    (root / "images" / "images_normalized" / "a.png").write_bytes(b"another")
    assert len({first, second, IuXray().list_studies(root).studies["fingerprint"][0]}) == 3


def test_an_unknown_projection_stops_the_job(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="'Oblique'"):
        IuXray().list_studies(write(tmp_path, [("1", "x", "")], [("1", "a.png", "Oblique")]))


names = st.text(st.sampled_from("a_-.1é/ %")) | st.text() | st.builds("{}.dcm.png".format, st.text())


@given(names, names)
def test_image_ids_are_well_formed_and_never_collide(first: str, second: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]+", image_id_of(first))
    assert (image_id_of(first) == image_id_of(second)) == (first == second)
