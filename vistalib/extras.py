"""Packages that only some features need: the sentence to raise when one of them is not installed."""


def missing(package: str, purpose: str) -> ModuleNotFoundError:
    """The error to raise `from` the failed import of an optional package.

    `package` is the name pip knows; `purpose` completes "... is needed to <purpose>".
    """
    return ModuleNotFoundError(f"{package} is needed to {purpose}, and is not installed; run: python -m pip install {package}")
