"""Keeps a local folder equal to a prefix of an object store, for sources that are read from folders.

Objects are fetched whole and take their name last, with the object's own time, so a second look fetches nothing and a
killed one is repeated. What is no longer in the store is removed from the folder, which is therefore only ever one that
was made for this.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from unix.errors import ConfigError, SourceError

MARK = ".mirror-of"
"""The file that makes a folder a mirror; it holds the address."""


def mirror(address: str, folder: Path) -> int:
    """Bring `folder` up to the objects below `address` (`s3://bucket/prefix`, `gs://`, `az://`, `file://`).

    Returns:
        How many files were fetched or removed.

    Raises:
        ConfigError: the folder holds something else, or the address is none.
        SourceError: the store cannot be reached or holds nothing there, or an object has a name that no file can have.
    """
    import obstore
    from obstore.store import from_url

    _claim(address, folder)
    with _named(address):
        store = from_url(address)
        listed = {str(each["path"]): each for page in obstore.list(store) for each in page}
    if not listed:
        raise SourceError(f"{address} holds no object: is the prefix right, and may these credentials list it?")
    changes = 0
    for name, entry in listed.items():
        target = folder / _relative(address, name)
        written = int(entry["last_modified"].timestamp() * 1e6) * 1000
        if target.is_file() and (target.stat().st_size, target.stat().st_mtime_ns) == (entry["size"], written):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.part")
        with _named(f"{address}/{name}"), partial.open("wb") as file:
            for piece in obstore.get(store, name):
                file.write(piece)
        os.utime(partial, ns=(written, written))
        partial.replace(target)
        changes += 1
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        name = path.relative_to(folder).as_posix()
        if name not in listed and name != MARK:
            path.unlink()
            changes += 1
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()
    return changes


def _claim(address: str, folder: Path) -> None:
    mark = folder / MARK
    if mark.is_file():
        if (held := mark.read_text(encoding="utf-8").strip()) != address:
            raise ConfigError(f"{folder} mirrors {held}, not {address}: give another folder")
        return
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} holds files that are no mirror, which would be removed: give an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(f"{address}\n", encoding="utf-8")


def _relative(address: str, name: str) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise SourceError(f"{address}: object {name!r} leads out of the folder: remove or rename it")
    if parts == (MARK,):
        raise SourceError(f"{address}: object {name!r} has the name of the folder's own mark: remove or rename it")
    return Path(*parts)


@contextmanager
def _named(what: str) -> Generator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, ValueError) as error:
        raise SourceError(f"cannot read {what}: {type(error).__name__}") from error
