"""What tests of several rooms share."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run_python(code: str, *, timeout: float = 120) -> str:
    """Run `code` in a fresh interpreter in the checkout and return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run_with_torch(code: str, *, timeout: float = 120) -> str:
    """Like `run_python`, in a copy of a process that has imported torch and nothing of ours: two seconds sooner."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "out"), Path(folder, "err")
        process = context.Process(target=_run, args=(code, *said))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
        assert process.exitcode == 0, said[1].read_text()
        return said[0].read_text().strip()


def _run(code: str, *said: Path) -> None:
    for number, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(ROOT)
    exec(code, {"__name__": "__main__"})
