"""Finds the files that travel with the package: prompts, data manifests, presets, endpoints."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource(*parts: str) -> Path:
    """Path of a shipped file or folder such as `resource("prompts", "clean_report", "v1")`.

    In a wheel `prompts/` and `data_manifests/` lie inside the package; in a checkout they lie beside it.
    """
    inside = _PACKAGE.joinpath(*parts)
    return inside if inside.exists() else _PACKAGE.parent.joinpath(*parts)
