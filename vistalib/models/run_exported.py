"""Run an exported file without vistalib: `python run_exported.py FILE IMAGES.npz RESULTS.npz THREADS`.

A file on its own, which imports nothing of the package: it is what a user of an exported file has to write. FILE is an .onnx
file or a .pt2 package. IMAGES holds arrays (N, 3, H, W) of the type and, for a package, the size that the file takes; RESULTS
gets what came of each under the same name. Printed as JSON: the seconds of a run on the first one, the median of three after a
run that is not counted, and the process's peak memory in MB.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def load(path: str, threads: int) -> Callable[[Any], Any]:
    """The file as a function from images to its output, both NumPy arrays."""
    if path.endswith(".pt2"):
        import torch

        torch.set_num_threads(threads)
        package = torch._inductor.aoti_load_package(path)
        number, height, width = json.loads(package.get_metadata()["size"])
        expected = (number, 3, height, width)

        def run(images: Any) -> Any:
            if images.shape != expected:  # the library would not look
                raise ValueError(f"{path} takes images of shape {expected}, got {images.shape}; resize them or export again")
            with torch.inference_mode():
                return package(torch.from_numpy(images)).numpy()

        return run

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"image": images})[0]


def measure(run: Callable[[Any], Any], images: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float | None]]:
    """What comes of every array, and the seconds and memory that it takes."""
    results = {name: run(array) for name, array in images.items()}
    first = next(iter(images.values()))
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        run(first)
        seconds.append(time.perf_counter() - began)
    return results, {"seconds": statistics.median(seconds), "memory_mb": _peak_memory()}


def _peak_memory() -> float | None:
    if sys.platform == "linux":  # where ru_maxrss would count the parent, too
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return None


if __name__ == "__main__":
    with np.load(sys.argv[2]) as held:
        given = dict(held)
    arrays, figures = measure(load(sys.argv[1], int(sys.argv[4])), given)
    np.savez(sys.argv[3], **arrays)
    print(json.dumps(figures))
