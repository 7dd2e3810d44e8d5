"""Reports inside a zip file, read in place: by offset, bounded, checked against their CRC.

The central directory is parsed once, for the listing. A member is then read on its own, so that reading ten changed
reports of 227,835 costs ten reads. Nothing is ever unpacked to a path that the archive names.
"""

import struct
import zipfile
import zlib
from pathlib import Path

import polars as pl

from unix.data.sources.base import LOCATION, ReportLocation
from unix.errors import SourceError

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1
_FIELDS = ("path", "size", "archive", "offset", "packed", "crc", "method", "flags")


class DamagedMember(Exception):
    """A member of the archive cannot be unpacked; the message says why."""


def list_archive(root: Path, name: str) -> pl.DataFrame:
    """The files inside the zip file `root/name`: fields of `LOCATION`; no row where there is no such file.

    Raises:
        SourceError: it is no whole zip file, or a link that leaves the root.
    """
    path = root / name
    if not path.is_file():
        return pl.DataFrame(schema={field: LOCATION[field] for field in _FIELDS})
    if not path.resolve().is_relative_to(root):
        raise SourceError(f"{path} is a link that leaves {root}; put the file itself there")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise SourceError(f"{path} is not a whole zip file ({type(error).__name__}); fetch it again") from error
    rows = [
        (m.filename, m.file_size, name, m.header_offset, m.compress_size, m.CRC, m.compress_type, m.flag_bits)
        for m in members
    ]
    return pl.DataFrame(rows, schema={field: LOCATION[field] for field in _FIELDS}, orient="row")


def read_member(root: Path, member: ReportLocation, limit: int) -> bytes:
    """The unpacked content of a member; at most `limit + 1` bytes are ever unpacked, whatever its header claims.

    Raises:
        DamagedMember: it is encrypted, packed by an unknown method, or does not have the size and CRC it should.
        OSError: the archive cannot be read.
    """
    if member.flags & _ENCRYPTED or member.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DamagedMember(f"zip method {member.method} with flags {member.flags:#x} cannot be read")
    with (root / (member.archive or "")).open("rb") as file:
        file.seek(member.offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
            raise DamagedMember(f"no zip member at offset {member.offset}")
        _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        file.seek(name_length + extra_length, 1)
        content = file.read(min(member.packed, 2 * limit))
    if member.method == zipfile.ZIP_DEFLATED:
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, limit + 1)
        except zlib.error as error:
            raise DamagedMember("the zip member does not unpack") from error
    if len(content) != member.size or zlib.crc32(content) != member.crc:
        raise DamagedMember("the zip member does not have the size and CRC that the archive states")
    return content
