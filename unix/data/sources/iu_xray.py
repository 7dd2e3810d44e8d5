"""Indiana University chest X-rays (Open-i): two CSV tables and a folder of PNG images. Needs no credentials."""

from pathlib import Path

import polars as pl

from unix.data.sources.assemble import assemble
from unix.data.sources.base import (
    IMAGES,
    ImageFault,
    Listing,
    Refusal,
    StudyFault,
    as_location,
    printable,
)
from unix.data.sources.files import Walk, file_mark, walk
from unix.data.sources.manifest import load_manifest
from unix.data.sources.tables import read_table, require_known

FOLDER = "images"

_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")
_USUAL_SUFFIX = ".dcm.png"
_VIEWS = {"Frontal": "FRONTAL", "Lateral": "LATERAL"}
_SECTIONS = ("indication", "comparison", "findings", "impression")
_UID = r"^[0-9]{1,20}$"
_OUTWARD_NAME = r"[/\\\x00]|^\.\.?$"


class IuXray:
    """Source `iu-xray`. Each report is of another person, so the subject is the report's uid."""

    name = "iu-xray"
    credentialed = False

    def list_studies(self, root: Path, complete: bool = False) -> Listing:
        """As `Source.list_studies`."""
        manifest = load_manifest(self.name)
        reports = read_table(root, manifest, "reports", complete)
        projections = read_table(root, manifest, "projections", complete)
        require_known(projections, "projection", _VIEWS, manifest.tables["projections"].file)
        found = walk(root, FOLDER, _SUFFIXES)
        refusals: list[Refusal] = []
        placed = _place_reports(reports, manifest.tables["reports"].file, refusals)
        return assemble(self.name, root, placed, _place_images(projections, found, refusals), refusals)


def image_id_of(filename: str) -> str:
    """An id that matches `[A-Za-z0-9_-]+`, another one for every file name.

    `1_IM-0001-4001.dcm.png` gives `iu-1__IM-0001-4001`: letters, digits and hyphens stay, `_` is doubled, any other
    byte becomes `_` and two hex digits. A name without the usual suffix is taken whole, and begins with `iu_`.
    """
    usual = filename.endswith(_USUAL_SUFFIX)
    name = filename.removesuffix(_USUAL_SUFFIX) if usual else filename
    return ("iu-" if usual else "iu_") + "".join(_ID_BYTES[byte] for byte in name.encode("utf-8", "surrogateescape"))


def _id_byte(byte: int) -> str:
    character = chr(byte)
    if character == "_":
        return "__"
    return character if character == "-" or (character.isascii() and character.isalnum()) else f"_{byte:02x}"


_ID_BYTES = tuple(_id_byte(byte) for byte in range(256))


def _place_reports(table: pl.DataFrame, table_file: str, refusals: list[Refusal]) -> pl.DataFrame:
    """`REPORTS`, each text written out with a header per section."""
    parts = [
        pl.when(pl.col(name).str.strip_chars() != "").then(
            pl.format(name.upper() + ": {}", pl.col(name).str.strip_chars())
        )
        for name in _SECTIONS
    ]
    has_text = pl.any_horizontal(pl.col("findings", "impression").str.strip_chars() != "")
    rows = table.with_columns(
        path=pl.lit(table_file),
        size=pl.lit(0, pl.Int64),
        text=pl.concat_str(parts, separator="\n\n", ignore_nulls=True),
        refused=pl.when(~pl.col("uid").str.contains(_UID))
        .then(pl.lit(StudyFault.MALFORMED_ID))
        .when(~pl.col("uid").is_first_distinct())
        .then(pl.lit(StudyFault.DUPLICATE)),
        fault=pl.when(~has_text).then(pl.lit(StudyFault.EMPTY)),
    )
    for uid, fault in rows.filter(pl.col("refused").is_not_null()).select("uid", "refused").iter_rows():
        refusals.append(Refusal(printable(uid), StudyFault(fault)))
    return rows.filter(pl.col("refused").is_null()).select(
        subject_id="uid",
        study_id="uid",
        location=as_location(rows.columns),
        mark="text",
        fault="fault",
    )


def _place_images(table: pl.DataFrame, found: Walk, refusals: list[Refusal]) -> pl.DataFrame:
    """`IMAGES`: every projection with its file or its fault. Files without a projection are refused."""
    files = found.files.sort("path").with_columns(filename=pl.col("path").str.split("/").list.last(), mark=file_mark())
    unique = files.unique("filename", keep="first", maintain_order=True)
    links = pl.DataFrame(
        {"link": sorted(path for path in found.outside if path.endswith(_SUFFIXES))}, schema={"link": pl.String}
    )
    links = links.with_columns(filename=pl.col("link").str.split("/").list.last())
    for fault, paths in (
        (ImageFault.DUPLICATE, files.join(unique, on="path", how="anti")["path"]),
        (ImageFault.WITHOUT_METADATA, unique.join(table, on="filename", how="anti")["path"]),
        (ImageFault.OUTSIDE_ROOT, links.join(table, on="filename", how="anti")["link"]),
    ):
        refusals.extend(Refusal(printable(path), fault) for path in paths)
    well_formed = pl.col("uid").str.contains(_UID)
    refusals.extend(
        Refusal(printable(uid), StudyFault.MALFORMED_ID) for uid in table.filter(~well_formed)["uid"].unique().sort()
    )
    outward = pl.col("filename").str.contains(_OUTWARD_NAME) | pl.col("filename").is_in(links["filename"].implode())
    return (
        table.join(unique.select("filename", "path", "mark"), on="filename", how="left", maintain_order="left")
        .with_columns(
            subject_id=pl.when(well_formed).then("uid"),
            study_id=pl.when(well_formed).then("uid"),
            image_id=pl.Series([image_id_of(name) for name in table["filename"]], dtype=pl.String),
            view_position=pl.col("projection").replace_strict(_VIEWS),
            # The tables do not give the size; it is read from the file.
            rows=pl.lit(0, pl.Int32),
            columns=pl.lit(0, pl.Int32),
            labels=pl.lit(None, IMAGES["labels"]),
            official_split=pl.lit(None, pl.String),
            item="filename",
            fault=pl.when(outward)
            .then(pl.lit(ImageFault.OUTSIDE_ROOT))
            .when(~well_formed)
            .then(pl.lit(ImageFault.OF_REFUSED_STUDY))
            .when(pl.col("path").is_null())
            .then(pl.lit(ImageFault.MISSING)),
        )
        .select(IMAGES.names())
    )
