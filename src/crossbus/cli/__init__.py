"""The command line: `crossbus demo`, `publish`, `run`, `dlq` and others.

`main` is the entry point. What the commands need is imported when they run, so that `--help` is quick.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code; see `crossbus.cli.exits` for what the codes mean.

    Args:
        arguments: The words after ``crossbus``. Default: those that the process was started with.
    """
    from crossbus.cli.app import app
    from crossbus.cli.exits import guarded

    code = guarded(app, arguments)
    if (
        arguments is None
    ):  # the process has nothing left to do: Ctrl-C ends it, without a traceback from its exit
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise SystemExit(code)
