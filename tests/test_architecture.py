"""Rules of the house that a machine can check: layers, exports, words, sizes."""

import ast
import configparser
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for package in ("unix", "pipelines") for path in (REPOSITORY / package).rglob("*.py"))
MOST_LINES = 450
UNFINISHED = re.compile(r"\b(TODO|FIXME|HACK|raise NotImplementedError)\b")
MACHINE_PATH = re.compile(r"[\"'(\s]/(work|home|root|Users|mnt|data)/")
VAGUE_NAMES = {"utils", "util", "helpers", "misc", "common", "manager"}


def source_id(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_imports_only_go_down() -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_module_has_a_layer() -> None:
    """A module that no layer names could import anything."""
    contracts = configparser.ConfigParser()
    contracts.read(REPOSITORY / ".importlinter")
    layers = set(re.findall(r"[\w.]+", contracts["importlinter:contract:layers"]["layers"]))
    top = {f"unix.{path.stem}" for path in (REPOSITORY / "unix").glob("*.py") if not path.stem.startswith("__")}
    top |= {f"unix.{path.parent.name}" for path in (REPOSITORY / "unix").glob("*/__init__.py")}
    assert top <= layers


def test_orchestration_is_forbidden_to_every_module_but_the_command_line() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(REPOSITORY / ".importlinter")
    layers = set(re.findall(r"unix\.\w+", contracts["importlinter:contract:layers"]["layers"]))
    forbidden_to = set(contracts["importlinter:contract:orchestration"]["source_modules"].split())
    there = {name for name in layers if list(REPOSITORY.glob(f"{name.replace('.', '/')}*/**/*.py"))}
    there |= {name for name in layers if (REPOSITORY / f"{name.replace('.', '/')}.py").exists()}
    assert there - forbidden_to == {"unix.cli"}


@pytest.mark.parametrize("path", SOURCES, ids=source_id)
def test_source_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "the first line must say what the file is"
    assert len(text.splitlines()) <= MOST_LINES, "split it"
    assert not UNFINISHED.search(text), "nothing unfinished is kept"
    assert not MACHINE_PATH.search(text), "no path of one machine"
    assert path.stem not in VAGUE_NAMES, "name it after what it does"


@pytest.mark.parametrize("path", [path for path in SOURCES if "__all__" in path.read_text("utf-8")], ids=source_id)
def test_exports_exist(path: Path) -> None:
    module = importlib.import_module(module_name(path))
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing
    assert len(set(module.__all__)) == len(module.__all__)


def test_the_wheel_carries_what_the_package_reads() -> None:
    """`unix.resources` looks for these inside the package; the build must put them there."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert 'prompts = "unix/prompts"' in text
    assert 'data_manifests = "unix/data_manifests"' in text
