"""In a process of its own, since what is set stays set."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from unix.training.host_memory import keep_freed_memory

def step():
    gate = torch.empty(10_000_000).fill_(1)
    gated = gate * 2
    del gate
    gated * 2

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(12):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page faults of glibc's malloc")
def test_freed_memory_is_used_again() -> None:
    faults = {
        choice: int(subprocess.run([sys.executable, "-c", SCRIPT, choice], capture_output=True, check=True).stdout)
        for choice in ("keep", "give back")
    }
    assert faults["give back"] > 10_000
    assert faults["keep"] < 1_000
