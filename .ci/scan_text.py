"""Refuses files that look like patient data: `python .ci/scan_text.py FILE...` names each and exits 1.

Looked for are de-identification blanks inside prose (reports of MIMIC-CXR are full of `___`) and patient paths
(`p10/p10000032/s50414267`). Synthetic reports live in a few places, which are named below.
"""

import re
import sys
from pathlib import Path

MAY_HOLD_BLANKS = ("unix/data/", "prompts/", "tests/", "benchmarks/")
"""Where the phantom's templates, the cleaner's rules and invented test reports stand."""

LARGEST_BYTES = 500_000

BLANKS = re.compile(r"[a-z,.:] ?_{3}[ ,.;:\n]")
PATIENT_PATH = re.compile(r"\bp1[0-9]/p(1[0-9]{7})/s(5[0-9]{7})")
DOCUMENTED_PATIENT = ("10000032", "50414267")
"""The first patient in MIMIC-CXR's public documentation, whose path is everyone's example of the layout."""


def faults(path: Path) -> list[str]:
    """What is wrong with one file, in words that do not repeat its text."""
    data = path.read_bytes()
    found = [f"{len(data):,} bytes, above {LARGEST_BYTES:,}"] if len(data) > LARGEST_BYTES else []
    if b"\0" in data[:8192]:
        return found
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(keepends=True), start=1):
        if not path.as_posix().startswith(MAY_HOLD_BLANKS) and BLANKS.search(line):
            found.append(f"line {number}: a de-identification blank inside prose")
        if any(match.groups() != DOCUMENTED_PATIENT for match in PATIENT_PATH.finditer(line)):
            found.append(f"line {number}: a patient's path")
    return found


def main(names: list[str]) -> int:
    """Scan every named file that exists; 1 if any has a fault."""
    status = 0
    for path in map(Path, names):
        for fault in faults(path) if path.is_file() else []:
            sys.stderr.write(f"{path}: {fault}\n")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
