"""In a process of its own, since what is set stays set."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from unix.training.host_memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keep":
    keep_freed_memory()
torch.ones(16 << 20)
before = faults()
for _ in range(4):
    torch.ones(16 << 20)
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page faults of glibc's malloc")
def test_freed_memory_is_used_again() -> None:
    faults = {
        choice: int(subprocess.run([sys.executable, "-c", SCRIPT, choice], capture_output=True, check=True).stdout)
        for choice in ("keep", "give back")
    }
    assert faults["give back"] > 100
    assert faults["keep"] < 100
