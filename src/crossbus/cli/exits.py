"""How a command ends: its exit code, and one line on standard error instead of a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Final

import typer

from crossbus.errors import CrossbusError

__all__ = [
    "ExitCode",
    "UserCodeError",
    "debugging",
    "fail",
    "guarded",
    "note",
    "set_debug",
]


class ExitCode(IntEnum):
    """What a command tells its caller."""

    OK = 0
    """All of it was done."""
    FAILED = 1
    """Part of it was not: an event was not published, a case failed, topologies differ, the program of `run` failed."""
    USAGE = 2
    """Nothing more could be done: usage, configuration, declarations, or the provider refused."""
    INTERNAL = 3
    """A mistake in crossbus itself."""
    INTERRUPTED = 130
    """Ctrl-C, or SIGTERM while publishing. What was begun was finished first, and is counted."""


class UserCodeError(Exception):
    """The user's own module failed; `report` is the traceback of his code, ready to print."""

    def __init__(self, message: str, report: str) -> None:
        super().__init__(message)
        self.report = report


# Typer brings its own copy of click from some version on, so the class is named by what both make public.
_ClickException: Final[type[Exception]] = next(
    cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException"
)

_debug = False


def set_debug(on: bool) -> bool:
    """Switch tracebacks on, by `--debug`. Returns its argument, as the callback of an option does."""
    global _debug
    _debug = _debug or on
    return on


def debugging() -> bool:
    """True if tracebacks were asked for, by `--debug` or `CROSSBUS_DEBUG=1`."""
    return _debug or os.environ.get("CROSSBUS_DEBUG", "") not in ("", "0")


def note(text: str) -> None:
    """Tell the user something beside the result: one line on standard error."""
    print(f"note: {text}", file=sys.stderr, flush=True)


def fail(text: str) -> None:
    """Say what went wrong: one line on standard error."""
    print(f"error: {text}", file=sys.stderr, flush=True)


def guarded(app: Callable[..., Any], arguments: Sequence[str] | None = None) -> int:
    """Run a typer application and return the exit code. No exception of a user's mistake gets out as a traceback."""
    global _debug
    _debug = False
    try:
        code = app(args=arguments, prog_name="crossbus", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return _closed_pipe()
    except Exception as error:
        return _report(error)
    return int(code) if isinstance(code, int) else ExitCode.OK


def _report(error: Exception) -> int:
    if isinstance(error, typer.Abort):
        fail("aborted")
        return ExitCode.INTERRUPTED
    if debugging():
        import traceback

        traceback.print_exception(error)
    if isinstance(error, UserCodeError):
        print(error.report, file=sys.stderr, end="")
        fail(str(error))
        return ExitCode.FAILED
    if isinstance(error, _ClickException):
        fail(f"{_one_line(error.format_message())}{_where_to_look(error)}")  # type: ignore[attr-defined]
        return ExitCode.USAGE
    if isinstance(error, CrossbusError):
        fail(_one_line(str(error)))
        return ExitCode.USAGE
    if isinstance(error, OSError) and error.filename is not None:
        fail(f"{error.filename}: {error.strerror}")
        return ExitCode.USAGE
    hint = "" if debugging() else " (this is a mistake in crossbus; --debug shows the traceback)"
    fail(f"{type(error).__name__}: {_one_line(str(error))}{hint}")
    return ExitCode.INTERNAL


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _where_to_look(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return "" if context is None else f" (see: {context.command_path} --help)"


def _closed_pipe() -> int:
    # Python flushes standard output once more at exit, which would complain again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.FAILED
