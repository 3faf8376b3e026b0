"""`crossbus dlq list`, `show` and `export`: looking into a dead letter, and moving nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from crossbus.cli.exits import ExitCode, fail, note
from crossbus.cli.interrupts import terminate_as_interrupted
from crossbus.cli.logs import show_log
from crossbus.cli.places import Place, connected
from crossbus.cli.showing import (
    Progress,
    form_of,
    one_line,
    print_line,
    print_table,
    read_time,
    time_text,
)
from crossbus.codecs import encode_json
from crossbus.errors import ErrorCode, provider_error
from crossbus.letters import DeadLetters, Tally
from crossbus.telemetry.making import Telemetries

if TYPE_CHECKING:
    from crossbus.cli.options import OutputChoice
    from crossbus.deadletter import DeadLetter

__all__ = [
    "Which",
    "connection_of",
    "counted",
    "export_letters",
    "keep",
    "letter_line",
    "letters_of",
    "list_letters",
    "new_file",
    "opened",
    "run_look",
    "say_more",
    "say_what_it_hides",
    "show_letters",
]

_encode = msgspec.json.Encoder().encode
_COLUMNS = ("given up", "reason", "attempts", "type", "event", "error")
"""Of a table. Lines begin with the dead letter's own id, which some providers make long."""
_ROWS = 1000
"""The most rows of one table: what is longer becomes several."""


@dataclass(frozen=True)
class Which:
    """Which dead letters: the options as they were given."""

    ids: list[str] | None = None
    type: str | None = None
    reason: str | None = None
    since: str | None = None
    limit: int | None = None

    def arguments(self) -> dict[str, Any]:
        """Return what all of `DeadLetters` takes. Raises `ConfigurationError` for a time that is none."""
        return {"type": self.type, "reason": self.reason, "since": read_time("--since", self.since)}


@asynccontextmanager
async def opened(
    where: str, url: str | None, profile: str | None, config: str | None
) -> AsyncIterator[DeadLetters]:
    """Connect to the dead letter of a subscription, and say what a look costs if it costs anything."""
    async with connected(url, profile, config) as places:
        place = await places.subscription(where)
        letters = letters_of(place)
        say_what_it_hides([(place, letters)])
        yield letters


def letters_of(place: Place) -> DeadLetters:
    """Return the dead letter of a subscription. Raises `UnsupportedError` if its adapter has none."""
    adapter, subscription = place
    adapter.capabilities.require("dead_letters", adapter.name, f"dead letters of {subscription}")
    telemetry = Telemetries(None, None, None).of_topic(subscription.topic, adapter)
    return DeadLetters(adapter, subscription, telemetry)


def say_what_it_hides(looked_at: Iterable[tuple[Place, DeadLetters]]) -> None:
    """Say what a look costs, once for each adapter."""
    hides = {adapter.name: letters.looking.hides for (adapter, _), letters in looked_at}
    for name, seconds in hides.items():
        if seconds:
            note(
                f"{name} shows a dead letter only by handing it out: until this command ends, others do not see what "
                f"it has looked at; if it is killed, for up to {seconds:g} seconds"
            )


def run_look(work: Callable[[], Awaitable[ExitCode]]) -> ExitCode:
    """Do the work of a command that only looks, which a signal ends."""
    show_log()
    terminate_as_interrupted()

    async def main() -> ExitCode:
        return await work()

    return asyncio.run(main())


def say_more(letters: DeadLetters) -> None:
    """Say that a look did not reach all."""
    note(
        f"there may be more: one look reaches {letters.looking.most:,}, and this one did; what is redriven or purged "
        "makes room for the rest"
    )


def counted(count: int) -> str:
    """Say how many dead letters."""
    return "1 dead letter" if count == 1 else f"{count:,} dead letters"


# --- list -----------------------------------------------------------------------------------------------------------


def list_letters(where: str, which: Which, output: OutputChoice | None, **connection: str | None) -> ExitCode:
    """List dead letters, a line each."""
    form = form_of(output)

    async def work() -> ExitCode:
        arguments = which.arguments()
        count, tally, rows = 0, Tally(), []
        async with (
            opened(where, **connection_of(connection)) as letters,
            # One more than is shown, to know whether there are more.
            aclosing(letters.scan(**arguments, limit=(which.limit or 100) + 1, tally=tally)) as scan,
        ):
            async for letter in scan:
                if count == which.limit:
                    note(
                        f"there are more than {count:,}: --limit shows more of them, and dlq summary counts them"
                    )
                    break
                count += 1
                if form == "json":
                    sys.stdout.buffer.write(letter_line(letter))
                elif form == "lines":
                    print_line(*_row(letter))
                else:
                    rows.append(_cells(letter))
                    if len(rows) == _ROWS:
                        print_table(_COLUMNS, rows, right=(2,))
                        rows.clear()
            if not letters.reached_all(tally):
                say_more(letters)
        if rows:
            print_table(_COLUMNS, rows, right=(2,))
        if not count:
            note(f"{where} has no dead letters{_such(which)}")
        return ExitCode.OK

    return run_look(work)


def _such(which: Which) -> str:
    return " of this kind" if which.type or which.reason or which.since else ""


def _row(letter: DeadLetter) -> tuple[object, ...]:
    event = letter.event
    return (
        letter.id,
        time_text(letter.last_time),
        letter.reason,
        letter.attempts,
        None if event is None else event.type,
        None if event is None else event.id,
        letter.error,
    )


def _cells(letter: DeadLetter) -> tuple[object, ...]:
    """Return a row of a table: what `show` and others take stands under `event`."""
    id, given_up, reason, attempts, type, event, error = _row(letter)
    return given_up, reason, attempts, type, event or id, error


# --- show -----------------------------------------------------------------------------------------------------------


def show_letters(where: str, which: Which, output: OutputChoice | None, **connection: str | None) -> ExitCode:
    """Show dead letters whole; without ids, one. Raises `NotFound` if there is none of what is asked for."""
    form = form_of(output)
    missing = set(which.ids or ())

    async def work() -> ExitCode:
        found = 0
        async with (
            opened(where, **connection_of(connection)) as letters,
            aclosing(letters.scan(ids=which.ids, limit=None if which.ids else 1)) as scan,
        ):
            async for letter in scan:
                if found and form != "json":
                    print()
                found += 1
                missing.discard(letter.id)
                missing.discard(letter.event.id if letter.event is not None else "")
                if form == "json":
                    sys.stdout.buffer.write(letter_line(letter))
                else:
                    _show(letter)
        if not found and not missing:
            note(f"{where} has no dead letters")
            return ExitCode.OK
        if not found:
            raise provider_error(
                ErrorCode.NOT_FOUND, f"{where} has no dead letter {', '.join(map(repr, sorted(missing)))}"
            )
        for id in sorted(missing):
            fail(f"{where} has no dead letter {id!r}")
        return ExitCode.FAILED if missing else ExitCode.OK

    return run_look(work)


def _show(letter: DeadLetter) -> None:
    event = letter.event
    for name, value in (
        ("dead letter", letter.id),
        ("reason", letter.reason),
        ("error", letter.error),
        ("handler", letter.handler),
        ("attempts", letter.attempts),
        ("published", time_text(letter.first_time)),
        ("given up", time_text(letter.last_time)),
        ("trace id", _trace_id(letter.traceparent)),
        ("traceparent", letter.traceparent),
    ):
        if value is not None:
            print(f"{name:<12} {one_line(str(value))}")
    if event is None:
        print(f"{'event':<12} it could not be decoded; its bytes:")
        print(one_line((letter.body or b"").decode("utf-8", "backslashreplace")))
        if letter.attributes:
            print(f"{'attributes':<12} {one_line(json.dumps(dict(letter.attributes)))}")
    else:
        print("event")
        for line in json.dumps(json.loads(encode_json(event)), indent=2, ensure_ascii=False).splitlines():
            print(one_line(line))


def _trace_id(traceparent: str | None) -> str | None:
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) >= 4 else None


# --- export ---------------------------------------------------------------------------------------------------------


def export_letters(where: str, file: Path, which: Which, **connection: str | None) -> ExitCode:
    """Write dead letters into a new file, a line each."""

    async def work() -> ExitCode:
        arguments = which.arguments()
        count, tally = 0, Tally()
        progress = Progress("exported")
        async with opened(where, **connection_of(connection)) as letters:
            stream = sys.stdout.buffer if str(file) == "-" else new_file(file)
            try:
                async with aclosing(
                    letters.scan(ids=which.ids, **arguments, limit=which.limit, tally=tally)
                ) as scan:
                    async for letter in scan:
                        stream.write(letter_line(letter))
                        count += 1
                        progress.at(count)
                keep(stream)
            finally:
                progress.end()
                if str(file) != "-":
                    stream.close()
            if which.limit is None and not letters.reached_all(tally):
                say_more(letters)
        note(f"exported {counted(count)} of {where} to {'standard output' if str(file) == '-' else file}")
        return ExitCode.OK

    return run_look(work)


def new_file(path: Path) -> BinaryIO:
    """Open a file that was not there, for its owner alone: what is in events is nobody else's business."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def keep(stream: BinaryIO) -> None:
    """See that what was written is on the disk, if there is one."""
    stream.flush()
    if stream is not sys.stdout.buffer:
        os.fsync(stream.fileno())


def letter_line(letter: DeadLetter) -> bytes:
    """Return a dead letter as a line of JSON: all that is known of it."""
    members: dict[str, object] = {
        "id": letter.id,
        "subscription": f"{letter.topic}/{letter.subscription}",
        "reason": letter.reason,
        "error": letter.error,
        "handler": letter.handler,
        "attempts": letter.attempts,
        "first_time": letter.first_time,
        "last_time": letter.last_time,
        "traceparent": letter.traceparent,
    }
    if letter.event is not None:
        members["event"] = msgspec.Raw(encode_json(letter.event))
    else:
        members["body_base64"] = base64.b64encode(letter.body or b"").decode("ascii")
        members["attributes"] = dict(letter.attributes)
    return _encode(members) + b"\n"


def connection_of(given: dict[str, str | None]) -> dict[str, Any]:
    """Return the options of the connection, each there."""
    return {name: given.get(name) for name in ("url", "profile", "config")}
