"""The error tree as it is drawn and as the command line relies on it."""

import inspect
import re

from unix import errors
from unix.errors import ConfigError, ImageError, Interrupted, PolicyError, RefusedError, SourceError, UnixError


def _classes() -> dict[str, type[UnixError]]:
    found = inspect.getmembers(errors, inspect.isclass)
    return {name: kind for name, kind in found if issubclass(kind, UnixError)}


def test_every_error_stands_in_the_drawing_at_its_depth() -> None:
    drawing = {
        match[2]: 0 if not match[1] else match[1].count("─") // 2 + match[1].count("│") + match[1].count("    ")
        for match in re.finditer(r"^((?:│   |    )*(?:[├└]── )?)(\w+Error|Interrupted)\b", errors.__doc__ or "", re.M)
    }
    for name, kind in _classes().items():
        assert drawing.get(name) == len(kind.__mro__) - len(UnixError.__mro__), name


def test_exit_codes() -> None:
    special = {ConfigError: 2, PolicyError: 2, RefusedError: 2, Interrupted: 75}
    assert {kind: kind.exit_code for kind in _classes().values()} == {
        kind: special.get(kind, 1) for kind in _classes().values()
    }


def test_an_image_error_names_the_reason_it_is_counted_under() -> None:
    error = ImageError("truncated_image", "3 bytes")
    assert (error.reason, error.detail, str(error)) == ("truncated_image", "3 bytes", "truncated_image: 3 bytes")
    assert isinstance(error, SourceError)
