"""What records say of the machine they were made on."""

import subprocess
import sys

import numpy as np
import pytest

from vistalib.provenance import peak_memory_mb

ASK = "from vistalib.provenance import peak_memory_mb; print(peak_memory_mb())"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system counts each process for itself")
def test_the_peak_memory_of_a_process_is_its_own_and_not_that_of_the_one_that_started_it() -> None:
    held = np.ones(100_000_000)  # 800 MB
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    assert peak_memory_mb() > held.nbytes / 1e6
    assert float(done.stdout) < held.nbytes / 1e6
