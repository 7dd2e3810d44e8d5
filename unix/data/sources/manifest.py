"""What a source's folder must look like, from the YAML files in `data_manifests/`."""

from pydantic import Field

from unix.config import Config
from unix.resources import resource


class TableManifest(Config):
    """One CSV table."""

    file: str = Field(description="name below the root; the same without .gz is accepted too")
    columns: tuple[str, ...]
    optional_columns: tuple[str, ...] = Field(default=(), description="may be there; not read")
    rows: int | None = Field(default=None, description="of a complete copy")


class SourceManifest(Config):
    """A source's tables and what a complete copy of it counts."""

    source: str
    title: str
    obtain: str = Field(description="where to get it")
    tables: dict[str, TableManifest]
    images: int | None = Field(default=None, description="image files of a complete copy")
    studies: int | None = Field(default=None, description="studies of a complete copy")
    split: dict[str, int] = Field(default={}, description="images per official split of a complete copy")
    tasks: dict[str, dict[str, int]] = Field(
        default={}, description="images per task and split that others report of a complete copy"
    )


def load_manifest(name: str) -> SourceManifest:
    """The manifest `data_manifests/<name>.yaml`."""
    return SourceManifest.load(resource("data_manifests", f"{name}.yaml"))
