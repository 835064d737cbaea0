"""What compilers say when a build fails, and what helps."""

import re
from collections.abc import Sequence
from pathlib import Path

REMEDIES = (
    (r"unsupported GNU version|unsupported clang version|unsupported Microsoft", "nvcc is older than the C++ compiler: "
     "name an older one in CXX (g++-13, say), or install a newer CUDA toolkit"),
    (r"cannot find.*(cudart|lcuda)", "the CUDA toolkit has no runtime library: install it whole, or point CUDA_HOME elsewhere"),
    (r"cannot find -ltorch|cannot find -lc10", "torch's libraries are not beside it: reinstall torch"),
    (r"torch/.*No such file|torch/.*file not found", "torch's headers are missing or too old: install torch 2.10 or newer"),
    (r"unrecognized command.line option|invalid value.*c\+\+20|unrecognized.*-std=", "the C++ compiler is older than C++20: "
     "install GCC 11 or Clang 14, and name it in CXX"),
    (r"Unsupported gpu architecture|not defined for option .gpu-(architecture|code)", "this nvcc does not know that GPU: "
     "install a CUDA toolkit that does, or build for other architectures"),
    (r"insufficient for CUDA runtime|unsupported toolchain|no kernel image", "the driver is older than the CUDA toolkit: "
     "update the driver, or install the toolkit that fits it"),
    (r"No space left", "the disk is full: make room, or set VISTALIB_KERNELS_CACHE and TMPDIR to another disk"),
    (r"Killed|out of memory|Cannot allocate", "memory ran out: build for fewer architectures"),
    (r"Python\.h|libstdc\+\+|bits/", "the C++ compiler lacks its own headers: reinstall it (apt-get install g++)"),
)  # fmt: skip


def explain(command: Sequence[str], output: str) -> str:
    """The first error in a compiler's output, and the remedies known for it."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    is_error = re.compile(r"error\b|fatal|cannot find|not found|Killed|No such file", re.IGNORECASE)
    first = next((line for line in lines if is_error.search(line)), lines[-1] if lines else "no message")
    remedies = [remedy for pattern, remedy in REMEDIES if re.search(pattern, output)]
    known = "; ".join(remedies) or "no remedy is known for it; until it is found, backend='numba' and NVRTC need no build"
    return f"{Path(command[0]).name} failed: {first}\n{known}\nthe command was: {' '.join(command)}"
