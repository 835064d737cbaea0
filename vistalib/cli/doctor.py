"""`vistalib doctor`: what this installation can do."""

import dataclasses
import sys
import time
from pathlib import Path

from vistalib.files import read_json, write_json


def doctor(*, json: Path | None = None) -> None:
    """Say what this installation can do, and how to repair what it cannot.

    Args:
        json: File for the same as JSON.
    """
    from vistalib.ops import backend_status
    from vistalib.provenance import provenance

    facts, backends = provenance(), [dataclasses.asdict(status) for status in backend_status()]
    for name, value in facts.items():
        if name != "versions":
            print(f"{name:10}  {'-' if value is None else value}")
    for package, version in facts["versions"].items():
        print(f"{package:24}{version or _missing(package)}")
    print("\nbackends of DCNv3")
    for backend in backends:
        reason = backend["reason"].replace("\n", f"\n{'':26}")  # a compiler's message has several lines
        print(f"  {backend['name']:12}{'usable' if backend['usable'] else 'not usable':12}{reason}")
        if backend["repair"] is not None:
            print(f"{'':26}run: {backend['repair']}")
    if json is not None:
        write_json(json, {"facts": facts, "backends": backends})


def _missing(package: str) -> str:
    """Why `package` is not there: what an installation in the background has written of it, or else how to install it."""
    state = Path(sys.prefix) / f"{package}.json"
    if not state.exists():
        return f"not installed; run: python -m pip install {package}"
    said = read_json(state)
    if said["running"] and time.time() - state.stat().st_mtime > 60:  # it writes every few seconds
        return "its build in the background was interrupted; the next `make demo` or `make test` begins it again"
    return str(said["line"])
