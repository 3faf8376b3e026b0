"""The registry of cases: what every adapter must do, each under a name that is stable and can be searched for."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crossbus.capabilities import CAPABILITIES

if TYPE_CHECKING:
    from crossbus.conformance.trial import Trial

__all__ = ["GROUPS", "VERSION", "Case", "CaseFunction", "Skipped", "all_cases", "case"]

VERSION: Final = 2
"""The version of the list of cases; it rises when a case is added, removed or renamed."""

GROUPS: Final = (
    "envelope",
    "basic",
    "acknowledgement",
    "lease",
    "retry",
    "replay",
    "order",
    "batch",
    "filters",
    "flow",
    "lifecycle",
    "resilience",
    "trace",
    "errors",
    "stress",
)
"""The groups, in the order of the report. Each is a module of this package."""

CaseFunction = Callable[["Trial"], Awaitable[None]]
"""A case: raises AssertionError if the adapter does something else."""


class Skipped(Exception):  # not an error: the case does not apply here
    """Raised in a case, or by a harness's seam, that cannot run here.

    Args:
        missing: the capability that is missing, of `crossbus.CAPABILITIES`.
        detail: why, if there is more to say than that it is missing.
    """

    def __init__(self, missing: str, detail: str = "") -> None:
        super().__init__(detail or missing)
        self.missing = missing
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Case:
    """One case of the kit."""

    name: str
    """``group/what``: stable, and unique."""
    title: str
    """What must be so, in one line."""
    function: CaseFunction
    starred: bool = False
    """True if no other kit tests it."""
    requires: tuple[str, ...] = ()
    """The capabilities without which it is skipped."""
    waits_for: str | None = None
    """The later release that brings what it tests; None if it runs now."""
    exclusive: bool = False
    """True if nothing else of the process may run beside it."""
    timeout: float = 1.0
    """How many times the runner's time limit it may take."""

    @property
    def group(self) -> str:
        """The part of the name before the slash."""
        return self.name.partition("/")[0]


_registry: dict[str, Case] = {}


def case(
    name: str,
    title: str,
    *,
    starred: bool = False,
    requires: Iterable[str] = (),
    waits_for: str | None = None,
    exclusive: bool = False,
    timeout: float = 1.0,
) -> Callable[[CaseFunction], CaseFunction]:
    """Register a coroutine function as a case. Arguments as in `Case`."""

    def register(function: CaseFunction) -> CaseFunction:
        needed = tuple(sorted(requires))
        unknown = [capability for capability in needed if capability not in CAPABILITIES]
        if unknown or name in _registry:
            raise ValueError(
                f"case {name!r}: {f'unknown capability {unknown[0]!r}' if unknown else 'named twice'}"
            )
        _registry[name] = Case(name, title, function, starred, needed, waits_for, exclusive, timeout)
        return function

    return register


def all_cases() -> tuple[Case, ...]:
    """Return every case, by group and in the order in which each group lists them."""
    for group in GROUPS:
        importlib.import_module(f"crossbus.conformance.{group}")
    return tuple(sorted(_registry.values(), key=lambda case: GROUPS.index(case.group)))
