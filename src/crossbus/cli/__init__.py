"""The command line: `crossbus demo`, `publish`, `run`, `dlq` and others.

`main` is the entry point. What the commands need is imported when they run, so that `--help` is quick.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code; see `crossbus.cli.exits` for what the codes mean.

    Args:
        arguments: The words after ``crossbus``. Default: those that the process was started with.
    """
    from crossbus.cli.app import app
    from crossbus.cli.exits import guarded

    raise SystemExit(guarded(app, arguments))
