"""`crossbus dlq redrive` and `purge`: putting events back, and throwing them away."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import typer

from crossbus.cli.dlq_look import Which, keep, letter_line, new_file, opened
from crossbus.cli.dlq_summary import print_summary
from crossbus.cli.exits import ExitCode, fail, note
from crossbus.cli.interrupts import interrupts
from crossbus.cli.logs import show_log
from crossbus.cli.showing import Progress, form_of, print_json
from crossbus.errors import ConfigurationError, InvalidRequest, ProviderError
from crossbus.letter_summary import DeadLetterSummary
from crossbus.letters import DeadLetters, Tally
from crossbus.telemetry.setting_up import set_up

if TYPE_CHECKING:
    from crossbus.cli.options import OutputChoice
    from crossbus.deadletter import DeadLetter

__all__ = ["purge_letters", "redrive_letters"]


def redrive_letters(
    where: str,
    which: Which,
    output: OutputChoice | None,
    *,
    rate: float | None,
    dry_run: bool,
    url: str | None,
    profile: str | None,
    config: str | None,
) -> ExitCode:
    """Put events back, and say how many. Their spans are exported as OpenTelemetry's variables say."""
    show_log()
    end_telemetry = set_up("crossbus-dlq", note=note)

    async def main() -> ExitCode:
        async with opened(where, url, profile, config) as letters:
            if dry_run:
                return await _show_chosen(where, which, output, letters, "put back")
            return await _redrive(where, which, output, letters, rate)

    try:
        return asyncio.run(main())
    finally:
        end_telemetry()


async def _redrive(
    where: str, which: Which, output: OutputChoice | None, letters: DeadLetters, rate: float | None
) -> ExitCode:
    tally, progress = Tally(), Progress("put back")
    code = ExitCode.OK
    with interrupts(lambda: f"stopped: put back {tally.done:,} of {where} for certain") as stop:
        try:
            await letters.redrive(
                which.ids,
                **which.arguments(),
                limit=which.limit,
                rate=rate,
                tally=tally,
                progress=lambda now: progress.at(now.done, gone=now.gone, refused=now.refused),
                stop=stop,
            )
        except InvalidRequest as error:
            if not tally.refused:
                raise
            progress.end()
            fail(" ".join(str(error).split()))
            code = ExitCode.FAILED
        except ProviderError as error:
            if not tally.done:
                raise
            progress.end()
            fail(" ".join(str(error).split()))
            code = ExitCode.FAILED
        finally:
            progress.end()
    stopped = stop.is_set()
    _say(where, "put back", tally, output, interrupted=stopped)
    return ExitCode.INTERRUPTED if stopped else code


def purge_letters(
    where: str,
    which: Which,
    output: OutputChoice | None,
    *,
    file: Path | None,
    yes: bool,
    dry_run: bool,
    url: str | None,
    profile: str | None,
    config: str | None,
) -> ExitCode:
    """Remove dead letters, each after it was written into a file; and say how many."""
    show_log()
    path = file or Path(f"{where.replace('/', '--')}--dead-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl")
    if not dry_run and path.exists():
        raise ConfigurationError(f"{path} is there already; name a new file with --export")

    async def main() -> ExitCode:
        async with opened(where, url, profile, config) as letters:
            if dry_run:
                return await _show_chosen(where, which, output, letters, "removed")
            limit = which.limit if yes else await _ask(where, which, letters, path)
            if limit == 0:
                note("there is nothing to remove")
                return ExitCode.OK
            return await _purge(where, which, output, letters, path, limit)

    return asyncio.run(main())


async def _ask(where: str, which: Which, letters: DeadLetters, path: Path) -> int:
    """Ask, and return how many may be removed: as many as the question said."""
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"purging {where} removes dead letters for good, and there is nobody to ask: --yes says that it may"
        )
    count = _limited(await _chosen(which, letters), which)
    if count and not typer.confirm(
        f"Remove {count:,} dead letters of {where} for good? They are written into {path} before.", err=True
    ):
        raise typer.Abort
    return count


async def _purge(
    where: str, which: Which, output: OutputChoice | None, letters: DeadLetters, path: Path, limit: int | None
) -> ExitCode:
    tally, progress = Tally(), Progress("removed")
    stream: BinaryIO | None = None

    async def export(page: Sequence[DeadLetter]) -> None:
        nonlocal stream
        stream = stream or new_file(path)
        for letter in page:
            stream.write(letter_line(letter))
        keep(stream)

    with interrupts(
        lambda: f"stopped: removed {tally.done:,} of {where} for certain; they are in {path}"
    ) as stop:
        try:
            await letters.purge(
                which.ids,
                **which.arguments(),
                limit=limit,
                before=export,
                tally=tally,
                progress=lambda now: progress.at(now.done, gone=now.gone),
                stop=stop,
            )
        finally:
            progress.end()
            if stream is not None:
                stream.close()
    _say(where, "removed", tally, output, interrupted=stop.is_set(), file=path if stream else None)
    return ExitCode.INTERRUPTED if stop.is_set() else ExitCode.OK


# --- what is said ---------------------------------------------------------------------------------------------------


async def _show_chosen(
    where: str, which: Which, output: OutputChoice | None, letters: DeadLetters, done: str
) -> ExitCode:
    found = await _chosen(which, letters)
    print_summary(where, found, output, letters)
    note(f"dry run: {_limited(found, which):,} would be {done}; nothing was done")
    return ExitCode.OK


async def _chosen(which: Which, letters: DeadLetters) -> DeadLetterSummary:
    return await letters.summary(which.ids, **which.arguments())


def _limited(found: DeadLetterSummary, which: Which) -> int:
    return found.count if which.limit is None else min(found.count, which.limit)


def _say(
    where: str,
    done: str,
    tally: Tally,
    output: OutputChoice | None,
    *,
    interrupted: bool,
    file: Path | None = None,
) -> None:
    if form_of(output) == "json":
        counts = {name: getattr(tally, name) for name in ("done", "gone", "twice", "refused", "newer")}
        more = {} if file is None else {"file": str(file)}
        print_json({"subscription": where, "interrupted": interrupted, **counts, **more})
        return
    print(f"{'interrupted: ' if interrupted else ''}{done} {tally.done:,} of {where}", flush=True)
    if file is not None:
        note(f"they are in {file}")
    if tally.gone:
        note(f"{tally.gone:,} were gone already: somebody else had put them back, or removed them")
    if tally.newer:
        note(f"{tally.newer:,} came into the dead letter after this began, and were left there")
    if interrupted:
        note("the rest is where it was: the same command goes on with it")
