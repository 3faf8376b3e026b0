"""Running the cases: one after the other, in parallel, or several times over."""

from __future__ import annotations

import asyncio
import fnmatch
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from crossbus.conformance.cases import Case, Skipped, all_cases
from crossbus.conformance.harness import Harness
from crossbus.conformance.report import Report, Result, lacking
from crossbus.conformance.trial import Trial

__all__ = ["Select", "check", "chosen", "run"]

LIMIT: Final = 120.0
"""Real seconds that a case may take; cases that need more say how many times as much."""

Select = str | Iterable[str] | Callable[[Case], bool] | None
"""Which cases: patterns of names (``order/*``, ``retry``), or a function; None for all."""


async def check(harness: Harness, *, select: Select = None) -> Report:
    """Run the kit, and raise AssertionError with the whole table if a case fails: for a test of one line."""
    report = await run(harness, select=select)
    if not report.ok:
        raise AssertionError(f"the conformance kit failed\n{report.table()}")
    return report


async def run(
    harness: Harness,
    *,
    select: Select = None,
    parallel: int = 1,
    repeat: int = 1,
    timeout: float = LIMIT,
    scale: float = 1.0,
    progress: Callable[[Result], object] | None = None,
) -> Report:
    """Run cases on a harness, each on topics and subscriptions of its own.

    Args:
        harness: What to test.
        select: Which cases; default all.
        parallel: How many run at once. Those that need the process to themselves run alone, at the end.
        repeat: How often each runs.
        timeout: Real seconds for one case. Some need, and have, a multiple.
        scale: Multiplies the harness's scale.
        progress: Called with each result as it comes.

    Returns:
        The report; failures are in it, not raised.
    """
    cases = chosen(select)
    runs = [(case, number) for number in range(1, repeat + 1) for case in cases]
    results: dict[tuple[str, int], Result] = {}
    room = asyncio.Semaphore(parallel)

    async def one(case: Case, number: int) -> None:
        async with room:
            result = await _run_case(harness, case, number, timeout * harness.patience, scale)
        results[case.name, number] = result
        if progress is not None:
            progress(result)

    async with asyncio.TaskGroup() as group:
        for case, number in runs:
            if not case.exclusive:
                group.create_task(one(case, number))
    for case, number in runs:
        if case.exclusive:
            await one(case, number)
    return Report(
        harness.name or type(harness).__name__,
        harness.what_lies_under,
        harness.scale * scale,
        harness.last_verified,
        [results[case.name, number] for case, number in runs],
    )


def chosen(select: Select) -> list[Case]:
    """Return the cases that `select` means. Raises ValueError if it means none."""
    cases = all_cases()
    if select is None:
        return list(cases)
    if callable(select):
        return [case for case in cases if select(case)]
    patterns = [select] if isinstance(select, str) else list(select)
    found = [case for case in cases if any(_matches(case, pattern) for pattern in patterns)]
    if not found:
        groups = ", ".join(dict.fromkeys(case.group for case in cases))
        raise ValueError(f"no conformance case is called {' or '.join(patterns)!r}; groups: {groups}")
    return found


def _matches(case: Case, pattern: str) -> bool:
    return (
        case.group == pattern or fnmatch.fnmatch(case.name, pattern) or pattern == case.name.partition("/")[2]
    )


async def _run_case(harness: Harness, case: Case, number: int, timeout: float, scale: float) -> Result:
    if case.waits_for is not None:
        return Result(case, "skipped", f"waits for a later release: {case.waits_for}", number=number)
    for name in case.requires:
        if not harness.capabilities.has(name):
            return Result(case, "skipped", _lacks(harness, name), number=number)
    began = time.monotonic()
    notes: Sequence[str] = ()
    try:
        async with asyncio.timeout(timeout * case.timeout), Trial(harness, case, scale) as trial:
            await case.function(trial)
            notes = tuple(trial.notes)
    except Skipped as skipped:
        return Result(case, "skipped", _lacks(harness, skipped.missing, skipped.detail), number=number)
    except TimeoutError as error:
        detail = str(error) or f"it did not end within {timeout * case.timeout:g} s"
        return _failed(case, number, began, detail, error)
    except AssertionError as error:
        return _failed(case, number, began, str(error), error)
    except Exception as error:
        return _failed(case, number, began, f"{type(error).__name__}: {error}", error)
    return Result(case, "passed", seconds=time.monotonic() - began, notes=tuple(notes), number=number)


def _failed(case: Case, number: int, began: float, detail: str, error: BaseException) -> Result:
    text = "".join(traceback.format_exception(error))
    return Result(case, "failed", detail, time.monotonic() - began, number=number, error=text)


def _lacks(harness: Harness, capability: str, detail: str = "") -> str:
    return lacking(harness.name, capability, harness.capabilities.emulator_gaps.get(capability), detail)
