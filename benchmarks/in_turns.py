"""Runs the sides of a comparison as processes of their own, in turns (A B A B), and gathers what each prints.

A side is a command whose last line of output is one JSON object. Peers run in their environments (`peers.sh NAME`);
where one cannot be built, the rest is measured without it. Standard library only, as the peers import it too.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_SECONDS_AT_MOST = 180


def arguments(description: str | None, sides: Sequence[str], **defaults: int) -> argparse.ArgumentParser:
    """The options that every comparison has; `defaults` become integer options."""
    parser = argparse.ArgumentParser(
        description=(description or "").split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures there as one JSON object")
    parser.add_argument("--sides", default=",".join(sides), help="which to compare")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser


def pythons(sides: Sequence[str], peers: Sequence[str]) -> dict[str, str]:
    """Side -> its interpreter; ours for those that are no peers; without those that cannot be built."""
    found: dict[str, str] = {}
    for side in sides:
        if side not in peers:
            found[side] = sys.executable
            continue
        built = subprocess.run(["bash", HERE / "peers.sh", side], capture_output=True, text=True, check=False)
        if built.returncode == 0:
            found[side] = built.stdout.split()[-1]
        else:
            print(f"{side}: its environment cannot be built, left out", file=sys.stderr)
    return found


def run(command: Sequence[object]) -> dict[str, Any] | None:
    """The JSON object that a command prints last; None, with its last words, where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    try:
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS_AT_MOST,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        print(f"took over {_SECONDS_AT_MOST} s: {command[2:]}", file=sys.stderr)
        return None
    if done.returncode != 0 or not done.stdout.strip():
        print(f"failed: {command[2:]}: {done.stderr.strip()[-600:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def in_turns(commands: Mapping[str, Sequence[object]], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """What each side printed in each round; a side that fails is left out from then on."""
    figures: dict[str, list[dict[str, Any]]] = {side: [] for side in commands}
    for _ in range(rounds):
        for side, command in commands.items():
            if side in figures:
                printed = run(command)
                if printed is None:
                    del figures[side]
                else:
                    figures[side].append(printed)
    return figures


def median(figures: Sequence[Mapping[str, Any]], name: str) -> float:
    """Of one figure over the rounds."""
    return statistics.median(float(each[name]) for each in figures)


def samples_of(tars: Sequence[Path]) -> Iterator[tuple[str, bytes, bytes]]:
    """Key, picture and record of every sample, read with the standard library."""
    for path in tars:
        with tarfile.open(path) as tar:
            members = iter(tar)
            for image, record in zip(members, members, strict=True):
                key = image.name.removesuffix(".jpg")
                picture, text = tar.extractfile(image), tar.extractfile(record)
                if picture is None or text is None:
                    raise SystemExit(f"{path}: {image.name} is no file")
                yield key, picture.read(), text.read()


def report(path: Path | None, summary: dict[str, Any]) -> None:
    """Print the summary as one line of JSON, and write it where that was asked for."""
    summary = {
        **summary,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()],
    }
    line = json.dumps(summary)
    print(line)
    if path is not None:
        path.write_text(line + "\n", encoding="utf-8")


def version(package: str) -> str:
    """Of an installed package."""
    from importlib.metadata import version as installed

    return installed(package)
