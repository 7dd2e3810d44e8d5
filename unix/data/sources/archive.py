"""Reports inside a zip file, read in place: by offset, bounded, checked against their CRC.

The central directory is parsed once, for the listing. A member is then read on its own, so that reading ten changed
reports of 227,835 costs ten reads.
"""

import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from unix.data.sources.base import RefusedReport, StudyFault
from unix.data.sources.files import MAX_REPORT_BYTES
from unix.errors import SourceError

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """A member of a zip file below the root."""

    archive: str
    """Path of the zip file relative to the root."""
    path: str
    """The member's name. It is only ever compared: nothing is unpacked to it."""
    offset: int
    packed: int
    """Bytes in the archive."""
    size: int
    """Bytes when unpacked, as the directory claims."""
    crc: int
    method: int
    flags: int

    @property
    def fingerprint(self) -> str:
        """Archive, name, size and CRC: the same for a repacked archive."""
        return f"{self.archive}!{self.path}:{self.size}:{self.crc:08x}"

    def read(self, root: Path) -> bytes:
        """The unpacked content, at most `MAX_REPORT_BYTES` whatever the directory claims.

        Raises:
            RefusedReport: it is too large, encrypted, damaged, or packed by an unknown method.
        """
        if self.size > MAX_REPORT_BYTES or self.packed > MAX_REPORT_BYTES:
            raise RefusedReport(StudyFault.TOO_LARGE, f"{self.size} bytes, at most {MAX_REPORT_BYTES} are read")
        if self.flags & _ENCRYPTED or self.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise RefusedReport(StudyFault.UNREADABLE, f"zip method {self.method}, flags {self.flags:#x}")
        try:
            with (root / self.archive).open("rb") as file:
                file.seek(self.offset)
                magic, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
                file.seek(name_length + extra_length, 1)
                content = file.read(self.packed)
            if magic != b"PK\3\4":
                raise RefusedReport(StudyFault.UNREADABLE, f"no zip member at offset {self.offset}")
            if self.method == zipfile.ZIP_DEFLATED:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, MAX_REPORT_BYTES + 1)
        except (OSError, struct.error, zlib.error) as error:
            raise RefusedReport(StudyFault.UNREADABLE, f"{type(error).__name__} in the zip member") from error
        if len(content) > MAX_REPORT_BYTES:
            raise RefusedReport(StudyFault.TOO_LARGE, f"unpacks to more than {MAX_REPORT_BYTES} bytes")
        if len(content) != self.size or zlib.crc32(content) != self.crc:
            raise RefusedReport(StudyFault.UNREADABLE, "size or CRC of the zip member is wrong")
        return content


def list_archive(root: Path, name: str) -> list[ArchivedFile]:
    """The members of the zip file `root/name` that are files, in the directory's order; [] where there is no such file.

    Raises:
        SourceError: it is no whole zip file, or a link that leaves the root.
    """
    path = root / name
    if not path.is_file():
        return []
    if not path.resolve().is_relative_to(root):
        raise SourceError(f"{path} is a link that leaves {root}; put the file itself there")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError, NotImplementedError, struct.error) as error:
        raise SourceError(f"{path} is not a whole zip file ({error}); fetch it again") from error
    return [
        ArchivedFile(
            name, m.filename, m.header_offset, m.compress_size, m.file_size, m.CRC, m.compress_type, m.flag_bits
        )
        for m in members
        if not m.is_dir()
    ]
