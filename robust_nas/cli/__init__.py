"""The command line `robust-nas`: one file per verb; parse, call the library, print.

Exit codes: 0 done, 1 failed, 2 bad usage, 130 ended by Ctrl-C, 143 by SIGTERM.
Errors of this package are printed without a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from typing import NoReturn, TextIO

import typer

from robust_nas.cli import (
    attack,
    benchmark,
    common,
    compare,
    compress,
    config,
    count,
    defend,
    distill,
    doctor,
    evaluate,
    export,
    predict,
    rank,
    report,
    run,
    runs,
    schema,
    search,
    spaces,
    study,
    train,
)
from robust_nas.distributed import handle_sigterm, launched, may_print
from robust_nas.errors import DataWarning, FigureWarning, LoggerWarning, RecordWarning, RobustNASError

INTERRUPTED = 130  # what typer makes of Ctrl-C
TERMINATED = 128 + signal.SIGTERM

OURS = (FigureWarning, LoggerWarning, RecordWarning)  # warnings that are lines for people
app = typer.Typer(
    help="Search for neural architectures that stay accurate under adversarial attack.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.command)
app.command("search")(search.command)
app.command("train")(train.command)
app.command("evaluate")(evaluate.command)
app.command("defend")(defend.command)
app.command("distill")(distill.command)
app.command("compare")(compare.command)
app.command("compress")(compress.command)
app.command("rank")(rank.command)
app.command("predict")(predict.command)
app.command("report")(report.command)
app.command("export")(export.command)
app.command("count")(count.command)
app.command("doctor")(doctor.command)
app.command("schema")(schema.command)
app.add_typer(attack.app, name="attack")
app.add_typer(benchmark.app, name="benchmark")
app.add_typer(config.app, name="config")
app.add_typer(runs.app, name="runs")
app.add_typer(spaces.app, name="spaces")
app.add_typer(study.app, name="study")


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from robust_nas._version import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point of the console script."""
    _open_closed_streams()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show
            for kind in OURS:
                warnings.simplefilter("always", kind)
            warnings.simplefilter("default", DataWarning)
            # Ranks say together why they end, and one that waits for another must not wait on.
            with handle_sigterm(_terminate if launched() == 1 else signal.SIG_DFL):
                app()
    except RobustNASError as error:
        if _was_terminated(error):
            _say_ended("terminated")
            sys.exit(TERMINATED)
        if may_print(error):
            typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code in (INTERRUPTED, TERMINATED):
            _say_ended("interrupted" if end.code == INTERRUPTED else "terminated")
        raise
    except MemoryError:
        _out_of_memory()
    except RuntimeError as error:
        if "can't allocate memory" not in str(error) and type(error).__name__ != "OutOfMemoryError":
            _own_fault(error)
        _out_of_memory()
    except OSError as error:
        where = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        typer.echo(f"error: {where if _has_folder() else 'the current folder was removed'}", err=True)
        sys.exit(1)
    except Exception as error:
        _own_fault(error)


def _open_closed_streams() -> None:
    """Open what the caller closed (`2>&-`) as the null device: a file of a run must not become standard error."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r", closefd=False))


def _has_folder() -> bool:
    """Return whether the current folder still exists."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _terminate(*_: object) -> NoReturn:
    """End by SIGTERM as by Ctrl-C."""
    raise SystemExit(TERMINATED)


def _was_terminated(error: BaseException | None) -> bool:
    """Return whether an error was made of what `_terminate` raised, by a library that catches everything."""
    while error is not None:
        if isinstance(error, SystemExit) and error.code == TERMINATED:
            return True
        error = error.__cause__ or error.__context__
    return False


def _say_ended(how: str) -> None:
    common.say(
        f"{how}; what was written stays, the last checkpoint too where there is one; "
        "verbs with --resume continue from it"
    )


def _own_fault(error: Exception) -> NoReturn:
    """Report an exception of the user's own code by its line, and a method without its algorithm; raise any other."""
    from robust_nas.user_code import line_of

    line = line_of(error)
    if line is None and not isinstance(error, NotImplementedError):
        raise error
    typer.echo(f"error: {line}: {type(error).__name__}: {error}" if line else f"error: {error}", err=True)
    sys.exit(1)


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of this package like the other lines for people, and any other one as Python does."""
    if issubclass(category, (*OURS, DataWarning)):
        common.say(f"warning: {message}")
    else:
        typer.echo(warnings.formatwarning(message, category, filename, lineno, line), err=True, nl=False)


def _out_of_memory() -> NoReturn:
    typer.echo("error: not enough memory; fewer channels, cells or a smaller batch_size need less", err=True)
    sys.exit(1)
