"""The `vistalib` command: what the rooms do, behind one name, typed and checked by tyro.

Exit status: 0 done, 1 failed (one message says what and how to repair it), 2 wrong usage, 75 a training was interrupted and
has written a checkpoint, 130 anything else was interrupted. VISTALIB_TRACEBACK=1 shows where a failure came from;
`vistalib --version` says which version this is.
"""

import os
import sys
import warnings
from collections.abc import Sequence

import tyro

from vistalib import __version__

# Each registers its commands; `vistalib --help` lists them in this order.
from vistalib.cli import train, evaluate, compare, reproduce, predict, models, convert, export, data, bench, kernels, doctor  # noqa: F401  # isort: skip
from vistalib.cli.parts import UsageError, app
from vistalib.cli.train import demo_command, train_command

INTERRUPTED = 75  # vistalib.train.Interrupted ends with it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    warnings.formatwarning = lambda message, *_, **__: f"vistalib: {message}\n"  # a sentence for users, without a line of code
    try:
        if arguments == ["--version"]:
            print(f"vistalib {__version__}")
        elif arguments[:1] == ["demo"]:
            demo_command(arguments[1:])
        elif arguments[:1] == ["train"] and (len(arguments) > 2 or "=" in "".join(arguments)):  # `train --data=FOLDER`, too
            train_command(arguments[1:])
        else:
            app.cli(
                prog="vistalib",
                args=arguments or ["--help"],
                description=__doc__,
                config=(tyro.conf.PositionalMetavarFromFieldName,),
            )
    except UsageError as error:
        return _failed(error, 2)
    except (ValueError, OSError, ModuleNotFoundError, FloatingPointError) as error:
        return _failed(error, 1)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            print(f"vistalib: {stop}", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print("vistalib: interrupted", file=sys.stderr)
        return 130
    return 0


def _failed(error: Exception, status: int) -> int:
    if os.environ.get("VISTALIB_TRACEBACK"):
        raise error
    print(f"vistalib: {error}", file=sys.stderr)
    return status
