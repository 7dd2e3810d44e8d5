"""Every `unix` command that the documentation shows is one that the command line understands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from unix.cli import app

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
START = re.compile(r"^\s*(?:\w+=(?:\$\(.*?\)|\S+) +)*(?:python -m unix|(?:torchrun|srun) .*?-m unix|unix)\s+")
END = re.compile(r"\s(?:#|&&|&|\||>)(?:\s|$)|;")


def commands_in(text: str) -> Iterator[str]:
    """The words after `unix` of each command in the page's code blocks."""
    for language, block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines() if language in ("", "sh") else ():
            for part in line.split("&&"):
                match = START.search(part)
                if match is not None:
                    yield END.split(part[match.end() :])[0].strip()


SHOWN = [
    pytest.param(command, id=f"{page.stem}: {command}"[:90])
    for page in PAGES
    for command in dict.fromkeys(commands_in(page.read_text(encoding="utf-8")))
]


def understand(command: str) -> None:
    """Parse without running.

    Raises:
        LookupError: an unknown command.
        TyperException: an unknown option, or an argument that is missing.
    """
    parser, words = typer.main.get_command(app), shlex.split(command)
    if words[0] not in parser.commands:  # pyright: ignore[reportAttributeAccessIssue]: the root is a group
        raise LookupError(f"no such command: {words[0]}")
    while words and words[0] in getattr(parser, "commands", {}):
        parser = parser.commands[words[0]]  # pyright: ignore[reportAttributeAccessIssue]: a group has commands
        words = words[1:]
    parser.make_context("unix", words)


@pytest.mark.parametrize("command", SHOWN)
def test_the_command_is_understood(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    understand(command)


@pytest.mark.parametrize("command", ["trane stage1", "train", "train stage1 --presets paper", "shards verify"])
def test_what_does_not_exist_is_noticed(command: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|missing"):
        understand(command)


def test_commands_are_found() -> None:
    block = "A=b torchrun --nnodes 2 -m unix train stage1 \\\n--resume &\nunix clean && unix splits  # all\nmake unix\n"
    page = f"```python\nunix\n```\n```sh\n{block}```\n"
    assert [shlex.split(command) for command in commands_in(page)] == [
        ["train", "stage1", "--resume"],
        ["clean"],
        ["splits"],
    ]
    assert {command.values[0].split()[0] for command in SHOWN} >= {
        "train",
        "doctor",
        "runs",
        "plan",
        "convert",
        "shards",
    }
