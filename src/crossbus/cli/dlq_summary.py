"""`crossbus dlq summary`: dead letters by what they share, of one subscription or of several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from crossbus.cli.dlq_look import (
    Which,
    connection_of,
    counted,
    letters_of,
    run_look,
    say_more,
    say_what_it_hides,
)
from crossbus.cli.exits import ExitCode, fail, note
from crossbus.cli.places import connected, in_program
from crossbus.cli.showing import form_of, print_json, print_line, print_table, time_text
from crossbus.errors import CrossbusError
from crossbus.letter_summary import DeadLetterSummary
from crossbus.letters import DeadLetters

if TYPE_CHECKING:
    from crossbus.cli.options import OutputChoice

__all__ = ["print_summary", "show_summary"]

_COLUMNS = ("count", "reason", "type", "handler", "first", "last")


def show_summary(
    where: Sequence[str], which: Which, output: OutputChoice | None, **connection: str | None
) -> ExitCode:
    """Count dead letters by what they share: of the one subscription that is named, or of each of several."""

    async def work() -> ExitCode:
        arguments = which.arguments()
        program, named = in_program(where)
        async with connected(**connection_of(connection), program=program) as places:
            looked_at = [(place, letters_of(place)) for place in await places.subscriptions(named)]
            say_what_it_hides(looked_at)
            if len(named) == 1:
                ((_, letters),) = looked_at
                print_summary(named[0], await letters.summary(**arguments), output, letters)
                return ExitCode.OK
            code, found = ExitCode.OK, []
            for (_, subscription), letters in looked_at:
                try:
                    found.append((str(subscription), await letters.summary(**arguments), letters))
                except CrossbusError as error:
                    fail(f"{subscription}: {' '.join(str(error).split())}")
                    code = ExitCode.FAILED
            _print_several(found, output)
        return code

    return run_look(work)


def print_summary(
    where: str, found: DeadLetterSummary, output: OutputChoice | None, letters: DeadLetters
) -> None:
    """Print a summary in the form asked for."""
    form = form_of(output)
    rows = list(_rows(found))
    if form == "json":
        print_json({"subscription": where, **msgspec.to_builtins(found)})
    elif form == "lines":
        for row in rows:
            print_line(*row)
    else:
        print(f"{where}: {counted(found.count)}")
        if rows:
            print_table(_COLUMNS, rows, right=(0,))
    if not found.complete:
        say_more(letters)


def _print_several(
    found: Sequence[tuple[str, DeadLetterSummary, DeadLetters]], output: OutputChoice | None
) -> None:
    form = form_of(output)
    rows = [(where, *row) for where, summary, _ in found for row in _rows(summary)]
    if form == "json":
        for where, summary, _ in found:
            print_json({"subscription": where, **msgspec.to_builtins(summary)})
    elif form == "lines":
        for row in rows:
            print_line(*row)
    else:
        some = sum(bool(summary.count) for _, summary, _ in found)
        total = counted(sum(summary.count for _, summary, _ in found))
        print(f"{total} in {some:,} of {len(found):,} subscriptions")
        if rows:
            print_table(("subscription", *_COLUMNS), rows, right=(1,))
    for where, summary, letters in found:
        if not summary.complete:
            note(f"of {where}:")
            say_more(letters)


def _rows(found: DeadLetterSummary) -> Iterable[tuple[object, ...]]:
    for one in found.groups:
        yield one.count, one.reason, one.type, one.handler, time_text(one.first), time_text(one.last)
    if found.others:
        yield found.others, "(other reasons)", None, None, None, None
