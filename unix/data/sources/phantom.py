"""The synthetic look-alike of MIMIC-CXR-JPG that `unix phantom` writes; nobody's data, so it may go anywhere."""

import json
from pathlib import Path
from typing import cast

from unix.data.sources.base import Listing
from unix.data.sources.mimic_cxr import list_mimic_layout
from unix.errors import SourceError

DESCRIPTION_FILE = "phantom.json"


class Phantom:
    """Source `phantom`. Where its description says that no images were written, none are looked for."""

    name = "phantom"
    credentialed = False

    def list_studies(self, root: Path, complete: bool = False) -> Listing:
        """As `Source.list_studies`."""
        return list_mimic_layout(self.name, "phantom", root, complete, image_files=_has_images(root))


def _has_images(root: Path) -> bool:
    path = root / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_bytes())
    except FileNotFoundError:
        return True
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {type(error).__name__}; write the phantom again") from error
    images = cast(dict[str, object], description).get("images") if isinstance(description, dict) else None
    if not isinstance(images, bool):
        raise SourceError(f"{path} must say whether there are `images`, true or false; write the phantom again")
    return images
