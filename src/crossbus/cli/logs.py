"""What crossbus logs, as notes to who runs a command. Apart from the rest: `--help` needs no logging."""

from __future__ import annotations

import logging

from crossbus.cli.exits import note

__all__ = ["hide_log", "show_log"]


class _Notes(logging.Handler):
    """What crossbus logs, as notes to the user."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def show_log(*quiet: str) -> None:
    """Show the warnings of crossbus as notes, but not those of the loggers named."""
    logger = logging.getLogger("crossbus")
    if not any(isinstance(handler, _Notes) for handler in logger.handlers):
        logger.addHandler(_Notes())
        logger.propagate = False
    for name in quiet:
        logging.getLogger(name).setLevel(logging.ERROR)


def hide_log() -> None:
    """Show nothing of what crossbus logs."""
    logger = logging.getLogger("crossbus")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
