"""Indiana University chest X-rays (Open-i): two CSV tables and a folder of PNG images. Needs no credentials."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from unix.data.sources.assemble import FoundImage, StudyIds, assemble
from unix.data.sources.base import (
    ImageFault,
    Listing,
    Refusal,
    ReportLocation,
    StudyFault,
    fingerprint,
    is_outward,
    printable,
)
from unix.data.sources.files import FoundFile, Walk, walk
from unix.data.sources.manifest import load_manifest
from unix.data.sources.tables import read_table, require_known
from unix.records import ImageRecord

IMAGES = "images"

_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")
_USUAL_SUFFIX = ".dcm.png"
_VIEWS = {"Frontal": "FRONTAL", "Lateral": "LATERAL"}
_SECTIONS = ("indication", "comparison", "findings", "impression")
_UID = re.compile(r"[0-9]{1,20}")


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
        found = walk(root, IMAGES, _SUFFIXES)
        refusals: list[Refusal] = []
        return assemble(
            self.name,
            root,
            _place_reports(reports, refusals),
            _place_images(projections, found, refusals),
            refusals,
        )


@dataclass(frozen=True, slots=True)
class TableReport:
    """A report that stands in a table's row, written out with a header per section."""

    text: str

    @property
    def fingerprint(self) -> str:
        """Digest of the text."""
        return fingerprint((self.text,))

    def read(self, root: Path) -> bytes:
        """The text in UTF-8."""
        return self.text.encode()


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


def _place_reports(table: pl.DataFrame, refusals: list[Refusal]) -> dict[StudyIds, ReportLocation | StudyFault]:
    reports: dict[StudyIds, ReportLocation | StudyFault] = {}
    for row in table.select("uid", *_SECTIONS).iter_rows():
        uid: str = row[0]
        texts = dict(zip(_SECTIONS, (text.strip() for text in row[1:]), strict=True))
        if _UID.fullmatch(uid) is None:
            refusals.append(Refusal(printable(uid), StudyFault.MALFORMED_ID))
        elif (uid, uid) in reports:
            refusals.append(Refusal(uid, StudyFault.DUPLICATE))
        elif not texts["findings"] and not texts["impression"]:
            reports[uid, uid] = StudyFault.EMPTY
        else:
            reports[uid, uid] = TableReport(
                "".join(f"{name.upper()}: {text}\n\n" for name, text in texts.items() if text)
            )
    return reports


def _place_images(table: pl.DataFrame, found: Walk, refusals: list[Refusal]) -> dict[StudyIds, list[FoundImage]]:
    files: dict[str, FoundFile] = {}
    for file in sorted(found.files, key=lambda file: file.path):
        name = file.path.rpartition("/")[2]
        if name in files:
            refusals.append(Refusal(printable(file.path), ImageFault.DUPLICATE, f"like {printable(files[name].path)}"))
        else:
            files[name] = file
    links = {link.rpartition("/")[2]: link for link in found.outside if link.lower().endswith(_SUFFIXES)}
    images: dict[StudyIds, list[FoundImage]] = {}
    malformed: set[str] = set()
    times_named: Counter[str] = Counter()
    for uid, name, projection in table.select("uid", "filename", "projection").iter_rows():
        file = files.pop(name, None)
        times_named[name] += 1
        item, fault = printable(name), None
        if is_outward(name) or links.pop(name, None) is not None:
            fault = ImageFault.OUTSIDE_ROOT
        elif _UID.fullmatch(uid) is None:
            malformed.add(uid)
            fault = ImageFault.OF_REFUSED_STUDY
        elif times_named[name] > 1:
            item, fault = f"{item}#{times_named[name]}", ImageFault.DUPLICATE
        elif file is None:
            fault = ImageFault.MISSING
        if uid not in malformed and _UID.fullmatch(uid) is not None:
            placed = images.setdefault((uid, uid), [])
            if fault is None and file is not None:
                # The table does not give the size; it is read from the file.
                placed.append(
                    FoundImage(ImageRecord(image_id_of(name), file.path, _VIEWS[projection], 0, 0), file.fingerprint)
                )
        if fault is not None:
            refusals.append(Refusal(item, fault, f"study {printable(uid)}"))
    refusals.extend(Refusal(printable(uid), StudyFault.MALFORMED_ID) for uid in sorted(malformed))
    refusals.extend(Refusal(printable(file.path), ImageFault.WITHOUT_METADATA) for file in files.values())
    refusals.extend(Refusal(printable(path), ImageFault.OUTSIDE_ROOT) for path in sorted(links.values()))
    return images
