import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from unix.errors import UnixError
from unix.evaluation.settings import PredictorConfig
from unix.evaluation.workers import PredictorPool

IMAGES = list(np.zeros((4, 32, 32), np.uint8))

HOLD_A_POOL = """
import sys, time
import numpy as np
from unix.evaluation.settings import PredictorConfig
from unix.evaluation.workers import PredictorPool

pool = PredictorPool(PredictorConfig(checkpoint=sys.argv[1]), 1)
pool.describe([np.zeros((32, 32), np.uint8)])
print(*pool._executor._processes, flush=True)
time.sleep(600)
"""


def test_a_worker_that_dies_is_one_clear_error(checkpoint: Path) -> None:
    with PredictorPool(PredictorConfig(checkpoint=str(checkpoint), max_new_tokens=4), 1) as pool:
        assert len(pool.describe(IMAGES)) == 4
        (worker,) = pool._executor._processes
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(UnixError, match="worker process died"):
            pool.describe(IMAGES)


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(checkpoint: Path, repository: Path) -> None:
    command = [sys.executable, "-c", HOLD_A_POOL, str(checkpoint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    for _ in range(300):
        if not Path(f"/proc/{worker}").exists():
            return
        time.sleep(0.1)
    pytest.fail("the worker outlives its parent")
