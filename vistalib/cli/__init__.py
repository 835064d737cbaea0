"""The `vistalib` command: what the rooms do, behind one name, typed and checked by tyro.

Exit status: 0 done, 1 failed (one message says what and how to repair it), 2 wrong usage, 75 a training was interrupted and
has written a checkpoint, 130 anything else was interrupted. VISTALIB_TRACEBACK=1 shows where a failure came from.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict, Union

import tyro

from vistalib import __version__
from vistalib.cli import bench, compare, convert, data, doctor, evaluate, export, kernels, models, predict, reproduce, train
from vistalib.cli.parts import UsageError

INTERRUPTED = 75  # vistalib.train.Interrupted ends with it
COMMANDS = (  # as `vistalib --help` lists them
    train.demo,
    train.train,
    evaluate.evaluate,
    compare.compare,
    reproduce.reproduce,
    predict.predict,
    models.zoo,
    convert.convert,
    export.export,
    data.data,
    bench.bench,
    kernels.kernels,
    doctor.doctor,
)
Command: Any = Union[  # noqa: UP007  # of as many as there are
    tuple(Annotated[None, tyro.conf.subcommand(command.__name__, constructor=command)] for command in COMMANDS)
]


class CommandLine(TypedDict, total=False):
    """The command that is run; there may be none."""

    command: Annotated[Command, tyro.conf.arg(name="")]


def vistalib(
    line: Annotated[CommandLine, tyro.conf.arg(name="")], *, version: tyro.conf.FlagCreatePairsOff[bool] = False
) -> None:
    """What tyro makes the command of; the one in `line` was run when it calls this.

    Args:
        line: The command.
        version: Say which version this is.
    """
    if version:
        print(f"vistalib {__version__}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    warnings.formatwarning = lambda message, *_, **__: f"vistalib: {message}\n"  # a sentence for users, without a line of code
    try:
        tyro.cli(
            vistalib,
            prog="vistalib",
            args=(sys.argv[1:] if arguments is None else arguments) or ["--help"],
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
