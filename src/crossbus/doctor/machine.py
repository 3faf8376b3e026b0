"""What is checked of this machine: Python, and the packages that an adapter needs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any, Final

from crossbus.checks import Result
from crossbus.registry import extra_of

__all__ = ["packages", "python"]

OLDEST: Final = (3, 11)
_NEED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?\s*(>=\s*(?P<version>[0-9.]+))?")


def python(version: Sequence[Any] = sys.version_info) -> Result:
    """Check the version of Python."""
    shown = ".".join(map(str, version[:3]))
    if tuple(version[:2]) < OLDEST:
        return Result("python", "wrong", f"this is Python {shown}; crossbus needs 3.11")
    return Result("python", "ok", f"Python {shown}, crossbus {metadata.version('crossbus')}")


def packages(scheme: str) -> list[Result]:
    """Check the packages of an adapter's extra; nothing of an adapter that has none, or is not crossbus's own."""
    extra = extra_of(scheme)
    if not extra:
        return []
    wrong, well = [], []
    for name, least in _needs(extra):
        try:
            has = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is not installed")
            continue
        if least is not None and _numbers(has) < _numbers(least):
            wrong.append(f"{name} {has} is installed; the {scheme} adapter needs {least} or newer")
        well.append(f"{name} {has}")
    if wrong:
        return [Result("packages", "wrong", "; ".join(wrong))]
    return [Result("packages", "ok", ", ".join(well))]


def _needs(extra: str) -> Iterator[tuple[str, str | None]]:
    for text in metadata.requires("crossbus") or ():
        need, _, marker = text.partition(";")
        found = _NEED.match(need)
        if found is not None and re.search(rf"extra\s*==\s*['\"]{extra}['\"]", marker):
            yield found["name"], found["version"]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
